"""Restoring images with a trained network: whole, in pieces or in tiles, in memory or from file to file."""

from panet_plugin.data.image_writer import FORMATS
from panet_plugin.inference.chopping import LEAST_LIMIT, SHAVE, chop, piece_limit
from panet_plugin.inference.color import Adapted, adapt
from panet_plugin.inference.cost import Cost
from panet_plugin.inference.ensemble import self_ensemble
from panet_plugin.inference.files import restore_files, restored_together
from panet_plugin.inference.jobs import Failure, Job, JobError, find_jobs
from panet_plugin.inference.levels import Level, read_channels, read_level
from panet_plugin.inference.parts import Restored
from panet_plugin.inference.plan import MODES, Buffers, Plan, TooLargeError, Way
from panet_plugin.inference.probe import Traits
from panet_plugin.inference.restorer import DTYPES, Restorer
from panet_plugin.inference.tiles import Axis, cover

__all__ = [
    "DTYPES",
    "FORMATS",
    "LEAST_LIMIT",
    "MODES",
    "SHAVE",
    "Adapted",
    "Axis",
    "Buffers",
    "Cost",
    "Failure",
    "Job",
    "JobError",
    "Level",
    "Plan",
    "Restored",
    "Restorer",
    "TooLargeError",
    "Traits",
    "Way",
    "adapt",
    "chop",
    "cover",
    "find_jobs",
    "piece_limit",
    "read_channels",
    "read_level",
    "restore_files",
    "restored_together",
    "self_ensemble",
]

#: The former name of :class:`Way`, for one more release.
Layout = Way
