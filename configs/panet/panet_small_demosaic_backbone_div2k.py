# The backbone of the small network for demosaicing: the first of its two stages of training.
_base_ = ["../_base_/schedule_small.py", "../_base_/div2k_clean.py"]

task = dict(name="demosaicing")
model = dict(generator=dict(type="PANet", mid_channels=32, num_blocks=8, attention=False, image_residual="mosaic"))
train_dataloader = dict(dataset=dict(task=task, patch_size=32), num_workers=1)
val_dataloader = dict(dataset=dict(task=task))
test_dataloader = val_dataloader
