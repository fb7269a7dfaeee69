# PANet for gray denoising, sigma 50, as published: 80 blocks of 64 channels.
_base_ = ["panet_gray_dn10_div2k.py"]

task = dict(sigma=50)
train_dataloader = dict(dataset=dict(task=task))
val_dataloader = dict(dataset=dict(task=task))
test_dataloader = val_dataloader
