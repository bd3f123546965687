"""Image files in: bytes to upright pictures.

Pixels are never converted between colour profiles; a profile travels with the pixels that it
describes, or is dropped.
"""

import errno
import io
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final, NoReturn

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from srcli.errors import ImageError
from srcli.files import one_line, reason
from srcli.formats import BUILT, PILLOW_SILENCE
from srcli.pictures import Album, Levels, Metadata, Picture
from srcli.tags import dpi_of, exif_of, profile_for

__all__ = ["read", "read_album", "read_size"]

_TURNS: Final[dict[int, Image.Transpose | None]] = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns a picture of each EXIF orientation upright; from 5 on, the sides change places."""


def read(path: Path, data: bytes | None = None) -> Picture:
    """Decode the first picture of an image file.

    Args:
        path: An image file, or what messages are to call ``data``.
        data: The file's bytes where it lies in an archive; None: read ``path``.

    Returns:
        The picture, turned upright as its EXIF says.

    Raises:
        ImageError: If the file is missing, unreadable, damaged, too large or no image.
    """
    return read_album(path, data).pictures[0]


def read_album(path: Path, data: bytes | None = None) -> Album:
    """Decode an image file; of an animation, the first frame.

    Grey of 16 bits stays so; colour is decoded to 8 bits.

    Args:
        path: An image file, or what messages are to call ``data``.
        data: The file's bytes where it lies in an archive; None: read ``path``.

    Returns:
        The pictures, turned upright as their EXIF says.

    Raises:
        ImageError: If the file is missing, unreadable, damaged, too large or no image.
    """
    with _opened(path, data) as (image, _):
        clear = _clear_colour(image)
        image.load()
        turn = _TURNS[_orientation(image.getexif)]
        pixels, alpha = _levels(image if turn is None else image.transpose(turn))
        metadata = Metadata(
            icc_profile=profile_for(image.info.get("icc_profile"), pixels.shape[2]),
            exif=exif_of(image),
            dpi=dpi_of(image.info.get("dpi")),
        )
        several = image.format != "MPO" and _has_more_frames(image)
    if clear is not None:
        opaque = np.any(pixels != np.array(clear), axis=2, keepdims=True)
        alpha = opaque.astype(pixels.dtype) * np.iinfo(pixels.dtype).max
    # A phone's multi-picture file is a JPEG with more JPEGs behind it.
    name = "JPEG" if image.format == "MPO" else image.format
    picture = Picture(pixels=pixels, alpha=alpha, metadata=metadata)
    notes = ("only the first of its frames is enlarged",) if several else ()
    return Album(pictures=(picture,), format=name, notes=notes)


def _has_more_frames(image: ImageFile.ImageFile) -> bool:
    """Whether frames follow the first; no, where what follows is too damaged to tell."""
    try:
        return bool(getattr(image, "is_animated", False))
    # As in _opened: the decoder runs into hostile bytes, but the first frame is read by now.
    except Exception:  # noqa: BLE001
        return False


def read_size(path: Path, data: bytes | None = None) -> tuple[int, int]:
    """Tell the size of the picture that :func:`read` would return, without decoding it.

    Args:
        path: An image file, or what messages are to call ``data``.
        data: The file's bytes where it lies in an archive; None: read ``path``.

    Returns:
        Width and height in pixels, upright.

    Raises:
        ImageError: If the file is missing, unreadable, too large or no image. Damage behind
            the header goes unnoticed.
    """
    with _opened(path, data) as (image, stream):
        width, height = image.size
        if image.format == "TIFF":
            return width, height  # Pillow has swapped them already
        late = image.format == "PNG" and _has_late_exif(stream)
        # For a PNG, image.getexif would decode the pixels to see whether EXIF follows them.
        getexif = image.getexif if late else lambda: Image.Image.getexif(image)
        return (height, width) if _orientation(getexif) >= 5 else (width, height)


@contextmanager
def _opened(path: Path, data: bytes | None) -> Iterator[tuple[ImageFile.ImageFile, BinaryIO]]:
    """Open an image and report whatever goes wrong while it is open as one ``ImageError``."""
    try:
        with PILLOW_SILENCE, path.open("rb") if data is None else io.BytesIO(data) as file:
            # A pipe cannot be rewound, as telling formats apart needs.
            stream: BinaryIO = file if file.seekable() else io.BytesIO(file.read())
            if not stream.read(1):
                _refuse("empty (0 bytes); fetch the file again")
            with Image.open(stream, formats=BUILT) as image:
                yield image, stream
    # Pillow's decoders are fed hostile bytes and raise whatever their parsing runs into:
    # OSError, SyntaxError, ValueError, struct.error, EOFError, KeyError, ZeroDivisionError...
    # All of it means the same to a user: this file is not readable.
    except Exception as error:
        raise ImageError(f"{one_line(str(path))}: {_read_problem(error)}") from error


def _refuse(problem: str) -> NoReturn:
    raise ImageError(problem)


_READ_PROBLEMS: Final[tuple[tuple[tuple[type[Exception], ...], str], ...]] = (
    ((FileNotFoundError, NotADirectoryError), "no such file; check the path"),
    ((IsADirectoryError,), "a folder, not an image file; name files in it"),
    ((PermissionError,), "no permission to read it; change its permissions"),
    (
        (UnidentifiedImageError,),
        "not an image in a known format, or damaged at its start; convert it to PNG or JPEG",
    ),
    (
        (Image.DecompressionBombError,),
        "more pixels than can be decoded safely (a decompression bomb?); cut it into parts",
    ),
    ((MemoryError,), "does not fit into memory; cut it into parts"),
)

_TRUNCATION: Final = ("truncated", "not enough", "unexpected end", "end of file", "eof")


def _read_problem(error: Exception) -> str:
    """Say what is wrong with a file, and a way out, in one line."""
    if isinstance(error, ImageError):
        return str(error)
    for kinds, problem in _READ_PROBLEMS:
        if isinstance(error, kinds):
            return problem
    # What the system refuses; but codecs seek to nonsense offsets, which it calls invalid.
    if isinstance(error, OSError) and error.errno not in {None, errno.EINVAL}:
        return f"cannot be read ({reason(error)}); check the path and the disk"
    if isinstance(error, EOFError) or any(word in str(error).lower() for word in _TRUNCATION):
        return "truncated, its end is missing; fetch the file again"
    return f"damaged ({reason(error)}); fetch the file again"


def _orientation(getexif: Callable[[], Image.Exif]) -> int:
    """Read the EXIF orientation, 1 to 8; 1 (upright) where there is none or it is broken."""
    try:
        value = getexif().get(ExifTags.Base.Orientation)
    except Exception:  # noqa: BLE001 - broken EXIF raises anything, and must not cost the picture
        return 1
    return value if isinstance(value, int) and value in _TURNS else 1


_TARGET_MODES: Final = {
    "1": "L",
    "L": "L",
    "LA": "LA",
    "La": "LA",
    "RGB": "RGB",
    "RGBX": "RGB",
    "RGBA": "RGBA",
    "RGBa": "RGBA",
    "PA": "RGBA",
    "CMYK": "RGB",
    "YCbCr": "RGB",
    "LAB": "RGB",
    "HSV": "RGB",
}
"""Pillow's modes, and the one of ours that each is converted to. (Palettes: it depends.)"""


def _levels(image: Image.Image) -> tuple[Levels, Levels | None]:
    """Split a decoded image into its pixels and its opacity, if any."""
    if image.mode.startswith("I"):
        return _sixteen_bits(image), None
    if image.mode == "P":
        target = "RGBA" if image.has_transparency_data else "RGB"
    else:
        target = _TARGET_MODES.get(image.mode, "")
    if not target:
        _refuse(f"pixels of kind {image.mode} have no fixed range; convert it to 8 or 16 bits")
    levels = np.array(image if image.mode == target else image.convert(target))
    levels = levels.reshape(image.height, image.width, -1)
    if not target.endswith("A"):
        return levels, None
    return np.ascontiguousarray(levels[..., :-1]), np.ascontiguousarray(levels[..., -1:])


def _sixteen_bits(image: Image.Image) -> NDArray[np.uint16]:
    levels = np.asarray(image)
    low, high = int(levels.min()), int(levels.max())
    if low < 0 or high > 65535:
        _refuse(f"32-bit levels {low}..{high} are outside 0..65535; convert it to 16 bits")
    return levels.astype(np.uint16)[..., np.newaxis]


_KEY_SCALES: Final = {"L;2": (85, 1), "L;4": (17, 1), "RGB;16B": (1, 256)}
"""How Pillow scales the levels of PNGs to 8 bits, but not the one that stands for clear."""


def _clear_colour(image: ImageFile.ImageFile) -> tuple[int, ...] | None:
    """The one colour of a grey or RGB image that stands for transparent pixels, if any."""
    key = image.info.get("transparency")
    if image.mode == "P" or not isinstance(key, int | tuple):
        return None
    if image.mode == "1":
        return (255 if key else 0,)
    stored_as = image.tile[0][3] if image.format == "PNG" and image.tile else None
    times, over = _KEY_SCALES.get(str(stored_as), (1, 1))
    return tuple(level * times // over for level in (key if isinstance(key, tuple) else (key,)))


def _has_late_exif(stream: BinaryIO) -> bool:
    """Tell whether a PNG's orientation may stand behind its pixels, as ImageMagick puts it."""
    position = stream.tell()
    stream.seek(8)
    behind = found = False
    while not found and len(head := stream.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        start = stream.read(min(length, 21))
        behind = behind or kind == b"IDAT"
        found = behind and (kind == b"eXIf" or start == b"Raw profile type exif")
        stream.seek(length - len(start) + 4, os.SEEK_CUR)
    stream.seek(position)
    return found
