"""What a format stores of a picture's metadata: fitted to the pixels, and what was lost named."""

import struct
from dataclasses import replace
from io import BytesIO
from typing import Any, Final

from PIL.PngImagePlugin import PngInfo

from srcli.imaging.colour import hdr_of
from srcli.imaging.exif import (
    DAMAGED,
    PREFIX,
    RESOLUTION,
    directories_of,
    fitted_exif,
    resolution_tags,
    shortened,
    with_resolution,
)
from srcli.imaging.exif import without_location as exif_without_location
from srcli.imaging.formats import FORMATS
from srcli.imaging.ifd import MAIN, Directory
from srcli.imaging.metadata import IPTC_RESOURCE, dpi_of, whole_records
from srcli.imaging.pictures import Metadata, Picture
from srcli.imaging.xmp import fitted_xmp, is_place, split
from srcli.imaging.xmp import without_location as xmp_without_location

_SEGMENT: Final = 65533
"""Bytes that one segment of a JPEG holds."""

_JPEG_MOST: Final = {"comment": _SEGMENT, "iptc": 65506}
"""Of IPTC it holds less, by the names that come before it."""

_XMP_MOST: Final = _SEGMENT - len(b"http://ns.adobe.com/xap/1.0/\0")
_PROFILE, _XMP, _IPTC = 34675, 700, 33723
_BYTE, _UNDEFINED = 1, 7

_WORDS: Final = {"exif": "EXIF", "xmp": "XMP", "iptc": "IPTC"}
_WORDS.update(text="text", comment="comment", dpi="resolution")
"""Fields of metadata, and what messages call them."""

_NOTHING: Final = Metadata()


def pillow_options(found: Metadata, name: str) -> dict[str, Any]:
    """Make the options with which Pillow stores what :func:`embedded` returned in a format."""
    fields = ("icc_profile", "exif", "xmp", "dpi", "comment")
    options: dict[str, Any] = {field: getattr(found, field) for field in fields}
    if name in {"PNG", "WEBP"} and found.exif:
        options["exif"] = found.exif.removeprefix(PREFIX)
    if name == "BMP" and not found.dpi:
        options["dpi"] = (0, 0)  # or Pillow would make up 96
    if name == "JPEG":
        options["xmp"], extension = split(found.xmp or b"", _XMP_MOST) or (None, ())
        options["extra"] = b"".join(map(_segment, extension)) + _iptc_segment(found.iptc)
    if name == "PNG":
        # What says what its colours are, and comes before a profile, Pillow puts in its place.
        colours = [each for each in found.colour_chunks if each[0] != b"iCCP"]
        if colours:  # of which the profile may have been made
            options["icc_profile"] = dict(found.colour_chunks).get(b"iCCP")
        options["pnginfo"] = info = PngInfo()
        for chunk in colours:
            info.add(*chunk)
        if found.xmp:
            info.add(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + found.xmp)
        for key, text in found.text:
            info.add_text(key, text)
    return {key: value for key, value in options.items() if value}


def tiff_tags(found: Metadata, order: str) -> dict[int, Directory]:
    """Make the directories that a page of a TIFF of this byte order is to have."""
    parts: dict[int, Directory] = {}
    if found.exif:
        stream = BytesIO(found.exif.removeprefix(PREFIX))
        parts, *_ = directories_of(stream, order=order)
    main = dict.fromkeys(RESOLUTION, (_BYTE, b"")) | parts.get(MAIN, {})
    if found.dpi and not {*RESOLUTION[:2]} <= parts.get(MAIN, {}).keys():
        main |= resolution_tags(found.dpi, order)
    blocks = {
        _PROFILE: (_UNDEFINED, found.icc_profile),
        _XMP: (_BYTE, found.xmp),
        _IPTC: (_UNDEFINED, found.iptc),
    }
    main |= {tag: (kind, data) for tag, (kind, data) in blocks.items() if data}
    return {**parts, MAIN: main}


def _iptc_segment(records: bytes | None) -> bytes:
    """Wrap IPTC records as Photoshop does (File Formats Specification, Image Resources)."""
    if not records:
        return b""
    head = struct.pack(">4sH2xI", b"8BIM", IPTC_RESOURCE, len(records))
    return _segment(b"Photoshop 3.0\0" + head + records + b"\0" * (len(records) % 2), 0xED)


def _segment(content: bytes, marker: int = 0xE1) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, 2 + len(content)) + content


def holds_profile(picture: Picture, name: str) -> bool:
    """Whether a format stores the profile of a picture: grey becomes RGB in some."""
    profile, grey = picture.metadata.icc_profile, picture.pixels.shape[2] == 1
    as_rgb = name == "WEBP" or (name == "AVIF" and picture.alpha is not None)
    fits = profile is None or profile[16:20] == (b"GRAY" if grey else b"RGB ")
    return "icc_profile" in FORMATS[name].keeps and fits and not (grey and as_rgb)


def embedded(picture: Picture, name: str, notes: dict[str, None]) -> Metadata:
    """Make of the metadata of a picture that is not adapted yet what a format stores of it.

    Sizes and places are those of the pixels; ``notes`` takes what cannot be kept.
    """
    given, keeps = replace(picture.metadata, dpi=dpi_of(picture.metadata.dpi)), FORMATS[name].keeps
    if name == "PNG" and given.comment and all(key != "Comment" for key, _ in given.text):
        comment = _words_of(given.comment)
        given = replace(given, text=(*given.text, ("Comment", comment)))
    lost = {field: f"{name} holds no {word}" for field, word in _WORDS.items()}
    lost = {field: line for field, line in lost.items() if field not in keeps}
    if name == "JPEG":
        for field, most in _JPEG_MOST.items():
            if len(getattr(given, field) or b"") > most:
                lost[field] = f"JPEG holds 64 KiB of {_WORDS[field]}"
    notes |= {f"{line}: dropped": None for field, line in lost.items() if getattr(given, field)}
    given = replace(given, **{field: getattr(_NOTHING, field) for field in lost})
    if given.icc_profile and not holds_profile(picture, name):
        kind = "grey ICC profile" if "icc_profile" in keeps else "ICC profile"
        notes[f"{name} holds no {kind}: converted to sRGB"] = None
        given = replace(given, icc_profile=None, colour_chunks=())
    if name != "PNG" and given.icc_profile is None and (hdr := hdr_of(given.colour_chunks)):
        notes[f"HDR ({hdr}) is kept in a PNG alone: elsewhere it looks flat"] = None
    picture = replace(picture, metadata=given)
    exif = _exif(picture, name, notes)
    packet, lines = fitted_xmp(picture)
    if name == "JPEG" and packet and split(packet, _XMP_MOST) is None:
        packet, lines = None, (*lines, "JPEG holds 64 KiB of XMP: dropped")
    notes |= dict.fromkeys(lines)
    return replace(given, exif=exif, xmp=packet)


def _exif(picture: Picture, name: str, notes: dict[str, None]) -> bytes | None:
    # For a resolution these have no other place.
    dpi = picture.metadata.dpi if name in {"WEBP", "AVIF"} else None
    try:
        # Pillow would lay out the EXIF of an AVIF anew to take the orientation out of it.
        block, lines = fitted_exif(picture, upright=name != "AVIF")
        if name == "JPEG" and block and len(block) > _SEGMENT:
            block, names = shortened(block, _SEGMENT)
            lines += (f"JPEG holds 64 KiB of EXIF: without {', '.join(names)}",)
        if name == "TIFF" and block and directories_of(BytesIO(block.removeprefix(PREFIX)))[2]:
            lines += ("TIFF holds no maker's notes of EXIF, whose offsets would go wrong: dropped",)
        block = with_resolution(block, dpi) if dpi else block
    except (ValueError, OverflowError, struct.error):
        block, lines = with_resolution(None, dpi) if dpi else None, (DAMAGED,)
    notes |= dict.fromkeys(lines)
    return block


def _words_of(comment: bytes) -> str:
    """Decode a comment, whose letters no format names: UTF-8, or those of old programs."""
    try:
        return comment.decode()
    except UnicodeDecodeError:
        return comment.decode("latin-1")


def without_location(found: Metadata) -> Metadata:
    """Take out of metadata where a picture was taken, and leave the rest.

    EXIF or XMP that cannot be understood, and so may hold anything, goes whole.
    """
    exif = None if found.exif is None else exif_without_location(found.exif)
    packet = None if found.xmp is None else xmp_without_location(found.xmp)
    text = tuple((key, value) for key, value in found.text if not is_place(key))
    iptc = whole_records(found.iptc or b"", places=False)
    return replace(found, exif=exif, xmp=packet, iptc=iptc, text=text)
