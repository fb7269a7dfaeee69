"""What to say where prepared data is missing."""

import os
from pathlib import Path


def missing_data(path: str | os.PathLike) -> FileNotFoundError:
    """Return an error that names the commands which prepare a folder or LMDB of a set's layout.

    Args:
        path: What is missing, such as ``data/DIV2K/DIV2K_train_HR_sub.lmdb``.
    """
    path = Path(path)
    return FileNotFoundError(
        f"{path}: no such data. This downloads and prepares DIV2K (--from-archives DIR or "
        "--from-folder DIR: what you have already, or other pictures):\n"
        f"  python data_prep/div2k.py --root {path.parent}\n"
        f"and this makes a small set to try out:\n"
        f"  python data_prep/sample.py --root {path.parent}"
    )
