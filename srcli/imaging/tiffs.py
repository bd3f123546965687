"""TIFF and BigTIFF, whose pages libvips decodes."""

import io
import struct
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, JpegImagePlugin

from srcli.errors import ImageError
from srcli.imaging import pages as tags
from srcli.imaging.coding import Header, quality_of
from srcli.imaging.metadata import page_metadata, sound
from srcli.imaging.opening import check_pixels, too_many
from srcli.imaging.pages import RAW, Page, pages_of
from srcli.imaging.pictures import Coding, Picture, upright
from srcli.imaging.profiles import rgb_of
from srcli.imaging.vips import decoded

__all__ = ["TiffFile", "page_levels"]

_LOSSY: Final = {6, 7}
"""Compressions of TIFF that are JPEG, the old way and the new one."""


_FOR_PILLOW: Final = {6, 34925}
"""Old JPEG and LZMA."""

_MOST_HEADER: Final = 1 << 16
"""Bytes of a strip in which the header of its JPEG is looked for."""


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
            format="TIFF",
            coding=_coding_of(page),
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
            pixels, alpha, note = page_levels(page, data)
            metadata, lost = page_metadata(page)
            if page.photometric == tags.CMYK and page.depth > 8:
                self.notes["CMYK of 16 bits read at 8 bits"] = None
            self.notes |= {line: None for line in (note, lost) if line is not None}
            pixels = upright(pixels, page.orientation)
            if page.photometric in tags.LAB | {tags.CMYK}:
                metadata = replace(metadata, icc_profile=None)
            yield Picture(
                pixels=pixels,
                alpha=None if alpha is None else upright(alpha, page.orientation),
                metadata=metadata,
            )


def _coding_of(page: Page) -> Coding:
    """Say how a page was encoded; of a JPEG in it, how well."""
    if page.packing not in _LOSSY:
        return Coding(format="TIFF", lossy=False)
    return Coding(format="TIFF", lossy=True, quality=sound(lambda: _quality_of(page)))


def _quality_of(page: Page) -> int | None:
    """Estimate the quality of the JPEG in the first strip or tile (Adobe's Technical Note 2)."""
    start, count = next(page.parts())
    tables = page.raw(tags.JPEG_TABLES)
    page.stream.seek(start)
    strip = page.stream.read(min(count, _MOST_HEADER))
    data = tables[:-2] + strip[2:] if tables else strip
    with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
        assert isinstance(image, JpegImagePlugin.JpegImageFile)
        return quality_of(image)


def page_levels(page: Page, data: bytes) -> tuple[NDArray[Any], NDArray[Any] | None, str | None]:
    """Decode a page as it is stored, not turned.

    Args:
        page: One of the pages of ``data``.
        data: The file.

    Returns:
        Grey or RGB of 8 or 16 bits, its opacity, if any, and a line about a conversion, if any.
        White is the largest value, and no opacity is multiplied into the colours.

    Raises:
        ImageError: If its pixels are of a kind that has no place in 16 bits.
        EOFError, OSError, zlib.error: If it is damaged.
    """
    page.check()
    if page.joined and not page.is_separate:
        data = page.patched(data, {tags.STRIPS: (0, 1), tags.STRIP_BYTES: page.plane_bytes})
    note: str | None = None
    pixels: NDArray[Any]
    if page.photometric in tags.LAB:
        pixels, note = _from_lab(page, data), "CIELAB converted to sRGB"
    elif page.packing in _FOR_PILLOW or page.depth == 12:
        pixels = _by_pillow(page, data)
    elif page.is_separate and (page.opacity == 1 or tags.TILE_WIDTH in page.entries or page.joined):
        pixels = _from_planes(page, data)
    else:
        pixels = decoded("tiffload_buffer", data, page.size, page=page.index)
    pixels = _in_sixteen(pixels)
    opacity = None
    if page.opacity is not None and pixels.shape[2] > page.opacity:
        opacity = np.ascontiguousarray(pixels[..., page.opacity : page.opacity + 1])
    unpacked = page.photometric == tags.YCBCR and page.packing not in _LOSSY
    if page.photometric == tags.CMYK or unpacked:
        pixels, note = _from_inks(page, pixels)
        opacity = None if opacity is None else _eight(opacity)
    if page.channels == 3 and pixels.shape[2] < 3:  # a palette of greys
        pixels = np.repeat(pixels[..., :1], 3, axis=2)
    return np.ascontiguousarray(pixels[..., : page.channels]), opacity, note


def _by_pillow(page: Page, data: bytes) -> NDArray[Any]:
    """Decode what the libtiff of Pillow's wheels knows and that of libvips does not."""
    with Image.open(io.BytesIO(data), formats=["TIFF"]) as image:
        image.seek(page.index)
        image.getexif().clear()
        plain = image.convert({"P": "RGB", "1": "L"}.get(image.mode, image.mode))
        pixels = np.asarray(plain)
    return pixels.reshape(*pixels.shape[:2], -1)


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


def _from_inks(page: Page, pixels: NDArray[Any]) -> tuple[NDArray[Any], str | None]:
    """Convert CMYK, through its profile if there is one, or YCbCr that is no JPEG."""
    inks = page.photometric == tags.CMYK
    if not inks and page.numbers(tags.SUBSAMPLING, 2, 2) != (1, 1):
        raise ImageError("YCbCr of fewer colours than pixels is not read; convert it to RGB")
    mode, channels = ("CMYK", 4) if inks else ("YCbCr", 3)
    flat = np.ascontiguousarray(_eight(pixels[..., :channels]))
    image = Image.frombytes(mode, (flat.shape[1], flat.shape[0]), flat.tobytes())
    if not inks:
        return np.array(image.convert("RGB")), None
    image.info["icc_profile"] = page.raw(34675)
    rgb, note = rgb_of(image)
    return np.array(rgb), note


def _from_lab(page: Page, data: bytes) -> NDArray[Any]:
    """Convert CIELAB to sRGB; that of 8 bits libvips can only read as something else."""
    if page.depth > 8:
        return decoded("tiffload_buffer", data, page.size, page=page.index, space="rgb16")
    as_rgb = page.patched(data, {tags.PHOTOMETRIC: tags.RGB})
    stored = decoded("tiffload_buffer", as_rgb, page.size, page=page.index)[..., :3]
    size = (stored.shape[1], stored.shape[0])
    image = Image.frombytes("LAB", size, np.ascontiguousarray(stored).tobytes(), "raw", "LAB")
    return np.array(rgb_of(image)[0])


def _from_planes(page: Page, data: bytes) -> NDArray[Any]:
    """Decode plane after plane as a grey page: libvips does not know them in tiles."""
    planes = []
    count = page.channels + (page.opacity is not None)
    for number in range(count):
        changes: dict[int, tuple[int, int] | int] = dict.fromkeys((tags.SAMPLES, tags.PLANAR), 1)
        changes |= {tags.BITS: (number, 1), tags.SAMPLE_FORMAT: (0, 1)}
        changes[tags.PHOTOMETRIC] = tags.GREY
        for tag in (tags.STRIPS, tags.STRIP_BYTES, tags.TILES, tags.TILE_BYTES):
            share = len(page.numbers(tag)) // page.samples
            changes[tag] = (number * share, share)
        if page.joined:
            changes[tags.STRIPS] = (number * len(page.numbers(tags.STRIPS)) // page.samples, 1)
            changes[tags.STRIP_BYTES] = page.plane_bytes
        alone = bytearray(page.patched(data, changes))
        if tags.EXTRA_SAMPLES in page.entries:  # one plane has none: a private tag instead
            place = page.entries[tags.EXTRA_SAMPLES].place
            struct.pack_into(f"{page.layout.order}H", alone, place, 65000)
        planes.append(decoded("tiffload_buffer", bytes(alone), page.size, page=page.index))
    pixels = np.concatenate(planes, axis=2)
    top = np.iinfo(pixels.dtype).max
    if page.photometric == tags.INVERTED_GREY:
        pixels[..., 0] = top - pixels[..., 0]
    if page.opacity is not None and page.number(tags.EXTRA_SAMPLES, 2) == 1:
        share = np.maximum(pixels[..., page.channels :], 1) / top
        pixels[..., : page.channels] = np.rint(pixels[..., : page.channels] / share).clip(0, top)
    return pixels
