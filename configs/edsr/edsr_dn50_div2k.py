# EDSR at the size of its input for color denoising, sigma 50: PANet's 80 blocks of 64 channels, without attention.
_base_ = ["../_base_/schedule_1m.py", "../_base_/div2k_clean.py"]

task = dict(name="denoising", sigma=50, gray=False)
model = dict(
    generator=dict(
        type="EDSRNet",
        in_channels=3,
        out_channels=3,
        mid_channels=64,
        num_blocks=80,
        upscale_factor=1,
        res_scale=1.0,
        rgb_mean=[0.4488, 0.4371, 0.4040],
    )
)
train_dataloader = dict(dataset=dict(task=task))
val_dataloader = dict(dataset=dict(task=task))
test_dataloader = val_dataloader
