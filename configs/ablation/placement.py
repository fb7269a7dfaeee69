# Where the attention stands among the eight residual blocks, and how often.
base = "_base_/dn50.py"
seeds = [0, 1]
crop = 96
settings = dict(
    none={"model.generator.at": []},
    front={"model.generator.at": ["body.0"]},
    middle={"model.generator.at": ["body.3"]},
    back={"model.generator.at": ["body.7"]},
    two={"model.generator.at": ["body.3", "body.7"]},
    four={"model.generator.at": ["body.1", "body.3", "body.5", "body.7"]},
)
