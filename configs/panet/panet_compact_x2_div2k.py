# The bundled network for x2 super-resolution: a small PA-EDSR, trained for half an hour on one CPU core.
_base_ = ["../_base_/schedule_lite.py", "../_base_/div2k_sr.py"]

scale = 2
task = dict(name="super_resolution", scale=scale)
model = dict(
    generator=dict(
        type="PAEDSR", scale=scale, mid_channels=32, num_blocks=8, res_scale=1.0, attention=dict(reduction=2)
    )
)
train_dataloader = dict(dataset=dict(scale=scale, patch_size=24), num_workers=1)
val_dataloader = dict(dataset=dict(scale=scale))
test_dataloader = val_dataloader

# Half an hour of one CPU core: Adam 1e-3 falls along a cosine to 1e-6.
iterations = 3000
train_cfg = dict(max_iters=iterations, val_interval=iterations)
optim_wrapper = dict(optimizer=dict(lr=1e-3))
default_hooks = dict(checkpoint=dict(interval=250, max_keep_ckpts=1, save_best=None), logger=dict(interval=50))
