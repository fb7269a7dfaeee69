# The backbone of the small blind denoiser for color images, sigma 0 to 75: the first of its two stages of training.
_base_ = ["../_base_/schedule_small.py", "../_base_/div2k_clean.py"]

task = dict(name="denoising", sigma=(0, 75))
model = dict(generator=dict(type="PANet", mid_channels=32, num_blocks=8, attention=False, image_residual=True))
train_dataloader = dict(dataset=dict(task=task, patch_size=32), num_workers=1)
val_dataloader = dict(dataset=dict(task=dict(name="denoising", sigma=30)))
test_dataloader = val_dataloader
