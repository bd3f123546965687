"""What a format stores of a picture's metadata: fitted to the pixels, and what was lost named."""

import struct
from dataclasses import dataclass, replace
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

_XMP_NAME: Final = b"http://ns.adobe.com/xap/1.0/\0"
_PROFILE, _XMP, _IPTC = 34675, 700, 33723
_BYTE, _UNDEFINED = 1, 7

_WORDS: Final = {"exif": "EXIF", "xmp": "XMP", "iptc": "IPTC"}
_WORDS.update(text="text", comment="comment", dpi="resolution")
"""Fields of metadata, and what messages call them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedded:
    """Metadata that a format can hold, sizes and places already those of the pixels."""

    metadata: Metadata
    """What is to be stored."""

    extension: tuple[bytes, ...] = ()
    """Contents of the segments in which a JPEG's XMP goes on."""

    notes: tuple[str, ...] = ()
    """What could not be kept: a line each, without a file name."""

    def pillow_options(self, name: str) -> dict[str, Any]:
        """Make the options with which Pillow stores all this in a format."""
        fields = ("icc_profile", "exif", "xmp", "dpi", "comment")
        options: dict[str, Any] = {field: getattr(self.metadata, field) for field in fields}
        if name in {"PNG", "WEBP"} and self.metadata.exif:
            options["exif"] = self.metadata.exif.removeprefix(PREFIX)
        if name == "BMP" and not self.metadata.dpi:
            options["dpi"] = (0, 0)  # or Pillow would make up 96
        if name == "JPEG":
            options["extra"] = self._segments()
        if name == "PNG":
            options["pnginfo"] = self._texts()
            if self._colours():  # of which the profile may have been made
                options["icc_profile"] = dict(self.metadata.colour_chunks).get(b"iCCP")
        return {key: value for key, value in options.items() if value}

    def _segments(self) -> bytes:
        """Wrap IPTC records as Photoshop does (File Formats Specification, Image Resources)."""
        result = b"".join(map(_segment, self.extension))
        if self.metadata.iptc:
            data = self.metadata.iptc
            head = struct.pack(">4sH2xI", b"8BIM", IPTC_RESOURCE, len(data))
            result += _segment(b"Photoshop 3.0\0" + head + data + b"\0" * (len(data) % 2), 0xED)
        return result

    def _colours(self) -> list[tuple[bytes, bytes]]:
        """List the chunks that say what its colours are, which Pillow puts in their place."""
        return [each for each in self.metadata.colour_chunks if each[0] != b"iCCP"]

    def _texts(self) -> PngInfo:
        info = PngInfo()
        for name, data in self._colours():
            info.add(name, data)
        if self.metadata.xmp:
            info.add(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + self.metadata.xmp)
        for key, text in self.metadata.text:
            info.add_text(key, text)
        return info

    def tiff_tags(self, order: str) -> dict[int, Directory]:
        """Make the directories that a page of a TIFF of this byte order is to have."""
        found = self.metadata
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


def _segment(content: bytes, marker: int = 0xE1) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, 2 + len(content)) + content


def holds_profile(picture: Picture, name: str) -> bool:
    """Whether a format stores the profile of a picture: grey becomes RGB in some."""
    profile, grey = picture.metadata.icc_profile, picture.pixels.shape[2] == 1
    as_rgb = name == "WEBP" or (name == "AVIF" and picture.alpha is not None)
    fits = profile is None or profile[16:20] == (b"GRAY" if grey else b"RGB ")
    return "icc_profile" in FORMATS[name].keeps and fits and not (grey and as_rgb)


def embedded(picture: Picture, name: str) -> Embedded:
    """Make of the metadata of a picture that is not adapted yet what a format stores of it."""
    given, keeps = replace(picture.metadata, dpi=dpi_of(picture.metadata.dpi)), FORMATS[name].keeps
    if name == "PNG" and given.comment and all(key != "Comment" for key, _ in given.text):
        comment = _words_of(given.comment)
        given = replace(given, text=(*given.text, ("Comment", comment)))
    notes = [
        f"{name} holds no {word}: dropped"
        for field, word in _WORDS.items()
        if field not in keeps and getattr(given, field)
    ]
    if given.icc_profile and not holds_profile(picture, name):
        kind = "grey ICC profile" if "icc_profile" in keeps else "ICC profile"
        notes.append(f"{name} holds no {kind}: converted to sRGB")
        given = replace(given, icc_profile=None, colour_chunks=())
    if name != "PNG" and given.icc_profile is None and (hdr := hdr_of(given.colour_chunks)):
        notes.append(f"HDR ({hdr}) is kept in a PNG alone: elsewhere it looks flat")
    picture = replace(picture, metadata=given)
    exif, lost_exif = _exif(picture, name) if "exif" in keeps else (None, ())
    packet, extension, lost_xmp = _xmp(picture, name) if "xmp" in keeps else (None, (), ())
    kept = {field: getattr(given, field) for field in ("iptc", "comment") if field in keeps}
    if name == "JPEG":
        for field in [each for each, data in kept.items() if len(data or b"") > _JPEG_MOST[each]]:
            notes.append(f"JPEG holds 64 KiB of {_WORDS[field]}: dropped")
            del kept[field]
    metadata = Metadata(
        icc_profile=given.icc_profile,
        exif=exif,
        xmp=packet,
        dpi=given.dpi if "dpi" in keeps else None,
        text=given.text if "text" in keeps else (),
        colour_chunks=given.colour_chunks,
        **kept,
    )
    lines = tuple(dict.fromkeys([*notes, *lost_exif, *lost_xmp]))
    return Embedded(metadata=metadata, extension=extension, notes=lines)


def _exif(picture: Picture, name: str) -> tuple[bytes | None, tuple[str, ...]]:
    # For a resolution these have no other place.
    dpi = picture.metadata.dpi if name in {"WEBP", "AVIF"} else None
    try:
        # Pillow would lay out the EXIF of an AVIF anew to take the orientation out of it.
        block, notes = fitted_exif(picture, upright=name != "AVIF")
        if name == "JPEG" and block and len(block) > _SEGMENT:
            block, names = shortened(block, _SEGMENT)
            notes += (f"JPEG holds 64 KiB of EXIF: without {', '.join(names)}",)
        if name == "TIFF" and block and directories_of(BytesIO(block.removeprefix(PREFIX)))[2]:
            notes += ("TIFF holds no maker's notes of EXIF, whose offsets would go wrong: dropped",)
        return with_resolution(block, dpi) if dpi else block, notes
    except (ValueError, OverflowError, struct.error):
        return with_resolution(None, dpi) if dpi else None, (DAMAGED,)


def _xmp(picture: Picture, name: str) -> tuple[bytes | None, tuple[bytes, ...], tuple[str, ...]]:
    packet, notes = fitted_xmp(picture)
    if name != "JPEG" or packet is None:
        return packet, (), notes
    parts = split(packet, _SEGMENT - len(_XMP_NAME))
    if parts is None:
        return None, (), (*notes, "JPEG holds 64 KiB of XMP: dropped")
    return *parts, notes


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
