"""Metadata of image files: out of one file, and as the next one is to hold it.

Profile, EXIF, XMP, IPTC, resolution, texts. What is broken is left out: metadata never costs the
picture.
"""

import math
import re
from collections.abc import Callable
from typing import Any, Final, SupportsFloat, TypeVar

from PIL import ExifTags, Image

from srcli.imaging.directories import (
    ASCII,
    BYTE,
    LONG,
    RATIONAL,
    SHORT,
    UNDEFINED,
    Directory,
    Exif,
    entry,
    exif_at,
    exif_block,
    numbers,
    parsed_exif,
    swapped,
)
from srcli.imaging.pictures import Metadata, Picture

__all__ = [
    "DIRECTORIES",
    "IPTC_RESOURCE",
    "IPTC_TAG",
    "dpi_of",
    "exif_for",
    "exif_of",
    "metadata_of",
    "profile_for",
    "resolution_tags",
    "xmp_for",
    "xmp_of",
]

DIRECTORIES: Final = (int(ExifTags.IFD.Exif), int(ExifTags.IFD.GPSInfo))
"""Tags of the first EXIF directory that point at the others that are kept."""

_UTF8: Final = 129
_TEXT: Final = frozenset({ASCII, _UTF8, BYTE, UNDEFINED})
_WIDE_TEXT: Final = frozenset({BYTE, UNDEFINED})
_NUMBER: Final = frozenset({SHORT, LONG})

_TAGS: Final[dict[int, frozenset[int]]] = {
    ExifTags.Base.ImageDescription: _TEXT,
    ExifTags.Base.Make: _TEXT,
    ExifTags.Base.Model: _TEXT,
    ExifTags.Base.Software: _TEXT,
    ExifTags.Base.DateTime: _TEXT,
    ExifTags.Base.Artist: _TEXT,
    ExifTags.Base.HostComputer: _TEXT,
    ExifTags.Base.Copyright: _TEXT,
    ExifTags.Base.Rating: _NUMBER,
    ExifTags.Base.RatingPercent: _NUMBER,
    ExifTags.Base.XPTitle: _WIDE_TEXT,
    ExifTags.Base.XPComment: _WIDE_TEXT,
    ExifTags.Base.XPAuthor: _WIDE_TEXT,
    ExifTags.Base.XPKeywords: _WIDE_TEXT,
    ExifTags.Base.XPSubject: _WIDE_TEXT,
}
"""The tags kept of the first EXIF directory, with the types of a sound value.

The others say how the file was stored, which is no longer true of the next one."""

_SIZE_TAGS: Final = (int(ExifTags.Base.ExifImageWidth), int(ExifTags.Base.ExifImageHeight))
_RESOLUTION_TAGS: Final = (int(ExifTags.Base.XResolution), int(ExifTags.Base.YResolution))
_UNIT: Final = int(ExifTags.Base.ResolutionUnit)
_INCH: Final = 2

_XMP_KEYWORD: Final = "XML:com.adobe.xmp"
_RAW_PROFILE: Final = "Raw profile type "
"""How ImageMagick begins the keywords of PNG texts that are no texts."""

_T = TypeVar("_T")


def metadata_of(image: Image.Image, channels: int) -> Metadata:
    """Collect everything that an open image says besides its pixels.

    What is broken is left out.

    Args:
        image: An image as Pillow opened it, loaded or not, its file still open; of several
            frames, the current one.
        channels: 1 where its pixels are going to be grey, 3 where they are RGB.

    Returns:
        What is sound of it, without the orientation.
    """
    info = image.info
    comment = info.get("comment")
    exif = _sound(lambda: _parsed(image))
    return Metadata(
        icc_profile=profile_for(info.get("icc_profile"), channels),
        exif=None if exif is None else _kept_block(exif),
        xmp=xmp_of(image),
        iptc=_sound(lambda: _iptc_of(image, exif)),
        dpi=_sound(lambda: dpi_of(info.get("dpi"))) or _sound(lambda: _exif_dpi(exif)),
        text=_text_of(info) if image.format == "PNG" else (),
        comment=comment if isinstance(comment, bytes) and comment else None,
    )


def _sound(get: Callable[[], _T]) -> _T | None:
    """Get what hostile bytes say, or nothing where they cannot be understood."""
    try:
        return get()
    except Exception:  # noqa: BLE001 - broken metadata raises anything, and must not cost the picture
        return None


def _text_of(info: dict[Any, Any]) -> tuple[tuple[str, str], ...]:
    """Collect the texts of a PNG: what is a string among what Pillow found in it."""
    return tuple(
        (str(key), str(text))
        for key, text in info.items()
        if isinstance(key, str)
        and isinstance(text, str)
        and key != _XMP_KEYWORD
        and not key.startswith(_RAW_PROFILE)
    )


def _raw_profile(image: Image.Image, *names: str) -> bytes | None:
    """Decode what ImageMagick stores as a PNG's text: a name, a length, and hex digits."""
    texts = (image.info.get(_RAW_PROFILE + name) for name in names)
    found = next((text for text in texts if isinstance(text, str)), None)
    return None if found is None else bytes.fromhex("".join(found.split("\n")[3:]))


def profile_for(profile: object, channels: int) -> bytes | None:
    """Keep a profile only if its header says that it describes pixels of this kind.

    Args:
        profile: Anything; a profile is bytes.
        channels: 1 for grey, 3 for RGB.

    Returns:
        The profile, or ``None``.
    """
    space = b"GRAY" if channels == 1 else b"RGB "
    return profile if isinstance(profile, bytes) and profile[16:20] == space else None


# ---- resolution ---------------------------------------------------------------------------


def dpi_of(value: object) -> tuple[float, float] | None:
    """Take a resolution for what it is only if it is one."""
    if not isinstance(value, tuple) or len(value) != 2 or not all(map(_positive, value)):
        return None
    across, down = map(float, value)
    # One pixel per inch is what Pillow makes up for a TIFF that does not say.
    return None if across == down == 1 else (across, down)


def _positive(value: SupportsFloat) -> bool:
    number = float(value)
    return math.isfinite(number) and 0 < number < 65536


def _exif_dpi(exif: Exif | None) -> tuple[float, float] | None:
    """Tell the resolution that EXIF states; WebP and AVIF have no other place for it."""
    if exif is None or not exif.main.keys() >= set(_RESOLUTION_TAGS):
        return None
    unit = numbers(exif.order, exif.main[_UNIT])[0] if _UNIT in exif.main else _INCH
    sides = [numbers(exif.order, exif.main[tag]) for tag in _RESOLUTION_TAGS]
    return dpi_of(tuple(over / under * _PER_INCH[unit] for over, under in sides))


_PER_INCH: Final = {_INCH: 1.0, 3: 2.54}
"""Units of EXIF resolutions, and how many are an inch."""


def resolution_tags(dpi: tuple[float, float], order: str) -> Directory:
    """Make the entries of a directory that state a resolution.

    Args:
        dpi: Pixels per inch across and down.
        order: The byte order of the directory, ``<`` or ``>``.

    Returns:
        The tags XResolution, YResolution and ResolutionUnit.
    """
    found = {
        tag: entry(order, RATIONAL, round(side * 10_000), 10_000)
        for tag, side in zip(_RESOLUTION_TAGS, dpi, strict=True)
    }
    return {**found, _UNIT: entry(order, SHORT, _INCH)}


# ---- EXIF ---------------------------------------------------------------------------------


def exif_of(image: Image.Image) -> bytes | None:
    """Copy what describes the picture, not its old file, into a fresh EXIF block.

    Args:
        image: As for :func:`metadata_of`.

    Returns:
        The block, in the byte order of the old one, without an orientation; or ``None``.
    """
    exif = _sound(lambda: _parsed(image))
    return None if exif is None else _kept_block(exif)


def _parsed(image: Image.Image) -> Exif | None:
    """Parse the EXIF of an image, or of a TIFF the file itself."""
    if image.format == "TIFF":
        # Where the file is: Pillow lets go of it once the pixels of a single page are decoded.
        stream: Any = getattr(image, "fp", None) or image.getexif().fp
        position = stream.tell()
        try:
            return exif_at(stream, image.tell(), DIRECTORIES)
        finally:
            stream.seek(position)
    block = image.info.get("exif") or _raw_profile(image, "exif", "APP1")
    return parsed_exif(block, DIRECTORIES) if isinstance(block, bytes) else None


def _kept(exif: Exif) -> Exif:
    """Leave out what was true of the old file alone."""
    main = {
        tag: value
        for tag, value in exif.main.items()
        if tag in _TAGS and value.kind in _TAGS[tag] and (value.count == 1 or value.kind in _TEXT)
    }
    # A pointer into the old block, to a directory that says nothing of use.
    parts = {
        tag: {key: value for key, value in part.items() if key != ExifTags.IFD.Interop}
        for tag, part in exif.parts.items()
    }
    return Exif(
        order=exif.order, main=main, parts={tag: part for tag, part in parts.items() if part}
    )


def _kept_block(exif: Exif) -> bytes | None:
    kept = _kept(exif)
    return exif_block(kept) if kept.main or kept.parts else None


def exif_for(picture: Picture) -> Exif | None:
    """Parse the EXIF of a picture and make its sizes those of the pixels.

    Args:
        picture: What is going to be written.

    Returns:
        Its EXIF; ``None`` where there is none, or none that can be understood.
    """
    block = picture.metadata.exif
    exif = None if block is None else _sound(lambda: _kept(parsed_exif(block, DIRECTORIES)))
    if exif is None or not (exif.main or exif.parts):
        return None
    details = exif.parts.get(DIRECTORIES[0], {})
    sides = zip(_SIZE_TAGS, (picture.width, picture.height), strict=True)
    sizes = {tag: entry(exif.order, LONG, side) for tag, side in sides if tag in details}
    if not sizes:
        return exif
    parts = {**exif.parts, DIRECTORIES[0]: details | sizes}
    return Exif(order=exif.order, main=exif.main, parts=parts)


# ---- IPTC ---------------------------------------------------------------------------------

IPTC_TAG: Final = 33723
"""The tag of a TIFF whose value is IPTC-IIM."""

IPTC_RESOURCE: Final = 0x0404
"""What Photoshop calls IPTC-IIM among the resources that it puts into a JPEG."""

_IPTC_MARK: Final = 0x1C
"""What every data set of IPTC-IIM begins with (IIM 4.2, section 1.6)."""


def _iptc_of(image: Image.Image, exif: Exif | None) -> bytes | None:
    """Take the IPTC records of a JPEG or TIFF."""
    if image.format == "TIFF":
        value = exif.main.get(IPTC_TAG) if exif is not None else None
        data = b"" if value is None else value.data
        if value is not None and value.kind == LONG and data[:1] != bytes((_IPTC_MARK,)):
            data = swapped({0: value})[0].data  # some writers take the text for numbers
    else:
        data = image.info.get("photoshop", {}).get(IPTC_RESOURCE, b"")
    return _whole_records(data) or None


def _whole_records(data: bytes) -> bytes:
    """Cut IPTC records behind the last one that is whole: there may be padding."""
    end = 0
    while end + 5 <= len(data) and data[end] == _IPTC_MARK:
        length = int.from_bytes(data[end + 3 : end + 5], "big")
        following = end + 5 + length
        if length >= 0x8000 or following > len(data):  # a long one states its length elsewhere
            break
        end = following
    return data[:end]


# ---- XMP ----------------------------------------------------------------------------------

_XMP_SIZES: Final = (
    (
        re.compile(rb"""((?:tiff:ImageWidth|exif:PixelXDimension)\s*(?:=\s*["']|>)\s*)\d+"""),
        "width",
    ),
    (
        re.compile(rb"""((?:tiff:ImageLength|exif:PixelYDimension)\s*(?:=\s*["']|>)\s*)\d+"""),
        "height",
    ),
)
_XMP_ORIENTATION: Final = re.compile(rb"""(tiff:Orientation\s*(?:=\s*["']|>)\s*)\d+""")
_XMP_EXTENSION: Final = re.compile(
    rb"""\s*xmpNote:HasExtendedXMP\s*=\s*(?:"[^"]*"|'[^']*')"""
    rb"""|<xmpNote:HasExtendedXMP>[^<]*</xmpNote:HasExtendedXMP\s*>"""
)
"""What says that a JPEG goes on with more XMP elsewhere, which is not kept."""


def xmp_of(image: Image.Image) -> bytes | None:
    """Take the XMP packet that an image came with, as of an upright picture.

    Args:
        image: As for :func:`metadata_of`.

    Returns:
        The packet, its orientation set to 1, in UTF-8; or ``None``.
    """
    return _sound(lambda: _upright_xmp(image))


def _upright_xmp(image: Image.Image) -> bytes | None:
    info = image.info
    found = info.get("xmp") or info.get(_XMP_KEYWORD) or _raw_profile(image, "xmp")
    packet = found.encode(errors="replace") if isinstance(found, str) else found
    if not isinstance(packet, bytes):
        return None
    packet = _as_utf8(packet).rstrip(b"\0")
    return _XMP_EXTENSION.sub(b"", _XMP_ORIENTATION.sub(rb"\g<1>1", packet)) or None


def _as_utf8(packet: bytes) -> bytes:
    """Turn a packet in UTF-16 or UTF-32, which the standard allows, into UTF-8."""
    start = packet.lstrip(b"\xff\xfe\0\xef\xbb\xbf")
    zeros = packet[:8].count(0)
    if not start or zeros < 3:
        return packet
    wide = "utf-32" if zeros > 4 else "utf-16"
    little = packet[:2] == b"\xff\xfe" or packet[:1] == b"<"
    text = packet.decode(f"{wide}-{'le' if little else 'be'}", errors="replace")
    return text.removeprefix("\ufeff").encode(errors="replace")


def xmp_for(picture: Picture) -> bytes | None:
    """Make the sizes that the XMP of a picture states those of its pixels.

    Args:
        picture: What is going to be written.

    Returns:
        The packet, or ``None``.
    """
    packet = picture.metadata.xmp
    for pattern, side in _XMP_SIZES if packet else ():
        packet = pattern.sub(rb"\g<1>%d" % getattr(picture, side), packet or b"")
    return packet or None
