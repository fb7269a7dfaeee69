# Denoising, sigma 50, for ablations: an EDSR at the size of its input, 8 blocks of 32 channels, with pyramid attention
# after the fourth; 800 iterations of 8 patches of 32x32. What a set of settings does not change is the same for all.
_base_ = ["../../_base_/schedule_lite.py", "../../_base_/div2k_clean.py"]

iterations = 800
model = dict(
    generator=dict(
        type="WithPyramidAttention",
        arch=dict(
            type="BasicSRArch",
            arch=dict(type="EDSR", num_in_ch=3, num_out_ch=3, num_feat=32, num_block=8, upscale=1, img_range=1.0),
        ),
        at=["body.3"],
        attention=dict(levels=5, ksize=3),
    )
)
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    dataset=dict(task=dict(name="denoising", sigma=50), patch_size=32),
)
train_cfg = dict(max_iters=iterations)
optim_wrapper = dict(optimizer=dict(lr=1e-3))
auto_scale_lr = dict(base_batch_size=8)
default_hooks = dict(checkpoint=dict(interval=100), logger=dict(interval=50))
log_processor = dict(window_size=50)
vis_backends = [dict(type="LocalVisBackend")]
visualizer = dict(type="Visualizer", vis_backends=vis_backends)
