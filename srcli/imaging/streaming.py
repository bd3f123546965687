"""Stills of any size into files: rows as they come, encoded by libvips, which holds a few of them.

The rows go through a pipe, as a PNG that is not compressed. What a PNG or JPEG says before its
picture is written by Pillow, around a picture of one pixel: libvips would rewrite the EXIF. In a
TIFF the tags are added behind the picture.
"""

import os
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from io import SEEK_END, BytesIO
from itertools import chain
from typing import Any, BinaryIO, Final, cast

import numpy as np
from PIL import TiffImagePlugin

from srcli.imaging.chunks import SIGNATURE, assembled
from srcli.imaging.decoding import vips
from srcli.imaging.embedding import pillow_options, tiff_tags
from srcli.imaging.encoding import Encoding, image_of
from srcli.imaging.ifd import add_tags, layout_of
from srcli.imaging.pictures import Levels, Metadata, Picture, eight_bits, interleaved

_BAND_BYTES: Final = 1 << 22


def part_of(picture: Picture, rows: slice) -> Picture:
    """Cut rows out of a picture, without copying them."""
    alpha = None if picture.alpha is None else picture.alpha[rows]
    return replace(picture, pixels=picture.pixels[rows], alpha=alpha)


class Rows:
    """The rows of one picture, which can be gone through once."""

    def __init__(
        self,
        bands: Iterable[Picture],
        *,
        height: int,
        fit: Callable[[Picture], Picture] = lambda picture: picture,
    ) -> None:
        """Ask for the first of the bands.

        Args:
            bands: Full-width parts of the picture from top to bottom, of one kind, at least one.
            height: Rows of the whole picture.
            fit: What to make of each band; pixel by pixel, so that the cuts do not matter.
        """
        self.height, self._fit, rest = height, fit, iter(bands)
        first = next(rest)
        pixels = np.broadcast_to(first.pixels[:1].copy(), (height, *first.pixels.shape[1:]))
        alpha = first.alpha
        if alpha is not None:
            alpha = cast("Levels", np.broadcast_to(alpha[:1].copy(), (height, first.width, 1)))
        self.raw = replace(first, pixels=cast("Levels", pixels), alpha=alpha)
        """The first row as it came, as often as the picture has rows, in the memory of one.

        It has the size, the kind and the metadata of the whole: EXIF and XMP state the size."""

        self.like = interleaved(fit(part_of(self.raw, slice(1))))
        """The first row, fitted, with the opacity behind the other channels: ``1xWxC``."""

        self._bands = chain([first], rest)  # which forgets the first, when the second is wanted

    @classmethod
    def of(cls, picture: Picture, *, fit: Callable[[Picture], Picture]) -> "Rows":
        """Take the rows of a picture that is there."""
        step = max(1, _BAND_BYTES // picture.pixels[0].nbytes)
        tops = range(0, picture.height, step)
        bands = (part_of(picture, slice(top, top + step)) for top in tops)
        return cls(bands, height=picture.height, fit=fit)

    def levels(self) -> Iterator[Levels]:
        """Give the bands, fitted, with the opacity behind the other channels, C-contiguous."""
        for band in self._bands:
            yield interleaved(self._fit(band))
            del band  # it may be large

    def whole(self) -> Picture:
        """Collect all rows, as they came."""
        alpha = None if self.raw.alpha is None else self.raw.alpha.copy()
        whole = replace(self.raw, pixels=self.raw.pixels.copy(), alpha=alpha)
        top = 0
        for band in self._bands:
            whole.pixels[top : top + band.height] = band.pixels
            if alpha is not None and band.alpha is not None:
                alpha[top : top + band.height] = band.alpha
            top += band.height
            del band  # it may be large
        return whole


# ---- into a stream -----------------------------------------------------------------------

_SLICE_BYTES: Final = 1 << 20
"""Bytes of rows that go into the pipe at a time: they are copied three times on the way."""

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
    pages: Sequence[Rows], stream: BinaryIO, how: Encoding, metadata: Sequence[Metadata]
) -> None:
    """Encode a still as its rows come, or the pages of a TIFF, into an empty file.

    ``pages`` are what the format can hold: not deeper, nor transparent where it knows no opacity.
    """
    if how.format == "PPM":
        _write_ppm(pages[0], stream)
    elif how.format == "TIFF":
        _write_tiff(pages, stream, metadata)
    else:
        more = {"Q": max(1, how.quality)} if how.format == "JPEG" else {}
        output = _Output(stream, how.format, _head_of(pages[0], how, metadata[0]))
        _save(pages[0], output, how.format, **more)


def _write_tiff(pages: Sequence[Rows], stream: BinaryIO, metadata: Sequence[Metadata]) -> None:
    """Write pictures as the pages of a TIFF, each of its own size, kind and metadata."""
    big = sum(rows.like.nbytes * rows.height for rows in pages) * 1.002 > _BIG
    if len(pages) == 1:
        _save(pages[0], _Output(stream), "TIFF", bigtiff=big)
    else:
        appending = TiffImagePlugin.AppendingTiffWriter(stream)
        for rows in pages:
            page = BytesIO()
            _save(rows, _Output(page), "TIFF", bigtiff=big)
            appending.write(page.getbuffer())
            appending.newFrame()
    link, order = None, layout_of(stream).order
    for each in metadata:
        link = add_tags(stream, link, tiff_tags(each, order))
    stream.seek(0, SEEK_END)


def _write_ppm(rows: Rows, stream: BinaryIO) -> None:
    """Write PPM or PGM, which store the higher byte of 16 bits first."""
    _, width, channels = rows.like.shape
    magic, top = 5 if channels == 1 else 6, np.iinfo(rows.like.dtype).max
    stream.write(b"P%d\n%d %d\n%d\n" % (magic, width, rows.height, top))
    dtype = rows.like.dtype.newbyteorder(">")
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


def _head_of(rows: Rows, how: Encoding, metadata: Metadata) -> bytes:
    """Let Pillow encode one pixel, for all that it writes before the picture."""
    encoded = BytesIO()
    colours = 1 if rows.like.shape[2] < 3 else 3
    image = image_of(eight_bits(Picture(pixels=rows.like[:, :1, :colours])))
    options = how.options(image.mode) | pillow_options(metadata, how.format)
    image.save(encoded, format=how.format, **options)
    mark, before, _ = _PICTURES[how.format]
    return encoded.getvalue()[: encoded.getvalue().rindex(mark) - before]  # it is the last one


def _save(rows: Rows, output: _Output, name: str, **options: object) -> None:
    """Let libvips encode a picture without its metadata, in another thread as its rows come."""
    reader, writer = os.pipe()
    with ThreadPoolExecutor(1) as pool:
        encoded = pool.submit(_encode, reader, output, name, options)
        with suppress(BrokenPipeError), os.fdopen(writer, "wb") as pipe:
            _write_plain_png(rows, pipe)
        encoded.result()
    if output.error is not None:
        raise output.error


def _encode(reader: int, output: _Output, name: str, options: dict[str, object]) -> None:
    """Encode the PNG that comes out of a pipe, whose end is closed however that ends."""
    with os.fdopen(reader, "rb", buffering=0) as pipe:
        pyvips = vips()
        saver, usual = _SAVERS[name]
        source, target = pyvips.SourceCustom(), pyvips.TargetCustom()
        source.on_read(pipe.read)
        target.on_write(output.write)
        target.on_seek(output.seek)
        target.on_read(output.read)
        try:
            image = pyvips.Image.pngload_source(source, access="sequential")
            pyvips.Operation.call(f"{saver}_target", image, target, keep="none", **usual, **options)
        except pyvips.Error:
            # What libvips says of a failed write is only that it failed.
            if output.error is None:
                raise


def _write_plain_png(rows: Rows, stream: BinaryIO) -> None:
    """Write rows with nothing but what says what they are."""
    _, width, channels = rows.like.shape
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    sizes = struct.pack(">IIBB3x", width, rows.height, 8 * rows.like.itemsize, kind)
    stream.write(SIGNATURE + assembled(b"IHDR", sizes))
    packed, dtype = zlib.compressobj(0), rows.like.dtype.newbyteorder(">")
    step = max(1, _SLICE_BYTES // rows.like.nbytes)
    for levels in rows.levels():
        for top in range(0, len(levels), step):
            stored = levels[top : top + step].astype(dtype, copy=False)
            lines = stored.view(np.uint8).reshape(len(stored), -1)
            lines = np.pad(lines, ((0, 0), (1, 0)))  # not filtered
            stream.write(assembled(b"IDAT", packed.compress(lines.data)))
    stream.write(assembled(b"IDAT", packed.flush()) + assembled(b"IEND", b""))
