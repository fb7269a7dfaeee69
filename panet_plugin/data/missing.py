"""The error for missing data."""

import os
from pathlib import Path


def missing_data(path: str | os.PathLike) -> FileNotFoundError:
    """Return an error with the commands that prepare a missing folder or LMDB.

    Args:
        path: The missing folder or LMDB, such as ``data/DIV2K/DIV2K_train_HR_sub.lmdb``.
    """
    path = Path(path)
    return FileNotFoundError(
        f"{path}: not found. To download and prepare DIV2K (or use existing archives or images: --from-archives DIR, "
        "--from-folder DIR), run\n"
        f"  python data_prep/div2k.py --out {path.parent}\n"
        f"To make a small set for trying things out, run\n"
        f"  python data_prep/sample.py --out {path.parent}"
    )
