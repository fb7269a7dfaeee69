"""Reading and writing images, and preparing data sets for both BasicSR and MMagic."""

from panet_plugin.data.clean import CleanImages, fresh_rng
from panet_plugin.data.image_reader import BadImageError
from panet_plugin.data.images import read_image, write_image
from panet_plugin.data.manifest import Layout
from panet_plugin.data.missing import missing_data
from panet_plugin.data.order import sequential_order
from panet_plugin.data.pairs import PairedImages, Tolerance
from panet_plugin.data.pool import ImagePool, random_patches
from panet_plugin.data.prepare import prepare_set
from panet_plugin.data.shards import Shard

__all__ = [
    "BadImageError",
    "CleanImages",
    "ImagePool",
    "Layout",
    "PairedImages",
    "Shard",
    "Tolerance",
    "fresh_rng",
    "missing_data",
    "prepare_set",
    "random_patches",
    "read_image",
    "sequential_order",
    "write_image",
]
