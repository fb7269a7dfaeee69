"""Overrides that make any config a run of seconds: a tiny network on tiny patches, four iterations."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
BASICSR_CONFIGS = sorted(ROOT.glob("configs/basicsr/*.yml"))
MMAGIC_CONFIGS = sorted(
    path for path in ROOT.glob("configs/*/*.py") if path.parent.name not in ("_base_", "ablation", "basicsr")
)
ITERATIONS = 4
CHECKPOINT = 2


def changes(framework: str, iterations: int = ITERATIONS) -> dict:
    """Return the overrides for a tiny run of ``panet_x2_div2k``; the learning rate changes after each iteration."""
    if framework == "mmagic":
        return {
            "model.generator.mid_channels": 8,
            "model.generator.num_blocks": 2,
            "model.generator.attention.levels": 2,
            "train_dataloader.batch_size": 2,
            "train_dataloader.num_workers": 0,
            "train_dataloader.persistent_workers": False,
            "train_dataloader.dataset.patch_size": 12,
            "val_dataloader.num_workers": 0,
            "test_dataloader.num_workers": 0,
            "train_cfg.max_iters": iterations,
            "train_cfg.val_interval": CHECKPOINT,
            "param_scheduler.milestones": [1, 2, 3, 4],
            "default_hooks.checkpoint.interval": CHECKPOINT,
            "default_hooks.logger.interval": 1,
        }
    return {
        "network_g.mid_channels": 8,
        "network_g.num_blocks": 2,
        "network_g.attention.levels": 2,
        "datasets.train.batch_size_per_gpu": 2,
        "datasets.train.num_worker_per_gpu": 0,
        "datasets.train.patch_size": 12,
        "train.total_iter": iterations,
        "train.scheduler.milestones": [1, 2, 3, 4],
        "val.val_freq": CHECKPOINT,
        "logger.save_checkpoint_freq": CHECKPOINT,
        "logger.print_freq": 1,
    }


def options(framework: str, iterations: int = ITERATIONS) -> list[str]:
    """Return :func:`changes` as a command line."""
    return [
        "--cfg-options",
        *(f"{key}={str(value).replace(' ', '')}" for key, value in changes(framework, iterations).items()),
    ]


def config(framework: str) -> str:
    """Return the config that :func:`options` belongs to."""
    return "configs/panet_x2_div2k.py" if framework == "mmagic" else "configs/basicsr/panet_x2_div2k.yml"


def validations(framework: str, output: str) -> int:
    """Count the validations that a log tells scores of."""
    return len(re.findall(r"Iter\(val\).* PSNR: [\d.]+" if framework == "mmagic" else r"# psnr: [\d.]+", output))
