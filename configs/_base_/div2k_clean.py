# Clean images of DIV2K, degraded by the experiment's task: 48x48 patches, flips and transposition, and then a fresh
# degradation each time; in validation always the same one. DIV2K_ROOT, or the option data_root, moves the data.
data_root = "{{$DIV2K_ROOT:data/DIV2K}}"
train_dataloader = dict(
    batch_size=16,
    num_workers=8,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(
        type="CleanImageDataset",
        data_root=data_root,
        gt="DIV2K_train_HR_sub.lmdb",
        patch_size=48,
        pipeline=[
            dict(type="Flip", keys=["gt"], flip_ratio=0.5, direction="horizontal"),
            dict(type="Flip", keys=["gt"], flip_ratio=0.5, direction="vertical"),
            dict(type="RandomTransposeHW", keys=["gt"], transpose_ratio=0.5),
            dict(type="DegradeByTask"),
            dict(type="PackInputs"),
        ],
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=False,
    drop_last=False,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="CleanImageDataset",
        data_root=data_root,
        gt="DIV2K_valid_HR.lmdb",
        test_mode=True,
        pipeline=[dict(type="DegradeByTask", seed=0), dict(type="PackInputs", meta_keys=["task"])],
    ),
)
test_dataloader = val_dataloader
# By the protocol of the task.
val_evaluator = dict(type="Evaluator", metrics=[dict(type="ProtocolPSNR"), dict(type="ProtocolSSIM")])
test_evaluator = val_evaluator
