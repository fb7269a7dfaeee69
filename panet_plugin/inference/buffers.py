"""Memory that an image itself needs while it is restored."""

from typing import NamedTuple

from panet_plugin.data.image_reader import Head
from panet_plugin.data.image_writer import FORMATS, WITH_16_BIT

#: Bytes per pixel that WebP's lossless encoder allocates: measured.
ENCODER_OF_WEBP = 36


class Buffers(NamedTuple):
    """Bytes of memory for an image, except the network's inputs and outputs.

    Attributes:
        reading: Peak while the image is read, including the image.
        held: The image and its result, while it is restored.
        writing: Peak while the result is written, including the result.
    """

    reading: float
    held: float
    writing: float


def image_buffers(head: Head, suffix: str, scale: int = 1, mosaic: bool = False) -> Buffers:
    """Return the memory for an image that is restored.

    Args:
        head: Header of its file.
        suffix: Suffix of the result, a key of :data:`FORMATS` in any case.
        scale: Scale of the network.
        mosaic: Whether the result is always RGB.
    """
    kind = FORMATS[suffix.lower()]
    result = head._replace(height=head.height * scale, width=head.width * scale)
    if mosaic:
        result = result._replace(channels=3)
    pixels = result.height * result.width
    deep = head.depth == 2 and kind in WITH_16_BIT
    if kind == "WEBP":
        encoder = ENCODER_OF_WEBP * pixels
    elif kind == "TIFF":
        encoder = result.held
    elif deep:
        # A copy in OpenCV's channel order, and the growing file.
        encoder = 3 * pixels * head.depth * (4 if head.alpha else result.channels)
    else:
        encoder = pixels * (1 if result.channels == 1 and not head.alpha else 4)
    # A sparse mosaic is made from the image and compared with it.
    held = head.held + (3 * head.height * head.width * head.depth if mosaic else 0)
    reading = max(head.reading, 3 * held if mosaic else 0)
    return Buffers(reading, held + result.held, result.held + encoder)
