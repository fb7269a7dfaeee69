"""Restoring 8- and 16-bit images."""

from collections.abc import Callable, Iterator
from functools import cached_property, partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from panet_plugin.archs import PyramidAttention, attention_window
from panet_plugin.archs.rnan import NonLocalBlock
from panet_plugin.inference.chopping import LEAST_LIMIT, chop
from panet_plugin.inference.cost import Cost, free_memory, measure
from panet_plugin.inference.ensemble import self_ensemble
from panet_plugin.inference.exact import find_reach, restore_pieces
from panet_plugin.inference.parts import Read, Restored, assemble
from panet_plugin.inference.plan import MODES, Budget, Buffers, Plan, Way, make_plan
from panet_plugin.inference.probe import Traits, find_channels, pad, probe
from panet_plugin.inference.tiles import cover, restore_tiles
from panet_plugin.metrics import quantize

#: Types that networks can run in.
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Restorer:
    """Restores images with a network: whole, in pieces, in tiles, or chopped as by the original.

    Args:
        network: Takes ``(N, C, H, W)`` in [0, 1] and returns images of the same or an upscaled size. It is moved to the
            device, converted to the dtype and set to evaluation mode.
        device: Device of the network.
        dtype: Type of its weights and features; the attention itself always computes in float32.
        mode: ``"whole"``; ``"tiles"``; ``"chop"``, the original's recursive chopping, see
            :func:`~panet_plugin.inference.chop`; or ``"auto"``: whole within the limits below, otherwise in pieces with
            the same result, or in tiles if the network has no such pieces.
        window: Side of the square, in pixels, in which the network's pyramid attention matches; None for the whole
            image. ``"trained"``: each block's own window or, if it has none, the size of the training patches if the
            checkpoint records it (``network.trained_patch``).
        tile: Side of the tiles in input pixels; reduced if required by ``max_memory``.
        overlap: Tiles are blended over this many pixels, and half as many beyond these are discarded; see
            :func:`~panet_plugin.inference.cover`.
        limit: For ``"chop"``: pieces have fewer pixels than this.
        ensemble: Average over eight flips and transpositions.
        batch: Maximum number of images, tiles or pieces per batch.
        max_memory: Limit in bytes for the network and the images together, or for each if the device has its own
            memory; images that require more are refused. None: half of the free memory, which ``"whole"`` and
            ``"chop"`` may exceed.
        max_seconds: Limit for ``"auto"``: a whole image may take this long, or as long as its tiles.

    Raises:
        ValueError: If the mode is unknown, or a number is out of range.
    """

    def __init__(
        self,
        network: nn.Module,
        device: str | torch.device = "cpu",
        *,
        dtype: torch.dtype = torch.float32,
        mode: str = "whole",
        window: int | str | None = "trained",
        tile: int = 192,
        overlap: int = 16,
        limit: int = 6400,
        ensemble: bool = False,
        batch: int = 8,
        max_memory: float | None = None,
        max_seconds: float = 60.0,
    ) -> None:
        if mode not in MODES:
            raise ValueError(f"mode must be one of {', '.join(MODES)}, got {mode!r}")
        if limit < LEAST_LIMIT or batch < 1 or (max_memory is not None and max_memory <= 0) or max_seconds < 0:
            raise ValueError(
                f"limit must be at least {LEAST_LIMIT}, batch 1, max_memory positive and max_seconds not negative, got "
                f"{limit}, {batch}, {max_memory} and {max_seconds}"
            )
        if not (window in ("trained", None) or (isinstance(window, int) and window > 0)):
            raise ValueError(f"window must be 'trained', None or at least 1 pixel, got {window!r}")
        cover(1, tile, overlap)  # for its errors
        self.device = torch.device(device)
        self.dtype = dtype
        self.network = network.to(self.device, dtype).eval()
        self.ensemble = ensemble
        self._windowed = partial(
            attention_window, self.network, window=window, patch=getattr(network, "trained_patch", None)
        )
        self._wish = Way(mode, tile, overlap, limit, batch)
        self._max_memory = max_memory
        self._max_seconds = max_seconds
        self._traits: dict[int, Traits | None] = {}

    @property
    def channels(self) -> int:
        """Number of channels of the network's input and output images.

        Raises:
            ValueError: If it is not 3, 1 or 4.
        """
        return self._taken[0]

    @cached_property
    @torch.inference_mode()
    def _taken(self) -> tuple[int, Traits]:
        """The network's number of channels, and its traits."""
        channels = find_channels(self._run_padded)
        if channels is None or (traits := self.traits(channels)) is None:
            raise ValueError(
                "the network does not accept images with 3, 1 or 4 channels, or returns another number of channels"
            )
        return channels, traits

    @property
    def scale(self) -> int:
        """Upscaling factor of the network; errors as :attr:`channels`."""
        return self._taken[1].scale

    @cached_property
    @torch.inference_mode()
    def cost(self) -> Cost:
        """Cost of the network, measured in a second or two; errors as :attr:`channels`."""
        (channels, traits), window = self._taken, self.window
        # Smaller images do not show the linear cost: they fit into the window.
        start = 2 * window if window else None
        local = not any(isinstance(module, PyramidAttention | NonLocalBlock) for module in self.network.modules())
        return measure(lambda images: self._run_padded(pad(images, traits)), channels, traits.multiple, start, local)

    @property
    def window(self) -> int | None:
        """Side in pixels of the largest window of pyramid attention; None if a block has no window."""
        with self._windowed():
            windows = [block.window for block in self.network.modules() if isinstance(block, PyramidAttention)]
        known = [window for window in windows if window is not None]
        return max(known, default=None) if len(known) == len(windows) else None

    @cached_property
    @torch.inference_mode()
    def reach(self) -> int | None:
        """Context in pixels that a piece of an image needs on each side to give the same result as the whole image.

        None if pieces cannot. Errors as :attr:`channels`.
        """
        channels, traits = self._taken
        if traits.multiple > 1:
            return None
        with self._windowed():
            return find_reach(self._run_padded, self.network, channels, traits.scale)

    @torch.inference_mode()
    def traits(self, channels: int) -> Traits | None:
        """Return the network's traits for images with this number of channels; None if it does not accept them."""
        if channels not in self._traits:
            self._traits[channels] = probe(self._run_padded, channels)
        return self._traits[channels]

    def plan(self, height: int, width: int, buffers: Buffers | None = None) -> Plan:
        """Estimate the cost of an image and choose how to restore it.

        Args:
            height: Height in pixels.
            width: Width in pixels.
            buffers: Memory for the image itself; by default, image and result are held in float32.

        Raises:
            ValueError: As :attr:`channels`.
            TooLargeError: If the image requires more memory than allowed.
        """
        channels, traits = self._taken
        if buffers is None:
            buffers = Buffers(0, 4 * channels * height * width * (1 + traits.scale**2), 0)
        views = 8 if self.ensemble else 1
        return make_plan(
            height, width, self._wish, self.cost, traits, self._budget(), channels, views, buffers, lambda: self.reach
        )

    def _budget(self) -> Budget:
        def limit(device: torch.device) -> float:
            return self._max_memory or free_memory(device) / 2

        images = limit(torch.device("cpu")) if self.device.type == "cuda" else None
        strict = self._max_memory is not None or self._wish.mode in ("auto", "tiles")
        return Budget(self._max_seconds, limit(self.device), images, strict)

    def restore(self, image: NDArray) -> NDArray:
        """Restore one image.

        Args:
            image: ``(H, W)`` or ``(H, W, C)``, uint8 or uint16.

        Returns:
            The restored image with the same dtype and number of dimensions, clipped and rounded.

        Raises:
            ValueError: If the image has another dtype or shape, or the network returns another number of channels.
        """
        if image.dtype not in (np.uint8, np.uint16) or image.ndim not in (2, 3) or not image.size:
            raise ValueError(f"expected 8- or 16-bit (H, W) or (H, W, C), got {image.dtype} of shape {image.shape}")
        unit = np.atleast_3d(image).astype(np.float32) / np.iinfo(image.dtype).max
        restored = self.restore_batch(torch.from_numpy(unit).permute(2, 0, 1)[None])[0].permute(1, 2, 0).numpy()
        return quantize(restored if image.ndim == 3 else restored[..., 0], image.dtype)

    @torch.inference_mode()
    def restore_batch(
        self, images: Tensor, layout: Way | None = None, progress: Callable[[int], None] | None = None
    ) -> Tensor:
        """Restore images of one size.

        Args:
            images: ``(N, C, H, W)``, float32 in [0, 1], on the CPU.
            layout: Layout from :meth:`plan`; by default, a plan is made here if the mode is ``"auto"``.
            progress: Called with the number of pixels processed since the last call.

        Returns:
            The restored images, not clamped, float32, on the CPU.

        Raises:
            ValueError: If the network returns another number of channels.
        """
        if layout is None:
            layout = self.plan(*images.shape[-2:]).layout if self._wish.mode == "auto" else self._wish
        channels, height, width = images.shape[1:]
        parts = self.restore_parts(
            lambda rows, columns: images[..., rows, columns], channels, (height, width), layout, progress
        )
        if layout.mode in ("whole", "chop"):
            return next(parts).images
        scale = self._scale_for(channels)
        return assemble(parts, height * scale, width * scale)

    @torch.inference_mode()
    def restore_parts(
        self,
        read: Read,
        channels: int,
        size: tuple[int, int],
        layout: Way,
        progress: Callable[[int], None] | None = None,
    ) -> Iterator[Restored]:
        """Restore images of one size part by part, without holding all images and results in memory.

        Args:
            read: Reads the images, float32 in [0, 1], on the CPU.
            channels: Channels of the images.
            size: Height and width of the images.
            layout: Layout from :meth:`plan`.
            progress: See :meth:`restore_batch`.

        Yields:
            The parts of the restored images, not clamped, float32, on the CPU. They do not overlap. Their memory may be
            reused for the next one.

        Raises:
            ValueError: If the network returns another number of channels, or a result is not finite.
        """
        run = partial(self._run, batch=layout.batch, progress=progress)
        if layout.mode == "chop":
            run = partial(chop, run, scale=self._scale_for(channels), limit=layout.limit)
        if self.ensemble:
            run = partial(self_ensemble, run)
        if layout.mode == "tiles":
            rows, columns = (cover(side, layout.tile, layout.overlap) for side in size)
            parts = restore_tiles(run, read, self._scale_for(channels), rows, columns, layout.batch)
        elif layout.mode == "pieces":
            parts = restore_pieces(run, read, size, self._scale_for(channels), layout.grid, layout.reach)
        else:
            parts = (Restored(0, 0, run(read(slice(0, side[0]), slice(0, side[1])))) for side in [size])
        for part in parts:
            if not all(extreme.isfinite() for extreme in part.images.aminmax()):
                raise ValueError(f"the result is not finite: the network cannot run in {self.dtype} or is damaged")
            yield part

    def _scale_for(self, channels: int) -> int:
        if (traits := self.traits(channels)) is None:
            raise ValueError(f"the network does not restore images of {channels} channels, or not in parts")
        return traits.scale

    def _run(self, images: Tensor, batch: int, progress: Callable[[int], None] | None) -> Tensor:
        """Run the network on images of any size."""
        height, width = images.shape[-2:]
        traits = self.traits(images.shape[1]) or Traits()
        results = []
        for part in images.split(batch):
            padded = pad(part, traits)
            restored = self._run_padded(padded)
            if restored.shape[1] != images.shape[1]:
                raise ValueError(f"the network returns {restored.shape[1]} channels for an image of {images.shape[1]}")
            if padded.shape != part.shape:
                restored = restored[..., : height * traits.scale, : width * traits.scale]
            results.append(restored)
            if progress:
                progress(padded.shape[0] * padded.shape[2] * padded.shape[3])
        return torch.cat(results) if len(results) > 1 else results[0]

    def _run_padded(self, images: Tensor) -> Tensor:
        with self._windowed():
            return self.network(images.to(self.device, self.dtype)).float().cpu()
