# The image-to-image model of MMagic around `generator`, which the experiment names: RGB or gray in [0, 1], L1.
model = dict(
    type="BaseEditModel",
    pixel_loss=dict(type="L1Loss", loss_weight=1.0, reduction="mean"),
    train_cfg=dict(),
    test_cfg=dict(),
    data_preprocessor=dict(type="DataPreprocessor", mean=[0.0], std=[255.0]),
)
