"""PPM and PGM whose white is not 255, which Pillow would round (netpbm.sourceforge.net/doc)."""

import math
import re
from dataclasses import dataclass
from typing import Any, Final, cast

import numpy as np
from PIL import Image, ImageFile

from srcli.imaging.pictures import Levels

_PIECE: Final = 1 << 22
"""Pixel values that are scaled together: they take 32 bits on the way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ppm:
    """How a PPM stores its pixels."""

    start: int
    """Where they begin."""

    size: tuple[int, int]
    """Width and height."""

    channels: int
    top: int
    """What stands for white: 255, or 256 to 65535."""

    plain: bool
    """Whether they are written out as decimal numbers."""

    @classmethod
    def of(cls, image: Image.Image) -> "Ppm | None":
        """Take it from what Pillow found; ``None`` for what Pillow decodes as well."""
        tile = image.tile[0] if isinstance(image, ImageFile.ImageFile) and image.tile else None
        if tile is None or image.mode not in {"L", "RGB", "I"}:
            return None
        top = tile.args[-1] if isinstance(tile.args, tuple) else 65535 if image.mode == "I" else 255
        if not isinstance(top, int) or (top <= 255 and tile.codec_name != "raw"):
            return None
        return cls(
            start=tile.offset,
            size=image.size,
            channels=3 if image.mode == "RGB" else 1,
            top=top,
            plain=tile.codec_name == "ppm_plain",
        )


def ppm_levels(data: bytes, ppm: Ppm) -> Levels:
    """Decode what follows the header, or as many rows of it as ``ppm`` says it has.

    Returns:
        ``HxWxC``, ``uint8`` where 255 is white, else ``uint16``, where 65535 is.

    Raises:
        EOFError: If the end is missing.
        ValueError: If something else than a number stands there.
    """
    shape = (ppm.size[1], ppm.size[0], ppm.channels)
    count = math.prod(shape)
    found: Any
    if ppm.plain:
        numbers = re.sub(rb"#[^\r\n]*", b"", data).split(maxsplit=count)[:count]
        found = np.array([int(number) for number in numbers], np.int64).clip(0, ppm.top)
    else:
        stored = np.dtype(np.uint8 if ppm.top == 255 else ">u2")
        found = np.frombuffer(data, stored, min(count, len(data) // stored.itemsize))
    if len(found) < count:
        raise EOFError("unexpected end of file")
    levels = np.empty(count, np.uint8 if ppm.top == 255 else np.uint16)
    for start in range(0, count, _PIECE):
        piece = found[start : start + _PIECE]
        if ppm.top not in {255, 65535}:  # at most 65535 * 65535 + 32767, which 32 bits hold
            wide = np.minimum(piece, ppm.top).astype(np.uint32)
            piece = (wide * 65535 + ppm.top // 2) // ppm.top
        levels[start : start + _PIECE] = piece
    return cast("Levels", levels.reshape(shape))
