"""Files that are made of boxes: AVIF, HEIC, JPEG XL, and WebP, whose boxes are chunks of RIFF."""

import struct
from collections.abc import Iterator
from typing import Final

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
