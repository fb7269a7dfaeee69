"""BasicSR's SRModel with checkpoints that are whole or not there, and with the attention's window in validation."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from basicsr.models.sr_model import SRModel
from basicsr.utils.dist_util import master_only
from basicsr.utils.registry import MODEL_REGISTRY
from torch import nn

from panet_plugin.archs import attention_window
from panet_plugin.files import write_bytes
from panet_plugin.frameworks.patches import patch_of_options
from panet_plugin.weights import PATCH


@MODEL_REGISTRY.register()
class RestorationModel(SRModel):
    """BasicSR's SRModel, to be named by ``model_type``, with the same options.

    Pyramid attention without a window of its own validates with one of the side of the training's patches, so that
    every pixel of a whole image sees what it saw in training; ``window`` of the options gives all blocks another,
    or, with ``null``, none. Checkpoints say the side of the patches, and an error in writing one ends the training
    with the last ones unharmed, where SRModel goes on without.
    """

    def __init__(self, opt: Mapping[str, Any]) -> None:
        super().__init__(opt)
        # Options for testing have no training data left.
        self._patch = opt.get("trained_patch") or patch_of_options(opt)

    def test(self) -> None:
        """Restore the images of ``feed_data``."""
        network = self.net_g_ema if hasattr(self, "net_g_ema") else self.net_g
        with attention_window(network, self.opt.get("window", "trained"), self._patch):
            super().test()

    @master_only
    def save_network(
        self,
        net: nn.Module | Sequence[nn.Module],
        net_label: str,
        current_iter: int,
        param_key: str | Sequence[str] = "params",
    ) -> None:
        """Write the weights of networks as SRModel does.

        Raises:
            OSError: If they cannot be written.
        """
        nets = [net] if isinstance(net, nn.Module) else net
        keys = [param_key] if isinstance(param_key, str) else param_key
        content: dict[str, Any] = {}
        for network, key in zip(nets, keys, strict=True):
            state = self.get_bare_model(network).state_dict()
            content[key] = {name.removeprefix("module."): value.cpu() for name, value in state.items()}
        if self._patch is not None:
            content[PATCH] = self._patch
        name = f"{net_label}_{'latest' if current_iter == -1 else current_iter}.pth"
        _save(content, Path(self.opt["path"]["models"], name))

    @master_only
    def save_training_state(self, epoch: int, current_iter: int) -> None:
        """Write what a training is resumed from, as SRModel does.

        Raises:
            OSError: If it cannot be written.
        """
        if current_iter == -1:
            return
        state = {
            "epoch": epoch,
            "iter": current_iter,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "schedulers": [scheduler.state_dict() for scheduler in self.schedulers],
        }
        _save(state, Path(self.opt["path"]["training_states"], f"{current_iter}.state"))


def _save(content: Mapping[str, Any], path: Path) -> None:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_bytes(path, buffer.getvalue())
