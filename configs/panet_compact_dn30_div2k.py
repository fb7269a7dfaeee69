# The bundled network for colour denoising, sigma 30: a small PANet, trained for half an hour on one CPU core.
_base_ = ["_base_/schedule_compact.py", "_base_/restoration.py", "_base_/div2k_clean.py"]

task = dict(name="denoising", sigma=30)
model = dict(generator=dict(type="PANet", mid_channels=32, num_blocks=8))
train_dataloader = dict(dataset=dict(task=task, patch_size=24), num_workers=1)
val_dataloader = dict(dataset=dict(task=task))
test_dataloader = val_dataloader
