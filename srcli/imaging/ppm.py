"""PPM in colour whose white is more than 255, which Pillow would round to 8 bits."""

import math
import re
from typing import Any, cast

import numpy as np
from PIL import Image, ImageFile

from srcli.imaging.pictures import Levels


def is_deep_ppm(image: Image.Image) -> bool:
    """Whether an image that Pillow has opened is such a PPM."""
    tile = image.tile[0] if isinstance(image, ImageFile.ImageFile) and image.tile else None
    if tile is None or image.mode != "RGB" or tile.codec_name not in {"ppm", "ppm_plain"}:
        return False
    return int(cast("Any", tile.args)[-1]) > 255


def ppm_levels(image: ImageFile.ImageFile, data: bytes) -> Levels:
    """Decode a PPM (netpbm.sourceforge.net/doc).

    Returns:
        ``HxWx3``, ``uint16``, 65535 where white is.

    Raises:
        EOFError: If the end is missing.
        ValueError: If something else than a number stands there.
    """
    shape = (image.height, image.width, 3)
    count = math.prod(shape)
    tile = image.tile[0]
    top = int(cast("Any", tile.args)[-1])
    stored = data[tile.offset :]
    if tile.codec_name == "ppm_plain":
        numbers = re.sub(rb"#[^\r\n]*", b"", stored).split(maxsplit=count)[:count]
        found = np.array([min(int(number), top) for number in numbers], np.uint32)
    else:
        found = np.frombuffer(stored, ">u2", min(count, len(stored) // 2))
    if len(found) < count:
        raise EOFError("unexpected end of file")
    if top != 65535:  # at most 65535 * 65535 + 32767, which 32 bits hold
        found = (found.astype(np.uint32).clip(max=top) * 65535 + top // 2) // top
    return found.astype(np.uint16).reshape(shape)
