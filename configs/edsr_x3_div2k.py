# EDSR x3, the baseline of panet_x3_div2k.py.
_base_ = ["edsr_x2_div2k.py"]

scale = 3
model = dict(generator=dict(upscale_factor=scale))
train_dataloader = dict(dataset=dict(scale=scale))
val_dataloader = dict(dataset=dict(scale=scale))
test_dataloader = val_dataloader
