# The bundled network for x2 super-resolution: a small PA-EDSR, trained for half an hour on one CPU core.
_base_ = ["_base_/schedule_compact.py", "_base_/restoration.py", "_base_/div2k_sr.py"]

scale = 2
model = dict(
    generator=dict(
        type="PAEDSR", scale=scale, mid_channels=32, num_blocks=8, res_scale=1.0, attention=dict(reduction=2)
    )
)
train_dataloader = dict(dataset=dict(scale=scale, patch_size=24), num_workers=1)
val_dataloader = dict(dataset=dict(scale=scale))
test_dataloader = val_dataloader
