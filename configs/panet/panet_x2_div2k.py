# PA-EDSR x2 as published: 32 blocks of 256 channels.
_base_ = ["../_base_/schedule_1m.py", "../_base_/div2k_sr.py"]

scale = 2
task = dict(name="super_resolution", scale=scale)
model = dict(generator=dict(type="PAEDSR", scale=scale))
train_dataloader = dict(dataset=dict(scale=scale))
val_dataloader = dict(dataset=dict(scale=scale))
test_dataloader = val_dataloader
