"""Image files in: bytes to upright pictures, every frame and page of them.

RGB and grey are never converted between colour profiles; a profile travels with the pixels that
it describes, or is dropped. CMYK and CIELAB, which no picture here can hold, become sRGB.
"""

import io
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import fields
from itertools import chain
from pathlib import Path
from typing import BinaryIO, Final

from PIL import Image

from srcli.errors import ImageError
from srcli.files import is_pipe
from srcli.imaging import pages
from srcli.imaging.colour import rgb_of
from srcli.imaging.decoding import CONVERTED, decoded_bands, levels_of
from srcli.imaging.formats import FORMATS
from srcli.imaging.headers import Header, Scan
from srcli.imaging.metadata import metadata_of, orientation_of
from srcli.imaging.opening import MAX_PIXELS, PILLOW_SILENCE, check_pixels, named, problem_of
from srcli.imaging.pages import Page, is_tiff
from srcli.imaging.pictures import Album, Levels, Picture, of_one_kind
from srcli.imaging.pillow import PillowFile
from srcli.imaging.tiffs import TiffFile

_File = PillowFile | TiffFile


@contextmanager
def _opened(path: Path, data: bytes | None, max_pixels: int) -> Iterator[_File]:
    """Open an image file with what decodes it; its problems are one ``ImageError``."""
    notes: dict[str, None] = {}
    with (
        named(path, max_pixels),
        PILLOW_SILENCE.up_to(max_pixels),
        path.open("rb") if data is None else io.BytesIO(data) as file,
    ):
        # A pipe cannot be rewound, as telling formats apart needs.
        stream: BinaryIO = file if file.seekable() else io.BytesIO(file.read())
        start = stream.read(4)
        if not start:
            raise ImageError("empty (0 bytes); fetch the file again")
        stream.seek(0)
        yield (TiffFile if is_tiff(start) else PillowFile)(stream, max_pixels, notes)


def read(path: Path, data: bytes | None = None, *, max_pixels: int = MAX_PIXELS) -> Picture:
    """Decode the first picture of an image file, and only that.

    It is the first of :func:`read_album`, whose arguments and errors it has, but of an animation
    it has a transparency or colour only if it needs one itself.
    """
    with _opened(path, data, max_pixels) as file:
        return next(file.pictures())


def read_album(path: Path, data: bytes | None = None, *, max_pixels: int = MAX_PIXELS) -> Album:
    """Decode an image file: its picture, the frames of its animation, or its pages.

    Of a phone's JPEG of several pictures the first is read, of a TIFF all pages but reduced
    copies and masks. All are turned upright as their EXIF says.

    Args:
        path: An image file, or what messages are to call ``data``.
        data: The file's bytes where it lies in an archive; None: read ``path``.
        max_pixels: Most pixels that are decoded, of all frames or pages together, at least 1.

    Raises:
        ImageError: If the file is missing, unreadable, damaged, too large or no image; it
            says which frame or page is the damaged one.
    """
    with _opened(path, data, max_pixels) as file:
        if isinstance(file, PillowFile):
            check_pixels(file.size, file.count, file.limit)
        pictures, loop = list[Picture](), None
        try:
            pictures.extend(file.pictures())
        except Exception as error:
            if file.count == 1:
                raise
            which = f"{file.part} {len(pictures) + 1} of {file.count}"
            raise ImageError(f"{which}: {problem_of(error, file.limit)}") from error
        coding = file.header().coding
        if len(pictures) > 1 and isinstance(file, PillowFile):
            pictures, loop = of_one_kind(pictures), file.image.info.get("loop")
        return Album(
            pictures=tuple(pictures),
            format=coding.format if coding.format in FORMATS else "JPEG",
            coding=coding,
            loop=loop,
            notes=tuple(file.notes),
        )


def read_header(path: Path, data: bytes | None = None, *, max_pixels: int = MAX_PIXELS) -> Header:
    """Return what a file says of what :func:`read_album` would return; no pixel is decoded.

    The arguments and errors are those of :func:`read_album`; damage behind the header goes
    unnoticed.
    """
    with _opened(path, data, max_pixels) as file:
        return file.header()


def read_size(path: Path, data: bytes | None = None) -> tuple[int, int]:
    """Return width and height of what :func:`read` would return, upright, without decoding it."""
    with _opened(path, data, MAX_PIXELS) as file:
        header = file.header()
        return header.width, header.height


@contextmanager
def scan(path: Path, *, max_pixels: int = MAX_PIXELS) -> Iterator[Scan | None]:
    """Open a still picture so that its rows come as they are decoded, in little memory.

    For pictures that are too large to be held. PNG, TIFF and JPEG can be read so, grey or RGB: one
    upright picture without transparency, not interlaced, not in planes, not inverted. The first
    rows are decoded to see whether it goes.

    Yields:
        The picture that :func:`read` would return, by bands; None where a file is of another
        kind, or something is the matter with it that :func:`read` can tell better.

    Raises:
        ImageError: As :func:`read_album`; if it is damaged, perhaps when its rows come to that.
    """
    with ExitStack() as stack:
        yield None if is_pipe(path) else _scan_of(path, max_pixels, stack)


def _scan_of(path: Path, max_pixels: int, stack: ExitStack) -> Scan | None:
    """Open a still picture if it can be read by rows, until the stack is closed."""
    with _opened(path, None, max_pixels) as file:
        header = file.header()
        plan = _plan_of(file, header)
        if plan is None:
            return None
        metadata = file.described(header.channels)
    loader, count = plan
    with named(path):
        stream = stack.enter_context(path.open("rb", buffering=0))
    shape = (header.height, header.width, header.channels)
    rows = decoded_bands(loader, stream, shape=shape, bits=header.bits, rows=count)
    try:
        first = next(rows)
    except Exception:  # noqa: BLE001 - reading it whole says what is the matter
        return None
    known = {each.name: getattr(header, each.name) for each in fields(header)}
    rows, notes = _reported(path, chain([first], rows)), tuple(file.notes)
    return Scan(**known, metadata=metadata, rows=rows, notes=notes)


def _reported(path: Path, rows: Iterator[Levels]) -> Iterator[Levels]:
    """Report whatever goes wrong while rows are decoded as one ``ImageError``."""
    with named(path):
        yield from rows


def from_pillow(image: Image.Image) -> Picture:
    """Make a picture of an image that a program already has, which is not changed.

    Its EXIF and the like are taken from its ``info``; of several frames it is the current one.

    Raises:
        ImageError: If its mode has no range of levels (floating point), or its levels are
            outside of 16 bits, or it cannot be loaded.
    """
    name = os.fsdecode(getattr(image, "filename", "")) or str(image)
    with named(Path(name)), PILLOW_SILENCE.up_to():
        if 0 in image.size:
            raise ImageError("it has no pixels; give one that has")
        image.load()
        converted = rgb_of(image)[0] if image.mode in CONVERTED else image
        orientation = orientation_of(image)
        pixels, alpha = levels_of(converted, orientation)
        height, width, channels = pixels.shape
        metadata = metadata_of(image, channels, orientation, (width, height), {})
        return Picture(pixels=pixels, alpha=alpha, metadata=metadata)


# ---- by rows ------------------------------------------------------------------------------

_ROWS: Final = 128
"""Rows of a band: whole blocks of a JPEG, and few enough to be nothing beside a picture."""

_STEP: Final = 16
"""How many rows of a PNG or JPEG libvips decodes together, and forgets the rest of."""

_BAND_BYTES: Final = 1 << 22
"""Most bytes of a band, where its rows are so long that fewer have to do."""

_MOST_STEP: Final = 1 << 25
"""Most bytes of a strip or of a row of tiles: bands are made of them."""

_CHOPPED: Final = 1 << 13
"""Bytes of the strips that libtiff makes of one long one (its ``STRIP_SIZE_DEFAULT``)."""

_SCANNED_PNGS: Final = {(bits, kind, 0) for bits in (8, 16) for kind in (0, 2)}
"""Bits, colour type (grey, RGB) and interlacing."""


def _plan_of(file: _File, header: Header) -> tuple[str, int] | None:
    """Return the loader of libvips and the rows of a band; None: it takes more than decoding."""
    if file.count > 1 or header.alpha:
        return None
    row_bytes = header.width * header.channels * header.bits // 8
    rows = max(_STEP, min(_ROWS, _BAND_BYTES // row_bytes) // _STEP * _STEP)
    if isinstance(file, TiffFile):
        step = _step_of(file.first, header, row_bytes)
        return None if step is None else ("tiffload", max(1, rows // step) * step)
    if file.chunks is not None:
        loader, fits = "pngload", file.is_still_png and file.chunks.kind in _SCANNED_PNGS
    else:
        loader, fits = "jpegload", file.format == "JPEG" and file.image.mode in {"L", "RGB"}
    is_plain = fits and file.orientation == 1 and file.behind is not None
    return (loader, rows) if is_plain else None


def _step_of(page: Page, header: Header, row_bytes: int) -> int | None:
    """Return how many rows of a page are decoded together.

    ``None`` where it needs more than decoding, or they are too many to be held.
    """
    plain = {pages.GREY, pages.RGB} | ({pages.YCBCR} if page.packing == pages.JPEG else set())
    is_plain = (
        page.index == 0
        and page.photometric in plain
        and page.orientation == 1
        and not page.is_separate
        and page.samples == header.channels
        and {*page.numbers(pages.BITS, 1)} in ({8}, {16})
        and {*page.numbers(pages.SAMPLE_FORMAT, 1)} == {1}
    )
    tiled = pages.TILE_WIDTH in page.entries
    step = min(
        page.number(pages.TILE_ROWS if tiled else pages.STRIP_ROWS, header.height), header.height
    )
    if not tiled and page.packing == pages.UNPACKED and step == header.height:
        step = max(1, _CHOPPED // row_bytes)
    if not is_plain or step < 1 or step * row_bytes > _MOST_STEP:
        return None
    # libvips decodes tall strips row by row, and low ones together.
    return _STEP if step > _ROWS and not tiled else step * max(1, _STEP // step)
