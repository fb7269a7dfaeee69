# A small PA-EDSR x2 that a laptop can train.
_base_ = ["../_base_/schedule_lite.py", "../_base_/div2k_sr.py"]

scale = 2
task = dict(name="super_resolution", scale=scale)
model = dict(
    generator=dict(
        type="PAEDSR", scale=scale, mid_channels=32, num_blocks=8, res_scale=1.0, attention=dict(reduction=2)
    )
)
train_dataloader = dict(dataset=dict(scale=scale), num_workers=2)
val_dataloader = dict(dataset=dict(scale=scale))
test_dataloader = val_dataloader
