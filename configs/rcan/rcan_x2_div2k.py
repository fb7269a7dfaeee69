# RCAN x2 as published, BasicSR's: 10 groups of 20 blocks, 64 channels.
_base_ = ["../_base_/schedule_1m.py", "../_base_/div2k_sr.py"]

scale = 2
task = dict(name="super_resolution", scale=scale)
model = dict(
    generator=dict(
        type="BasicSRArch",
        arch=dict(
            type="RCAN",
            num_in_ch=3,
            num_out_ch=3,
            num_feat=64,
            num_group=10,
            num_block=20,
            upscale=scale,
            img_range=255.0,
        ),
    )
)
train_dataloader = dict(dataset=dict(scale=scale))
val_dataloader = dict(dataset=dict(scale=scale))
test_dataloader = val_dataloader
