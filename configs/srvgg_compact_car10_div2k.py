# SRVGGNetCompact of BasicSR for JPEG artifact reduction, quality 10, trained like panet_compact_car10_div2k.py, whose
# baseline it is: EDSR would be, but neither framework's takes gray images at their own size.
_base_ = ["_base_/schedule_compact.py", "_base_/restoration.py", "_base_/div2k_clean.py"]

task = dict(name="artifact_reduction", quality=10)
model = dict(
    generator=dict(
        type="BasicSRArch",
        arch=dict(type="SRVGGNetCompact", num_in_ch=1, num_out_ch=1, num_feat=32, num_conv=16, upscale=1),
    )
)
train_dataloader = dict(dataset=dict(task=task, patch_size=24), num_workers=1)
val_dataloader = dict(dataset=dict(task=task))
test_dataloader = val_dataloader
