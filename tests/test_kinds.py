"""Kinds of files out of users' reports: raws, HEIC, JPEG XL, colours without a profile."""

import errno
import io
import struct
import sys
import zlib

import numpy as np
import pytest
import tifffile
from metadata_blocks import encoded
from PIL import ExifTags, Image
from reading_files import AVIF, NAME, TO_XYZ, as_bytes, chunk, exif_block, lab_of, png_with, raw
from reading_files import SRGB as SRGB_PROFILE

from srcli.errors import ImageError
from srcli.imaging.colour import stripped
from srcli.imaging.formats import format_at
from srcli.imaging.headers import jxl_header
from srcli.imaging.reading import read, read_album, read_header


def levels(channels=3):
    """Draw a gradient of 32x48."""
    rows, columns = np.mgrid[:32, :48]
    planes = [rows * 7, columns * 5, 240 - rows * 3 - columns]
    return np.stack(planes[:channels], -1).astype(np.uint8)


def saved(kind, **options):
    """Encode it through Pillow."""
    return as_bytes(levels(), kind, **options)


P3 = (0.680, 0.320, 0.265, 0.690, 0.150, 0.060)
SRGB = (0.64, 0.33, 0.30, 0.60, 0.15, 0.06)


def by_formula(pixels, space, power):
    """Compute CIELAB: linear light by a power or sRGB's curve, XYZ under D50, cube roots."""
    linear = pixels / 255.0
    if power:
        linear = linear**power
    else:
        linear = np.where(linear <= 0.04045, linear / 12.92, ((linear + 0.055) / 1.055) ** 2.4)
    ratio = linear @ TO_XYZ[space] / (0.9642, 1, 0.8249)
    x, y, z = np.moveaxis(
        np.where(ratio > 216 / 24389, np.cbrt(ratio), (24389 / 27 * ratio + 16) / 116), -1, 0
    )
    return np.dstack([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def camera(space, index=None):
    """Make the EXIF of a camera that names its colours as DCF has it."""
    exif = Image.Exif()
    exif[ExifTags.IFD.Exif] = {ExifTags.Base.ColorSpace: space}
    if index:
        exif[ExifTags.IFD.Exif][ExifTags.IFD.Interop] = {1: index}
    return exif.tobytes()


def chromaticities(primaries):
    """Encode cHRM."""
    return struct.pack(">8I", *(round(100_000 * x) for x in (0.3127, 0.3290, *primaries)))


def avif_with(primaries, transfer):
    """Write an AVIF and change what its nclx says."""
    data = bytearray(saved("AVIF", quality=90, speed=10))
    struct.pack_into(">HH", data, data.index(b"colrnclx") + 8, primaries, transfer)
    return bytes(data)


GAMMA, LINEAR = ((b"gAMA", struct.pack(">I", number)) for number in (45455, 100_000))


@pytest.mark.parametrize(
    ("data", "space", "power"),
    [
        (lambda: saved("JPEG", quality=95, exif=camera(0xFFFF, "R03")), "a98", 563 / 256),
        (lambda: saved("PNG", exif=camera(0xFFFF, "R03")), "a98", 563 / 256),
        (lambda: saved("WEBP", lossless=True, exif=camera(2)), "a98", 563 / 256),
        (lambda: png_with(LINEAR), "sRGB", 1.0),
        (lambda: png_with(GAMMA, (b"cHRM", chromaticities(P3))), "P3", 2.2),
        (lambda: png_with((b"cICP", bytes((12, 13, 0, 1)))), "P3", None),
        (lambda: png_with((b"cICP", bytes((12, 8, 0, 1))), GAMMA), "P3", 1.0),
        pytest.param(lambda: avif_with(12, 13), "P3", None, marks=AVIF),
    ],
    ids=["R03", "R03 in a PNG", "ColorSpace 2", "gAMA", "cHRM", "cICP", "cICP linear", "nclx"],
)
def test_colours_without_a_profile_get_one(data, space, power):
    """The profile makes of the pixels what the file means, on average within one CIE76."""
    picture = read(NAME, data())

    found = lab_of(picture.pixels, picture.metadata.icc_profile)
    difference = found - by_formula(picture.pixels, space, power)
    assert np.linalg.norm(difference, axis=2).mean() < 1


@pytest.mark.parametrize(
    "data",
    [
        lambda: saved("JPEG", exif=camera(1)),
        lambda: saved("JPEG", exif=camera(0xFFFF, "R98")),
        lambda: png_with(GAMMA),
        lambda: png_with(GAMMA, (b"cHRM", chromaticities(SRGB))),
        lambda: png_with((b"sRGB", b"\0"), LINEAR),
        lambda: png_with((b"cICP", bytes((1, 13, 0, 1)))),
        lambda: png_with((b"cHRM", bytes(32)), GAMMA),
    ],
    ids=["1", "R98", "gAMA", "cHRM", "sRGB", "cICP", "nonsense"],
)
def test_what_means_srgb_stays_without_a_profile(data):
    """Usual gamma, primaries of sRGB, what says so outright, and nonsense."""
    assert read(NAME, data()).metadata.icc_profile is None


def test_a_profile_wins_over_the_tags_of_a_camera():
    """What is embedded holds; of a grey picture the curve is kept."""
    data = saved("JPEG", exif=camera(0xFFFF, "R03"), icc_profile=SRGB_PROFILE)
    assert read(NAME, data).metadata.icc_profile == SRGB_PROFILE

    grey = read(NAME, png_with(LINEAR, mode="L"))
    assert grey.metadata.icc_profile[16:20] == b"GRAY"
    assert grey.metadata.colour_chunks == (LINEAR,)


@pytest.mark.parametrize(("transfer", "name"), [(16, "PQ"), (18, "HLG")])
def test_hdr_is_noticed(transfer, name):
    """Another format shows it flat, which is said once; a PNG says it, stripped as well."""
    data = png_with((b"cICP", bytes((9, transfer, 0, 1))))
    album = read_album(NAME, data)
    (note,) = encoded(album.pictures[0], "JPEG")[1]
    file, notes = encoded(stripped(album.pictures[0]), "PNG")

    assert read(NAME, file.getvalue()).metadata.colour_chunks[0][1][1] == transfer
    assert (album.notes, notes) == ((), ())
    assert note.startswith(f"HDR ({name}) is kept in a PNG alone")


@pytest.mark.parametrize(
    "data",
    [
        raw(subifds=1, sensor="minisblack"),
        raw(kind=0, subifds=1),
        raw(extratags=[(50706, 1, 4, b"\1\4\0\0", True)], sensor="minisblack"),
        raw(),
        b"II*\0\x10\0\0\0CR\2\0" + bytes(40),
        b"FUJIFILMCCD-RAW 0201" + bytes(40),
        b"\0\0\0\x18ftypcrx " + bytes(40),
    ],
    ids=["SubIFD", "first-full", "DNG", "mosaic", "CR2", "RAF", "CR3"],
)
def test_a_raw_is_refused_as_one(data):
    """Its small copy is never taken for the photograph."""
    for verb in (read, read_album, read_header):
        with pytest.raises(ImageError, match=r"^a: a camera raw, which is not read; develop it"):
            verb(NAME, data)


@pytest.mark.parametrize(
    ("steps", "below"),
    [((2, 1), False), ((1, 2), False), ((1, 2), True)],
    ids=["copy first", "pyramid", "below"],
)
def test_the_full_picture_is_taken_and_its_small_copies_are_noted(steps, below):
    """They may be pages, or lie below the picture as microscopes and libvips store pyramids."""
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as writer:
        for number, step in enumerate(steps):
            part, more = levels()[::step, ::step].copy(), int(below and not number)
            writer.write(part, photometric="rgb", subfiletype=step - 1, subifds=more)
    album = read_album(NAME, stream.getvalue())

    assert album.notes == ("reduced copies of its pages are left out",)
    np.testing.assert_array_equal(levels(), album.pictures[0].pixels)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}], ids=str)
@pytest.mark.parametrize("zeros", [0, 2])
def test_a_jpeg_without_end_mark_is_read(options, zeros):
    """Every pixel is there, which is said; two thirds of a file go on failing."""
    whole, end = saved("JPEG", **options), bytes(zeros)
    album = read_album(NAME, whole[:-2] + end)

    np.testing.assert_array_equal(read(NAME, whole).pixels, album.pictures[0].pixels)
    assert album.notes == ("its end mark is missing; every pixel is there",)
    for missing in (40, len(whole) // 3):  # the last row of blocks alone, and more
        with pytest.raises(ImageError, match="truncated, its end is missing"):
            read_album(NAME, whole[:-missing] + end)


def test_further_pictures_are_counted():
    """A phone's second picture does not travel."""
    album = read_album(NAME, as_bytes([levels()] * 3, "MPO"))

    assert album.notes == ("left out: 2 further pictures",)
    assert (album.format, len(album.pictures)) == ("JPEG", 1)


@pytest.mark.parametrize("moving", [False, True])
@pytest.mark.parametrize("text", [b"%b\0007", b"%b\0\0" + zlib.compress(b"7")])
def test_texts_do_not_take_the_place_of_fields(moving, text):
    """Where a field stands before the text of its name it holds, in an animation too."""
    options = {"icc_profile": SRGB_PROFILE, "dpi": (200, 200), "transparency": (1, 2, 3)}
    frames = [levels()]
    if moving:
        frames, options = [*frames, levels()[::-1]], {**options, "duration": 70, "loop": 3}
    plain = as_bytes(frames, "PNG", **options)
    place = plain.index(b"IDAT") - 4
    name = b"tEXt" if text.endswith(b"7") else b"zTXt"
    keys = (b"icc_profile", b"dpi", b"transparency", b"duration", b"loop", b"bbox")
    texts = b"".join(chunk(name, text % key) for key in keys)

    found, expected = (
        read_album(NAME, data) for data in (plain[:place] + texts + plain[place:], plain)
    )

    assert found.loop == expected.loop
    for one, other in zip(found.pictures, expected.pictures, strict=True):
        np.testing.assert_array_equal(other.pixels, one.pixels)
        np.testing.assert_array_equal(other.alpha, one.alpha)
        assert one.duration == other.duration
    metadata = found.pictures[0].metadata
    assert metadata.icc_profile == SRGB_PROFILE
    assert metadata.dpi == expected.pictures[0].metadata.dpi
    assert dict(metadata.text)["bbox"] == "7"


def heic(**options):
    """Write a HEIC; skip where there is no package for it."""
    pytest.importorskip("pillow_heif").register_heif_opener()
    return saved("HEIF", quality=95, **options)


def test_a_heic_is_read():
    """Pixels, orientation and EXIF arrive; a result without a chosen format is a JPEG."""
    data = heic(exif=exif_block(6))

    album = read_album(NAME, data)

    picture = album.pictures[0]
    np.testing.assert_allclose(picture.pixels.astype(int), np.rot90(levels(), -1), atol=12)
    assert (album.format, album.coding.format) == ("JPEG", "HEIF")
    assert b"Maker" in picture.metadata.exif
    assert read_header(NAME, data).width == picture.width == 32
    assert picture.metadata.orientation == 6  # by which places in EXIF and XMP follow

    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    data = heic(exif=exif)  # which is not what turns a HEIC
    assert b"irot" not in data
    assert read(NAME, data).metadata.orientation == 1


def test_the_main_picture_of_a_heic_is_read():
    """Which need not be the first; and it is called upright though its decoder has turned it."""
    package = pytest.importorskip("pillow_heif")
    stream, file = io.BytesIO(), package.HeifFile()
    for image in (Image.new("RGB", (48, 32)), Image.new("RGB", (40, 64), "white")):
        file.add_from_pillow(image)
    file.save(stream, primary_index=1, pixel_aspect_ratio=(2, 1))
    album = read_album(NAME, stream.getvalue())

    assert (album.pictures[0].width, album.pictures[0].pixels.min() > 250) == (40, True)
    assert album.notes == ("left out: the shape of its pixels, 1 further picture",)


def test_bad_heics_are_one_line_each():
    """Damaged, too large, or only its head: it is called a HEIC."""
    data = heic()
    for bad in (data[:24] + bytes(60), data[:200]):
        with pytest.raises(ImageError, match=r"^a: a HEIC file that is damaged"):
            read(NAME, bad)
    with pytest.raises(ImageError, match=r"truncated|damaged"):
        read(NAME, data[:-200])
    with pytest.raises(ImageError, match=r"(48x32|1536) pixels are more than the 1000"):
        read(NAME, data, max_pixels=1000)


def test_what_is_not_the_files_fault_is_not_called_damage(monkeypatch):
    """A failing disk keeps its own words for a HEIC too."""
    data = heic()

    def failing(*_, **__):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Image, "open", failing)

    with pytest.raises(ImageError, match=r"cannot be read \(Input/output error\)"):
        read(NAME, data)


@pytest.mark.parametrize(
    ("start", "package", "words"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "pillow_heif", r"HEIC needs .*'srcli\[heic\]'"),
        (b"\xff\x0a" + bytes(40), "pillow_jxl", r"JPEG XL needs .*'srcli\[jxl\]'"),
    ],
)
def test_what_is_missing_is_named(monkeypatch, start, package, words):
    """Without the extra the line says what to install."""
    monkeypatch.setitem(sys.modules, package, None)

    with pytest.raises(ImageError, match=words):
        read(NAME, start + bytes(40))


def test_a_jpeg_xl_is_read_unless_it_is_too_large():
    """Its header is looked at before anything is decoded."""
    pytest.importorskip("pillow_jxl")
    data = saved("JXL", lossless=True)

    np.testing.assert_array_equal(levels(), read(NAME, data).pixels)
    assert read_album(NAME, data).format == "JPEG"
    with pytest.raises(ImageError, match=r"(48x32|1536) pixels are more than the 1000"):
        read(NAME, data, max_pixels=1000)
    with pytest.raises(ImageError, match=r"^a: (a JPEG XL file that is damaged|truncated)"):
        read(NAME, data[:20])


def test_a_jpeg_xl_that_its_decoder_has_turned_is_not_turned_again():
    """Its header and its EXIF say the same; XMP is read, and what is packed by Brotli is named."""
    pytest.importorskip("pillow_jxl")
    data = saved("JXL", quality=95, exif=exif_block(6), xmp=b"<x/>")
    usual = b"\x10jxlp\0\0\0\0\xff\x0a\x07\x07"  # 48x32, and all else as usual
    said = 0x107 | (2 | 5 << 2 | 1 << 11 | 7 << 14 | 1 << 19) << 9  # the same, but turned
    data = data.replace(usual, b"\x12" + usual[1:-2] + said.to_bytes(4, "little"))

    picture = read(NAME, data)
    np.testing.assert_allclose(picture.pixels.astype(int), np.rot90(levels(), -1), atol=25)
    assert (picture.metadata.orientation, picture.metadata.xmp) == (6, b"<x/>")
    packed = data + b"\0\0\0\x0dbrobxml \1"
    assert read_album(NAME, packed).notes == ("left out: box brob",)
    for more, expected in ((0b100_000_10, (1, True, 8)), (0b01_0_0_0, (1, False, 10))):
        said = (0x107 | more << 9).to_bytes(4, "little")
        assert jxl_header(b"\xff\x0a" + said)[1:] == expected


def test_the_header_of_a_jpeg_xl():
    """Small sizes, ratios and large ones, as ISO/IEC 18181-1 encodes them; what turns it."""
    small = 1 | (3 << 1) | (0 << 6) | (5 << 9)
    square = 1 | (3 << 1) | (1 << 6)
    huge = 0 | (3 << 1) | ((99_999) << 3) | (0 << 33) | (3 << 36) | (199_999 << 38)
    for bits, size in ((small, (48, 32)), (square, (32, 32)), (huge, (200_000, 100_000))):
        assert jxl_header(b"\xff\x0a" + bits.to_bytes(16, "little"))[0] == size


@pytest.mark.parametrize(
    ("start", "what"),
    [
        (b"8BPS\0\1", "a Photoshop document"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000 file"),
    ],
)
def test_a_picture_of_a_kind_that_is_not_read_is_named(tmp_path, start, what):
    """Whatever it is called; so that a folder counts it too."""
    (tmp_path / "a").write_bytes(start + bytes(60))
    for attempt in (lambda: read(NAME, start + bytes(60)), lambda: format_at(tmp_path / "a")):
        with pytest.raises(ImageError, match=f"{what}, which is not read; export it as TIFF"):
            attempt()
