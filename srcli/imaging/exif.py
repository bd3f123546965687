"""EXIF blocks: values changed where they stand, so that no offset in a maker's note goes wrong.

A block is a small TIFF (TIFF Revision 6.0, section 2; Exif 3.0, section 4.6). Only where it must
become shorter, or part of a TIFF, is it laid out anew; then without the maker's note.
"""

import io
import re
import struct
from collections.abc import Collection
from typing import BinaryIO, Final

from PIL import ExifTags

from srcli.imaging.ifd import (
    EXIF,
    GPS,
    INTEROP,
    LONG,
    MAIN,
    PARENTS,
    RATIONAL,
    SHORT,
    Directory,
    Entry,
    Layout,
    add_tags,
    entries_at,
    first_of,
    laid_out,
    loaded,
    walk,
)
from srcli.imaging.pictures import Picture, turned_point, upright_size

PREFIX: Final = b"Exif\0\0"
_MAKER_NOTE: Final = 0x927C
_ORIENTATION, _COLOUR_SPACE, _INTEROP_INDEX = 0x112, 0xA001, 1
_SIDES: Final = {
    **dict.fromkeys(((MAIN, 0x100), (EXIF, 0xA002), (INTEROP, 0x1001)), "width"),
    **dict.fromkeys(((MAIN, 0x101), (EXIF, 0xA003), (INTEROP, 0x1002)), "height"),
}
"""Directories and tags that state a side of the picture."""

_DENSITIES: Final = (0xA20E, 0xA20F)
"""FocalPlaneXResolution and its Y: pixels per unit of the sensor."""

_PLACES: Final = (0x9214, 0xA214)
"""SubjectArea and SubjectLocation: pixels across and down, then a diameter or two sides."""

_OF_THE_EARTH: Final = frozenset({33550, 33922, 34264})
"""Tags of GeoTIFF that say where pixels lie on the earth."""

_DESCRIPTION: Final = 0x10E
_OF_MICROSCOPES: Final = re.compile(
    rb'<OME[\s>]|^\{"shape":|^ImageJ=(?s:.*)(unit|spacing)=|^Aperio'
)
"""Descriptions that state sizes in pixels, or how large one is."""

RESOLUTION: Final = (0x11A, 0x11B, 0x128)
_PACKETS: Final = (0x2BC, 0x83BB, 0x8649)
"""XMP, IPTC and resources of Photoshop, which may name a place."""

_STORAGE: Final = frozenset(
    {0xFE, 0xFF, 0x102, 0x103, 0x106, 0x10A, 0x111, 0x115, 0x116, 0x117, 0x118, 0x119, 0x11C}
    | {*range(0x120, 0x126), 0x12D, 0x13D, *range(0x140, 0x149), 0x14A, *range(0x14C, 0x157)}
    | {0x15A, 0x15B, *range(0x200, 0x215), 0x2BC, *range(0x80E3, 0x80E7), 0x83BB, 0x8649, 0x8773}
    | {0x935C, 0xC44F, 0xCD41}
)
"""Tags of a first directory that say how its own file was stored, such as its inks, or hold XMP,
IPTC, a profile, content credentials, or what is Photoshop's: settings, layers, annotations."""

DAMAGED: Final = "EXIF is damaged: dropped"
_PARTLY: Final = "EXIF is damaged: values that lie outside of it dropped"


def directories_of(
    stream: BinaryIO, place: int | None = None, *, order: str | None = None
) -> tuple[dict[int, Directory], str, bool]:
    """Load what describes a picture, without what was true of the old file alone.

    Args:
        stream: A TIFF, or an EXIF block without its name; ValueError if it cannot be understood.
        place: Where the directory is; None: the first one.
        order: The byte order to load values in, ``<`` or ``>``; None: their own.

    Returns:
        Directories by the tags that point at them, 0 for the first, without maker's notes and
        damaged entries; their byte order; whether there is such a note.
    """
    layout, first = first_of(stream)
    found, bad = walk(stream, layout, first if place is None else place)
    left_out, lost = {*_STORAGE, 0x100, 0x101, *PARENTS, _MAKER_NOTE}, {each.place for each in bad}
    result = {}
    for number, entries in found.items():
        kept = [each for each in entries if each.place not in lost and each.tag not in left_out]
        if values := loaded(stream, layout, kept, order=order):
            result[number] = values
    noted = any(each.tag == _MAKER_NOTE for each in found.get(EXIF, found[MAIN]))
    return result, order or layout.order, noted


def _block(parts: dict[int, Directory], order: str) -> bytes:
    layout = Layout(order, big=False)
    head = struct.pack(f"{order}2sHI", b"II" if order == "<" else b"MM", 42, 8)
    return PREFIX + head + laid_out({MAIN: {}, **parts}, 8, layout)


def block_of(stream: BinaryIO, place: int) -> tuple[bytes | None, bool]:
    """Make an EXIF block of what a directory of a TIFF says about its picture, if anything.

    Second comes whether a maker's note, whose offsets were those of the file, is left out.
    """
    try:
        parts, order, noted = directories_of(stream, place)
        for number, part in parts.items():
            parts[number] = {tag: each for tag, each in part.items() if each[0] not in {16, 17, 18}}
        return _block(parts, order) if any(parts.values()) else None, noted
    except (ValueError, OverflowError, OSError, struct.error):
        return None, False


def resolution_tags(dpi: tuple[float, float], order: str) -> Directory:
    """Make the tags that state a resolution in pixels per inch."""
    across, down = (struct.pack(f"{order}II", round(side * 10_000), 10_000) for side in dpi)
    values = (RATIONAL, across), (RATIONAL, down), (SHORT, struct.pack(f"{order}H", 2))
    return dict(zip(RESOLUTION, values, strict=True))


def with_resolution(block: bytes | None, dpi: tuple[float, float]) -> bytes:
    """State a resolution in an EXIF block that may be there already, where it says none."""
    if block is None:
        return _block({MAIN: resolution_tags(dpi, "<")}, "<")
    stream = io.BytesIO(block.removeprefix(PREFIX))
    layout, place = first_of(stream)
    if {*RESOLUTION[:2]} <= {each.tag for each in entries_at(stream, layout, place, MAIN)}:
        return block
    add_tags(stream, None, {MAIN: resolution_tags(dpi, layout.order)})
    return PREFIX + stream.getvalue()


def shortened(block: bytes, most: int) -> tuple[bytes | None, tuple[str, ...]]:
    """Leave out the largest values of a sound block, maker's notes first; give their names too."""
    parts, order, noted = directories_of(io.BytesIO(block.removeprefix(PREFIX)))
    names = ["maker's notes"] if noted else []
    values = [
        (len(data) if len(data) > 4 else 0, number, tag)  # or it stands in its entry itself
        for number, part in parts.items()
        for tag, (_, data) in part.items()
    ]
    length = len(_block(parts, order))
    for size, number, tag in sorted(values, reverse=True):
        if length <= most:
            break
        length -= size + size % 2
        del parts[number][tag]
        known = ExifTags.GPSTAGS if number == GPS else ExifTags.TAGS
        names.append(known.get(tag, f"tag {tag}"))
    short = _block({number: part for number, part in parts.items() if part}, order)
    return short if len(short) <= most and any(parts.values()) else None, tuple(names)


# ---- changing in place --------------------------------------------------------------------


class _Block:
    """A block whose values are changed where they stand."""

    def __init__(self, block: bytes) -> None:
        """Find its values; ValueError, OverflowError or struct.error if it is none."""
        self.data = bytearray(block.removeprefix(PREFIX))
        stream = io.BytesIO(self.data)
        self.layout, self.first = first_of(stream)
        if self.layout.big:
            raise ValueError("a BigTIFF")
        self.found, bad = walk(stream, self.layout, self.first)
        self.bad = {each.place for each in bad}

    def unpack(self, code: str, place: int) -> tuple[int, ...]:
        return struct.unpack_from(self.layout.order + code, self.data, place)

    def pack(self, code: str, place: int, *values: object) -> None:
        struct.pack_into(self.layout.order + code, self.data, place, *values)

    def put(self, entry: Entry, value: int) -> None:
        """Write one number into an entry itself."""
        if entry.kind == SHORT and value < 1 << 16:
            self.pack("HIHxx", entry.place + 2, SHORT, 1, value)
        else:
            self.pack("HII", entry.place + 2, LONG, 1, value)

    def take_out(self, entries: list[Entry], gone: Collection[int]) -> None:
        """Take entries out of their directory: later ones move up, values stay where they are."""
        kept = [each.place for each in entries if each.place not in gone]
        if len(kept) == len(entries):
            return
        start, step, room = entries[0].place, self.layout.step, self.layout.room
        end = start + len(entries) * step + room
        table = b"".join(self.data[place : place + step] for place in kept)
        self.data[start:end] = (table + self.data[end - room : end]).ljust(end - start, b"\0")
        struct.pack_into(self.layout.counting, self.data, start - self.layout.first, len(kept))

    def follow(self, entry: Entry, picture: Picture) -> bool:
        """Change a value that speaks of pixels; False where that cannot be done."""
        where = (entry.directory, entry.tag)
        if where == (MAIN, _ORIENTATION):
            self.put(entry, 1)
        elif where in _SIDES:
            self.put(entry, getattr(picture, _SIDES[where]))
        elif where == (MAIN, _DESCRIPTION):
            words = self.data[entry.start : entry.start + entry.size]
            return _OF_MICROSCOPES.search(words) is None
        elif entry.directory == EXIF and entry.tag in {*_PLACES, *_DENSITIES}:
            return self._scale(entry, picture)
        return entry.directory != MAIN or entry.tag not in _OF_THE_EARTH

    def _scale(self, entry: Entry, picture: Picture) -> bool:
        """Scale a density, or scale and turn SubjectArea or SubjectLocation."""
        orientation, size = picture.metadata.orientation, picture.metadata.size
        size = size or (picture.width, picture.height)
        across, down = picture.width / size[0], picture.height / size[1]
        if (entry.kind, entry.count) == (RATIONAL, 1) and entry.tag in _DENSITIES:
            code, most = "II", 1 << 32
            over, under = self.unpack(code, entry.start)
            values = [over * (across if entry.tag == _DENSITIES[0] else down), under]
            fits = under > 0
        elif entry.kind == SHORT and entry.count in {2, 3, 4} and entry.tag in _PLACES:
            code, most, fits = f"{entry.count}H", 1 << 16, True
            x, y, *extent = self.unpack(code, entry.start)
            width, height = upright_size(size, orientation)  # as it was stored
            left, top = turned_point(x / width, y / height, orientation)
            if len(extent) == 2 and orientation >= 5:
                extent.reverse()
            values = [left * picture.width, top * picture.height]
            values += [side * ratio for side, ratio in zip(extent, (across, down), strict=False)]
        else:
            return False
        if fits := fits and all(0 <= round(value) < most for value in values):
            self.pack(code, entry.start, *map(round, values))
        return fits

    def say_srgb(self) -> None:
        """Take back the claim of Adobe RGB (DCF 2.0): colours without a profile are sRGB."""
        index = [e for e in self.found.get(INTEROP, []) if e.tag == _INTEROP_INDEX and e.size == 4]
        adobe = [each for each in index if self.data[each.start : each.start + 3] == b"R03"]
        for entry in self.found.get(EXIF, []):
            is_space = entry.tag == _COLOUR_SPACE and entry.kind == SHORT
            if is_space and (adobe or self.unpack("H", entry.start) == (2,)):
                self.put(entry, 1)
        for entry in adobe:
            self.data[entry.start : entry.start + 3] = b"R98"

    def unlink_thumbnail(self) -> None:
        """Let no directory follow the first one; what it held stays, and nothing leads there."""
        layout = self.layout
        self.pack("I", self.first + layout.first + len(self.found[MAIN]) * layout.step, 0)


def fitted_exif(picture: Picture, *, upright: bool = True) -> tuple[bytes | None, tuple[str, ...]]:
    """Change in a picture's EXIF what speaks of its pixels, where it stands; name what is lost.

    The orientation becomes 1 (``upright``) or goes, sizes and places follow, the thumbnail goes.
    If it is damaged, that is a ValueError, OverflowError or struct.error.
    """
    if picture.metadata.exif is None:
        return None, ()
    block = _Block(picture.metadata.exif)
    found, left_out = block.found, _STORAGE if upright else _STORAGE | {_ORIENTATION}
    notes = [_PARTLY] if block.bad else []
    gone = block.bad | {each.place for each in found[MAIN] if each.tag in left_out}
    for entry in [each for part in found.values() for each in part if each.place not in gone]:
        if not block.follow(entry, picture):
            gone.add(entry.place)
            name = ExifTags.TAGS.get(entry.tag, f"tag {entry.tag}")
            notes.append(f"EXIF {name} cannot follow the new size: dropped")
    if picture.metadata.icc_profile is None:
        block.say_srgb()
    block.unlink_thumbnail()
    for entries in found.values():
        block.take_out(entries, gone)
    left = {each.tag for part in found.values() for each in part if each.place not in gone}
    _Block(bytes(block.data))  # values that lie in one another may have spoilt it
    whole = PREFIX + bytes(block.data) if left - PARENTS.keys() else None
    return whole, tuple(dict.fromkeys(notes))


def without_location(block: bytes) -> bytes | None:
    """Take the GPS directory out of an EXIF block, and blank what it and XMP or IPTC there held.

    None where it cannot be understood, for then it may hold anything.
    """
    try:
        found = _Block(block)
    except (ValueError, OverflowError, struct.error):
        return None
    places, layout = found.found.get(GPS, []), found.layout
    for entry in [*places, *(each for each in found.found[MAIN] if each.tag in _PACKETS)]:
        if entry.place not in found.bad:
            found.data[entry.start : entry.start + entry.size] = bytes(entry.size)
    if places:
        start, length = places[0].place - layout.first, len(places) * layout.step + layout.first
        found.data[start : start + length] = bytes(length)
    pointers = {each.place for each in found.found[MAIN] if each.tag == GPS}
    found.take_out(found.found[MAIN], pointers)
    return PREFIX + bytes(found.data)
