import errno
import io
import os
import struct
import subprocess
import sys
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import pyvips
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageCms, PngImagePlugin, features

from srcli.errors import ImageError
from srcli.imaging.formats import PILLOW_SILENCE, format_of
from srcli.imaging.pictures import Picture
from srcli.imaging.pillow import levels_of
from srcli.imaging.reading import from_pillow, read, read_album, read_header, read_size

HEIGHT, WIDTH = 5, 7
AVIF = pytest.mark.skipif("avif" not in features.get_supported(), reason="Pillow without AVIF")


def noise(channels, dtype=np.uint8, seed=0, height=HEIGHT, width=WIDTH):
    """Draw levels of the whole range of a dtype."""
    top = np.iinfo(dtype).max
    shape = (height, width, channels)
    return np.random.default_rng(seed).integers(0, top, shape, dtype=dtype, endpoint=True)


def smooth(channels=3):
    """Make a 24x40 gradient that lossy codecs hardly change."""
    rows, columns = np.mgrid[0:24, 0:40]
    planes = [rows * 5, columns * 3 + 40, rows + columns + 90]
    return np.stack(planes[:channels], axis=-1).astype(np.uint8)


def as_image(levels):
    """Hand an array to Pillow."""
    return Image.fromarray(levels[..., 0] if levels.shape[2] == 1 else levels)


def png(bits, kind, row, *early, late=()):
    """Assemble a PNG of one row by hand: bit depth, colour type, bytes, and other chunks."""

    def chunk(name, data):
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[kind]
    header = struct.pack(">IIBBBBB", len(row) * 8 // bits // samples, 1, bits, kind, 0, 0, 0)
    chunks = [
        (b"IHDR", header),
        *early,
        (b"IDAT", zlib.compress(b"\0" + row)),
        *late,
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in chunks)


def png_of(bits, kind, rows, *early):
    """Assemble a PNG of HEIGHT x WIDTH from its filtered rows."""
    data = png(bits, kind, b"", *early)
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, bits, kind, 0, 0, 0)
    return with_chunks(data, {b"IHDR": header, b"IDAT": zlib.compress(rows)})


def with_chunks(data, changed):
    """Replace the contents of some chunks of a PNG; None drops one."""
    position, parts = 8, [data[:8]]
    while position < len(data):
        length, name = struct.unpack_from(">I4s", data, position)
        content = changed.get(name, data[position + 8 : position + 8 + length])
        position += length + 12
        if content is not None:
            checksum = zlib.crc32(name + content)
            parts.append(struct.pack(">I", len(content)) + name + content)
            parts.append(struct.pack(">I", checksum))
    return b"".join(parts)


def profile(space):
    """Fake an ICC profile whose header names a colour space."""
    return b"\0" * 16 + space + b"\0" * 16 + b"acsp" + b"\0" * 88


def names_in(folder):
    """List what is in a folder, hidden files included."""
    return sorted(path.name for path in folder.iterdir())


SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def exif_block(orientation=None):
    """Make EXIF with text, an Exif directory and a GPS directory."""
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Maker"
    if orientation is not None:
        exif[ExifTags.Base.Orientation] = orientation
    exif[ExifTags.IFD.Exif] = {
        ExifTags.Base.ISOSpeedRatings: 640,
        ExifTags.Base.DateTimeOriginal: "2024:05:06 07:08:09",
        ExifTags.Base.ExifImageWidth: 4000,
    }
    exif[ExifTags.IFD.GPSInfo] = {ExifTags.GPS.GPSLatitudeRef: "N"}
    return exif.tobytes()


def parsed(block):
    """Parse an EXIF block into its three directories."""
    exif = Image.Exif()
    exif.load(block)
    return dict(exif), exif.get_ifd(ExifTags.IFD.Exif), exif.get_ifd(ExifTags.IFD.GPSInfo)


@pytest.fixture
def saved(tmp_path):
    """Save an image through Pillow alone, or bytes, and give the path."""

    def save(source, name, **options):
        path = tmp_path / name
        if isinstance(source, bytes):
            path.write_bytes(source)
        else:
            source.save(path, **options)
        return path

    return save


# ---- modes --------------------------------------------------------------------------------

GREY, RGB, RGBA, LA = noise(1), noise(3), noise(4), noise(2)
INDICES = (np.arange(HEIGHT * WIDTH) % 4).astype(np.uint8).reshape(HEIGHT, WIDTH)
COLOURS = np.array([[10, 20, 30], [200, 0, 0], [0, 200, 0], [250, 250, 255]], dtype=np.uint8)
OPACITIES = np.array([255, 128, 0, 7], dtype=np.uint8)


def palette_image():
    """Make a palette image of four colours."""
    image = Image.fromarray(INDICES).convert("P")
    image.putdata(INDICES.ravel().tolist())
    image.putpalette(COLOURS.tobytes())
    return image


MODES = {
    "1.png": (Image.fromarray(GREY[..., 0] > 99), {}, (GREY > 99) * np.uint8(255), None),
    "L.png": (as_image(GREY), {}, GREY, None),
    "RGB.png": (as_image(RGB), {}, RGB, None),
    "LA.png": (as_image(LA), {}, LA[..., :1], LA[..., 1:]),
    "RGBA.png": (as_image(RGBA), {}, RGBA[..., :3], RGBA[..., 3:]),
    "RGBA.tiff": (as_image(RGBA), {}, RGBA[..., :3], RGBA[..., 3:]),
    "P.png": (palette_image(), {}, COLOURS[INDICES], None),
    "P.gif": (palette_image(), {}, COLOURS[INDICES], None),
    "P.bmp": (palette_image(), {}, COLOURS[INDICES], None),
    "P-bytes.png": (
        palette_image(),
        {"transparency": OPACITIES.tobytes()},
        COLOURS[INDICES],
        OPACITIES[INDICES][..., None],
    ),
    "P-index.png": (
        palette_image(),
        {"transparency": 2},
        COLOURS[INDICES],
        np.where(INDICES == 2, 0, 255).astype(np.uint8)[..., None],
    ),
    "P-index.gif": (
        palette_image(),
        {"transparency": 2},
        COLOURS[INDICES],
        np.where(INDICES == 2, 0, 255).astype(np.uint8)[..., None],
    ),
    "L-key.png": (
        as_image(GREY),
        {"transparency": int(GREY[0, 0, 0])},
        GREY,
        np.where(GREY[0, 0] == GREY, 0, 255).astype(np.uint8),
    ),
    "RGB-key.png": (
        as_image(RGB),
        {"transparency": tuple(RGB[1, 2].tolist())},
        RGB,
        np.where((RGB[1, 2] == RGB).all(2, keepdims=True), 0, 255).astype(np.uint8),
    ),
    "PA.tiff": (
        Image.merge("LA", [Image.fromarray(INDICES), Image.fromarray(GREY[..., 0])]),
        {},
        INDICES[..., None],
        GREY,
    ),
}


@pytest.mark.parametrize("name", MODES)
def test_every_mode_becomes_grey_or_rgb_with_alpha_apart(saved, name):
    """The pixels and the opacity are those that went into the file, whatever mode it has."""
    image, options, pixels, alpha = MODES[name]

    picture = read(saved(image, name, **options))

    np.testing.assert_array_equal(pixels, picture.pixels)
    assert picture.pixels.dtype == np.uint8
    if alpha is None:
        assert picture.alpha is None
    else:
        np.testing.assert_array_equal(alpha, picture.alpha)
        assert picture.alpha.dtype == np.uint8


@pytest.mark.parametrize(
    ("mode", "colour", "pixels", "alpha"),
    [
        ("La", (50, 128), [99], 128),
        ("RGBa", (50, 25, 10, 128), [99, 49, 19], 128),
        ("RGBX", (1, 2, 3, 4), [1, 2, 3], None),
        ("HSV", (0, 255, 255), [255, 0, 0], None),
        ("LAB", (255, 128, 128), [255, 255, 255], None),
        ("YCbCr", (76, 85, 255), [254, 0, 0], None),
        ("CMYK", (255, 0, 0, 0), [0, 255, 255], None),
        ("CMYK", (0, 0, 0, 255), [0, 0, 0], None),
    ],
)
def test_other_colour_models_become_rgb(mode, colour, pixels, alpha):
    """Each of Pillow's colour models turns into the colour that it stands for, within a level."""
    picture = from_pillow(Image.new(mode, (1, 1), colour))
    found, opacity = picture.pixels, picture.alpha

    np.testing.assert_allclose(found[0, 0].astype(int), pixels, atol=1)
    assert alpha == (None if opacity is None else opacity.item())


def test_palette_with_alpha_becomes_rgb_and_alpha():
    """Mode PA takes its colours from the palette and its opacity from its second band."""
    image = Image.new("PA", (2, 1), (1, 9))
    image.putpalette([1, 2, 3, 40, 50, 60])

    pixels, alpha = levels_of(image)

    assert pixels.tolist() == [[[40, 50, 60], [40, 50, 60]]]
    assert alpha.tolist() == [[[9], [9]]]


@pytest.mark.parametrize("name", ["cmyk.jpg", "cmyk.tiff"])
def test_cmyk_files_become_rgb_without_their_profile(saved, name):
    """A press profile does not describe the RGB that is made of a CMYK file."""
    image = Image.new("CMYK", (16, 16), (255, 0, 255, 0))

    picture = read(saved(image, name, icc_profile=profile(b"CMYK")))

    np.testing.assert_allclose(picture.pixels.astype(int)[3, 4], [0, 255, 0], atol=2)
    assert picture.metadata.icc_profile is None


@pytest.mark.parametrize(
    ("data", "pixels", "alpha"),
    [
        pytest.param(
            png(2, 0, b"\x1b", (b"tRNS", b"\0\2")),
            [[0], [85], [170], [255]],
            [[255], [255], [0], [255]],
            id="2-bit grey",
        ),
        pytest.param(
            png(4, 0, b"\x5f", (b"tRNS", b"\0\5")), [[85], [255]], [[0], [255]], id="4-bit grey"
        ),
        pytest.param(
            png(1, 0, b"\x50", (b"tRNS", b"\0\1")),
            [[0], [255], [0], [255], [0], [0], [0], [0]],
            [[255], [0], [255], [0], [255], [255], [255], [255]],
            id="1-bit",
        ),
        pytest.param(
            png(16, 0, b"\x12\x34\xab\xcd", (b"tRNS", b"\x12\x34")),
            [[0x1234], [0xABCD]],
            [[0], [65535]],
            id="16-bit grey",
        ),
        pytest.param(
            png(16, 2, b"\1\2\3\4\5\6\7\7\7\7\7\7", (b"tRNS", b"\1\2\3\4\5\6")),
            [[0x102, 0x304, 0x506], [0x707, 0x707, 0x707]],
            [[0], [65535]],
            id="16-bit RGB",
        ),
    ],
)
def test_png_colour_key_is_transparent_at_every_bit_depth(saved, data, pixels, alpha):
    """The clear colour of a PNG is compared at the file's depth, which Pillow alone forgets."""
    picture = read(saved(data, "key.png"))

    assert [pixels] == picture.pixels.tolist()
    assert [alpha] == picture.alpha.tolist()


# ---- sixteen bits -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "mode", "stored"),
    [
        ("a.png", "I;16", "<u2"),
        ("a.tiff", "I;16", "<u2"),
        ("b.tiff", "I;16B", ">u2"),
        ("a.pgm", "I;16", "<u2"),
        ("c.tiff", "I", "<i4"),
    ],
)
def test_sixteen_bit_grey_is_kept(saved, name, mode, stored):
    """Grey of 16 bits arrives as native uint16 from every format and byte order."""
    levels = noise(1, np.uint16)
    image = Image.frombytes(mode, (WIDTH, HEIGHT), levels.astype(stored).tobytes())

    picture = read(saved(image, name))

    np.testing.assert_array_equal(levels, picture.pixels)
    assert picture.pixels.dtype == np.dtype(np.uint16)
    assert picture.pixels.dtype.isnative


@pytest.mark.parametrize(
    ("mode", "stored", "value", "expected"),
    [
        (
            "I",
            "<i4",
            70000,
            "32-bit levels 70000..70000 are outside 0..65535; convert it to 16 bits",
        ),
        ("I", "<i4", -1, "32-bit levels -1..-1 are outside 0..65535; convert it to 16 bits"),
        ("F", "<f4", 0.5, "pixels of kind F have no fixed range; convert it to 8 or 16 bits"),
    ],
)
def test_levels_without_a_known_range_are_refused(saved, mode, stored, value, expected):
    """Guessing the white of floating-point or 32-bit files would give garbage."""
    path = saved(Image.frombytes(mode, (1, 1), np.array(value, stored).tobytes()), "deep.tiff")

    with pytest.raises(ImageError) as caught:
        read(path)

    assert f"{path}: {expected}" == str(caught.value)


def tiff(levels, planar="contig", byteorder="<", **options):
    """Write a TIFF of any kind with tifffile, a writer that has nothing to do with ours."""
    stream = io.BytesIO()
    channels = levels.shape[2]
    grey = channels < 3
    extra = ["unassalpha"] * (channels - (1 if grey else 3))
    stored = levels if planar == "contig" else levels.transpose(2, 0, 1).copy()
    options = {"photometric": "minisblack" if grey else "rgb", "extrasamples": extra, **options}
    if channels > 1:
        options["planarconfig"] = planar
    else:
        stored = levels[..., 0]
    tifffile.imwrite(stream, stored, byteorder=byteorder, metadata=None, **options)
    return stream.getvalue()


@pytest.mark.parametrize("byteorder", ["<", ">"], ids=["little", "big"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": "zlib"},
        {"compression": "zlib", "predictor": True},
        {"tile": (16, 16)},
        {"compression": "zlib", "tile": (16, 32)},
        {"rowsperstrip": 4},
    ],
    ids=str,
)
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_sixteen_bit_tiffs_keep_every_level(channels, planar, options, byteorder):
    """Grey and colour, with and without opacity, however they are stored, arrive exactly."""
    levels = noise(channels, np.uint16, height=37, width=45)
    colours = 1 if channels < 3 else 3

    data = tiff(levels, planar, byteorder, **options)
    (picture,) = read_album(Path("a.tiff"), data).pictures

    np.testing.assert_array_equal(levels[..., :colours], picture.pixels)
    assert picture.pixels.dtype == np.uint16
    if channels == colours:
        assert picture.alpha is None
    else:
        np.testing.assert_array_equal(levels[..., colours:], picture.alpha)
    header = read_header(Path("a.tiff"), data)
    assert (header.bits, header.channels, header.alpha) == (16, colours, channels > colours)


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_big_tiffs_of_sixteen_bits_are_read(planar, byteorder):
    """Offsets of 64 bits lead to the same pixels."""
    levels = noise(4, np.uint16)

    picture = read(Path("a.tiff"), tiff(levels, planar, byteorder, bigtiff=True, tile=(16, 16)))

    np.testing.assert_array_equal(levels[..., :3], picture.pixels)
    np.testing.assert_array_equal(levels[..., 3:], picture.alpha)


def test_lzw_of_sixteen_bits_is_read():
    """The compression of Photoshop's TIFFs."""
    levels = noise(3, np.uint16, height=20, width=30)
    data = pyvips.Image.new_from_array(levels).tiffsave_buffer(
        compression="lzw", predictor="horizontal"
    )

    np.testing.assert_array_equal(levels, read(Path("a.tiff"), data).pixels)


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("bits", [np.uint8, np.uint16])
def test_white_is_zero_is_turned_round(bits, planar):
    """A TIFF that counts from white reads like any other, with an opacity too."""
    levels = noise(2, bits)
    top = np.iinfo(bits).max

    alone = read(Path("a.tiff"), tiff(levels[..., :1], photometric="miniswhite"))
    both = read(Path("a.tiff"), tiff(levels, planar, photometric="miniswhite"))

    np.testing.assert_array_equal(top - levels[..., :1], alone.pixels)
    np.testing.assert_array_equal(top - levels[..., :1], both.pixels)
    np.testing.assert_array_equal(levels[..., 1:], both.alpha)


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_opacity_is_taken_out_of_the_colours(planar):
    """Associated alpha is multiplied into the stored colours, and not into ours."""
    colours = noise(3, np.uint16)
    alpha = np.maximum(noise(1, np.uint16, seed=1), 8000)
    stored = np.rint(colours / 65535 * alpha).astype(np.uint16)

    data = tiff(np.dstack([stored, alpha]), planar, extrasamples=["assocalpha"])
    picture = read(Path("a.tiff"), data)

    np.testing.assert_allclose(picture.pixels.astype(int), colours, rtol=0, atol=6)
    np.testing.assert_array_equal(alpha, picture.alpha)


def test_an_unspecified_extra_channel_is_no_opacity():
    """What a TIFF does not call an opacity is left out, at 16 bits as at 8."""
    for bits in (np.uint8, np.uint16):
        levels = noise(4, bits)

        picture = read(Path("a.tiff"), tiff(levels, extrasamples=["unspecified"]))

        np.testing.assert_array_equal(levels[..., :3], picture.pixels)
        assert picture.alpha is None


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_sixteen_bit_pngs_keep_every_level(channels, interlaced):
    """Every kind of PNG of 16 bits arrives exactly."""
    levels = noise(channels, np.uint16, height=19, width=23)
    colours = 1 if channels < 3 else 3
    image = pyvips.Image.new_from_array(levels if channels > 1 else levels[..., 0])
    image = image.copy(interpretation="grey16" if colours == 1 else "rgb16")

    data = image.pngsave_buffer(bitdepth=16, interlace=interlaced)
    (picture,) = read_album(Path("a.png"), data).pictures

    np.testing.assert_array_equal(levels[..., :colours], picture.pixels)
    if channels > colours:
        np.testing.assert_array_equal(levels[..., colours:], picture.alpha)
    assert read_header(Path("a.png"), data).bits == 16


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_sixteen_bit_colour_is_turned_and_described(kind, orientation):
    """Orientation and metadata of a 16-bit file are those of any other, opacity turned too."""
    levels = noise(4, np.uint16)
    if kind == "png":
        row = levels.astype(">u2").tobytes()
        size = WIDTH * 8
        rows = b"".join(b"\0" + row[at : at + size] for at in range(0, len(row), size))
        exif = exif_block(orientation)[6:]
        data = png_of(16, 6, rows, (b"eXIf", exif), (b"pHYs", struct.pack(">IIB", 3937, 3937, 1)))
    else:
        extra = [(274, 3, 1, orientation, True), (271, 2, 6, "Maker", True)]
        data = tiff(levels, extratags=extra, resolution=(100, 100), resolutionunit=2)

    picture = read(Path("a"), data)

    expected = UPRIGHT[orientation](levels)
    np.testing.assert_array_equal(expected[..., :3], picture.pixels)
    np.testing.assert_array_equal(expected[..., 3:], picture.alpha)
    assert (picture.width, picture.height) == read_size(Path("a"), data)
    described = parsed(picture.metadata.exif)[0]
    assert described[ExifTags.Base.Make] == "Maker"
    assert (
        described.get(ExifTags.Base.Orientation, 1) == picture.metadata.orientation == orientation
    )
    assert picture.metadata.dpi == pytest.approx((100, 100), abs=0.01)


def test_eight_bits_are_read_without_libvips(saved):
    """What Pillow can hold is decoded without the weight of a second library."""
    path = saved(as_image(RGB), "a.png")
    script = (
        "import sys, pathlib, srcli.imaging.reading as r; r.read_album(pathlib.Path(sys.argv[1]));"
        "sys.exit('pyvips' in sys.modules)"
    )

    done = subprocess.run([sys.executable, "-c", script, str(path)], check=False)

    assert done.returncode == 0


@pytest.mark.parametrize("kind", ["png", "zlib", "raw"])
def test_damage_of_sixteen_bit_files_is_told(capfd, kind):
    """Cut or changed bytes are one line of an error, and nothing on the terminal."""
    levels = noise(3, np.uint16, height=40, width=40)
    if kind == "png":
        data = pyvips.Image.new_from_array(levels).pngsave_buffer(bitdepth=16)
    else:
        data = tiff(levels, **({"compression": "zlib"} if kind == "zlib" else {}))
    middle = len(data) // 2
    changed = bytearray(data)
    changed[middle] ^= 0xFF

    with pytest.raises(ImageError, match=r"^a: (truncated, its end|not an image)"):
        read(Path("a"), data[:middle])
    if kind != "raw":  # which has no checksum
        with pytest.raises(ImageError, match=r"^a: damaged \("):
            read(Path("a"), bytes(changed))
    assert capfd.readouterr() == ("", "")


def test_no_damage_of_a_deflated_tiff_of_sixteen_bits_goes_unnoticed():
    """The checksum behind the last pixel is looked at, which libtiff alone does not do."""
    data = tiff(noise(3, np.uint16, height=40, width=40) & 0x0FFF, compression="zlib")
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        (start,), (count,) = file.pages[0].dataoffsets, file.pages[0].databytecounts

    for where in range(start + 10, start + count, 97):
        changed = bytearray(data)
        changed[where] ^= 0xFF
        with pytest.raises(ImageError, match="damaged"):
            read(Path("a.tiff"), bytes(changed))


@pytest.mark.parametrize("bits", [np.uint8, np.uint16])
def test_no_changed_byte_of_the_pixels_of_a_png_goes_unnoticed(bits):
    """The checksums are looked at: Pillow alone would decode something else, without a word."""
    levels = noise(3, bits, height=9, width=9)
    rows = b"".join(b"\0" + row.tobytes() for row in levels.astype(f">u{levels.itemsize}"))
    header = struct.pack(">IIBBBBB", 9, 9, 8 * levels.itemsize, 2, 0, 0, 0)
    data = with_chunks(png(8, 2, b""), {b"IHDR": header, b"IDAT": zlib.compress(rows, 0)})
    np.testing.assert_array_equal(levels, read(Path("a.png"), data).pixels)
    start = data.index(b"IDAT") + 4

    for where in range(start, len(data) - 12, 3):
        changed = bytearray(data)
        changed[where] ^= 0x10
        with pytest.raises(ImageError, match="damaged"):
            read(Path("a.png"), bytes(changed))


def test_no_damage_of_a_deflated_tiff_of_eight_bits_goes_unnoticed():
    """What Pillow decodes is checked as well: the last four bytes are the checksum."""
    data = tiff(noise(3, height=40, width=40), compression="zlib")
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        (start,), (count,) = file.pages[0].dataoffsets, file.pages[0].databytecounts
    assert read(Path("a.tiff"), data).width == 40

    for where in range(start + count - 4, start + count):
        changed = bytearray(data)
        changed[where] ^= 0xFF
        with pytest.raises(ImageError, match="damaged"):
            read(Path("a.tiff"), bytes(changed))


def test_a_directory_that_is_cut_off_is_damage(capfd):
    """A page whose directory is incomplete is no page of other pixels, and nothing is printed."""
    stream = io.BytesIO()
    pages = [as_image(noise(1, seed=seed)) for seed in (1, 2)]
    pages[0].save(stream, "TIFF", save_all=True, append_images=pages[1:], compression="packbits")
    data = stream.getvalue()
    with Image.open(stream) as image:
        image.seek(1)
        place = image._frame_pos[1]
    entries = struct.unpack_from("<H", data, place)[0]

    for kept in (1, 3, entries - 1):
        with pytest.raises(ImageError, match="truncated, its end is missing"):
            read_album(Path("a.tiff"), data[: place + 2 + 12 * kept])
    assert capfd.readouterr() == ("", "")


def test_a_colour_map_behind_the_end_is_damage():
    """Pillow leaves out a tag whose value is not there, and would call the indices greys."""
    image = Image.fromarray(INDICES, "L")
    image.putpalette(COLOURS.tobytes().ljust(768, b"\0"))
    stream = io.BytesIO()
    image.save(stream, "TIFF")
    data = bytearray(stream.getvalue())
    with Image.open(stream) as opened:
        assert 320 in opened.tag_v2
    entry = data.index(struct.pack("<HHI", 320, 3, 768))
    struct.pack_into("<I", data, entry + 8, len(data) - 100)

    with pytest.raises(ImageError, match="truncated, its end is missing"):
        read(Path("a.tiff"), bytes(data))


def test_a_tiff_that_is_packed_as_webp_is_read():
    """Pillow's libtiff cannot undo it, libvips can."""
    levels = noise(3, height=24, width=40)
    packed = pyvips.Image.new_from_array(levels).tiffsave_buffer(compression="webp", lossless=True)

    np.testing.assert_array_equal(levels, read(Path("a.tiff"), packed).pixels)


@pytest.mark.parametrize("plain", [False, True], ids=["binary", "plain"])
@pytest.mark.parametrize("top", [65535, 1023])
def test_colour_of_sixteen_bits_is_read_from_a_ppm(plain, top):
    """All levels arrive, stretched to 65535 if white is less; a comment is no level."""
    levels = noise(3, np.uint16) & top
    stored = levels.astype(">u2").tobytes()
    if plain:
        stored = b"# x 1\n" + b" ".join(b"%d" % level for level in levels.ravel())
    data = b"P%d\n%d %d %d\n" % (3 if plain else 6, WIDTH, HEIGHT, top) + stored

    picture = read(Path("a.ppm"), data)

    expected = np.rint(levels.astype(float) * 65535 / top)
    np.testing.assert_array_equal(expected, picture.pixels)
    assert read_header(Path("a.ppm"), data).bits == 16
    cut = data.rstrip(b"0123456789") if plain else data[:-1]
    with pytest.raises(ImageError, match="truncated, its end is missing"):
        read(Path("a.ppm"), cut)


@AVIF
@pytest.mark.parametrize("bits", [8, 10, 12])
def test_an_avif_that_loses_bits_says_so(bits):
    """What Pillow rounds to 8 bits is named."""
    wide = pyvips.Image.new_from_array(noise(3, np.uint16)).copy(interpretation="rgb16")
    try:
        data = wide.heifsave_buffer(compression="av1", bitdepth=bits)
    except pyvips.Error:
        pytest.skip("libvips without an encoder of AVIF")

    notes = read_album(Path("a.avif"), data).notes

    assert notes == (() if bits == 8 else (f"AVIF of {bits} bits read at 8 bits",))


def test_a_tiff_in_cmyk_of_sixteen_bits_says_that_it_is_rounded():
    """Pillow takes the upper eight."""
    stream = io.BytesIO()
    tifffile.imwrite(stream, noise(4, np.uint16), photometric="separated")

    notes = read_album(Path("a.tiff"), stream.getvalue()).notes

    assert "CMYK of 16 bits read at 8 bits" in notes


def test_what_pillow_does_not_know_is_not_called_damaged():
    """A BMP of an unknown kind may be sound."""
    stream = io.BytesIO()
    as_image(noise(3)).save(stream, "BMP")
    data = bytearray(stream.getvalue())
    struct.pack_into("<H", data, 28, 48)  # bits a pixel

    with pytest.raises(ImageError, match=r"of a kind that is not read \(.*48.*\); convert it"):
        read(Path("a.bmp"), bytes(data))


def test_a_large_profile_or_text_does_not_cost_the_png():
    """Pillow's limit of a megabyte for each is lifted while a file is open, and comes back."""
    profile_data = SRGB.ljust(3 << 20, b"\0")
    early = ((b"iCCP", b"x\0\0" + zlib.compress(profile_data)),)
    early += ((b"zTXt", b"Title\0\0" + zlib.compress(b"t" * (2 << 20))),)
    before = PngImagePlugin.MAX_TEXT_CHUNK

    metadata = read(Path("a.png"), png(8, 2, b"abc", *early)).metadata

    assert metadata.icc_profile == profile_data
    assert metadata.text == (("Title", "t" * (2 << 20)),)
    assert before == PngImagePlugin.MAX_TEXT_CHUNK


def test_a_gif_without_its_end_mark_says_that_frames_may_be_missing(saved):
    """Cut off between two frames it looks whole: it is read, with a note."""
    frames = [as_image(noise(1, seed=seed)) for seed in range(3)]
    path = saved(frames[0], "a.gif", save_all=True, append_images=frames[1:])
    data = path.read_bytes()

    assert read_album(path).notes == ()
    album = read_album(path, data[:-1])

    assert album.notes == ("it has no end mark: frames may be missing",)
    assert len(album.pictures) == 3


# ---- what every picture is ----------------------------------------------------------------


@pytest.mark.parametrize("name", ["L.png", "RGB.png", "RGBA.png", "LA.png", "P-bytes.png"])
def test_arrays_are_ready_for_torch(saved, name):
    """The arrays are contiguous and writable, so that torch shares them without a warning."""
    import torch

    picture = read(saved(MODES[name][0], name, **MODES[name][1]))

    for levels in (picture.pixels, picture.alpha):
        if levels is not None:
            assert levels.flags.c_contiguous
            assert levels.flags.writeable
            assert levels.shape == tuple(torch.from_numpy(levels).shape)


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png", "a.tiff"])
def test_reading_one_picture_does_not_decode_the_others(saved, name):
    """The first picture can be had of a file whose later ones are damaged."""
    frames = [as_image(noise(3, seed=seed, height=40, width=40)) for seed in range(3)]
    options = {"lossless": True} if "webp" in name else {}
    path = saved(frames[0], name, save_all=True, append_images=frames[1:], **options)
    data = bytearray(path.read_bytes())
    if "webp" in name:
        last = data.rindex(b"VP8L")
        data[last + 20 : last + 24] = b"\xff" * 4
    else:
        del data[-400:]
    expected = read_album(path).pictures[0].pixels
    path.write_bytes(data)

    if "tiff" not in name:  # whose directory is behind its pixels
        np.testing.assert_array_equal(expected, read(path).pixels)
    with pytest.raises(ImageError, match=r"(frame|page) 3 .*(damaged|truncated)"):
        read_album(path)


# ---- frames and pages -------------------------------------------------------------------------


def drawn(clear):
    """Draw four frames of few colours; of the clear ones, part is transparent and moves."""
    frames = []
    for number in range(4):
        levels = np.full((12, 16, 4), 255, np.uint8)
        levels[..., :3] = [10 * number, 200, 90]
        levels[2:6, 3 * number : 3 * number + 4, :3] = [255, 0, 0]
        if clear:
            levels[8 : 9 + number, 2 + number : 9] = 0
        frames.append(Image.fromarray(levels if clear else levels[..., :3].copy()))
    return frames


def lossless_options(name):
    """What makes an encoder keep every level, if it can."""
    return {
        "webp": {"lossless": True, "exact": True},
        "avif": {"quality": 100, "subsampling": "4:4:4"},
    }.get(name, {})


@pytest.mark.parametrize("clear", [False, True], ids=["opaque", "clear"])
@pytest.mark.parametrize("name", ["gif", "png", "webp", pytest.param("avif", marks=AVIF)])
def test_every_frame_is_what_is_to_be_seen(saved, name, clear):
    """All frames arrive composed, of one kind, with the time that each is shown."""
    frames = drawn(clear)
    times = [100, 50, 2000, 230]
    options = {"duration": times, "disposal": 2} if name == "gif" else {"duration": times}
    options |= {"blend": 0, "disposal": 1} if name == "png" else lossless_options(name)
    path = saved(frames[0], f"a.{name}", save_all=True, append_images=frames[1:], **options)

    album = read_album(path)

    assert [picture.duration for picture in album.pictures] == times
    assert album.format == name.upper()
    for frame, picture in zip(frames, album.pictures, strict=True):
        expected = np.array(frame.convert("RGBA")).astype(int)
        seen = expected[..., 3] > 0
        tolerance = 3 if name == "avif" else 2 if name == "gif" else 0
        np.testing.assert_allclose(picture.pixels[seen], expected[seen][:, :3], atol=tolerance)
        if clear:
            np.testing.assert_array_equal(expected[..., 3:], picture.alpha)
        elif name != "webp":  # whose animations always have a channel of opacity
            assert picture.alpha is None
    header = read_header(path)
    assert (header.frames, header.width, header.height) == (4, 16, 12)
    assert (header.channels, header.bits, header.format) == (3, 8, name.upper())
    assert not clear or header.alpha
    np.testing.assert_array_equal(album.pictures[0].pixels, read(path).pixels)


@pytest.mark.parametrize(
    ("name", "stored", "plays"),
    [
        ("gif", None, None),
        ("gif", 0, 0),
        ("gif", 1, 2),
        ("gif", 7, 8),
        ("png", 0, 0),
        ("png", 1, 1),
        ("png", 7, 7),
        ("webp", 0, 0),
        ("webp", 1, 1),
        ("webp", 7, 7),
    ],
)
def test_the_loop_counts_how_often_an_animation_plays(saved, name, stored, plays):
    """GIF counts how often it is repeated, the others how often it plays; 0 is for ever."""
    frames = drawn(clear=False)
    options = {} if stored is None else {"loop": stored}
    path = saved(frames[0], f"a.{name}", save_all=True, append_images=frames[1:], **options)

    assert read_album(path).loop == plays


def test_a_still_picture_has_no_time(saved):
    """One frame is no animation, whatever its file says about time."""
    for name in ("a.gif", "a.webp", "a.png"):
        album = read_album(saved(drawn(clear=False)[0], name, duration=80, loop=3))

        assert (album.pictures[0].duration, album.loop, album.notes) == (None, None, ())


def test_frames_of_no_duration_keep_it(saved):
    """Zero is what the file says; what a player makes of it is not decided here."""
    frames = drawn(clear=False)
    for name in ("a.gif", "a.png", "a.webp"):
        path = saved(frames[0], name, save_all=True, append_images=frames[1:], duration=0)

        assert {picture.duration for picture in read_album(path).pictures} == {0.0}


def test_the_stand_in_of_an_animated_png_is_left_out(saved):
    """A picture for programs without animations is no frame; that it is gone is told."""
    frames = drawn(clear=False)
    path = saved(
        frames[0], "a.png", save_all=True, append_images=frames[1:], default_image=True, duration=9
    )

    album = read_album(path)

    assert len(album.pictures) == read_header(path).frames == 3
    assert album.notes == ("the picture that stands in for the animation is left out",)
    np.testing.assert_array_equal(np.array(frames[1]), album.pictures[0].pixels)
    np.testing.assert_array_equal(np.array(frames[1]), read(path).pixels)


def test_an_animation_is_turned_and_described(saved):
    """Orientation and metadata belong to all frames."""
    frames = drawn(clear=False)
    for name in ("a.png", "a.webp"):
        options = {"exif": exif_block(6), **({"lossless": True} if "webp" in name else {})}
        path = saved(frames[0], name, save_all=True, append_images=frames[1:], **options)

        for frame, picture in zip(frames, read_album(path).pictures, strict=True):
            np.testing.assert_array_equal(np.rot90(np.array(frame), -1), picture.pixels)
            assert parsed(picture.metadata.exif)[0][ExifTags.Base.Make] == "Maker"
        assert read_size(path) == (12, 16)


def test_grey_frames_stay_grey_until_one_is_coloured(saved):
    """All frames are of one kind: grey if all are, RGB if any is."""
    grey = [Image.new("RGB", (9, 9), (level,) * 3) for level in (10, 90, 200)]
    for frames, channels in ((grey, 1), ([*grey, Image.new("RGB", (9, 9), "red")], 3)):
        path = saved(frames[0], "a.gif", save_all=True, append_images=frames[1:])

        kinds = {picture.pixels.shape[2] for picture in read_album(path).pictures}

        assert kinds == {channels}


def test_every_page_of_a_tiff_is_its_own_picture():
    """Pages keep their size, kind, depth and metadata; reduced copies are left out, and told."""
    deep, grey, small, turned = (
        noise(3, np.uint16),
        noise(1, height=9, width=4),
        noise(3, height=2, width=2),
        noise(3, height=3, width=8),
    )
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as writer:
        writer.write(deep, photometric="rgb", iccprofile=SRGB, resolution=(300, 300))
        writer.write(grey[..., 0], photometric="minisblack")
        writer.write(small, photometric="rgb", subfiletype=1)
        writer.write(turned, photometric="rgb", extratags=[(274, 3, 1, 8, True)])
    data = stream.getvalue()

    album = read_album(Path("a.tiff"), data)

    for expected, picture in zip((deep, grey, np.rot90(turned)), album.pictures, strict=True):
        np.testing.assert_array_equal(expected, picture.pixels)
        assert picture.duration is None
    assert [picture.metadata.icc_profile for picture in album.pictures] == [SRGB, None, None]
    assert [picture.metadata.dpi for picture in album.pictures] == [(300, 300), None, None]
    assert album.notes == ("reduced copies of its pages are left out",)
    assert album.loop is None
    header = read_header(Path("a.tiff"), data)
    assert (header.frames, header.bits, header.channels) == (3, 16, 3)


@pytest.mark.parametrize("name", ["gif", "png"])
def test_a_damaged_frame_is_named(saved, name):
    """Which frame of how many is damaged is part of the message."""
    frames = [as_image(noise(3, seed=seed, height=30, width=30)) for seed in range(4)]
    path = saved(frames[0], f"a.{name}", save_all=True, append_images=frames[1:])
    data = bytearray(path.read_bytes())
    if name == "png":
        data[data.rindex(b"fdAT") + 200] ^= 0xFF
        expected = "frame 4 of 4 is damaged (broken PNG checksum); fetch the file again"
    else:
        del data[-50:]
        expected = "frame 4 of 4 is truncated, its end is missing; fetch the file again"
    path.write_bytes(data)

    assert message_of(path, read_album) == expected


def test_missing_frames_are_missed(saved):
    """An animated PNG that ends between two frames is truncated, not shorter."""
    frames = drawn(clear=False)
    data = saved(frames[0], "a.png", save_all=True, append_images=frames[1:]).read_bytes()
    path = saved(data[: data.rindex(b"fcTL") - 4], "a.png")

    expected = "frame 4 of 4 is truncated, its end is missing; fetch the file again"
    assert message_of(path, read_album) == expected


def test_a_damaged_page_is_named():
    """Of a TIFF it is the page."""
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as writer:
        for seed in range(3):
            levels = noise(3, np.uint16, seed=seed, height=30, width=30)
            writer.write(levels, photometric="rgb", compression="zlib", metadata=None)
    stream.seek(0)
    with tifffile.TiffFile(stream) as file:
        middle = file.pages[1].dataoffsets[0] + 900
    data = bytearray(stream.getvalue())
    data[middle] ^= 0xFF

    with pytest.raises(ImageError, match=r"^a: page 2 of 3 is damaged \(.*\); fetch the file"):
        read_album(Path("a"), bytes(data))


# ---- colour spaces ----------------------------------------------------------------------------

CMYK_PROFILE = bytes(pyvips.Image.profile_load("cmyk"))
"""A press profile that comes with libvips."""


def inks():
    """Draw smooth CMYK, of which no channel is clipped in RGB."""
    rows, columns = np.mgrid[:24, :32]
    planes = [rows * 4, columns * 3, 90 - rows * 2, rows + columns]
    levels = np.stack(planes, -1).astype(np.uint8)
    return Image.frombytes("CMYK", (32, 24), levels.tobytes())


def lab_of(image, embedded):
    """Tell the CIELAB of an image by its profile, as floats."""
    transform = ImageCms.buildTransform(
        ImageCms.ImageCmsProfile(io.BytesIO(embedded)),
        ImageCms.createProfile("LAB"),
        image.mode,
        "LAB",
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
        ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
    levels = np.array(ImageCms.applyTransform(image, transform))
    return np.dstack([levels[..., 0] * (100 / 255), levels[..., 1:].view(np.int8)])


@pytest.mark.parametrize("name", ["a.jpg", "a.tiff"])
def test_cmyk_is_converted_through_its_profile(saved, name):
    """The colours look as the press profile says, within one CIE76 on average; it is noted."""
    options = {"quality": 100} if "jpg" in name else {}
    path = saved(inks(), name, icc_profile=CMYK_PROFILE, **options)

    album = read_album(path)

    found = lab_of(Image.fromarray(album.pictures[0].pixels), SRGB)
    difference = np.linalg.norm(found - lab_of(inks(), CMYK_PROFILE), axis=2)
    assert difference.mean() < 1.5
    assert album.notes == ("CMYK converted to sRGB through its profile",)
    assert album.pictures[0].metadata.icc_profile is None
    assert read_header(path).channels == 3


@pytest.mark.parametrize(
    ("embedded", "reason"),
    [
        (None, "it has no profile"),
        (CMYK_PROFILE[:4000], "its profile is unusable"),
        (SRGB, "its profile is unusable"),
        (b"nonsense", "its profile is unusable"),
    ],
    ids=["none", "cut", "of RGB", "nonsense"],
)
def test_cmyk_without_a_sound_profile_is_converted_plainly(saved, embedded, reason):
    """A bad profile does not cost the picture, and what was done instead is noted."""
    path = saved(inks(), "a.tiff", icc_profile=embedded)

    album = read_album(path)

    assert album.notes == (f"CMYK converted to sRGB by a plain formula: {reason}",)
    np.testing.assert_array_equal(np.array(inks().convert("RGB")), album.pictures[0].pixels)
    assert album.pictures[0].metadata.icc_profile is None


def test_lab_is_converted(saved):
    """CIELAB becomes the sRGB that looks the same, which is noted."""
    lab = Image.new("LAB", (8, 8), (160, 128 + 20, 128 - 30))

    album = read_album(saved(lab, "a.tiff"))

    (found,) = {tuple(row) for row in lab_of(Image.fromarray(album.pictures[0].pixels), SRGB)[0]}
    np.testing.assert_allclose(found, (160 * 100 / 255, 20, -30), atol=1)
    assert album.notes == ("CIELAB converted to sRGB",)


@pytest.mark.parametrize("name", ["a.png", "a.tiff", "deep.png", "deep.tiff", "a.webp"])
def test_wide_colours_keep_their_numbers_and_their_profile(saved, name):
    """Display P3 is neither converted nor forgotten, at 8 bits and at 16."""
    wide = bytes(pyvips.Image.profile_load("p3"))
    if name.startswith("deep"):
        levels = noise(3, np.uint16)
        image = pyvips.Image.new_from_array(levels).copy(interpretation="rgb16")
        image.set_type(pyvips.GValue.blob_type, "icc-profile-data", wide)
        path = saved(image.write_to_buffer(name.removeprefix("deep")), name)
    else:
        levels = noise(3)
        options = {"lossless": True} if "webp" in name else {}
        path = saved(as_image(levels), name, icc_profile=wide, **options)

    album = read_album(path)

    np.testing.assert_array_equal(levels, album.pictures[0].pixels)
    assert album.pictures[0].metadata.icc_profile == wide
    assert album.notes == ()


# ---- images that a program has ----------------------------------------------------------------


@pytest.mark.parametrize("name", MODES)
def test_an_image_of_pillow_becomes_the_picture_of_its_file(saved, name):
    """Whatever mode it has, it is what reading the file would give."""
    image, options, pixels, alpha = MODES[name]
    with Image.open(saved(image, name, **options)) as opened:
        picture = from_pillow(opened)

    np.testing.assert_array_equal(pixels, picture.pixels)
    assert (alpha is None) == (picture.alpha is None)
    if alpha is not None:
        np.testing.assert_array_equal(alpha, picture.alpha)


def test_an_image_of_pillow_is_turned_and_described():
    """Its EXIF turns it, its metadata comes along, and it stays as it was."""
    image = as_image(RGB)
    image.info |= {"exif": exif_block(6), "icc_profile": SRGB, "dpi": (90, 90)}

    picture = from_pillow(image)

    np.testing.assert_array_equal(np.rot90(RGB, -1), picture.pixels)
    assert (picture.metadata.icc_profile, picture.metadata.dpi) == (SRGB, (90, 90))
    assert parsed(picture.metadata.exif)[0][ExifTags.Base.Make] == "Maker"
    np.testing.assert_array_equal(RGB, np.array(image))


def test_an_image_of_pillow_without_a_range_is_refused():
    """Floating point has no white; the message says what to do."""
    with pytest.raises(ImageError, match=r"kind F have no fixed range; convert it to 8 or 16 bits"):
        from_pillow(Image.new("F", (3, 3)))


def test_a_multi_picture_jpeg_is_a_jpeg(saved):
    """A phone's MPO reads as its first picture and says JPEG, which is what is written back."""
    frames = [as_image(smooth()), as_image(smooth()[:, ::-1].copy())]
    path = saved(frames[0], "a.jpg", format="MPO", save_all=True, append_images=frames[1:])
    with Image.open(path) as image:
        assert image.format == "MPO"

    album = read_album(path)

    assert album.format == "JPEG"
    np.testing.assert_allclose(album.pictures[0].pixels.astype(int), smooth(), atol=12)


def test_format_is_the_one_of_the_content(saved):
    """A PNG under a JPEG's name is a PNG."""
    path = saved(as_image(RGB), "liar.jpg", format="PNG")

    assert read_album(path).format == "PNG"
    assert format_of(path) == "JPEG"


def test_a_picture_knows_its_size():
    """Height and width are the first two axes, in that order."""
    picture = Picture(pixels=noise(3))

    assert (picture.height, picture.width) == (HEIGHT, WIDTH)


@pytest.mark.parametrize(
    ("pixels", "alpha", "expected"),
    [
        (noise(2), None, "pixels must be HxWx1 or HxWx3 and not empty, not (5, 7, 2)"),
        (noise(3)[0], None, "pixels must be HxWx1 or HxWx3 and not empty, not (7, 3)"),
        (noise(3)[:0], None, "pixels must be HxWx1 or HxWx3 and not empty, not (0, 7, 3)"),
        (noise(3) / 255, None, "pixels must be uint8 or uint16, not float64"),
        (noise(3), noise(1)[1:], "alpha must be 5x7x1 uint8 like its pixels"),
        (noise(3), noise(1, np.uint16), "alpha must be 5x7x1 uint8 like its pixels"),
    ],
)
def test_arrays_that_are_no_picture_are_refused(pixels, alpha, expected):
    """A wrong shape or dtype is caught where the picture is made."""
    with pytest.raises(ValueError, match="must be") as caught:
        Picture(pixels=pixels, alpha=alpha)

    assert expected == str(caught.value)


# ---- orientation --------------------------------------------------------------------------

UPRIGHT = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.transpose(1, 0, 2),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored[::-1, ::-1].transpose(1, 0, 2),
    8: lambda stored: np.rot90(stored, 1),
}


@pytest.mark.parametrize("name", ["a.png", "a.tiff", "deflate.tiff", "a.webp", "a.jpg"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_orientation_is_applied(saved, name, orientation):
    """Pixels are turned upright and the size is swapped; the EXIF block stays as it was."""
    stored = smooth()
    options = {"lossless": True} if "webp" in name else {"quality": 100, "subsampling": 0}
    if "tiff" in name:
        options = {"compression": "tiff_adobe_deflate"} if "deflate" in name else {}
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    exif[ExifTags.Base.Make] = "Maker"
    path = saved(as_image(stored), name, exif=exif.tobytes(), **options)

    picture = read(path)

    expected = UPRIGHT[orientation](stored)
    tolerance = 3 if "jpg" in name else 0
    np.testing.assert_allclose(picture.pixels.astype(int), expected, rtol=0, atol=tolerance)
    assert (expected.shape[1], expected.shape[0]) == read_size(path)
    expected_tags = {ExifTags.Base.Make: "Maker", ExifTags.Base.Orientation: orientation}
    assert expected_tags == parsed(picture.metadata.exif)[0]
    assert picture.metadata.orientation == orientation
    assert picture.metadata.size == (picture.width, picture.height)


@pytest.mark.parametrize("mode", ["L", "P", "I;16", "LA"])
def test_orientation_turns_every_mode_and_its_alpha(saved, mode):
    """Pixels and opacity are turned together."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    image = {
        "L": as_image(GREY),
        "P": palette_image(),
        "I;16": as_image(noise(1, np.uint16)),
        "LA": as_image(LA),
    }[mode]
    expected, alpha = levels_of(image)

    picture = read(saved(image, "a.png", exif=exif.tobytes()))

    np.testing.assert_array_equal(np.rot90(expected, -1), picture.pixels)
    if alpha is not None:
        np.testing.assert_array_equal(np.rot90(alpha, -1), picture.alpha)


@pytest.mark.parametrize("late", [True, False], ids=["behind", "before"])
def test_png_orientation_is_found_on_either_side_of_the_pixels(saved, late):
    """EXIF may follow the pixels of a PNG; reading and measuring agree about it."""
    chunk = (b"eXIf", exif_block(orientation=8)[6:])
    text = (b"tEXt", b"Comment\0hello")
    data = png(8, 0, b"abc", text, late=(text, chunk)) if late else png(8, 0, b"abc", chunk)
    path = saved(data, "a.png")

    assert read(path).pixels.tolist() == [[[99]], [[98]], [[97]]]
    assert read_size(path) == (1, 3)


def test_size_comes_from_the_header_alone(saved):
    """A file whose pixels are missing still tells its size."""
    whole = saved(as_image(RGB), "a.png").read_bytes()
    cut = saved(whole[: whole.index(b"IDAT") + 4], "cut.png")

    assert read_size(cut) == (WIDTH, HEIGHT)
    with pytest.raises(ImageError):
        read(cut)


# ---- errors of reading --------------------------------------------------------------------


def message_of(path, verb=read):
    """Read a bad file and give the message, after checking that it is one line."""
    with pytest.raises(ImageError) as caught:
        verb(path)
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(f"{path}: ")
    return text.removeprefix(f"{path}: ")


@pytest.mark.parametrize("verb", [read, read_size])
def test_missing_folder_and_empty_files_are_told_apart(tmp_path, saved, verb):
    """Each says what is there and what to do."""
    expected = "no such file; check the path"
    assert expected == message_of(tmp_path / "missing.png", verb)
    assert expected == message_of(saved(b"x", "file") / "inside.png", verb)
    expected = "a folder, not an image file; name files in it"
    assert expected == message_of(tmp_path, verb)
    assert message_of(saved(b"", "empty.jpg"), verb) == "empty (0 bytes); fetch the file again"


@pytest.mark.parametrize("verb", [read, read_size])
def test_files_that_are_no_images(saved, verb):
    """Text under an image's name, and formats that are not read, are called so."""
    expected = "not an image in a known format, or damaged at its start; convert it to PNG or JPEG"
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n"

    for name, data in {"a.png": b"hello world", "b.jpg": b"\xff\xd8", "c.png": postscript}.items():
        assert expected == message_of(saved(data, name), verb)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.gif", "a.bmp", "a.tiff", "a.ppm"])
def test_truncated_files(saved, name):
    """A file that lost its second half is called truncated rather than shown half grey."""
    whole = saved(as_image(noise(3, height=64, width=64)), name).read_bytes()
    path = saved(whole[: len(whole) // 2], name)

    assert message_of(path) == "truncated, its end is missing; fetch the file again"


@pytest.mark.parametrize("name", ["a.webp", "deflate.tiff", pytest.param("a.avif", marks=AVIF)])
def test_truncated_files_whose_codecs_do_not_say_so(saved, name):
    """Where the codec knows only that something is wrong, so do we."""
    options = {"compression": "tiff_adobe_deflate"} if "tiff" in name else {}
    whole = saved(as_image(noise(3, height=64, width=64)), name, **options).read_bytes()
    path = saved(whole[: len(whole) // 2], name)

    assert message_of(path).endswith(("fetch the file again", "convert it to PNG or JPEG"))


def test_damaged_files(saved):
    """Damage inside the pixels is reported with the codec's reason."""
    data = bytearray(saved(as_image(noise(3, height=32, width=32)), "a.png").read_bytes())
    data[len(data) // 2] ^= 0xFF

    message = message_of(saved(bytes(data), "a.png"))

    assert message.startswith("damaged (")
    assert message.endswith("); fetch the file again")


# ---- decompression bombs --------------------------------------------------------------------


def claiming(width, height):
    """Make a PNG whose header claims a size that its few bytes cannot fill."""
    data = bytearray(png(8, 0, b"abc"))
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


BY_DEFAULT = (
    "are more than the 179 million that are decoded by default (a decompression bomb?); "
    "raise --max-pixels if you trust it"
)


@pytest.mark.parametrize("verb", [read, read_album, read_header, read_size])
def test_decompression_bombs_are_refused_by_their_header(saved, verb):
    """A size beyond the limit is told, and what to do; the memory for it is never asked for."""
    path = saved(claiming(20000, 20000), "bomb.png")

    assert f"20000x20000 pixels {BY_DEFAULT}" == message_of(path, verb)


def test_a_webp_is_refused_before_its_canvas_is_made(saved):
    """Opening a WebP already allocates, so the limit holds before its exact size is known."""
    data = bytearray(saved(Image.new("RGBA", (8, 8)), "a.webp", exif=exif_block()).read_bytes())
    data[24:30] = b"\x9f\x3f\0\x9f\x3f\0"  # 16288x16288 in the extended header

    assert message_of(saved(bytes(data), "bomb.webp")) == f"16288x16288 pixels {BY_DEFAULT}"


@pytest.mark.parametrize("verb", [read, read_album, read_header])
def test_the_limit_is_the_callers(saved, monkeypatch, verb):
    """Neither Pillow's limit nor what others set it to counts, and it is left as it was."""
    path = saved(Image.new("L", (15, 10)), "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 60)

    assert verb(path) is not None
    assert verb(path, max_pixels=150) is not None
    with pytest.raises(ImageError, match=r"15x10 pixels are more than the 149 that --max-pixels"):
        verb(path, max_pixels=149)

    assert Image.MAX_IMAGE_PIXELS == 60


def test_the_limit_can_be_raised_above_pillows(saved, monkeypatch):
    """More than Pillow's limit is read when it is asked for, by codecs that check early too."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    path = saved(Image.new("RGBA", (30, 30)), "a.webp", exif=exif_block())

    assert read(path, max_pixels=900).width == 30
    with pytest.raises(ImageError, match="30x30 pixels are more than the 899"):
        read(path, max_pixels=899)


def test_frames_and_pages_count_together(saved):
    """The limit is one of the file: its frames or pages together must not exceed it."""
    frames = [Image.new("L", (10, 10), 9 * number) for number in range(5)]
    for name, words in {
        "a.gif": "5 frames of 10x10",
        "a.tiff": "its pages to here have 500",
    }.items():
        path = saved(frames[0], name, save_all=True, append_images=frames[1:])

        assert len(read_album(path, max_pixels=500).pictures) == 5
        assert read(path, max_pixels=100).width == 10
        with pytest.raises(ImageError, match=words):
            read_album(path, max_pixels=499)


def test_a_few_bytes_do_not_cost_gigabytes():
    """A 16-bit TIFF that claims millions of pixels in a kilobyte is refused before decoding."""
    data = tiff(noise(3, np.uint16))
    assert read(Path("a.tiff"), data).width == WIDTH
    (where,) = struct.unpack_from("<L", data, 4)
    bad = bytearray(data)
    bad[where + 10 : where + 14] = struct.pack("<L", 1 << 24)

    with pytest.raises(ImageError, match="bytes cannot hold 16777216x5 pixels"):
        read(Path("a.tiff"), bytes(bad))


# ---- what the system and the codecs refuse ----------------------------------------------------


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            PermissionError(errno.EACCES, "Permission denied"),
            "no permission to read it; change its permissions",
        ),
        (
            OSError(errno.EIO, "Input/output error"),
            "cannot be read (Input/output error); check the path and the disk",
        ),
    ],
)
def test_what_the_system_refuses(saved, monkeypatch, error, expected):
    """The system's reasons are passed on."""
    path = saved(as_image(RGB), "a.png")

    def refuse(*_, **__):
        raise error

    monkeypatch.setattr(Path, "open", refuse)

    assert expected == message_of(path)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), "does not fit into memory; cut it into parts"),
        (EOFError(), "truncated, its end is missing; fetch the file again"),
        (struct.error("unpack requires"), "damaged (unpack requires); fetch the file again"),
        (
            OSError(errno.EINVAL, "Invalid argument"),
            "damaged (Invalid argument); fetch the file again",
        ),
        (ZeroDivisionError(), "damaged (ZeroDivisionError); fetch the file again"),
        (SyntaxError("two\nlines"), r"damaged (two\nlines); fetch the file again"),
        (RuntimeError("odd"), "damaged (odd); fetch the file again"),
    ],
)
def test_whatever_a_codec_throws_is_one_error(saved, monkeypatch, error, expected):
    """Decoders raise of every kind; a user sees one line."""
    path = saved(as_image(RGB), "a.png")

    def explode(*_):
        raise error

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", explode)

    assert expected == message_of(path)


def test_an_interrupt_is_not_an_image_error(saved, monkeypatch):
    """Ctrl-C while decoding stays Ctrl-C."""
    path = saved(as_image(RGB), "a.png")

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", interrupt)

    with pytest.raises(KeyboardInterrupt):
        read(path)


def test_odd_file_names_are_printed_safely(tmp_path):
    """A line feed or an undecodable byte in a name does not break the line."""
    names = {"two\nlines.png": r"two\nlines.png", os.fsdecode(b"\xff.png"): r"\udcff.png"}
    for name, printed in names.items():
        with pytest.raises(ImageError) as caught:
            read(tmp_path / name)

        assert f"{tmp_path}/{printed}: no such file; check the path" == str(caught.value)


def test_a_pipe_is_read_like_a_file(tmp_path, saved):
    """Process substitution gives a pipe, which cannot be rewound."""
    data = saved(as_image(RGB), "a.png").read_bytes()
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=[data])
    writer.start()

    picture = read(tmp_path / "pipe")

    writer.join()
    np.testing.assert_array_equal(RGB, picture.pixels)


# ---- warnings -----------------------------------------------------------------------------


def test_pillow_warnings_do_not_reach_the_user(saved):
    """Pillow warns about this EXIF block when left to itself, and not through us."""
    path = saved(as_image(smooth()), "a.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff")
    with pytest.warns(UserWarning, match="Corrupt EXIF"), Image.open(path) as image:
        image.getexif()

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        read(path)

    assert caught == []


def test_silence_ends_with_the_last_thread_that_leaves():
    """Entering and leaving in another order leaves the filters as they were."""
    before = list(warnings.filters)
    PILLOW_SILENCE.__enter__()
    inner = list(warnings.filters)
    PILLOW_SILENCE.__enter__()
    PILLOW_SILENCE.__exit__()
    assert inner == warnings.filters
    PILLOW_SILENCE.__exit__()

    assert before == warnings.filters
    assert before != inner


def test_threads_read_at_the_same_time(saved):
    """Reading in threads gives every picture and leaves the warning filters alone."""
    from concurrent.futures import ThreadPoolExecutor

    paths = [saved(as_image(noise(3, seed=seed)), f"{seed}.png") for seed in range(8)]
    before = list(warnings.filters)

    with ThreadPoolExecutor(4) as pool:
        pictures = list(pool.map(read, paths * 4))

    for seed, picture in enumerate(pictures):
        np.testing.assert_array_equal(noise(3, seed=seed % 8), picture.pixels)
    assert before == warnings.filters


# ---- hostile files ------------------------------------------------------------------------


def encoded(name, **options):
    """Encode a small picture with everything a format can carry."""
    stream = io.BytesIO()
    image = palette_image() if name == "GIF" else as_image(smooth())
    image.save(stream, name, **options)
    return stream.getvalue()


def animated(name):
    """Encode an animation."""
    stream = io.BytesIO()
    first, *rest = drawn(clear=True)
    first.save(stream, name, save_all=True, append_images=rest, duration=40, loop=2)
    return stream.getvalue()


VICTIMS = {
    "deep.png": pyvips.Image.new_from_array(noise(4, np.uint16)).pngsave_buffer(bitdepth=16),
    "deep.tiff": tiff(noise(4, np.uint16), compression="zlib"),
    "planes.tiff": tiff(noise(4, np.uint16), "separate", tile=(16, 16)),
    "moving.gif": animated("GIF"),
    "moving.png": animated("PNG"),
    "moving.webp": animated("WEBP"),
    "jpg": encoded("JPEG", exif=exif_block(6), icc_profile=SRGB, dpi=(72, 72)),
    "png": encoded("PNG", exif=exif_block(6), icc_profile=SRGB, dpi=(72, 72)),
    "gif": encoded("GIF", transparency=1),
    "webp": encoded("WEBP", exif=exif_block(6), icc_profile=SRGB),
    "tiff": encoded("TIFF", exif=exif_block(6), icc_profile=SRGB, dpi=(72, 72)),
    "bmp": encoded("BMP"),
    "ppm": encoded("PPM"),
}


@given(data=st.data())
@settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_damaged_bytes_give_a_picture_or_an_image_error(tmp_path, data):
    """Damage ends in an ``ImageError`` of one line, or in pictures, and in nothing else."""
    name = data.draw(st.sampled_from(sorted(VICTIMS)), "format")
    content = bytearray(VICTIMS[name])
    ends = st.integers(1, len(content) - 1)
    for _ in range(data.draw(st.integers(0, 6), "damages")):
        # Headers and directories stand at the ends, and are where parsing goes wrong.
        where = data.draw(st.one_of(ends, st.integers(0, 160), st.integers(-200, -1)), "where")
        content[where % len(content)] = data.draw(st.integers(0, 255), "value")
    if data.draw(st.booleans(), "cut"):
        del content[data.draw(ends, "length") :]
    path = tmp_path / f"victim.{name}"
    path.write_bytes(content)

    for verb in (read_album, read, read_header, read_size):
        message, found = f"{path}: ", None
        try:
            # Damage that makes a picture enormous would only make the test slow.
            found = verb(path) if verb is read_size else verb(path, max_pixels=1_000_000)
        except ImageError as error:
            message = str(error)

        assert message.startswith(f"{path}: ")
        assert "\n" not in message
        if verb is read and found is not None:
            assert (found.width, found.height) == read_size(path)


def test_importing_does_not_import_torch():
    """Files are read without torch."""
    script = "import sys, srcli.imaging.reading; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


# ---- memory -------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "I;16"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_strips_are_put_together(mode, orientation):
    """A picture that is turned and converted in several strips is what it is in one piece."""
    levels = noise(3, height=1001, width=1300)
    image = as_image(levels).convert("I" if mode == "I;16" else mode).convert(mode)
    whole = np.asarray(image.convert("RGB") if mode == "P" else image).reshape(1001, 1300, -1)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    image.info["exif"] = exif.tobytes()
    found = from_pillow(image)
    across = whole.transpose(1, 0, 2) if orientation >= 5 else whole
    steps = {1: (1, 1), 2: (1, -1), 3: (-1, -1), 4: (-1, 1)}
    steps |= {5: (1, 1), 6: (1, -1), 7: (-1, -1), 8: (-1, 1)}
    down, right = steps[orientation]
    expected = across[::down, ::right]
    np.testing.assert_array_equal(found.pixels, expected[..., : 1 if mode in {"L", "I;16"} else 3])
    if mode == "RGBA":
        np.testing.assert_array_equal(found.alpha, expected[..., 3:])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc")
def test_decoding_takes_what_pillow_takes_and_the_array(tmp_path):
    """Pixels on their side take 4 bytes in Pillow and 3 in the array, and no third copy."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    tile = as_image(noise(3, height=500, width=500))
    image = Image.new("RGB", (5000, 4000))
    for left in range(0, 5000, 500):
        for top in range(0, 4000, 500):
            image.paste(tile, (left, top))
    image.save(tmp_path / "a.jpg", quality=50, exif=exif)
    program = (
        "import pathlib, re, sys\n"
        "from srcli.imaging.reading import read\n"
        "def peak():\n"
        "    status = pathlib.Path('/proc/self/status').read_text()\n"
        "    return int(re.search(r'VmHWM:\\s+(\\d+)', status)[1]) // 1024\n"
        "before = peak()\n"
        "assert read(pathlib.Path(sys.argv[1])).width == 4000\n"
        "print(peak() - before)\n"
    )
    arguments = [sys.executable, "-c", program, str(tmp_path / "a.jpg")]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 7 * 20 + 25
