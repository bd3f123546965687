"""TIFF and BigTIFF files out: pages of 8 or 16 bits, compressed without loss.

TIFF Revision 6.0 (Adobe, 1992) with the Deflate compression and the predictor of its Technical
Notes; BigTIFF as libtiff has it. Pillow cannot write 16 bits of colour, and no writer puts EXIF
directories into pages, so the few tags are set here.
"""

from collections.abc import Sequence
from typing import BinaryIO, Final

import numpy as np

from srcli.imaging.bands import Rows
from srcli.imaging.deflate import deflated
from srcli.imaging.directories import (
    BYTE,
    LONG,
    LONG8,
    SHORT,
    UNDEFINED,
    Directory,
    Entry,
    Exif,
    built,
    entry,
    swapped,
)
from srcli.imaging.pictures import Levels, Picture
from srcli.imaging.tags import IPTC_TAG, dpi_of, exif_for, profile_for, resolution_tags, xmp_for

__all__ = ["write_tiff", "write_tiff_rows"]

_LARGEST: Final = 2**32 - 2**20
"""Bytes up to which offsets of 32 bits surely serve; the last MiB is for directories."""

_STRIP_BYTES: Final = 1 << 20
"""Raw bytes of a strip: few enough that a reader of a part need not decode much more."""

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 256, 257, 258, 259, 262
_STRIPS, _SAMPLES, _STRIP_ROWS, _STRIP_SIZES, _PLANES = 273, 277, 278, 279, 284
_PREDICTOR, _EXTRA_SAMPLES, _XMP, _PROFILE = 317, 338, 700, 34675

_DEFLATE: Final = 8
_DIFFERENCES: Final = 2
_UNASSOCIATED: Final = 2


def write_tiff(pictures: Sequence[Picture], stream: BinaryIO, *, big: bool | None = None) -> None:
    """Write pictures as the pages of a TIFF, each of its own size, kind and metadata.

    Args:
        pictures: At least one.
        stream: An empty file that can be sought.
        big: Whether to write a BigTIFF; None: where 32 bits might not reach to the end.

    Raises:
        OSError: What the file system says.
    """
    _write([Rows.of(picture) for picture in pictures], stream, big=big)


def write_tiff_rows(rows: Rows, stream: BinaryIO) -> None:
    """Write one picture as its rows come; a strip of them is held.

    Whether it becomes a BigTIFF is decided before the first row, by what noise would take.

    Args:
        rows: The picture.
        stream: An empty file that can be sought.

    Raises:
        OSError: What the file system says.
        BaseException: What the rows raise.
    """
    _write([rows], stream, big=None)


def _write(pages: Sequence[Rows], stream: BinaryIO, *, big: bool | None) -> None:
    wide = sum(map(_most_bytes, pages)) > _LARGEST if big is None else big
    # That of the EXIF, whose maker's notes may rely on it; but in a BigTIFF Pillow knows one alone.
    order = next((exif.order for each in pages if not wide and (exif := exif_for(each.like))), "<")
    writer = _Writer(stream, order, big=wide)
    for rows in pages:
        writer.add(rows)


def _most_bytes(rows: Rows) -> int:
    """Bytes that a picture takes at most: those of levels that cannot be compressed."""
    levels = rows.row_bytes * rows.height
    metadata = rows.like.metadata
    blocks = (metadata.icc_profile, metadata.exif, metadata.xmp, metadata.iptc)
    return levels + levels // 1000 + sum(len(block) for block in blocks if block) + 4096


class _Writer:
    """Appends pages, and links each to the one before."""

    def __init__(self, stream: BinaryIO, order: str, *, big: bool) -> None:
        self._stream = stream
        self._order = order
        self._big = big
        self._offset = LONG8 if big else LONG
        head = (43, 8, 0) if big else (42,)
        stream.write((b"II" if order == "<" else b"MM") + entry(order, SHORT, *head).data)
        self._link = stream.tell()
        stream.write(self._offsets(0).data)

    def _offsets(self, *offsets: int) -> Entry:
        return entry(self._order, self._offset, *offsets)

    def add(self, rows: Rows) -> None:
        """Write one page: its strips, the directories it points at, and its own."""
        tags = self._strips(rows) | self._metadata(rows.like)
        place = self._append(tags)
        self._stream.seek(self._link)
        self._stream.write(self._offsets(place).data)
        self._link = place + (8 + 20 * len(tags) if self._big else 2 + 12 * len(tags))
        self._stream.seek(0, 2)

    def _append(self, directory: Directory) -> int:
        place = self._stream.tell()
        place += self._stream.write(b"\0" * (place % 2))  # directories begin on even bytes
        self._stream.write(built(directory, place, self._order, big=self._big))
        return place

    def _strips(self, rows: Rows) -> Directory:
        strip = max(1, _STRIP_BYTES // rows.row_bytes)
        places, sizes = [], []
        for levels in rows.blocks(strip):
            places.append(self._stream.tell())
            sizes.append(self._stream.write(self._packed(levels)))
        shorts = {
            _BITS: [rows.itemsize * 8] * rows.channels,
            _COMPRESSION: [_DEFLATE],
            _PHOTOMETRIC: [1 if rows.channels < 3 else 2],
            _SAMPLES: [rows.channels],
            _PLANES: [1],
            _PREDICTOR: [_DIFFERENCES],
            **({} if rows.like.alpha is None else {_EXTRA_SAMPLES: [_UNASSOCIATED]}),
        }
        longs = {_WIDTH: rows.width, _HEIGHT: rows.height, _STRIP_ROWS: strip}
        return {
            **{tag: entry(self._order, SHORT, *values) for tag, values in shorts.items()},
            **{tag: entry(self._order, LONG, value) for tag, value in longs.items()},
            _STRIPS: self._offsets(*places),
            _STRIP_SIZES: self._offsets(*sizes),
        }

    def _packed(self, levels: Levels) -> bytes:
        """Compress rows as the differences between neighbours, modulo the range."""
        steps = levels.copy()
        steps[:, 1:] -= levels[:, :-1]
        stored = np.dtype(f"{self._order}u{levels.itemsize}")
        return deflated(steps.astype(stored, copy=False).view(np.uint8))

    def _metadata(self, picture: Picture) -> Directory:
        exif = exif_for(picture) or Exif(order=self._order, main={})
        main, parts = exif.main, exif.parts
        if exif.order != self._order:
            main, parts = swapped(main), {tag: swapped(part) for tag, part in parts.items()}
        tags = dict(main)
        tags |= {tag: self._offsets(self._append(part)) for tag, part in parts.items()}
        if (dpi := dpi_of(picture.metadata.dpi)) is not None:
            tags |= resolution_tags(dpi, self._order)
        profile = profile_for(picture.metadata.icc_profile, picture.pixels.shape[2])
        if profile is not None:
            tags[_PROFILE] = Entry(kind=UNDEFINED, data=profile)
        if (packet := xmp_for(picture)) is not None:
            tags[_XMP] = Entry(kind=BYTE, data=packet)
        if picture.metadata.iptc:
            tags[IPTC_TAG] = Entry(kind=UNDEFINED, data=picture.metadata.iptc)
        return tags
