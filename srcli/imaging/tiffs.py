"""TIFF and BigTIFF, whose pages libvips decodes."""

import io
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from srcli.errors import ImageError
from srcli.imaging import pages as tags
from srcli.imaging.coding import Header
from srcli.imaging.metadata import page_metadata
from srcli.imaging.opening import check_pixels, too_many
from srcli.imaging.pages import RAW, Page, pages_of
from srcli.imaging.pictures import Coding, Picture, upright
from srcli.imaging.pillow import CONVERTED, levels_of
from srcli.imaging.profiles import rgb_of
from srcli.imaging.vips import decoded

_JPEGS: Final = {6, 7}
"""Compressions of TIFF that are JPEG, the old way and the new one."""

_FOR_PILLOW: Final = {6, 34925}
"""Old JPEG and LZMA."""


class TiffFile:
    """An open TIFF or BigTIFF."""

    format = "TIFF"
    loop = None

    def __init__(self, stream: BinaryIO, limit: int, notes: dict[str, None]) -> None:
        """Read the directory of its first page.

        Args:
            stream: The file, seekable.
            limit: Most pixels that may be decoded.
            notes: Takes what had to be changed, each once and in order.
        """
        self.stream, self.limit, self.notes = stream, limit, notes
        self.position = 1
        """Which page is being decoded, from 1."""

        self.first = next(self._shown())
        check_pixels(self.first.size, 1, limit)

    def _shown(self) -> Iterator[Page]:
        """Go from page to page, past reduced copies and masks.

        Raises:
            ImageError: If the first is a copy of what lies elsewhere, as in a camera raw.
        """
        alone: Page | None = None
        count = 0
        self.position = 1
        for page in pages_of(self.stream):
            self.position = page.index + 1
            if not page.is_reduced:
                yield page
                count += 1
            elif page.index == 0:
                alone = page
            elif count:
                self.notes["reduced copies of its pages are left out"] = None
        if alone is not None and not count:
            if tags.SUB_DIRECTORIES in alone.entries:
                raise ImageError(RAW)
            yield alone
        elif alone is not None:
            self.notes["reduced copies of its pages are left out"] = None

    @property
    def is_moving(self) -> bool:
        """Whether it has more than one directory."""
        return bool(self.first.index or self.first.following)

    def count(self) -> int:
        """Count the pages that are shown."""
        return sum(1 for _ in self._shown())

    def header(self) -> Header:
        """Return what the first page's directory says."""
        page = self.first
        width, height = page.upright_size
        return Header(
            width=width,
            height=height,
            frames=1,
            channels=page.channels,
            alpha=page.opacity is not None,
            bits=page.bits,
            coding=Coding(format="TIFF"),
        )

    def pictures(self) -> Iterator[Picture]:
        """Decode one page after the other."""
        shown = list(self._shown())  # libvips goes through all directories as well
        self.stream.seek(0)
        data, total = self.stream.read(), 0
        for page in shown:
            self.position = page.index + 1
            total += page.size[0] * page.size[1]
            if total > self.limit:
                raise ImageError(
                    f"its pages to here have {total} pixels, which {too_many(self.limit)}"
                )
            pixels, alpha, note = _levels_of(page, data)
            metadata = page_metadata(page, self.notes)
            if page.photometric == tags.CMYK and page.depth > 8:
                self.notes["CMYK of 16 bits read at 8 bits"] = None
            if note is not None:
                self.notes[note] = None
            pixels = upright(pixels, page.orientation)
            if page.photometric in tags.LAB | {tags.CMYK}:
                metadata = replace(metadata, icc_profile=None)
            yield Picture(
                pixels=pixels,
                alpha=None if alpha is None else upright(alpha, page.orientation),
                metadata=metadata,
            )


def _levels_of(page: Page, data: bytes) -> tuple[NDArray[Any], NDArray[Any] | None, str | None]:
    """Decode a page as it is stored, not turned.

    Returns:
        Grey or RGB of 8 or 16 bits, its opacity, if any, and a line about a conversion, if any.
        White is the largest value, and no opacity is multiplied into the colours.

    Raises:
        ImageError: If its pixels are of a kind that has no place in 16 bits.
        EOFError, OSError: If it is damaged.
    """
    page.raw(tags.COLOUR_MAP)  # libtiff would do without one that is cut off
    lab, tiled = page.photometric in tags.LAB, tags.TILE_WIDTH in page.entries
    unpacked = page.photometric == tags.YCBCR and page.packing not in _JPEGS
    if page.packing in _FOR_PILLOW or page.depth == 12:
        return _by_pillow(page, data)
    if page.depth <= 8 and (lab or unpacked or (page.is_separate and page.opacity != 1)):
        return _by_pillow(page, data)
    rows, strips = page.number(tags.STRIP_ROWS, 1), len(page.numbers(tags.STRIPS))
    odd = tiled or (rows >= page.size[1] and strips > page.samples)
    if page.is_separate and (odd or page.opacity == 1):
        raise ImageError("channels that lie apart in this way are not read; store them together")
    space = {"space": "rgb16"} if lab else {}
    pixels = _in_sixteen(decoded("tiffload_buffer", data, page.size, page=page.index, **space))
    note = "CIELAB converted to sRGB" if lab else None
    opacity = None
    if page.opacity is not None and pixels.shape[2] > page.opacity:
        opacity = np.ascontiguousarray(pixels[..., page.opacity : page.opacity + 1])
    if page.photometric == tags.CMYK:
        flat = np.ascontiguousarray(_eight(pixels[..., :4]))
        image = Image.frombytes("CMYK", (flat.shape[1], flat.shape[0]), flat.tobytes())
        image.info["icc_profile"] = page.raw(34675)
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
    if pixels.dtype.kind not in "iu":
        raise ImageError("pixels of kind F have no fixed range; convert it to 8 or 16 bits")
    low, high = int(pixels.min()), int(pixels.max())
    if low < 0 or high > 65535:
        depth = 8 * pixels.itemsize
        raise ImageError(
            f"{depth}-bit levels {low}..{high} are outside 0..65535; convert it to 16 bits"
        )
    return pixels.astype(np.uint16)


def _eight(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    return (pixels >> 8).astype(np.uint8) if pixels.dtype == np.uint16 else pixels
