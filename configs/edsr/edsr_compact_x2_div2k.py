# EDSR for x2 super-resolution, the baseline of panet_compact_x2_div2k.py, trained alike.
_base_ = ["../panet/panet_compact_x2_div2k.py"]

scale = 2
model = dict(
    generator=dict(
        _delete_=True,
        type="EDSRNet",
        in_channels=3,
        out_channels=3,
        mid_channels=32,
        num_blocks=8,
        upscale_factor=scale,
        res_scale=1.0,
        rgb_mean=[0.4488, 0.4371, 0.4040],
    )
)
