"""XMP in the files that are written: it follows the pixels, or goes with a note."""

import re
from pathlib import Path

import pytest
from metadata_blocks import encoded, packet, pictured
from PIL import Image

from srcli.imaging import xmp
from srcli.imaging.images import read_album


def fitted(data, **more):
    """Fit a packet to a picture of twice the size."""
    return xmp.fitted_xmp(pictured(xmp=data, **more))


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("tiff:Orientation", 6, 1),
        ("tiff:ImageWidth", 96, 192),
        ("exif:PixelXDimension", 96, 192),
        ("tiff:ImageLength", 64, 128),
        ("exif:PixelYDimension", 64, 128),
        ("GPano:CroppedAreaImageWidthPixels", 96, 192),
        ("GPano:CroppedAreaTopPixels", 3, 6),
        ("GPano:FullPanoHeightPixels", 64, 128),
        ("GPano:PoseHeadingDegrees", 120.5, 120.5),
    ],
)
def test_numbers_of_pixels_in_xmp_follow_them(name, before, after):
    """As attributes and as elements."""
    attribute, _ = fitted(packet(f'{name}="{before}"'))
    element, _ = fitted(packet(inside=f"<{name}>{before}</{name}>"))

    assert f'{name}="{after}"'.encode() in attribute
    assert f"<{name}>{after}</{name}>".encode() in element


def test_lines_of_an_attribute_and_sizes_of_paper_stay():
    """What is changed beside them is written anew."""
    page = '<dc:page><rdf:Description stDim:w="11" stDim:h="8.5" stDim:unit="inch"/></dc:page>'
    found, _ = fitted(packet('dc:title="a&#xA;b&#9;c" tiff:Orientation="6"', page))

    assert b'dc:title="a&#10;b&#9;c"' in found
    assert b'stDim:w="11" stDim:h="8.5"' in found


REGION = (
    '<mwg-rs:Regions><mwg-rs:AppliedToDimensions stDim:w="96" stDim:h="64" stDim:unit="Pixels"/>'
    '<mwg-rs:Area stArea:x="0.25" stArea:y="0.5" stArea:w="0.1" stArea:h="0.2" '
    'stArea:unit="normalized"/></mwg-rs:Regions>'
    "<MPReg:Rectangle>0.2, 0.4, 0.1, 0.2</MPReg:Rectangle>"
)


PLACES = {"x": 0.5, "y": 0.25, "w": 0.2, "h": 0.1}
"""Where the face comes to lie when the picture is turned, as it has to be for orientation 6."""


def test_faces_are_turned_with_the_picture():
    """Of both kinds; without a turn only the size that they apply to changes."""
    upright, _ = fitted(packet(inside=REGION))
    turned, _ = fitted(packet(inside=REGION), orientation=6)

    for part in (b'stDim:w="192"', b'stArea:x="0.25"', b"0.2, 0.4, 0.1, 0.2"):
        assert part in upright
    places = [f'stArea:{name}="{value}"' for name, value in PLACES.items()]
    for part in (*places, "0.4, 0.2, 0.2, 0.1"):
        assert part.encode() in turned


@pytest.mark.parametrize(
    ("inside", "note"),
    [
        ("<GPano:FullPanoWidthPixels>9</GPano:FullPanoWidthPixels>", "a photo sphere"),
        ("<crs:CropTop>0.5</crs:CropTop>", "XMP crop"),
        (REGION.replace("normalized", "pixel"), "XMP regions"),
        ("<exif:SubjectArea>1</exif:SubjectArea>", "XMP SubjectArea"),
    ],
)
def test_what_cannot_be_turned_is_dropped_with_a_note(inside, note):
    """And the rest of the packet stays."""
    data, notes = fitted(packet('xmp:Rating="4"', inside), orientation=8)

    assert [note in each for each in notes] == [True]
    assert b'xmp:Rating="4"' in data
    assert not re.search(rb"<(GPano|crs|mwg-rs:Area|exif):", data)


def test_what_speaks_of_parts_left_behind_goes():
    """Motion photos, maps, credentials, how the old file was stored; what is beside it stays."""
    gone = 'GCamera:MotionPhoto="1" GCamera:MicroVideoOffset="9" hdrgm:Version="1.0" GDepth:Far="2"'
    gone += ' xmlns:O="http://ns.oplus.com/photos/1.0/camera/" O:VideoLength="9"'
    gone += ' O:OLivePhotoVersion="2" dc:VivoMotionPhoto="1"'
    gone += ' xmlns:t="http://purl.org/dc/terms/" t:provenance="self#jumbf=c2pa"'
    gone += ' tiff:BitsPerSample="16" tiff:Compression="5"'
    gone += ' xmlns:p="http://ns.adobe.com/photoshop/1.0/" p:ColorMode="4" p:City="Ulm"'
    data, notes = fitted(
        packet(gone + ' GCamera:SpecialTypeID="x"', "<Container:Directory/><dc:title>t</dc:title>")
    )

    lost = rb"MotionPhoto|MicroVideo|VideoLength|LivePhoto|hdrgm:V|GDepth:F|<Container|c2pa"
    assert not re.search(lost + rb"|tiff:[BC]|ColorMode", data)
    assert all(part in data for part in (b"SpecialTypeID", b"Ulm", b"<dc:title>t</dc:title>"))
    assert notes == ()


@pytest.mark.parametrize(
    "hostile",
    [
        b'<!DOCTYPE a [<!ENTITY b "cc"><!ENTITY c "&b;&b;">]><a>&c;</a>',
        b'<!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>',
        b"<a>",
        b"\xff\xfe\0\0",
        b"<a>" * 50_000 + b"</a>" * 50_000,
        b"x" * (1 << 24) + b"x",
        packet("GPano:FullPanoWidthPixels='1e999'"),
    ],
    ids=["entities", "external", "cut", "no text", "deep", "long", "infinite"],
)
def test_hostile_xmp_is_dropped_with_a_note(hostile):
    """It is not expanded, and costs neither the picture nor an exception."""
    data, notes = fitted(hostile)

    assert (data, notes) == (None, ("XMP cannot be read safely: dropped",))
    assert xmp.without_location(hostile) is None or b"1e999" in hostile


LONG = "x" * 150_000


@pytest.mark.parametrize(
    ("attributes", "inside"),
    [("", f"<dc:description>{LONG}</dc:description>"), (f'dc:description="{LONG}"', "")],
    ids=["element", "attribute"],
)
def test_xmp_too_long_for_a_segment_goes_on_in_others(attributes, inside):
    """As ISO 16684-3 has it; short attributes stay where every reader looks. It is read again."""
    long = packet(f'xmp:Rating="4" {attributes}', inside)
    file, notes = encoded(pictured(xmp=long), "JPEG")

    assert notes == ()
    with Image.open(file) as image:
        main = image.info["xmp"]
    assert b'xmp:Rating="4"' in main
    assert b"HasExtendedXMP" in main
    assert LONG.encode() in read_album(Path("a"), file.getvalue()).pictures[0].metadata.xmp
