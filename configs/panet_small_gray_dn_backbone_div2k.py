# The backbone of the small blind denoiser for gray images, sigma 0 to 75: the first of its two stages of training.
_base_ = ["panet_small_dn_backbone_div2k.py"]

task = dict(name="denoising", sigma=(0, 75), gray=True)
model = dict(generator=dict(in_channels=1))
train_dataloader = dict(dataset=dict(task=task))
val_dataloader = dict(dataset=dict(task=dict(gray=True)))
test_dataloader = val_dataloader
