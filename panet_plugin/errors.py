"""Errors that a user can fix: all derive from :class:`PanetError`, and their text is a complete message.

Errors raised by a single module are defined in that module.
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
    """A task or parameter does not exist, or a value is out of range."""


class CheckpointError(PanetError, ValueError):
    """A file or state dict is not a supported checkpoint; the message describes what was found."""


class ConfigError(PanetError, ValueError):
    """A config cannot be used; the message states where, what was found and what was expected."""


class TrainingError(PanetError, RuntimeError):
    """Training cannot start or continue."""


class EvaluationError(PanetError, ValueError):
    """Images or methods cannot be compared; the message lists the files."""


class AblationError(EvaluationError):
    """The settings of a study cannot be compared; the message names the file, or the folder of the run."""


class ExportError(PanetError, ValueError):
    """A network cannot be exported to a format, or the exported file's output differs from the network's."""


class VisualizationError(PanetError, ValueError):
    """A block, a pixel or an image cannot be shown; the message lists the possible ones."""


def shorten(names: str | Sequence[str], limit: int = 300) -> str:
    """Join names and truncate the text to ``limit`` characters."""
    text = names if isinstance(names, str) else ", ".join(names)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def list_lines(names: Sequence[str], limit: int = 20) -> str:
    """Return the first ``limit`` names, one per line."""
    more = [f"... and {len(names) - limit} more"] if len(names) > limit else []
    return "".join(f"\n  {name}" for name in [*names[:limit], *more])
