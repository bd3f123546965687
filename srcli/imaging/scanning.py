"""Huge pictures by bands of rows: which files can be read so, and the bands.

PNG, TIFF and JPEG, by libvips, whose decoders go from top to bottom.
"""

import mmap
from collections.abc import Callable, Iterator
from functools import partial
from typing import BinaryIO, Final

from srcli.imaging import tiffs as tags
from srcli.imaging.coding import Header
from srcli.imaging.pictures import Levels, Metadata
from srcli.imaging.pillow import PillowFile
from srcli.imaging.tiffs import Page, TiffFile, page_metadata
from srcli.imaging.vips import decoded_bands

Bands = Callable[[BinaryIO], Iterator[Levels]]
"""Decodes an open file from top to bottom: ``hxWxC`` of a few rows each."""

Plan = tuple[Bands, Header, Metadata]

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


def plan_of(file: PillowFile | TiffFile) -> Plan | None:
    """Return how a file is read by bands, to the same pixels as when it is read whole.

    Args:
        file: An open file, not decoded yet.

    Returns:
        What decodes it; None where what it holds takes more than decoding, or is of a kind that
        cannot be read so.

    Raises:
        ValueError, EOFError: If what it says of itself is damaged.
    """
    header = file.header()
    if file.is_moving or header.alpha:
        return None
    if isinstance(file, TiffFile):
        return _plan_of_page(file.first, header, file.notes)
    if file.orientation != 1 or file.image.mode not in {"L", "RGB", "I;16"}:
        return None
    if file.chunks is not None:
        loader = "pngload"
        fits = file.chunks.ended and file.chunks.kind in _SCANNED_PNGS
    else:
        loader = "jpegload"
        fits = file.format == "JPEG" and _has_end_mark(file.stream)
    if not fits:
        return None
    file.announce()
    return _by_vips(loader, header, _rows_of(header)), header, file.metadata(header.channels)


def _by_vips(loader: str, header: Header, rows: int) -> Bands:
    shape = (header.height, header.width, header.channels)
    return partial(decoded_bands, loader, shape=shape, bits=header.bits, rows=rows)


def _row_bytes(header: Header) -> int:
    return header.width * header.channels * header.bits // 8


def _rows_of(header: Header) -> int:
    return max(_STEP, min(_ROWS, _BAND_BYTES // _row_bytes(header)) // _STEP * _STEP)


def _has_end_mark(stream: BinaryIO) -> bool:
    """Whether a JPEG has an end mark behind its header, where Pillow has stopped reading."""
    start = stream.tell()
    try:
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return data.rfind(b"\xff\xd9", start) >= 0
    except (OSError, ValueError):  # no file of the system's
        return False


def _plan_of_page(page: Page, header: Header, notes: dict[str, None]) -> Plan | None:
    """Plan a page that is stored plainly, in strips or tiles of moderate size."""
    plain = {tags.GREY, tags.RGB} | ({tags.YCBCR} if page.packing == tags.JPEG else set())
    if (
        page.photometric not in plain
        or page.orientation != 1
        or page.is_separate
        or page.samples != header.channels
        or {*page.numbers(tags.BITS, 1)} not in ({8}, {16})
        or {*page.numbers(tags.SAMPLE_FORMAT, 1)} != {1}
    ):
        return None
    step = _step_of(page, header)
    if step is None:
        return None
    metadata = page_metadata(page, notes)
    return _by_vips("tiffload", header, max(1, _rows_of(header) // step) * step), header, metadata


def _step_of(page: Page, header: Header) -> int | None:
    """Return how many rows are decoded together; ``None`` where they are too many to be held."""
    tiled = tags.TILE_WIDTH in page.entries
    step = page.number(tags.TILE_ROWS if tiled else tags.STRIP_ROWS, header.height)
    if not tiled and page.packing == tags.UNPACKED and step >= header.height:
        step = max(1, _CHOPPED // _row_bytes(header))
    step = step if tiled else min(step, header.height)
    if step < 1 or step * _row_bytes(header) > _MOST_STEP:
        return None
    if tiled:
        return step
    # libvips decodes tall strips row by row, and low ones together.
    return _STEP if step > _ROWS else step * max(1, _STEP // step)
