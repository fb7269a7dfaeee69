# A small PANet for JPEG artifact reduction, quality 20, that a laptop can train.
_base_ = ["panet_lite_car10_div2k.py"]

task = dict(quality=20)
train_dataloader = dict(dataset=dict(task=task))
val_dataloader = dict(dataset=dict(task=task))
test_dataloader = val_dataloader
