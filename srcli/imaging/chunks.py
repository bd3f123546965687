"""The chunks of a PNG: what the file says besides its pixels."""

import io
import re
import struct
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import IO, Final

SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_OF_COLOURS: Final = {b"cICP", b"sRGB", b"gAMA", b"cHRM"}
_OF_PIXELS: Final = {b"IHDR", b"PLTE", b"tRNS", b"acTL", b"fcTL", b"IDAT", b"fdAT", b"IEND"}
_OF_TEXTS: Final = {b"tEXt", b"zTXt", b"iTXt"}

_UNNAMED: Final = {
    *(_OF_COLOURS | _OF_PIXELS | _OF_TEXTS),
    *(b"iCCP", b"eXIf", b"pHYs", b"tIME"),
    *(b"bKGD", b"hIST", b"sBIT", b"sPLT"),  # of how the pixels were stored, or may be shown
}

_SHORTEST: Final = {b"cHRM": 32, b"gAMA": 4, b"pHYs": 9, b"sRGB": 1}
"""Bytes of the chunks that Pillow would rather fail than read where they are shorter."""

_MOST_PADDING: Final = 1 << 12
"""Zeros behind the last chunk that are nothing."""

TEXT_MARK: Final = "\x1f"
"""What stands before a keyword that Pillow might take for a field of its own."""

_FIELD: Final = re.compile(rb"[a-z_]+\0")
"""What the names of Pillow's fields are like, such as ``transparency`` and ``bbox``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunks:
    """A PNG without its compressed pixels."""

    others: tuple[tuple[bytes, bytes], ...]
    """Names and contents of all chunks that are whole, in order; those of pixels without any."""

    behind: bytes | None
    """The beginning of what follows its last chunk; ``None`` where that is missing."""

    damaged: tuple[str, ...] = ()
    """Names of the chunks left out that are too short, or whose checksum is another."""

    def find(self, name: bytes) -> bytes | None:
        """Return the content of the first chunk of a name, if there is one."""
        return next((content for found, content in self.others if found == name), None)

    def of_colours(self) -> tuple[tuple[bytes, bytes], ...]:
        """Return what says, without a profile, what its colours are."""
        return tuple(chunk for chunk in self.others if chunk[0] in _OF_COLOURS)

    @property
    def unknown(self) -> list[str]:
        """Names of the chunks that do not travel, which other programs have put there."""
        names = (name for name, _ in self.others if name not in _UNNAMED)
        named = [f"chunk {name.decode('latin-1')}" for name in names if name.isalpha()]
        return named + [f"chunk {name}, which is damaged" for name in self.damaged]

    @property
    def kind(self) -> tuple[int, int, int]:
        """Bits a sample, the colour type, and whether it is interlaced."""
        header = (self.find(b"IHDR") or b"").ljust(13, b"\0")
        return header[8], header[9], header[12]

    def without_texts(self) -> bytes:
        """Assemble a PNG of nothing but what says of what kind its pixels are, and not them."""
        kept = [each for each in self.others if each[0] in _OF_PIXELS]
        return _png_of([*kept, (b"IDAT", b"")])  # without one Pillow would not know a file cut off

    def without_pixels(self) -> bytes:
        """Assemble a still PNG of one grey pixel with all that is said beside the pixels.

        Before keywords that might be taken for fields of Pillow, and such as were there before,
        :data:`TEXT_MARK` is put.
        """
        header = (b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
        parts, seen = [header], Counter[bytes]()
        for name, content in self.others:
            marks = b""
            if name in _OF_TEXTS:
                keyword = content.partition(b"\0")[0]
                marks = TEXT_MARK.encode() * (seen[keyword] + bool(_FIELD.match(content)))
                seen[keyword] += 1
            if name not in _OF_PIXELS:
                parts.append((name, marks + content))
        parts += [(b"IDAT", zlib.compress(b"\0\0")), (b"IEND", b"")]
        return _png_of(parts)


def _png_of(parts: Iterable[tuple[bytes, bytes]]) -> bytes:
    return SIGNATURE + b"".join(assembled(*part) for part in parts)


def assembled(name: bytes, content: bytes) -> bytes:
    """Make a chunk."""
    checksum = struct.pack(">I", zlib.crc32(name + content))
    return struct.pack(">I", len(content)) + name + content + checksum


def png_chunks(stream: IO[bytes]) -> Chunks:
    """Go through a PNG, or the beginning of one."""
    others, damaged, name, behind = [], [], b"", None
    for name, length in _walk(stream):
        content = b"" if name in {b"IDAT", b"fdAT"} else stream.read(length)
        is_short = length < _SHORTEST.get(name, 0)
        # Of those of pixels libvips says what is wrong.
        if name in _OF_PIXELS or not (is_short or stream.read(4) != assembled(name, content)[-4:]):
            others.append((name, content))
        else:
            damaged.append(name.decode("latin-1"))
    if name == b"IEND":
        behind = stream.read(_MOST_PADDING).strip(b"\0\r\n")
    return Chunks(others=tuple(others), damaged=tuple(damaged), behind=behind)


def _walk(stream: IO[bytes]) -> Iterator[tuple[bytes, int]]:
    """Go from chunk to chunk that is whole: its name and length, the stream at its content."""
    end, place = stream.seek(0, io.SEEK_END), 8
    name = b""
    while name != b"IEND":
        stream.seek(place)
        if len(head := stream.read(8)) < 8:
            return
        length, name = struct.unpack(">I4s", head)
        place += 12 + length
        if place > end:
            return
        yield name, length
        stream.seek(place)


def png_frames(stream: IO[bytes], chunks: Chunks) -> Iterator[tuple[tuple[int, ...], bytes]]:
    """Take an animated PNG apart: what ``fcTL`` says of a frame (PNG 3, 11.3.6.2), and a still."""
    head = (chunks.find(b"IHDR") or b"")[8:]
    shared = [each for each in chunks.others if each[0] in {b"PLTE", b"tRNS"}]
    control, pixels = b"", b""
    for name, length in chain(_walk(stream), [(b"IEND", 0)]):
        if name in {b"fcTL", b"IEND"} and pixels:
            parts = (b"IHDR", control[4:12] + head), *shared, (b"IDAT", pixels), (b"IEND", b"")
            yield struct.unpack(">4x4I2H2B", control), _png_of(parts)
            pixels = b""
        if name == b"fcTL":
            control = stream.read(length)
        elif name == b"fdAT" or (name == b"IDAT" and control):
            pixels += stream.read(length)[4 * (name == b"fdAT") :]
