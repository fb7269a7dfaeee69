# The backbone of the small network for x2 super-resolution: the first of its two stages of training.
_base_ = ["../_base_/schedule_small.py", "../_base_/div2k_sr.py"]

scale = 2
task = dict(name="super_resolution", scale=scale)
model = dict(
    generator=dict(
        type="PAEDSR",
        scale=scale,
        mid_channels=32,
        num_blocks=8,
        res_scale=1.0,
        attention=False,
        image_residual=True,
    )
)
train_dataloader = dict(dataset=dict(scale=scale, patch_size=32), num_workers=1)
val_dataloader = dict(dataset=dict(scale=scale))
test_dataloader = val_dataloader
