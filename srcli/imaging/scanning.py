"""Huge pictures by bands of rows: which files can be read so, and the bands.

PNG, TIFF and JPEG by libvips, whose decoders go from top to bottom; PPM has nothing to decode.
"""

import mmap
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import BinaryIO, Final

from srcli.imaging import pages as tags
from srcli.imaging.coding import Header
from srcli.imaging.metadata import page_metadata
from srcli.imaging.pages import Page
from srcli.imaging.pictures import Levels, Metadata
from srcli.imaging.pillow import PillowFile
from srcli.imaging.ppm import Ppm, ppm_levels
from srcli.imaging.tiffs import TiffFile
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
"""Most bytes of a strip, or of a row of tiles, of a compressed TIFF: bands are made of them."""

_MOST_PACKED: Final = 1 << 23
"""Most bytes of a compressed strip or tile: libtiff holds it as a whole."""

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
        ValueError, EOFError, zlib.error: If it is damaged in a way that its decoder would miss.
    """
    header = file.header()
    if file.is_moving or header.alpha:
        return None
    if isinstance(file, TiffFile):
        return _plan_of_page(file.first, header, file.notes)
    if file.orientation != 1 or file.image.mode not in {"L", "RGB", "I", "I;16"}:
        return None
    bands: Bands | None = None
    if file.ppm is not None and not file.ppm.plain:
        bands = partial(_ppm_bands, ppm=file.ppm, rows=_rows_of(header))
    elif file.format == "PNG" and _is_sound_png(file):
        bands = _by_vips("pngload", header, _rows_of(header))
    elif file.format == "JPEG" and _has_end_mark(file.stream):
        bands = _by_vips("jpegload", header, _rows_of(header))
    if bands is None:
        return None
    file.announce()
    return bands, header, file.metadata(header.channels)


def _by_vips(loader: str, header: Header, rows: int) -> Bands:
    shape = (header.height, header.width, header.channels)
    return partial(decoded_bands, loader, shape=shape, bits=header.bits, rows=rows)


def _row_bytes(header: Header) -> int:
    return header.width * header.channels * header.bits // 8


def _rows_of(header: Header) -> int:
    return max(_STEP, min(_ROWS, _BAND_BYTES // _row_bytes(header)) // _STEP * _STEP)


def _is_sound_png(file: PillowFile) -> bool:
    chunks = file.chunks
    assert chunks is not None
    if chunks.damaged:
        raise ValueError("broken PNG checksum")
    return chunks.kind in _SCANNED_PNGS and chunks.runs == 1 and chunks.ended


def _has_end_mark(stream: BinaryIO) -> bool:
    """Whether a JPEG has an end mark behind its header, where Pillow has stopped reading."""
    start = stream.tell()
    try:
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return data.rfind(b"\xff\xd9", start) >= 0
    except (OSError, ValueError):  # no file of the system's
        return False


def _ppm_bands(stream: BinaryIO, *, ppm: Ppm, rows: int) -> Iterator[Levels]:
    width, height = ppm.size
    stream.seek(ppm.start)
    for top in range(0, height, rows):
        part = replace(ppm, size=(width, min(rows, height - top)))
        bytes_each = 1 if ppm.top == 255 else 2
        yield ppm_levels(stream.read(width * part.size[1] * ppm.channels * bytes_each), part)


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
    page.check()
    metadata = page_metadata(page, notes)
    return _by_vips("tiffload", header, max(1, _rows_of(header) // step) * step), header, metadata


def _step_of(page: Page, header: Header) -> int | None:
    """Return the rows of a strip or tile; ``None`` where they are too large to be held."""
    tiled = tags.TILE_WIDTH in page.entries
    step = page.number(tags.TILE_ROWS if tiled else tags.STRIP_ROWS, header.height)
    step = min(step, header.height) if not tiled else step
    sizes = [count for _, count in page.parts()]
    packed = page.packing != tags.UNPACKED
    if step < 1 or (packed and max(sizes, default=0) > _MOST_PACKED):
        return None
    if not tiled:
        if not packed and len(sizes) == 1:
            step = max(1, _CHOPPED // _row_bytes(header))
        elif step > _ROWS:
            return _STEP  # libvips decodes such strips row by row
        step *= max(1, _STEP // step)  # and low ones together
    return step if step * _row_bytes(header) <= _MOST_STEP else None
