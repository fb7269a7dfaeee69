# A small PANet for demosaicing, that a laptop can train.
_base_ = ["_base_/schedule_lite.py", "_base_/restoration.py", "_base_/div2k_clean.py"]

task = dict(name="demosaicing")
model = dict(generator=dict(type="PANet", mid_channels=32, num_blocks=8))
train_dataloader = dict(dataset=dict(task=task), num_workers=2)
val_dataloader = dict(dataset=dict(task=task))
test_dataloader = val_dataloader
