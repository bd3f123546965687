"""Pictures of every mode, as they were written."""

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import pyvips
from PIL import ExifTags, Image, ImageCms

from srcli.errors import ImageError
from srcli.imaging.formats import format_of
from srcli.imaging.pictures import Picture
from srcli.imaging.reading import from_pillow, read, read_album, read_header, read_size

HEIGHT, WIDTH = 5, 7


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


# ---- modes --------------------------------------------------------------------------------


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


# ---- colour spaces ------------------------------------------------------------------------


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


# ---- images that a program has ------------------------------------------------------------


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


# ---- memory -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "orientation"),
    [*zip(("L", "RGB", "RGBA", "P") * 2, range(1, 9), strict=True), ("I;16", 6), ("RGBA", 5)],
)
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
