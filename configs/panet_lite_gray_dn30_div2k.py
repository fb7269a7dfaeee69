# A small PANet for gray denoising, sigma 30, that a laptop can train.
_base_ = ["panet_lite_gray_dn10_div2k.py"]

task = dict(sigma=30)
train_dataloader = dict(dataset=dict(task=task))
val_dataloader = dict(dataset=dict(task=task))
test_dataloader = val_dataloader
