"""Pixels as arrays: by libvips 16 bits, TIFFs and a few rows at a time, by Pillow the rest.

libvips is loaded when the first such file is met, and never for any other.
"""

import math
import re
from collections.abc import Iterator
from typing import Any, BinaryIO, Final, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from srcli.errors import ImageError
from srcli.imaging.pictures import Levels, turned

_MOST_SAVED: Final = 50_000
"""More than one byte can stand for by any compression that is used in PNG and TIFF.

Deflate comes to 1032, LZW to about 1400, Zstandard to 32,000. Without this limit a damaged header
costs gigabytes and seconds before the decoder finds out.
"""


def vips() -> Any:  # noqa: ANN401 - a module without types
    """Import libvips and stop it from caching decoded files."""
    import pyvips  # type: ignore[import-untyped]  # noqa: PLC0415 - 0.1 s and 40 MB that most runs do without

    pyvips.cache_set_max(0)
    return pyvips


def decoded(loader: str, data: bytes, size: tuple[int, int], **options: int) -> NDArray[Any]:
    """Decode a file with one of libvips' loaders: ``HxWxC``, writable; OSError if it is damaged.

    ``size`` is what its header states; the loader may have turned it.
    """
    if 8 * size[0] * size[1] > _MOST_SAVED * len(data):
        raise OSError(f"{len(data)} bytes cannot hold {size[0]}x{size[1]} pixels")
    pyvips = vips()
    try:
        image = pyvips.Operation.call(loader, data, **{"fail_on": "error", **options})
        if {image.width, image.height} != {*size}:  # its size is the one that was agreed to
            raise OSError("its headers contradict each other")
        return _pixels_of(image)
    except pyvips.Error as error:
        raise OSError(_last_line(str(error))) from error


def decoded_bands(
    loader: str, stream: BinaryIO, *, shape: tuple[int, int, int], bits: int, rows: int
) -> Iterator[Levels]:
    """Decode a still picture from top to bottom, a few rows in memory at a time.

    Args:
        loader: What libvips calls its decoder: ``jpegload``, ``pngload``, ``tiffload``.
        stream: The file itself, open; its position is lost.
        shape: Height, width and channels that it is known to have.
        bits: 8 or 16, as its pixel values are known to have.
        rows: Of each band, but perhaps the last; of whole tiles where there are any.
    """
    pyvips = vips()
    height, width, _ = shape
    stream.seek(0)
    try:
        source = pyvips.Source.new_from_descriptor(stream.fileno())
        options = {"access": "sequential", "fail_on": "error"}
        image = pyvips.Operation.call(f"{loader}_source", source, **options)
        kind = {8: "uchar", 16: "ushort"}[bits]
        if (image.height, image.width, image.bands, image.format) != (*shape, kind):
            raise OSError("its headers contradict each other")
        # A crop is written by itself: a region of the whole would keep what it has passed.
        for top in range(0, height, rows):
            yield _pixels_of(image.crop(0, top, width, min(rows, height - top)))
    except pyvips.Error as error:
        raise OSError(_last_line(str(error))) from error


def _pixels_of(image: Any) -> NDArray[Any]:  # noqa: ANN401 - pyvips has no types
    pixels: NDArray[Any] = image.numpy().reshape(image.height, image.width, -1)
    return pixels if pixels.flags.writeable else pixels.copy()


def _last_line(text: str) -> str:
    """Return the line of libvips' message that says what happened, without who says it."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    lines = [line for line in lines if not line.endswith("load error")] or lines
    return lines[-1].partition(": ")[2] or lines[-1] if lines else "for an unknown reason"


# ---- of Pillow ---------------------------------------------------------------------------

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
