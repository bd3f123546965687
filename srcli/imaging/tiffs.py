"""TIFF and BigTIFF: the pictures of their pages, by libvips, and what is said of them."""

import io
import struct
from collections.abc import Iterator
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from srcli.errors import ImageError
from srcli.imaging import pages
from srcli.imaging.colour import adobe_rgb_of, rgb_of
from srcli.imaging.decoding import CONVERTED, decoded, levels_of
from srcli.imaging.exif import block_of
from srcli.imaging.headers import Header
from srcli.imaging.metadata import (
    MOST_PROFILE,
    exif_dpi,
    profile_for,
    sound,
    whole_records,
)
from srcli.imaging.opening import check_pixels, too_many
from srcli.imaging.pages import Page, pages_of
from srcli.imaging.pictures import Coding, Levels, Metadata, Picture, rounded, upright, upright_size

_XMP, _IPTC, _PROFILE = 700, 33723, 34675
_BYTE, _UNDEFINED = 1, 7
_LEFT_OUT: Final = {
    34377: "settings of Photoshop",
    37724: "layers of Photoshop",
    50255: "annotations of Photoshop",
    52545: "content credentials",
}

_BOUNDED: Final = {1, 4}
"""Sample formats: whole numbers without a sign, and what is not said."""

_OUT: Final = "save it as RGB or grey of 8 or 16 bits, by Deflate or LZW"


class TiffFile:
    """An open TIFF or BigTIFF."""

    part = "page"

    def __init__(self, stream: BinaryIO, limit: int, notes: dict[str, None]) -> None:
        """Read its directories; reduced copies and masks are no pages.

        ``limit`` is the most pixels that may be decoded; ``notes`` takes what had to be changed.
        """
        self.stream, self.limit, self.notes = stream, limit, notes
        found = list(pages_of(stream))
        self._shown = [page for page in found if not page.is_reduced] or found[:1]
        self.first = self._shown[0]
        below = (copy for page in self._shown for copy in page.below)
        if len(self._shown) < len(found) or any(copy.is_reduced for copy in below):
            notes["reduced copies of its pages are left out"] = None
        self.count = len(self._shown)
        """How many pages are shown."""

        check_pixels(self.first.size, 1, limit)

    def header(self) -> Header:
        """Return what the first page's directory says."""
        page = self.first
        width, height = upright_size(page.size, page.orientation)
        return Header(
            width=width,
            height=height,
            frames=self.count,
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
            total += page.size[0] * page.size[1]
            if total > self.limit:
                raise ImageError(
                    f"its pages to here have {total} pixels, which {too_many(self.limit)}"
                )
            levels = _levels_of(page, _without_bulk(page, data), self.notes)
            pixels, alpha = upright(*levels, page.orientation)
            if page.bits == 8 < page.depth:
                what = "CMYK" if page.photometric == pages.CMYK else "TIFF"
                self.notes[f"{what} of {page.depth} bits read at 8 bits"] = None
            yield Picture(pixels=pixels, alpha=alpha, metadata=_metadata_of(page, self.notes))

    def described(self, _channels: int) -> Metadata:
        """Collect what is said of the first page, and note what is going to be lost."""
        return _metadata_of(self.first, self.notes)


def _without_bulk(page: Page, data: bytes) -> bytes:
    """Make values that libtiff would rather fail than load, such as layers, one byte long."""
    head = page.layout.item[0] + page.layout.item[2:]  # type and count
    short = struct.pack(head, 1, 1)
    for entry in page.entries.values():
        if entry.size > MOST_PROFILE and entry.kind in {_BYTE, _UNDEFINED}:
            data = data[: entry.place + 2] + short + data[entry.place + 2 + len(short) :]
    return data


def _levels_of(page: Page, data: bytes, notes: dict[str, None]) -> tuple[Levels, Levels | None]:
    """Decode a page to grey or RGB, and its opacity, if any; not turned, white is the largest."""
    _check_kind(page)
    tiled = page.is_separate and pages.TILE_WIDTH in page.entries
    whole = page.photometric == pages.YCBCR and page.numbers(pages.SUBSAMPLING, 2, 2) == (1, 1)
    unpacked = whole and page.packing != pages.JPEG
    odd = page.photometric == pages.LAB or unpacked or (tiled and page.opacity != 1)
    if page.packing in pages.FOR_PILLOW or page.depth == 12 or (page.depth <= 8 and odd):
        return _by_pillow(page, data, notes)
    if tiled or (page.is_separate and page.opacity == 1):
        raise ImageError("channels that lie apart in this way are not read; store them together")
    pixels = decoded("tiffload_buffer", data, page.size, page=page.index)
    opacity = None
    if page.opacity is not None and pixels.shape[2] > page.opacity:
        opacity = pixels[..., page.opacity : page.opacity + 1]
    if page.photometric == pages.CMYK:
        pixels = _rgb_of_inks(page, pixels[..., :4], notes)
        opacity = None if opacity is None else rounded(opacity)
    if page.channels == 3 and pixels.shape[2] < 3:  # a palette of greys
        pixels = np.repeat(pixels[..., :1], 3, axis=2)
    return pixels[..., : page.channels], opacity


def _check_kind(page: Page) -> None:
    """Raise ``ImageError`` if the levels of a page have no range, or their colours no meaning."""
    page.raw(pages.COLOUR_MAP)  # libtiff would do without one that is cut off
    if {*page.numbers(pages.SAMPLE_FORMAT, 1)} - _BOUNDED or page.depth > 16:
        kind = "floating-point, signed or 32-bit"
        raise ImageError(f"{kind} levels have no fixed range; convert it to 8 or 16 bits")
    if page.photometric not in pages.READ or (page.photometric == pages.LAB and page.depth > 8):
        kind = f"photometric interpretation {page.photometric} of {page.depth} bits"
        raise ImageError(f"{kind}, which is not read; {_OUT}")


def _rgb_of_inks(page: Page, inks: NDArray[Any], notes: dict[str, None]) -> NDArray[np.uint8]:
    """Convert CMYK through the profile of its page."""
    flat = np.ascontiguousarray(rounded(inks))
    image = Image.frombytes("CMYK", (flat.shape[1], flat.shape[0]), flat.tobytes())
    image.info["icc_profile"] = page.raw(_PROFILE)
    rgb, note = rgb_of(image)
    notes[note] = None
    return np.array(rgb)


def _by_pillow(page: Page, data: bytes, notes: dict[str, None]) -> tuple[Levels, Levels | None]:
    """Decode what Pillow knows and libvips does not: LZMA, old JPEG, tiles in planes."""
    if page.orientation != 1:  # by which Pillow would turn it
        turn = page.entries[pages.ORIENTATION]
        one = (1).to_bytes(turn.size, "little" if page.layout.order == "<" else "big")
        data = data[: turn.start] + one + data[turn.start + turn.size :]
    try:
        opened = Image.open(io.BytesIO(data), formats=["TIFF"])
    except UnidentifiedImageError:
        kind = f"{page.samples} samples of {page.depth} bits"
        raise ImageError(f"{kind} in this way are not read; {_OUT}") from None
    with opened as image:
        image.seek(page.index)
        image.load()
        if image.mode not in CONVERTED:
            return levels_of(image)
        converted, note = rgb_of(image)
        notes[note] = None
        return levels_of(converted)


# ---- metadata -----------------------------------------------------------------------------


def _metadata_of(page: Page, notes: dict[str, None]) -> Metadata:
    """Collect what a page of a TIFF says; ``notes`` takes what cannot be kept.

    The EXIF block is a new one: in a TIFF offsets count from the start of the file, those inside
    of a maker's note too, which is therefore left out.
    """
    block, noted = block_of(page.stream, page.where)
    xmp = (sound(lambda: page.raw(_XMP)) or b"").rstrip(b"\0") or None
    exif = Image.Exif()
    sound(lambda: exif.load(block or b""))
    parts = [name for tag, name in _LEFT_OUT.items() if tag in page.entries]
    if page.further > 0:
        parts.append(f"{page.further} further channel{'s' if page.further > 1 else ''}")
    if parts:
        notes[f"left out: {', '.join(parts)}"] = None
    if noted:
        line = "the maker's notes of its EXIF are left out: in a TIFF they cannot be moved"
        notes[line] = None
    return Metadata(
        icc_profile=_profile_of(page, exif, notes),
        exif=block,
        xmp=xmp,
        iptc=sound(lambda: _page_iptc(page)),
        dpi=sound(lambda: exif_dpi(exif)),
        orientation=page.orientation,
        size=upright_size(page.size, page.orientation) if block or xmp else None,
    )


def _profile_of(page: Page, exif: Image.Exif, notes: dict[str, None]) -> bytes | None:
    if page.photometric in {pages.CMYK, pages.LAB}:  # which are converted through it
        return None
    data = sound(lambda: page.raw(_PROFILE))
    profile = profile_for(data, page.channels, notes) if data else None
    return profile or sound(lambda: adobe_rgb_of(exif, page.channels))


def _page_iptc(page: Page) -> bytes | None:
    data = page.raw(_IPTC)
    if data[:1] != b"\x1c":  # some writers take the text for numbers
        data = b"".join(data[at : at + 4][::-1] for at in range(0, len(data), 4))
    return whole_records(data)
