"""Process groups on machines without a GPU, which neither framework supports."""

import os
import subprocess

import torch.distributed as dist


def init_gloo(launcher: str, port: int | None = None) -> None:
    """Join the gloo process group of the processes that a launcher started.

    Args:
        launcher: ``"pytorch"`` (torchrun) or ``"slurm"``.
        port: Port of the first process under slurm; otherwise ``MASTER_PORT``, or 29500.

    Raises:
        ValueError: If the launcher is unknown.
    """
    if launcher == "slurm":
        hosts = ["scontrol", "show", "hostnames", os.environ["SLURM_NODELIST"]]
        first = subprocess.run(hosts, check=True, capture_output=True, text=True).stdout.split()[0]
        os.environ.setdefault("MASTER_ADDR", first)
        os.environ["MASTER_PORT"] = str(port or os.environ.get("MASTER_PORT", 29500))
        os.environ["RANK"] = os.environ["SLURM_PROCID"]
        os.environ["LOCAL_RANK"] = os.environ["SLURM_LOCALID"]
        os.environ["WORLD_SIZE"] = os.environ["SLURM_NTASKS"]
    elif launcher != "pytorch":
        raise ValueError(f"launcher must be 'pytorch' or 'slurm' without a GPU, got {launcher!r}")
    dist.init_process_group("gloo")
