"""Metadata: what is kept of one file, and what the next one says."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, IptcImagePlugin, PngImagePlugin, features

from srcli.imaging.directories import (
    ASCII,
    BYTE,
    LONG,
    RATIONAL,
    SHORT,
    UNDEFINED,
    Entry,
    Exif,
    built,
    entry,
    numbers,
    parsed_exif,
    swapped,
)
from srcli.imaging.directories import exif_block as block_of
from srcli.imaging.pictures import Album, Metadata, Picture
from srcli.imaging.reading import read_album
from srcli.imaging.tags import (
    DIRECTORIES,
    IPTC_RESOURCE,
    IPTC_TAG,
    dpi_of,
    exif_for,
    exif_of,
    metadata_of,
    resolution_tags,
    xmp_for,
    xmp_of,
)
from srcli.imaging.writing import write_stream

DETAILS, PLACE = DIRECTORIES
MAKE, ARTIST, COPYRIGHT, RATING, TITLE, ORIENTATION = 0x10F, 0x13B, 0x8298, 0x4746, 0x9C9B, 0x112
CAPTION = b"\x1c\x02\x05\0\x05Night\x1c\x02\x78\0\x03\xc3\x9fx"
FORMATS = ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"]
WRITTEN = [name for name in FORMATS if name != "AVIF" or "avif" in features.get_supported()]


def text(words):
    """Make an entry of text in UTF-8, which cameras and programs write though EXIF says ASCII."""
    return Entry(kind=ASCII, data=words.encode() + b"\0")


def full(order):
    """Make EXIF of all that a photographer cares about, in one of the byte orders."""
    main = {
        0x10E: text("Straße bei Nacht"),
        MAKE: text("Canon"),
        0x132: text("2024:05:06 07:08:09"),
        ARTIST: text("Jürgen"),
        COPYRIGHT: text("© 2024 Jürgen"),
        RATING: entry(order, SHORT, 4),
        TITLE: Entry(kind=BYTE, data="Tïtle\0".encode("utf-16-le")),
    }
    details = {
        0x829A: entry(order, RATIONAL, 1, 125),
        0x9003: text("2024:05:06 07:08:09"),
        0x9010: text("+02:00"),
        0x9204: entry(order, 10, -1, 3),
        0x927C: Entry(kind=UNDEFINED, data=bytes(range(256)) * 5),
        0x9286: Entry(kind=UNDEFINED, data=b"UNICODE\0" + "häh".encode("utf-16-le")),
        0xA002: entry(order, LONG, 40),
        0xA003: entry(order, LONG, 24),
        0xA432: entry(order, RATIONAL, 50, 1, 50, 1, 18, 10, 18, 10),
        0xA434: text("EF50mm f/1.8"),
    }
    place = {
        0: Entry(kind=BYTE, data=b"\2\3\0\0"),
        1: text("N"),
        2: entry(order, RATIONAL, 48, 1, 8, 1, 1234, 100),
        6: entry(order, RATIONAL, 5190, 10),
    }
    return Exif(order=order, main=main, parts={DETAILS: details, PLACE: place})


def pictured(metadata, height=24, width=40):
    """Make a grey picture with metadata."""
    return Picture(pixels=np.full((height, width, 3), 90, np.uint8), metadata=metadata)


def encoded(metadata, name):
    """Write a picture with metadata, and give the file to read."""
    file = io.BytesIO()
    write_stream(Album(pictures=(pictured(metadata),)), file, format=name)
    return file


def collected(file):
    """Read the metadata of a file."""
    with Image.open(file) as image:
        image.load()
        return metadata_of(image, 3)


def saved(name, **options):
    """Write an image through Pillow alone, and give the file to read."""
    file = io.BytesIO()
    Image.new("RGB", (4, 3)).save(file, format=name, **options)
    return file


# ---- EXIF ---------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["<", ">"], ids=["little", "big"])
@pytest.mark.parametrize("second", WRITTEN)
@pytest.mark.parametrize("first", WRITTEN)
def test_exif_travels_to_the_byte(first, second, order):
    """Dates, names in any script, lens, place and the maker's notes survive two formats."""
    expected = full(order)
    once = collected(encoded(Metadata(exif=block_of(expected)), first))

    twice = collected(encoded(once, second))

    assert parsed_exif(twice.exif, DIRECTORIES) == expected


def test_others_read_the_exif(tmp_path):
    """Pillow finds the tags of a written file where they belong."""
    path = tmp_path / "a.tiff"
    path.write_bytes(encoded(Metadata(exif=block_of(full(">"))), "TIFF").getvalue())

    with Image.open(path) as image:
        exif = image.getexif()
        assert exif[MAKE] == "Canon"
        assert exif.get_ifd(DETAILS)[0x829A] == 1 / 125
        assert exif.get_ifd(PLACE)[2] == (48, 8, 12.34)


def test_what_described_the_old_file_is_left_out():
    """Orientation, thumbnails and layout go; so does the pointer at a directory not kept."""
    main = {MAKE: text("Maker"), ORIENTATION: entry("<", SHORT, 6), 0x100: entry("<", SHORT, 9)}
    details = {0xA005: entry("<", LONG, 8), 0x9003: text("2024")}
    block = block_of(Exif(order="<", main=main, parts={DETAILS: details}))

    with Image.open(saved("JPEG", exif=block)) as image:
        kept = parsed_exif(exif_of(image), DIRECTORIES)

    assert kept == Exif(
        order="<", main={MAKE: text("Maker")}, parts={DETAILS: {0x9003: text("2024")}}
    )


def test_values_of_the_wrong_type_are_left_out():
    """A rating that is text, or two numbers, is none."""
    main = {RATING: text("five"), 0x4749: entry("<", SHORT, 1, 2), MAKE: text("Maker")}
    exif = exif_for(pictured(Metadata(exif=block_of(Exif(order="<", main=main)))))

    assert exif.main == {MAKE: text("Maker")}


def test_sizes_in_the_exif_follow_the_pixels():
    """The two tags that repeat the size are set where they are there, even from 16 to 32 bits."""
    details = {0xA002: entry(">", SHORT, 4)}
    block = block_of(Exif(order=">", main={}, parts={DETAILS: details}))
    picture = pictured(Metadata(exif=block), height=1, width=70_000)

    assert exif_for(picture).parts == {DETAILS: {0xA002: entry(">", LONG, 70_000)}}


def test_every_page_of_a_tiff_has_its_own_exif():
    """What is collected is the current page's."""
    pictures = [
        pictured(Metadata(exif=block_of(Exif(order="<", main={MAKE: text(name)}))))
        for name in ("first", "second")
    ]
    file = io.BytesIO()
    write_stream(Album(pictures=tuple(pictures)), file, format="TIFF")

    with Image.open(file) as image:
        for page, name in enumerate(["first", "second"]):
            image.seek(page)
            assert parsed_exif(exif_of(image), DIRECTORIES).main == {MAKE: text(name)}


def test_exif_as_imagemagick_hides_it_in_a_text():
    """Hexadecimal digits in a PNG's text are read as the EXIF that they are, and are no text."""
    block = block_of(full("<"))
    info = PngImagePlugin.PngInfo()
    info.add_text("Raw profile type exif", f"\nexif\n{len(block):8}\n{block.hex()}\n", zip=True)

    found = collected(saved("PNG", pnginfo=info))

    assert parsed_exif(found.exif, DIRECTORIES) == full("<")
    assert found.text == ()


def test_swapping_the_byte_order_keeps_the_values():
    """Numbers are turned around, bytes and texts stay."""
    little, big = full("<"), full(">")

    assert swapped(little.main) == big.main
    assert {tag: swapped(part) for tag, part in little.parts.items()} == big.parts


@given(st.binary(max_size=300), st.booleans())
def test_hostile_exif_is_left_out(junk, after_a_head):
    """No bytes make reading or writing fail."""
    block = b"Exif\0\0" + (b"II*\0\x08\0\0\0" if after_a_head else b"") + junk

    exif = exif_for(pictured(Metadata(exif=block)))

    assert exif is None or exif.main or exif.parts


@given(st.data())
def test_damaged_exif_is_kept_as_far_as_it_is_sound(data):
    """Changed bytes cost entries, not the picture, and what is left can be written again."""
    block = bytearray(block_of(full(data.draw(st.sampled_from("<>")))))
    for _ in range(data.draw(st.integers(1, 8))):
        block[data.draw(st.integers(6, len(block) - 1))] = data.draw(st.integers(0, 255))
    exif = exif_for(pictured(Metadata(exif=bytes(block))))

    if exif is not None:
        assert parsed_exif(block_of(exif), DIRECTORIES) == exif


def test_entries_that_all_claim_the_whole_file_do_not_fill_the_memory():
    """Overlapping values are read only as long as they would fit beside one another."""
    entries = b"".join(struct.pack("<HHII", tag, UNDEFINED, 50_000, 0) for tag in range(5000))
    head = b"II*\0\x08\0\0\0" + struct.pack("<H", 5000)

    exif = parsed_exif(head + entries, ())

    assert sum(len(value.data) for value in exif.main.values()) <= len(head + entries)


# ---- XMP ----------------------------------------------------------------------------------


def packet(inside):
    """Put a property into a packet."""
    return b'<x:xmpmeta xmlns:x="adobe:ns:meta/">' + inside + b"</x:xmpmeta>"


@pytest.mark.parametrize("name", WRITTEN)
def test_xmp_travels(name):
    """The packet comes back to the byte."""
    xmp = packet("<dc:title>Straße</dc:title>".encode())

    assert collected(encoded(Metadata(xmp=xmp), name)).xmp == xmp


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b'<a tiff:Orientation="6"/>', b'<a tiff:Orientation="1"/>'),
        (b"<a tiff:Orientation = '8'/>", b"<a tiff:Orientation = '1'/>"),
        (
            b"<tiff:Orientation>6</tiff:Orientation>",
            b"<tiff:Orientation>1</tiff:Orientation>",
        ),
        (b'<a xmpNote:HasExtendedXMP="0123AB" b="c"/>', b'<a b="c"/>'),
        (b"<xmpNote:HasExtendedXMP>0123AB</xmpNote:HasExtendedXMP>", b""),
    ],
    ids=["attribute", "single quotes", "element", "extended", "extended element"],
)
@pytest.mark.parametrize("name", ["JPEG", "WEBP"])
def test_what_is_no_longer_true_of_xmp_is_changed(name, before, after):
    """The picture is upright, and more XMP in other segments is not kept."""
    assert collected(saved(name, xmp=packet(before))).xmp == packet(after)


def test_xmp_of_a_png_is_no_text():
    """The text with Adobe's keyword is the packet."""
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", packet(b'<a tiff:Orientation="3"/>').decode())
    info.add_text("Title", "Night")

    found = collected(saved("PNG", pnginfo=info))

    assert found.xmp == packet(b'<a tiff:Orientation="1"/>')
    assert found.text == (("Title", "Night"),)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-16-le", "utf-32", "utf-32-be"])
def test_wide_xmp_becomes_narrow(encoding):
    """Packets of 16 or 32 bits a character are kept in UTF-8."""
    image = Image.new("RGB", (4, 3))
    image.info["xmp"] = packet(b'<a tiff:Orientation="6"/>').decode().encode(encoding)

    assert xmp_of(image) == packet(b'<a tiff:Orientation="1"/>')


def test_sizes_in_the_xmp_follow_the_pixels():
    """All four properties, as attributes and as elements."""
    xmp = packet(
        b'<a tiff:ImageWidth="1" exif:PixelYDimension="2"/>'
        b"<tiff:ImageLength>3</tiff:ImageLength><exif:PixelXDimension>4</exif:PixelXDimension>"
    )

    assert xmp_for(pictured(Metadata(xmp=xmp))) == packet(
        b'<a tiff:ImageWidth="40" exif:PixelYDimension="24"/>'
        b"<tiff:ImageLength>24</tiff:ImageLength><exif:PixelXDimension>40</exif:PixelXDimension>"
    )


@given(st.one_of(st.binary(), st.text(), st.none(), st.integers()))
def test_hostile_xmp_does_not_cost_the_picture(found):
    """Whatever stands in its place, there is a packet or none."""
    image = Image.new("RGB", (4, 3))
    image.info["xmp"] = found

    kept = xmp_of(image)

    assert kept is None or (isinstance(kept, bytes) and kept)


# ---- resolution, texts, comments ----------------------------------------------------------


@pytest.mark.parametrize("name", WRITTEN)
def test_resolution_travels_in_every_format_with_exif(name):
    """WebP and AVIF have no other place for it than EXIF."""
    found = collected(encoded(Metadata(dpi=(300.0, 150.0)), name))

    assert found.dpi == pytest.approx((300, 150), abs=0.02)
    assert found.exif is None


def test_resolution_in_centimetres():
    """EXIF may count pixels per centimetre."""
    main = {**resolution_tags((100.0, 200.0), "<"), 0x128: entry("<", SHORT, 3)}
    file = saved("WEBP", exif=block_of(Exif(order="<", main=main)))

    assert collected(file).dpi == pytest.approx((254, 508))


@pytest.mark.parametrize("values", [(0, 0), (1, 0), (0, 1)], ids=["none", "endless", "zero"])
def test_resolutions_in_exif_without_meaning_are_dropped(values):
    """A fraction that is no number is no resolution."""
    main = {0x11A: entry("<", RATIONAL, *values), 0x11B: entry("<", RATIONAL, *values)}
    file = saved("WEBP", exif=block_of(Exif(order="<", main=main)))

    assert collected(file).dpi is None


def test_texts_of_a_png_come_back_in_order():
    """Latin and other scripts, compressed or not; a comment becomes a text."""
    texts = (("Title", "Straße"), ("Author", "日本"), ("Größe", "x" * 5000))
    found = collected(encoded(Metadata(text=texts, comment=b"hello"), "PNG"))

    assert found.text == (*texts, ("Comment", "hello"))


@pytest.mark.parametrize(
    "keyword", ["", "x" * 80, " a", "a ", "a  b", "日本", "two\nlines", "a\0b"], ids=ascii
)
def test_keywords_that_png_forbids_are_left_out(keyword):
    """The texts beside them are kept."""
    found = collected(encoded(Metadata(text=((keyword, "x"), ("Title", "y"))), "PNG"))

    assert found.text == (("Title", "y"),)


@pytest.mark.parametrize("name", ["JPEG", "GIF"])
def test_comments_travel(name):
    """Also those longer than one of GIF's blocks."""
    comment = bytes(range(1, 256)) * 3

    assert collected(encoded(Metadata(comment=comment), name)).comment == comment


def test_numbers_of_an_entry():
    """Rationals are told as numerators and denominators in turn."""
    assert numbers(">", entry(">", RATIONAL, 1, 125, 3, 4)) == (1, 125, 3, 4)
    assert entry(">", RATIONAL, 1, 125, 3, 4).count == 2


@pytest.mark.parametrize("dpi", [(72, 72), (0.5, 65535.5)])
def test_sound_resolutions_are_kept(dpi):
    """Whole numbers or not."""
    assert dpi_of(dpi) == dpi


def test_bytes_that_are_no_exif_are_refused():
    """A block is known by its first four bytes."""
    with pytest.raises(ValueError, match="no TIFF and no EXIF"):
        parsed_exif(b"Exif\0\0nonsense", DIRECTORIES)


# ---- IPTC ---------------------------------------------------------------------------------


def album_of(**metadata):
    """Make an album of a small grey picture that says something."""
    pixels = np.full((4, 6, 1), 9, np.uint8)
    return Album(pictures=(Picture(pixels=pixels, metadata=Metadata(**metadata)),))


@pytest.mark.parametrize("name", ["JPEG", "TIFF"])
def test_captions_travel_from_file_to_file(name):
    """The records of IPTC come out as they went in, and Pillow finds them too."""
    stream = io.BytesIO()

    assert write_stream(album_of(iptc=CAPTION), stream, format=name) == ()

    (again,) = read_album(Path("a"), stream.getvalue()).pictures
    assert again.metadata.iptc == CAPTION
    with Image.open(stream) as image:
        found = IptcImagePlugin.getiptcinfo(image)
    assert found == {(2, 5): b"Night", (2, 120): b"\xc3\x9fx"}


@pytest.mark.parametrize("name", ["PNG", "WEBP", "GIF", "BMP"])
def test_captions_that_a_format_cannot_hold_are_named(name):
    """They go, and it is said."""
    assert f"{name} holds no IPTC: dropped" in write_stream(
        album_of(iptc=CAPTION), io.BytesIO(), format=name
    )


def test_captions_that_a_jpeg_cannot_hold_are_named():
    """More than a segment holds is left out; what just fits is kept."""
    record = b"\x1c\x02\x78" + struct.pack(">H", 32000) + b"x" * 32000
    rest = 65506 - 2 * len(record) - 5
    full = 2 * record + b"\x1c\x02\x78" + struct.pack(">H", rest) + b"y" * rest
    stream = io.BytesIO()

    assert write_stream(album_of(iptc=full), stream, format="JPEG") == ()
    assert read_album(Path("a"), stream.getvalue()).pictures[0].metadata.iptc == full
    notes = write_stream(album_of(iptc=full + b"."), io.BytesIO(), format="JPEG")
    assert notes == ("JPEG holds 64 KiB of IPTC: dropped",)


@pytest.mark.parametrize("order", ["<", ">"])
def test_captions_stored_as_numbers_are_turned_round(order):
    """Programs that take the text for numbers of 32 bits store its bytes reversed."""
    padded = CAPTION + b"\0" * (-len(CAPTION) % 4)
    for data in (padded, swapped({0: Entry(kind=LONG, data=padded)})[0].data):
        main = {
            256: entry(order, LONG, 1),
            257: entry(order, LONG, 1),
            258: entry(order, SHORT, 8),
            262: entry(order, SHORT, 1),
            273: entry(order, LONG, 0),
            279: entry(order, LONG, 1),
            IPTC_TAG: Entry(kind=LONG, data=data),
        }
        head = b"II*\0" if order == "<" else b"MM\0*"
        file = head + struct.pack(order + "I", 8) + built(main, 8, order)

        assert read_album(Path("a"), file).pictures[0].metadata.iptc == CAPTION


@pytest.mark.parametrize(
    ("stored", "kept"),
    [
        (CAPTION + b"\0\0\0", CAPTION),
        (CAPTION + b"\x1c\x02\x05\0\x09cut", CAPTION),
        (b"no records", None),
        (b"\x1c", None),
        (b"", None),
    ],
    ids=["padded", "cut off", "rubbish", "short", "empty"],
)
def test_only_whole_records_are_kept(stored, kept):
    """What is broken of the captions is left out, and never costs the picture."""
    image = Image.new("L", (4, 4))
    image.info["photoshop"] = {IPTC_RESOURCE: stored}

    assert metadata_of(image, 1).iptc == kept
