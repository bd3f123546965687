"""XMP in the files that are written: it follows the pixels, or goes with a note."""

import re
from pathlib import Path

import pytest
from metadata_blocks import FORMATS, encoded, packet, pictured
from PIL import Image

from srcli.imaging import xmp
from srcli.imaging.images import read_album


def fitted(data, **more):
    """Fit a packet to a picture of twice the size."""
    return xmp.fitted_xmp(pictured(xmp=data, **more))


@pytest.mark.parametrize("name", FORMATS)
def test_xmp_that_says_nothing_of_pixels_travels_to_the_byte(name):
    """Also letters outside of ASCII."""
    data = packet(inside="<dc:title>Straße</dc:title>")
    file, notes = encoded(pictured(xmp=data), name)

    assert read_album(Path("a"), file.getvalue()).pictures[0].metadata.xmp == data
    assert notes == ()


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
        ("xmp:Rating", 4, 4),
    ],
)
def test_numbers_of_pixels_in_xmp_follow_them(name, before, after):
    """As attributes and as elements."""
    attribute, _ = fitted(packet(f'{name}="{before}"'))
    element, _ = fitted(packet(inside=f"<{name}>{before}</{name}>"))

    assert f'{name}="{after}"'.encode() in attribute
    assert f"<{name}>{after}</{name}>".encode() in element


def test_a_long_attribute_goes_into_the_extension():
    """As phones keep their notes; the others stay where every reader looks."""
    data = packet('xmp:Rating="4" dc:title="' + "t" * 70_000 + '"')
    file, notes = encoded(pictured(xmp=data), "JPEG")

    with Image.open(file) as image:
        assert b'xmp:Rating="4"' in image.info["xmp"]
    found = read_album(Path("a"), file.getvalue()).pictures[0].metadata.xmp
    assert (b"t" * 70_000 in found, notes) == (True, ())


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


@pytest.mark.parametrize("acdsee", [False, True])
def test_faces_are_turned_with_the_picture(acdsee):
    """Of all kinds; without a turn only the size that they apply to changes."""
    given = packet(inside=REGION)
    for space in re.findall(rb"http://ns.adobe.com/[^\"]*(?=sType/Area|sType/Dim)", given):
        given = given.replace(space + b"sType", b"http://ns.acdsee.com/sType") if acdsee else given
    upright, _ = fitted(given)
    turned, _ = fitted(given, orientation=6)

    for part in (b'stDim:w="192"', b'stArea:x="0.25"', b"0.2, 0.4, 0.1, 0.2"):
        assert part in upright
    for part in (
        b'stArea:x="0.5"',
        b'stArea:y="0.25"',
        b'stArea:w="0.2"',
        b'stArea:h="0.1"',
        b"0.4, 0.2, 0.2, 0.1",
    ):
        assert part in turned


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

    assert not re.search(rb"MotionPhoto|MicroVideo|VideoLength|LivePhoto", data)
    assert not re.search(rb"hdrgm:V|GDepth:F|<Container|c2pa|tiff:[BC]|ColorMode", data)
    assert b"SpecialTypeID" in data
    assert b"Ulm" in data
    assert b"<dc:title>t</dc:title>" in data
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
    ],
    ids=["entities", "external", "cut", "no text", "deep", "long"],
)
def test_hostile_xmp_is_dropped_with_a_note(hostile):
    """It is not expanded, and costs neither the picture nor an exception."""
    data, notes = fitted(hostile)

    assert data is None
    assert [re.match("XMP (cannot be read safely|is nested)", note) is not None for note in notes]
    assert xmp.without_location(hostile) is None


def test_xmp_too_long_for_a_segment_goes_on_in_others():
    """As ISO 16684-3 has it; put together again it says the same. Padding is not counted."""
    long = packet('xmp:Rating="4"', f"<dc:description>{'x' * 150_000}</dc:description>")
    file, notes = encoded(pictured(xmp=long), "JPEG")

    assert notes == ()
    with Image.open(file) as image:
        main = image.info["xmp"]
        parts = [part for _, part in image.applist if b"/xmp/extension/" in part[:40]]
    assert b'xmp:Rating="4"' in main
    assert b"HasExtendedXMP" in main
    together = xmp.joined(main, b"".join(part[35 + 32 + 8 :] for part in parts))
    assert b"x" * 150_000 in together
    padded = packet() + b" " * 70_000 + b'<?xpacket end="w"?>'
    assert xmp.split(padded, 65_000) == (packet() + b'\n<?xpacket end="w"?>', ())
