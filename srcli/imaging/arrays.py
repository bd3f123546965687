"""Pillow's images as arrays, and PPMs whose white is more than 255."""

import math
import re
from typing import Any, Final, cast

import numpy as np
from PIL import Image, ImageFile

from srcli.errors import ImageError
from srcli.imaging.pictures import Levels, turned

_STRIP_BYTES: Final = 1 << 22
"""How much of a picture, as Pillow holds it, is converted together."""

CONVERTED: Final = {"CMYK", "LAB"}
"""Pillow's modes that become RGB through a profile."""

_UNTURNED: Final = {6: 8, 8: 6}
"""The orientations that do not undo themselves."""


def levels_of(image: Image.Image, orientation: int = 1) -> tuple[Levels, Levels | None]:
    """Split a decoded image, strip by strip, into its pixels and its opacity, turned upright.

    ImageError if its mode has no range of levels, or they are outside of 16 bits.
    """
    target = _target_of(image)
    dtype = np.uint16 if target.startswith("I") else np.uint8
    size = (image.height, image.width) if orientation < 5 else (image.width, image.height)
    pixels = np.empty((*size, 3 if target.startswith("RGB") else 1), dtype)
    alpha = np.empty((*size, 1), dtype) if target.endswith("A") else None
    back = _UNTURNED.get(orientation, orientation)
    rows = max(1, _STRIP_BYTES // (4 * image.width))
    for top in range(0, image.height, rows):
        place = slice(top, min(top + rows, image.height))
        strip = image.crop((0, place.start, image.width, place.stop))
        levels = np.asarray(strip if strip.mode == target else strip.convert(target))
        levels = levels.reshape(strip.height, strip.width, -1)
        turned(pixels, back)[place] = levels[..., : pixels.shape[2]]
        if alpha is not None:
            turned(alpha, back)[place] = levels[..., -1:]
    return pixels, alpha


def _target_of(image: Image.Image) -> str:
    """Name the mode that an image is converted to."""
    if image.mode.startswith("I"):
        # Modes of 16 bits have no extrema outside; Pillow's type is that of all modes together.
        low, high = cast("tuple[int, int]", image.getextrema()) if image.mode == "I" else (0, 0)
        if low < 0 or high > 65535:
            raise ImageError(
                f"32-bit levels {low}..{high} are outside 0..65535; convert it to 16 bits"
            )
        return image.mode
    if image.mode == "F":
        raise ImageError("pixels of kind F have no fixed range; convert it to 8 or 16 bits")
    colours = "L" if Image.getmodebase(image.mode) == "L" else "RGB"
    return colours + "A" * image.has_transparency_data


def is_deep_ppm(image: ImageFile.ImageFile) -> bool:
    """Whether an image is a PPM in colour of more than 8 bits, which Pillow would round to 8."""
    tile = image.tile[0] if image.tile else None
    if tile is None or image.mode != "RGB" or tile.codec_name not in {"ppm", "ppm_plain"}:
        return False
    return int(cast("Any", tile.args)[-1]) > 255


def behind_ppm(image: Image.Image, tile: Any, data: bytes, *, is_deep: bool) -> bytes:  # noqa: ANN401
    """Return what follows the picture of a PPM: there may be further ones.

    ``tile`` is what Pillow says of its pixels before it has loaded them.
    """
    if tile.codec_name == "ppm_plain":
        count = image.width * image.height * len(image.getbands())
        return b"".join(_plain(data[tile.offset :]).split(maxsplit=count)[count:])
    row = image.width * len(image.getbands()) * (1 + (image.mode == "I" or is_deep))
    row = (row + 7) // 8 if image.mode == "1" else row
    return data[tile.offset + row * image.height :].strip()


def _plain(stored: bytes) -> bytes:
    """Take the comments out of the numbers of a PPM that is text."""
    return re.sub(rb"#[^\r\n]*", b"", stored)


def ppm_levels(image: ImageFile.ImageFile, data: bytes) -> Levels:
    """Decode a deep PPM (netpbm.sourceforge.net/doc): ``HxWx3``, 65535 where white is."""
    shape = (image.height, image.width, 3)
    count = math.prod(shape)
    tile = image.tile[0]
    top = int(cast("Any", tile.args)[-1])
    stored = data[tile.offset :]
    if tile.codec_name == "ppm_plain":
        numbers = _plain(stored).split(maxsplit=count)[:count]
        found = np.array([min(int(number), top) for number in numbers], np.uint32)
    else:
        found = np.frombuffer(stored, ">u2", min(count, len(stored) // 2))
    if len(found) < count:
        raise EOFError("unexpected end of file")
    if top != 65535:  # at most 65535 * 65535 + 32767, which 32 bits hold
        found = (found.astype(np.uint32).clip(max=top) * 65535 + top // 2) // top
    return found.astype(np.uint16).reshape(shape)
