# PANet for color denoising, sigma 50, as published: 80 blocks of 64 channels.
_base_ = ["../_base_/schedule_1m.py", "../_base_/div2k_clean.py"]

task = dict(name="denoising", sigma=50, gray=False)
model = dict(generator=dict(type="PANet"))
train_dataloader = dict(dataset=dict(task=task))
val_dataloader = dict(dataset=dict(task=task))
test_dataloader = val_dataloader
