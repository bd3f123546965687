"""EXIF blocks: values changed where they stand, so that no offset in a maker's note goes wrong.

A block is a small TIFF (TIFF Revision 6.0, section 2; Exif 3.0, section 4.6). Only where it must
become shorter, or part of a TIFF, is it laid out anew; then without the maker's note.
"""

import io
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
from srcli.imaging.pictures import Picture

__all__ = [
    "DAMAGED",
    "block_of",
    "directories_of",
    "fitted_exif",
    "has_maker_note",
    "resolution_tags",
    "shortened",
    "turned",
    "with_resolution",
    "without_location",
]

_PREFIX: Final = b"Exif\0\0"
_MAKER_NOTE: Final = 0x927C
_ORIENTATION, _COLOUR_SPACE, _INTEROP_INDEX = 0x112, 0xA001, 1
_WIDTHS: Final = frozenset({(MAIN, 0x100), (EXIF, 0xA002), (INTEROP, 0x1001)})
_HEIGHTS: Final = frozenset({(MAIN, 0x101), (EXIF, 0xA003), (INTEROP, 0x1002)})
_DENSITIES: Final = frozenset({0xA20E, 0xA20F})
"""FocalPlaneXResolution and its Y: pixels per unit of the sensor."""

_PLACES: Final = frozenset({0x9214, 0xA214})
"""SubjectArea and SubjectLocation: pixels across and down, then a diameter or two sides."""

_RESOLUTION: Final = (0x11A, 0x11B, 0x128)
_THUMBNAIL: Final = (0x201, 0x202)
_INLINE: Final = 4
"""Bytes of a value that stands in its entry itself."""

_SIDES: Final = frozenset({0x100, 0x101})
_STORAGE: Final = frozenset(
    {0xFE, 0xFF, 0x102, 0x103, 0x106, 0x10A, 0x111, 0x115, 0x116, 0x117, 0x11C, 0x120, 0x121}
    | {0x122, 0x123, 0x12D, 0x13D, 0x13E, 0x13F, 0x140, 0x142, 0x143, 0x144, 0x145, 0x14A, 0x152}
    | {0x153, 0x154, 0x155, 0x15B, *range(0x200, 0x215), 0x2BC, 0x83BB, 0x8649, 0x8773}
)
"""Tags of a first directory that say how its own file was stored, or hold XMP, IPTC, a profile."""

DAMAGED: Final = "EXIF is damaged: dropped"
_PARTLY: Final = "EXIF is damaged: values that lie outside of it dropped"


def directories_of(
    stream: BinaryIO, place: int | None = None, *, order: str | None = None
) -> tuple[dict[int, Directory], str]:
    """Load what describes a picture, without what was true of the old file alone.

    Args:
        stream: A TIFF, or an EXIF block without its name; it can be sought.
        place: Where the directory is; None: the first one.
        order: The byte order to load values in, ``<`` or ``>``; None: their own.

    Returns:
        Directories by the tags that point at them, 0 for the first, without maker's notes,
        damaged entries and empty directories; and their byte order.

    Raises:
        ValueError: If it cannot be understood.
    """
    layout, first = first_of(stream)
    found, bad = walk(stream, layout, first if place is None else place)
    left_out, lost = {*_STORAGE, *_SIDES, *PARENTS, _MAKER_NOTE}, {each.place for each in bad}
    result = {}
    for number, entries in found.items():
        kept = [each for each in entries if each.place not in lost and each.tag not in left_out]
        if values := loaded(stream, layout, kept, order=order):
            result[number] = values
    return result, order or layout.order


def _block(parts: dict[int, Directory], order: str) -> bytes:
    layout = Layout(order, big=False)
    head = struct.pack(f"{order}2sHI", b"II" if order == "<" else b"MM", 42, 8)
    return _PREFIX + head + laid_out({MAIN: {}, **parts}, 8, layout)


def block_of(stream: BinaryIO, place: int) -> bytes | None:
    """Make an EXIF block of what a directory of a TIFF says about its picture.

    Args:
        stream: The TIFF; its position is lost.
        place: Where the directory is.

    Returns:
        A block that begins with ``Exif``, without maker's notes, whose offsets were those of the
        file; None where nothing is left, or nothing can be understood.
    """
    try:
        parts, order = directories_of(stream, place)
        parts = {
            number: {tag: value for tag, value in part.items() if value[0] not in {16, 17, 18}}
            for number, part in parts.items()
        }
        return _block(parts, order) if any(parts.values()) else None
    except (ValueError, OverflowError, OSError, struct.error):
        return None


def resolution_tags(dpi: tuple[float, float], order: str) -> Directory:
    """Make the tags that state a resolution in pixels per inch."""
    sides = (struct.pack(f"{order}II", round(side * 10_000), 10_000) for side in dpi)
    values = ((RATIONAL, next(sides)), (RATIONAL, next(sides)))
    return dict(zip(_RESOLUTION, (*values, (SHORT, struct.pack(f"{order}H", 2))), strict=True))


def with_resolution(block: bytes | None, dpi: tuple[float, float]) -> bytes:
    """State a resolution in an EXIF block that may be there already, where it says none."""
    if block is None:
        return _block({MAIN: resolution_tags(dpi, "<")}, "<")
    stream = io.BytesIO(block.removeprefix(_PREFIX))
    layout, place = first_of(stream)
    if {*_RESOLUTION[:2]} <= {each.tag for each in entries_at(stream, layout, place, MAIN)}:
        return block
    add_tags(stream, None, {MAIN: resolution_tags(dpi, layout.order)})
    return _PREFIX + stream.getvalue()


def shortened(block: bytes, most: int) -> tuple[bytes | None, tuple[str, ...]]:
    """Leave out the largest values of a block, maker's notes first, until the rest fits.

    Args:
        block: A sound block.
        most: Bytes that it may have.

    Returns:
        The block, None where nothing fits, and the names of what was left out.
    """
    parts, order = directories_of(io.BytesIO(block.removeprefix(_PREFIX)))
    names = ["maker's notes"] if has_maker_note(block) else []
    values = [
        (len(data) if len(data) > _INLINE else 0, number, tag)
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


def has_maker_note(block: bytes) -> bool:
    """Whether a sound EXIF block holds what only its camera's maker understands."""
    stream = io.BytesIO(block.removeprefix(_PREFIX))
    found, _ = walk(stream, *first_of(stream))
    return any(each.tag == _MAKER_NOTE for each in found.get(EXIF, []))


# ---- changing in place --------------------------------------------------------------------


def turned(x: float, y: float, orientation: int) -> tuple[float, float]:
    """Find where a point of a stored picture comes to lie upright, in parts of its sides."""
    if orientation >= 5:
        x, y = y, x
    return (
        1 - x if orientation in {2, 3, 6, 7} else x,
        1 - y if orientation in {3, 4, 7, 8} else y,
    )


def fitted_exif(picture: Picture, *, upright: bool = True) -> tuple[bytes | None, tuple[str, ...]]:
    """Change in a picture's EXIF what speaks of its pixels, where it stands.

    The orientation becomes 1, sizes and places follow the picture, the thumbnail goes.

    Args:
        picture: What is going to be written.
        upright: Whether to say that it stands upright; else no orientation is left.

    Returns:
        The block, or None where there is none; and what was lost, a line each.
    """
    block = picture.metadata.exif
    if block is None:
        return None, ()
    try:
        data, notes = _patched(bytearray(block.removeprefix(_PREFIX)), picture, upright=upright)
    except (ValueError, OverflowError, struct.error):
        return None, (DAMAGED,)
    return (_PREFIX + bytes(data) if data else None), notes


def _patched(
    data: bytearray, picture: Picture, *, upright: bool
) -> tuple[bytearray, tuple[str, ...]]:
    stream = io.BytesIO(data)
    layout, first = first_of(stream)
    if layout.big:
        raise ValueError("a BigTIFF is no EXIF")
    found, bad = walk(stream, layout, first)
    notes = [_PARTLY] if bad else []
    gone = {*(each.place for each in bad)}
    left_out = _STORAGE if upright else _STORAGE | {_ORIENTATION}
    gone |= {each.place for each in found[MAIN] if each.tag in left_out}
    for entry in [each for part in found.values() for each in part if each.place not in gone]:
        if not _followed(data, layout, entry, picture):
            gone.add(entry.place)
            notes.append(f"EXIF {ExifTags.TAGS[entry.tag]} cannot follow the new size: dropped")
    if picture.metadata.icc_profile is None:
        _say_srgb(data, layout, found)
    _drop_thumbnail(data, layout, first + layout.first + len(found[MAIN]) * layout.step, found)
    left = {each.tag for part in found.values() for each in part if each.place not in gone}
    for entries in found.values():
        _take_out(data, layout, entries, gone)
    return data if left - PARENTS.keys() else bytearray(), tuple(dict.fromkeys(notes))


def _followed(data: bytearray, layout: Layout, entry: Entry, picture: Picture) -> bool:
    """Change a value that speaks of pixels; False where that cannot be done."""
    if (entry.directory, entry.tag) == (MAIN, _ORIENTATION):
        _put(data, layout, entry, 1)
    elif (entry.directory, entry.tag) in _WIDTHS:
        _put(data, layout, entry, picture.width)
    elif (entry.directory, entry.tag) in _HEIGHTS:
        _put(data, layout, entry, picture.height)
    elif entry.directory == EXIF and entry.tag in _PLACES:
        return _follow_place(data, layout, entry, picture)
    elif entry.directory == EXIF and entry.tag in _DENSITIES:
        return _follow_density(data, layout, entry, picture)
    return True


def _put(data: bytearray, layout: Layout, entry: Entry, value: int) -> None:
    """Write one number into an entry itself."""
    kind = SHORT if entry.kind == SHORT and value < 1 << 16 else LONG
    code = "HI2sxx" if kind == SHORT else "HI4s"
    number = struct.pack(f"{layout.order}{'H' if kind == SHORT else 'I'}", value)
    struct.pack_into(f"{layout.order}{code}", data, entry.place + 2, kind, 1, number)


def _follow_density(data: bytearray, layout: Layout, entry: Entry, picture: Picture) -> bool:
    size = picture.metadata.size
    if size is None or (entry.kind, entry.count) != (RATIONAL, 1):
        return False
    over, under = map(int, struct.unpack_from(f"{layout.order}II", data, entry.start))
    across = entry.tag == min(_DENSITIES)
    ratio = picture.width / size[0] if across else picture.height / size[1]
    while round(over * ratio) >= 1 << 32:
        over, under = over // 2, under // 2
    struct.pack_into(f"{layout.order}II", data, entry.start, round(over * ratio), under)
    return under > 0


def _follow_place(data: bytearray, layout: Layout, entry: Entry, picture: Picture) -> bool:
    """Scale and turn SubjectArea or SubjectLocation."""
    size, orientation = picture.metadata.size, picture.metadata.orientation
    if size is None or entry.kind != SHORT or entry.count not in {2, 3, 4}:
        return False
    width, height = size if orientation < 5 else size[::-1]
    code = f"{layout.order}{entry.count}H"
    x, y, *extent = struct.unpack_from(code, data, entry.start)
    across, down = turned(x / width, y / height, orientation)
    if len(extent) == 2 and orientation >= 5:
        extent.reverse()
    ratios = (picture.width / size[0], picture.height / size[1])
    values = [across * picture.width, down * picture.height]
    values += [side * ratio for side, ratio in zip(extent, ratios, strict=False)]
    if not all(0 <= round(value) < 1 << 16 for value in values):
        return False
    struct.pack_into(code, data, entry.start, *map(round, values))
    return True


def _say_srgb(data: bytearray, layout: Layout, found: dict[int, list[Entry]]) -> None:
    """Take back the claim of Adobe RGB (DCF 2.0): colours without a profile are sRGB."""
    index = [e for e in found.get(INTEROP, []) if e.tag == _INTEROP_INDEX and e.size == 4]
    adobe = [each for each in index if data[each.start : each.start + 3] == b"R03"]
    for entry in found.get(EXIF, []):
        if entry.tag == _COLOUR_SPACE and entry.kind == SHORT:
            (space,) = struct.unpack_from(f"{layout.order}H", data, entry.start)
            if space == 2 or adobe:
                _put(data, layout, entry, 1)
    for entry in adobe:
        data[entry.start : entry.start + 3] = b"R98"


def _drop_thumbnail(
    data: bytearray, layout: Layout, link: int, found: dict[int, list[Entry]]
) -> None:
    """Unlink the second directory, and cut or blank the picture that it points at."""
    (place,) = struct.unpack_from(layout.offset, data, link)
    struct.pack_into(layout.offset, data, link, 0)
    if not place:
        return
    try:
        stream = io.BytesIO(data)
        entries = {each.tag: each for each in entries_at(stream, layout, place, MAIN)}
        start, size = (
            struct.unpack_from(layout.offset, data, entries[tag].start)[0] for tag in _THUMBNAIL
        )
    except (ValueError, OverflowError, KeyError, struct.error):
        return
    taken = [(each.start, each.start + each.size) for part in found.values() for each in part]
    taken += [
        (e.place, e.place + layout.step + layout.room) for part in found.values() for e in part
    ]
    if start < 8 or any(begin < start + size and start < end for begin, end in taken):
        return
    if start + size >= len(data):
        del data[start:]
    else:
        data[start : start + size] = bytes(size)


def _take_out(data: bytearray, layout: Layout, entries: list[Entry], gone: Collection[int]) -> None:
    """Take entries out of their directory: the later ones move up, values stay where they are."""
    kept = [each.place for each in entries if each.place not in gone]
    if len(kept) == len(entries):
        return
    start = entries[0].place
    end = start + len(entries) * layout.step + layout.room
    table = b"".join(data[place : place + layout.step] for place in kept)
    table += data[end - layout.room : end]
    data[start:end] = table.ljust(end - start, b"\0")
    struct.pack_into(layout.counting, data, start - layout.first, len(kept))


def without_location(block: bytes) -> bytes | None:
    """Take the GPS directory out of an EXIF block, and blank what it held.

    Args:
        block: A block that begins with ``Exif``.

    Returns:
        The block; None where it cannot be understood, for then it may hold anything.
    """
    data = bytearray(block.removeprefix(_PREFIX))
    try:
        layout, place = first_of(stream := io.BytesIO(data))
        found, bad = walk(stream, layout, place)
    except (ValueError, OverflowError, struct.error):
        return None
    lost = {each.place for each in bad}
    for entry in [each for each in found.get(GPS, []) if each.place not in lost]:
        if entry.size:
            data[entry.start : entry.start + entry.size] = bytes(entry.size)
    if places := found.get(GPS):
        start = places[0].place
        data[start - layout.first : start + len(places) * layout.step] = bytes(
            layout.first + len(places) * layout.step
        )
    pointers = {each.place for each in found[MAIN] if each.tag == GPS}
    _take_out(data, layout, found[MAIN], pointers)
    return _PREFIX + bytes(data)
