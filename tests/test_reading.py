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
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageCms, features

from srcli import reading
from srcli.errors import ImageError
from srcli.formats import PILLOW_SILENCE
from srcli.images import Picture, format_of, read, read_album, read_size, write

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
    found, opacity = reading._levels(Image.new(mode, (1, 1), colour))

    np.testing.assert_allclose(found[0, 0].astype(int), pixels, atol=1)
    assert alpha == (None if opacity is None else opacity.item())


def test_palette_with_alpha_becomes_rgb_and_alpha():
    """Mode PA takes its colours from the palette and its opacity from its second band."""
    image = Image.new("PA", (2, 1), (1, 9))
    image.putpalette([1, 2, 3, 40, 50, 60])

    pixels, alpha = reading._levels(image)

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
            [[1, 3, 5], [7, 7, 7]],
            [[0], [255]],
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


@pytest.mark.parametrize("suffix", [".png", ".tiff", ".pgm"])
def test_sixteen_bit_grey_survives_a_round_trip(tmp_path, suffix):
    """PNG, TIFF and PGM give back the very levels."""
    levels = noise(1, np.uint16)
    write(Picture(pixels=levels), tmp_path / f"a{suffix}")

    np.testing.assert_array_equal(levels, read(tmp_path / f"a{suffix}").pixels)


@pytest.mark.parametrize("suffix", [".bmp", ".gif", ".webp"])
def test_sixteen_bits_are_rounded_to_the_nearest_of_eight(tmp_path, suffix):
    """Where 16 bits cannot be held, v * 255 / 65535 is rounded, not cut."""
    levels = np.array([[[0], [128], [129], [385], [386], [65406], [65407], [65535]]], np.uint16)
    write(Picture(pixels=levels), tmp_path / f"a{suffix}", lossless=True)

    found = read(tmp_path / f"a{suffix}").pixels[0, :, 0]

    assert found.tolist() == [0, 0, 1, 1, 2, 254, 255, 255]


def test_sixteen_bit_colour_and_alpha_are_rounded(tmp_path):
    """RGB, or anything with transparency, is written at 8 bits even to PNG."""
    colour, grey, alpha = (noise(count, np.uint16, seed) for seed, count in enumerate((3, 1, 1)))
    write(Picture(pixels=colour), tmp_path / "rgb.png")
    write(Picture(pixels=grey, alpha=alpha), tmp_path / "la.png")

    nearest = [np.rint(levels / 257).astype(np.uint8) for levels in (colour, grey, alpha)]
    np.testing.assert_array_equal(nearest[0], read(tmp_path / "rgb.png").pixels)
    np.testing.assert_array_equal(nearest[1], read(tmp_path / "la.png").pixels)
    np.testing.assert_array_equal(nearest[2], read(tmp_path / "la.png").alpha)


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


def test_only_the_first_frame_of_an_animation_is_read(saved):
    """The frames behind the first are not looked at."""
    first, second = (Image.new("RGB", (4, 3), colour) for colour in ("red", "blue"))
    options = {"save_all": True, "append_images": [second]}

    for name in ("a.gif", "a.webp", "a.png", "a.tiff"):
        picture = read(
            saved(first, name, **({"lossless": True} if "webp" in name else {}), **options)
        )

        assert picture.pixels.shape == (3, 4, 3)
        assert picture.pixels[0, 0].tolist() == [255, 0, 0]


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
def test_exif_orientation_is_applied_and_reset(saved, name, orientation):
    """The pixels are turned upright, the size is told so, and the tag is gone from the EXIF."""
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
    assert {ExifTags.Base.Make: "Maker"} == parsed(picture.metadata.exif)[0]


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
    expected, alpha = reading._levels(image)

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


@pytest.mark.parametrize("verb", [read, read_size])
def test_decompression_bombs(saved, monkeypatch, verb):
    """What Pillow refuses as a bomb, twice its limit, is an error of the file."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 60)
    path = saved(Image.new("L", (15, 10)), "bomb.png")

    expected = "more pixels than can be decoded safely (a decompression bomb?); cut it into parts"
    assert expected == message_of(path, verb)


def test_what_pillow_only_warns_of_is_read(saved, monkeypatch):
    """Between Pillow's limit and twice that lie the pictures of large cameras."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    path = saved(Image.new("L", (15, 10)), "large.png")

    assert (read(path).width, read_size(path)) == (15, (15, 10))


@pytest.mark.parametrize(
    ("suffix", "frames", "expected"),
    [("gif", 1, False), ("gif", 3, True), ("tiff", 1, False), ("tiff", 2, True), ("png", 2, True)],
)
def test_more_frames_than_one_are_told(tmp_path, suffix, frames, expected):
    """An animation or a file of several pages says that its picture is only the first."""
    first, *rest = (Image.new("L", (4, 3), 60 * number) for number in range(frames))
    path = tmp_path / f"several.{suffix}"
    first.save(path, **({"save_all": True, "append_images": rest} if rest else {}))

    album = read_album(path)

    assert bool(album.notes) is expected
    assert int(album.pictures[0].pixels.max()) == 0


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


VICTIMS = {
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
    """Damage ends in an ``ImageError``, or in a picture that can be measured and written again."""
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

    message, picture = f"{path}: ", None
    try:
        picture = read(path)
    except ImageError as error:
        message = str(error)

    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    if picture is not None:
        assert (picture.width, picture.height) == read_size(path)
        for copy in (tmp_path / "copy.tiff", tmp_path / "copy.jpg"):
            write(picture, copy)
            assert (picture.width, picture.height) == read_size(copy)


def test_importing_does_not_import_torch():
    """Files are read and written without torch."""
    script = "import sys, srcli.images; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
