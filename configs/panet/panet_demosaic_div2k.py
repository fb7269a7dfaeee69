# PANet for demosaicing, as published: 80 blocks of 64 channels.
_base_ = ["../_base_/schedule_1m.py", "../_base_/div2k_clean.py"]

task = dict(name="demosaicing")
model = dict(generator=dict(type="PANet"))
train_dataloader = dict(dataset=dict(task=task))
val_dataloader = dict(dataset=dict(task=task))
test_dataloader = val_dataloader
