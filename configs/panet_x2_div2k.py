# PA-EDSR x2 as published; other scales: --cfg-options task.scale=3
_base_ = ["panet/panet_x2_div2k.py"]
