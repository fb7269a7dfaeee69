"""Images in and out, and the preparation of data sets that BasicSR and MMagic read alike."""

from .images import BadImageError, read_image, write_image
from .lmdb_writer import write_lmdb
from .prepare import Layout, prepare_set

__all__ = ["BadImageError", "Layout", "prepare_set", "read_image", "write_image", "write_lmdb"]
