"""Metadata in the files that are written, and what the documentation says of it."""

import io
import struct
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from metadata_blocks import (
    FORMATS,
    MAKER_LOST,
    NOTE,
    block,
    encoded,
    packet,
    parsed,
    pictured,
    swapped,
    text,
)
from PIL import Image, features
from reading_files import SRGB, chunk
from writing_files import KINDS, of_kind

from srcli.imaging import formats, images
from srcli.imaging.formats import BUILT
from srcli.imaging.ifd import EXIF, GPS
from srcli.imaging.images import Album, Metadata, read_album
from srcli.imaging.writing import write_stream

CAPTION = b"\x1c\x02\x05\0\x05Night\x1c\x02\x78\0\x03\xc3\x9fx"
DOCUMENT = Path(__file__).parents[1] / "docs" / "formats.md"


@pytest.mark.parametrize("name", FORMATS)
def test_the_place_can_be_left_out_alone(name):
    """No byte of it is in the file, and the rest is."""
    dji = 'xmlns:d="http://www.dji.com/drone-dji/1.0/" d:GpsLongtitude="11.25"'
    geo = 'xmlns:g="http://www.w3.org/2003/01/geo/wgs84_pos#" g:lat="48.75"'
    names = 'xmlns:p="http://ns.adobe.com/photoshop/1.0/" p:City="Orplid"'
    space = 'xmlns:i="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"'
    shown = f"<i:LocationShown {space}>Orplid</i:LocationShown>"
    data = packet(f'{dji} {geo} {names} exif:GPSLatitude="48,30N" xmp:Rating="4"', shown)
    iptc = CAPTION + b"\x1c\x02\x5a\0\x06Orplid"
    exif = block(place={0x1D: text("2019:06:14")}, main={0x2BC: (1, data), 0x83BB: (7, iptc)})
    words = (("GPSLatitude", "48,30N"), ("Location", "Orplid"))
    given = pictured(exif=exif, xmp=data, text=words, iptc=iptc)

    bare = replace(given, metadata=images.without_location(given.metadata))
    file, _ = encoded(bare, name)

    main, parts = parsed(file)
    assert (parts[GPS], GPS in main) == ({}, False)
    assert parts[EXIF][0x9003] == "2019:06:15 10:20:30"
    for secret in (
        b"2019:06:14",
        b"48,30N",
        b"48.75",
        b"11.25",
        b"Orplid",
        struct.pack("<6I", 48, 1, 30, 1, 0, 1),
    ):
        assert secret not in file.getvalue()
    assert b'xmp:Rating="4"' in bare.metadata.xmp
    assert bare.metadata.iptc == CAPTION


@pytest.mark.parametrize("given_exif", [None, block()], ids=["bare", "exif"])
@pytest.mark.parametrize("name", [*FORMATS, "BMP"])
def test_resolution_travels(name, given_exif):
    """In EXIF where the format has no other place for it; what means nothing does not."""
    for dpi in ((300.0, 150.0), (0.0, 300.0), (float("nan"), 1.0), (1e9, 1e9)):
        file, _ = encoded(pictured(exif=given_exif, dpi=dpi), name)

        found = read_album(Path("a"), file.getvalue()).pictures[0].metadata.dpi
        assert found == (pytest.approx(dpi, abs=0.02) if dpi == (300.0, 150.0) else None)


@pytest.mark.parametrize(("field", "most"), [("iptc", 65506), ("comment", 65533)])
def test_what_a_segment_of_a_jpeg_cannot_hold_is_named(field, most):
    """What just fits is kept."""
    word = {"iptc": "IPTC", "comment": "comment"}[field]

    assert encoded(pictured(**{field: b"x" * most}), "JPEG")[1] == ()
    notes = encoded(pictured(**{field: b"x" * (most + 1)}), "JPEG")[1]
    assert notes == (f"JPEG holds 64 KiB of {word}: dropped",)


def test_texts_of_a_png_come_back():
    """Of any script and language, twice under one keyword, as Pillow's own; old comments too."""
    texts = (("Title", "Night"), ("dpi", "x"), ("exif", "y"), ("Author", "名前"), ("Z", "ä\n"))
    comment = "Café".encode("latin-1")
    data = encoded(pictured(text=texts, comment=comment), "PNG")[0].getvalue()
    more = [chunk(b"tEXt", b"Two\0one"), chunk(b"tEXt", b"Two\0two")]
    more += [chunk(b"iTXt", b"Title\0\0\0de\0Titel\0Nacht")]
    picture = read_album(Path("a"), data[:33] + b"".join(more) + data[33:]).pictures[0]
    file, notes = encoded(picture, "PNG")

    assert notes == ()
    assert all(part in file.getvalue() for part in more)
    found = read_album(Path("a"), file.getvalue()).pictures[0].metadata.text
    assert set(found) >= {*texts, ("Comment", "Café")}


def test_chunks_that_say_what_colours_are_stay_in_a_png():
    """Instead of the profile that was made of them."""
    chunks = ((b"gAMA", struct.pack(">I", 100_000)), (b"cHRM", bytes(32)))
    file, _ = encoded(pictured(colour_chunks=chunks, icc_profile=SRGB), "PNG")

    data = file.getvalue()
    assert b"gAMA" + chunks[0][1] in data
    assert b"cHRM" + chunks[1][1] in data
    assert b"iCCP" not in data
    assert b"gAMA" not in encoded(pictured(colour_chunks=chunks), "WEBP")[0].getvalue()
    beside = (chunks[0], (b"iCCP", SRGB))  # which holds where they are there as well
    file, _ = encoded(pictured(colour_chunks=beside, icc_profile=SRGB), "PNG")
    found = read_album(Path("a"), file.getvalue()).pictures[0].metadata
    assert (found.icc_profile, found.colour_chunks) == (SRGB, beside)


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
    text=st.lists(st.tuples(st.just("Title"), st.text("aä名\n")), max_size=3).map(tuple),
    iptc=st.none() | st.binary(max_size=100) | st.just(b"i" * 70_000),
    comment=st.none() | st.binary(max_size=300) | st.just(b"c" * 70_000),
    colour_chunks=st.lists(st.tuples(st.just(b"gAMA"), st.binary(max_size=9)), max_size=1).map(
        tuple
    ),
    orientation=st.integers(1, 8),
    size=st.none() | st.just((3, 2)),
)


TIMES = {"duration": st.none() | st.floats(0, 1e12), "loop": st.none() | st.integers(0, 2**40)}


@given(
    ODD,
    st.fixed_dictionaries(TIMES),
    st.sampled_from(BUILT),
    st.sampled_from([kind.values for kind in KINDS]),
    st.integers(1, 3),
)
def test_what_is_odd_never_costs_the_picture(metadata, times, name, kind, count):
    """Whatever it says, every format is written, the same each time, and can be read."""
    dtype, channels, alpha = kind
    more = {"metadata": metadata, "duration": times["duration"]}
    pictures = (of_kind(dtype, channels, alpha=alpha, seed=n, **more) for n in range(count))
    album = Album(pictures=tuple(pictures), loop=times["loop"])
    files = [io.BytesIO(), io.BytesIO()]
    for stream in files:
        write_stream(album, stream, format=name)

    if (name, count > 1) != ("AVIF", True):  # the encoder notes the second of a sequence
        assert files[0].getvalue() == files[1].getvalue()
    several = formats.FORMATS[name].frames or formats.FORMATS[name].pages
    found = read_album(Path("a"), files[0].getvalue()).pictures
    assert len(found) == (count if several else 1)


METADATA = {
    "EXIF": {"exif": block()},
    "maker's notes": {"exif": block()},
    "place": {"exif": block()},
    "XMP": {"xmp": packet(inside="<dc:title>Straße</dc:title>")},
    "IPTC": {"iptc": CAPTION},
    "ICC profile": {},
    "resolution": {"dpi": (300.0, 300.0)},
    "text": {"text": (("Title", "Night"),)},
    "comment": {"comment": b"hello"},
}


def fate(kind, name):
    """Find out what becomes of one kind of metadata in a format."""
    given_metadata = METADATA[kind] or {"icc_profile": swapped(SRGB)}
    file, notes = encoded(pictured(**given_metadata), name)
    data = file.getvalue()
    kept = {
        "EXIF": lambda: parsed(file)[0].get(0x10F) == "Canon",
        "maker's notes": lambda: NOTE in data,
        "place": lambda: bool(parsed(file)[1][GPS]),
        "XMP": lambda: METADATA["XMP"]["xmp"] in data,
        "IPTC": lambda: read_album(Path("a"), data).pictures[0].metadata.iptc == CAPTION,
        "ICC profile": lambda: bool(read_album(Path("a"), data).pictures[0].metadata.icc_profile),
        "resolution": lambda: read_album(Path("a"), data).pictures[0].metadata.dpi is not None,
        "text": lambda: b"Night" in data,
        "comment": lambda: b"hello" in data,
    }[kind]()
    if kept:
        return "kept"
    assert notes, f"{kind} is lost in {name} without a word"
    return "converted to sRGB" if any("converted" in note for note in notes) else "dropped"


@pytest.mark.skipif("AVIF" not in BUILT or not features.check("webp"), reason="not all formats")
def test_the_table_of_the_documentation_is_what_happens():
    """Each pair of a format and a kind of metadata is tried; print the rows to renew the table."""
    rows = [f"| {' | '.join(['', *METADATA])} |", f"|{'---|' * (len(METADATA) + 1)}"]
    rows += [f"| {name} | {' | '.join(fate(kind, name) for kind in METADATA)} |" for name in BUILT]
    table = "\n".join(rows)

    assert table in DOCUMENT.read_text(encoding="utf-8"), table
