"""Directories of tags in EXIF blocks and TIFF files: where each value stands, and new ones.

TIFF Revision 6.0 (Adobe, 1992), section 2; BigTIFF as libtiff has it. Values are carried as bytes,
so that text in any encoding and types that others do not know come out as they went in.
"""

import io
import struct
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from typing import BinaryIO, Final

Directory = dict[int, tuple[int, bytes]]
"""Tags, each with its type and the bytes of its value."""

MAIN: Final = 0
EXIF, GPS, INTEROP = 0x8769, 0x8825, 0xA005
PARENTS: Final = {EXIF: MAIN, GPS: MAIN, INTEROP: EXIF}
"""Tags that point at another directory, and the directory that they stand in."""

SHORT, LONG, RATIONAL, UNDEFINED, LONG8 = 3, 4, 5, 7, 16
_SIZES: Final = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_SIZES.update({16: 8, 17: 8, 18: 8, 129: 1})
"""Bytes of one value of a type; 16 to 18 are BigTIFF's, 129 is EXIF 3.0's UTF-8."""

_MOST_LOADED: Final = 1 << 26
"""Bytes of values that a sound directory stays far below; overlapping ones could ask for more."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a directory, where it stands."""

    directory: int
    tag: int
    kind: int
    count: int
    place: int
    """Where the entry itself begins."""

    start: int
    """Where its value begins."""

    @property
    def size(self) -> int:
        """Bytes of the value; 0 for a type that is not known."""
        return _SIZES.get(self.kind, 0) * self.count


class Layout:
    """How numbers are stored: either byte order, TIFF or BigTIFF."""

    def __init__(self, order: str, *, big: bool) -> None:
        self.order, self.big = order, big
        self.counting = f"{order}{'Q' if big else 'H'}"
        self.item = f"{order}HH{'Q' if big else 'I'}"
        self.offset = f"{order}{'Q' if big else 'I'}"
        self.room = self.link = 8 if big else 4
        """Bytes of a value that fits into its entry; and, as it happens, where the header says
        where the first directory is."""

        self.step = struct.calcsize(self.item) + self.room
        self.first = struct.calcsize(self.counting)

    def number(self, stream: BinaryIO, place: int, code: str) -> int:
        """Read one number."""
        return int(struct.unpack(code, _read(stream, place, struct.calcsize(code)))[0])


def _read(stream: BinaryIO, place: int, count: int) -> bytes:
    stream.seek(place)
    data = stream.read(count)
    if len(data) != count:
        raise ValueError("it ends too early")
    return data


def layout_of(stream: BinaryIO) -> Layout:
    """Read from the first bytes of a TIFF or EXIF block how its numbers are stored."""
    start = _read(stream, 0, 4)
    for order, marks in {"<": (b"II*\0", b"II+\0"), ">": (b"MM\0*", b"MM\0+")}.items():
        if start in marks:
            return Layout(order, big=start == marks[1])
    raise ValueError("no TIFF header")


def first_of(stream: BinaryIO) -> tuple[Layout, int]:
    """Read how the numbers of a TIFF or EXIF block are stored, and where its first directory is."""
    layout = layout_of(stream)
    return layout, layout.number(stream, layout.link, layout.offset)


def entries_at(stream: BinaryIO, layout: Layout, place: int, directory: int) -> list[Entry]:
    """Read the entries of one directory; ValueError if it is not all there."""
    count = layout.number(stream, place, layout.counting)
    start = place + layout.first
    table = _read(stream, start, count * layout.step + layout.room)
    found = []
    for at in range(0, count * layout.step, layout.step):
        tag, kind, values = struct.unpack_from(layout.item, table, at)
        inline = at + layout.step - layout.room
        value = start + inline
        if _SIZES.get(kind, 0) * values > layout.room:
            (value,) = struct.unpack_from(layout.offset, table, inline)
        found.append(Entry(directory, tag, kind, values, start + at, value))
    return found


def walk(
    stream: BinaryIO, layout: Layout, place: int
) -> tuple[dict[int, list[Entry]], list[Entry]]:
    """Read a directory and those it points at; entries that lead nowhere come second.

    ValueError if the first directory is not all there.
    """
    end = stream.seek(0, io.SEEK_END)
    found = {MAIN: entries_at(stream, layout, place, MAIN)}
    seen, bad = {place}, []
    for pointer, parent in PARENTS.items():
        for entry in [each for each in found.get(parent, []) if each.tag == pointer]:
            try:
                target = layout.number(stream, entry.start, layout.offset)
                entries = entries_at(stream, layout, target, pointer)
            except (ValueError, OverflowError, OSError):
                target = place
            if target in seen:  # nothing is there, or it leads in a circle
                bad.append(entry)
            else:
                found[pointer] = entries
                seen.add(target)
    tables = [(part[0].place, part[-1].place + layout.step) for part in found.values() if part]
    for each in [each for part in found.values() for each in part]:
        # Of what nobody changes, as maker's notes, too long a size does no harm.
        long, behind = each.size > layout.room and each.kind != UNDEFINED, each.start + each.size
        spoils = long and any(each.start < end and start < behind for start, end in tables)
        if spoils or not 8 <= each.start <= end - each.size:
            bad.append(each)
    return found, bad


def loaded(
    stream: BinaryIO, layout: Layout, entries: Iterable[Entry], *, order: str | None = None
) -> Directory:
    """Load values, in another byte order if one is given."""
    found, total = {}, 0
    for entry in entries:
        total += entry.size
        if total > _MOST_LOADED:
            raise ValueError("its values overlap")
        if entry.size:
            data = _read(stream, entry.start, entry.size)
            width = 4 if entry.kind in {RATIONAL, 10} else _SIZES[entry.kind]
            if order not in {None, layout.order} and width > 1:
                numbers = array({2: "H", 4: "I", 8: "Q"}[width], data)
                numbers.byteswap()
                data = numbers.tobytes()
            found[entry.tag] = (entry.kind, data)
    return found


# ---- laying out ---------------------------------------------------------------------------


def _laid(directory: Directory, place: int, layout: Layout, following: int = 0) -> bytes:
    """Lay out one directory and its long values behind it."""
    table, values = struct.pack(layout.counting, len(directory)), bytearray()
    behind = place + layout.first + len(directory) * layout.step + layout.room
    for tag, (kind, data) in sorted(directory.items()):
        table += struct.pack(layout.item, tag, kind, len(data) // _SIZES[kind])
        if len(data) <= layout.room:
            table += data.ljust(layout.room, b"\0")
        else:
            table += struct.pack(layout.offset, behind + len(values))
            values += data + b"\0" * (len(data) % 2)
    return table + struct.pack(layout.offset, following) + bytes(values)


def laid_out(parts: dict[int, Directory], place: int, layout: Layout, following: int = 0) -> bytes:
    """Lay out directories one behind the other, the first one first, and their pointers."""
    kind = LONG8 if layout.big else LONG
    parts = {number: dict(part) for number, part in sorted(parts.items())}
    for number in [each for each in parts if each != MAIN]:
        parts.setdefault(PARENTS[number], {})[number] = (kind, bytes(layout.room))
    parts = {number: parts[number] for number in sorted(parts)}
    end = place
    for number, part in parts.items():
        if number != MAIN:
            parts[PARENTS[number]][number] = (kind, struct.pack(layout.offset, end))
        end += len(_laid(part, 0, layout))
    result = b""
    for number, part in parts.items():
        result += _laid(part, place + len(result), layout, following if number == MAIN else 0)
    return result


def add_tags(stream: BinaryIO, link: int | None, parts: dict[int, Directory]) -> int:
    """Add tags to a directory of a TIFF or an EXIF block; the new one is put at its end.

    ``link`` is where the offset of the directory stands, None: that of the first one. ``parts``
    are what to add to it (0), a tag without bytes being taken out, and directories that it is to
    point at. What is returned is where the offset of the next directory stands.
    """
    layout = layout_of(stream)
    link = layout.link if link is None else link
    place = layout.number(stream, link, layout.offset)
    entries = entries_at(stream, layout, place, MAIN)
    main = loaded(stream, layout, entries) | parts.get(MAIN, {})
    main = {tag: value for tag, value in main.items() if value[1]}
    after = place + layout.first + len(entries) * layout.step
    following = layout.number(stream, after, layout.offset)
    end = stream.seek(0, io.SEEK_END)
    end += stream.write(b"\0" * (end % 2))
    stream.write(laid_out({**parts, MAIN: main}, end, layout, following))
    stream.seek(link)
    stream.write(struct.pack(layout.offset, end))
    pointers = {number for number in parts if PARENTS.get(number) == MAIN}
    return end + layout.first + len(main.keys() | pointers) * layout.step
