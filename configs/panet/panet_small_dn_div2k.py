# The small blind denoiser for color images, sigma 0 to 75: the second of two stages of training.
_base_ = ["panet_small_dn_backbone_div2k.py"]

model = dict(generator=dict(attention=dict(_delete_=True, residual_init="zero")))
# From the last checkpoint of the backbone; the block starts as the identity, so nothing is lost.
load_from = "work_dirs/panet_small_dn_backbone_div2k"
train_cfg = dict(max_iters=6000, val_interval=6000)
optim_wrapper = dict(optimizer=dict(lr=5e-4))
