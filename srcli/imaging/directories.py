"""Directories of tags, as EXIF blocks and TIFF files hold them, to the byte.

TIFF Revision 6.0 (Adobe, 1992), section 2; the wider fields of BigTIFF as libtiff has them. An
entry's bytes are carried as they are: text in any encoding, types that others do not know and
the maker's notes come out as they went in. Plain Python: no codec.
"""

import io
import os
import struct
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import IO, BinaryIO, Final

__all__ = [
    "ASCII",
    "BYTE",
    "LONG",
    "LONG8",
    "RATIONAL",
    "SHORT",
    "UNDEFINED",
    "Directory",
    "Entry",
    "Exif",
    "built",
    "entry",
    "exif_at",
    "exif_block",
    "lost_tags",
    "numbers",
    "parsed_exif",
    "swapped",
]

BYTE: Final = 1
"""The type of unsigned bytes."""

ASCII: Final = 2
"""The type of text that ends with a zero."""

SHORT: Final = 3
"""The type of unsigned numbers of 16 bits."""

LONG: Final = 4
"""The type of unsigned numbers of 32 bits."""

RATIONAL: Final = 5
"""The type of pairs of LONG: numerator and denominator."""

UNDEFINED: Final = 7
"""The type of bytes that nobody but their reader understands."""

LONG8: Final = 16
"""The type of unsigned numbers of 64 bits, in BigTIFF alone."""

_NUMBERS: Final = {1: "B", 2: "B", 3: "H", 4: "I", 5: "I", 6: "b", 7: "B", 8: "h", 9: "i", 10: "i"}
_NUMBERS.update({11: "f", 12: "d", 13: "I", 16: "Q", 17: "q", 18: "Q", 129: "B"})
"""Types, and the numbers that their values are made of; 129 is EXIF 3.0's UTF-8."""

_PAIRS: Final = {5, 10}
"""Types whose values are two numbers."""

_MAGIC: Final = {b"II*\0": "<", b"MM\0*": ">"}
"""How a TIFF or EXIF block of either byte order begins."""

_PREFIX: Final = b"Exif\0\0"

_EXIF_START: Final = 8
"""Where the first directory of a written block begins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """The value of a tag."""

    kind: int
    """The type, as TIFF counts them."""

    data: bytes
    """The values one after the other, in the byte order of what the entry belongs to."""

    @property
    def count(self) -> int:
        """How many values there are."""
        return len(self.data) // _size(self.kind)


Directory = dict[int, Entry]
"""Tags and their values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exif:
    """A first directory and those that it points at."""

    order: str
    """The byte order as :mod:`struct` writes it: ``<`` or ``>``."""

    main: Directory
    """The first directory, without the pointers at the others."""

    parts: dict[int, Directory] = field(default_factory=dict)
    """The other directories by the tags that point at them."""


def _size(kind: int) -> int:
    """Bytes of one value."""
    return struct.calcsize(f"={_NUMBERS[kind]}") * (2 if kind in _PAIRS else 1)


def entry(order: str, kind: int, *values: float) -> Entry:
    """Make an entry of numbers; of a rational, numerators and denominators in turn."""
    return Entry(kind=kind, data=struct.pack(f"{order}{len(values)}{_NUMBERS[kind]}", *values))


def numbers(order: str, value: Entry) -> tuple[int, ...]:
    """Take an entry of numbers apart; of a rational, numerators and denominators in turn."""
    return tuple(
        number for (number,) in struct.iter_unpack(order + _NUMBERS[value.kind], value.data)
    )


def swapped(directory: Directory) -> Directory:
    """Turn the values of a directory into the other byte order."""
    return {
        tag: Entry(kind=value.kind, data=_swapped(value.data, _NUMBERS[value.kind]))
        for tag, value in directory.items()
    }


def _swapped(data: bytes, number: str) -> bytes:
    side = struct.calcsize(f"={number}")
    return b"".join(data[at : at + side][::-1] for at in range(0, len(data), side))


# ---- reading ------------------------------------------------------------------------------


def parsed_exif(block: bytes, parts: Collection[int]) -> Exif:
    r"""Take an EXIF block apart.

    Args:
        block: As files hold it, with or without ``Exif\0\0`` before it.
        parts: Tags that point at further directories.

    Returns:
        What could be read: entries that reach beyond the end are left out.

    Raises:
        ValueError: If it does not begin as a block does.
    """
    while block.startswith(_PREFIX):
        block = block.removeprefix(_PREFIX)
    stream = io.BytesIO(block)
    return exif_at(stream, 0, parts)


def exif_at(stream: BinaryIO, frame: int, parts: Collection[int]) -> Exif:
    """Read a directory of a TIFF file, and those that it points at.

    Args:
        stream: A TIFF, BigTIFF or EXIF block, from its beginning.
        frame: Which of the directories that follow one another, from 0.
        parts: Tags that point at further directories.

    Returns:
        What could be read: entries that reach beyond the end are left out.

    Raises:
        ValueError: If the stream is no TIFF, or has fewer directories.
    """
    reader, where = _reader(stream)
    order = reader.order
    for _ in range(frame):
        where = reader.following(where)
    main = reader.directory(where)
    pointers = {tag: main.pop(tag) for tag in parts if tag in main}
    found = {
        tag: reader.directory(numbers(order, pointer)[0])
        for tag, pointer in pointers.items()
        if pointer.kind in {LONG, 13, LONG8, 18} and pointer.count == 1
    }
    return Exif(order=order, main=main, parts={tag: each for tag, each in found.items() if each})


def lost_tags(stream: IO[bytes], where: int) -> frozenset[int]:
    """Find the tags of a directory whose values lie behind the end of the file.

    Args:
        stream: A TIFF or BigTIFF, from its beginning; its position is kept.
        where: The place of the directory.

    Raises:
        OSError: If the directory itself does not end before the file.
        ValueError: If the stream is no TIFF.
    """
    position = stream.tell()
    try:
        return _reader(stream)[0].lost(where)
    finally:
        stream.seek(position)


def _reader(stream: IO[bytes]) -> tuple["_Reader", int]:
    """Make a reader for a stream, and tell where its first directory is."""
    stream.seek(0)
    head = stream.read(16)
    big = head[2:4] in {b"+\0", b"\0+"}
    order = _MAGIC.get(head[:4].replace(b"+", b"*"))
    if order is None or len(head) < (16 if big else 8):
        raise ValueError("no TIFF and no EXIF")
    where = int(struct.unpack_from(f"{order}{'Q' if big else 'I'}", head, 8 if big else 4)[0])
    return _Reader(stream, order, big=big), where


class _Reader:
    """Reads directories of one byte order and width, and no more bytes than the stream has."""

    def __init__(self, stream: IO[bytes], order: str, *, big: bool) -> None:
        self._stream = stream
        self.order = order
        self._count, self._entry, self._offset = ("Q", "HHQ8s", "Q") if big else ("H", "HHI4s", "I")
        self._end = stream.seek(0, os.SEEK_END)
        # What a file of entries that all point at the same large value could make us hold.
        self._left = self._end

    def _unpacked(self, layout: str) -> tuple[int, ...] | None:
        data = self._stream.read(struct.calcsize(f"={layout}"))
        full = len(data) == struct.calcsize(f"={layout}")
        return struct.unpack(self.order + layout, data) if full else None

    def following(self, where: int) -> int:
        """Tell where the directory after this one begins."""
        self._stream.seek(where)
        count = self._unpacked(self._count)
        if where and count is not None:
            self._stream.seek(count[0] * struct.calcsize(f"={self._entry}"), os.SEEK_CUR)
            if (found := self._unpacked(self._offset)) is not None:
                return found[0]
        raise ValueError("fewer directories than asked for")

    def _entries(self, where: int) -> tuple[list[tuple[int, ...]], bool]:
        """Read the entries of a directory as far as it goes, and tell whether it is whole."""
        self._stream.seek(where)
        count = self._unpacked(self._count)
        found: list[tuple[int, ...]] = []
        for _ in range(count[0] if count is not None else 0):
            if (fields := self._unpacked(self._entry)) is None:
                return found, False
            found.append(fields)
        return found, count is not None

    def lost(self, where: int) -> frozenset[int]:
        """Find the tags whose values lie behind the end."""
        entries, whole = self._entries(where)
        if not whole:
            raise OSError("truncated directory")
        return frozenset(tag for tag, *value in entries if self._is_lost(*value))

    def _is_lost(self, kind: int, count: int, inline: int) -> bool:
        packed: bytes = inline  # type: ignore[assignment]
        size = count * _size(kind) if kind in _NUMBERS else 0
        offset = struct.unpack(self.order + self._offset, packed)[0]
        return size > len(packed) and bool(offset + size > self._end)

    def directory(self, where: int) -> Directory:
        """Read a directory as far as it goes."""
        found: Directory = {}
        for tag, kind, length, inline in self._entries(where)[0]:
            data = self._data(kind, length, inline)  # type: ignore[arg-type]
            if data and tag not in found:
                found[tag] = Entry(kind=kind, data=data)
        return found

    def _data(self, kind: int, count: int, inline: bytes) -> bytes | None:
        size = count * _size(kind) if kind in _NUMBERS else 0
        if size <= len(inline):
            return inline[:size]
        if size > self._left:
            return None
        self._left -= size
        self._stream.seek(struct.unpack(self.order + self._offset, inline)[0])
        data = self._stream.read(size)
        return data if len(data) == size else None


# ---- writing ------------------------------------------------------------------------------


def built(directory: Directory, start: int, order: str, *, big: bool = False) -> bytes:
    """Put a directory into bytes, its longer values behind it; no other follows it.

    Args:
        directory: Tags and values, in the byte order ``order``.
        start: Where in the file the result is going to stand: an even number.
        order: The byte order, ``<`` or ``>``.
        big: Whether the file is a BigTIFF.

    Returns:
        An even number of bytes.
    """
    count, offset, room = ("Q", "Q", 8) if big else ("H", "I", 4)
    head = struct.pack(order + count, len(directory))
    behind = start + len(head) + len(directory) * (4 + 2 * room) + room
    values = bytearray()
    for tag, value in sorted(directory.items()):
        inline = value.data.ljust(room, b"\0")
        if len(value.data) > room:
            inline = struct.pack(order + offset, behind + len(values))
            values += value.data + b"\0" * (len(value.data) % 2)
        head += struct.pack(f"{order}HH{offset}", tag, value.kind, value.count) + inline
    return head + b"\0" * room + b"\0" * (behind % 2) + bytes(values)


def exif_block(exif: Exif) -> bytes:
    r"""Put directories into an EXIF block that begins with ``Exif\0\0``."""
    places: dict[int, int] = {}
    pointers = {tag: entry(exif.order, LONG, 0) for tag in exif.parts}
    where = _EXIF_START + len(built(exif.main | pointers, _EXIF_START, exif.order))
    behind = b""
    for tag, part in sorted(exif.parts.items()):
        places[tag] = where + len(behind)
        behind += built(part, places[tag], exif.order)
    pointers = {tag: entry(exif.order, LONG, place) for tag, place in places.items()}
    magic = next(magic for magic, order in _MAGIC.items() if order == exif.order)
    head = magic + struct.pack(f"{exif.order}I", _EXIF_START)
    return _PREFIX + head + built(exif.main | pointers, _EXIF_START, exif.order) + behind
