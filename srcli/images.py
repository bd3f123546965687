"""Image files in and out: the one face of the modules that know codecs.

Whatever a file holds (a palette, CMYK, sixteen bits, an orientation in its EXIF) becomes upright
pictures: grey or RGB integers, with transparency and metadata beside them. ``formats`` knows
what the formats can hold, ``tags`` the metadata, ``reading`` and ``writing`` the pixels.
"""

from srcli.formats import READABLE_SUFFIXES, files_in, format_of, is_image
from srcli.pictures import Album, Levels, Metadata, Picture
from srcli.reading import read, read_album, read_size
from srcli.writing import check_size, write

__all__ = [
    "READABLE_SUFFIXES",
    "Album",
    "Levels",
    "Metadata",
    "Picture",
    "check_size",
    "files_in",
    "format_of",
    "is_image",
    "read",
    "read_album",
    "read_size",
    "write",
]
