# RNAN for colour denoising, sigma 30, as published: 10 groups of 64 channels, trained by the mean squared error.
_base_ = ["rnan_dn10_div2k.py"]

task = dict(sigma=30)
train_dataloader = dict(dataset=dict(task=task))
val_dataloader = dict(dataset=dict(task=task))
test_dataloader = val_dataloader
