"""Image files in and out: the one face of the modules that know codecs."""

from srcli.imaging.colour import bare_metadata, stripped
from srcli.imaging.embedding import without_location
from srcli.imaging.formats import READABLE_SUFFIXES, PillowImage, format_of, streams
from srcli.imaging.headers import Header, Scan
from srcli.imaging.opening import MAX_PIXELS
from srcli.imaging.pictures import Album, Coding, Levels, Metadata, Picture, eight_bits
from srcli.imaging.reading import from_pillow, read, read_album, read_header, read_size, scan
from srcli.imaging.writing import check_size, to_pillow, write_album, write_rows, write_stream

__all__ = [
    "MAX_PIXELS",
    "READABLE_SUFFIXES",
    "Album",
    "Coding",
    "Header",
    "Levels",
    "Metadata",
    "Picture",
    "PillowImage",
    "Scan",
    "bare_metadata",
    "check_size",
    "eight_bits",
    "format_of",
    "from_pillow",
    "read",
    "read_album",
    "read_header",
    "read_size",
    "scan",
    "streams",
    "stripped",
    "to_pillow",
    "without_location",
    "write_album",
    "write_rows",
    "write_stream",
]
