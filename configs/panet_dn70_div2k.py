# PANet for colour denoising, sigma 70, as published: 80 blocks of 64 channels.
_base_ = ["panet_dn10_div2k.py"]

task = dict(sigma=70)
train_dataloader = dict(dataset=dict(task=task))
val_dataloader = dict(dataset=dict(task=task))
test_dataloader = val_dataloader
