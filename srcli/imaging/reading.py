"""Image files in: bytes to upright pictures, every frame and page of them.

RGB and grey are never converted between colour profiles; a profile travels with the pixels that
it describes, or is dropped. CMYK and CIELAB, which no picture here can hold, become sRGB.
"""

import errno
import io
import os
import re
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import IO, Any, BinaryIO, Final, NoReturn, cast

import numpy as np
from numpy.typing import NDArray
from PIL import (
    ExifTags,
    Image,
    ImageFile,
    PngImagePlugin,
    PpmImagePlugin,
    UnidentifiedImageError,
)

from srcli.errors import ImageError
from srcli.files import one_line, reason
from srcli.imaging.animations import (
    Animation,
    Frame,
    bare_png,
    compose,
    gif_animation,
    png_animation,
    png_husk,
)
from srcli.imaging.coding import coding_of
from srcli.imaging.deep import TiffPages, is_tiff, png_levels, ppm_levels, tiff_levels
from srcli.imaging.formats import BUILT, PILLOW_SILENCE
from srcli.imaging.pictures import Album, Coding, Levels, Metadata, Picture
from srcli.imaging.profiles import rgb_of
from srcli.imaging.scanning import Bands, Scan, bands_of, png_bones
from srcli.imaging.tags import metadata_of

__all__ = [
    "MAX_PIXELS",
    "Header",
    "from_pillow",
    "read",
    "read_album",
    "read_header",
    "read_size",
    "scan",
]

MAX_PIXELS: Final = 178_956_970
"""Most pixels of a file, all frames together, unless more are asked for.

Where Pillow calls a file a decompression bomb: twice its ``MAX_IMAGE_PIXELS``.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What a file says of its pictures before they are decoded."""

    width: int
    """Pixels across the first picture, upright."""

    height: int
    """Pixels down the first picture, upright."""

    frames: int
    """How many pictures :func:`read_album` would return."""

    channels: int
    """1 for grey, 3 for RGB; of an animated GIF what its first frame's palette says."""

    alpha: bool
    """Whether pixels may be transparent; an animation can turn out to be opaque."""

    bits: int
    """8 or 16 bits a channel."""

    format: str
    """Pillow's name of the format, ``JPEG`` for the several pictures of a phone."""

    coding: Coding
    """How the first picture was stored."""


def read(path: Path, data: bytes | None = None, *, max_pixels: int = MAX_PIXELS) -> Picture:
    """Decode the first picture of an image file, and only that.

    It is the first of :func:`read_album`, but of an animation it has a transparency or colour
    only if it needs one itself.

    Args:
        path: An image file, or what messages are to call ``data``.
        data: The file's bytes where it lies in an archive; None: read ``path``.
        max_pixels: Most pixels that are decoded, at least 1.

    Returns:
        The picture, turned upright as its EXIF says.

    Raises:
        ImageError: If the file is missing, unreadable, damaged, too large or no image.
    """
    with _opened(path, data, max_pixels) as file:
        return next(_pictures(file))


def read_album(path: Path, data: bytes | None = None, *, max_pixels: int = MAX_PIXELS) -> Album:
    """Decode an image file: its picture, the frames of its animation, or its pages.

    PNG, TIFF and PPM of 16 bits keep them, in grey, colour and transparency; the other formats
    are decoded to 8 bits, and so is CMYK. Frames are composed: each is what is to be
    seen. Of a phone's JPEG of several pictures the first is read, of a TIFF all pages but
    reduced copies and masks, of an animated PNG not the picture that stands in for it.

    Args:
        path: An image file, or what messages are to call ``data``.
        data: The file's bytes where it lies in an archive; None: read ``path``.
        max_pixels: Most pixels that are decoded, of all frames or pages together, at least 1.

    Returns:
        The pictures, turned upright as their EXIF says; of an animation all of one size and
        kind. ``loop`` counts how often it plays in all, whatever the format counts.

    Raises:
        ImageError: If the file is missing, unreadable, damaged, too large or no image; it
            says which frame or page is the damaged one.
    """
    with _opened(path, data, max_pixels) as file:
        pictures = list(_numbered(file))
        pages = file.image.format == "TIFF"
        return Album(
            pictures=tuple(pictures if pages else _of_one_kind(pictures)),
            format=file.coding.format,
            coding=file.coding,
            loop=_loop(file) if len(pictures) > 1 else None,
            notes=tuple(file.notes),
        )


def read_header(path: Path, data: bytes | None = None, *, max_pixels: int = MAX_PIXELS) -> Header:
    """Tell what :func:`read_album` would return, without decoding a pixel.

    Args:
        path: An image file, or what messages are to call ``data``.
        data: The file's bytes where it lies in an archive; None: read ``path``.
        max_pixels: Most pixels that would be decoded, at least 1.

    Returns:
        What the file's header says. Damage behind it goes unnoticed.

    Raises:
        ImageError: If the file is missing, unreadable, too large or no image.
    """
    with _opened(path, data, max_pixels) as file:
        image, animation = file.image, file.animation
        width, height = _upright_size(file)
        first = Header(
            width=width,
            height=height,
            frames=1,
            channels=1 if image.mode in _GREY_MODES else 3,
            alpha=animation.clear if animation else _may_be_clear(image),
            bits=_bits(image),
            format=file.coding.format,
            coding=file.coding,
        )
        return replace(first, frames=_count(file))  # counting leaves the first page


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
    with _opened(path, data, MAX_PIXELS) as file:
        return _upright_size(file)


@contextmanager
def scan(path: Path, *, max_pixels: int = MAX_PIXELS) -> Iterator[Scan | None]:
    """Open a still picture so that its rows come as they are decoded, in little memory.

    For pictures that are too large to be held. PNG, TIFF, JPEG and PPM can be read so, grey or
    RGB, of 8 or 16 bits: one upright picture without transparency, not interlaced, not in
    planes, not inverted, no palette, no CMYK. The first rows are decoded to see whether it
    goes. A progressive JPEG's coefficients are held, 2 to 6 bytes a pixel.

    Args:
        path: An image file.
        max_pixels: Most pixels that are decoded, at least 1.

    Yields:
        The picture that :func:`read` would return, by bands; None where a file is of another
        kind, or something is the matter with it that :func:`read` can tell better: then
        nothing has been taken from it.

    Raises:
        ImageError: If the file is missing, unreadable, too large or no image. If it is
            damaged, at once or when its rows come to that.
    """
    if path.is_fifo() or path.is_char_device():  # what is read once cannot be read again
        yield None
        return
    with _opened(path, None, max_pixels) as file:
        plan = _plan(file)
    if plan is None:
        yield None
        return
    bands, scanned = plan
    with _regular(path) as stream:
        rows = bands(stream)
        first = _first_of(rows)
        if first is None:
            yield None
        else:
            yield replace(scanned, rows=_reported(path, chain([first], rows)))


def from_pillow(image: Image.Image) -> Picture:
    """Make a picture of an image that a program already has.

    Args:
        image: Of any mode that files have. Its EXIF and the like are taken from its ``info``;
            of several frames it is the current one. It is not changed.

    Returns:
        The picture, turned upright as its EXIF says. CMYK and CIELAB become sRGB.

    Raises:
        ImageError: If its mode has no range of levels (floating point), or its levels are
            outside of 16 bits, or it cannot be loaded.
    """
    try:
        with PILLOW_SILENCE:
            return _still(image, {})
    except Exception as error:
        raise ImageError(f"{one_line(str(image))}: {_read_problem(error)}") from error


# ---- opening ------------------------------------------------------------------------------


class _PixelLimit:
    """Keeps Pillow's own limit of pixels at the one that is asked for while a thread is inside.

    And that of a PNG's texts and profile as high as it is for all of them together. Pillow has
    one limit for the whole process; of several threads the most generous one's
    holds, and each checks its own besides.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._limits: list[int] = []
        self._before = Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK

    @contextmanager
    def at(self, limit: int) -> Iterator[None]:
        with self._lock:
            if not self._limits:
                self._before = Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK
                # A profile of more than a megabyte must not cost the picture.
                PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY
            self._limits.append(limit)
            Image.MAX_IMAGE_PIXELS = (max(self._limits) + 1) // 2  # it refuses twice as many
        try:
            yield
        finally:
            with self._lock:
                self._limits.remove(limit)
                if self._limits:
                    Image.MAX_IMAGE_PIXELS = (max(self._limits) + 1) // 2
                else:
                    Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK = self._before


_PIXEL_LIMIT: Final = _PixelLimit()

_BEYOND_ALL: Final = 1 << 64
"""More pixels than any format can claim."""


@dataclass(slots=True, kw_only=True)
class _File:
    """An open image file."""

    image: ImageFile.ImageFile
    stream: BinaryIO
    limit: int
    """Most pixels that may be decoded."""

    coding: Coding
    """How the first picture was stored."""

    animation: Animation | None = None
    """Its frames, where they are composed here and not by Pillow."""

    notes: dict[str, None] = field(default_factory=dict)
    """What had to be changed, each once and in order."""

    position: int = 1
    """Which frame or page is being decoded, from 1."""

    def content(self) -> bytes:
        """Read all of it again."""
        self.stream.seek(0)
        return self.stream.read()


@contextmanager
def _opened(path: Path, data: bytes | None, max_pixels: int) -> Iterator[_File]:
    """Open an image and report whatever goes wrong while it is open as one ``ImageError``."""
    try:
        with (
            PILLOW_SILENCE,
            _PIXEL_LIMIT.at(max_pixels),
            path.open("rb") if data is None else io.BytesIO(data) as file,
        ):
            # A pipe cannot be rewound, as telling formats apart needs.
            stream: BinaryIO = file if file.seekable() else io.BytesIO(file.read())
            start = stream.read(4)
            if not start:
                _refuse("empty (0 bytes); fetch the file again")
            stream.seek(0)
            with _image_in(stream, start) as image:
                _check_pixels(image.size, 1, max_pixels)
                coding = coding_of(image, stream)
                yield _prepared(_File(image=image, stream=stream, limit=max_pixels, coding=coding))
    # Pillow's decoders are fed hostile bytes and raise whatever their parsing runs into:
    # OSError, SyntaxError, ValueError, struct.error, EOFError, KeyError, ZeroDivisionError...
    # All of it means the same to a user: this file is not readable.
    except Exception as error:
        raise ImageError(f"{one_line(str(path))}: {_read_problem(error, max_pixels)}") from error


def _image_in(stream: BinaryIO, start: bytes) -> ImageFile.ImageFile:
    """Let Pillow find out what a stream holds."""
    if start == b"MM\0+":
        _refuse("a BigTIFF with the higher byte first, which is not read; convert it to TIFF")
    if is_tiff(start):
        return TiffPages(stream)
    try:
        return Image.open(stream, formats=BUILT)
    except Image.DecompressionBombError:
        if start == b"RIFF":
            raise  # opening a WebP allocates its canvas
    # Once more without a limit, so that the message can tell the size.
    stream.seek(0)
    with _PIXEL_LIMIT.at(_BEYOND_ALL):
        return Image.open(stream, formats=BUILT)


def _prepared(file: _File) -> _File:
    """Take an animated GIF or PNG apart."""
    image = file.image
    if image.format == "AVIF" and (bits := _avif_bits(file.stream)) > 8:
        file.notes[f"AVIF of {bits} bits read at 8 bits"] = None
    if image.format == "GIF":
        animation = gif_animation(file.content())
    elif image.format == "PNG" and getattr(image, "is_animated", False):
        animation = png_animation(file.content())
    else:
        return file
    if not animation.ended:
        file.notes["it has no end mark: frames may be missing"] = None
    if animation.announced > 1 or animation.still:
        file.animation = animation
    return file


def _avif_bits(stream: BinaryIO) -> int:
    """Tell the depth that the first AV1 configuration of an AVIF states (AV1-ISOBMFF, 2.3.3)."""
    position = stream.tell()
    stream.seek(0)
    box = stream.read(1 << 16).partition(b"av1C")[2]
    stream.seek(position)
    high, twelve = (box[2] & 0x40, box[2] & 0x20) if len(box) > 2 else (0, 0)
    return (12 if twelve else 10) if high else 8


def _check_pixels(size: tuple[int, int], frames: int, limit: int) -> None:
    """Refuse what would take more memory than was agreed to."""
    width, height = size
    if width * height * frames > limit:
        several = f"{frames} frames of " if frames > 1 else ""
        _refuse(f"{several}{width}x{height} pixels {_too_many(limit)}")


def _too_many(limit: int) -> str:
    if limit == MAX_PIXELS:
        most = f"the {limit / 1e6:.0f} million that are decoded by default"
    else:
        most = f"the {limit} that --max-pixels allows"
    return f"are more than {most} (a decompression bomb?); raise --max-pixels if you trust it"


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
    ((MemoryError,), "does not fit into memory; cut it into parts"),
)

_TRUNCATION: Final = (
    *("truncated", "not enough", "unexpected end", "premature end of jpeg image", "end of file"),
    "eof",
)


def _read_problem(error: Exception, limit: int = MAX_PIXELS) -> str:
    """Say what is wrong with a file, and a way out, in one line."""
    if isinstance(error, ImageError):
        return str(error)
    if isinstance(error, Image.DecompressionBombError):
        claimed = re.search(r"\((\d+) pixels\)", str(error))
        return f"{claimed[1] if claimed else 'its'} pixels {_too_many(limit)}"
    for kinds, problem in _READ_PROBLEMS:
        if isinstance(error, kinds):
            return problem
    # What the system refuses; but codecs seek to nonsense offsets, which it calls invalid.
    if isinstance(error, OSError) and error.errno not in {None, errno.EINVAL}:
        return f"cannot be read ({reason(error)}); check the path and the disk"
    if isinstance(error, EOFError) or any(word in str(error).lower() for word in _TRUNCATION):
        return "truncated, its end is missing; fetch the file again"
    foreign = str(error).startswith("Unsupported")
    what = "of a kind that is not read" if foreign else "damaged"
    return f"{what} ({reason(error)}); {'convert it to PNG' if foreign else 'fetch the file again'}"


# ---- by rows ------------------------------------------------------------------------------


def _plan(file: _File) -> tuple[Bands, Scan] | None:
    """See how a file is read by rows, and check what its decoder would not; None where it is not.

    What makes :func:`read` do more than decode stands in the way.
    """
    image, stream = file.image, file.stream
    if _is_moving(file) or _may_be_clear(image) or file.notes:
        return None
    bands = bands_of(image, _bits(image))
    if bands is None:
        return None
    holder: ImageFile.ImageFile = image
    if image.format == "PNG":
        bones = png_bones(stream)
        if not bones.sound:
            raise ValueError("broken PNG checksum")
        if bones.kind not in _SCANNED_PNGS or bones.runs != 1 or not bones.ended:
            return None
        holder = _opened_husk(bones.data)
    elif isinstance(image, TiffPages):
        image.check()
    if _orientation_of(holder) != 1:
        return None
    channels = 1 if image.mode in _GREY_MODES else 3
    metadata = metadata_of(holder, channels)
    return bands, _scan_of(file, channels, metadata)


def _scan_of(file: _File, channels: int, metadata: Metadata) -> Scan:
    image = file.image
    return Scan(
        width=image.width,
        height=image.height,
        channels=channels,
        dtype=np.uint16 if _bits(image) == 16 else np.uint8,
        metadata=metadata,
        coding=file.coding,
        format=file.coding.format,
        rows=iter(()),
    )


def _is_moving(file: _File) -> bool:
    """Whether a file has, or might have, more than one picture; those of a phone count as one."""
    image = file.image
    if image.format == "MPO":
        return False
    return file.animation is not None or getattr(image, "is_animated", False)


_SCANNED_PNGS: Final = {(bits, kind, 0) for bits in (8, 16) for kind in (0, 2)}
"""Bits, colour type (grey, RGB) and interlacing."""


@contextmanager
def _regular(path: Path) -> Iterator[BinaryIO]:
    """Open a file that has been opened before."""
    try:
        stream = path.open("rb", buffering=0)
    except OSError as error:
        raise ImageError(f"{one_line(str(path))}: {_read_problem(error)}") from error
    with stream:
        yield stream


def _first_of(rows: Iterator[Levels]) -> Levels | None:
    """Decode the first rows; None where that fails: reading it whole says what is the matter."""
    try:
        return next(rows)
    except Exception:  # noqa: BLE001 - as in _opened
        return None


def _reported(path: Path, rows: Iterator[Levels]) -> Iterator[Levels]:
    """Report whatever goes wrong while rows are decoded as one ``ImageError``."""
    try:
        yield from rows
    except Exception as error:
        raise ImageError(f"{one_line(str(path))}: {_read_problem(error)}") from error


# ---- what the header says -----------------------------------------------------------------


def _is_deep(image: Image.Image) -> bool:
    """Whether a file has 16 bits where Pillow's mode has 8, or pixels it does not know."""
    if isinstance(image, TiffPages):
        return image.deep
    if isinstance(image, PpmImagePlugin.PpmImageFile):
        return _ppm_top(image) > 255
    return image.mode not in _GREY_MODES and _raw_mode(image).endswith(";16B")


def _ppm_top(image: PpmImagePlugin.PpmImageFile) -> int:
    """Tell the level that is white in a PPM in colour that is not loaded yet; else 255."""
    args = image.tile[0].args if image.tile and image.mode == "RGB" else ()
    top = args[-1] if isinstance(args, tuple) and args else 255
    return top if isinstance(top, int) else 255


def _bits(image: Image.Image) -> int:
    """Tell the depth of the levels that an image becomes."""
    if isinstance(image, TiffPages) and image.deep:
        return image.depth
    return 16 if image.mode.startswith("I") or _is_deep(image) else 8


def _raw_mode(image: Image.Image) -> str:
    """What Pillow calls the way in which a PNG that is not loaded yet stores its pixels."""
    tiles = image.tile if isinstance(image, PngImagePlugin.PngImageFile) else []
    return str(tiles[0].args) if tiles else ""


def _may_be_clear(image: ImageFile.ImageFile) -> bool:
    """Whether a still picture has a channel of opacity, or a colour that is clear."""
    if isinstance(image, TiffPages) and image.deep:
        return image.opacity is not None
    return bool(image.has_transparency_data)


def _upright_size(file: _File) -> tuple[int, int]:
    """Width and height of the first picture once it is turned."""
    image = file.image
    width, height = image.size
    if image.format == "TIFF":
        return width, height  # Pillow has swapped them already
    if file.animation is not None:
        width, height = file.animation.size
    if image.format == "PNG" and _has_late_exif(file.stream):
        with _husk(file.stream) as husk:
            orientation = _orientation(husk.getexif)
    else:
        # The getexif of a PNG would decode the pixels to see whether EXIF follows them.
        orientation = _orientation(lambda: Image.Image.getexif(image))
    return (height, width) if orientation >= 5 else (width, height)


def _husk(stream: IO[bytes]) -> ImageFile.ImageFile:
    """Open a PNG without its pixels."""
    return _opened_husk(png_bones(stream, checked=False).data)


def _opened_husk(bones: bytes) -> ImageFile.ImageFile:
    """Open what is left of a PNG without its pixels."""
    return Image.open(io.BytesIO(png_husk(bones)), formats=["PNG"])


def _count(file: _File) -> int:
    """Count the pictures of a file by its headers alone; 1 where they are too damaged."""
    image = file.image
    if file.animation is not None:
        return file.animation.announced
    if isinstance(image, TiffPages):
        return sum(1 for _ in _pages_of(image))
    return int(getattr(image, "n_frames", 1)) if image.format in _SHOWN_BY_PILLOW else 1


# ---- several pictures ---------------------------------------------------------------------

_SHOWN_BY_PILLOW: Final = {"WEBP", "AVIF"}
"""The animated formats whose decoders compose the frames themselves."""


def _pictures(file: _File) -> Iterator[Picture]:
    """Decode one picture of a file after the other."""
    image = file.image
    if file.animation is not None:
        return _composed(file, file.animation)
    if isinstance(image, TiffPages):
        return _pages(file, image)
    if image.format in _SHOWN_BY_PILLOW:
        return _shown(file)
    return iter([_still(image, file.notes, file.content)])


def _numbered(file: _File) -> Iterator[Picture]:
    """Decode all pictures of a file; of several, say which one is damaged."""
    if not isinstance(file.image, TiffPages):
        _check_pixels(file.image.size, _count(file), file.limit)
    try:
        yield from _pictures(file)
    except Exception as error:
        count = _count_or_none(file)
        if count == 1 and file.position == 1:
            raise
        problem = _read_problem(error, file.limit)
        verb = "is " if problem.startswith(("damaged", "truncated", "of a")) else ""
        what = "page" if file.image.format == "TIFF" else "frame"
        of = f" of {count}" if count is not None else ""
        raise ImageError(
            f"{what} {file.position}{of}{' ' if verb else ': '}{verb}{problem}"
        ) from error


def _count_or_none(file: _File) -> int | None:
    """Count the pictures of a file that is known to be damaged."""
    try:
        if isinstance(file.image, TiffPages):
            return file.image.n_frames
        return _count(file)
    except Exception:  # noqa: BLE001 - as in _opened
        return None


def _loop(file: _File) -> int | None:
    """Tell how often an animation plays; Pillow does not say it of AVIF."""
    if file.animation is not None:
        return file.animation.loop
    found = file.image.info.get("loop") if file.image.format == "WEBP" else None
    return found if isinstance(found, int) else None


def _composed(file: _File, animation: Animation) -> Iterator[Picture]:
    """Decode and compose the frames of a GIF or APNG."""
    image = file.image
    if image.format == "PNG":
        image = _husk(file.stream)
        if animation.still:
            file.notes["the picture that stands in for the animation is left out"] = None
    orientation = _orientation(image.getexif)
    metadata = metadata_of(image, 1 if file.image.mode in _GREY_MODES else 3)
    frames = _decoded_frames(file, animation.frames)
    shown = zip(compose(animation.size, frames), animation.frames, strict=False)
    grey = True
    for (pixels, alpha), frame in shown:
        grey = grey and _is_grey(pixels)
        opaque = int(alpha.min()) == np.iinfo(alpha.dtype).max
        yield Picture(
            pixels=_turned(pixels[..., :1] if grey else pixels, orientation),
            alpha=None if opaque else _turned(alpha, orientation),
            metadata=metadata,
            duration=frame.duration,
        )
    if len(animation.frames) < animation.announced:
        file.position = len(animation.frames) + 1
        raise EOFError("unexpected end of file")


def _decoded_frames(
    file: _File, frames: tuple[Frame, ...]
) -> Iterator[tuple[Frame, Levels, Levels | None]]:
    for number, frame in enumerate(frames, start=1):
        file.position = number
        _check_pixels(frame.size, 1, file.limit)
        if not frame.sound:
            raise EOFError if file.image.format == "GIF" else ValueError("broken PNG checksum")
        with _image_of(frame) as image:
            yield frame, *_decoded(image, file.notes, lambda: frame.data)  # noqa: B023 - used now


def _image_of(frame: Frame) -> ImageFile.ImageFile:
    try:
        return Image.open(io.BytesIO(frame.data), formats=("GIF", "PNG"))
    except UnidentifiedImageError as error:
        raise OSError("its data is no image") from error


def _shown(file: _File) -> Iterator[Picture]:
    """Decode the frames that Pillow composes."""
    image = file.image
    count = _count(file)
    for number in range(count):
        file.position = number + 1
        image.seek(number)
        picture = _still(image, file.notes)
        duration = image.info.get("duration") if count > 1 else None
        yield replace(picture, duration=None if duration is None else float(duration))


def _pages(file: _File, image: TiffPages) -> Iterator[Picture]:
    """Decode the pages of a TIFF."""
    total = 0
    for _ in _pages_of(image, file):
        total += image.width * image.height
        if total > file.limit:
            _refuse(f"its pages to here have {total} pixels, which {_too_many(file.limit)}")
        if image.depth > 8 == _bits(image):
            file.notes[f"{image.mode} of {image.depth} bits read at 8 bits"] = None
        yield _still(image, file.notes, file.content)


def _pages_of(image: TiffPages, file: _File | None = None) -> Iterator[int]:
    """Go from page to page, past reduced copies and masks; at the first none is past."""
    page = 0
    while True:
        if file is not None:
            file.position = page + 1
        try:
            image.seek(page)
        except EOFError:
            return
        if page == 0 or not image.is_reduced:
            yield page
        elif file is not None:
            file.notes["reduced copies of its pages are left out"] = None
        page += 1


def _of_one_kind(pictures: list[Picture]) -> list[Picture]:
    """Give all frames an opacity if one has it, and RGB if one is coloured; else make it grey."""
    clear = any(picture.alpha is not None for picture in pictures)
    coloured = any(picture.pixels.shape[2] == 3 for picture in pictures)
    return [_widened(picture, clear=clear, coloured=coloured) for picture in pictures]


def _widened(picture: Picture, *, clear: bool, coloured: bool) -> Picture:
    pixels: NDArray[Any] = picture.pixels
    alpha: NDArray[Any] | None = picture.alpha
    if clear and alpha is None:
        shape = (picture.height, picture.width, 1)
        alpha = np.full(shape, np.iinfo(pixels.dtype).max, pixels.dtype)
    if coloured and pixels.shape[2] == 1:
        pixels = np.repeat(pixels, 3, axis=2)
    return replace(picture, pixels=pixels, alpha=alpha)


# ---- one picture --------------------------------------------------------------------------

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


_MIRRORED: Final = {3, 4, 6, 7}
"""The orientations whose last row becomes the first row or column."""

_STRIP_BYTES: Final = 1 << 22
"""How much of a picture, as Pillow holds it, is turned and converted together."""


def _turned(levels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Turn an array upright; Pillow turns its images faster."""
    if orientation >= 5:
        levels = levels.transpose(1, 0, 2)
    down = -1 if orientation in {3, 4, 7, 8} else 1
    across = -1 if orientation in {2, 3, 6, 7} else 1
    return np.ascontiguousarray(levels[::down, ::across])


def _still(
    image: Image.Image,
    notes: dict[str, None],
    content: Callable[[], bytes] | None = None,
) -> Picture:
    """Decode the current frame of an image; ``content`` gives the file's bytes, if there is one."""
    holder = image
    if content is not None and image.format == "PNG" and _is_deep(image):
        # What Pillow would decode the pixels for, to 8 bits, is had without them.
        holder = _husk(_stream_of(image))
    orientation = _orientation_of(holder) if _is_deep(image) else None
    pixels, alpha = _decoded(image, notes, content)
    if orientation is not None:
        pixels = _turned(pixels, orientation)
        alpha = None if alpha is None else _turned(alpha, orientation)
    metadata = metadata_of(holder, pixels.shape[2])
    if image.mode in _CONVERTED:
        metadata = replace(metadata, icc_profile=None)
    return Picture(pixels=pixels, alpha=alpha, metadata=metadata)


def _decoded(
    image: Image.Image,
    notes: dict[str, None],
    content: Callable[[], bytes] | None = None,
) -> tuple[Levels, Levels | None]:
    """Decode pixels and opacity, turned upright unless they are deep."""
    if isinstance(image, TiffPages) and image.refusal is not None:
        _refuse(f"{image.refusal}; convert it to 8 or 16 bits")
    _check_pixel_data(image, content)
    if content is not None and _is_deep(image):
        return _deep_levels(image, content)
    clear = _clear_colour(image)
    image.load()
    orientation = _orientation(image.getexif)
    if image.mode in _CONVERTED:
        image, note = rgb_of(image)
        notes[note] = None
    pixels, alpha = _levels(image, orientation)
    if clear is not None:
        alpha = _opacity_but(pixels, clear)
    return pixels, alpha


def _opacity_but(pixels: Levels, clear: tuple[int, ...]) -> Levels:
    """Make the pixels of one colour transparent, and all others opaque."""
    height, width, _ = pixels.shape
    alpha: Levels = np.empty((height, width, 1), pixels.dtype)
    colour, top = np.array(clear), np.iinfo(pixels.dtype).max
    rows = max(1, _STRIP_BYTES // (4 * width))
    for row in range(0, height, rows):
        strip = slice(row, row + rows)
        opaque = np.any(pixels[strip] != colour, axis=2, keepdims=True)
        alpha[strip] = opaque.astype(pixels.dtype) * top
    return alpha


def _stream_of(image: Image.Image) -> IO[bytes]:
    """Get the file of an image that is not loaded yet."""
    assert isinstance(image, ImageFile.ImageFile)
    assert image.fp is not None
    return image.fp


def _check_pixel_data(image: Image.Image, content: Callable[[], bytes] | None) -> None:
    """Look for damage that a file's checksums show, but its decoder does not."""
    if isinstance(image, TiffPages):
        image.check()
    elif content is not None and image.format == "PNG" and not png_bones(_stream_of(image)).sound:
        raise ValueError("broken PNG checksum")


def _deep_levels(image: Image.Image, content: Callable[[], bytes]) -> tuple[Levels, Levels | None]:
    """Decode what Pillow has too few bits for, as it is stored."""
    if isinstance(image, TiffPages):
        levels: NDArray[Any] = tiff_levels(image, content())
        colours, opacity = image.colours, image.opacity
    elif isinstance(image, PpmImagePlugin.PpmImageFile):
        start, plain = image.tile[0].offset, image.tile[0].codec_name == "ppm_plain"
        data = memoryview(content())[start:]  # no copy
        return ppm_levels(data, image.size, _ppm_top(image), plain=plain), None
    else:
        levels = png_levels(bare_png(content()), image.size)
        colours = 1 if levels.shape[2] < 3 else 3
        opacity = colours if levels.shape[2] in {2, 4} else None
    alpha = None if opacity is None else np.ascontiguousarray(levels[..., opacity : opacity + 1])
    return np.ascontiguousarray(levels[..., :colours]), alpha


def _orientation_of(image: Image.Image) -> int:
    """Tell how pixels lie that Pillow has not decoded."""
    if isinstance(image, TiffPages):
        return image.stored_orientation
    return _orientation(image.getexif)


def _orientation(getexif: Callable[[], Image.Exif]) -> int:
    """Read the EXIF orientation, 1 to 8; 1 (upright) where there is none or it is broken."""
    try:
        value = getexif().get(ExifTags.Base.Orientation)
    except Exception:  # noqa: BLE001 - broken EXIF raises anything, and must not cost the picture
        return 1
    return value if isinstance(value, int) and value in _TURNS else 1


_GREY_MODES: Final = {"1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N"}
"""Pillow's modes of grey pictures."""

_CONVERTED: Final = {"CMYK", "LAB"}
"""Pillow's modes that become RGB through a profile."""

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


def _levels(image: Image.Image, orientation: int = 1) -> tuple[Levels, Levels | None]:
    """Split a decoded image into its pixels and its opacity, if any, and turn it upright."""
    if image.mode.startswith("I"):
        target = image.mode
        _check_range(image)
    elif image.mode == "P":
        target = "RGBA" if image.has_transparency_data else "RGB"
    else:
        target = _TARGET_MODES.get(image.mode, "")
    if not target:
        _refuse(f"pixels of kind {image.mode} have no fixed range; convert it to 8 or 16 bits")
    dtype = np.uint16 if target.startswith("I") else np.uint8
    size = (image.height, image.width) if orientation < 5 else (image.width, image.height)
    pixels = np.empty((*size, 3 if target.startswith("RGB") else 1), dtype)
    alpha = np.empty((*size, 1), dtype) if target.endswith("A") else None
    for place, strip in _strips(image, orientation):
        levels = np.asarray(strip if strip.mode == target else strip.convert(target))
        levels = levels.reshape(strip.height, strip.width, -1)
        pixels[place] = levels[..., : pixels.shape[2]]
        if alpha is not None:
            alpha[place] = levels[..., -1:]
    return pixels, alpha


def _strips(
    image: Image.Image, orientation: int
) -> Iterator[tuple[tuple[slice, slice], Image.Image]]:
    """Cut an image into strips, turned upright; a second copy of it is never whole.

    With each comes where its rows and columns lie in the picture.
    """
    turn = _TURNS[orientation]
    rows = max(1, _STRIP_BYTES // (4 * image.width))
    for top in range(0, image.height, rows):
        end = min(top + rows, image.height)
        strip = image.crop((0, top, image.width, end))
        mirrored = orientation in _MIRRORED
        lines = slice(image.height - end, image.height - top) if mirrored else slice(top, end)
        place = (lines, slice(None)) if orientation < 5 else (slice(None), lines)
        yield place, strip if turn is None else strip.transpose(turn)


def _check_range(image: Image.Image) -> None:
    """Refuse integers that 16 bits cannot hold; those of modes of 16 bits are none."""
    if image.mode != "I":
        return
    # Pillow's type is that of all modes together.
    low, high = cast("tuple[int, int]", image.getextrema())
    if low < 0 or high > 65535:
        _refuse(f"32-bit levels {low}..{high} are outside 0..65535; convert it to 16 bits")


_KEY_SCALES: Final = {"L;2": (85, 1), "L;4": (17, 1), "RGB;16B": (1, 256)}
"""How Pillow scales the levels of PNGs to 8 bits, but not the one that stands for clear."""


def _clear_colour(image: Image.Image) -> tuple[int, ...] | None:
    """The one colour of a grey or RGB image that stands for transparent pixels, if any."""
    key = image.info.get("transparency")
    if image.mode == "P" or not isinstance(key, int | tuple):
        return None
    if image.mode == "1":
        return (255 if key else 0,)
    if isinstance(key, int) != (image.mode not in {"RGB", "RGBX"}):
        return None
    times, over = _KEY_SCALES.get(_raw_mode(image), (1, 1))
    return tuple(level * times // over for level in (key if isinstance(key, tuple) else (key,)))


def _is_grey(pixels: Levels) -> bool:
    """Whether all three channels are equal."""
    return bool((pixels[..., :1] == pixels[..., 1:]).all())


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
