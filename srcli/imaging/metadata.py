"""What a file says besides its pixels, as it was found.

What is broken is left out: metadata never costs the picture.
"""

import math
import re
from collections.abc import Callable
from typing import Any, Final, TypeVar

from PIL import ExifTags, Image

from srcli.imaging.chunks import RAW_PROFILE, XMP_KEYWORD
from srcli.imaging.decoding import CONVERTED
from srcli.imaging.exif import PREFIX
from srcli.imaging.pictures import Metadata
from srcli.imaging.xmp import joined

_T = TypeVar("_T")

IPTC_RESOURCE: Final = 0x0404
"""What Photoshop calls IPTC-IIM among the resources that it puts into a JPEG."""

_PLACES: Final = {bytes((2, number)) for number in (26, 27, 90, 92, 95, 100, 101)}
"""Records of IPTC that name a location, a city, a region or a country."""

_PHOTOSHOP: Final = b"Photoshop 3.0\0"
_XMP: Final = b"http://ns.adobe.com/xap/1.0/\0"
_EXTENSION: Final = b"http://ns.adobe.com/xmp/extension/\0"
"""What a JPEG's segments of extended XMP begin with (XMP part 3, 1.1.3.1)."""

_SEGMENTS: Final = (
    *(b"JFIF\0", b"JFXX\0", PREFIX, _XMP, _EXTENSION),
    *(b"ICC_PROFILE\0", _PHOTOSHOP, b"Adobe", b"Ducky\0"),
    *(b"MPF\0", b"urn:iso:std:iso:ts:21496"),  # of further pictures, which are counted
)
"""How segments of a JPEG begin that are read, or speak of how that file was encoded."""

_RESOURCES: Final = {IPTC_RESOURCE, 0x03ED, 0x0409, 0x040C, 0x040F, 0x0422, 0x0424, 0x0425}
"""Photoshop's resources that stand elsewhere as well: resolution, thumbnails, profile, EXIF, XMP;
and the digest of IPTC."""


MOST_PROFILE: Final = 1 << 24
"""Bytes of a profile: about what a JPEG can hold; no sound one comes near."""


def sound(get: Callable[[], _T]) -> _T | None:
    """Return what hostile bytes say, or nothing where they cannot be understood."""
    try:
        return get()
    except Exception:  # noqa: BLE001 - broken metadata raises anything, and must not cost the picture
        return None


def metadata_of(
    image: Image.Image,
    channels: int,
    orientation: int,
    size: tuple[int, int],
    notes: dict[str, None],
) -> Metadata:
    """Collect what is sound of all that an open image says besides its pixels.

    ``channels`` is 1 where these are going to be grey, 3 where RGB; ``orientation`` is that by
    which they are turned, ``size`` that of the upright picture; ``notes`` takes what is broken.
    """
    info = image.info
    block, packet = exif_block(info), sound(lambda: _xmp_packet(image, notes))
    # Of a JPEG that does not say Pillow would make up 72.
    said = info.get("jfif_unit") or image.format not in {"JPEG", "MPO"}
    profile = None
    if image.mode not in CONVERTED and "icc_profile" in info:  # or they are converted through it
        profile = profile_for(info["icc_profile"], channels, notes)
    aspect = info.get("aspect") or (not info.get("jfif_unit") and info.get("jfif_density"))
    if aspect and all(aspect) and aspect[0] != aspect[1]:  # 0 is what is not known
        line = f"its pixels are not square (densities {aspect[0]} and {aspect[1]}): dropped"
        notes[line] = None
    return Metadata(
        icc_profile=profile,
        exif=block,
        xmp=packet,
        iptc=sound(lambda: _iptc_records(image)),
        dpi=(sound(lambda: dpi_of(info.get("dpi"))) if said else None)
        or sound(lambda: exif_dpi(image.getexif())),
        text=tuple(info.get("texts", ())),
        comment=_comment(image),
        orientation=orientation,
        size=size if block or packet else None,
    )


def _comment(image: Image.Image) -> bytes | None:
    """Return the comment, of several in a JPEG all, a line each."""
    parts = [content for name, content in getattr(image, "applist", []) if name == "COM"]
    found = b"\n".join(parts) if parts else image.info.get("comment")
    return found if isinstance(found, bytes) and found else None


def profile_for(profile: object, channels: int, notes: dict[str, None]) -> bytes | None:
    """Return a profile if its header says that it describes grey (1) or RGB (3) pixels."""
    space = b"GRAY" if channels == 1 else b"RGB "
    if isinstance(profile, bytes) and len(profile) <= MOST_PROFILE and profile[16:20] == space:
        return profile
    notes["its ICC profile is damaged or not of such pixels: dropped"] = None
    return None


def orientation_of(image: Image.Image) -> int:
    """Read the EXIF orientation, 1 to 8; 1 (upright) where there is none or it is broken."""
    # Not the getexif of a PNG, which would decode its pixels.
    value = sound(lambda: Image.Image.getexif(image).get(ExifTags.Base.Orientation))
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _raw_profile(info: dict[Any, Any], *names: str) -> bytes | None:
    """Decode what ImageMagick stores as a PNG's text: a name, a length, and hex digits."""
    texts = (info.get(RAW_PROFILE + name) for name in names)
    found = next((text for text in texts if isinstance(text, str)), None)
    return None if found is None else bytes.fromhex("".join(found.split("\n")[3:]))


def exif_block(info: dict[Any, Any]) -> bytes | None:
    """Return the EXIF among what Pillow knows of a file, sound or not: writing looks into it."""
    block = info.get("exif") or sound(lambda: _raw_profile(info, "exif", "APP1"))
    if not isinstance(block, bytes) or block.startswith(_XMP):  # which stands in an APP1 too
        return None
    while block.startswith(PREFIX):  # twice, where it stands in a PNG
        block = block.removeprefix(PREFIX)
    return PREFIX + block if block else None


def _xmp_packet(image: Image.Image, notes: dict[str, None]) -> bytes | None:
    info = image.info
    found = info.get("xmp") or info.get(XMP_KEYWORD) or _raw_profile(info, "xmp", "APP1")
    packet = found.encode(errors="replace") if isinstance(found, str) else found
    if not isinstance(packet, bytes) or not packet.rstrip(b"\0") or packet[:4] == b"Exif":
        return None
    packet = packet.removeprefix(_XMP).rstrip(b"\0")
    if named := re.search(rb"HasExtendedXMP\W{1,4}([0-9A-Fa-f]{32})", packet):
        if extension := _extended_xmp(named[1], image):
            return joined(packet, extension)
        notes["XMP is not whole: what is in its extension dropped"] = None
    return packet


def _extended_xmp(name: bytes, image: Image.Image) -> bytes | None:
    """Put the parts of a JPEG's extended XMP together; ``None`` where one is missing."""
    parts: dict[int, bytes] = {}
    total, start = 0, _EXTENSION + name
    for marker, content in getattr(image, "applist", []):
        if marker == "APP1" and content.startswith(start):
            head = content[len(_EXTENSION) + 32 :]
            total = int.from_bytes(head[:4])
            parts[int.from_bytes(head[4:8])] = head[8:]
    joined = b"".join(parts[place] for place in sorted(parts))
    return joined if joined and len(joined) == total else None


def _iptc_records(image: Image.Image) -> bytes | None:
    """Return the records in resources of Photoshop, which ImageMagick puts into a PNG as well."""
    found = b"".join(data for code, data in _resources_of(image) if code == IPTC_RESOURCE)
    found = found or _raw_profile(image.info, "iptc", "8bim") or b""
    return whole_records(found[found.find(b"\x1c") :]) if found else None


def _resources_of(image: Image.Image) -> list[tuple[int, bytes]]:
    """List Photoshop's resources: in a JPEG they go on from segment to segment."""
    segments = [content for name, content in getattr(image, "applist", []) if name == "APP13"]
    data = b"".join(e[len(_PHOTOSHOP) :] for e in segments if e.startswith(_PHOTOSHOP))
    found, place = [], data.find(b"8BIM")
    while 0 <= place < len(data) - 12:
        start = place + 6 + (data[place + 6] // 2 + 1) * 2 + 4  # behind code, name and size
        end = start + int.from_bytes(data[start - 4 : start])
        found.append((int.from_bytes(data[place + 4 : place + 6]), data[start:end]))
        place = data.find(b"8BIM", end)
    return found or [*image.info.get("photoshop", {}).items()]


def whole_records(data: bytes, *, places: bool = True) -> bytes | None:
    """Cut IPTC records (IIM 4.2, 1.6) behind the last one that is whole: there may be padding.

    Without ``places`` those are left out that name where a picture was taken.
    """
    end, kept = 0, b""
    while end + 5 <= len(data) and data[end] == 0x1C:
        start, size = end + 5, int.from_bytes(data[end + 3 : end + 5])
        if size >= 0x8000:  # a long one states its length in so many more bytes
            start, size = start + size % 0x8000, int.from_bytes(data[start : start + size % 0x8000])
        following = start + size
        if following > len(data):
            break
        if places or data[end + 1 : end + 3] not in _PLACES:
            kept += data[end:following]
        end = following
    return kept or None


def dpi_of(value: object) -> tuple[float, float] | None:
    """Take a resolution for what it is only if it is one."""
    if not isinstance(value, tuple) or len(value) != 2:
        return None
    across, down = map(float, value)
    fits = all(math.isfinite(side) and 0 < side < 65536 for side in (across, down))
    # One pixel per inch is what Pillow makes up for a TIFF that does not say.
    return (across, down) if fits and (across, down) != (1, 1) else None


def exif_dpi(exif: Image.Exif) -> tuple[float, float] | None:
    """Return the resolution that EXIF states; WebP and AVIF have no other place for it."""
    unit = {2: 1.0, 3: 2.54}[exif.get(ExifTags.Base.ResolutionUnit, 2)]
    sides = (exif[ExifTags.Base.XResolution], exif[ExifTags.Base.YResolution])
    return dpi_of(tuple(float(side) * unit for side in sides))


# ---- what does not travel -----------------------------------------------------------------

_PARTS: Final = {
    "the video of a motion photo": re.compile(rb"MotionPhoto\W{1,4}1|MicroVideo\W{1,4}1"),
    "content credentials": re.compile(rb"dcterms:provenance"),
    "a gain map": re.compile(rb"(?s)hdrgm:|(?i:GainMap)|infe.{8}tmap"),
    "the shape of its pixels": re.compile(rb"(?s)\0\0\0\x10pasp(.{4})(?!\1)"),
    "a depth map": re.compile(rb"GDepth:|Semantic\W{1,3}Depth|auxid:2\0|auxiliary:depth"),
}
"""Parts that XMP announces, or the boxes of an AVIF or HEIC (ISO/IEC 23008-12, 6.5.8)."""


def left_behind(image: Image.Image, further: int, packet: bytes, boxes: bytes) -> list[str]:
    """Name the parts of a file that do not travel with its picture.

    Its XMP ``packet`` announces some, or its ``boxes``; ``further`` pictures are there besides the
    one that is read. What other programs and cameras put into segments of a JPEG is named as it
    names itself.
    """
    parts = [name for name, pattern in _PARTS.items() if pattern.search(packet + boxes)]
    further -= 0 if boxes else sum("map" in name for name in parts)
    if further > 0:
        parts.append(f"{further} further picture{'s' if further > 1 else ''}")
    for marker, content in getattr(image, "applist", []):
        if marker.startswith("APP") and not content.startswith(_SEGMENTS):
            name = re.match(rb"[ -~]{3,}", content)
            parts.append(name[0].decode() if name else f"data in {marker}")
            if b"c2pa" in content or (content[:2] == b"JP" and "content credentials" in parts):
                parts[-1] = "content credentials"  # which go on in further segments
    if {code for code, _ in _resources_of(image)} - _RESOURCES:
        parts.append("settings of Photoshop")
    return parts
