# The published schedule: Adam 1e-4, halved at 200k, 400k, 600k and 800k of 1M iterations.
_base_ = ["runtime.py"]

train_cfg = dict(type="IterBasedTrainLoop", max_iters=1_000_000, val_interval=5000)
optim_wrapper = dict(
    type="OptimWrapper",
    constructor="DefaultOptimWrapperConstructor",
    optimizer=dict(type="Adam", lr=1e-4, betas=(0.9, 0.999), eps=1e-8),
)
param_scheduler = dict(type="MultiStepLR", by_epoch=False, milestones=[200_000, 400_000, 600_000, 800_000], gamma=0.5)
