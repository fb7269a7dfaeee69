"""Recursive chopping, with which the original's published scores were computed."""

from collections.abc import Callable

import torch
from torch import Tensor

from panet_plugin.tasks import Task

#: Pixels by which pieces extend beyond the center of the image.
SHAVE = 10

#: Smallest limit for pieces: sides approach twice the shave, and near it the number of pieces grows quickly.
LEAST_LIMIT = 1024


def piece_limit(task: Task | None) -> int:
    """Return the original's limit for pieces: each has fewer pixels than this."""
    return task.piece_limit if task else 6400


def piece_size(height: int, width: int, scale: int = 1, shave: int = SHAVE) -> tuple[int, int]:
    """Return height and width of the four pieces of an image; a tiny image is its own piece."""
    sides = [side // 2 + shave for side in (height, width)]
    height_of_piece, width_of_piece = (side + side % scale for side in sides)
    return min(height_of_piece, height), min(width_of_piece, width)


def chop(
    run: Callable[[Tensor], Tensor], images: Tensor, scale: int = 1, limit: int = 6400, shave: int = SHAVE
) -> Tensor:
    """Restore images in pieces: four corners, chopped again while they have ``limit`` pixels or more.

    Every image is chopped at least once. Each quadrant of the result comes from its own piece, without blending.

    Args:
        run: Restores ``(N, C, h, w)``.
        images: ``(N, C, H, W)``.
        scale: Upscaling factor of ``run``.
        limit: See :func:`piece_limit`.
        shave: See :data:`SHAVE`.

    Returns:
        ``(N, C, H * scale, W * scale)``.

    Raises:
        ValueError: If the limit is below :data:`LEAST_LIMIT`.
    """
    if limit < LEAST_LIMIT:
        raise ValueError(f"the limit for pieces must be at least {LEAST_LIMIT} pixels, got {limit}")
    height, width = images.shape[-2:]
    piece = piece_size(height, width, scale, shave)
    corners = [
        images[..., rows, :][..., columns] for rows in _ends(height, piece[0]) for columns in _ends(width, piece[1])
    ]
    if is_chopped_again(height, width, piece, limit):
        pieces = [chop(run, corner, scale, limit, shave) for corner in corners]
    else:
        pieces = run(torch.cat(corners)).split(len(images))
    middle, center = height // 2 * scale, width // 2 * scale
    below, right = height * scale - middle, width * scale - center
    rows = [
        torch.cat([pieces[0][..., :middle, :center], pieces[1][..., :middle, -right:]], -1),
        torch.cat([pieces[2][..., -below:, :center], pieces[3][..., -below:, -right:]], -1),
    ]
    return torch.cat(rows, -2)


def is_chopped_again(height: int, width: int, piece: tuple[int, int], limit: int) -> bool:
    """Return whether a piece is chopped again; a piece that is the whole image would be chopped forever."""
    return piece[0] * piece[1] >= limit and piece != (height, width)


def count_pieces(height: int, width: int, scale: int = 1, limit: int = 6400, shave: int = SHAVE) -> tuple[int, int]:
    """Return the number of pieces of an image, which all have the same size, and the pixels of one."""
    piece = piece_size(height, width, scale, shave)
    if not is_chopped_again(height, width, piece, limit):
        return 4, piece[0] * piece[1]
    count, pixels = count_pieces(*piece, scale, limit, shave)
    return 4 * count, pixels


def _ends(length: int, piece: int) -> tuple[slice, slice]:
    return slice(0, piece), slice(length - piece, length)
