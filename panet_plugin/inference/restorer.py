"""From an image on the 0..255 scale to a restored one."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from panet_plugin.metrics import quantize


class Restorer:
    """Restore whole images with a network.

    Args:
        network: Takes ``(N, C, H, W)`` in [0, 1] and returns the same, or an upscaled, image. It is put into
            evaluation mode.
        device: Where the network runs.
    """

    def __init__(self, network: nn.Module, device: str | torch.device = "cpu") -> None:
        self.device = torch.device(device)
        self.network = network.to(self.device).eval()

    @torch.inference_mode()
    def restore(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Restore one image.

        Args:
            image: ``(H, W)`` gray or ``(H, W, 3)`` RGB.

        Returns:
            The restored image with as many dimensions, clipped and rounded to 8 bit.

        Raises:
            ValueError: If the image is not 8-bit gray or RGB, or the network returns other channels than it was given.
        """
        if image.dtype != np.uint8 or not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)):
            raise ValueError(f"expected 8-bit (H, W) or (H, W, 3), got {image.dtype} of shape {image.shape}")
        batch = torch.from_numpy(np.atleast_3d(image)).permute(2, 0, 1)[None].to(self.device)
        restored = self.network(batch.float() / 255)[0].permute(1, 2, 0).cpu().numpy()
        if restored.shape[2] != batch.shape[1]:
            raise ValueError(f"the network returns {restored.shape[2]} channels for an image of {batch.shape[1]}")
        return quantize(restored if image.ndim == 3 else restored[..., 0])
