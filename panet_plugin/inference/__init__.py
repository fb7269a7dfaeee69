"""Restoring images with a trained network: whole, in tiles or cut, in memory or from file to file."""

from panet_plugin.inference.cut import chop, piece_limit
from panet_plugin.inference.ensemble import self_ensemble
from panet_plugin.inference.files import restore_files
from panet_plugin.inference.jobs import Failure, Job, JobError, find_jobs
from panet_plugin.inference.plan import MODES, Plan
from panet_plugin.inference.restorer import DTYPES, Restorer

__all__ = [
    "DTYPES",
    "MODES",
    "Failure",
    "Job",
    "JobError",
    "Plan",
    "Restorer",
    "chop",
    "find_jobs",
    "piece_limit",
    "restore_files",
    "self_ensemble",
]
