"""EXIF in the files that are written: never wrong, and nothing lost without a word."""

import io
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from metadata_blocks import (
    FORMATS,
    MAKER_LOST,
    NOTE,
    ORDERS,
    Layout,
    block,
    encoded,
    parsed,
    parsed_block,
    pictured,
    stored,
    text,
)
from PIL import ExifTags, Image
from reading_files import SRGB

from srcli.imaging import exif, images
from srcli.imaging.ifd import EXIF, GPS, INTEROP, LONG, SHORT
from srcli.imaging.images import read_album


@ORDERS
@pytest.mark.parametrize("name", FORMATS)
def test_exif_says_what_it_said_of_the_new_pixels(name, order):
    """Orientation and sizes follow, all else stays; no byte of maker's notes moves (offsets)."""
    before = block(order, thumbnail=b"\xff\xd8" + b"thumb" * 100)
    file, notes = encoded(pictured(exif=before, orientation=6), name)

    main, parts = parsed(file)
    assert (main[0x10F], main.get(0x112, 1)) == ("Canon", 1)
    assert parts[EXIF][0x9003] == "2019:06:15 10:20:30"
    assert (parts[EXIF][0xA002], parts[EXIF][0xA003]) == (192, 128)
    assert parts[GPS] == {1: "N", 2: (48.0, 30.0, 0.0)}
    with Image.open(file) as image:
        assert image.getexif().get_ifd(ExifTags.IFD.IFD1) == {}
    assert notes == ((MAKER_LOST,) if name == "TIFF" else ())
    assert (0x927C in parts[EXIF]) is (name != "TIFF")
    again = read_album(Path("a"), file.getvalue()).pictures[0].metadata.exif
    assert parsed_block(again)[1][EXIF][0x9003] == "2019:06:15 10:20:30"
    if name != "TIFF":
        after = b"Exif\0\0" + stored(file)
        assert (len(after), after.index(NOTE)) == (len(before), before.index(NOTE))


def test_values_are_taken_out_where_they_stand():
    """Tags of the old file's storage go, the later ones move up, and values stay."""
    layout = Layout("<", big=False)
    storage = {0x103: layout.numbers(SHORT, 6), 0x111: layout.numbers(LONG, 1234)}
    white = (5, struct.pack("<4I", 3127, 10000, 3290, 10000))
    before = block(main={**storage, 0x13E: white, 0x8298: text("© somebody")})

    after, _ = exif.fitted_exif(pictured(exif=before))

    found = Image.Exif()
    found.load(after)
    assert not storage.keys() & found.keys()
    assert found[0x13E] == (0.3127, 0.329)  # of its colours, which stay
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

    upright, notes = exif.fitted_exif(pictured(exif=given_block))
    turned = exif.fitted_exif(pictured(exif=given_block, orientation=6))[0]

    _, parts = parsed_block(upright)
    assert parts[EXIF][0x9214] == (20, 40, 16, 8)
    assert float(parts[EXIF][0xA20E]) == 3000
    assert 0xA20F not in parts[EXIF]  # twice as much is no number of 32 bits
    assert notes == ("EXIF FocalPlaneYResolution cannot follow the new size: dropped",)
    assert parts[INTEROP][0x1001] == 192
    _, notes = exif.fitted_exif(pictured(exif=given_block, width=19_200, size=(1, 64)))
    assert "Subject" in notes[0]  # no number of 16 bits either
    # Stored 64 across and 96 down; the top came to lie right.
    assert parsed_block(turned)[1][EXIF][0x9214] == (152, 20, 8, 16)


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


@pytest.mark.parametrize(
    ("tag", "kind", "start"),
    [
        (EXIF, LONG, 8),
        (EXIF, LONG, 4000),
        (GPS, LONG, 8),
        (INTEROP, LONG, 2**32 - 1),
        (0xA20E, 5, 0),
        (0xA20E, 5, 20),  # among the entries themselves
    ],
)
def test_what_leads_in_circles_or_past_the_end(tag, kind, start):
    """The value or directory goes with a note; the others stay."""
    data = bytearray(block(details={0xA20E: (5, struct.pack("<II", 3000, 2))}))
    at = data.index(struct.pack("<HHI", tag, kind, 1)) + 8
    data[at : at + 4] = struct.pack("<I", start)

    after, notes = exif.fitted_exif(pictured(exif=bytes(data)))

    main, parts = parsed_block(after)
    assert main[0x10F] == "Canon"
    assert parts.get(tag, {}) == {}
    assert (0xA20E in parts[EXIF]) is (kind == LONG and tag != EXIF)
    assert notes == ("EXIF is damaged: values that lie outside of it dropped",)


def test_makers_notes_of_too_long_a_size_stay():
    """As programs leave them that have changed a file: what lies in them is not theirs."""
    data = block()
    head = struct.pack("<HHI", 0x927C, 7, len(NOTE))
    data = data.replace(head, struct.pack("<HHI", 0x927C, 7, len(data) - data.index(NOTE)))

    after, notes = exif.fitted_exif(pictured(exif=data))

    assert NOTE in after
    assert notes == ()


@pytest.mark.parametrize(
    "junk", [b"garbage", b"II*\0\xff\xff\xff\x7f", b"MM\0*\0\0\0\x08\xff\xff", b"", b"II+\0" * 9]
)
def test_exif_that_is_none_is_dropped_with_a_note(junk):
    """It costs neither the picture nor an exception."""
    assert encoded(pictured(exif=b"Exif\0\0" + junk), "PNG")[1] == (exif.DAMAGED,)
    assert exif.without_location(b"Exif\0\0" + junk) is None
    assert exif.block_of(io.BytesIO(junk), 8) == (None, False)


@given(st.data())
def test_damaged_exif_never_costs_the_picture(data):
    """Whatever bytes are changed, every format is written."""
    damaged = bytearray(block(data.draw(st.sampled_from("<>")), thumbnail=b"thumb" * 9))
    for _ in range(data.draw(st.integers(1, 6))):
        damaged[data.draw(st.integers(6, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    picture = pictured(exif=bytes(damaged), height=3, width=4, dpi=(300.0, 300.0))

    file, _ = encoded(picture, data.draw(st.sampled_from(FORMATS)))

    images.without_location(picture.metadata)
    assert read_album(Path("a"), file.getvalue()).pictures[0].width == 4


def test_entries_that_all_claim_the_whole_block_do_not_fill_the_memory():
    """A thousand values of a megabyte each, all in the same place."""
    value = 1 << 20
    table = struct.pack("<H", 1000)
    table += b"".join(struct.pack("<HHII", 0x9999 + n, 7, value, 12_014) for n in range(1000))
    data = b"II*\0\x08\0\0\0" + table + b"\0" * 4 + b"\0" * value

    assert exif.block_of(io.BytesIO(data), 8) == (None, False)
    picture = pictured(exif=b"Exif\0\0" + data, height=3, width=4, dpi=(300.0, 300.0))
    assert encoded(picture, "WEBP")[1] == (exif.DAMAGED,)
