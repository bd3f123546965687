"""The chunks of a PNG: their checksums, and what the file says besides its pixels."""

import re
import struct
import zlib
from dataclasses import dataclass
from typing import IO, Final

_PIECE: Final = 1 << 20
"""Bytes of a chunk that are looked at together."""

_CRITICAL: Final = {b"IHDR", b"PLTE", b"tRNS"}
"""The chunks besides those of pixels that decide what the pixels are."""

_OF_COLOURS: Final = {b"cICP", b"sRGB", b"gAMA", b"cHRM"}
_OF_PIXELS: Final = {b"IDAT", b"fdAT"}
_OF_FRAMES: Final = {b"acTL", b"fcTL"}
_OF_TEXTS: Final = {b"tEXt", b"zTXt", b"iTXt"}

_UNNAMED: Final = {
    *(_OF_COLOURS | _OF_FRAMES | _OF_TEXTS | _CRITICAL),
    *(b"IEND", b"iCCP", b"eXIf", b"pHYs", b"tIME"),
    *(b"bKGD", b"hIST", b"sBIT", b"sPLT"),  # of how the pixels were stored, or may be shown
}

TEXT_MARK: Final = "\x1f"
"""What stands before a keyword that Pillow might take for a field of its own."""

_FIELD: Final = re.compile(rb"[a-z_]+\0")
"""What the names of Pillow's fields are like, such as ``transparency`` and ``bbox``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunks:
    """A PNG without its compressed pixels."""

    others: tuple[tuple[bytes, bytes], ...]
    """Names and contents of all other chunks that are whole, in order."""

    damaged: frozenset[int]
    """The frames, from 1, one of whose checksums is wrong; of a still picture 1."""

    runs: int
    """How many times pixels begin: 1, or other chunks lie between them."""

    ended: bool
    """Whether it has its last chunk."""

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
    def has_fields(self) -> bool:
        """Whether the keyword of a text might be taken for a field of Pillow."""
        return any(_is_field(*chunk) for chunk in self.others)

    @property
    def kind(self) -> tuple[int, int, int]:
        """Bits a sample, the colour type, and whether it is interlaced."""
        header = (self.find(b"IHDR") or b"").ljust(13, b"\0")
        return header[8], header[9], header[12]

    def without_pixels(self) -> bytes:
        """Assemble a still PNG of one grey pixel with all that is said beside the pixels.

        Before keywords that might be taken for fields of Pillow :data:`TEXT_MARK` is put.
        """
        unfit, mark = _CRITICAL | _OF_FRAMES | {b"IEND"}, TEXT_MARK.encode()
        rest = [
            (name, mark + content if _is_field(name, content) else content)
            for name, content in self.others
            if name not in unfit
        ]
        header = (b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
        pixel = (b"IDAT", zlib.compress(b"\0\0"))
        parts = (header, *rest, pixel, (b"IEND", b""))
        return b"\x89PNG\r\n\x1a\n" + b"".join(_assembled(*part) for part in parts)


def _is_field(name: bytes, content: bytes) -> bool:
    return name in _OF_TEXTS and _FIELD.match(content) is not None


def without_texts(data: bytes) -> bytes:
    """Copy a PNG without its texts; one that the file breaks off in stays, and is found."""
    parts, place = [data[:8]], 8
    while place < len(data):
        end = place + 12 + int.from_bytes(data[place : place + 4])
        if data[place + 4 : place + 8] not in _OF_TEXTS or end > len(data):
            parts.append(data[place:end])
        place = end
    return b"".join(parts)


def _assembled(name: bytes, content: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(name + content))
    return struct.pack(">I", len(content)) + name + content + checksum


def png_chunks(stream: IO[bytes]) -> Chunks:
    """Go through a PNG, or the beginning of one, a piece at a time; its position stays."""
    position = stream.tell()
    stream.seek(8)
    others: list[tuple[bytes, bytes]] = []
    damaged: set[int] = set()
    frame = runs = 0
    before = b""
    while before != b"IEND" and len(head := stream.read(8)) == 8:
        length, name = struct.unpack(">I4s", head)
        runs += name == b"IDAT" != before
        before = name
        frame += name == b"fcTL"
        if name in _OF_PIXELS:
            if not _is_sound(stream, name, length):
                damaged.add(max(1, frame))
            continue
        content, checksum = stream.read(length), stream.read(4)
        if len(checksum) < 4:
            break
        others.append((name, content))
        if name in _CRITICAL and zlib.crc32(name + content) != int.from_bytes(checksum):
            damaged.add(1)
    stream.seek(position)
    return Chunks(
        others=tuple(others), damaged=frozenset(damaged), runs=runs, ended=before == b"IEND"
    )


def _is_sound(stream: IO[bytes], name: bytes, length: int) -> bool:
    """Read a chunk to its end and compare its checksum; what is cut off is not wrong."""
    checksum = zlib.crc32(name)
    while length:
        piece = stream.read(min(length, _PIECE))
        if not piece:
            return True
        checksum = zlib.crc32(piece, checksum)
        length -= len(piece)
    expected = stream.read(4)
    return len(expected) < 4 or checksum == int.from_bytes(expected)
