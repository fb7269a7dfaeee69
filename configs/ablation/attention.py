# What the attention compares: nothing, pixels, patches of one scale, patches of five scales.
base = "_base_/dn50.py"
seeds = [0, 1, 2]
# Of every benchmark image: the attention compares every pixel of it with every other.
crop = 96
settings = dict(
    none={"model.generator.at": []},
    pixel={"model.generator.attention": dict(levels=1, ksize=1)},
    single={"model.generator.attention": dict(levels=1)},
    pyramid={},
)
