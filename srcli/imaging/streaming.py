"""Stills of any size into files: rows as they come, encoded by libvips, which holds a few of them.

The rows go into a raw file beside the result, or into memory where they are few. What a PNG or
JPEG says before its picture is written by Pillow, around a picture of one pixel: libvips would
rewrite the EXIF. In a TIFF the tags are added behind the picture.
"""

import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from io import SEEK_END, BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Final

from PIL import TiffImagePlugin

from srcli.files import scratch
from srcli.imaging.bands import Rows
from srcli.imaging.embedding import Embedded
from srcli.imaging.encoding import Encoding, image_of
from srcli.imaging.fitting import eight_bits
from srcli.imaging.formats import FORMATS
from srcli.imaging.ifd import LONG, LONG8, MAIN, SHORT, Layout, add_tags, laid_out, layout_of
from srcli.imaging.vips import vips

__all__ = ["streams", "write_pages", "write_still"]

_HELD: Final = 1 << 26
"""Bytes of a picture up to which it is held in memory, not in a file."""

_BLOCK_BYTES: Final = 1 << 20
_BIG_HEAD: Final = "2sHHHQ"

_BIG: Final = 2**32 - 2**24
"""Bytes of pages up to which offsets of 32 bits surely serve; the rest is for metadata."""


def streams(name: str) -> bool:
    """Whether stills of a format are written as their rows come, by :func:`write_still`."""
    return FORMATS[name].rows


def write_still(
    rows: Rows, stream: BinaryIO, how: Encoding, metadata: Embedded, folder: Path
) -> None:
    """Encode a still as its rows come.

    Args:
        rows: What the format can hold: not deeper, nor transparent where it knows no opacity.
        stream: An empty file that can be sought.
        how: What the file is to be; one that :func:`streams` says yes to.
        metadata: What the format stores besides the pixels.
        folder: Where there is room for the raw picture.

    Raises:
        OSError: What the file system says.
        Exception: What libvips raises.
        BaseException: What the rows raise.
    """
    match how.format:
        case "PPM":
            _write_ppm(rows, stream)
        case "TIFF":
            write_pages([rows], stream, [metadata], folder)
        case "PNG":
            # Level 2 with the difference to the row above packs photographs as well as level 6
            # with all filters, in a fifth of the time.
            save = partial(_saved, "pngsave", compression=2, filter="up")
            head = _Head(_head_of(rows, how, metadata), begins=_png_data, kept=_PNG_HEADER)
            _save(rows, stream, folder, save, head)
        case _:
            save = partial(_saved, "jpegsave", Q=max(1, how.quality), subsample_mode="off")
            head = _Head(_head_of(rows, how, metadata), begins=_jpeg_tables)
            _save(rows, stream, folder, save, head)


def write_pages(
    pages: Sequence[Rows], stream: BinaryIO, metadata: Sequence[Embedded], folder: Path
) -> None:
    """Write pictures as the pages of a TIFF, each of its own size, kind and metadata.

    Args:
        pages: At least one.
        stream: An empty file that can be sought.
        metadata: Of each page.
        folder: As for :func:`write_still`.

    Raises:
        OSError: What the file system says.
        Exception: What libvips raises.
        BaseException: What the rows raise.
    """
    big = sum(rows.row_bytes * rows.height for rows in pages) * 1.002 > _BIG
    save = partial(
        _saved, "tiffsave", compression="deflate", level=2, predictor="horizontal", bigtiff=big
    )
    if len(pages) == 1:
        _save(pages[0], stream, folder, save)
    else:
        appending = TiffImagePlugin.AppendingTiffWriter(stream)
        for rows in pages:
            page = BytesIO()
            _save(rows, page, folder, save)
            appending.write(page.getbuffer())
            appending.newFrame()
    link, order = None, layout_of(stream).order
    for each in metadata:
        link = add_tags(stream, link, each.tiff_tags(order))
    stream.seek(0, SEEK_END)


def _write_ppm(rows: Rows, stream: BinaryIO) -> None:
    """Write PPM or PGM, which store the higher byte of 16 bits first."""
    magic, top = 5 if rows.channels == 1 else 6, 256**rows.itemsize - 1
    stream.write(b"P%d\n%d %d\n%d\n" % (magic, rows.width, rows.height, top))
    blocks = rows.blocks(max(1, _BLOCK_BYTES // rows.row_bytes))
    stream.writelines(levels.astype(f">u{rows.itemsize}", copy=False).data for levels in blocks)


# ---- libvips ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Head:
    """What is to stand before the picture in a file, instead of what libvips writes there."""

    encoded: bytes
    """A file that Pillow wrote."""

    begins: Callable[[bytes], int]
    """Finds in the first bytes of a file where its picture begins; -1: not yet there."""

    kept: int = 0
    """Bytes at the start that stay what libvips wrote: they state the size."""

    def put_before(self, start: bytes) -> bytes | None:
        """Exchange the head in the first bytes of a file; None: more of them are needed."""
        begin = self.begins(start)
        if begin < 0:
            return None
        head = self.encoded[self.kept : self.begins(self.encoded)]
        return start[: self.kept] + head + start[begin:]


def _save(
    rows: Rows,
    stream: BinaryIO,
    folder: Path,
    save: Callable[[Any, Any], None],
    head: _Head | None = None,
) -> None:
    """Let libvips encode a picture without its metadata."""
    pyvips = vips()
    with _raw(rows, folder) as image:
        target, output = pyvips.TargetCustom(), _Output(stream, head)
        target.on_write(output.write)
        target.on_seek(output.seek)
        target.on_read(output.read)
        try:
            save(image, target)
        except pyvips.Error:
            # What libvips says of a failed write is only that it failed.
            if output.error is None:
                raise
        if output.error is not None:
            raise output.error


def _saved(saver: str, image: Any, target: Any, **options: object) -> None:  # noqa: ANN401
    vips().Operation.call(f"{saver}_target", image, target, keep="none", **options)


@contextmanager
def _raw(rows: Rows, folder: Path) -> Iterator[Any]:
    """Collect rows, and give them to libvips, which reads them in order."""
    pyvips = vips()
    if rows.row_bytes * rows.height <= _HELD:
        held = BytesIO()
        _write_plain_tiff(rows, held)
        yield pyvips.Image.tiffload_buffer(held.getvalue(), access="sequential")
        return
    with scratch(folder) as path:
        with path.open("wb") as raw:
            _write_plain_tiff(rows, raw)
        # As a TIFF it is read; libvips would map a raw file, and count as large as that.
        yield pyvips.Image.tiffload(str(path), access="sequential")


def _write_plain_tiff(rows: Rows, stream: BinaryIO) -> None:
    """Write rows as they are, and behind them a directory that says what they are."""
    layout = Layout("<" if sys.byteorder == "little" else ">", big=True)
    step = max(1, _BLOCK_BYTES // rows.row_bytes)
    start = struct.calcsize(_BIG_HEAD)
    end = start + rows.row_bytes * rows.height
    mark = b"II" if layout.order == "<" else b"MM"
    stream.write(struct.pack(layout.order + _BIG_HEAD, mark, 43, 8, 0, end))
    stream.writelines(levels.data for levels in rows.blocks(step))
    tops = range(0, rows.height, step)
    sizes = [min(step, rows.height - top) * rows.row_bytes for top in tops]
    directory = {
        256: layout.numbers(LONG, rows.width),
        257: layout.numbers(LONG, rows.height),
        258: layout.numbers(SHORT, *[rows.itemsize * 8] * rows.channels),
        259: layout.numbers(SHORT, 1),
        262: layout.numbers(SHORT, 1 if rows.channels < 3 else 2),
        273: layout.numbers(LONG8, *(start + top * rows.row_bytes for top in tops)),
        277: layout.numbers(SHORT, rows.channels),
        278: layout.numbers(LONG, step),
        279: layout.numbers(LONG8, *sizes),
        **({} if rows.channels in {1, 3} else {338: layout.numbers(SHORT, 2)}),
    }
    stream.write(laid_out({MAIN: directory}, end, layout))


class _Output:
    """The stream that libvips writes to; what goes wrong there is kept, through C it is lost."""

    def __init__(self, stream: BinaryIO, head: _Head | None) -> None:
        self.error: Exception | None = None
        self._stream = stream
        self._head = head
        self._start = b""

    def write(self, data: Any) -> int:  # noqa: ANN401 - a buffer of cffi
        """Take bytes; -1 where that failed."""
        return self._guarded(lambda: self._put(bytes(data)))

    def seek(self, offset: int, whence: int) -> int:
        """Go to a place; -1 where that failed."""
        return self._guarded(lambda: self._stream.seek(offset, whence))

    def read(self, size: int) -> bytes | None:
        """Give bytes back, for TIFF."""
        return self._stream.read(size)

    def _guarded(self, do: Callable[[], int]) -> int:
        try:
            return do()
        except Exception as error:  # noqa: BLE001 - it is raised where the rows come from
            self.error = self.error or error
            return -1

    def _put(self, data: bytes) -> int:
        if self._head is None:
            return self._stream.write(data)
        self._start += data
        exchanged = self._head.put_before(self._start)
        if exchanged is not None:
            self._stream.write(exchanged)
            self._head = None
        return len(data)


def _head_of(rows: Rows, how: Encoding, metadata: Embedded) -> bytes:
    """Let Pillow encode one pixel, for all that it writes before the picture."""
    encoded = BytesIO()
    pixel = replace(rows.like, pixels=rows.like.pixels[:1, :1].copy(), alpha=None)
    image = image_of(eight_bits(pixel))
    options = how.options(image.mode) | metadata.pillow_options(how.format)
    image.save(encoded, format=how.format, **options)
    return encoded.getvalue()


_PNG_HEADER: Final = 33
"""Bytes of a PNG's signature and first chunk."""


def _png_data(data: bytes) -> int:
    """Find where the first chunk of pixels begins."""
    place = _PNG_HEADER
    while place + 8 <= len(data):
        if data[place + 4 : place + 8] == b"IDAT":
            return place
        place += 12 + int.from_bytes(data[place : place + 4], "big")
    return -1


_TABLES: Final = 0xDB
"""The marker of the quantisation tables (ISO/IEC 10918-1, table B.1), the first after metadata."""


def _jpeg_tables(data: bytes) -> int:
    """Find where the segments before the tables end."""
    place = 2
    while place + 4 <= len(data):
        if data[place + 1] == _TABLES:
            return place
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return -1
