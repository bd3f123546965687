"""Pixels that Pillow cannot hold: colour of 16 bits, odd TIFFs. All but PPM by libvips.

libvips is loaded when the first such file is met, and never for any other.
"""

import ctypes
import importlib
import math
import os
import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from typing import IO, Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray
from PIL import TiffImagePlugin, UnidentifiedImageError

from srcli.imaging.directories import LONG, LONG8, built, entry, lost_tags
from srcli.imaging.pictures import Levels

__all__ = [
    "TiffPages",
    "is_tiff",
    "png_levels",
    "ppm_levels",
    "tiff_levels",
    "vips",
    "vips_bands",
]


def vips() -> Any:  # noqa: ANN401 - a module without types
    """Import libvips and keep it from keeping decoded files in memory."""
    import pyvips  # type: ignore[import-untyped]  # noqa: PLC0415 - 0.1 s and 40 MB that most runs do without

    pyvips.cache_set_max(0)
    return pyvips


def png_levels(data: bytes, size: tuple[int, int]) -> NDArray[Any]:
    """Decode a PNG at its own depth.

    Args:
        data: A PNG, whole.
        size: Its width and height in pixels.

    Returns:
        ``HxWxC``, ``uint8`` or ``uint16``, C from 1 to 4: grey or RGB, and opacity where the
        file has a channel of it or a clear colour.

    Raises:
        EOFError: If its end is missing.
        OSError: If it is damaged.
    """
    if data[-8:-4] != b"IEND":
        raise EOFError("unexpected end of file")
    return _decoded("pngload_buffer", data, size)


def _decoded(loader: str, data: bytes, size: tuple[int, int], **options: int) -> NDArray[Any]:
    if 8 * size[0] * size[1] > _MOST_SAVED * len(data):
        raise OSError(f"{len(data)} bytes cannot hold {size[0]}x{size[1]} pixels")
    pyvips = vips()
    try:
        image = pyvips.Operation.call(loader, data, fail_on="error", **options)
        if {image.width, image.height} != {*size}:  # its size is the one that was agreed to
            raise OSError("its headers contradict each other")
        levels: NDArray[Any] = image.numpy()
    except pyvips.Error as error:
        raise OSError(_last_line(str(error))) from error
    levels = levels.reshape(image.height, image.width, -1)
    return levels if levels.flags.writeable else levels.copy()


_MOST_SAVED: Final = 50_000
"""More than one byte can stand for by any compression that is used in PNG and TIFF.

Deflate comes to 1032, LZW to about 1400, Zstandard to 32,000. Without this limit a damaged header
costs gigabytes and seconds before the decoder finds out.
"""


def vips_bands(
    loader: str, stream: BinaryIO, *, shape: tuple[int, int, int], bits: int, rows: int
) -> Iterator[Levels]:
    """Decode a still picture of a file from top to bottom, a few rows in memory at a time.

    Args:
        loader: What libvips calls its decoder: ``jpegload``, ``pngload``, ``tiffload``.
        stream: The file itself, open; its position is lost.
        shape: Height, width and channels that it is known to have.
        bits: 8 or 16, as its levels are known to have.
        rows: Of each band, but perhaps the last; of whole tiles where there are any.

    Yields:
        ``hxWxC``, ``uint8`` or ``uint16``, writable.

    Raises:
        OSError: If it is damaged.
    """
    pyvips = vips()
    height, width, channels = shape
    stream.seek(0)
    try:
        source = pyvips.Source.new_from_descriptor(stream.fileno())
        options = {"access": "sequential", "fail_on": "error"}
        image = pyvips.Operation.call(f"{loader}_source", source, **options)
        kind = {8: "uchar", 16: "ushort"}[bits]
        if (image.height, image.width, image.bands, image.format) != (*shape, kind):
            raise OSError("its headers contradict each other")
        # A crop is written by itself: a region of the whole would keep what it has passed.
        for top in range(0, height, rows):
            band = image.crop(0, top, width, min(rows, height - top))
            levels: NDArray[Any] = band.numpy().reshape(band.height, width, channels)
            yield levels if levels.flags.writeable else levels.copy()
    except pyvips.Error as error:
        raise OSError(_last_line(str(error))) from error


def _last_line(text: str) -> str:
    """Take the line of a message of libvips that says what happened, without who says it."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    lines = [line for line in lines if not line.endswith("load error")] or lines
    return lines[-1].partition(": ")[2] or lines[-1] if lines else "nobody knows how"


def ppm_levels(
    data: bytes | memoryview, size: tuple[int, int], top: int, *, channels: int = 3, plain: bool
) -> Levels:
    """Decode the levels of a PPM or PGM (https://netpbm.sourceforge.net/doc/ppm.html).

    Args:
        data: What follows the header of the file.
        size: Its width and height in pixels.
        top: The level that stands for white: 255, or 256 to 65535.
        channels: 3 of a PPM, 1 of a PGM.
        plain: Whether levels are written out as decimal numbers.

    Returns:
        ``HxWxC``, ``uint8`` where 255 is white, else ``uint16``, where 65535 is.

    Raises:
        EOFError: If its end is missing.
        ValueError: If something else than a number stands there.
    """
    shape = (size[1], size[0], channels)
    count = math.prod(shape)
    found: NDArray[Any]
    if plain:
        numbers = re.sub(rb"#[^\r\n]*", b"", data).split(maxsplit=count)[:count]
        found = np.array([int(number) for number in numbers], np.int64).clip(0, top)
    else:
        stored = np.dtype(np.uint8 if top == 255 else ">u2")
        found = np.frombuffer(data, stored, min(count, len(data) // stored.itemsize))
    if len(found) < count:
        raise EOFError("unexpected end of file")
    levels: NDArray[Any] = np.empty(count, np.uint8 if top == 255 else np.uint16)
    # In pieces: what is scaled takes 32 bits on the way.
    for start in range(0, count, _SCALED):
        levels[start : start + _SCALED] = _scaled(found[start : start + _SCALED], top)
    return levels.reshape(shape)


_SCALED: Final = 1 << 22
"""Levels of a PPM that are scaled together."""


def _scaled(found: NDArray[Any], top: int) -> NDArray[Any]:
    if top in {255, 65535}:
        return found
    # At most 65535 * 65535 + 32767, which 32 bits hold.
    scaled: NDArray[Any] = (np.minimum(found, top).astype(np.uint32) * 65535 + top // 2) // top
    return scaled


def is_tiff(start: bytes) -> bool:
    """Tell a TIFF or BigTIFF by its first four bytes."""
    return start in {b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"}


_GREY_OR_RGB: Final = {0, 1, 2}
"""Photometric interpretations: white is zero, black is zero, RGB."""

_INCH: Final = {2: 1.0, 3: 2.54}
"""How many of a TIFF's resolution units (inch, centimetre) make an inch."""


class TiffPages(TiffImagePlugin.TiffImageFile):
    """A TIFF as Pillow reads it, whose pages may be of kinds that Pillow does not know.

    Of such a page Pillow still reads the size and the metadata; :func:`tiff_levels` has to
    decode what ``deep`` says.
    """

    deep: bool = False
    """Whether Pillow would refuse the current page, or take bits from it."""

    refusal: str | None = None
    """Why the pixels of the current page cannot be read at all, if so."""

    def __init__(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - Pillow's own
        """Read the first page's directory.

        Raises:
            UnidentifiedImageError: If it is not one of a TIFF.
            OSError: If it is cut off.
        """
        _hush_libtiff()
        try:
            super().__init__(*arguments, **options)
        except (SyntaxError, IndexError, TypeError, KeyError) as error:
            raise UnidentifiedImageError("not a sound TIFF") from error

    @property
    def opacity(self) -> int | None:
        """Which channel of a deep page is its opacity, if any."""
        colours, samples = self.colours, len(self._bits)
        extra = self.tag_v2.get(TiffImagePlugin.EXTRASAMPLES, (2,))
        return colours if samples > colours and extra[0] in {1, 2} else None

    @property
    def depth(self) -> int:
        """Bits a sample."""
        return self._bits[0]

    @property
    def is_separate(self) -> bool:
        """Whether the samples of a pixel are stored apart, each in a plane of its own."""
        return len(self._bits) > 1 and self.tag_v2.get(_PLANAR, 1) == 2

    def is_unsigned(self, *, samples: int, depth: int) -> bool:
        """Whether a pixel has so many samples, all unsigned and of so many bits."""
        formats = self.tag_v2.get(TiffImagePlugin.SAMPLEFORMAT, (1,))
        return self._bits == (depth,) * samples and {*formats} == {1}

    @property
    def is_inverted(self) -> bool:
        """Whether the smallest level is white."""
        return self._photometric == 0

    @property
    def is_associated(self) -> bool:
        """Whether the opacity is multiplied into the colours."""
        return bool(self.tag_v2.get(TiffImagePlugin.EXTRASAMPLES, (2,))[0] == 1)

    def check(self) -> None:
        """Look for damage of the current page, not decoded yet, that libtiff would not see.

        Raises:
            EOFError: If the page is deep and a strip or tile ends behind the file.
            zlib.error: If one is deflated and its checksum is wrong: libtiff stops at the last
                pixel, which comes before it.
        """
        stream = self.fp
        assert stream is not None
        deflated = self.tag_v2.get(TiffImagePlugin.COMPRESSION) in {8, 32946}
        most = 8 * len(self._bits) * self.width * self.height
        position, end = stream.tell(), stream.seek(0, os.SEEK_END)
        try:
            for start, count in self.parts():
                if self.deep and start + count > end:
                    raise EOFError("unexpected end of file")
                if deflated and start + count <= end:
                    stream.seek(start)
                    _inflate(stream, count, most)
        finally:
            stream.seek(position)

    def parts(self) -> Iterator[tuple[int, int]]:
        """List where the strips or tiles of the current page are, and how long."""
        for starts, counts in ((273, 279), (324, 325)):
            pairs = (_values(self.tag_v2.get(tag, ())) for tag in (starts, counts))
            yield from zip(*pairs, strict=False)

    def plane(self, data: bytes, number: int) -> bytes:
        """Describe one of the separate planes of the current page as a TIFF of its own.

        Args:
            data: The file.
            number: Which sample, from 0.

        Returns:
            The file with another directory, of a grey page: only that one is referred to.
        """
        tags = self.tag_v2
        fields = {tag: _values(tags[tag]) for tag in _PLANE_TAGS if tag in tags}
        fields |= {_BITS: (self.depth,), _PHOTOMETRIC: (1,), _SAMPLES: (1,), _PLANAR: (1,)}
        for tag in _PLACES & fields.keys():
            share = len(fields[tag]) // len(self._bits)
            fields[tag] = fields[tag][number * share : (number + 1) * share]
        order, big = ("<" if tags.prefix == b"II" else ">"), data[2:4] in {b"+\0", b"\0+"}
        where = len(data) + len(data) % 2
        header = (
            data[:8] + struct.pack(f"{order}Q", where)
            if big
            else (data[:4] + struct.pack(f"{order}L", where))
        )
        kind = LONG8 if big else LONG
        directory = {tag: entry(order, kind, *values) for tag, values in fields.items()}
        padding = b"\0" * (where - len(data))
        return header + data[len(header) :] + padding + built(directory, where, order, big=big)

    @property
    def stored_orientation(self) -> int:
        """The orientation of a deep page, which Pillow has not turned; 1 where it is broken."""
        value = self.tag_v2.get(_ORIENTATION)
        return value if isinstance(value, int) and 1 <= value <= 8 else 1

    @property
    def is_reduced(self) -> bool:
        """Whether the current page is a smaller copy or the mask of another one."""
        kind = self.tag_v2.get(_SUBFILE_TYPE, 0)
        return isinstance(kind, int) and bool(kind & 0b101)

    @property
    def _bits(self) -> tuple[int, ...]:
        """Bits of each sample of a pixel."""
        bits = self.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (1,))
        samples = self.tag_v2.get(TiffImagePlugin.SAMPLESPERPIXEL, 1)
        return tuple(bits) * samples if len(bits) == 1 and samples < 64 else tuple(bits)

    @property
    def colours(self) -> int:
        """Channels of a deep page that are not extra: 1 for grey, 3 for RGB."""
        return 3 if self._photometric == 2 else 1

    @property
    def _photometric(self) -> int:
        return int(self.tag_v2.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION, 0))

    def _setup(self) -> None:
        """Take the current page's directory for what it is."""
        self._check_directory()
        for stale in ("icc_profile", "dpi", "resolution"):
            self.info.pop(stale, None)  # the page before said so
        self.deep, self.refusal = False, None
        if self.tag_v2.get(_SAMPLES, 1) > TiffImagePlugin.MAX_SAMPLESPERPIXEL:
            self._refuse_samples()
            return
        try:
            super()._setup()
        except (SyntaxError, IndexError):
            self._take_foreign()
            return
        # Grey of 16 bits Pillow holds, but it does not turn white-is-zero. Of samples stored
        # apart it knows RGB of 8 bits alone, and takes others for something else.
        apart = self._is_plain(8, 16) and self.is_separate and self._bits != (8, 8, 8)
        odd = self._is_plain(16) and (len(self._bits) > 1 or self.is_inverted)
        # Which the libtiff of Pillow's wheels cannot undo.
        webp = self._is_plain(8) and self.tag_v2.get(TiffImagePlugin.COMPRESSION) == _WEBP
        self.deep = apart or odd or webp

    def _check_directory(self) -> None:
        """Refuse a directory that is cut off: Pillow would make up what it has not found."""
        assert self.fp is not None
        lost = lost_tags(self.fp, self._frame_pos[self.tell()]) & _PIXEL_TAGS
        if lost:
            raise OSError(f"truncated, tag {min(lost)} lies behind its end")

    def _refuse_samples(self) -> None:
        """Take a page of too many samples, of which Pillow would complain on the terminal."""
        width, height = self.tag_v2[256], self.tag_v2[257]
        if not isinstance(width, int) or not isinstance(height, int):
            raise ValueError("invalid dimensions")  # noqa: TRY004 - of the file, not of a caller
        self._tile_size = width, height
        self._size = (height, width) if self.stored_orientation >= 5 else (width, height)
        self._mode, self.tile, self.palette = "L", [], None
        self.refusal = f"TIFF pixels of {self.tag_v2[_SAMPLES]} samples are not read"

    def _is_plain(self, *depths: int) -> bool:
        """Whether all samples are unsigned, of one depth among these, and grey or RGB."""
        bits, formats = self._bits, self.tag_v2.get(TiffImagePlugin.SAMPLEFORMAT, (1,))
        one_kind = len({*bits}) == 1 and bits[0] in depths and {*formats} == {1}
        return one_kind and self._photometric in _GREY_OR_RGB and len(bits) >= self.colours

    def _take_foreign(self) -> None:
        """Read what Pillow has left of a page whose pixels it does not know."""
        self._mode = "RGB" if self.colours == 3 else "L"
        self.tile = []
        self.palette = None
        if self._is_plain(8, 16):
            self.deep = True
        else:
            depths = "/".join(sorted({str(depth) for depth in self._bits}))
            self.refusal = f"TIFF pixels of this kind, {depths} bits a sample, are not read"
        if TiffImagePlugin.ICCPROFILE in self.tag_v2:
            self.info["icc_profile"] = self.tag_v2[TiffImagePlugin.ICCPROFILE]
        unit = _INCH.get(self.tag_v2.get(TiffImagePlugin.RESOLUTION_UNIT, 2))
        sides = (TiffImagePlugin.X_RESOLUTION, TiffImagePlugin.Y_RESOLUTION)
        if unit and all(side in self.tag_v2 for side in sides):
            self.info["dpi"] = tuple(self.tag_v2[side] * unit for side in sides)


@cache
def _hush_libtiff() -> None:
    """Keep Pillow's libtiff from printing what it finds wrong with a file.

    Pillow silences its warnings, but not its errors, which reach the caller as exceptions.
    """
    pillow = importlib.import_module("PIL._imaging").__file__
    with suppress(AttributeError, OSError):  # a Pillow into which libtiff is linked
        set_handler = ctypes.CDLL(pillow).TIFFSetErrorHandler
        set_handler.argtypes, set_handler.restype = [ctypes.c_void_p], ctypes.c_void_p
        set_handler(None)


_ORIENTATION: Final = 274

_WEBP: Final = 50001
"""The compression of libtiff that is called WEBP."""

_SUBFILE_TYPE: Final = 254
"""Bit 0: a reduced copy; bit 2: a transparency mask (TIFF 6.0, NewSubfileType)."""

_BITS: Final = TiffImagePlugin.BITSPERSAMPLE
_PHOTOMETRIC: Final = TiffImagePlugin.PHOTOMETRIC_INTERPRETATION
_SAMPLES: Final = TiffImagePlugin.SAMPLESPERPIXEL
_PLANAR: Final = TiffImagePlugin.PLANAR_CONFIGURATION

_PLACES: Final = {273, 279, 324, 325}
"""Offsets and lengths of strips and tiles; of separate planes one plane after the other."""

_PIXEL_TAGS: Final = frozenset(
    {258, 273, 277, 279, 320, 322, 323, 324, 325, 338, 339, 347, 529, 530, 532}
)
"""The tags with longer values without which pixels are not what they were: bits, places, colour
map, kinds of samples, tables of JPEG, coefficients."""

_PLANE_TAGS: Final = {256, 257, 259, 266, 278, 317, 322, 323} | _PLACES
"""What a plane has in common with its page: size, compression, strips and tiles."""


def _values(value: Any) -> tuple[int, ...]:  # noqa: ANN401 - what a tag holds
    return value if isinstance(value, tuple) else (value,)


def _inflate(packed: IO[bytes], count: int, most: int) -> None:
    """Inflate ``count`` bytes, a piece at a time, for the sake of the checksum.

    What comes to far more than ``most`` bytes is not followed: it is no picture of this size.
    """
    stream = zlib.decompressobj()
    while count > 0 and not stream.eof and (rest := packed.read(min(count, _PIECE))):
        count -= len(rest)
        while rest and not stream.eof:
            if most <= -_PIECE:
                return
            most -= len(stream.decompress(rest, _PIECE))
            rest = stream.unconsumed_tail


_PIECE: Final = 1 << 20
"""Bytes that are inflated together."""


def tiff_levels(image: TiffPages, data: bytes) -> NDArray[Any]:
    """Decode the current page of a TIFF at its own depth, not turned; white is the largest level.

    Args:
        image: The TIFF, at a page that is ``deep``.
        data: The file.

    Returns:
        ``HxWxC``, ``uint8`` or ``uint16``: grey or RGB, then the extra channels; an opacity
        that is multiplied into the colours in the file is taken out of them.

    Raises:
        EOFError, OSError, zlib.error: If it is damaged.
    """
    if not image.is_separate:
        levels = _decoded("tiffload_buffer", data, image.size, page=image.tell())
        if levels.shape[2] < image.colours + (image.opacity is not None):
            raise OSError("it has fewer samples than it announces")
        return levels
    # libvips mistakes planes in tiles, and grey with an opacity, for something else.
    planes = [
        _decoded("tiffload_buffer", image.plane(data, number), image.size, page=0)
        for number in range(image.colours + (image.opacity is not None))
    ]
    levels = np.concatenate(planes, axis=2)
    colours, top = image.colours, np.iinfo(levels.dtype).max
    if image.is_inverted:
        levels[..., 0] = top - levels[..., 0]
    if image.opacity is not None and image.is_associated:
        share = np.maximum(levels[..., colours:], 1) / top
        levels[..., :colours] = np.rint(levels[..., :colours] / share).clip(0, top)
    return levels
