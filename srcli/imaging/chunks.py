"""The chunks of a PNG: what the file says besides its pixels."""

import io
import re
import struct
import zlib
from collections import Counter
from dataclasses import dataclass
from typing import IO, Final

_OF_COLOURS: Final = {b"cICP", b"sRGB", b"gAMA", b"cHRM"}
_OF_PIXELS: Final = {b"IHDR", b"PLTE", b"tRNS", b"acTL", b"fcTL", b"IEND"}
_OF_TEXTS: Final = {b"tEXt", b"zTXt", b"iTXt"}

_UNNAMED: Final = {
    *(_OF_COLOURS | _OF_PIXELS | _OF_TEXTS),
    *(b"iCCP", b"eXIf", b"pHYs", b"tIME"),
    *(b"bKGD", b"hIST", b"sBIT", b"sPLT"),  # of how the pixels were stored, or may be shown
}

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
    """Names and contents of all other chunks that are whole, in order."""

    behind: bytes | None
    """The beginning of what follows its last chunk; ``None`` where that is missing."""

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
        return [f"chunk {name.decode('latin-1')}" for name in names if name.isalpha()]

    @property
    def kind(self) -> tuple[int, int, int]:
        """Bits a sample, the colour type, and whether it is interlaced."""
        header = (self.find(b"IHDR") or b"").ljust(13, b"\0")
        return header[8], header[9], header[12]

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
        return b"\x89PNG\r\n\x1a\n" + b"".join(_assembled(*part) for part in parts)


def without_texts(data: bytes) -> bytes:
    """Copy a PNG without its texts."""
    parts, place = [data[:8]], 8
    while place < len(data):
        end = place + 12 + int.from_bytes(data[place : place + 4])
        if data[place + 4 : place + 8] not in _OF_TEXTS:
            parts.append(data[place:end])
        place = end
    return b"".join(parts)


def _assembled(name: bytes, content: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(name + content))
    return struct.pack(">I", len(content)) + name + content + checksum


def png_chunks(stream: IO[bytes]) -> Chunks:
    """Go through a PNG, or the beginning of one; the position of the stream stays."""
    position = stream.tell()
    end = stream.seek(0, io.SEEK_END)
    stream.seek(8)
    others: list[tuple[bytes, bytes]] = []
    name = b""
    while name != b"IEND" and len(head := stream.read(8)) == 8:
        length, name = struct.unpack(">I4s", head)
        if stream.tell() + length + 4 > end:
            break
        if name in {b"IDAT", b"fdAT"}:
            stream.seek(length + 4, io.SEEK_CUR)
        else:
            others.append((name, stream.read(length)))
            stream.seek(4, io.SEEK_CUR)
    ended = bool(others) and others[-1][0] == b"IEND"
    behind = stream.read(_MOST_PADDING).strip(b"\0\r\n") if ended else None
    stream.seek(position)
    return Chunks(others=tuple(others), behind=behind)
