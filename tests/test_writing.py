"""Pictures into files of every format: stills, a few rows at a time, whole or not at all."""

import errno
import io
import itertools
import os
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import pyvips
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, features

from srcli.errors import OutputError
from srcli.imaging import images, writing
from srcli.imaging.bands import part_of
from srcli.imaging.images import Metadata, Picture, format_of, read, read_album, read_size, write
from srcli.imaging.pictures import Album
from srcli.imaging.writing import to_pillow, write_album, write_rows, write_stream

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


def names_in(folder):
    """List what is in a folder, hidden files included."""
    return sorted(path.name for path in folder.iterdir())


RGB = noise(3)
SMALL = Picture(pixels=RGB)
COLOURS = np.array([[10, 20, 30], [200, 0, 0], [0, 200, 0], [250, 250, 255]], dtype=np.uint8)


# ---- round trips --------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.tif", "a.TIFF", "a.bmp", "a.ppm"])
def test_lossless_formats_give_the_pixels_back(tmp_path, name, channels):
    """Grey and RGB come back exactly; WebP, which knows no grey, makes it RGB."""
    pixels = noise(channels)
    write(Picture(pixels=pixels), tmp_path / name, lossless=True)

    found = read(tmp_path / name)

    np.testing.assert_array_equal(np.broadcast_to(pixels, found.pixels.shape), found.pixels)
    assert found.pixels.shape[2] == (3 if name == "a.webp" else channels)
    assert found.alpha is None
    assert read_album(tmp_path / name).format == format_of(Path(name))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.tiff"])
def test_lossless_formats_give_the_alpha_back(tmp_path, name, channels):
    """Opacity comes back exactly, and so do the colours under clear pixels."""
    pixels, alpha = noise(channels), noise(1, seed=1)
    alpha[0] = 0
    write(Picture(pixels=pixels, alpha=alpha), tmp_path / name, lossless=True)

    found = read(tmp_path / name)

    np.testing.assert_array_equal(np.broadcast_to(pixels, found.pixels.shape), found.pixels)
    np.testing.assert_array_equal(alpha, found.alpha)


def test_views_can_be_written(tmp_path):
    """Pixels need not be contiguous to be written."""
    pixels, alpha = noise(3)[::-1, ::2], noise(1, seed=1)[::-1, ::2]
    write(Picture(pixels=pixels, alpha=alpha), tmp_path / "a.png")

    found = read(tmp_path / "a.png")

    np.testing.assert_array_equal(pixels, found.pixels)
    np.testing.assert_array_equal(alpha, found.alpha)


def test_colour_gif_keeps_few_colours_and_clear_pixels(tmp_path):
    """Up to 255 colours are exact, and opacity becomes on or off at one half."""
    alpha = np.array([[[0], [127], [128], [255]]], np.uint8)
    pixels = COLOURS[None]
    write(Picture(pixels=pixels, alpha=alpha), tmp_path / "a.gif")

    found = read(tmp_path / "a.gif")

    assert found.alpha.tolist() == [[[0], [0], [255], [255]]]
    np.testing.assert_array_equal(pixels[:, 2:], found.pixels[:, 2:])


def test_gif_with_many_colours_and_clear_pixels_is_close(tmp_path):
    """A full palette leaves one index for clear pixels, and the colours stay close."""
    alpha = np.full((24, 40, 1), 255, np.uint8)
    alpha[5:9, 7:20] = 0
    write(Picture(pixels=smooth(), alpha=alpha), tmp_path / "a.gif")

    found = read(tmp_path / "a.gif")

    np.testing.assert_array_equal(alpha, found.alpha)
    error = np.abs(found.pixels.astype(int) - smooth())[alpha[..., 0] > 0]
    assert error.max() <= 24


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


def both(picture):
    """Put levels and opacity of a picture into one array."""
    if picture.alpha is None:
        return picture.pixels
    return np.concatenate([picture.pixels, picture.alpha], axis=2)


def by_vips(data, shape, **options):
    """Decode a file with libvips, which shares no code with Pillow's reading of it."""
    return pyvips.Image.new_from_buffer(data, "", **options).numpy().reshape(shape)


KINDS = [
    pytest.param(dtype, channels, alpha, id=f"{dtype.__name__}-{channels}{'-alpha' * alpha}")
    for dtype in (np.uint8, np.uint16)
    for channels in (1, 3)
    for alpha in (False, True)
]


def of_kind(dtype, channels, *, alpha=False, height=HEIGHT, width=WIDTH, seed=0, **more):
    """Make a picture of noise."""
    sides = {"height": height, "width": width}
    return Picture(
        pixels=noise(channels, dtype, seed, **sides),
        alpha=noise(1, dtype, seed + 1, **sides) if alpha else None,
        **more,
    )


@pytest.mark.parametrize(("dtype", "channels", "alpha"), KINDS)
@pytest.mark.parametrize("size", [(1, 1), (5, 7), (1100, 700)])
def test_png_is_exact_at_every_depth(tmp_path, dtype, channels, alpha, size):
    """An independent decoder finds every level, of small pictures and of several blocks."""
    picture = of_kind(dtype, channels, alpha=alpha, height=size[0], width=size[1])
    notes = write_album(Album(pictures=(picture,)), tmp_path / "a.png")

    found = by_vips((tmp_path / "a.png").read_bytes(), both(picture).shape)

    assert found.dtype == dtype
    np.testing.assert_array_equal(both(picture), found)
    assert notes == ()


@pytest.mark.parametrize("channels", [1, 3])
def test_ppm_is_exact_at_sixteen_bits(tmp_path, channels):
    """The higher byte of every level comes first."""
    picture = of_kind(np.uint16, channels, alpha=False)
    write(picture, tmp_path / "a.ppm")

    magic = b"P5" if channels == 1 else b"P6"
    head = magic + b"\n7 5\n65535\n"
    assert (tmp_path / "a.ppm").read_bytes() == head + picture.pixels.astype(">u2").tobytes()


@pytest.mark.parametrize("name", ["a.webp", "a.bmp"])
def test_sixteen_bits_are_rounded_where_they_cannot_be_kept(tmp_path, name):
    """To the nearest of 256 levels, and that is said."""
    levels = np.array([[[0], [128], [129], [33024], [33025], [65535]]], np.uint16)
    album = Album(pictures=(Picture(pixels=np.repeat(levels, 3, axis=2)),))
    notes = write_album(album, tmp_path / name, lossless=True)

    assert read(tmp_path / name).pixels[0, :, 0].tolist() == [0, 0, 1, 128, 129, 255]
    assert notes == (f"{format_of(Path(name))} holds 8 bits a channel: rounded from 16",)


# ---- to Pillow ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "channels", "alpha", "mode"),
    [
        (np.uint8, 1, False, "L"),
        (np.uint8, 1, True, "LA"),
        (np.uint8, 3, False, "RGB"),
        (np.uint8, 3, True, "RGBA"),
        (np.uint16, 1, False, "I;16"),
        (np.uint16, 3, False, "RGB"),
        (np.uint16, 1, True, "LA"),
    ],
)
def test_pictures_become_pillow_images(dtype, channels, alpha, mode):
    """Levels are the same, or rounded to 8 bits where Pillow has no more."""
    picture = of_kind(dtype, channels, alpha=alpha)
    image = to_pillow(picture)

    assert mode == image.mode
    levels = both(picture)
    if dtype == np.uint16 and mode != "I;16":
        levels = np.rint(levels / 257)
    np.testing.assert_array_equal(levels, np.array(image).reshape(levels.shape))


# ---- streams and odd names ----------------------------------------------------------------


def test_a_stream_gets_what_a_file_would(tmp_path):
    """The bytes are the same, and the stream stays open."""
    write(SMALL, tmp_path / "a.tiff")
    stream = io.BytesIO(b"before")
    stream.seek(0, os.SEEK_END)
    write_stream(Album(pictures=(SMALL,)), stream, format="TIFF")

    assert stream.getvalue() == b"before" + (tmp_path / "a.tiff").read_bytes()


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


def test_the_format_can_be_named(tmp_path):
    """A name without a known suffix is written as told; a name that no format has is refused."""
    write_album(Album(pictures=(SMALL,)), tmp_path / "photo.tmp", format="PNG")

    np.testing.assert_array_equal(RGB, read(tmp_path / "photo.tmp").pixels)
    with pytest.raises(OutputError, match="no format is called 'DOC'; use JPEG PNG"):
        write_album(Album(pictures=(SMALL,)), tmp_path / "a.png", format="DOC")


# ---- rows as they come --------------------------------------------------------------------

STREAMED = ("a.png", "a.tiff", "a.ppm", "a.jpg")
LABELLED = Metadata(
    xmp=b'<x xmlns:exif="http://ns.adobe.com/exif/1.0/" exif:PixelYDimension="4"/>',
    dpi=(300.0, 150.0),
    iptc=b"\x1c\x02\x05\x00\x05Title",
    comment=b"hello",
    text=(("Title", "Night"),),
)


@pytest.fixture
def small_blocks(monkeypatch):
    """Make writers work in blocks of a few rows, and never hold a picture."""
    monkeypatch.setattr("srcli.imaging.streaming._BLOCK_BYTES", 130)
    monkeypatch.setattr("srcli.imaging.streaming._HELD", 0)
    monkeypatch.setattr("srcli.imaging.bands._BAND_BYTES", 170)


def banded(picture, cuts):
    """Cut a picture into bands that end at these rows; all are of the same memory."""
    pixels = np.empty_like(picture.pixels)
    alpha = None if picture.alpha is None else np.empty_like(picture.alpha)
    for top, end in itertools.pairwise([0, *cuts, picture.height]):
        pixels[:] = 99
        pixels[: end - top] = picture.pixels[top:end]
        if alpha is not None:
            alpha[:] = 99
            alpha[: end - top] = picture.alpha[top:end]
        yield part_of(replace(picture, pixels=pixels, alpha=alpha), slice(end - top))


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("kind", [kind.values for kind in KINDS], ids=[kind.id for kind in KINDS])
@pytest.mark.parametrize("name", [*STREAMED, "a.bmp"])
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_the_file_is_the_same_however_the_picture_was_cut(tmp_path, name, kind, data):
    """Byte for byte, with what is said about it, whatever the height; and bands may be reused."""
    dtype, channels, alpha = kind
    height, width = data.draw(st.integers(1, 30)), data.draw(st.integers(1, 20))
    cuts = data.draw(st.sets(st.integers(1, 29)))
    metadata = data.draw(st.sampled_from([Metadata(), LABELLED]))
    whole = of_kind(dtype, channels, alpha=alpha, height=height, width=width, metadata=metadata)
    told = write_album(Album(pictures=(whole,)), tmp_path / f"whole-{name}")

    bands = banded(whole, sorted(cut for cut in cuts if cut < height))
    notes = write_rows(bands, tmp_path / name, height=height)

    assert told == notes
    assert (tmp_path / f"whole-{name}").read_bytes() == (tmp_path / name).read_bytes()


def test_smooth_rows_are_packed_well(tmp_path):
    """Filters turn a gradient into next to nothing."""
    rows, columns = np.mgrid[:200, :300]
    pixels = np.stack([rows, columns // 2, rows + columns // 3], axis=2).astype(np.uint8)
    for name in ("a.png", "a.tiff"):
        write(Picture(pixels=pixels), tmp_path / name)

        assert (tmp_path / name).stat().st_size < pixels.size / 20


def failing(error, rows=12):
    """Give some bands, and then fail."""
    for _ in range(rows // 3):
        yield of_kind(np.uint8, 3, height=3, width=20)
    raise error


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("rows", [0, 3, 12])
@pytest.mark.parametrize(
    "error",
    [ValueError("a bug"), OSError(errno.ENOSPC, "elsewhere"), KeyboardInterrupt(), MemoryError()],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("name", [*STREAMED, "a.bmp"])
def test_what_stops_the_rows_is_not_the_files_fault(tmp_path, name, error, rows, capfd):
    """It passes as it is; the old file stays, no other is left, and nothing is printed."""
    (tmp_path / name).write_bytes(b"old")

    with pytest.raises(type(error)) as caught:
        write_rows(failing(error, rows), tmp_path / name, height=100)

    assert caught.value is error
    assert (tmp_path / name).read_bytes() == b"old"
    assert names_in(tmp_path) == [name]
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize(
    "bands",
    [
        [],
        [SMALL],
        [SMALL, SMALL, SMALL],
        [SMALL, of_kind(np.uint8, 1)],
        [SMALL, of_kind(np.uint16, 3)],
        [SMALL, of_kind(np.uint8, 3, alpha=True)],
        [SMALL, of_kind(np.uint8, 3, width=8)],
    ],
    ids=["none", "few", "many", "channels", "depth", "opacity", "width"],
)
@pytest.mark.parametrize("name", ["a.png", "a.tiff", "a.ppm", "a.jpg", "a.bmp"])
def test_bands_that_are_no_picture_are_a_bug_of_the_caller(tmp_path, name, bands):
    """It is no error that a user could do anything about."""
    with pytest.raises(ValueError, match="bands must be of one kind and have 10 rows together"):
        write_rows(iter(bands), tmp_path / name, height=10)
    assert names_in(tmp_path) == []


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("name", STREAMED)
def test_a_disk_that_fills_up_between_rows_is_reported(tmp_path, monkeypatch, name):
    """And rows that are computed in vain are not asked for any more."""
    asked = []

    def endless():
        for number in range(100):
            asked.append(number)
            yield of_kind(np.uint8, 3, height=5, width=6000, seed=number)

    @contextmanager
    def full(_):
        yield Path("/dev/full")

    def refuse(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("srcli.imaging.streaming.scratch", full)
    monkeypatch.setattr(writing._Sink, "write", refuse)

    with pytest.raises(OutputError, match="the disk is full; free some space") as caught:
        write_rows(endless(), tmp_path / name, height=500)

    assert "\n" not in str(caught.value)
    assert names_in(tmp_path) == []
    assert len(asked) < 20


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("missing/a.png", "there is no folder"),
        ("a.docx", "no format is known for the suffix"),
        (".", "a folder is in the way"),
    ],
)
def test_nothing_is_computed_for_a_file_that_cannot_be_written(tmp_path, path, problem):
    """The target is looked at before the first band is asked for."""
    asked = []
    bands = (asked.append(number) or SMALL for number in range(2))

    with pytest.raises(OutputError, match=problem):
        write_rows(bands, tmp_path / path, height=10, format="PNG" if path == "." else None)
    assert asked == []


def test_rows_of_a_picture_too_large_for_its_format(tmp_path):
    """It is the whole that counts, and it is found with the first band."""
    problem = "7x65501 pixels exceed the 65500 a side that JPEG can hold; write PNG or TIFF"
    with pytest.raises(OutputError, match=problem):
        write_rows(itertools.repeat(SMALL), tmp_path / "a.jpg", height=65501)


MEASURED = """
import re
import sys
from pathlib import Path

import numpy as np

from srcli.imaging import streaming
from srcli.imaging.images import Picture, write_rows

streaming._HELD = 0
path, height, width = Path(sys.argv[1]), 2000, 8000
band = np.random.default_rng(0).integers(0, 99, (50, width, 3)).astype(sys.argv[2])
bands = (Picture(pixels=band + band.dtype.type(number)) for number in range(height // 50))

def peak():
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(re.search("VmHWM:\\\\s*([0-9]+) kB", status)[1]) / 1024

write_rows([Picture(pixels=band)], path, height=50)
before = peak()
write_rows(bands, path, height=height)
print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="measured as Linux tells it")
@pytest.mark.parametrize(
    ("name", "depth"),
    [*((name, "uint8") for name in STREAMED), ("a.png", "uint16"), ("a.tiff", "uint16")],
)
def test_rows_are_not_held(tmp_path, name, depth):
    """16 megapixels, 48 or 96 MB, are written in less than 36 or 64 MB more than 0.4 are."""
    script = [sys.executable, "-c", MEASURED, str(tmp_path / name), depth]
    run = subprocess.run(script, capture_output=True, check=True, text=True)

    assert float(run.stdout) < (36 if depth == "uint8" else 64)
    assert read_size(tmp_path / name) == (8000, 2000)


# ---- names --------------------------------------------------------------------------------


def test_formats_are_known_by_suffix_in_either_case():
    """Upper and lower case name the same format; others name none."""
    names = ["a.jpg", "A.JPEG", "a.Png", "a.webp", "a.tif", "a.TIFF", "a.bmp", "a.gif", "a.pgm"]
    formats = ["JPEG", "JPEG", "PNG", "WEBP", "TIFF", "TIFF", "BMP", "GIF", "PPM"]

    assert formats == [format_of(Path(name)) for name in names]
    assert [format_of(Path(name)) for name in ("a.txt", "jpg", "a.jpg.eps")] == [None, None, None]


# ---- errors of writing --------------------------------------------------------------------


def refusal_of(path, picture=SMALL):
    """Write in vain and give the message, after checking that it is one line and left nothing."""
    with pytest.raises(OutputError) as caught:
        write(picture, path)
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(f"{path}: ")
    return text.removeprefix(f"{path}: ")


def test_unknown_suffixes_list_the_known_ones(tmp_path):
    """The message holds every suffix that would have worked."""
    message = refusal_of(tmp_path / "a.docx")

    known = " ".join(sorted(images.READABLE_SUFFIXES))
    assert f"no format is known for the suffix '.docx'; use {known}" == message


def test_missing_folders_and_folders_in_the_way(tmp_path):
    """They are found before anything is encoded."""
    missing = tmp_path / "missing"
    (tmp_path / "taken.png").mkdir()
    (tmp_path / "file").touch()

    assert f"there is no folder {missing}; make it first" == refusal_of(missing / "a.png")
    assert refusal_of(tmp_path / "taken.png") == "a folder is in the way; choose another name"
    assert refusal_of(tmp_path / "file" / "a.png") == "there is no such folder; make it first"
    assert {"taken.png", "file"} == set(names_in(tmp_path))


def test_odd_folder_names_are_printed_safely(tmp_path):
    """A line feed in a missing folder's name does not break the line."""
    with pytest.raises(OutputError) as caught:
        write(SMALL, tmp_path / "two\nlines" / "a.png")

    folder = rf"{tmp_path}/two\nlines"
    assert str(caught.value) == f"{folder}/a.png: there is no folder {folder}; make it first"


def test_names_too_long_for_the_file_system(tmp_path):
    """The name is refused before the encoding, not by the temporary name."""
    assert refusal_of(tmp_path / ("a" * 300 + ".png")) == "the file name is too long; shorten it"
    assert names_in(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "limit", "format_name"),
    [
        ("a.jpg", 65500, "JPEG"),
        ("a.webp", 16383, "WEBP"),
        ("a.gif", 65535, "GIF"),
        pytest.param("a.avif", 32768, "AVIF", marks=AVIF),
    ],
)
def test_pictures_too_large_for_a_format(tmp_path, name, limit, format_name):
    """The limit is named, and is the real one: a picture of that side can be written and read."""
    problem = f"pixels exceed the {limit} a side that {format_name} can hold; write PNG or TIFF"
    for height, width in ((1, limit + 1), (limit + 1, 1)):
        picture = Picture(pixels=np.zeros((height, width, 1), np.uint8))

        assert refusal_of(tmp_path / name, picture) == f"{width}x{height} {problem}"

    write(Picture(pixels=np.zeros((1, limit, 1), np.uint8)), tmp_path / name)
    assert (limit, 1) == read_size(tmp_path / name)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (errno.ENOSPC, "the disk is full; free some space or choose another folder"),
        (errno.EACCES, "no permission to write there; choose another folder"),
        (errno.EROFS, "the disk is read-only; choose another folder"),
        (errno.EIO, f"cannot be written ({os.strerror(errno.EIO)}); choose another folder"),
    ],
)
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tiff", "a.webp", "a.bmp", "a.gif", "a.ppm"])
def test_what_the_disk_refuses_is_told_through_every_encoder(
    tmp_path, monkeypatch, name, code, expected
):
    """The system's reason survives Pillow's encoders, and nothing is left behind."""

    def refuse(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(writing._Sink, "write", refuse)

    assert expected == refusal_of(tmp_path / name)
    assert names_in(tmp_path) == []


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("bad\nvalue"), r"cannot be encoded (bad\nvalue); choose another format"),
        (MemoryError(), "encoding it does not fit into memory; write BMP or PPM"),
        (
            OSError("encoder error -2"),
            "cannot be encoded (encoder error -2); choose another format",
        ),
    ],
)
def test_failed_encodings_leave_the_old_file(tmp_path, monkeypatch, error, expected):
    """A failure after some bytes leaves the target as it was and no temporary file."""
    path = tmp_path / "a.jpg"
    path.write_bytes(b"old")

    def save(_, stream, **__):
        stream.write(b"half a picture" * 10_000)
        raise error

    monkeypatch.setattr(Image.Image, "save", save)

    assert expected == refusal_of(path)
    assert path.read_bytes() == b"old"
    assert names_in(tmp_path) == ["a.jpg"]


def test_an_interrupted_encoding_leaves_the_old_file(tmp_path, monkeypatch):
    """Ctrl-C while encoding stays Ctrl-C and cleans up."""
    path = tmp_path / "a.jpg"
    path.write_bytes(b"old")

    def save(_, stream, **__):
        stream.write(b"half")
        assert len(names_in(tmp_path)) == 2
        raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", save)

    with pytest.raises(KeyboardInterrupt):
        write(SMALL, path)
    assert path.read_bytes() == b"old"
    assert names_in(tmp_path) == ["a.jpg"]


def test_an_existing_file_is_replaced_whole(tmp_path):
    """The old content is gone and nothing else is in the folder."""
    path = tmp_path / "a.png"
    path.write_bytes(b"old" * 100_000)
    write(SMALL, path)

    np.testing.assert_array_equal(RGB, read(path).pixels)
    assert names_in(tmp_path) == ["a.png"]


@pytest.mark.parametrize(("umask", "expected"), [(0o022, 0o644), (0o027, 0o640), (0, 0o666)])
@pytest.mark.parametrize("name", ["a.png", "a.tiff"])
def test_permissions_follow_the_umask(tmp_path, umask, expected, name):
    """A written picture has the permissions of any new file."""
    before = os.umask(umask)
    try:
        write(SMALL, tmp_path / name)
    finally:
        os.umask(before)

    assert expected == (tmp_path / name).stat().st_mode & 0o777
