"""Metadata of image files: EXIF, resolution and profile, from a file and into the next one."""

import math
from typing import Any, Final, SupportsFloat

from PIL import ExifTags, Image

from srcli.pictures import Picture

__all__ = ["DIRECTORIES", "dpi_of", "exif_for", "exif_of", "profile_for", "sound_tags"]

_TAGS: Final[dict[int, type]] = {
    ExifTags.Base.ImageDescription: str,
    ExifTags.Base.Make: str,
    ExifTags.Base.Model: str,
    ExifTags.Base.Software: str,
    ExifTags.Base.DateTime: str,
    ExifTags.Base.Artist: str,
    ExifTags.Base.HostComputer: str,
    ExifTags.Base.Copyright: str,
    ExifTags.Base.Rating: int,
    ExifTags.Base.RatingPercent: int,
    ExifTags.Base.XPTitle: bytes,
    ExifTags.Base.XPComment: bytes,
    ExifTags.Base.XPAuthor: bytes,
    ExifTags.Base.XPKeywords: bytes,
    ExifTags.Base.XPSubject: bytes,
}
"""The tags kept of the first EXIF directory, with the type of a sound value.

The others say how the file was stored, which is no longer true of the next one."""

DIRECTORIES: Final = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)

_SIZE_TAGS: Final = (ExifTags.Base.ExifImageWidth, ExifTags.Base.ExifImageHeight)


def exif_of(image: Image.Image) -> bytes | None:
    """Copy what describes the picture, not its old file, into a fresh EXIF block."""
    try:
        found = image.getexif()
        kept = Image.Exif()
        kept.update(sound_tags(found))
        for directory in DIRECTORIES:
            entries = found.get_ifd(directory)
            # A pointer into the old block, to a directory that says nothing of use.
            entries.pop(ExifTags.IFD.Interop, None)
            if entries:
                kept[directory] = entries
        return kept.tobytes() if kept else None
    except Exception:  # noqa: BLE001 - broken EXIF raises anything, and must not cost the picture
        return None


def sound_tags(exif: Image.Exif) -> dict[int, Any]:
    """Collect the tags of the first directory that are kept and have a sound value."""
    return {tag: exif[tag] for tag, kind in _TAGS.items() if isinstance(exif.get(tag), kind)}


def _positive(value: SupportsFloat) -> bool:
    number = float(value)
    return math.isfinite(number) and 0 < number < 65536


def dpi_of(value: object) -> tuple[float, float] | None:
    """Take a resolution for what it is only if it is one."""
    if not isinstance(value, tuple) or len(value) != 2 or not all(map(_positive, value)):
        return None
    across, down = map(float, value)
    # One pixel per inch is what Pillow makes up for a TIFF that does not say.
    return None if across == down == 1 else (across, down)


def profile_for(profile: object, channels: int) -> bytes | None:
    """Keep a profile only if its header says that it describes pixels of this kind."""
    space = b"GRAY" if channels == 1 else b"RGB "
    return profile if isinstance(profile, bytes) and profile[16:20] == space else None


def exif_for(picture: Picture) -> Image.Exif:
    """Parse the EXIF of a picture and make its sizes those of the pixels."""
    exif = Image.Exif()
    if picture.metadata.exif is not None:
        exif.load(picture.metadata.exif)
    if ExifTags.IFD.Exif in exif:
        entries = exif.get_ifd(ExifTags.IFD.Exif)
        sides = zip(_SIZE_TAGS, (picture.width, picture.height), strict=True)
        entries.update({tag: side for tag, side in sides if tag in entries})
    return exif
