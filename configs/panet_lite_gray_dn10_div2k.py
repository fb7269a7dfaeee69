# A small PANet for gray denoising, sigma 10, that a laptop can train.
_base_ = ["_base_/schedule_lite.py", "_base_/restoration.py", "_base_/div2k_clean.py"]

task = dict(name="denoising", gray=True, sigma=10)
model = dict(generator=dict(type="PANet", in_channels=1, mid_channels=32, num_blocks=8))
train_dataloader = dict(dataset=dict(task=task), num_workers=2)
val_dataloader = dict(dataset=dict(task=task))
test_dataloader = val_dataloader
