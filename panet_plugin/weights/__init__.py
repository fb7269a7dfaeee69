"""Reading checkpoints safely, and the original networks' checkpoints as ours."""

from panet_plugin.weights.files import CheckpointError, read_state_dict, write_checkpoint
from panet_plugin.weights.official import build_from_state_dict, load_official

__all__ = ["CheckpointError", "build_from_state_dict", "load_official", "read_state_dict", "write_checkpoint"]
