"""Errors that a user can put right: all derive from :class:`PanetError`, and their text is the whole message.

An error that one module alone raises stands in that module.
"""

from collections.abc import Sequence

__all__ = [
    "AblationError",
    "CheckpointError",
    "ConfigError",
    "EvaluationError",
    "ExportError",
    "PanetError",
    "TaskError",
    "TrainingError",
    "VisualizationError",
]


class PanetError(Exception):
    """Base of all errors of this package."""


class TaskError(PanetError, ValueError):
    """There is no such task or parameter, or a value is out of range."""


class CheckpointError(PanetError, ValueError):
    """A file or state dict is not a checkpoint that we can use; the message says what was found."""


class ConfigError(PanetError, ValueError):
    """A config that cannot be used; the message says where, what was found and what was expected."""


class TrainingError(PanetError, RuntimeError):
    """A training that cannot begin or go on."""


class EvaluationError(PanetError, ValueError):
    """Images or methods that cannot be compared; the message lists the files."""


class AblationError(EvaluationError):
    """A set of settings that cannot be compared; the message names the file, or the folder of the run."""


class ExportError(PanetError, ValueError):
    """A network cannot be written in a format, or what was written does not do what the network does."""


class VisualizationError(PanetError, ValueError):
    """A block, a pixel or an image that cannot be shown; the message says what can."""


def shorten(names: str | Sequence[str], limit: int = 300) -> str:
    """Return names, joined and cut to ``limit`` characters."""
    text = names if isinstance(names, str) else ", ".join(names)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def list_lines(names: Sequence[str], limit: int = 20) -> str:
    """Return names one a line, the first ``limit`` of them."""
    more = [f"... and {len(names) - limit} more"] if len(names) > limit else []
    return "".join(f"\n  {name}" for name in [*names[:limit], *more])
