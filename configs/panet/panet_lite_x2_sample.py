# The demonstration: panet_small_x2_div2k.py, in one stage, on the sample set of data_prep/sample.py; a few minutes on
# two CPU cores. SAMPLE_ROOT moves the data.
_base_ = ["panet_small_x2_div2k.py"]

data_root = "{{$SAMPLE_ROOT:data/sample}}"
load_from = None
iterations = 800
interval = 200
model = dict(generator=dict(num_blocks=4))
train_dataloader = dict(batch_size=8, dataset=dict(data_root=data_root, patch_size=24))
val_dataloader = dict(num_workers=0, dataset=dict(data_root=data_root))
test_dataloader = val_dataloader

train_cfg = dict(max_iters=iterations, val_interval=interval)
optim_wrapper = dict(optimizer=dict(lr=2e-3))
default_hooks = dict(checkpoint=dict(interval=interval, max_keep_ckpts=1), logger=dict(interval=50))
log_processor = dict(window_size=50)
auto_scale_lr = dict(base_batch_size=8)
