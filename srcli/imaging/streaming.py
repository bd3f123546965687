"""Stills of any size into files: rows as they come, encoded by libvips, which holds a few of them.

The rows go into a raw file beside the result. What a PNG or JPEG says before its picture is
written by Pillow, around a picture of one pixel: libvips would rewrite the EXIF. In a TIFF the
tags are added behind the picture.
"""

import struct
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from io import SEEK_END, BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Final

from PIL import TiffImagePlugin

from srcli.files import scratch
from srcli.imaging.bands import Rows
from srcli.imaging.embedding import Embedded
from srcli.imaging.encoding import Encoding, image_of
from srcli.imaging.ifd import LONG, LONG8, MAIN, SHORT, Layout, add_tags, laid_out, layout_of
from srcli.imaging.pictures import eight_bits
from srcli.imaging.vips import vips

_BIG_HEAD: Final = "2sHHHQ"

_BIG: Final = 2**32 - 2**24
"""Bytes of pages up to which offsets of 32 bits surely serve; the rest is for metadata."""

_SAVERS: Final[dict[str, tuple[str, dict[str, object]]]] = {
    # Level 2 with the difference to the row above packs photographs as well as level 6
    # with all filters, in a fifth of the time.
    "PNG": ("pngsave", {"compression": 2, "filter": "up"}),
    "JPEG": ("jpegsave", {"subsample_mode": "off"}),
    "TIFF": ("tiffsave", {"compression": "deflate", "level": 2, "predictor": "horizontal"}),
}
"""The operations of libvips by Pillow's names of the formats, and their options."""

_PICTURES: Final = {"PNG": (b"IDAT", 4, 33), "JPEG": (b"\xff\xdb\0C\0", 0, 0)}
"""What the picture begins with in a PNG (a chunk; its length stands before) or JPEG (the first
table of quantisation), and how much at the start of the file states its size."""


def write_by_rows(
    pages: Sequence[Rows],
    stream: BinaryIO,
    how: Encoding,
    metadata: Sequence[Embedded],
    folder: Path,
) -> None:
    """Encode a still as its rows come, or the pages of a TIFF.

    Args:
        pages: What the format can hold: not deeper, nor transparent where it knows no opacity.
        stream: An empty file that can be sought.
        how: What the file is to be, of a format with ``rows``.
        metadata: What the format stores besides the pixels, of each page.
        folder: Where there is room for the raw picture.
    """
    if how.format == "PPM":
        _write_ppm(pages[0], stream)
    elif how.format == "TIFF":
        _write_tiff(pages, stream, metadata, folder)
    else:
        more = {"Q": max(1, how.quality)} if how.format == "JPEG" else {}
        output = _Output(stream, how.format, _head_of(pages[0], how, metadata[0]))
        _save(pages[0], output, how.format, folder, **more)


def _write_tiff(
    pages: Sequence[Rows], stream: BinaryIO, metadata: Sequence[Embedded], folder: Path
) -> None:
    """Write pictures as the pages of a TIFF, each of its own size, kind and metadata."""
    big = sum(rows.row_bytes * rows.height for rows in pages) * 1.002 > _BIG
    if len(pages) == 1:
        _save(pages[0], _Output(stream), "TIFF", folder, bigtiff=big)
    else:
        appending = TiffImagePlugin.AppendingTiffWriter(stream)
        for rows in pages:
            page = BytesIO()
            _save(rows, _Output(page), "TIFF", folder, bigtiff=big)
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
    dtype = f">u{rows.itemsize}"
    stream.writelines(levels.astype(dtype, copy=False).data for levels in rows.levels())


# ---- libvips ------------------------------------------------------------------------------


class _Output:
    """The stream that libvips writes to; what goes wrong there is kept, through C it is lost."""

    def __init__(self, stream: BinaryIO, name: str = "", head: bytes = b"") -> None:
        """Take a stream, and what is to stand before the picture instead of libvips' own."""
        self.error: Exception | None = None
        self._stream, self._name, self._head, self._start = stream, name, head, b""

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
        if not self._head:
            return self._stream.write(data)
        self._start += data
        mark, before, kept = _PICTURES[self._name]
        if mark in self._start:
            begin = self._start.index(mark) - before
            self._stream.write(self._start[:kept] + self._head[kept:] + self._start[begin:])
            self._head = b""
        return len(data)


def _head_of(rows: Rows, how: Encoding, metadata: Embedded) -> bytes:
    """Let Pillow encode one pixel, for all that it writes before the picture."""
    encoded = BytesIO()
    pixel = replace(rows.like, pixels=rows.like.pixels[:1, :1].copy(), alpha=None)
    image = image_of(eight_bits(pixel))
    options = how.options(image.mode) | metadata.pillow_options(how.format)
    image.save(encoded, format=how.format, **options)
    mark, before, _ = _PICTURES[how.format]
    return encoded.getvalue()[: encoded.getvalue().rindex(mark) - before]  # it is the last one


def _save(rows: Rows, output: _Output, name: str, folder: Path, **options: object) -> None:
    """Let libvips encode a picture without its metadata, from a file of its rows."""
    pyvips = vips()
    saver, usual = _SAVERS[name]
    target = pyvips.TargetCustom()
    target.on_write(output.write)
    target.on_seek(output.seek)
    target.on_read(output.read)
    with scratch(folder) as path:
        with path.open("wb") as raw:
            _write_plain_tiff(rows, raw)
        # As a TIFF it is read; libvips would map a raw file, and count as large as that.
        image = pyvips.Image.tiffload(str(path), access="sequential")
        try:
            pyvips.Operation.call(f"{saver}_target", image, target, keep="none", **usual, **options)
        except pyvips.Error:
            # What libvips says of a failed write is only that it failed.
            if output.error is None:
                raise
    if output.error is not None:
        raise output.error


def _write_plain_tiff(rows: Rows, stream: BinaryIO) -> None:
    """Write rows as they are, and behind them a directory that says what they are."""
    layout = Layout("<" if sys.byteorder == "little" else ">", big=True)
    start = struct.calcsize(_BIG_HEAD)
    end = start + rows.row_bytes * rows.height
    mark = b"II" if layout.order == "<" else b"MM"
    stream.write(struct.pack(layout.order + _BIG_HEAD, mark, 43, 8, 0, end))
    stream.writelines(levels.data for levels in rows.levels())
    directory = {
        256: layout.numbers(LONG, rows.width),
        257: layout.numbers(LONG, rows.height),
        258: layout.numbers(SHORT, *[rows.itemsize * 8] * rows.channels),
        259: layout.numbers(SHORT, 1),
        262: layout.numbers(SHORT, 1 if rows.channels < 3 else 2),
        273: layout.numbers(LONG8, *range(start, end, rows.row_bytes)),
        277: layout.numbers(SHORT, rows.channels),
        278: layout.numbers(LONG, 1),
        279: layout.numbers(LONG8, *[rows.row_bytes] * rows.height),
        **({} if rows.channels in {1, 3} else {338: layout.numbers(SHORT, 2)}),
    }
    stream.write(laid_out({MAIN: directory}, end, layout))
