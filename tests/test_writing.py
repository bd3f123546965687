"""Pictures into files of every format: stills, and what comes back."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
from reading_files import AVIF, COLOURS, noise, smooth
from writing_files import KINDS, SMALL, of_kind, write

from srcli.errors import OutputError
from srcli.imaging.formats import FORMATS
from srcli.imaging.images import Picture, format_of, read, read_album
from srcli.imaging.pictures import Album
from srcli.imaging.writing import write_album, write_stream

# ---- round trips --------------------------------------------------------------------------


def holds(name, dtype, _channels, alpha):
    """Whether a format holds pictures of a kind."""
    form = FORMATS[format_of(Path(name))]
    return (form.alpha or not alpha) and (form.sixteen or dtype == np.uint8)


LOSSLESS = ("a.png", "a.webp", "a.tif", "a.TIFF", "a.bmp", "a.ppm")


@pytest.mark.parametrize(
    ("name", "dtype", "channels", "alpha"),
    [(name, *kind.values) for name in LOSSLESS for kind in KINDS if holds(name, *kind.values)],
)
def test_lossless_formats_give_the_pixels_back(tmp_path, name, dtype, channels, alpha):
    """Depth, opacity and the colours below it come back, of views too; WebP makes grey RGB."""
    given = of_kind(dtype, channels, alpha=alpha, height=10)
    opacity = given.alpha[::-1, ::2] if alpha else None
    picture = Picture(pixels=given.pixels[::-1, ::2], alpha=opacity)
    notes = write(picture, tmp_path / name, lossless=True)

    found = read(tmp_path / name)

    pixels = np.broadcast_to(picture.pixels, found.pixels.shape)
    np.testing.assert_array_equal(pixels, found.pixels)
    assert found.pixels.dtype == dtype
    assert found.pixels.shape[2] == (3 if name == "a.webp" else channels)
    assert (found.alpha == opacity).all() if alpha else found.alpha is None
    assert read_album(tmp_path / name).format == format_of(Path(name))
    assert notes == ()


def test_colour_gif_keeps_few_colours_and_clear_pixels(tmp_path):
    """Up to 255 colours are exact, and opacity becomes on or off at one half."""
    alpha = np.array([[[0], [127], [128], [255]]], np.uint8)
    pixels = COLOURS[None]
    write(Picture(pixels=pixels, alpha=alpha), tmp_path / "a.gif")

    found = read(tmp_path / "a.gif")

    assert found.alpha.tolist() == [[[0], [0], [255], [255]]]
    np.testing.assert_array_equal(pixels[:, 2:], found.pixels[:, 2:])


@AVIF
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("alpha", [None, smooth(1)], ids=["opaque", "alpha"])
def test_avif_at_its_best_is_within_a_few_levels(tmp_path, channels, alpha):
    """Lossless AVIF rounds its colour transform and nothing else."""
    pixels = noise(channels, height=24, width=40)
    write(Picture(pixels=pixels, alpha=alpha), tmp_path / "a.avif", lossless=True)

    found = read(tmp_path / "a.avif")

    np.testing.assert_allclose(
        found.pixels.astype(int), np.broadcast_to(pixels, found.pixels.shape), rtol=0, atol=4
    )
    if alpha is None:
        assert found.alpha is None
    else:
        np.testing.assert_array_equal(alpha, found.alpha)


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
    """The frame header says 1x1 for every component, and single columns keep their colour."""
    pixels = np.zeros((16, 32, 3), np.uint8)
    pixels[:, ::2, 0], pixels[:, 1::2, 2] = 255, 255
    write(Picture(pixels=pixels), tmp_path / "a.jpg")

    data = (tmp_path / "a.jpg").read_bytes()
    frame = data[data.index(b"\xff\xc0") + 9 :]
    assert [frame[1 + 3 * component + 1] for component in range(frame[0])] == [0x11, 0x11, 0x11]
    np.testing.assert_allclose(read(tmp_path / "a.jpg").pixels.astype(int), pixels, atol=16)


@pytest.mark.parametrize("name", ["a.bmp", "a.ppm", "a.jpg"])
@pytest.mark.parametrize("channels", [1, 3])
def test_transparency_is_laid_over_white_where_it_cannot_be_kept(tmp_path, name, channels):
    """Formats without opacity show the picture as on white paper."""
    pixels, alpha = smooth(channels), smooth(1)
    write(Picture(pixels=pixels, alpha=alpha), tmp_path / name, quality=100)

    found = read(tmp_path / name)

    share = alpha / 255
    expected = np.rint(pixels * share + 255 * (1 - share))
    np.testing.assert_allclose(
        found.pixels.astype(int), expected, rtol=0, atol=3 if "jpg" in name else 0
    )
    assert found.alpha is None


# ---- sixteen bits -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.webp", "a.bmp"])
def test_sixteen_bits_are_rounded_where_they_cannot_be_kept(tmp_path, name):
    """To the nearest of 256 levels, and that is said."""
    levels = np.array([[[0], [128], [129], [33024], [33025], [65535]]], np.uint16)
    album = Album(pictures=(Picture(pixels=np.repeat(levels, 3, axis=2)),))
    notes = write_album(album, tmp_path / name, lossless=True)

    assert read(tmp_path / name).pixels[0, :, 0].tolist() == [0, 0, 1, 128, 129, 255]
    assert notes == (f"{format_of(Path(name))} holds 8 bits a channel: rounded from 16",)


# ---- to Pillow ----------------------------------------------------------------------------


# ---- streams and odd names ----------------------------------------------------------------


def test_a_stream_gets_nothing_when_the_encoding_fails():
    """A picture too large for its format is told before the first byte."""
    stream = io.BytesIO()
    stream.name = "<stdout>"
    album = Album(pictures=(Picture(pixels=np.zeros((1, 70_000, 1), np.uint8)),))

    with pytest.raises(OutputError, match=r"^<stdout>: 70000x1 pixels exceed the 65500 a side"):
        write_stream(album, stream, format="JPEG")
    assert stream.getvalue() == b""


def test_a_reader_that_has_gone_is_told():
    """A closed pipe is an error of one line."""
    reading, writing_end = os.pipe()
    os.close(reading)
    with (
        pytest.raises(OutputError, match="its reader has gone; check the command behind the pipe"),
        io.FileIO(writing_end, "wb") as stream,
    ):
        write_stream(Album(pictures=(SMALL,)), stream, format="PNG")
