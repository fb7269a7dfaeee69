# The schedule of the bundled weights, half an hour of one CPU core for a network of 8 blocks of 32 channels: Adam 1e-3
# falls along a cosine to 1e-6 in 3k iterations.
_base_ = ["schedule_lite.py"]

iterations = 3000
train_cfg = dict(max_iters=iterations, val_interval=iterations)
optim_wrapper = dict(optimizer=dict(lr=1e-3))
default_hooks = dict(checkpoint=dict(interval=250, max_keep_ckpts=1, save_best=None), logger=dict(interval=50))
