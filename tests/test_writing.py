"""Pictures into files of every format: stills, and what comes back."""

import io
from pathlib import Path

import numpy as np
import pytest
from reading_files import AVIF, COLOURS, noise, smooth
from writing_files import KINDS, of_kind, write

from srcli.errors import OutputError
from srcli.imaging.formats import FORMATS
from srcli.imaging.images import Picture, format_of, read, read_album
from srcli.imaging.pictures import Album
from srcli.imaging.writing import write_stream


def holds(name, dtype, _channels, alpha):
    """Whether a format holds pictures of a kind."""
    form = FORMATS[format_of(Path(name))]
    return (form.alpha or not alpha) and (form.sixteen or dtype == np.uint8)


LOSSLESS = ("a.png", "a.webp", "a.tif", "a.TIFF", "a.bmp", "a.ppm")


@pytest.mark.parametrize(
    ("name", "dtype", "channels", "alpha"),
    [
        *[(name, *kind.values) for name in LOSSLESS for kind in KINDS if holds(name, *kind.values)],
        *[pytest.param("a.avif", *kind.values, marks=AVIF) for kind in KINDS[:4]],
    ],
)
def test_lossless_formats_give_the_pixels_back(tmp_path, name, dtype, channels, alpha):
    """Depth, opacity and the colours below it, of views too; WebP makes grey RGB, AVIF rounds."""
    given = of_kind(dtype, channels, alpha=alpha, height=10)
    opacity = given.alpha[::-1, ::2] if alpha else None
    picture = Picture(pixels=given.pixels[::-1, ::2], alpha=opacity)
    notes = write(picture, tmp_path / name, lossless=True)

    found = read(tmp_path / name)

    pixels = np.broadcast_to(picture.pixels, found.pixels.shape).astype(int)
    np.testing.assert_allclose(found.pixels, pixels, rtol=0, atol=4 if name == "a.avif" else 0)
    assert found.pixels.dtype == dtype
    wide = name == "a.webp" or (name == "a.avif" and alpha)
    assert found.pixels.shape[2] == (3 if wide else channels)
    assert (found.alpha == opacity).all() if alpha else found.alpha is None
    assert read_album(tmp_path / name).format == format_of(Path(name))
    never = ("AVIF is never quite lossless: off by a few levels",)
    assert notes == (never if name == "a.avif" else ())


def test_colour_gif_keeps_few_colours_and_clear_pixels(tmp_path):
    """Up to 255 colours are exact, and opacity becomes on or off at one half."""
    alpha = np.array([[[0], [127], [128], [255]]], np.uint8)
    pixels = COLOURS[None]
    write(Picture(pixels=pixels, alpha=alpha), tmp_path / "a.gif")

    found = read(tmp_path / "a.gif")

    assert found.alpha.tolist() == [[[0], [0], [255], [255]]]
    np.testing.assert_array_equal(pixels[:, 2:], found.pixels[:, 2:])


@pytest.mark.parametrize("name", ["a.jpg", "a.webp", pytest.param("a.avif", marks=AVIF)])
def test_quality_trades_bytes_for_closeness(tmp_path, name):
    """The default of 95 is nearer to the picture, and larger, than 30."""
    pixels = noise(3, height=32, width=48)
    sizes, errors = [], []
    for quality in ({"quality": 30}, {}):
        write(Picture(pixels=pixels), tmp_path / name, **quality)
        sizes.append((tmp_path / name).stat().st_size)
        errors.append(np.abs(read(tmp_path / name).pixels.astype(int) - pixels).mean())

    assert sizes[0] < sizes[1]
    assert errors[0] > errors[1]


def test_jpeg_chroma_is_not_subsampled(tmp_path):
    """Single columns keep their colour."""
    pixels = np.zeros((16, 32, 3), np.uint8)
    pixels[:, ::2, 0], pixels[:, 1::2, 2] = 255, 255
    write(Picture(pixels=pixels), tmp_path / "a.jpg")

    np.testing.assert_allclose(read(tmp_path / "a.jpg").pixels.astype(int), pixels, atol=16)


@pytest.mark.parametrize("name", ["a.bmp", "a.jpg"])
@pytest.mark.parametrize("channels", [1, 3])
def test_transparency_is_laid_over_white_where_it_cannot_be_kept(tmp_path, name, channels):
    """Formats without opacity show the picture as on white paper."""
    pixels, alpha = smooth(channels), smooth(1)
    notes = write(Picture(pixels=pixels, alpha=alpha), tmp_path / name, quality=100)

    found = read(tmp_path / name)

    expected = np.rint(pixels * (alpha / 255) + 255 * (1 - alpha / 255))
    np.testing.assert_allclose(
        found.pixels.astype(int), expected, rtol=0, atol=3 if "jpg" in name else 0
    )
    assert found.alpha is None
    assert notes == (f"{format_of(Path(name))} holds no transparency: laid over white",)


@pytest.mark.parametrize("name", ["a.webp", "a.bmp"])
def test_sixteen_bits_are_rounded_where_they_cannot_be_kept(tmp_path, name):
    """To the nearest of 256 levels, and that is said."""
    levels = np.array([[[0], [128], [129], [33024], [33025], [65535]]], np.uint16)
    picture = Picture(pixels=np.repeat(levels, 3, axis=2))
    notes = write(picture, tmp_path / name, lossless=True)

    assert read(tmp_path / name).pixels[0, :, 0].tolist() == [0, 0, 1, 128, 129, 255]
    assert notes == (f"{format_of(Path(name))} holds 8 bits a channel: rounded from 16",)


def test_a_stream_gets_nothing_when_the_encoding_fails():
    """A picture too large for its format is told before the first byte."""
    stream = io.BytesIO()
    stream.name = "<stdout>"
    album = Album(pictures=(Picture(pixels=np.zeros((1, 70_000, 1), np.uint8)),))

    with pytest.raises(OutputError, match=r"^<stdout>: 70000x1 pixels exceed the 65500 a side"):
        write_stream(album, stream, format="JPEG")
    assert stream.getvalue() == b""
