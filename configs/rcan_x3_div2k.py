# RCAN x3 as published.
_base_ = ["rcan_x2_div2k.py"]

scale = 3
model = dict(generator=dict(arch=dict(upscale=scale)))
train_dataloader = dict(dataset=dict(scale=scale))
val_dataloader = dict(dataset=dict(scale=scale))
test_dataloader = val_dataloader
