"""Pixels that Pillow cannot hold, decoded by libvips: colour of 16 bits, odd TIFFs.

libvips is loaded when the first such file is met, and never for any other.
"""

import struct
import zlib
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import TiffImagePlugin, UnidentifiedImageError

__all__ = ["TiffPages", "is_tiff", "png_levels", "tiff_levels", "vips"]


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


def _last_line(text: str) -> str:
    """Take the line of a message of libvips that says what happened, without who says it."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    lines = [line for line in lines if not line.endswith("load error")] or lines
    return lines[-1].partition(": ")[2] or lines[-1] if lines else "nobody knows how"


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
        """
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

    @property
    def is_inverted(self) -> bool:
        """Whether the smallest level is white."""
        return self._photometric == 0

    @property
    def is_associated(self) -> bool:
        """Whether the opacity is multiplied into the colours."""
        return bool(self.tag_v2.get(TiffImagePlugin.EXTRASAMPLES, (2,))[0] == 1)

    def check(self, data: bytes) -> None:
        """Look for damage of the current page that libtiff would not see.

        Args:
            data: The file.

        Raises:
            EOFError: If a strip or tile ends behind the file.
            zlib.error: If one is deflated and its checksum is wrong: libtiff stops at the last
                pixel, which comes before it.
        """
        deflated = self.tag_v2.get(TiffImagePlugin.COMPRESSION) in {8, 32946}
        for starts, counts in ((273, 279), (324, 325)):
            pairs = (_values(self.tag_v2.get(tag, ())) for tag in (starts, counts))
            for start, count in zip(*pairs, strict=False):
                if start + count > len(data):
                    raise EOFError("unexpected end of file")
                if deflated:
                    _inflate(memoryview(data)[start : start + count])

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
        directory = _directory(fields, where, order, big=big)
        return header + data[len(header) :] + b"\0" * (where - len(data)) + directory

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
        self.deep = apart or odd

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


_ORIENTATION: Final = 274

_SUBFILE_TYPE: Final = 254
"""Bit 0: a reduced copy; bit 2: a transparency mask (TIFF 6.0, NewSubfileType)."""

_BITS: Final = TiffImagePlugin.BITSPERSAMPLE
_PHOTOMETRIC: Final = TiffImagePlugin.PHOTOMETRIC_INTERPRETATION
_SAMPLES: Final = TiffImagePlugin.SAMPLESPERPIXEL
_PLANAR: Final = TiffImagePlugin.PLANAR_CONFIGURATION

_PLACES: Final = {273, 279, 324, 325}
"""Offsets and lengths of strips and tiles; of separate planes one plane after the other."""

_PLANE_TAGS: Final = {256, 257, 259, 266, 278, 317, 322, 323} | _PLACES
"""What a plane has in common with its page: size, compression, strips and tiles."""


def _values(value: Any) -> tuple[int, ...]:  # noqa: ANN401 - what a tag holds
    return value if isinstance(value, tuple) else (value,)


def _inflate(packed: memoryview) -> None:
    """Inflate to the end, a piece at a time, for the sake of the checksum."""
    stream, rest = zlib.decompressobj(), bytes(packed)
    while rest and not stream.eof:
        stream.decompress(rest, 1 << 20)
        rest = stream.unconsumed_tail


def _directory(fields: dict[int, tuple[int, ...]], where: int, order: str, *, big: bool) -> bytes:
    """Encode a directory of whole numbers that is going to stand at ``where``."""
    number, kind, count = ("Q", 16, "Q") if big else ("L", 4, "H")
    inline = 8 if big else 4
    entry = f"{order}HH{number}"
    position = (
        where + struct.calcsize(f"={count}") + len(fields) * (struct.calcsize(entry) + inline)
    )
    position += inline
    entries, behind = [struct.pack(order + count, len(fields))], b""
    for tag in sorted(fields):
        content = struct.pack(f"{order}{len(fields[tag])}{number}", *fields[tag])
        entries.append(struct.pack(entry, tag, kind, len(fields[tag])))
        if len(content) > inline:
            entries.append(struct.pack(order + number, position + len(behind)))
            behind += content
        else:
            entries.append(content)
    return b"".join([*entries, b"\0" * inline, behind])


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
    image.check(data)
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
