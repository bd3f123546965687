"""The chunks of a PNG: what the file says besides its pixels."""

import io
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import IO, Any, Final

from PIL.PngImagePlugin import iTXt

SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_OF_COLOURS: Final = {b"cICP", b"sRGB", b"gAMA", b"cHRM"}
_OF_PIXELS: Final = {b"IHDR", b"PLTE", b"tRNS", b"acTL", b"fcTL", b"IDAT", b"fdAT", b"IEND"}
_OF_TEXTS: Final = {b"tEXt", b"zTXt", b"iTXt"}

_UNNAMED: Final = {
    *(_OF_COLOURS | _OF_PIXELS | _OF_TEXTS),
    *(b"iCCP", b"eXIf", b"pHYs", b"tIME"),
    *(b"bKGD", b"hIST", b"sBIT", b"sPLT"),  # of how the pixels were stored, or may be shown
}

_LENGTHS: Final = {b"cHRM": 32, b"cICP": 4, b"gAMA": 4, b"pHYs": 9, b"sRGB": 1}
"""Bytes of the chunks of which all are of one length."""

_MOST_PADDING: Final = 1 << 12
"""Zeros behind the last chunk that are nothing."""

_MOST_UNPACKED: Final = 1 << 26
"""Bytes of all texts of a file and its profile."""

XMP_KEYWORD: Final = "XML:com.adobe.xmp"
RAW_PROFILE: Final = "Raw profile type "
"""How ImageMagick begins the keywords of texts that are no texts."""

_READ: Final = (XMP_KEYWORD, *(RAW_PROFILE + e for e in ("exif", "APP1", "xmp", "iptc", "8bim")))
"""Keywords of texts that are read as what they are; others travel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunks:
    """A PNG without its compressed pixels."""

    others: tuple[tuple[bytes, bytes], ...]
    """Names and contents of all chunks that are whole, in order; those of pixels without any."""

    behind: bytes | None
    """The beginning of what follows its last chunk; ``None`` where that is missing."""

    info: dict[Any, Any] = field(default_factory=dict)
    """What they say besides the pixels, as Pillow names it; ``texts`` are keywords and texts."""

    damaged: tuple[str, ...] = ()
    """Names of the chunks left out: damaged, or of more than 64 MB of text."""

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


def _png_of(parts: Iterable[tuple[bytes, bytes]]) -> bytes:
    return SIGNATURE + b"".join(assembled(*part) for part in parts)


def assembled(name: bytes, content: bytes) -> bytes:
    """Make a chunk."""
    checksum = struct.pack(">I", zlib.crc32(name + content))
    return struct.pack(">I", len(content)) + name + content + checksum


def png_chunks(stream: IO[bytes]) -> Chunks:
    """Go through a PNG, or the beginning of one."""
    others, damaged, name, behind = [], [], b"", None
    info: dict[Any, Any] = {"texts": []}
    left = _MOST_UNPACKED
    for name, length in _walk(stream):
        content = b"" if name in {b"IDAT", b"fdAT"} else stream.read(length)
        try:
            if name not in _OF_PIXELS:  # of which libvips says what is wrong
                left -= _learn(info, name, content, stream.read(4), left)
            others.append((name, content))
        except (ValueError, zlib.error):
            damaged.append(name.decode("latin-1"))
    if name == b"IEND":
        behind = stream.read(_MOST_PADDING).strip(b"\0\r\n")
    return Chunks(others=tuple(others), damaged=tuple(damaged), behind=behind, info=info)


def _learn(info: dict[Any, Any], name: bytes, content: bytes, checksum: bytes, most: int) -> int:
    """Add what a chunk says (PNG 3, 11.3); return how many bytes, at most ``most``, it unpacks to.

    ValueError or zlib.error if it is damaged.
    """
    right = assembled(name, content)[-4:]
    if checksum != right or len(content) != _LENGTHS.get(name, len(content)):
        raise ValueError("of another checksum or length")
    if name == b"eXIf":
        info["exif"] = content
    elif name == b"pHYs":
        across, down, in_metres = struct.unpack(">IIB", content)
        unit = 0.0254 if in_metres else 1
        info["dpi" if in_metres else "aspect"] = (across * unit, down * unit)
    elif name == b"iCCP":
        info["icc_profile"] = _unpacked(content.partition(b"\0")[2][1:], most)
        return len(info["icc_profile"])
    elif name in _OF_TEXTS:
        keyword, text = _text_of(name, content, most)
        if keyword.startswith(_READ):
            info[keyword] = text
        else:
            info["texts"].append((keyword, text))
        return len(text)
    return 0


def _text_of(name: bytes, content: bytes, most: int) -> tuple[str, str]:
    """Decode a keyword and its text, which may know its language."""
    keyword, _, rest = content.partition(b"\0")
    if name == b"tEXt":
        text = rest.decode("latin-1")
    elif name == b"zTXt":
        text = _unpacked(rest[1:], most).decode("latin-1")
    else:
        *words, last = rest[2:].split(b"\0", 2)
        last = _unpacked(last, most) if rest[0] else last
        text = iTXt(last.decode(), *(word.decode() for word in words))
    return keyword.decode("latin-1"), text


def _unpacked(data: bytes, most: int) -> bytes:
    stream = zlib.decompressobj()
    found = stream.decompress(data, max(most, 1))
    if not stream.eof:
        raise ValueError("too long, or not whole")
    return found


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
