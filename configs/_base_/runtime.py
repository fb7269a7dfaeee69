# Everything that no experiment changes: registration, the model around the network, logging, checkpoints, validation.
default_scope = "mmagic"
custom_imports = dict(imports=["panet_plugin.frameworks.mmagic"], allow_failed_imports=False)

# The image-to-image model of MMagic around `generator`, which the experiment names: RGB or gray in [0, 1], L1.
model = dict(
    type="BaseEditModel",
    pixel_loss=dict(type="L1Loss", loss_weight=1.0, reduction="mean"),
    train_cfg=dict(),
    test_cfg=dict(),
    data_preprocessor=dict(type="DataPreprocessor", mean=[0.0], std=[255.0]),
)

default_hooks = dict(
    timer=dict(type="IterTimerHook"),
    logger=dict(type="LoggerHook", interval=100),
    param_scheduler=dict(type="ParamSchedulerHook"),
    checkpoint=dict(
        type="CheckpointHook",
        interval=5000,
        by_epoch=False,
        max_keep_ckpts=10,
        save_best="PSNR",
        rule="greater",
    ),
    sampler_seed=dict(type="DistSamplerSeedHook"),
)
env_cfg = dict(
    cudnn_benchmark=True,
    mp_cfg=dict(mp_start_method="fork", opencv_num_threads=0),
    dist_cfg=dict(backend="nccl"),
)
# The learning rates of all schedules are for batches of 16; enable=True scales them by the batch of all processes.
auto_scale_lr = dict(enable=False, base_batch_size=16)
log_level = "INFO"
log_processor = dict(type="LogProcessor", window_size=100, by_epoch=False)
vis_backends = [dict(type="LocalVisBackend"), dict(type="TensorboardVisBackend")]
visualizer = dict(type="Visualizer", vis_backends=vis_backends)
randomness = dict(seed=0)
load_from = None
resume = False

val_cfg = dict(type="MultiValLoop")
test_cfg = dict(type="MultiTestLoop")
