# The recipe of the small networks: Muon 2e-3, in bfloat16 on devices that have it, with 200 iterations of warm-up, then
# along a cosine to 1e-6 at the last iteration, however many there are; gradients clipped at a norm of 1. The weights
# are averaged over about the last 1000 iterations: it is the average that is validated and saved.
_base_ = ["schedule_lite.py"]

train_cfg = dict(max_iters=30_000, val_interval=5000)
optim_wrapper = dict(
    type="BFloat16OptimWrapper",
    optimizer=dict(_delete_=True, type="MuonAdam", lr=2e-3),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [
    dict(type="LinearLR", by_epoch=False, begin=0, end=200, start_factor=1e-3),
    dict(type="CosineAnnealingLR", by_epoch=False, begin=200, eta_min=1e-6),
]
custom_hooks = [
    dict(type="ChannelsLastHook"),
    dict(type="EMAHook", ema_type="MomentumAnnealingEMA", momentum=1e-3, gamma=10),
]
default_hooks = dict(checkpoint=dict(interval=1000, max_keep_ckpts=2, save_best=None), logger=dict(interval=200))
