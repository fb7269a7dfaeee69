# A schedule for a laptop: Adam with a cosine from 2e-4 to 1e-6 at the last iteration (default 20,000).
_base_ = ["runtime.py"]

train_cfg = dict(type="IterBasedTrainLoop", max_iters=20_000, val_interval=1000)
optim_wrapper = dict(
    type="OptimWrapper",
    constructor="DefaultOptimWrapperConstructor",
    optimizer=dict(type="Adam", lr=2e-4, betas=(0.9, 0.999), eps=1e-8),
)
param_scheduler = dict(type="CosineAnnealingLR", by_epoch=False, eta_min=1e-6)
default_hooks = dict(checkpoint=dict(interval=1000))
