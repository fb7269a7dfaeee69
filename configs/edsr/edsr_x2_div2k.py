# EDSR x2, the baseline of panet_x2_div2k.py: the same without attention.
_base_ = ["../_base_/schedule_1m.py", "../_base_/div2k_sr.py"]

scale = 2
task = dict(name="super_resolution", scale=scale)
model = dict(
    generator=dict(
        type="EDSRNet",
        in_channels=3,
        out_channels=3,
        mid_channels=256,
        num_blocks=32,
        upscale_factor=scale,
        res_scale=0.1,
        rgb_mean=[0.4488, 0.4371, 0.4040],
    )
)
train_dataloader = dict(dataset=dict(scale=scale))
val_dataloader = dict(dataset=dict(scale=scale))
test_dataloader = val_dataloader
