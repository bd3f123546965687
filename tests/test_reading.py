"""Pictures of every mode, as they were written."""

import io
from pathlib import Path

import numpy as np
import pytest
import pyvips
from metadata_blocks import parsed_block
from PIL import ExifTags, Image, ImageCms
from reading_files import (
    COLOURS,
    GREY,
    INDICES,
    LA,
    NAME,
    RGB,
    RGBA,
    SRGB,
    UPRIGHT,
    as_bytes,
    as_image,
    exif_block,
    lab_of,
    noise,
    palette_image,
    png,
    smooth,
)
from run_files import growth, needs_proc

from srcli.imaging.reading import from_pillow, read, read_album, read_header, read_size

OPACITIES = np.array([255, 128, 0, 7], dtype=np.uint8)


MODES = {
    "1.png": (Image.fromarray(GREY[..., 0] > 99), {}, (GREY > 99) * np.uint8(255), None),
    "LA.png": (LA, {}, LA[..., :1], LA[..., 1:]),
    "RGBA.png": (RGBA, {}, RGBA[..., :3], RGBA[..., 3:]),
    "P.gif": (palette_image(), {}, COLOURS[INDICES], None),
    "P.tiff": (palette_image(), {}, COLOURS[INDICES], None),
    "P-bytes.png": (
        palette_image(),
        {"transparency": OPACITIES.tobytes()},
        COLOURS[INDICES],
        OPACITIES[INDICES][..., None],
    ),
    "P-index.gif": (
        palette_image(),
        {"transparency": 2},
        COLOURS[INDICES],
        ((INDICES != 2) * np.uint8(255))[..., None],
    ),
    "L-key.png": (
        GREY,
        {"transparency": int(GREY[0, 0, 0])},
        GREY,
        (GREY[0, 0] != GREY) * np.uint8(255),
    ),
    "RGB-key.png": (
        RGB,
        {"transparency": tuple(RGB[1, 2].tolist())},
        RGB,
        (RGB[1, 2] != RGB).any(2, keepdims=True) * np.uint8(255),
    ),
}
"""A picture, how it is saved, and the pixels and the opacity that it has."""


CMYK_PROFILE = bytes(pyvips.Image.profile_load("cmyk"))
"""A press profile that comes with libvips."""


ROWS, COLUMNS = np.mgrid[:24, :32]
INK = np.dstack([ROWS * 4, COLUMNS * 3, 90 - ROWS * 2, ROWS + COLUMNS]).astype(np.uint8)
INKS = Image.frombytes("CMYK", (32, 24), INK.tobytes())
"""Smooth CMYK, of which no channel is clipped in RGB."""


def lab_like_print(image, embedded):
    """Tell CIELAB with black point compensation."""
    return lab_of(image, embedded, ImageCms.Flags.BLACKPOINTCOMPENSATION)


@pytest.mark.parametrize("name", MODES)
def test_every_mode_becomes_grey_or_rgb_with_alpha_apart(name):
    """They are those of the file, of a program's image too, in arrays that torch can share."""
    source, options, pixels, alpha = MODES[name]
    data = as_bytes(source, Path(name).suffix[1:], **options)
    with Image.open(io.BytesIO(data)) as opened:
        same = from_pillow(opened)
    header = read_header(NAME, data)

    assert (header.channels, header.alpha) == (pixels.shape[2], alpha is not None)
    for picture in (read(NAME, data), same):
        assert (picture.alpha is None) == (alpha is None)
        for expected, found in ((pixels, picture.pixels), (alpha, picture.alpha)):
            if expected is not None:
                np.testing.assert_array_equal(expected, found)
                assert found.dtype == np.uint8
                assert found.flags.c_contiguous
                assert found.flags.writeable


@pytest.mark.parametrize(
    ("mode", "colour", "pixels", "alpha"),
    [
        ("La", (50, 128), [99], 128),
        ("RGBa", (50, 25, 10, 128), [99, 49, 19], 128),
        ("HSV", (0, 255, 255), [255, 0, 0], None),
        ("LAB", (255, 128, 128), [255, 255, 255], None),
        ("YCbCr", (76, 85, 255), [254, 0, 0], None),
        ("CMYK", (255, 0, 0, 0), [0, 255, 255], None),
    ],
)
def test_other_colour_models_become_rgb(mode, colour, pixels, alpha):
    """Each of Pillow's colour models turns into the colour that it stands for, within a level."""
    picture = from_pillow(Image.new(mode, (1, 1), colour))
    found, opacity = picture.pixels, picture.alpha

    np.testing.assert_allclose(found[0, 0].astype(int), pixels, atol=1)
    assert alpha == (None if opacity is None else opacity.item())


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_is_converted_through_its_profile(kind):
    """The colours look as the press profile says, within one CIE76 on average; it is noted."""
    data = as_bytes(INKS, kind, icc_profile=CMYK_PROFILE, quality=100)

    album = read_album(NAME, data)

    found = lab_like_print(album.pictures[0].pixels, SRGB)
    difference = np.linalg.norm(found - lab_like_print(INKS, CMYK_PROFILE), axis=2)
    assert difference.mean() < 1.5
    assert album.notes == ("CMYK converted to sRGB through its profile",)
    assert album.pictures[0].metadata.icc_profile is None
    assert read_header(NAME, data).channels == 3


@pytest.mark.parametrize(
    ("embedded", "reason"),
    [
        (None, "it has no profile"),
        (CMYK_PROFILE[:4000], "its profile is unusable"),
        (SRGB, "its profile is unusable"),
    ],
    ids=["none", "cut", "of RGB"],
)
def test_cmyk_without_a_sound_profile_is_converted_plainly(embedded, reason):
    """A bad profile does not cost the picture, and what was done instead is noted."""
    album = read_album(NAME, as_bytes(INKS, "TIFF", icc_profile=embedded))

    assert album.notes == (f"CMYK converted to sRGB by a plain formula: {reason}",)
    np.testing.assert_array_equal(np.array(INKS.convert("RGB")), album.pictures[0].pixels)
    assert album.pictures[0].metadata.icc_profile is None


def test_lab_is_converted():
    """CIELAB becomes the sRGB that looks the same, which is noted; it is turned once."""
    lab = Image.new("LAB", (8, 4), (160, 128 + 20, 128 - 30))

    album = read_album(NAME, as_bytes(lab, "TIFF", exif=exif_block(6)))

    assert album.pictures[0].pixels.shape == (8, 4, 3)

    found = lab_like_print(album.pictures[0].pixels, SRGB)[0, 0]
    np.testing.assert_allclose(found, (160 * 100 / 255, 20, -30), atol=1)
    assert album.notes == ("CIELAB converted to sRGB",)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "JPEG"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_orientation_is_applied(kind, orientation):
    """Pixels and opacity are turned upright, the size is swapped; EXIF stays as it was."""
    stored, options = np.dstack([smooth(), smooth(1) + 9]), {"lossless": True, "exact": True}
    if kind == "JPEG":
        stored, options = smooth(), {"quality": 100, "subsampling": 0}
    data = as_bytes(stored, kind, exif=exif_block(orientation), **options)

    picture = read(NAME, data)

    expected = UPRIGHT[orientation](stored)
    found = picture.pixels if kind == "JPEG" else np.dstack([picture.pixels, picture.alpha])
    tolerance = 3 if kind == "JPEG" else 0
    np.testing.assert_allclose(found.astype(int), expected, rtol=0, atol=tolerance)
    assert (expected.shape[1], expected.shape[0]) == read_size(NAME, data)
    expected_tags = {ExifTags.Base.Make: "Maker", ExifTags.Base.Orientation: orientation}
    assert expected_tags.items() <= parsed_block(picture.metadata.exif)[0].items()
    assert picture.metadata.orientation == orientation
    assert picture.metadata.size == (picture.width, picture.height)


@pytest.mark.parametrize("start", [0, 6], ids=["named", "bare"])
def test_exif_may_follow_the_pixels_of_a_png(start):
    """Reading and measuring agree about its orientation; its name, as in a JPEG, does no harm."""
    block = exif_block(orientation=8)
    text, exif = (b"tEXt", b"Comment\0hello"), (b"eXIf", block[start:])
    data = png(8, 0, b"abc", text, late=(text, exif))

    assert read(NAME, data).pixels.tolist() == [[[99]], [[98]], [[97]]]
    assert read(NAME, data).metadata.exif == block
    assert read_size(NAME, data) == (1, 3)


@pytest.mark.parametrize(
    ("mode", "orientation"),
    [*zip(("L", "RGB", "RGBA", "P") * 2, range(1, 9), strict=True), ("I;16", 6), ("RGBA", 5)],
)
def test_strips_are_put_together(mode, orientation):
    """A picture that is turned and converted in several strips is what it is in one piece."""
    levels = noise(3, height=1001, width=1300)
    image = as_image(levels).convert("I" if mode == "I;16" else mode).convert(mode)
    whole = np.asarray(image.convert("RGB") if mode == "P" else image).reshape(1001, 1300, -1)
    image.info["exif"] = exif_block(orientation)
    found = from_pillow(image)
    expected = UPRIGHT[orientation](whole)
    np.testing.assert_array_equal(found.pixels, expected[..., : 1 if mode in {"L", "I;16"} else 3])
    if mode == "RGBA":
        np.testing.assert_array_equal(found.alpha, expected[..., 3:])


@needs_proc
def test_decoding_takes_what_pillow_takes_and_the_array(tmp_path):
    """Pixels on their side take 4 bytes in Pillow and 3 in the array, and no third copy."""
    tile = noise(3, height=500, width=500)
    as_image(np.tile(tile, (8, 10, 1))).save(tmp_path / "a.jpg", quality=50, exif=exif_block(6))

    work = "assert read(Path(sys.argv[1])).width == 4000"
    grown = growth(work, tmp_path / "a.jpg", first="from srcli.imaging.reading import read")

    assert grown < 7 * 20 + 25
