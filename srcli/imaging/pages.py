"""The directories of a TIFF or BigTIFF: what each says of its page."""

import struct
from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property
from typing import BinaryIO, Final

from srcli.errors import ImageError
from srcli.imaging.ifd import MAIN, Layout, entries_at, layout_of

SUBFILE_TYPE, WIDTH, HEIGHT = 254, 256, 257
BITS, COMPRESSION, PHOTOMETRIC = 258, 259, 262
ORIENTATION, SAMPLES, STRIP_ROWS, PLANAR = 274, 277, 278, 284
TILE_WIDTH, TILE_ROWS, SUB_DIRECTORIES, COLOUR_MAP = 322, 323, 330, 320
EXTRA_SAMPLES, SAMPLE_FORMAT, SUBSAMPLING, DNG_VERSION = 338, 339, 530, 50706
_NUMBERS: Final = {1: "B", 3: "H", 4: "L", 6: "b", 8: "h", 9: "l", 13: "L", 16: "Q", 18: "Q"}
"""Types of TIFF whose values are integers, and how :mod:`struct` names them."""

UNPACKED, JPEG = 1, 7
FOR_PILLOW: Final = {6, 34925, 50000}
"""Old JPEG, LZMA and Zstandard, which libvips does not decode."""

INVERTED_GREY, GREY, RGB, PALETTE, CMYK, YCBCR, LAB = READ = (0, 1, 2, 3, 5, 6, 8)
_SENSOR: Final = {32803, 34892}
"""Photometric interpretations of camera raws: a mosaic, and one that is taken apart."""

_MOST_PAGES: Final = 65536
_MOST_BELOW: Final = 16

RAW: Final = "a camera raw, which is not read; develop it first"


def is_tiff(start: bytes) -> bool:
    """Tell a TIFF or BigTIFF by its first four bytes."""
    return start[:4] in {b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"}


class Page:
    """One directory of a TIFF; values are read from the file when they are asked for."""

    def __init__(self, stream: BinaryIO, layout: Layout, where: int, index: int) -> None:
        """Read the list of tags; EOFError if it is cut off."""
        self.stream, self.layout, self.where, self.index = stream, layout, where, index
        try:
            entries = entries_at(stream, layout, where, MAIN)
            behind = where + layout.first + len(entries) * layout.step
            self.following = layout.number(stream, behind, layout.offset)
        except ValueError as error:
            raise EOFError("unexpected end of file") from error
        self.entries = {entry.tag: entry for entry in reversed(entries)}
        """Where the values stand, by tag; of two for one tag the first."""

    def raw(self, tag: int) -> bytes:
        """Return the bytes of a value, if there is one; EOFError where they are cut off."""
        entry = self.entries.get(tag)
        if entry is None:
            return b""
        self.stream.seek(entry.start)
        data = self.stream.read(entry.size)
        if len(data) < entry.size:
            raise EOFError("unexpected end of file")
        return data

    def numbers(self, tag: int, *default: int) -> tuple[int, ...]:
        """Return the integers of a tag, or what holds where it is missing or none."""
        entry = self.entries.get(tag)
        if entry is None or entry.kind not in _NUMBERS or not entry.count:
            return default
        layout = f"{self.layout.order}{entry.count}{_NUMBERS[entry.kind]}"
        return struct.unpack(layout, self.raw(tag))

    def number(self, tag: int, default: int) -> int:
        """Return the first integer of a tag."""
        return self.numbers(tag, default)[0]

    # ---- what the tags mean ---------------------------------------------------------------

    @cached_property
    def size(self) -> tuple[int, int]:
        """Width and height as stored."""
        width, height = self.number(WIDTH, 0), self.number(HEIGHT, 0)
        if width < 1 or height < 1:
            raise ValueError("its size is missing")
        return width, height

    @property
    def orientation(self) -> int:
        """1 to 8 as in EXIF; 1 where it is broken."""
        value = self.number(ORIENTATION, 1)
        return value if 1 <= value <= 8 else 1

    @cached_property
    def photometric(self) -> int:
        """What the numbers stand for; RGB where a broken file of three samples is silent."""
        return self.number(PHOTOMETRIC, RGB if self.samples > 2 else GREY)

    @cached_property
    def samples(self) -> int:
        """Numbers of a pixel."""
        return self.number(SAMPLES, 1)

    @cached_property
    def depth(self) -> int:
        """Bits of the deepest sample."""
        return max(self.numbers(BITS, 1))

    @property
    def packing(self) -> int:
        """The number of its compression."""
        return self.number(COMPRESSION, UNPACKED)

    @property
    def channels(self) -> int:
        """1 where it is grey, 3 where it becomes RGB."""
        return 1 if self.photometric in {INVERTED_GREY, GREY} else 3

    @property
    def bits(self) -> int:
        """8 or 16: of the pixel values that it becomes."""
        eight = self.photometric == CMYK or (self.samples > 1 and self.packing in FOR_PILLOW)
        return 8 if eight or self.depth <= 8 else 16

    @property
    def _colours(self) -> int:
        return {PALETTE: 1, CMYK: 4}.get(self.photometric, self.channels)

    @property
    def opacity(self) -> int | None:
        """Which sample is the opacity, if one is."""
        kinds = enumerate(self.numbers(EXTRA_SAMPLES, 0), self._colours)
        return next((n for n, kind in kinds if kind in {1, 2} and n < self.samples), None)

    @property
    def further(self) -> int:
        """How many samples are neither colours nor the opacity."""
        return self.samples - self._colours - (self.opacity is not None)

    @property
    def is_reduced(self) -> bool:
        """Whether it is a smaller copy or the mask of another page."""
        return bool(self.number(SUBFILE_TYPE, 0) & 0b101)

    @property
    def is_separate(self) -> bool:
        """Whether the samples of a pixel are stored apart, each in a plane of its own."""
        return self.samples > 1 and self.number(PLANAR, 1) == 2

    @property
    def is_raw(self) -> bool:
        """Whether it belongs to a camera raw: a mosaic, or a copy of what lies elsewhere."""
        is_copy = self.is_reduced and not {DNG_VERSION, SUB_DIRECTORIES}.isdisjoint(self.entries)
        return is_copy or any(part.photometric in _SENSOR for part in (self, *self.below))

    @cached_property
    def below(self) -> list["Page"]:
        """The directories that it leads to; of a raw one has the mosaic."""
        found: list[Page] = []
        with suppress(EOFError, ValueError):
            for where in self.numbers(SUB_DIRECTORIES)[:_MOST_BELOW]:
                found.append(Page(self.stream, self.layout, where, self.index))  # noqa: PERF401
        return found


def pages_of(stream: BinaryIO) -> Iterator[Page]:
    """Go from directory to directory; ImageError if the file is a camera raw."""
    layout = layout_of(stream)
    stream.seek(0)
    if stream.read(12)[8:] in {b"CR\2\0", b"IIII", b"MMMM"}:  # Canon, Phase One
        raise ImageError(RAW)
    where = layout.number(stream, layout.link, layout.offset)
    seen: set[int] = set()
    while where and where not in seen and len(seen) < _MOST_PAGES:
        page = Page(stream, layout, where, len(seen))
        if page.is_raw:
            raise ImageError(RAW)
        seen.add(where)
        where = page.following
        yield page
    if not seen:
        raise ValueError("it has no page")
