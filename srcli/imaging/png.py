"""PNG files out: 8 or 16 bits, animations, and all that a picture's metadata holds.

PNG Specification, Third Edition (W3C, 2025), which includes the animations that were APNG.
Pillow holds no 16 bits of colour, drops what it does not know, and asks for the whole picture, so
all is set here. A still is written as its rows come.
"""

import itertools
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from typing import BinaryIO, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from srcli.imaging.bands import Rows
from srcli.imaging.deflate import Deflater, check, deflater
from srcli.imaging.directories import exif_block
from srcli.imaging.fitting import changed_part, interleaved
from srcli.imaging.pictures import Levels, Picture
from srcli.imaging.tags import dpi_of, exif_for, profile_for, xmp_for

__all__ = ["Writable", "write_bare_png", "write_png", "write_png_rows"]

_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"

_COLOUR_TYPES: Final = {1: 0, 3: 2, 2: 4, 4: 6}
"""The number of samples of a pixel, and PNG's name for it."""

_IDAT_BYTES: Final = 1 << 20
_BLOCK_BYTES: Final = 1 << 18
"""Bytes of levels that are filtered at once: few enough for a core's cache."""

_AVERAGE, _PAETH = 3, 4
_MOST_PLAYS: Final = 2**31 - 1
_METRE: Final = 1 / 0.0254
"""Inches."""


def write_png(pictures: Sequence[Picture], stream: BinaryIO, *, loop: int | None = None) -> None:
    """Write a picture as a PNG, or several as an animated one.

    Args:
        pictures: At least one; frames of one size and kind. The metadata is the first's.
        stream: Where to.
        loop: How often an animation plays, 0 for ever; None: once.

    Raises:
        OSError: What the file system says.
    """
    if len(pictures) == 1:
        write_png_rows(Rows.of(pictures[0]), stream)
        return
    plays = 1 if loop is None else min(loop, _MOST_PLAYS)
    control = b"acTL", struct.pack(">II", len(pictures), plays)
    chunks = itertools.chain(_metadata(pictures[0]), [control], _frames(pictures))
    _write(stream, Rows.of(pictures[0]), chunks)


def write_png_rows(rows: Rows, stream: BinaryIO) -> None:
    """Write one picture as its rows come; a few megabytes of them are held.

    The same rows give the same bytes, however they were cut into bands.

    Args:
        rows: The picture.
        stream: Where to.

    Raises:
        OSError: What the file system says.
        BaseException: What the rows raise.
    """
    blocks = rows.blocks(_rows_at_once(rows.row_bytes))
    data = _data(_packed(_filtered(blocks), deflater()))
    _write(stream, rows, itertools.chain(_metadata(rows.like), data))


class Writable(Protocol):
    """What takes bytes, such as a stream."""

    def write(self, data: bytes, /) -> object:
        """Take all of the bytes."""


def write_bare_png(rows: Rows, stream: Writable) -> None:
    """Write levels of 8 bits without filters, compression or metadata, for a program to read.

    Args:
        rows: The picture.
        stream: Where to.

    Raises:
        Exception: What the stream raises.
        BaseException: What the rows raise.
    """
    blocks = rows.blocks(_rows_at_once(rows.row_bytes))
    flat = (levels.view(np.uint8).reshape(len(levels), -1) for levels in blocks)
    unfiltered = (np.pad(levels, ((0, 0), (1, 0))) for levels in flat)
    _write(stream, rows, _data(_packed(unfiltered, deflater(stored=True))))


_Chunk = tuple[bytes, bytes]


def _write(stream: Writable, rows: Rows, content: Iterable[_Chunk]) -> None:
    header = (rows.width, rows.height, rows.itemsize * 8, _COLOUR_TYPES[rows.channels], 0, 0, 0)
    early = [(b"IHDR", struct.pack(">IIBBBBB", *header))]
    stream.write(_SIGNATURE)
    for name, data in itertools.chain(early, content, [(b"IEND", b"")]):
        stream.write(struct.pack(">I", len(data)) + name)
        stream.write(data)
        stream.write(struct.pack(">I", check(data, check(name))))


def _data(packed: Iterable[bytes]) -> Iterator[_Chunk]:
    return ((b"IDAT", data) for data in packed)


def _frames(pictures: Sequence[Picture]) -> Iterator[_Chunk]:
    """Yield every frame, cut to what differs from the one before."""
    before: Levels | None = None
    number = 0
    for picture in pictures:
        levels = interleaved(picture)
        known = np.False_ if before is None else np.equal(levels, before).all(axis=2)
        rows, columns = changed_part(np.broadcast_to(~known, levels.shape[:2]))
        part = levels[rows, columns]
        place = (part.shape[1], part.shape[0], columns.start, rows.start)
        # What is below is kept, and every sample replaced, opacity included.
        control = (*place, *_delay(picture.duration), 0, 0)
        yield b"fcTL", struct.pack(">IIIIIHHBB", number, *control)
        number += 1
        step = _rows_at_once(part[0].nbytes)
        blocks = (part[top : top + step] for top in range(0, len(part), step))
        for data in _packed(_filtered(blocks), deflater()):
            if before is None:
                yield b"IDAT", data
            else:
                yield b"fdAT", struct.pack(">I", number) + data
                number += 1
        before = levels


def _delay(duration: float | None) -> tuple[int, int]:
    """Put milliseconds into a fraction of a second of two numbers of 16 bits."""
    seconds = min(max(Fraction(duration or 0) / 1000, Fraction(0)), Fraction(65535))
    near = seconds.limit_denominator(65535)
    if near.numerator > 65535:
        near = seconds.limit_denominator(max(1, int(65535 / seconds)))
    return near.numerator, near.denominator


# ---- levels -------------------------------------------------------------------------------


def _rows_at_once(row_bytes: int) -> int:
    return max(1, _BLOCK_BYTES // row_bytes)


def _packed(rows: Iterable[NDArray[np.uint8]], squeeze: Deflater) -> Iterator[bytes]:
    """Compress filtered rows into what the data chunks hold."""
    ready = bytearray()
    for block in rows:
        ready += squeeze.compress(block)
        if len(ready) >= _IDAT_BYTES:
            yield bytes(ready)
            ready.clear()
    yield bytes(ready) + squeeze.flush()


def _filtered(blocks: Iterable[Levels]) -> Iterator[NDArray[np.uint8]]:
    """Filter blocks of rows, each row by the filter that leaves the smaller differences.

    The choice is the specification's (section 12.7), between two filters alone: of photographs
    they are the best for all but a row in a thousand.
    """
    above: NDArray[np.uint8] | None = None
    for levels in blocks:
        apart = levels.shape[2] * levels.itemsize
        ordered = levels if levels.itemsize == 1 else levels.astype(">u2")
        current = ordered.view(np.uint8).reshape(len(levels), -1)
        # Left of the first pixel and above the first row, all is zero.
        padded = np.zeros((len(current) + 1, current.shape[1] + apart), np.uint8)
        padded[1:, apart:] = current
        if above is not None:
            padded[0] = above
        yield _chosen(current, padded[1:, :-apart], padded[:-1, apart:], padded[:-1, :-apart])
        above = padded[-1]


def _chosen(
    current: NDArray[np.uint8],
    left: NDArray[np.uint8],
    above: NDArray[np.uint8],
    corner: NDArray[np.uint8],
) -> NDArray[np.uint8]:
    """Filter rows, and put the number of its filter before each."""
    average = left ^ above
    average >>= 1
    average += left & above  # half the sum, without the ninth bit
    steps = (current - average, current - _paeth(left, above, corner))
    by_average, by_paeth = (np.abs(each.view(np.int8)).view(np.uint8) for each in steps)
    smaller = by_average.sum(axis=1, dtype=np.int64) < by_paeth.sum(axis=1, dtype=np.int64)
    rows = np.empty((len(current), current.shape[1] + 1), np.uint8)
    for row, take_average in zip(range(len(rows)), smaller.tolist(), strict=True):
        rows[row, 0] = _AVERAGE if take_average else _PAETH
        rows[row, 1:] = steps[0 if take_average else 1][row]
    return rows


def _paeth(
    left: NDArray[np.uint8], above: NDArray[np.uint8], corner: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """Predict bytes as the neighbour that is nearest to left + above - corner (section 9.4).

    With bytes and masks alone, which is ten times as fast as with wider numbers: where both
    neighbours are on one side of the corner, the sum is nearer to one of them than to the corner;
    elsewhere its distance to the corner is the difference of the two distances.
    """
    from_left, from_above = _distance(above, corner), _distance(left, corner)
    nearer = np.minimum(from_left, from_above)
    from_corner = np.maximum(from_left, from_above)
    from_corner -= nearer
    is_corner = (above < corner) != (left < corner)
    is_corner &= from_corner < nearer
    found = left ^ above
    found &= _mask(from_left <= from_above)
    found ^= above
    found ^= (found ^ corner) & _mask(is_corner)
    return found


def _distance(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.maximum(one, other) - np.minimum(one, other)


def _mask(where: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Make all bits of a byte one where something holds."""
    return np.negative(where.view(np.uint8))


# ---- metadata -----------------------------------------------------------------------------


def _metadata(picture: Picture) -> Iterator[_Chunk]:
    metadata = picture.metadata
    profile = profile_for(metadata.icc_profile, picture.pixels.shape[2])
    if profile is not None:
        yield b"iCCP", b"ICC Profile\0\0" + zlib.compress(profile)
    if (dpi := dpi_of(metadata.dpi)) is not None:
        across, down = (round(side * _METRE) for side in dpi)
        yield b"pHYs", struct.pack(">IIB", across, down, 1)
    if (exif := exif_for(picture)) is not None:
        yield b"eXIf", exif_block(exif).removeprefix(b"Exif\0\0")
    if (packet := xmp_for(picture)) is not None:
        yield b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + packet
    texts = metadata.text
    if metadata.comment is not None and not any(key == "Comment" for key, _ in texts):
        texts = (*texts, ("Comment", metadata.comment.decode(errors="replace")))
    for key, text in texts:
        yield from _text(key, text.replace("\0", ""))


def _text(key: str, text: str) -> Iterator[_Chunk]:
    """Yield a text as PNG holds it; none where its keyword cannot be one (section 11.3.3)."""
    try:
        keyword = key.encode("latin-1")
    except UnicodeEncodeError:
        return
    if not (0 < len(keyword) < 80 and key.isprintable() and key == " ".join(key.split())):
        return
    try:
        yield b"tEXt", keyword + b"\0" + text.encode("latin-1")
    except UnicodeEncodeError:
        yield b"iTXt", keyword + b"\0\0\0\0\0" + text.encode(errors="replace")
