"""Reading checkpoints safely, and converting those of the original networks."""

from panet_plugin.errors import CheckpointError
from panet_plugin.weights.bundle import bundled, list_bundled
from panet_plugin.weights.files import (
    PATCH,
    load_safely,
    read_mmengine_config,
    read_patch,
    read_state_dict,
    read_task,
    write_checkpoint,
)
from panet_plugin.weights.official import identify, load_official, load_weights

__all__ = [
    "PATCH",
    "CheckpointError",
    "bundled",
    "identify",
    "list_bundled",
    "load_official",
    "load_safely",
    "load_weights",
    "read_mmengine_config",
    "read_patch",
    "read_state_dict",
    "read_task",
    "write_checkpoint",
]
