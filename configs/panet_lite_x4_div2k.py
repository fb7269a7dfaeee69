# A small PA-EDSR x4 that a laptop can train.
_base_ = ["panet_lite_x2_div2k.py"]

scale = 4
model = dict(generator=dict(scale=scale))
train_dataloader = dict(dataset=dict(scale=scale))
val_dataloader = dict(dataset=dict(scale=scale))
test_dataloader = val_dataloader
