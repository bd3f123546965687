"""Conversions between colour spaces."""

import struct

import numpy as np
import pytest
import pyvips
from PIL import Image
from reading_files import SRGB, TO_XYZ

from srcli.imaging.chunks import Chunks
from srcli.imaging.colour import from_png, rgb_of, stripped, to_srgb
from srcli.imaging.pictures import Metadata, Picture

CMYK = bytes(pyvips.Image.profile_load("cmyk"))


def described(gamma, *places, channels=3):
    """Make the profile of a gamma and, of colours, of x and y of white, red, green and blue."""
    chunks = [(b"gAMA", struct.pack(">I", round(100_000 / gamma)))]
    if places:
        chunks.append((b"cHRM", struct.pack(">8I", *(round(100_000 * each) for each in places))))
    return from_png(Chunks(others=tuple(chunks), behind=b""), channels)


ADOBE_RGB = described(2.19921875, 0.3127, 0.3290, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
GREY_GAMMA = described(1.8, channels=1)


def muted(dtype=np.uint8, channels=3):
    """Draw colours that every one of the spaces holds, with all the levels between."""
    rows, columns = np.mgrid[:24, :40]
    planes = [90 + rows * 3, 100 + columns * 1.5, 150 - rows - columns]
    levels = np.stack(planes[:channels], -1) / 255 * np.iinfo(dtype).max
    return levels.round().astype(dtype)


def converted(pixels, profile):
    """Convert a picture from a profile to sRGB; give its pixels."""
    found = to_srgb(Picture(pixels=pixels, metadata=Metadata(icc_profile=profile)))
    assert found.metadata.icc_profile is None
    return found.pixels


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(("profile", "gamma"), [(ADOBE_RGB, 2.19921875), (GREY_GAMMA, 1.8)])
def test_sixteen_and_eight_bits_follow_the_formula(dtype, profile, gamma):
    """A gamma, a matrix for colours, and sRGB's curve (IEC 61966-2-1); grey stays grey."""
    top, channels = np.iinfo(dtype).max, 1 if profile == GREY_GAMMA else 3
    pixels = muted(dtype, channels)
    light = (pixels / top) ** gamma
    if channels == 3:
        light = light @ TO_XYZ["a98"] @ np.linalg.inv(TO_XYZ["sRGB"])
    expected = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055) * 255

    levels = converted(pixels, profile)

    assert (levels.shape, levels.dtype) == (pixels.shape, dtype)
    difference = np.abs(levels / top * 255 - expected)
    assert difference.max() < (1 if channels == 3 else 1.5)
    assert channels == 1 or difference.mean() < (0.3 if top == 255 else 0.05)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(
    "profile",
    [
        SRGB,
        bytes(pyvips.Image.profile_load("srgb")),
        ADOBE_RGB[:200],
        GREY_GAMMA,
        CMYK,
    ],
    ids=["srgb", "other srgb", "cut", "of grey", "of cmyk"],
)
def test_what_is_srgb_or_means_nothing_changes_no_level(profile, dtype):
    """Pixels whose profile is sRGB's, damaged or of another kind stay; the profile goes."""
    pixels = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (9, 9, 3), dtype=dtype)

    np.testing.assert_array_equal(pixels, converted(pixels, profile))


def test_stripping_takes_metadata_and_keeps_colours():
    """A picture is in sRGB with nothing said about it; opacity and timing stay."""
    metadata = Metadata(icc_profile=ADOBE_RGB, dpi=(90, 90), exif=b"Exif\0\0", text=(("a", "b"),))
    first = Picture(pixels=muted(), alpha=muted(channels=1), metadata=metadata, duration=40)

    bare = stripped(first)

    assert bare.metadata == Metadata()
    np.testing.assert_array_equal(to_srgb(first).pixels, bare.pixels)
    assert bare.alpha is first.alpha
    assert bare.duration == 40


def test_the_black_of_a_press_becomes_the_black_of_a_screen():
    """Black point compensation: the darkest ink is not left a dark grey."""
    image = Image.new("CMYK", (2, 2), (190, 170, 160, 255))
    image.info["icc_profile"] = CMYK

    assert max(rgb_of(image)[0].getpixel((0, 0))) < 12  # 39 without it
