# EDSR for x2 super-resolution, the baseline of panet_compact_x2_div2k.py, trained alike.
_base_ = ["_base_/schedule_compact.py", "_base_/restoration.py", "_base_/div2k_sr.py"]

scale = 2
model = dict(
    generator=dict(
        type="EDSRNet",
        in_channels=3,
        out_channels=3,
        mid_channels=32,
        num_blocks=8,
        upscale_factor=scale,
        res_scale=1.0,
        rgb_mean=[0.4488, 0.4371, 0.4040],
    )
)
train_dataloader = dict(dataset=dict(scale=scale, patch_size=24), num_workers=1)
val_dataloader = dict(dataset=dict(scale=scale))
test_dataloader = val_dataloader
