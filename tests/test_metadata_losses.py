"""What a file says that does not travel: kept, or named once, never lost without a word."""

import io
import struct
import zlib

import numpy as np
import pytest
import tifffile
from metadata_blocks import block, encoded, packet, pictured
from PIL import Image
from reading_files import NAME, SRGB, as_bytes, png_with

from srcli.imaging.reading import read, read_album

NO_END = "its end mark is missing; every pixel is there"
EXTENSION = b"http://ns.adobe.com/xmp/extension/\0"
XMP = b"http://ns.adobe.com/xap/1.0/\0"


def saved(kind, shape=(32, 48, 3), **options):
    """Encode a gradient through Pillow."""
    pixels = np.linspace(0, 255, np.prod(shape)).reshape(shape).astype(np.uint8)
    return as_bytes(Image.fromarray(pixels), kind, **options)


def jpeg(*segments, shape=(32, 48, 3)):
    """Put segments, each a marker and its content, into a JPEG."""
    data = saved("JPEG", shape)
    parts = [struct.pack(">BBH", 255, mark, 2 + len(body)) + body for mark, body in segments]
    return data[:2] + b"".join(parts) + data[2:]


def says(words):
    """Put XMP into a JPEG."""
    return jpeg((0xE1, XMP + packet(words)))


def described(*tags):
    """Make a TIFF with tags: number, type, count and value of each."""
    stream = io.BytesIO()
    more = [(*tag, True) for tag in tags]
    pixels = np.zeros((8, 8, 3), np.uint8)
    tifffile.imwrite(stream, pixels, photometric="rgb", extratags=more, metadata=None)
    return stream.getvalue()


def box(name, content):
    """Make a box as AVIF, HEIC and JPEG XL have them."""
    return struct.pack(">I4s", 8 + len(content), name) + content


def riff(name, content):
    """Put a chunk into a WebP."""
    data = saved("WEBP") + struct.pack("<4sI", name, len(content)) + content
    data += b"\0" * (len(content) % 2)
    return data[:4] + struct.pack("<I", len(data) - 8) + data[8:]


BEHIND = "left out: data behind its end mark"
NOT_SQUARE = "its pixels are not square (densities 2 and 1): dropped"
PROFILE_LOST = "its ICC profile is damaged or not of such pixels: dropped"


@pytest.mark.parametrize(
    ("data", "note"),
    [
        (jpeg((0xE1, b"FLIR\0\1\0\0")), "left out: FLIR"),
        (jpeg((0xE6, b"GoPro\0DEVC"), (0xE2, b"FPXR\0")), "left out: GoPro, FPXR"),
        (
            jpeg((0xEB, b"JP\0\1....jumbc2pa"), (0xEB, b"JP\0\1...2more")),
            "left out: content credentials",
        ),
        (says('GCamera:MotionPhoto="1"'), "left out: the video of a motion photo"),
        (says('GCamera:MicroVideo="1"'), "left out: the video of a motion photo"),
        (says('hdrgm:Version="1.0"'), "left out: a gain map"),
        (says('GDepth:Format="RangeInverse"'), "left out: a depth map"),
        (jpeg((0xE5, b"\1\2\3")), "left out: data in APP5"),
        (
            jpeg((0xED, b"Photoshop 3.0\x008BIM\4\x0b\0\0\0\0\0\4url.")),
            "left out: settings of Photoshop",
        ),
        (jpeg() + b"SEFHdataSEFT", BEHIND),
        (jpeg() + jpeg(), BEHIND),
        (png_with((b"tIME", b"abcd")) + b"PK", BEHIND),
        (png_with((b"tIME", b"abcd")) + bytes(9), None),
        (riff(b"C2PA", b"jumbc2pa"), "left out: content credentials"),
        (riff(b"junk", b"odd"), "left out: chunk junk"),
        (saved("AVIF") + box(b"uuid", b"jumbc2pa"), "left out: content credentials"),
        (saved("WEBP") + b"PK", BEHIND),
        (saved("AVIF") + box(b"mpvd", b"video"), "left out: box mpvd"),
        (saved("AVIF") + box(b"free", b"infe" + bytes(8) + b"tmap"), "left out: a gain map"),
        (
            saved("AVIF") + box(b"free", box(b"pasp", b"\0\0\0\1\0\0\0\2")),
            "left out: the shape of its pixels",
        ),
        (
            saved("AVIF") + box(b"free", box(b"clap", bytes(32))),
            "left out: its clean aperture: all of it is shown",
        ),
        (saved("BMP")[:70] + b"DEBM" + saved("BMP")[74:], "left out: an ICC profile"),
        (png_with((b"caBX", b"abcd")), "left out: chunk caBX"),
        (png_with((b"gAMA", b"\1")), "left out: chunk gAMA, which is damaged"),
        (
            png_with((b"tEXt", b"Title\0a")).replace(b"Title\0a", b"Title\0b"),
            "left out: chunk tEXt, which is damaged",
        ),
        (png_with((b"iTXt", b"Title\0\1\0\0\0x")), "left out: chunk iTXt, which is damaged"),
        (
            png_with((b"zTXt", b"Title\0\0" + zlib.compress(bytes(65 << 20)))),
            "left out: chunk zTXt, which is damaged",  # a text of more than 64 MB is taken for it
        ),
        (saved("TIFF", tiffinfo={52545: b"jumbc2pa"}), "left out: content credentials"),
        (saved("JPEG", (32, 48), icc_profile=SRGB), PROFILE_LOST),
        (saved("PNG", icc_profile=b"junk" * 50), PROFILE_LOST),
        (jpeg((0xE2, b"ICC_PROFILE\0\1\2" + SRGB)), PROFILE_LOST),
        (saved("PNG")[:-12], NO_END),
        (png_with((b"pHYs", struct.pack(">IIB", 2, 1, 0))), NOT_SQUARE),
        (png_with((b"pHYs", struct.pack(">IIB", 0, 1, 0))), None),
        (saved("JPEG").replace(b"\0\0\1\0\1\0\0", b"\0\0\2\0\1\0\0", 1), NOT_SQUARE),
        (
            saved("GIF").replace(b",\0\0\0\0", b"!\xff\x0bICCRGBG1012\1x\0,\0\0\0\0"),
            "left out: data of ICCRGBG1",
        ),
        (saved("GIF")[:-1], "it has no end mark: frames may be missing"),
        (saved("GIF") + b"\r\n\0", None),
        (saved("GIF") * 2, BEHIND),
        (saved("PPM") * 2, BEHIND),
        (saved("PPM") + b"\n", None),
        (b"P1 3 1 101 # P\n", None),
        (b"P3 1 1 255 1 2 3 P3 1 1 255 1 2 3", BEHIND),
        (
            described((34377, 7, 4, b"8BIM"), (37724, 7, 50 << 20, bytes(50 << 20))),
            "left out: settings of Photoshop, layers of Photoshop",  # which libtiff does not load
        ),
        (jpeg(shape=(32, 48))[:-2], NO_END),
        (jpeg((0xEC, b"Ducky\0\1")), None),
        (jpeg() + bytes(100), None),
    ],
)
def test_what_does_not_travel_is_named(data, note):
    """Blocks of cameras and programs, broken metadata; the picture is read all the same."""
    assert read_album(NAME, data).notes == ((note,) if note else ())


@pytest.mark.parametrize("name", ["JPEG", "TIFF", "AVIF"])
@pytest.mark.parametrize("exif", [b"Exif\0\0garbage!!", block()[:60]], ids=["garbage", "cut"])
def test_broken_exif_is_named_when_it_is_written(exif, name):
    """Reading hands it on."""
    picture = read(NAME, as_bytes(Image.new("CMYK", (8, 8)), "JPEG", exif=exif))

    assert encoded(picture, name)[1] == ("EXIF is damaged: dropped",)


@pytest.mark.parametrize("missing", [0, 40], ids=["whole", "a part is missing"])
def test_the_extension_of_a_jpegs_xmp_is_put_back(missing):
    """What did not fit into the first packet is handed on, or named where it is not whole."""
    names = 'xmlns:n="http://ns.adobe.com/xmp/note/" dc:title="one" n:HasExtendedXMP="{}"'
    first, more = packet(names.format("A" * 32)), packet('dc:format="two"')
    parts = [(b"A", 40, more[40:]), (b"A", 0, more[:40]), (b"B", 0, b"of another name")]
    segments = [
        (0xE1, EXTENSION + name * 32 + struct.pack(">II", len(more) + missing, at) + part)
        for name, at, part in parts
    ]
    album = read_album(NAME, jpeg((0xE1, XMP + first), *segments))
    found = album.pictures[0].metadata.xmp

    assert b"one" in found
    assert (b"two" in found) is (not missing)
    lost = "XMP is not whole: what is in its extension dropped"
    assert (lost in album.notes) is bool(missing)


def test_no_resolution_is_made_up():
    """Pillow says 72 where EXIF has none, and 96 in a BMP."""
    assert read(NAME, jpeg((0xE1, block()))).metadata.dpi is None
    assert read(NAME, saved("JPEG", dpi=(72, 72))).metadata.dpi == (72, 72)
    file, _ = encoded(pictured(), "BMP")
    assert file.getvalue()[38:46] == bytes(8)


RECORD = b"\x1c\x02\x05\0\x05Night"


@pytest.mark.parametrize("cut", [0, 6, 24])
@pytest.mark.parametrize("whole", [False, True])
def test_captions_go_on_in_the_next_segment(cut, *, whole):
    """In the middle of a resource, or in another one; and so do the settings behind them."""
    records = RECORD + b"\x1c\x02\x78\0\x07Caption" + b"\x1c\x02\x19\0\1k"
    start, head = b"Photoshop 3.0\0", b"8BIM\4\4\0\0"
    parts = records[:cut], records[cut:]
    first = start + head + struct.pack(">I", len(parts[0] if whole else records)) + parts[0]
    second = start + (head + struct.pack(">I", len(parts[1])) if whole else b"") + parts[1]
    settings = b"8BIM\4\x0b\0\0\0\0\0\4url."

    album = read_album(NAME, jpeg((0xED, first), (0xED, second + settings)))

    assert album.pictures[0].metadata.iptc == records
    assert album.notes == ("left out: settings of Photoshop",)


@pytest.mark.parametrize(
    ("name", "data", "field", "expected"),
    [
        ("exif", block(), "exif", block()),
        ("APP1", block(), "exif", block()),
        ("APP1", XMP + packet(), "xmp", packet()),
        ("iptc", b"8BIM\4\4\0\0\0\0\0\x0a" + RECORD, "iptc", RECORD),
        ("xyz", b"\0", "text", (("Raw profile type xyz", "\nxyz\n       1\n00\n"),)),
    ],
)
def test_what_imagemagick_puts_into_a_png_is_kept(name, data, field, expected):
    """As hexadecimal digits; what is no metadata of ours stays a text."""
    value = f"Raw profile type {name}\0\n{name}\n{len(data):8d}\n{data.hex()}\n"
    found = read(NAME, png_with((b"tEXt", value.encode()))).metadata

    assert getattr(found, field) == expected
    assert found.orientation == (6 if field == "exif" else 1)
    assert (found.exif is None) is (field != "exif")


def test_all_comments_of_a_jpeg_are_kept():
    """Pillow hands on the last one."""
    assert read(NAME, jpeg((0xFE, b"one"), (0xFE, b"two"))).metadata.comment == b"one\ntwo"


DJI = 'xmlns:d="http://www.dji.com/drone-dji/1.0/" d:GimbalYawDegree="1" d:CalibratedFocalLength'
REGION = '<I:ImageRegion xmlns:I="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"/>'


@pytest.mark.parametrize(
    ("given", "note"),
    [
        (packet('exif:FocalPlaneXResolution="9/1"'), "XMP FocalPlaneXResolution cannot follow"),
        (packet(DJI + '="3666"'), "XMP CalibratedFocalLength cannot follow"),
        (packet(inside=REGION), "XMP ImageRegion cannot follow"),
    ],
)
def test_what_counts_pixels_in_xmp_is_not_left_wrong(given, note):
    """What does not follow goes, by its name; its neighbours stay."""
    file, notes = encoded(pictured(xmp=given), "PNG")
    found = read(NAME, file.getvalue()).metadata.xmp

    assert [line.startswith(note) for line in notes] == [True]
    assert (b"GimbalYawDegree" in found) is (b"GimbalYawDegree" in given)
    assert not any(word in found for word in (b"FocalPlaneX", b"CalibratedFocal", b"ImageRegion"))


OME = '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org"/>'
GONE = "EXIF {} cannot follow the new size: dropped"


@pytest.mark.parametrize(
    ("tag", "note"),
    [
        ((270, "s", 0, OME), GONE.format("ImageDescription")),
        ((270, "s", 0, "ImageJ=1.54\nimages=2\nunit=micron\n"), GONE.format("ImageDescription")),
        ((270, "s", 0, "ImageJ=1.54\nimages=2\n"), None),
        ((270, "s", 0, "A description"), None),
        ((33550, "d", 3, (10.0, 10.0, 0.0)), GONE.format("tag 33550")),
        ((42113, "s", 0, "-1"), None),
    ],
)
def test_what_states_sizes_does_not_stay_with_other_pixels(tag, note):
    """Descriptions of microscopes, places on the earth: others would be read by the old sizes."""
    file, notes = encoded(read(NAME, described(tag)), "TIFF")

    with Image.open(file) as image:
        assert image.tag_v2.get(tag[0]) == (None if note else tag[3])
    assert notes == ((note,) if note else ())


def test_adobe_rgb_of_a_camera_is_found_in_a_tiff():
    """It is named in EXIF, as DCF has it."""
    file, _ = encoded(pictured(exif=block(), icc_profile=SRGB), "TIFF")
    data = file.getvalue().replace(struct.pack("<H", 34675), struct.pack("<H", 65000), 1)

    profile = read(NAME, data).metadata.icc_profile
    assert "Adobe RGB" in profile.decode("utf-16-be", "ignore")


def test_the_own_resolution_of_exif_goes_into_a_tiff():
    """What JFIF says beside it is often a default."""
    exif = block(main={282: (5, struct.pack("<II", 300, 1)), 283: (5, struct.pack("<II", 300, 1))})
    file, _ = encoded(pictured(exif=exif, dpi=(72.0, 72.0)), "TIFF")

    with Image.open(file) as image:
        assert image.tag_v2[282] == 300


def test_long_captions_are_kept():
    """Of which a record states how many bytes state its length; padding behind them goes."""
    records = b"\x1c\x02\x78\x80\4\0\0\0\5hello\x1c\x02\5\0\1x"
    found = read(NAME, described((33723, 7, len(records) + 2, records + b"\0\0")))

    assert found.metadata.iptc == records


def test_exif_of_an_avif_is_not_laid_out_anew():
    """Pillow would, where the picture is turned otherwise than EXIF says."""
    data = saved("AVIF", exif=block())
    found = read(NAME, data).metadata

    assert found.orientation == 6
    assert found.exif.removeprefix(b"Exif\0\0") in data


@pytest.mark.parametrize("kind", ["TIFF", "PNG"])
def test_a_profile_of_fifty_megabytes_is_dropped(kind):
    """No sound one comes near; libtiff would refuse the picture for it."""
    album = read_album(NAME, saved(kind, icc_profile=SRGB.ljust(50 << 20, b"\0")))

    assert album.notes == (PROFILE_LOST,)
    assert album.pictures[0].metadata.icc_profile is None
