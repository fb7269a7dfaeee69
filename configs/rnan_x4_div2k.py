# RNAN x4 as published.
_base_ = ["rnan_x2_div2k.py"]

scale = 4
model = dict(generator=dict(scale=scale))
train_dataloader = dict(dataset=dict(scale=scale))
val_dataloader = dict(dataset=dict(scale=scale))
test_dataloader = val_dataloader
