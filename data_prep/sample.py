"""Make a small set in DIV2K's layout from the photographs included in scikit-image and scikit-learn; no download.

Training:
  brick      CC0, from CC0Textures (gray)
  camera     CC0, Lav Varshney (gray)
  chelsea    CC0, Stefan van der Walt
  flower     CC BY 2.0, flickr.com/photos/vultilion
  grass      CC0, Linolafett (gray)
  gravel     CC0, from CC0Textures (gray)
  hubble     public domain, NASA / ESA: Hubble eXtreme Deep Field
  retina     CC0, Mikael Haeggstroem
  rocket     public domain, SpaceX
Validation:
  astronaut  public domain, NASA: Eileen Collins
  china      CC BY 2.0, flickr.com/photos/danielbuechele
  coffee     CC0, Rachel Michetti

Images with traces of JPEG compression or demosaicing are downscaled first; gray images become RGB.
"""

from __future__ import annotations

import argparse
import tempfile
from importlib.util import find_spec
from pathlib import Path

from panet_plugin.data import prepare_set, read_image, write_image
from panet_plugin.data.command import run_command
from panet_plugin.degradations import imresize
from panet_plugin.former_options import add_renamed_option

# name: (package, file, factor by which the image is downscaled)
TRAINING = {
    "brick": ("skimage", "data/brick.png", 1),
    "camera": ("skimage", "data/camera.png", 1),
    "chelsea": ("skimage", "data/chelsea.png", 1),
    "flower": ("sklearn", "datasets/images/flower.jpg", 2),
    "grass": ("skimage", "data/grass.png", 1),
    "gravel": ("skimage", "data/gravel.png", 1),
    "hubble": ("skimage", "data/hubble_deep_field.jpg", 2),
    "retina": ("skimage", "data/retina.jpg", 4),
    "rocket": ("skimage", "data/rocket.jpg", 2),
}
VALIDATION = {
    "astronaut": ("skimage", "data/astronaut.png", 2),
    "china": ("sklearn", "datasets/images/china.jpg", 2),
    "coffee": ("skimage", "data/coffee.png", 2),
}
SCALES = (2, 3, 4)
# Small, so that a loader spends little time on decoding pixels that it then crops.
SUBIMAGE = (192, 96)


def write_images(images: dict[str, tuple[str, str, int]], folder: Path) -> None:
    """Write the packages' images, downscaled by the table's factors, as PNG files."""
    for name, (package, file, shrink) in images.items():
        spec = find_spec(package)
        if spec is None:
            raise ModuleNotFoundError(f"the sample images are included in {package}, which is not installed")
        image = read_image(Path(spec.submodule_search_locations[0]) / file)
        write_image(folder / f"{name}.png", imresize(image, 1 / shrink))


def main() -> None:
    """Prepare the training and the validation set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out", type=Path, default=Path("data/sample"), help="folder for the set; default: %(default)s"
    )
    add_renamed_option(parser, "--root", "--out")
    root = parser.parse_args().out
    for name, images, subimage in (
        ("DIV2K_train", TRAINING, SUBIMAGE),
        ("DIV2K_valid", VALIDATION, None),
    ):
        with tempfile.TemporaryDirectory() as folder:
            write_images(images, Path(folder))
            prepare_set(folder, root, name, scales=SCALES, subimage=subimage, folders=True)


if __name__ == "__main__":
    run_command("sample", main)
