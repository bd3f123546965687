"""Metadata as cameras and programs write it, and the files that it comes to stand in."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from srcli.imaging import ifd
from srcli.imaging.formats import BUILT
from srcli.imaging.ifd import EXIF, GPS, INTEROP, LONG, MAIN, SHORT, laid_out
from srcli.imaging.images import Album, Metadata, Picture
from srcli.imaging.writing import write_stream

FORMATS = [name for name in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF") if name in BUILT]
ORDERS = pytest.mark.parametrize("order", ["<", ">"], ids=["little", "big"])
NOTE = bytes(range(256)) * 3
MAKER_LOST = "TIFF holds no maker's notes of EXIF, whose offsets would go wrong: dropped"


class Layout(ifd.Layout):
    """Makes values of whole numbers as well."""

    def numbers(self, kind, *values):
        """Make a value of one type."""
        return kind, struct.pack(
            f"{self.order}{len(values)}{'H' if kind == SHORT else 'I'}", *values
        )


def text(words):
    """Make a value of text in UTF-8, which cameras and programs write though EXIF says ASCII."""
    return 2, words.encode() + b"\0"


def block(order="<", *, main=(), details=(), place=(), interop=(), thumbnail=None):
    """Lay out EXIF as a camera does: description, exposure, place, and a thumbnail at the end."""
    layout = Layout(order, big=False)
    parts = {
        MAIN: {0x10F: text("Canon"), 0x112: layout.numbers(SHORT, 6), **dict(main)},
        EXIF: {
            0x9003: text("2019:06:15 10:20:30"),
            0x927C: (7, NOTE),
            0xA001: layout.numbers(SHORT, 65535),
            0xA002: layout.numbers(SHORT, 96),
            0xA003: layout.numbers(LONG, 64),
            **dict(details),
        },
        GPS: {1: text("N"), 2: (5, struct.pack(f"{order}6I", 48, 1, 30, 1, 0, 1)), **dict(place)},
        INTEROP: {1: text("R03"), **dict(interop)},
    }
    head = struct.pack(f"{order}2sHI", b"II" if order == "<" else b"MM", 42, 8)
    data = head + laid_out(parts, 8, layout)
    if thumbnail is not None:
        count = int.from_bytes(data[8:10], "little" if order == "<" else "big")
        link = 10 + 12 * count
        where = len(data)
        table = {
            0x201: layout.numbers(LONG, where + 2 + 24 + 4),
            0x202: layout.numbers(LONG, len(thumbnail)),
        }
        data = data[:link] + struct.pack(f"{order}I", where) + data[link + 4 :]
        data += laid_out({MAIN: table}, where, layout) + thumbnail
    return b"Exif\0\0" + data


def pictured(*, height=128, width=192, **metadata):
    """Make a picture twice as large as the one that its metadata speaks of."""
    pixels = np.full((height, width, 3), 90, np.uint8)
    return Picture(pixels=pixels, metadata=Metadata(**{"size": (96, 64), **metadata}))


def encoded(picture, name):
    """Write a picture; give the file and the notes."""
    file = io.BytesIO()
    return file, write_stream(Album(pictures=(picture,)), file, format=name)


def parsed(file):
    """Let Pillow read the directories of a file."""
    with Image.open(file) as image:
        found = image.getexif()
        parts = {tag: dict(found.get_ifd(tag)) for tag in (EXIF, GPS, INTEROP)}
        return dict(found), parts


def parsed_block(data):
    """Let Pillow read the directories of a block."""
    found = Image.Exif()
    found.load(data)
    return dict(found), {tag: dict(found.get_ifd(tag)) for tag in (EXIF, GPS, INTEROP)}


def stored(file):
    """Give the EXIF block of a file as it is stored, without its name."""
    with Image.open(file) as image:
        return image.info["exif"].removeprefix(b"Exif\0\0")


SPACES = {
    "tiff": "http://ns.adobe.com/tiff/1.0/",
    "exif": "http://ns.adobe.com/exif/1.0/",
    "xmp": "http://ns.adobe.com/xap/1.0/",
    "dc": "http://purl.org/dc/elements/1.1/",
    "crs": "http://ns.adobe.com/camera-raw-settings/1.0/",
    "GPano": "http://ns.google.com/photos/1.0/panorama/",
    "GCamera": "http://ns.google.com/photos/1.0/camera/",
    "Container": "http://ns.google.com/photos/1.0/container/",
    "GDepth": "http://ns.google.com/photos/1.0/depthmap/",
    "hdrgm": "http://ns.adobe.com/hdr-gain-map/1.0/",
    "mwg-rs": "http://www.metadataworkinggroup.com/schemas/regions/",
    "stArea": "http://ns.adobe.com/xmp/sType/Area#",
    "stDim": "http://ns.adobe.com/xap/1.0/sType/Dimensions#",
    "MPReg": "http://ns.microsoft.com/photo/1.2/t/Region#",
}


def packet(attributes="", inside=""):
    """Put properties into a packet."""
    spaces = " ".join(f'xmlns:{name}="{space}"' for name, space in SPACES.items())
    rdf = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
    return (
        f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{rdf}">'
        f'<rdf:Description rdf:about="" {spaces} {attributes}>{inside}</rdf:Description>'
        "</rdf:RDF></x:xmpmeta>"
    ).encode()


def swapped(profile):
    """Make a profile like sRGB whose red and green primaries are exchanged."""
    return profile.replace(b"rXYZ", b"????").replace(b"gXYZ", b"rXYZ").replace(b"????", b"gXYZ")
