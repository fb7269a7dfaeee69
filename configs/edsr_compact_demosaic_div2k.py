# EDSR for demosaicing, the baseline of panet_compact_demosaic_div2k.py, trained alike.
_base_ = ["_base_/schedule_compact.py", "_base_/restoration.py", "_base_/div2k_clean.py"]

task = dict(name="demosaicing")
model = dict(
    generator=dict(
        type="BasicSRArch",
        arch=dict(type="EDSR", num_in_ch=3, num_out_ch=3, num_feat=32, num_block=8, upscale=1, img_range=1.0),
    )
)
train_dataloader = dict(dataset=dict(task=task, patch_size=24), num_workers=1)
val_dataloader = dict(dataset=dict(task=task))
test_dataloader = val_dataloader
