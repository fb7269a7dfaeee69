# How many levels the pyramid has.
base = "_base_/dn50.py"
seeds = [0, 1]
crop = 96
settings = {f"levels{levels}": {"model.generator.attention.levels": levels} for levels in (1, 2, 3, 4, 5)}
