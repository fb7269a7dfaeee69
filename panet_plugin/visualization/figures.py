"""Writing figures."""

import io
import os
from pathlib import Path

from matplotlib.figure import Figure

from panet_plugin.files import write_bytes


def save_figure(path: str | os.PathLike, figure: Figure, dpi: float = 150) -> None:
    """Write a figure atomically.

    Args:
        path: Destination; the suffix determines the format. Missing folders are created.
        figure: The figure.
        dpi: Pixels per inch.
    """
    content = io.BytesIO()
    figure.savefig(content, format=Path(path).suffix[1:], dpi=dpi)
    write_bytes(path, content.getvalue())
