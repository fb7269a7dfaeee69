# A small PANet for colour denoising, sigma 70, that a laptop can train.
_base_ = ["panet_lite_dn10_div2k.py"]

task = dict(sigma=70)
train_dataloader = dict(dataset=dict(task=task))
val_dataloader = dict(dataset=dict(task=task))
test_dataloader = val_dataloader
