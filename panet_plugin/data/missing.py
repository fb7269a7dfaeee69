"""What to say where prepared data is missing."""

import os
from pathlib import Path


def missing_data(path: str | os.PathLike) -> FileNotFoundError:
    """Return an error that names the commands which prepare a folder or LMDB of a set's layout.

    Args:
        path: What is missing, such as ``data/DIV2K/DIV2K_train_HR_sub.lmdb``.
    """
    path = Path(path)
    name = path.name.split("_HR")[0].split("_LR_")[0]
    whole = "" if "_sub" in path.name else " --subimage none --crop 240"
    return FileNotFoundError(
        f"{path}: no such data. From a folder of images this makes it (--lr DIR takes low-resolution ones too):\n"
        f"  python data_prep/make_lmdb.py --hr {path.parent / name}_HR --out {path.parent} --name {name}{whole}\n"
        f"and this makes a small set to try out:\n"
        f"  python data_prep/sample.py --root {path.parent}"
    )
