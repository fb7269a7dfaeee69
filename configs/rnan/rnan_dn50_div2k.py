# RNAN for color denoising, sigma 50, as published: 10 groups of 64 channels, trained by the mean squared error.
_base_ = ["../_base_/schedule_1m.py", "../_base_/div2k_clean.py"]

task = dict(name="denoising", sigma=50, gray=False)
model = dict(generator=dict(type="RNAN"), pixel_loss=dict(type="MSELoss"))
train_dataloader = dict(dataset=dict(task=task))
val_dataloader = dict(dataset=dict(task=task))
test_dataloader = val_dataloader
