# RCAN at the size of its input for color denoising, sigma 50: 10 groups of 20 blocks, 64 channels.
_base_ = ["../_base_/schedule_1m.py", "../_base_/div2k_clean.py"]

task = dict(name="denoising", sigma=50, gray=False)
model = dict(
    generator=dict(
        type="BasicSRArch",
        arch=dict(
            type="RCAN", num_in_ch=3, num_out_ch=3, num_feat=64, num_group=10, num_block=20, upscale=1, img_range=255.0
        ),
    )
)
train_dataloader = dict(dataset=dict(task=task))
val_dataloader = dict(dataset=dict(task=task))
test_dataloader = val_dataloader
