# EDSR at the size of its input for colour denoising, sigma 70: PANet's 80 blocks of 64 channels, without attention.
_base_ = ["edsr_dn10_div2k.py"]

task = dict(sigma=70)
train_dataloader = dict(dataset=dict(task=task))
val_dataloader = dict(dataset=dict(task=task))
test_dataloader = val_dataloader
