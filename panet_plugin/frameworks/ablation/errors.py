"""What is wrong with a set of settings, or with what an earlier command left of it."""

from panet_plugin.evaluation import EvaluationError


class AblationError(EvaluationError):
    """A set of settings that cannot be compared; the message names the file, or the folder of the run."""
