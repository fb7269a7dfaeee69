# The softmax average over all patches, or the best match alone.
base = "_base_/dn50.py"
seeds = [0, 1]
crop = 96
settings = dict(
    none={"model.generator.at": []},
    soft={"model.generator.attention.hard": False},
    hard={"model.generator.attention.hard": True},
)
