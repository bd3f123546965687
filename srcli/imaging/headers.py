"""What a file's header says: its size and kind, how it was encoded, what else it has."""

import io
import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import BinaryIO, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, JpegImagePlugin

from srcli.imaging.pictures import Coding, Levels, Metadata

_BLOCK: Final = 1 << 16
"""Bytes of a JPEG that are looked through together."""

_MOST_START: Final = 1 << 20
"""Bytes of a WebP among which its picture begins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What a file says of its pictures before they are decoded."""

    width: int
    """Pixels across the first picture, upright."""

    height: int
    """Pixels down the first picture, upright."""

    frames: int
    """How many pictures :func:`read_album` would return."""

    channels: int
    """1 for grey, 3 for RGB; of an animated GIF what its first frame's palette says."""

    alpha: bool
    """Whether pixels may be transparent; an animation can turn out to be opaque."""

    bits: int
    """8 or 16 bits a channel."""

    coding: Coding
    """How the first picture was stored."""

    @property
    def format(self) -> str:
        """Pillow's name of the format, ``JPEG`` for the several pictures of a phone."""
        return self.coding.format


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scan(Header):
    """A picture that is read a few rows at a time; it has no transparency."""

    metadata: Metadata
    """What travels with the pixels."""

    rows: Iterator[Levels]
    """Bands from top to bottom, ``hxWxC``, each once: they come as the file is decoded.

    It raises :class:`srcli.errors.ImageError` where the file turns out to be damaged."""

    notes: tuple[str, ...]
    """What is left out or changed, as those of an album."""

    @property
    def dtype(self) -> type[np.uint8] | type[np.uint16]:
        """Of its levels."""
        return np.uint16 if self.bits == 16 else np.uint8


def coding_of(image: ImageFile.ImageFile, stream: BinaryIO) -> Coding:
    """Return how the first picture was encoded, from what the header says; nothing is decoded.

    Where the header is too damaged to tell, it is of an unknown quality.
    """
    name = "JPEG" if image.format == "MPO" else str(image.format)
    try:
        if isinstance(image, JpegImagePlugin.JpegImageFile):
            table = image.quantization[image.layer[0][3]]  # that its frame names for luma
            return Coding(format=name, quality=jpeg_quality(table))
        return Coding(format=name, lossless=name == "WEBP" and _is_lossless(stream))
    except Exception:  # noqa: BLE001 - damaged headers raise anything, and must not cost the picture
        return Coding(format=name)


def jpeg_quality(table: Sequence[int]) -> int | None:
    """Estimate the quality of a JPEG on libjpeg's scale from its quantisation table of luma.

    It is that whose table, as libjpeg makes it, is nearest: the least sum of squared differences
    of logarithms, so that 2 for 1 counts as much as 20 for 10. None: it is no table.

    Example:
        >>> jpeg_quality([1] * 64), jpeg_quality([8] * 64), jpeg_quality([0] * 64)
        (100, 92, None)
    """
    if len(table) != 64 or min(table) < 1:
        return None
    # Tables of 16 bits go on where libjpeg, for the sake of old decoders, stops at 255.
    distance = np.square(_logarithms() - np.log(np.minimum(table, 255))).sum(axis=1)
    return int(distance.argmin()) + 1


@cache
def _logarithms() -> NDArray[np.float64]:
    """Logarithms of the tables of luma of quality 1 to 100, ``100x64``: of what libjpeg writes."""
    stream = io.BytesIO()
    Image.new("L", (8, 8)).save(stream, "JPEG", quality=50)
    stream.seek(0)
    image = JpegImagePlugin.JpegImageFile(stream)
    quality = np.arange(1, 101)[:, None]
    percent = np.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    tables = (np.array(image.quantization[0]) * percent + 50) // 100
    logarithms: NDArray[np.float64] = np.log(tables.clip(1, 255))
    return logarithms


def _is_lossless(stream: BinaryIO) -> bool:
    """Tell whether the first picture of a WebP is VP8L and not VP8 (RFC 9649, 2.5 and 2.6)."""
    stream.seek(0)
    found = re.search(rb"VP8[L ]", stream.read(_MOST_START))
    return found is not None and found[0] == b"VP8L"


def behind_jpeg(stream: BinaryIO, start: int) -> bytes | None:
    """Return the beginning of what follows the end mark of a JPEG; ``None`` where that is missing.

    Before ``start``, where its first scan begins, there may be end marks of thumbnails.
    """
    stream.seek(start)
    last = b""
    while part := stream.read(_BLOCK):
        _, mark, behind = (last + part).partition(b"\xff\xd9")
        if mark:
            return (behind + stream.read(_BLOCK)).strip(b"\0\r\n")
        last = part[-1:]
    return None


def gif_blocks(data: bytes) -> tuple[list[bytes], bytes | None]:
    """List the extensions and frames of a GIF (GIF89a, 15 to 27), and what follows its end mark."""
    blocks, place = [], 13 + palette_bytes(data[10])
    try:
        while data[place] != ord(";"):
            start = place
            if data[place] not in b"!,":  # which decoders pass over
                place += 1
                continue
            place += 2 if data[place] == ord("!") else 11 + palette_bytes(data[place + 9])
            while data[place]:
                place += 1 + data[place]
            place += 1
            blocks.append(data[start:place])
    except IndexError:
        return blocks, None
    return blocks, data[place + 1 :].strip(b"\0\r\n")


def gif_frames(data: bytes, blocks: Sequence[bytes]) -> Iterator[tuple[tuple[int, ...], bytes]]:
    """Take a GIF apart: what is said of a frame, as :func:`png_frames` has it, and a still."""
    shared, bare = data[10 : 13 + palette_bytes(data[10])], bytes(3)
    control = none = b"!\xf9\4\0\0\0\0\0"
    for block in blocks:
        if block.startswith(none[:3]):
            control = block
        elif block.startswith(b","):
            colours = bare if block[9] & 0x80 else shared  # it has some of its own
            still = data[:6] + block[5:9] + colours + control + b",\0\0\0\0" + block[5:] + b";"
            left, top, *size = struct.unpack_from("<4H", block, 1)
            flags, delay = struct.unpack_from("<BH", control, 3)
            yield (*size, left, top, delay, 100, max(0, (flags >> 2 & 7) - 1), 1), still
            control = none


def palette_bytes(flags: int) -> int:
    """Return how long the palette of a GIF or of its frame is."""
    return 6 << (flags & 7) if flags & 0x80 else 0


def av1_bits(start: bytes) -> int:
    """Return the depth that the first AV1 or HEVC configuration states.

    AV1-ISOBMFF 2.3.3; ISO/IEC 14496-15, 8.3.3.1.
    """
    box = start.partition(b"av1C")[2]
    if len(box) > 2:
        return (12 if box[2] & 0x20 else 10) if box[2] & 0x40 else 8
    box = start.partition(b"hvcC")[2]
    return 8 + (box[17] & 7) if len(box) > 17 else 8


def clear_webp(data: bytes) -> bytes:
    """Say of a WebP of the extended kind that it has transparency (RFC 9649, 2.7)."""
    return data[:20] + bytes([data[20] | 0x10]) + data[21:]


# ---- boxes -------------------------------------------------------------------------------

_READ: Final = {
    *(b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF", b"ICCP", b"EXIF", b"XMP "),
    *(b"ftyp", b"meta", b"mdat", b"moov", b"free", b"skip"),
    *(b"JXL ", b"jxlc", b"jxlp", b"jxll", b"jxli", b"jbrd", b"Exif", b"xml "),
}
"""Boxes that decoders or we read, or that say nothing."""


def boxes_of(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Go through the outermost boxes: their names and contents (ISO/IEC 14496-12, 4.2)."""
    is_riff = data[:4] == b"RIFF"
    place = 12 if is_riff else 0
    while place + 8 <= len(data):
        size, name = struct.unpack_from(">I4s", data, place)
        start = place + 8
        if is_riff:  # the name comes first, and what is odd is padded (RFC 9649, 2.3)
            name, length = struct.unpack_from("<4sI", data, place)
            size = 8 + length + length % 2
        elif size == 1:  # of more than 32 bits
            size, start = int.from_bytes(data[start : start + 8]), start + 8
        end = place + size if size else len(data)
        yield name, data[start:end]
        place = max(end, start)


def parts_beside(data: bytes) -> Iterator[str]:
    """Name what is in a file besides its picture that is not read."""
    is_riff = data[:4] == b"RIFF"
    end = 8 + int.from_bytes(data[4:8], "little") if is_riff else len(data)
    for name, content in boxes_of(data[:end]) if data[:2] != b"\xff\x0a" else ():
        if name in {b"uuid", b"jumb", b"C2PA"} and b"c2pa" in content:
            yield "content credentials"
        elif name.isalnum() and name not in _READ:
            yield f"{'chunk' if is_riff else 'box'} {name.decode()}"
    if data[end:].strip(b"\0\r\n"):
        yield "data behind its end mark"


_RATIOS: Final = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
"""Width to height, as a JPEG XL may state it instead of its width."""


def jxl_header(data: bytes) -> tuple[tuple[int, int], int, bool, int]:
    """Read the header of a JPEG XL (ISO/IEC 18181-1, D.2 and D.3).

    Returns:
        Width and height as stored, by which orientation it is turned when it is decoded, whether
        it is an animation, and the bits of a sample: 8 where that is not easily found.
    """
    start = 0
    if data[:2] != b"\xff\x0a":
        start = max(data.find(b"jxlc") + 4, data.find(b"jxlp") + 8)
    bits = int.from_bytes(data[start + 2 : start + 18], "little")

    def number(count: int) -> int:
        nonlocal bits
        found = bits & ((1 << count) - 1)
        bits >>= count
        return found

    small = number(1)

    def side() -> int:
        return 8 * (number(5) + 1) if small else number((9, 13, 18, 30)[number(2)]) + 1

    height, ratio = side(), number(3)
    across, down = _RATIOS[ratio - 1]
    width = height * across // down if ratio else side()
    if number(1):  # all else is as usual
        return (width, height), 1, False, 8
    more = number(1)
    orientation = 1 + number(3) if more else 1
    # Another size to be shown in, a small copy, and an animation come before the bits.
    following = number(3) if more else 0
    bits_of = (32, 16, 24, 0) if number(1) else (8, 10, 12, 0)
    depth = bits_of[number(2)] or 1 + number(6)
    return (width, height), orientation, following == 0b100, 8 if following else depth
