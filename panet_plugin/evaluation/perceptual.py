"""LPIPS from torchmetrics."""

import threading
import warnings
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray


def load_lpips(device: str | torch.device = "cpu") -> Callable[[NDArray[np.uint8], NDArray[np.uint8]], float]:
    """Return a function for the LPIPS (AlexNet; Zhang et al., 2018) of two 8-bit images ``(H, W, C)``.

    Lower is better. The weights of AlexNet are downloaded by torchvision on first use.

    Raises:
        ImportError: If torchmetrics is not installed.
        OSError: If the weights cannot be downloaded.
    """
    try:
        from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity
    except ImportError as error:
        raise ImportError("LPIPS requires torchmetrics: pip install torchmetrics") from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchmetrics uses a deprecated argument of torchvision
        metric = LearnedPerceptualImagePatchSimilarity("alex", normalize=True).to(device).eval()
    lock = threading.Lock()

    def lpips(restored: NDArray[np.uint8], reference: NDArray[np.uint8]) -> float:
        images = [
            torch.from_numpy(np.broadcast_to(image, (*image.shape[:2], 3)).copy()).permute(2, 0, 1)[None].to(device)
            for image in (restored, reference)
        ]
        with lock, torch.inference_mode():
            return metric(*(image.float() / 255 for image in images)).item()

    return lpips
