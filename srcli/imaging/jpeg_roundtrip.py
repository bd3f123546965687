"""What a picture looks like after it was saved as a JPEG file."""

from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, JpegImagePlugin

from srcli.errors import ImageError
from srcli.imaging.formats import FORMATS

_HALF_CHROMA = 2
"""Pillow's number for 4:2:0: chroma of half the resolution down and across."""


def jpeg_roundtrip(
    pixels: NDArray[np.uint8], quality: int, phase: tuple[int, int] = (0, 0)
) -> NDArray[np.uint8]:
    """Encode a picture as baseline JPEG with 4:2:0 chroma and decode it, by Pillow's libjpeg.

    Args:
        pixels: ``(H, W, 3)`` RGB or ``(H, W, 1)`` grey.
        quality: 1..100 on libjpeg's scale.
        phase: Rows and columns, 0..15, between the corner of a 16x16 unit of JPEG's grid and
            that of the picture, which is continued by its edge up to there and cut out again.

    Raises:
        ImageError: If a side is longer than JPEG's 65,500 pixels.
    """
    top, left = phase
    height, width, channels = pixels.shape
    rows = np.arange(-top, height).clip(0)
    columns = np.arange(-left, width).clip(0)
    padded = pixels[rows][:, columns]
    longest = FORMATS["JPEG"].longest or 0
    if max(padded.shape) > longest:
        raise ImageError(
            f"JPEG holds sides of up to {longest:,} pixels, not a picture of "
            f"{width}x{height}: degrade it without jpeg, or leave it out"
        )
    image = Image.fromarray(padded if channels == 3 else padded[..., 0])
    stream = BytesIO()
    image.save(stream, "JPEG", quality=quality, subsampling=_HALF_CHROMA)
    stream.seek(0)
    # Image.open would look for the format and limit the number of pixels.
    decoded = np.array(JpegImagePlugin.JpegImageFile(stream))
    return decoded.reshape(padded.shape)[top:, left:]
