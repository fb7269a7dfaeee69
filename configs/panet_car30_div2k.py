# PANet for JPEG artifact reduction, quality 30, as published: 80 blocks of 64 channels.
_base_ = ["panet_car10_div2k.py"]

task = dict(quality=30)
train_dataloader = dict(dataset=dict(task=task))
val_dataloader = dict(dataset=dict(task=task))
test_dataloader = val_dataloader
