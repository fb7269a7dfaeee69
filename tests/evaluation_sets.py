"""Tiny benchmark sets of real images."""

from pathlib import Path

from skimage import data

from panet_plugin.data import write_image

PICTURES = {"chelsea": data.chelsea()[90:122, 120:148], "coffee": data.coffee()[100:131, 200:233]}


def make_set(folder: Path) -> Path:
    """Write the clean images ``HR/chelsea.png`` (32x28) and ``HR/coffee.png`` (31x33)."""
    for name, picture in PICTURES.items():
        write_image(folder / "HR" / f"{name}.png", picture)
    return folder
