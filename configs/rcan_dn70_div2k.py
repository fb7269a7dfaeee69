# RCAN at the size of its input for colour denoising, sigma 70: 10 groups of 20 blocks, 64 channels.
_base_ = ["rcan_dn10_div2k.py"]

task = dict(sigma=70)
train_dataloader = dict(dataset=dict(task=task))
val_dataloader = dict(dataset=dict(task=task))
test_dataloader = val_dataloader
