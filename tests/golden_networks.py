"""The original networks' outputs: weights are drawn from their names, inputs and outputs are stored."""

import json
import math
import zlib
from pathlib import Path

import numpy as np
import torch

GOLDEN = Path(__file__).parent / "golden"


def names(prefix: str) -> list[str]:
    """Return the goldens that begin with ``prefix``."""
    return sorted(path.stem for path in GOLDEN.glob(f"{prefix}*.json"))


def description(name: str) -> dict:
    return json.loads((GOLDEN / f"{name}.json").read_text())


def arrays(name: str) -> dict[str, torch.Tensor]:
    with np.load(GOLDEN / f"{name}.npz") as file:
        return {key: torch.from_numpy(file[key]) for key in file}


def state_dict(name: str) -> dict[str, torch.Tensor]:
    """Return the original state dict, drawn as when the golden was made."""
    about = description(name)
    state = {key: _draw(key, shape, about["gain"]) for key, shape in about["state_dict"].items()}
    # PA-EDSR holds its attention under two names; the later one counts.
    for key in state:
        if key.startswith("msa."):
            later = next(k for k in state if k.startswith("body.") and k.endswith(key.removeprefix("msa")))
            state[key] = state[later]
    return state


def cotangent(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    rng = np.random.default_rng(zlib.crc32(f"cotangent:{name}".encode()))
    return torch.from_numpy(rng.standard_normal(shape).astype(np.float32)).double()


def _draw(key: str, shape: list[int], gain: float) -> torch.Tensor:
    if "escape_NaN" in key:
        return torch.tensor([1e-4])
    if "mean." in key:
        mean = torch.tensor([0.4488, 0.4371, 0.4040])[: shape[0]]
        if key.endswith("weight"):
            return torch.eye(shape[0]).view(shape)
        return -mean if key.startswith("sub") else mean
    drawn = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape).astype(np.float32)
    if drawn.ndim > 1:
        drawn *= np.float32(gain * math.sqrt(2 / math.prod(shape[1:])))
    elif drawn.size == 1:
        drawn = 0.25 + 0.05 * drawn
    else:
        drawn *= np.float32(0.05)
    return torch.from_numpy(np.asarray(drawn, dtype=np.float32))
