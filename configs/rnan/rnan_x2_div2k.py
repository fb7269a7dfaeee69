# RNAN x2 as published: 10 groups of 64 channels, trained by the mean squared error.
_base_ = ["../_base_/schedule_1m.py", "../_base_/div2k_sr.py"]

scale = 2
task = dict(name="super_resolution", scale=scale)
model = dict(generator=dict(type="RNAN", scale=scale), pixel_loss=dict(type="MSELoss"))
train_dataloader = dict(dataset=dict(scale=scale))
val_dataloader = dict(dataset=dict(scale=scale))
test_dataloader = val_dataloader
