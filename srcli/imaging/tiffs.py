"""TIFF and BigTIFF: the directories of the pages, what they say, and the pixels by libvips."""

import io
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from srcli.errors import ImageError
from srcli.imaging.coding import Header
from srcli.imaging.colour import adobe_rgb_of
from srcli.imaging.exif import block_of
from srcli.imaging.ifd import MAIN, Layout, entries_at, layout_of
from srcli.imaging.metadata import (
    MOST_PROFILE,
    NO_PROFILE,
    exif_dpi,
    profile_for,
    sound,
    whole_records,
)
from srcli.imaging.opening import check_pixels, too_many
from srcli.imaging.pictures import Coding, Metadata, Picture, upright
from srcli.imaging.pillow import CONVERTED, levels_of
from srcli.imaging.profiles import rgb_of
from srcli.imaging.vips import decoded
from srcli.imaging.xmp import utf8_of

SUBFILE_TYPE, OLD_SUBFILE_TYPE, WIDTH, HEIGHT = 254, 255, 256, 257
BITS, COMPRESSION, PHOTOMETRIC = 258, 259, 262
STRIPS, ORIENTATION, SAMPLES, STRIP_ROWS, PLANAR = 273, 274, 277, 278, 284
TILE_WIDTH, TILE_ROWS, SUB_DIRECTORIES, COLOUR_MAP = 322, 323, 330, 320
EXTRA_SAMPLES, SAMPLE_FORMAT, DNG_VERSION = 338, 339, 50706
_XMP, _IPTC, _PROFILE = 700, 33723, 34675
_BYTE, _UNDEFINED = 1, 7
_OF_PHOTOSHOP: Final = {34377: "settings", 37724: "layers", 50255: "annotations"}

_NUMBERS: Final = {1: "B", 3: "H", 4: "L", 6: "b", 8: "h", 9: "l", 13: "L", 16: "Q", 18: "Q"}
"""Types of TIFF whose values are integers, and how :mod:`struct` names them."""

_UNBOUNDED: Final = {3, 5, 6}
"""Sample formats: floating point, and complex numbers of both kinds."""

UNPACKED, JPEG = 1, 7
INVERTED_GREY, GREY, RGB, PALETTE, CMYK, YCBCR = 0, 1, 2, 3, 5, 6
LAB: Final = {8, 9, 10}
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
    def upright_size(self) -> tuple[int, int]:
        """Width and height once it is turned."""
        width, height = self.size
        return (height, width) if self.orientation >= 5 else (width, height)

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
        return 16 if self.depth > 8 and self.photometric not in {CMYK, PALETTE} else 8

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
        old = self.number(OLD_SUBFILE_TYPE, 0)
        return bool(self.number(SUBFILE_TYPE, 0) & 0b101) or old == 2

    @property
    def is_separate(self) -> bool:
        """Whether the samples of a pixel are stored apart, each in a plane of its own."""
        return self.samples > 1 and self.number(PLANAR, 1) == 2

    @property
    def is_raw(self) -> bool:
        """Whether it belongs to a camera raw whose picture is not ready to be looked at."""
        is_one = self.photometric in _SENSOR or (self.is_reduced and DNG_VERSION in self.entries)
        return is_one or any(below.photometric in _SENSOR for below in self.below)

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


# ---- pixels -------------------------------------------------------------------------------

_JPEGS: Final = {6, 7}
"""Compressions of TIFF that are JPEG, the old way and the new one."""

_FOR_PILLOW: Final = {6, 34925}
"""Old JPEG and LZMA."""


class TiffFile:
    """An open TIFF or BigTIFF."""

    format = "TIFF"
    loop = None

    def __init__(self, stream: BinaryIO, limit: int, notes: dict[str, None]) -> None:
        """Read its directories; reduced copies and masks are no pages.

        ``limit`` is the most pixels that may be decoded; ``notes`` takes what had to be changed.

        Raises:
            ImageError: If there is only a copy of what lies elsewhere, as in a camera raw.
        """
        self.stream, self.limit, self.notes = stream, limit, notes
        self.position = 1
        """Which page is being decoded, from 1."""

        pages = list(pages_of(stream))
        self._shown = [page for page in pages if not page.is_reduced] or pages[:1]
        self.first = self._shown[0]
        if self.first.is_reduced and SUB_DIRECTORIES in self.first.entries:
            raise ImageError(RAW)
        below = (copy for page in self._shown for copy in page.below)
        if len(self._shown) < len(pages) or any(copy.is_reduced for copy in below):
            notes["reduced copies of its pages are left out"] = None
        self.is_moving = len(pages) > 1
        """Whether it has more than one directory."""

        check_pixels(self.first.size, 1, limit)

    def count(self) -> int:
        """Count the pages that are shown."""
        return len(self._shown)

    def header(self) -> Header:
        """Return what the first page's directory says."""
        page = self.first
        width, height = page.upright_size
        return Header(
            width=width,
            height=height,
            frames=len(self._shown),
            channels=page.channels,
            alpha=page.opacity is not None,
            bits=page.bits,
            coding=Coding(format="TIFF"),
        )

    def pictures(self) -> Iterator[Picture]:
        """Decode one page after the other."""
        self.stream.seek(0)
        data, total = self.stream.read(), 0
        for page in self._shown:
            self.position = page.index + 1
            total += page.size[0] * page.size[1]
            if total > self.limit:
                raise ImageError(
                    f"its pages to here have {total} pixels, which {too_many(self.limit)}"
                )
            pixels, alpha, note = _levels_of(page, _without_bulk(page, data))
            metadata = page_metadata(page, self.notes)
            if page.photometric == CMYK and page.depth > 8:
                self.notes["CMYK of 16 bits read at 8 bits"] = None
            if note is not None:
                self.notes[note] = None
            if page.photometric in LAB | {CMYK}:
                metadata = replace(metadata, icc_profile=None)
            yield Picture(
                pixels=upright(pixels, page.orientation),
                alpha=None if alpha is None else upright(alpha, page.orientation),
                metadata=metadata,
            )


def _without_bulk(page: Page, data: bytes) -> bytes:
    """Make values that libtiff would rather fail than load, such as layers, one byte long."""
    head = page.layout.item[0] + page.layout.item[2:]  # type and count
    short = struct.pack(head, 1, 1)
    for entry in page.entries.values():
        if entry.size > MOST_PROFILE and entry.kind in {_BYTE, _UNDEFINED}:
            data = data[: entry.place + 2] + short + data[entry.place + 2 + len(short) :]
    return data


def _levels_of(page: Page, data: bytes) -> tuple[NDArray[Any], NDArray[Any] | None, str | None]:
    """Decode a page as it is stored, not turned.

    Returns:
        Grey or RGB of 8 or 16 bits, its opacity, if any, and a line about a conversion, if any.
        White is the largest value, and no opacity is multiplied into the colours.
    """
    page.raw(COLOUR_MAP)  # libtiff would do without one that is cut off
    if {*page.numbers(SAMPLE_FORMAT, 1)} & _UNBOUNDED:  # some of which libvips calls damaged
        raise ImageError("pixels of kind F have no fixed range; convert it to 8 or 16 bits")
    lab, tiled = page.photometric in LAB, TILE_WIDTH in page.entries
    unpacked = page.photometric == YCBCR and page.packing not in _JPEGS
    if page.packing in _FOR_PILLOW or page.depth == 12:
        return _by_pillow(page, data)
    if page.depth <= 8 and (lab or unpacked or (page.is_separate and page.opacity != 1)):
        return _by_pillow(page, data)
    rows, strips = page.number(STRIP_ROWS, 1), len(page.numbers(STRIPS))
    odd = tiled or (rows >= page.size[1] and strips > page.samples)
    if page.is_separate and (odd or page.opacity == 1):
        raise ImageError("channels that lie apart in this way are not read; store them together")
    space = {"space": "rgb16"} if lab else {}
    pixels = _in_sixteen(decoded("tiffload_buffer", data, page.size, page=page.index, **space))
    note = "CIELAB converted to sRGB" if lab else None
    opacity = None
    if page.opacity is not None and pixels.shape[2] > page.opacity:
        opacity = np.ascontiguousarray(pixels[..., page.opacity : page.opacity + 1])
    if page.photometric == CMYK:
        flat = np.ascontiguousarray(_eight(pixels[..., :4]))
        image = Image.frombytes("CMYK", (flat.shape[1], flat.shape[0]), flat.tobytes())
        image.info["icc_profile"] = page.raw(_PROFILE)
        rgb, note = rgb_of(image)
        pixels, opacity = np.array(rgb), None if opacity is None else _eight(opacity)
    if page.channels == 3 and pixels.shape[2] < 3:  # a palette of greys
        pixels = np.repeat(pixels[..., :1], 3, axis=2)
    return np.ascontiguousarray(pixels[..., : page.channels]), opacity, note


def _by_pillow(page: Page, data: bytes) -> tuple[NDArray[Any], NDArray[Any] | None, str | None]:
    """Decode what Pillow knows and libvips does not: LZMA, old JPEG, tiles in planes."""
    with Image.open(io.BytesIO(data), formats=["TIFF"]) as image:
        image.seek(page.index)
        image.getexif().clear()  # or it would be turned
        image.load()
        converted, note = rgb_of(image) if image.mode in CONVERTED else (image, None)
        return *levels_of(converted), note


def _in_sixteen(pixels: NDArray[Any]) -> NDArray[Any]:
    """Take what fits into 16 bits for what it is."""
    if pixels.dtype in (np.uint8, np.uint16):
        return pixels
    low, high = int(pixels.min()), int(pixels.max())
    if low < 0 or high > 65535:
        depth = 8 * pixels.itemsize
        raise ImageError(
            f"{depth}-bit levels {low}..{high} are outside 0..65535; convert it to 16 bits"
        )
    return pixels.astype(np.uint16)


def _eight(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    return (pixels >> 8).astype(np.uint8) if pixels.dtype == np.uint16 else pixels


# ---- metadata -----------------------------------------------------------------------------


def page_metadata(page: Page, notes: dict[str, None]) -> Metadata:
    """Collect what a page of a TIFF says; ``notes`` takes what cannot be kept.

    The EXIF block is a new one: in a TIFF offsets count from the start of the file, those inside
    of a maker's note too, which is therefore left out.
    """
    block, noted = block_of(page.stream, page.where)
    xmp = sound(lambda: utf8_of(page.raw(_XMP))) or None
    exif = Image.Exif()
    sound(lambda: exif.load(block or b""))
    data = sound(lambda: page.raw(_PROFILE)) or b""
    profile = profile_for(data, page.channels)
    if data and profile is None and page.photometric not in {CMYK, *LAB}:
        notes[NO_PROFILE] = None
    parts = [f"{name} of Photoshop" for tag, name in _OF_PHOTOSHOP.items() if tag in page.entries]
    if page.further > 0:
        parts.append(f"{page.further} further channel{'s' if page.further > 1 else ''}")
    if parts:
        notes[f"left out: {', '.join(parts)}"] = None
    if noted:
        line = "the maker's notes of its EXIF are left out: in a TIFF they cannot be moved"
        notes[line] = None
    return Metadata(
        icc_profile=profile or sound(lambda: adobe_rgb_of(exif, page.channels)),
        exif=block,
        xmp=xmp,
        iptc=sound(lambda: _page_iptc(page)),
        dpi=sound(lambda: exif_dpi(exif)),
        orientation=page.orientation,
        size=page.upright_size if block or xmp else None,
    )


def _page_iptc(page: Page) -> bytes | None:
    data = page.raw(_IPTC)
    if data[:1] != b"\x1c":  # some writers take the text for numbers
        data = b"".join(data[at : at + 4][::-1] for at in range(0, len(data), 4))
    return whole_records(data)
