# PANet for deblurring, Gaussian blur of 1.6 pixels and noise of sigma 2: 80 blocks of 64 channels.
_base_ = ["../_base_/schedule_1m.py", "../_base_/div2k_clean.py"]

task = dict(name="deblurring", blur=1.6, noise=2)
model = dict(generator=dict(type="PANet"))
train_dataloader = dict(dataset=dict(task=task))
val_dataloader = dict(dataset=dict(task=task))
test_dataloader = val_dataloader
