# Super-resolution on DIV2K: 48x48 patches of the low-resolution images, flips and transposition, scored on luma.
# DIV2K_ROOT, or the option data_root, moves the data.
_base_ = ["div2k_clean.py"]

data_root = "{{$DIV2K_ROOT:data/DIV2K}}"
train_dataloader = dict(
    dataset=dict(
        type="PairedLMDBDataset",
        data_root=data_root,
        img="DIV2K_train_LR_bicubic_X{scale}_sub.lmdb",
        gt="DIV2K_train_HR_sub.lmdb",
        scale=2,
        patch_size=48,
        pipeline=[
            dict(type="Flip", keys=["img", "gt"], flip_ratio=0.5, direction="horizontal"),
            dict(type="Flip", keys=["img", "gt"], flip_ratio=0.5, direction="vertical"),
            dict(type="RandomTransposeHW", keys=["img", "gt"], transpose_ratio=0.5),
            dict(type="PackInputs"),
        ],
    ),
)
val_dataloader = dict(
    dataset=dict(
        type="PairedLMDBDataset",
        data_root=data_root,
        img="DIV2K_valid_LR_bicubic_X{scale}.lmdb",
        gt="DIV2K_valid_HR.lmdb",
        scale=2,
        test_mode=True,
        pipeline=[dict(type="PackInputs")],
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(
    type="Evaluator",
    metrics=[dict(type="ProtocolPSNR", protocol="sr_y"), dict(type="ProtocolSSIM", protocol="sr_y")],
)
test_evaluator = val_evaluator
