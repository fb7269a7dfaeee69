"""Images in and out, and the preparation of data sets that BasicSR and MMagic read alike."""

from panet_plugin.data.images import BadImageError, read_image, write_image
from panet_plugin.data.manifest import Layout
from panet_plugin.data.missing import missing_data
from panet_plugin.data.prepare import prepare_set

__all__ = ["BadImageError", "Layout", "missing_data", "prepare_set", "read_image", "write_image"]
