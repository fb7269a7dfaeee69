"""BasicSR's SRModel with atomic checkpoints, and with the attention's window in validation."""

import functools
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch
from basicsr.models.sr_model import SRModel
from basicsr.utils.dist_util import master_only
from basicsr.utils.registry import MODEL_REGISTRY
from torch import nn

from panet_plugin.archs import attention_window
from panet_plugin.files import write_bytes
from panet_plugin.frameworks.basicsr.describe import patch_of_options
from panet_plugin.frameworks.first_batch import check_first_batch
from panet_plugin.frameworks.trainings import (
    MAX_NONFINITE_STEPS,
    Interruption,
    NonFinite,
    TrainingError,
    all_finite,
    must_be_finite,
    report_resumed,
)
from panet_plugin.weights import PATCH


@MODEL_REGISTRY.register()
class RestorationModel(SRModel):
    """BasicSR's SRModel, selected by ``model_type``, with the same options.

    In validation, pyramid attention without its own window uses one of the size of the training patches, so that every
    pixel of a whole image is matched as in training; the option ``window`` sets another window for all blocks, or none
    with ``null``. Checkpoints record the size of the patches. An error while writing a checkpoint ends training, with
    earlier ones intact, whereas SRModel continues. On SIGTERM, SIGINT or SIGUSR1, the step is finished and saved. Steps
    with a nonfinite gradient are skipped; ``max_nonfinite_steps`` of ``train`` (default 10, 0 for no limit) in a row
    end training.
    """

    def __init__(self, opt: Mapping[str, Any]) -> None:
        super().__init__(opt)
        # Options for testing have no training data.
        self._patch = opt.get("trained_patch") or patch_of_options(opt)

    def init_training_settings(self) -> None:
        """Prepare training as SRModel does, and monitor the optimizer's steps."""
        super().init_training_settings()
        self._iteration, self._checked = 0, False
        steps = NonFinite(self.opt["train"].get("max_nonfinite_steps", MAX_NONFINITE_STEPS))
        step = self.optimizer_g.step

        @functools.wraps(step)  # keeps the attributes that schedulers set on it
        def watched_step(*args: Any, **kwargs: Any) -> None:
            # Averaged over all processes, so that they agree.
            finite = all_finite(parameter.grad for parameter in self.net_g.parameters())
            if not steps.skips(finite, self._iteration, self._images):
                step(*args, **kwargs)

        self.optimizer_g.step = watched_step

    def feed_data(self, data: Mapping[str, Any]) -> None:
        """Take the images of a batch.

        Raises:
            TrainingError: If it is the first batch of training, and not RGB in [0, 1].
        """
        super().feed_data(data)
        self._images = data.get("gt_path") or data.get("lq_path") or []
        if self.is_train and not self._checked:
            self._checked = True
            dataset = self.opt["datasets"]["train"]
            given = " ".join(f"{name}={dataset[name]}" for name in ("type", "mean", "std") if name in dataset)
            check_first_batch(
                self.lq,
                getattr(self, "gt", None),
                range_key=f"datasets.train with {given}",
                order_key=f"datasets.train with {given}",
                path=next(iter(data.get("gt_path") or ()), None),
            )

    def optimize_parameters(self, current_iter: int) -> None:
        """Train for a step; after a signal, save and exit.

        Raises:
            TrainingError: If too many steps in a row were nonfinite.
        """
        self._iteration = current_iter
        super().optimize_parameters(current_iter)
        interruption = Interruption.current
        if interruption is not None and interruption.asked(current_iter):
            self._save_and_leave(interruption)

    def _save_and_leave(self, interruption: Interruption) -> NoReturn:
        self.save(0, self._iteration)  # BasicSR's epochs do not matter for resuming
        interruption.leave(Path(self.opt["path"]["training_states"], f"{self._iteration}.state"))

    def resume_training(self, resume_state: Mapping[str, Any]) -> None:
        """Resume from a training state, and log which settings are from the state and which from the options.

        Raises:
            TrainingError: If the schedule cannot be continued.
        """
        report_resumed(
            resume_state["iter"],
            [optimizer.state_dict() for optimizer in self.optimizers],
            [schedule.state_dict() for schedule in self.schedulers],
            resume_state["optimizers"],
            resume_state["schedulers"],
        )
        total = self.opt["train"]["total_iter"]
        for schedule in resume_state["schedulers"]:
            if schedule.get("cumulative_period", [total])[-1] < total:
                raise TrainingError(
                    f"the schedule of the training state ends at iteration {schedule['cumulative_period'][-1]}, "
                    f"expected {total} as set by train.total_iter: lower that, or start a new training run with "
                    "path.pretrain_network_g"
                )
        super().resume_training(resume_state)

    def test(self) -> None:
        """Restore the images of ``feed_data``; in validation after a signal, save and exit first.

        Raises:
            TrainingError: If the output is not finite.
        """
        interruption = Interruption.current
        # With several processes, only one validates, so they exit together after the next step.
        if interruption is not None and interruption.number and not self.opt["dist"]:
            self._save_and_leave(interruption)
        network = self.net_g_ema if hasattr(self, "net_g_ema") else self.net_g
        with attention_window(network, self.opt.get("window", "trained"), self._patch):
            super().test()
        if not all_finite([self.output]):
            # In 8 bits, NaN would become a valid color.
            raise TrainingError(f"the output for {', '.join(self._images)} is not finite")

    @master_only
    def save_network(
        self,
        net: nn.Module | Sequence[nn.Module],
        net_label: str,
        current_iter: int,
        param_key: str | Sequence[str] = "params",
    ) -> None:
        """Write the weights of networks in SRModel's format.

        Raises:
            OSError: If they cannot be written.
            TrainingError: If they are not finite.
        """
        nets = [net] if isinstance(net, nn.Module) else net
        keys = [param_key] if isinstance(param_key, str) else param_key
        content: dict[str, Any] = {}
        name = f"{net_label}_{'latest' if current_iter == -1 else current_iter}.pth"
        path = Path(self.opt["path"]["models"], name)
        for network, key in zip(nets, keys, strict=True):
            must_be_finite(network, path)
            state = self.get_bare_model(network).state_dict()
            content[key] = {name.removeprefix("module."): value.cpu() for name, value in state.items()}
        if self._patch is not None:
            content[PATCH] = self._patch
        _save(content, path)

    @master_only
    def save_training_state(self, epoch: int, current_iter: int) -> None:
        """Write the training state in SRModel's format.

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
