"""Metadata in the files that are written: never wrong, and nothing lost without a word."""

import io
import re
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageCms, IptcImagePlugin, features

from srcli.imaging import exif, images, xmp
from srcli.imaging.embedding import dpi_of
from srcli.imaging.formats import BUILT
from srcli.imaging.ifd import EXIF, GPS, INTEROP, LONG, MAIN, SHORT, Layout, laid_out
from srcli.imaging.images import Album, Metadata, Picture, read_album, to_pillow
from srcli.imaging.profiles import stripped
from srcli.imaging.writing import write_stream

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
FORMATS = [name for name in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF") if name in BUILT]
ORDERS = pytest.mark.parametrize("order", ["<", ">"], ids=["little", "big"])
NOTE = bytes(range(256)) * 3
CAPTION = b"\x1c\x02\x05\0\x05Night\x1c\x02\x78\0\x03\xc3\x9fx"
MAKER_LOST = "TIFF holds no maker's notes of EXIF, whose offsets would go wrong: dropped"
DOCUMENT = Path(__file__).parents[1] / "docs" / "formats.md"


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


def stored(file):
    """Give the EXIF block of a file as it is stored, without its name."""
    with Image.open(file) as image:
        return image.info["exif"].removeprefix(b"Exif\0\0")


# ---- EXIF ---------------------------------------------------------------------------------


@ORDERS
@pytest.mark.parametrize("name", FORMATS)
def test_exif_says_what_it_said_of_the_new_pixels(name, order):
    """Date, camera, place and exposure stay; orientation and sizes follow; others can read it."""
    file, notes = encoded(pictured(exif=block(order), orientation=6), name)

    main, parts = parsed(file)
    assert (main[0x10F], main.get(0x112, 1)) == ("Canon", 1)
    assert parts[EXIF][0x9003] == "2019:06:15 10:20:30"
    assert (parts[EXIF][0xA002], parts[EXIF][0xA003]) == (192, 128)
    assert parts[GPS] == {1: "N", 2: (48.0, 30.0, 0.0)}
    assert notes == ((MAKER_LOST,) if name == "TIFF" else ())
    assert (0x927C in parts[EXIF]) is (name != "TIFF")


@ORDERS
@pytest.mark.parametrize("name", [name for name in FORMATS if name != "TIFF"])
def test_makers_notes_stay_where_they_were(name, order):
    """Their offsets count from the start of the block, so no byte of it may move."""
    before = block(order).removeprefix(b"Exif\0\0")
    after = stored(encoded(pictured(exif=b"Exif\0\0" + before), name)[0])

    assert after.index(NOTE) == before.index(NOTE)
    assert len(before) == len(after)
    changed = [at for at, (old, new) in enumerate(zip(before, after, strict=True)) if old != new]
    # Sizes, orientation (of which AVIF keeps none), colour space, interoperability index.
    assert len(changed) <= (80 if name == "AVIF" else 14)


@ORDERS
def test_the_thumbnail_goes_and_nothing_else(order):
    """At the end of a block it is cut off; elsewhere it is blanked."""
    thumbnail = b"\xff\xd8" + b"thumb" * 100
    with_it = block(order, thumbnail=thumbnail)
    inside = with_it + b"what comes behind"

    for given_block in (with_it, inside):
        after, notes = exif.fitted_exif(pictured(exif=given_block))
        assert b"thumb" not in after
        assert notes == ()
        assert after.index(NOTE) == given_block.index(NOTE)
    assert after.endswith(b"what comes behind")


def test_values_are_taken_out_where_they_stand():
    """Tags of the old file's storage go, the later ones move up, and values stay."""
    layout = Layout("<", big=False)
    storage = {0x103: layout.numbers(SHORT, 6), 0x111: layout.numbers(LONG, 1234)}
    before = block(main={**storage, 0x8298: text("© somebody")})

    after, _ = exif.fitted_exif(pictured(exif=before))

    found = Image.Exif()
    found.load(after)
    assert not storage.keys() & found.keys()
    assert found[0x8298].encode("latin-1").decode() == "© somebody"
    assert after.index("©".encode()) == before.index("©".encode())


@ORDERS
def test_what_speaks_of_pixels_follows_them(order):
    """The subject's place is turned and scaled, the sensor's pixel density with the size."""
    layout = Layout(order, big=False)
    details = {
        0x9214: layout.numbers(SHORT, 10, 20, 8, 4),
        0xA20E: (5, struct.pack(f"{order}II", 3000, 2)),
        0xA20F: (5, struct.pack(f"{order}II", 2**32 - 1, 2)),
    }
    given_block = block(order, details=details, interop={0x1001: layout.numbers(LONG, 96)})

    upright = exif.fitted_exif(pictured(exif=given_block))[0]
    turned = exif.fitted_exif(pictured(exif=given_block, orientation=6))[0]

    _, parts = parsed_block(upright)
    assert parts[EXIF][0x9214] == (20, 40, 16, 8)
    assert float(parts[EXIF][0xA20E]) == 3000
    assert float(parts[EXIF][0xA20F]) == pytest.approx(2**32, rel=1e-6)
    assert parts[INTEROP][0x1001] == 192
    # Stored 64 across and 96 down; the top came to lie right.
    assert parsed_block(turned)[1][EXIF][0x9214] == (152, 20, 8, 16)


def parsed_block(data):
    """Let Pillow read a block."""
    found = Image.Exif()
    found.load(data)
    return dict(found), {tag: dict(found.get_ifd(tag)) for tag in (EXIF, GPS, INTEROP)}


def test_a_place_that_cannot_follow_is_dropped_with_a_note():
    """A wrong value is worse than none."""
    place = {0x9214: Layout("<", big=False).numbers(SHORT, 90, 60)}
    after, notes = exif.fitted_exif(pictured(exif=block(details=place), width=192_000))

    assert len(notes) == 1
    assert re.fullmatch(r"EXIF Subject\w+ cannot follow the new size: dropped", notes[0])
    assert 0x9214 not in parsed_block(after)[1][EXIF]


def test_colours_made_srgb_do_not_claim_adobe_rgb():
    """R03 says Adobe RGB where there is no profile (DCF 2.0); with one it stays."""
    bare, _ = exif.fitted_exif(pictured(exif=block()))
    profiled, _ = exif.fitted_exif(pictured(exif=block(), icc_profile=SRGB))

    assert parsed_block(bare)[1][INTEROP][1] == "R98"
    assert parsed_block(bare)[1][EXIF][0xA001] == 1
    assert parsed_block(profiled)[1][INTEROP][1] == "R03"


@ORDERS
def test_exif_too_long_for_a_jpeg_loses_its_largest_values(order):
    """Maker's notes first, by name; date, camera and place stay."""
    long = block(order, details={0x927C: (7, b"m" * 70_000), 0x9286: (7, b"u" * 66_000)})
    file, notes = encoded(pictured(exif=long), "JPEG")

    assert notes == ("JPEG holds 64 KiB of EXIF: without maker's notes, UserComment",)
    main, parts = parsed(file)
    assert (main[0x10F], parts[EXIF][0x9003]) == ("Canon", "2019:06:15 10:20:30")
    assert parts[GPS][2] == (48.0, 30.0, 0.0)
    assert encoded(pictured(exif=long), "PNG")[1] == ()


@pytest.mark.parametrize("start", [8, 0, 2**32 - 1, 4000])
@pytest.mark.parametrize("tag", [EXIF, GPS, INTEROP])
def test_pointers_in_circles_or_past_the_end(tag, start):
    """The directory goes with a note; the others stay."""
    data = bytearray(block())
    at = data.index(struct.pack("<HHI", tag, LONG, 1)) + 8
    data[at : at + 4] = struct.pack("<I", start)

    after, notes = exif.fitted_exif(pictured(exif=bytes(data)))

    main, parts = parsed_block(after)
    assert main[0x10F] == "Canon"
    assert parts[tag] == {}
    assert notes == ("EXIF is damaged: values that lie outside of it dropped",)


@pytest.mark.parametrize(
    "junk", [b"garbage", b"II*\0\xff\xff\xff\x7f", b"MM\0*\0\0\0\x08\xff\xff", b"", b"II+\0" * 9]
)
def test_exif_that_is_none_is_dropped_with_a_note(junk):
    """It costs neither the picture nor an exception."""
    assert exif.fitted_exif(pictured(exif=b"Exif\0\0" + junk)) == (None, (exif.DAMAGED,))
    assert exif.without_location(b"Exif\0\0" + junk) is None
    assert exif.block_of(io.BytesIO(junk), 8) is None


@given(st.data())
def test_damaged_exif_never_costs_the_picture(data):
    """Whatever bytes are changed, every format is written."""
    damaged = bytearray(block(data.draw(st.sampled_from("<>")), thumbnail=b"thumb" * 9))
    for _ in range(data.draw(st.integers(1, 6))):
        damaged[data.draw(st.integers(6, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    picture = pictured(exif=bytes(damaged), height=3, width=4, dpi=(300.0, 300.0))

    file, _ = encoded(picture, data.draw(st.sampled_from(FORMATS)))

    images.without_location(Album(pictures=(picture,)))
    assert read_album(Path("a"), file.getvalue()).pictures[0].width == 4


def test_entries_that_all_claim_the_whole_block_do_not_fill_the_memory():
    """A thousand values of a megabyte each, all in the same place."""
    value = 1 << 20
    table = struct.pack("<H", 1000)
    table += b"".join(struct.pack("<HHII", 0x9999 + n, 7, value, 0) for n in range(1000))
    data = b"II*\0\x08\0\0\0" + table + b"\0" * 4 + b"\0" * value

    assert exif.block_of(io.BytesIO(data), 8) is None


@ORDERS
def test_a_directory_of_a_tiff_becomes_a_block(order):
    """Its description, exposure and place, without what was true of the file."""
    layout = Layout(order, big=True)
    parts = {
        MAIN: {256: layout.numbers(LONG, 9), 0x10F: text("Canon"), 273: layout.numbers(16, 5)},
        EXIF: {0x9003: text("2019:06:15 10:20:30"), 0x927C: (7, NOTE)},
        GPS: {1: text("N")},
    }
    head = struct.pack(f"{order}2sHHHQ", b"II" if order == "<" else b"MM", 43, 8, 0, 16)

    made = exif.block_of(io.BytesIO(head + laid_out(parts, 16, layout)), 16)

    main, found = parsed_block(made)
    assert main.keys() == {0x10F, EXIF, GPS}
    assert found[EXIF] == {0x9003: "2019:06:15 10:20:30"}
    assert found[GPS] == {1: "N"}


# ---- XMP ----------------------------------------------------------------------------------

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


REGION = (
    '<mwg-rs:Regions><mwg-rs:AppliedToDimensions stDim:w="96" stDim:h="64" stDim:unit="pixel"/>'
    '<mwg-rs:Area stArea:x="0.25" stArea:y="0.5" stArea:w="0.1" stArea:h="0.2" '
    'stArea:unit="normalized"/></mwg-rs:Regions>'
    "<MPReg:Rectangle>0.2, 0.4, 0.1, 0.2</MPReg:Rectangle>"
)


def test_faces_are_turned_with_the_picture():
    """Of both kinds; without a turn only the size that they apply to changes."""
    upright, _ = fitted(packet(inside=REGION))
    turned, _ = fitted(packet(inside=REGION), orientation=6)

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
    """Motion photos, depth and gain maps; what is beside it stays."""
    gone = 'GCamera:MotionPhoto="1" GCamera:MicroVideoOffset="9" hdrgm:Version="1.0" GDepth:Far="2"'
    data, notes = fitted(
        packet(gone + ' GCamera:SpecialTypeID="x"', "<Container:Directory/><dc:title>t</dc:title>")
    )

    assert not re.search(rb"MotionPhoto|MicroVideo|hdrgm:V|GDepth:F|<Container", data)
    assert b"SpecialTypeID" in data
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


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-16-le", "utf-32", "utf-32-be"])
def test_wide_xmp_becomes_narrow(encoding):
    """Packets of 16 or 32 bits a character are written in UTF-8."""
    wide = packet('tiff:Orientation="6"').decode().encode(encoding)

    assert b'tiff:Orientation="1"' in fitted(wide)[0]


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


# ---- the place, and all else --------------------------------------------------------------


@pytest.mark.parametrize("name", FORMATS)
def test_the_place_can_be_left_out_alone(name):
    """No byte of it is in the file, and the rest is."""
    data = packet('exif:GPSLatitude="48,30N" xmp:Rating="4"')
    place = {0x1D: text("2019:06:14")}
    album = Album(pictures=(pictured(exif=block(place=place), xmp=data),))

    bare = images.without_location(album)
    file, _ = encoded(bare.pictures[0], name)

    main, parts = parsed(file)
    assert (parts[GPS], GPS in main) == ({}, False)
    assert parts[EXIF][0x9003] == "2019:06:15 10:20:30"
    for secret in (b"2019:06:14", b"48,30N", struct.pack("<6I", 48, 1, 30, 1, 0, 1)):
        assert secret not in file.getvalue()
    assert b'xmp:Rating="4"' in bare.pictures[0].metadata.xmp


@pytest.mark.parametrize("dpi", [(300.0, 150.0), (72.0, 72.0), (2400.0, 2400.0)])
@pytest.mark.parametrize("given_exif", [None, block()], ids=["bare", "exif"])
@pytest.mark.parametrize("name", [*FORMATS, "BMP"])
def test_resolution_travels(name, given_exif, dpi):
    """In EXIF where the format has no other place for it."""
    file, _ = encoded(pictured(exif=given_exif, dpi=dpi), name)

    found = read_album(Path("a"), file.getvalue()).pictures[0].metadata.dpi
    assert found == pytest.approx(dpi, abs=0.02)


@pytest.mark.parametrize(
    "dpi",
    [None, 72, (72,), (1, 1), (0, 0), (-1, 300), (float("nan"), 1), (float("inf"), 1), (1e9, 1e9)],
)
def test_resolutions_without_meaning_are_dropped(dpi):
    """Only two positive, finite numbers that every format can hold are a resolution."""
    assert dpi_of(dpi) is None


@pytest.mark.parametrize("name", ["JPEG", "TIFF"])
def test_captions_travel(name):
    """The records of IPTC come out as they went in, and Pillow finds them too."""
    file, notes = encoded(pictured(iptc=CAPTION), name)

    assert notes == ()
    assert read_album(Path("a"), file.getvalue()).pictures[0].metadata.iptc == CAPTION
    with Image.open(file) as image:
        found = IptcImagePlugin.getiptcinfo(image)
    assert found == {(2, 5): b"Night", (2, 120): b"\xc3\x9fx"}


@pytest.mark.parametrize(("field", "most"), [("iptc", 65506), ("comment", 65533)])
def test_what_a_segment_of_a_jpeg_cannot_hold_is_named(field, most):
    """What just fits is kept."""
    word = {"iptc": "IPTC", "comment": "comment"}[field]

    assert encoded(pictured(**{field: b"x" * most}), "JPEG")[1] == ()
    notes = encoded(pictured(**{field: b"x" * (most + 1)}), "JPEG")[1]
    assert notes == (f"JPEG holds 64 KiB of {word}: dropped",)


def test_texts_of_a_png_come_back_in_order():
    """Of any script; a keyword that PNG forbids is named, and Pillow's own names do no harm."""
    texts = (("Title", "Night"), ("dpi", "x"), ("exif", "y"), ("Author", "名前"), ("Z", "ä\n"))
    file, notes = encoded(pictured(text=texts), "PNG")
    with Image.open(file) as image:
        found = tuple(image.text.items())

    assert found == texts
    assert notes == ()
    for keyword in ("", " a", "a  b", "名", "x" * 80, "a\n"):
        notes = encoded(pictured(text=((keyword, "t"),)), "PNG")[1]
        assert notes == ("PNG holds no text under such keywords as these: dropped",)


def test_chunks_that_say_what_colours_are_stay_in_a_png():
    """Instead of the profile that was made of them."""
    chunks = ((b"gAMA", struct.pack(">I", 100_000)), (b"cHRM", bytes(32)))
    file, _ = encoded(pictured(colour_chunks=chunks, icc_profile=SRGB), "PNG")

    data = file.getvalue()
    assert b"gAMA" + chunks[0][1] in data
    assert b"cHRM" + chunks[1][1] in data
    assert b"iCCP" not in data
    assert b"gAMA" not in encoded(pictured(colour_chunks=chunks), "WEBP")[0].getvalue()


def test_a_grey_profile_does_not_follow_grey_into_rgb():
    """Where grey is stored as RGB, a grey profile would be wrong."""
    fake = b"\0" * 16 + b"GRAY" + b"\0" * 16 + b"acsp" + b"\0" * 88
    grey = Picture(pixels=np.full((4, 5, 1), 9, np.uint8), metadata=Metadata(icc_profile=fake))
    file, notes = encoded(grey, "WEBP")

    assert notes == ("WEBP holds no grey ICC profile: dropped",)
    with Image.open(file) as image:
        assert "icc_profile" not in image.info


def test_pillow_images_keep_their_metadata():
    """Profile, EXIF, XMP and resolution are where Pillow's own readers put them."""
    data = packet('xmp:Rating="4"')
    picture = pictured(exif=block(), xmp=data, icc_profile=SRGB, dpi=(300.0, 300.0))
    image = to_pillow(picture)

    assert image.info["icc_profile"] == SRGB
    assert image.info["xmp"] == data
    assert image.info["dpi"] == (300, 300)
    assert image.getexif()[ExifTags.Base.Make] == "Canon"
    assert to_pillow(Picture(pixels=picture.pixels)).info == {}


def test_pages_keep_their_own_metadata():
    """Profile, EXIF and resolution of a page are its own, whatever its byte order."""
    pages = (
        pictured(icc_profile=SRGB, dpi=(300.0, 300.0)),
        pictured(exif=block(">"), height=9),
        pictured(exif=block("<"), width=11),
    )
    file = io.BytesIO()
    notes = write_stream(Album(pictures=pages), file, format="TIFF")

    assert notes == (MAKER_LOST,)
    with Image.open(file) as image:
        assert image.tag_v2[34675] == SRGB
        assert 0x10F not in image.tag_v2
        for page, width in ((1, 192), (2, 11)):
            image.seek(page)
            assert (image.tag_v2[0x10F], image.width) == ("Canon", width)
            assert not {34675, 282} & image.tag_v2.keys()


ODD = st.builds(
    Metadata,
    icc_profile=st.none() | st.binary(max_size=200),
    exif=st.none()
    | st.binary(max_size=100).map(lambda data: b"Exif\0\0" + data)
    | st.just(block()),
    xmp=st.none() | st.binary(max_size=100) | st.just(b"<x/>") | st.just(b"x" * 70_000),
    dpi=st.none() | st.tuples(st.floats(), st.floats()),
    text=st.lists(st.tuples(st.text(), st.text()), max_size=3).map(tuple),
    iptc=st.none() | st.binary(max_size=100) | st.just(b"i" * 70_000),
    comment=st.none() | st.binary(max_size=300) | st.just(b"c" * 70_000),
    colour_chunks=st.lists(st.tuples(st.just(b"gAMA"), st.binary(max_size=9)), max_size=1).map(
        tuple
    ),
    orientation=st.integers(1, 8),
    size=st.none() | st.just((3, 2)),
)


@given(ODD, st.sampled_from(BUILT), st.sampled_from([np.uint8, np.uint16]), st.sampled_from([1, 3]))
def test_odd_metadata_never_costs_the_picture(metadata, name, dtype, channels):
    """Whatever it says, every format is written, the same each time, and can be read."""
    pixels = np.random.default_rng(0).integers(0, 255, (5, 7, channels)).astype(dtype)
    album = Album(pictures=(Picture(pixels=pixels, metadata=metadata),))
    files = [io.BytesIO(), io.BytesIO()]
    for stream in files:
        write_stream(album, stream, format=name)

    assert files[0].getvalue() == files[1].getvalue()
    assert read_album(Path("a"), files[0].getvalue()).pictures[0].width == 7


# ---- the table ----------------------------------------------------------------------------

KINDS = {
    "EXIF": {"exif": block()},
    "maker's notes": {"exif": block()},
    "place": {"exif": block()},
    "XMP": {"xmp": packet('xmp:Rating="4"')},
    "IPTC": {"iptc": CAPTION},
    "ICC profile": {},
    "resolution": {"dpi": (300.0, 300.0)},
    "text": {"text": (("Title", "Night"),)},
    "comment": {"comment": b"hello"},
}


def fate(kind, name):
    """Find out what becomes of one kind of metadata in a format."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    given_metadata = KINDS[kind] or {"icc_profile": swapped(profile)}
    file, notes = encoded(pictured(**given_metadata), name)
    data = file.getvalue()
    kept = {
        "EXIF": lambda: parsed(file)[0].get(0x10F) == "Canon",
        "maker's notes": lambda: NOTE in data,
        "place": lambda: bool(parsed(file)[1][GPS]),
        "XMP": lambda: b'xmp:Rating="4"' in data,
        "IPTC": lambda: b"Night" in data,
        "ICC profile": lambda: bool(read_album(Path("a"), data).pictures[0].metadata.icc_profile),
        "resolution": lambda: read_album(Path("a"), data).pictures[0].metadata.dpi is not None,
        "text": lambda: b"Night" in data,
        "comment": lambda: b"hello" in data,
    }[kind]()
    if kept:
        return "kept"
    assert notes, f"{kind} is lost in {name} without a word"
    return "converted to sRGB" if any("converted" in note for note in notes) else "dropped"


def swapped(profile):
    """Make a profile like sRGB whose red and green primaries are exchanged."""
    return profile.replace(b"rXYZ", b"????").replace(b"gXYZ", b"rXYZ").replace(b"????", b"gXYZ")


@pytest.mark.skipif("AVIF" not in BUILT or not features.check("webp"), reason="not all formats")
def test_the_table_of_the_documentation_is_what_happens():
    """Each pair of a format and a kind of metadata is tried; print the rows to renew the table."""
    rows = [f"| {' | '.join(['', *KINDS])} |", f"|{'---|' * (len(KINDS) + 1)}"]
    rows += [f"| {name} | {' | '.join(fate(kind, name) for kind in KINDS)} |" for name in BUILT]
    table = "\n".join(rows)

    assert table in DOCUMENT.read_text(encoding="utf-8"), table


def test_stripped_metadata_is_gone():
    """Nothing is left that could be written."""
    album = stripped(Album(pictures=(pictured(exif=block(), xmp=packet(), iptc=CAPTION),)))

    assert album.pictures[0].metadata == Metadata()
