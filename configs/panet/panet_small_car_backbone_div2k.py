# The backbone of the small blind network for JPEG artifacts, quality 5 to 95: the first of its two stages of training.
_base_ = ["../_base_/schedule_small.py", "../_base_/div2k_clean.py"]

task = dict(name="artifact_reduction", quality=(5, 95))
model = dict(
    generator=dict(type="PANet", in_channels=1, mid_channels=32, num_blocks=8, attention=False, image_residual=True)
)
train_dataloader = dict(
    dataset=dict(
        task=task,
        patch_size=32,
        pipeline=[
            dict(type="Flip", keys=["gt"], flip_ratio=0.5, direction="horizontal"),
            dict(type="Flip", keys=["gt"], flip_ratio=0.5, direction="vertical"),
            dict(type="RandomTransposeHW", keys=["gt"], transpose_ratio=0.5),
            dict(type="RandomFullRangeGray"),  # as the luma of JPEG files
            dict(type="DegradeByTask"),
            dict(type="PackInputs"),
        ],
    ),
    num_workers=1,
)
val_dataloader = dict(dataset=dict(task=dict(name="artifact_reduction", quality=10)))
test_dataloader = val_dataloader
