import errno
import io
import itertools
import os
import struct
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import pyvips
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageCms, features

from srcli.errors import OutputError
from srcli.imaging import images, writing
from srcli.imaging import png as png_module
from srcli.imaging.bands import part_of
from srcli.imaging.directories import SHORT, Exif, entry
from srcli.imaging.directories import exif_block as block_of
from srcli.imaging.formats import BUILT, FORMATS
from srcli.imaging.images import Metadata, Picture, format_of, read, read_album, read_size, write
from srcli.imaging.pictures import Album
from srcli.imaging.tags import DIRECTORIES, dpi_of
from srcli.imaging.tiff import write_tiff
from srcli.imaging.writing import losses, to_pillow, write_album, write_rows, write_stream

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


RGB = noise(3)
SMALL = Picture(pixels=RGB)
COLOURS = np.array([[10, 20, 30], [200, 0, 0], [0, 200, 0], [250, 250, 255]], dtype=np.uint8)


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


def test_grey_gif_is_exact(tmp_path):
    """A GIF's palette has room for every grey level."""
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    write(Picture(pixels=pixels), tmp_path / "a.gif")

    np.testing.assert_array_equal(pixels, read(tmp_path / "a.gif").pixels)


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


def test_written_tiff_is_compressed(tmp_path):
    """TIFF uses deflate with differences between neighbours."""
    pixels = np.repeat(smooth(), 10, axis=0)
    write(Picture(pixels=pixels), tmp_path / "a.tiff")

    with Image.open(tmp_path / "a.tiff") as image:
        assert image.info["compression"] == "tiff_adobe_deflate"
        assert image.tag_v2[317] == 2
    assert (tmp_path / "a.tiff").stat().st_size < pixels.size / 10


# ---- metadata -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["a.jpg", "a.png", "a.tiff", "a.webp", pytest.param("a.avif", marks=AVIF)]
)
def test_profile_and_exif_travel(tmp_path, name):
    """What one format held is in the next one, and the EXIF's own sizes follow the pixels."""
    metadata = Metadata(icc_profile=SRGB, exif=exif_block())
    write(Picture(pixels=smooth(), metadata=metadata), tmp_path / name)

    found = read(tmp_path / name).metadata

    assert found.icc_profile == SRGB
    main, details, place = parsed(found.exif)
    assert main[ExifTags.Base.Make] == "Maker"
    assert {
        ExifTags.Base.ISOSpeedRatings: 640,
        ExifTags.Base.DateTimeOriginal: "2024:05:06 07:08:09",
        ExifTags.Base.ExifImageWidth: 40,
    } == details
    assert {ExifTags.GPS.GPSLatitudeRef: "N"} == place


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tiff", "a.bmp"])
def test_resolution_travels(tmp_path, name):
    """Pixels per inch come back, across and down, to the precision of the format."""
    picture = Picture(pixels=smooth(), metadata=Metadata(dpi=(300.0, 150.0)))
    write(picture, tmp_path / name)

    assert read(tmp_path / name).metadata.dpi == pytest.approx((300, 150), abs=0.02)


def test_a_plain_file_has_no_metadata(tmp_path):
    """Nothing is made up."""
    write(Picture(pixels=smooth()), tmp_path / "a.png")

    assert Metadata() == read(tmp_path / "a.png").metadata


@pytest.mark.parametrize(
    ("channels", "space", "kept"),
    [
        (3, b"RGB ", True),
        (1, b"GRAY", True),
        (3, b"GRAY", False),
        (1, b"RGB ", False),
        (3, b"", False),
    ],
)
def test_profiles_of_another_colour_space_are_dropped(saved, tmp_path, channels, space, kept):
    """A profile is believed only if its header names the kind of pixels it comes with."""
    icc = profile(space) if space else b"short"
    path = saved(as_image(noise(channels)), "a.png", icc_profile=icc)
    write(Picture(pixels=noise(channels), metadata=Metadata(icc_profile=icc)), tmp_path / "b.png")

    for each in (path, tmp_path / "b.png"):
        assert (icc if kept else None) == read(each).metadata.icc_profile


@pytest.mark.parametrize("name", ["a.webp", pytest.param("a.avif", marks=AVIF)])
def test_a_grey_profile_does_not_follow_grey_into_rgb(tmp_path, name):
    """Where grey (in AVIF: with alpha) is stored as RGB, a grey profile would be wrong."""
    metadata = Metadata(icc_profile=profile(b"GRAY"))
    picture = Picture(pixels=noise(1), alpha=noise(1), metadata=metadata)
    write(picture, tmp_path / name)

    with Image.open(tmp_path / name) as image:
        assert image.mode == "RGBA"
        assert "icc_profile" not in image.info


def test_tiff_directories_begin_on_even_bytes(tmp_path):
    """The EXIF and GPS directories stand where the TIFF standard allows."""
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "four"  # five bytes with its end, and the last of the file
    exif[ExifTags.IFD.Exif] = {ExifTags.Base.ISOSpeedRatings: 640}
    exif[ExifTags.IFD.GPSInfo] = {ExifTags.GPS.GPSLatitudeRef: "N"}
    write(Picture(pixels=RGB, metadata=Metadata(exif=exif.tobytes())), tmp_path / "a.tiff")

    with Image.open(tmp_path / "a.tiff") as image:
        offsets = [image.tag_v2[directory] for directory in DIRECTORIES]
        assert [offset % 2 for offset in offsets] == [0, 0]
        assert offsets[0] != offsets[1]


def test_tiff_layout_tags_do_not_become_exif(saved, tmp_path):
    """Of a TIFF's tags only those that describe the picture are kept, and they can be written."""
    path = saved(as_image(RGB), "a.tiff", exif=exif_block(), compression=None)
    picture = read(path)
    write(picture, tmp_path / "b.jpg")
    write(picture, tmp_path / "b.tiff")

    for each in (path, tmp_path / "b.jpg", tmp_path / "b.tiff"):
        main = parsed(read(each).metadata.exif)[0]
        assert {ExifTags.Base.Make, *DIRECTORIES} == set(main)


def test_exif_too_long_for_a_jpeg_is_left_out(tmp_path):
    """A JPEG holds 64 KiB of EXIF; the picture matters more than a larger one."""
    exif = Image.Exif()
    exif[ExifTags.IFD.Exif] = {ExifTags.Base.MakerNote: b"\1" * 70_000}
    picture = Picture(pixels=smooth(), metadata=Metadata(exif=exif.tobytes()))
    write(picture, tmp_path / "a.jpg")
    write(picture, tmp_path / "a.png")

    assert read(tmp_path / "a.jpg").metadata.exif is None
    assert len(read(tmp_path / "a.png").metadata.exif) > 70_000


@pytest.mark.parametrize(
    "junk",
    [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\x7f", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"],
)
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp"])
def test_broken_exif_does_not_cost_the_picture(saved, name, junk):
    """The pixels are read, the EXIF is dropped, and nobody is warned."""
    path = saved(as_image(smooth()), name, exif=junk)

    picture = read(path)

    assert picture.pixels.shape == (24, 40, 3)
    assert picture.metadata.exif is None
    assert read_size(path) == (40, 24)


@pytest.mark.parametrize(
    "dpi",
    [None, 72, (72,), (1, 1), (0, 0), (-1, 300), (float("nan"), 1), (float("inf"), 1), (1e9, 1e9)],
)
def test_resolutions_without_meaning_are_dropped(dpi):
    """Only two positive, finite numbers that every format can hold are a resolution."""
    assert dpi_of(dpi) is None


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


@pytest.mark.parametrize("big", [False, True])
def test_tiff_pages_are_exact_at_every_size_and_depth(tmp_path, big):
    """Two independent decoders find every page as it was, in TIFF and BigTIFF."""
    sides = itertools.cycle([(1, 1), (5, 7), (700, 601)])
    pictures = []
    for kind, (height, width) in zip(KINDS, sides, strict=False):
        dtype, channels, alpha = kind.values
        pictures.append(of_kind(dtype, channels, alpha=alpha, height=height, width=width))
    path = tmp_path / f"{big}.tiff"
    with path.open("wb") as stream:
        write_tiff(pictures, stream, big=big)

    with tifffile.TiffFile(path) as file:
        assert file.is_bigtiff is big
        assert len(pictures) == len(file.pages)
        for page, picture in zip(file.pages, pictures, strict=True):
            assert (picture.height, picture.width) == (page.imagelength, page.imagewidth)
            assert picture.pixels.dtype == page.dtype
            assert page.extrasamples == (() if picture.alpha is None else (2,))
    for number, picture in enumerate(pictures):
        found = by_vips(path.read_bytes(), both(picture).shape, page=number)
        np.testing.assert_array_equal(both(picture), found)


def test_a_tiff_that_might_be_too_long_is_a_bigtiff(monkeypatch, tmp_path):
    """Where 32 bits might not reach the end, 64 are used."""
    monkeypatch.setattr("srcli.imaging.tiff._LARGEST", 5000)
    write(SMALL, tmp_path / "small.tiff")
    write(Picture(pixels=noise(3, height=40, width=50)), tmp_path / "large.tiff")

    assert (tmp_path / "small.tiff").read_bytes()[:4] == b"II*\0"
    assert (tmp_path / "large.tiff").read_bytes()[:4] == b"II+\0"


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


# ---- animations and pages -----------------------------------------------------------------

DURATIONS = (100.0, 40.0, 70.0, 50.0, 700.0)


def animated(channels=3, *, alpha=False, dtype=np.uint8, **more):
    """Make an album in which a patch moves over a still gradient; two frames are the same.

    With alpha, a window of opacity moves, over opaque black at the top of the picture.
    """
    frames = []
    for number, duration in enumerate(DURATIONS):
        moved = 2 if number == 3 else number
        pixels = smooth(channels).astype(dtype)
        pixels[5 + moved : 12 + moved, 9 : 20 + moved] = 17 * moved
        pixels[:3] = 0
        opacity = np.zeros((24, 40, 1), dtype)
        opacity[2 * moved : 2 * moved + 12, 3 * moved : 3 * moved + 20] = np.iinfo(dtype).max
        metadata = Metadata(exif=exif_block(), icc_profile=SRGB if channels == 3 else None)
        frame = {"metadata": metadata, "duration": duration, "alpha": opacity if alpha else None}
        frames.append(Picture(pixels=pixels, **frame))
    return Album(pictures=tuple(frames), **{"loop": 0, **more})


def frames_by_pillow(path):
    """Decode every frame as it is seen, with its duration."""
    with Image.open(path) as image:
        for number in range(image.n_frames):
            image.seek(number)
            yield np.array(image.convert("RGBA")).astype(int), image.info.get("duration")


@pytest.mark.parametrize("alpha", [False, True], ids=["opaque", "clear"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.gif", pytest.param("a.avif", marks=AVIF)])
def test_every_frame_of_an_animation_is_written(tmp_path, name, channels, alpha):
    """Each shows what it showed, as long as it did; also those that are the same as before."""
    album = animated(channels, alpha=alpha)
    write_album(album, tmp_path / name, lossless=True)

    found = list(frames_by_pillow(tmp_path / name))

    assert [pytest.approx(duration) for duration in DURATIONS] == [each for _, each in found]
    for picture, (levels, _) in zip(album.pictures, found, strict=True):
        opacity = np.full((24, 40), 255) if picture.alpha is None else picture.alpha[..., 0]
        np.testing.assert_array_equal(opacity, levels[..., 3])
        error = np.abs(levels[..., :3] - picture.pixels)[opacity > 0]
        assert error.max() <= {"a.avif": 4, "a.gif": 24 if channels == 3 else 0}.get(name, 0)


def test_frames_of_sixteen_bits(tmp_path):
    """An animated PNG keeps them; Pillow reads the higher byte."""
    album = animated(dtype=np.uint16)
    album = Album(
        pictures=tuple(Picture(pixels=each.pixels * 257) for each in album.pictures), loop=1
    )
    write_album(album, tmp_path / "a.png")

    assert (tmp_path / "a.png").read_bytes()[24] == 16
    for picture, (levels, _) in zip(
        album.pictures, frames_by_pillow(tmp_path / "a.png"), strict=True
    ):
        np.testing.assert_array_equal(picture.pixels // 257, levels[..., :3])


@pytest.mark.parametrize("loop", [None, 0, 1, 2, 7])
@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.gif"])
def test_plays_are_counted_as_the_format_counts(tmp_path, name, loop):
    """What is not said is once; GIF counts the repetitions, and has none to say for once."""
    write_album(animated(loop=loop), tmp_path / name)

    with Image.open(tmp_path / name) as image:
        found = image.info.get("loop")
    plays = 1 if loop is None else loop
    assert found == ({0: 0, 1: None}.get(plays, plays - 1) if name == "a.gif" else plays)


@pytest.mark.parametrize("name", ["a.png", "a.webp", pytest.param("a.avif", marks=AVIF)])
def test_metadata_of_an_animation_is_kept(tmp_path, name):
    """It is that of the first frame."""
    write_album(animated(), tmp_path / name)

    with Image.open(tmp_path / name) as image:
        assert image.info["icc_profile"] == SRGB
        assert image.getexif()[ExifTags.Base.Make] == "Maker"


def test_what_does_not_move_does_not_flicker_in_a_gif(tmp_path):
    """Pixels that stay the same keep their colour when the palette changes."""
    still = noise(3, height=40, width=40)
    frames = []
    for number in range(3):
        pixels = still.copy()
        pixels[:20] = noise(3, seed=number, height=20, width=40) // (number + 1)
        frames.append(Picture(pixels=pixels, duration=100.0))
    write_album(Album(pictures=tuple(frames)), tmp_path / "a.gif")

    first, *rest = (levels[20:] for levels, _ in frames_by_pillow(tmp_path / "a.gif"))
    for levels in rest:
        np.testing.assert_array_equal(first, levels)


@pytest.mark.parametrize(
    ("duration", "expected"), [(33.3, 30), (35.1, 40), (4, 10), (0, 0), (1e9, 655350)]
)
def test_gif_rounds_durations_to_hundredths_of_a_second(tmp_path, duration, expected):
    """A short time does not become none, which programs take for a tenth of a second."""
    pictures = tuple(Picture(pixels=noise(3, seed=seed), duration=duration) for seed in (1, 2))
    notes = write_album(Album(pictures=pictures, loop=0), tmp_path / "a.gif")

    assert [each for _, each in frames_by_pillow(tmp_path / "a.gif")] == [expected] * 2
    told = "GIF holds hundredths of a second: durations rounded" in notes
    assert told is (duration % 10 != 0)


@pytest.mark.parametrize("duration", [100.0, 1000 / 30, 0.1, 70_000.0, 1e9])
def test_png_holds_durations_as_fractions(tmp_path, duration):
    """A thirtieth of a second is exact, and long times are as near as 16 bits come."""
    pictures = tuple(Picture(pixels=noise(3, seed=seed), duration=duration) for seed in (1, 2))
    write_album(Album(pictures=pictures), tmp_path / "a.png")

    expected = pytest.approx(min(duration, 65_535_000), rel=1e-4)
    assert [each for _, each in frames_by_pillow(tmp_path / "a.png")] == [expected] * 2


def test_pages_keep_their_own_metadata(tmp_path):
    """Profile, EXIF and resolution of a page are its own."""
    pages = (
        Picture(pixels=noise(3), metadata=Metadata(icc_profile=SRGB, dpi=(300.0, 300.0))),
        Picture(pixels=noise(1, height=9), metadata=Metadata(exif=exif_block())),
    )
    notes = write_album(Album(pictures=pages), tmp_path / "a.tiff")

    with tifffile.TiffFile(tmp_path / "a.tiff") as file:
        first, second = ({tag.code: tag.value for tag in page.tags} for page in file.pages)
    assert first[34675] == SRGB
    assert first[282] == (3_000_000, 10_000)
    assert not {34675, 282} & second.keys()
    assert second[271] == "Maker"
    assert second[34665]["ISOSpeedRatings"] == 640
    assert 271 not in first
    assert notes == ()


@pytest.mark.parametrize("big", [False, True])
def test_pages_whose_exif_is_of_either_byte_order(big):
    """One file has one order; the values of the other are turned around."""
    pictures = [
        Picture(pixels=noise(3), metadata=Metadata(exif=block))
        for block in (rating_block(">"), rating_block("<"))
    ]
    stream = io.BytesIO()
    write_tiff(pictures, stream, big=big)

    with tifffile.TiffFile(io.BytesIO(stream.getvalue())) as file:
        # Pillow knows BigTIFF in one order alone.
        assert file.byteorder == ("<" if big else ">")
        assert [page.tags[ExifTags.Base.Rating].value for page in file.pages] == [4, 4]
        assert [page.tags[34665].value["ISOSpeedRatings"] for page in file.pages] == [640, 640]
    with Image.open(io.BytesIO(stream.getvalue())) as image:
        assert image.n_frames == 2


def rating_block(order):
    """Make EXIF of two numbers in a byte order."""
    details = {ExifTags.Base.ISOSpeedRatings: entry(order, SHORT, 640)}
    main = {ExifTags.Base.Rating: entry(order, SHORT, 4)}
    return block_of(Exif(order=order, main=main, parts={DIRECTORIES[0]: details}))


def test_exif_of_an_animated_webp_begins_as_a_tiff_does():
    """The chunk holds no more than the block (RFC 9649, section 2.7.1.5)."""
    stream = io.BytesIO()
    write_stream(animated(), stream, format="WEBP")

    start = stream.getvalue().index(b"EXIF") + 8
    assert stream.getvalue()[start : start + 2] in {b"II", b"MM"}


@pytest.mark.parametrize(
    "name", [name for name in BUILT if FORMATS[name].frames or FORMATS[name].pages]
)
def test_the_same_album_gives_the_same_bytes(name):
    """No chance gets into a file."""
    files = [io.BytesIO(), io.BytesIO()]
    for stream in files:
        write_stream(animated(alpha=True), stream, format=name)

    assert files[0].getvalue() == files[1].getvalue()


@AVIF
def test_an_avif_sequence_says_no_time():
    """The times at which its tracks were made are zero."""
    stream = io.BytesIO()
    write_stream(animated(), stream, format="AVIF")

    data = stream.getvalue()
    for box in (b"mvhd", b"tkhd", b"mdhd"):
        start = data.index(box) + 4
        assert data[start + 4 : start + 4 + (16 if data[start] else 8)].strip(b"\0") == b""


# ---- what is lost -------------------------------------------------------------------------

EVERYTHING = Metadata(
    icc_profile=SRGB,
    exif=exif_block(),
    xmp=b"<x/>",
    dpi=(300.0, 300.0),
    text=(("Title", "Night"),),
    comment=b"hello",
)


def wide_gamut():
    """Make a profile like sRGB whose red and green primaries are exchanged."""
    swap = {b"rXYZ": b"gXYZ", b"gXYZ": b"rXYZ"}
    count = struct.unpack_from(">I", SRGB, 128)[0]
    changed = bytearray(SRGB)
    for start in range(132, 132 + 12 * count, 12):
        changed[start : start + 4] = swap.get(SRGB[start : start + 4], SRGB[start : start + 4])
    return bytes(changed)


def flat(**more):
    """Make an album of one picture of few colours."""
    return Album(pictures=(Picture(pixels=smooth() // 128 * 255, **more),))


ALPHA = np.repeat(np.linspace(0, 255, 40).astype(np.uint8)[None, :, None], 24, axis=0)


@pytest.mark.parametrize(
    ("album", "name", "lossless", "expected"),
    [
        (flat(metadata=EVERYTHING), "PNG", True, []),
        (flat(metadata=EVERYTHING), "JPEG", False, ["JPEG holds no text: dropped"]),
        (
            flat(metadata=EVERYTHING),
            "WEBP",
            True,
            ["WEBP holds no text: dropped", "WEBP holds no comment: dropped"],
        ),
        (
            flat(metadata=EVERYTHING),
            "BMP",
            True,
            [
                f"BMP holds no {it}: dropped"
                for it in ("EXIF", "XMP", "ICC profile", "text", "comment")
            ],
        ),
        (
            flat(metadata=EVERYTHING),
            "GIF",
            True,
            [
                f"GIF holds no {it}: dropped"
                for it in ("EXIF", "XMP", "ICC profile", "text", "resolution")
            ],
        ),
        (flat(alpha=ALPHA), "JPEG", False, ["JPEG holds no transparency: laid over white"]),
        (flat(alpha=ALPHA), "TIFF", True, []),
        (flat(alpha=ALPHA), "GIF", False, ["GIF holds transparency that is on or off: rounded"]),
        (flat(alpha=ALPHA // 255 * 255), "GIF", False, []),
        (
            Album(pictures=(Picture(pixels=smooth()),)),
            "GIF",
            False,
            ["GIF holds 256 colours a frame: reduced"],
        ),
        (flat(), "JPEG", True, ["JPEG is never lossless: written at its quality"]),
        (flat(), "AVIF", True, ["AVIF is never quite lossless: off by a few levels"]),
        (animated(channels=1), "GIF", False, ["GIF holds no EXIF: dropped"]),
        (animated(), "JPEG", False, ["JPEG holds one picture: the first of 5 frames"]),
        (animated(), "TIFF", False, ["TIFF holds no timing: frames become pages"]),
        (animated(loop=3), "AVIF", False, ["AVIF is not told how often it plays: for ever"]),
        (
            Album(pictures=flat().pictures * 2),
            "PPM",
            False,
            ["PPM holds one picture: the first of 2 pages"],
        ),
        (
            Album(pictures=flat().pictures * 2),
            "PNG",
            False,
            ["PNG holds no pages: shown for a second each"],
        ),
        (
            Album(pictures=(*flat().pictures, Picture(pixels=noise(3)))),
            "WEBP",
            False,
            ["WEBP holds frames of one size and kind: the first of 2 pages"],
        ),
        (
            flat(metadata=Metadata(icc_profile=wide_gamut())),
            "BMP",
            False,
            ["BMP holds no ICC profile: converted to sRGB"],
        ),
        (flat(metadata=Metadata(icc_profile=wide_gamut())), "TIFF", False, []),
        (flat(metadata=Metadata(icc_profile=profile(b"RGB "))), "TIFF", False, []),
        (
            Album(
                pictures=(of_kind(np.uint8, 1, metadata=Metadata(icc_profile=profile(b"GRAY"))),)
            ),
            "WEBP",
            False,
            ["WEBP holds no grey ICC profile: dropped"],
        ),
    ],
)
def test_what_a_format_cannot_hold_is_said(album, name, lossless, expected):
    """One line for each loss, and none where nothing is lost."""
    assert expected == list(losses(album, name, lossless=lossless))


def test_writing_returns_what_is_lost(tmp_path):
    """The notes of a written file are those of its losses."""
    album = animated(alpha=True)

    assert losses(album, "BMP") == write_album(album, tmp_path / "a.bmp")
    assert losses(album, "GIF") == write_stream(album, io.BytesIO(), format="GIF")


def test_colours_are_converted_where_their_profile_cannot_be_kept(tmp_path):
    """Red of a profile whose red is green becomes sRGB's green."""
    red = np.broadcast_to(np.array([230, 30, 30], np.uint8), (4, 5, 3))
    picture = Picture(pixels=red, metadata=Metadata(icc_profile=wide_gamut()))
    write(picture, tmp_path / "a.bmp")
    write(picture, tmp_path / "a.png")

    level = read(tmp_path / "a.bmp").pixels[0, 0].astype(int)
    assert level[1] > level[0] + 50
    np.testing.assert_array_equal(red, read(tmp_path / "a.png").pixels)


def test_metadata_too_long_for_a_jpeg_is_left_out_with_a_note(tmp_path):
    """More than a segment holds costs itself alone; padding is not counted."""
    padded = b"<x/>" + b" " * 70_000 + b'<?xpacket end="w"?>'
    long = Metadata(xmp=b"x" * 70_000, comment=b"y" * 70_000, dpi=(72.0, 72.0))
    notes = write_album(flat(metadata=long), tmp_path / "a.jpg")

    assert notes == (
        "JPEG holds 64 KiB of comment: dropped",
        "JPEG holds 64 KiB of XMP: dropped",
    )
    assert read(tmp_path / "a.jpg").metadata.dpi == (72, 72)
    assert write_album(flat(metadata=Metadata(xmp=padded)), tmp_path / "b.jpg") == ()
    with Image.open(tmp_path / "b.jpg") as image:
        assert image.info["xmp"] == b'<x/>\n<?xpacket end="w"?>'


ODD_METADATA = st.builds(
    Metadata,
    icc_profile=st.none() | st.binary(max_size=200) | st.just(profile(b"RGB ")),
    exif=st.none() | st.binary(max_size=100) | st.just(exif_block()),
    xmp=st.none() | st.binary(max_size=100) | st.just(b"x" * 70_000),
    dpi=st.none() | st.tuples(st.floats(), st.floats()),
    text=st.lists(st.tuples(st.text(), st.text()), max_size=3).map(tuple),
    iptc=st.none() | st.binary(max_size=100) | st.just(b"i" * 70_000),
    comment=st.none() | st.binary(max_size=300) | st.just(b"c" * 70_000),
)


@given(
    ODD_METADATA,
    st.sampled_from([kind.values for kind in KINDS]),
    st.sampled_from(BUILT),
    st.integers(1, 3),
    st.tuples(st.none() | st.integers(0, 2**40), st.none() | st.floats(0, 1e12)),
)
def test_odd_metadata_never_costs_the_picture(metadata, kind, name, count, times):
    """Whatever it says, every format is written, the same each time, and can be read."""
    dtype, channels, alpha = kind
    loop, duration = times
    more = {"metadata": metadata, "duration": duration}
    pictures = tuple(
        of_kind(dtype, channels, alpha=alpha, seed=each, **more) for each in range(count)
    )
    album = Album(pictures=pictures, loop=loop)
    files = [io.BytesIO(), io.BytesIO()]
    for stream in files:
        write_stream(album, stream, format=name)

    assert files[0].getvalue() == files[1].getvalue()
    several = FORMATS[name].frames or FORMATS[name].pages
    found = read_album(Path("a"), files[0].getvalue())
    assert len(found.pictures) == (count if several else 1)


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


def test_pillow_images_keep_their_metadata():
    """Profile, EXIF, XMP and resolution are where Pillow's own readers put them."""
    image = to_pillow(flat(metadata=EVERYTHING).pictures[0])

    assert image.info["icc_profile"] == SRGB
    assert image.info["xmp"] == b"<x/>"
    assert image.info["dpi"] == (300, 300)
    assert image.getexif()[ExifTags.Base.Make] == "Maker"
    assert to_pillow(SMALL).info == {}


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


@pytest.mark.parametrize(
    "name", ["a.png", "a.gif", "a.tiff", "a.webp", pytest.param("a.avif", marks=AVIF)]
)
def test_a_full_disk_is_told_of_animations_too(tmp_path, monkeypatch, name):
    """Also by the writers that set their files together themselves."""

    def refuse(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(writing._Sink, "write", refuse)

    with pytest.raises(OutputError, match="the disk is full; free some space"):
        write_album(animated(), tmp_path / name)
    assert names_in(tmp_path) == []


# ---- rows as they come --------------------------------------------------------------------

STREAMED = ("a.png", "a.tiff", "a.ppm", "a.jpg")
SIZED_EXIF = Metadata(
    exif=exif_block(),
    xmp=b'<x xmlns:exif="http://ns.adobe.com/exif/1.0/" exif:PixelYDimension="4"/>',
    icc_profile=SRGB,
    dpi=(300.0, 150.0),
    iptc=b"\x1c\x02\x05\x00\x05Title",
    comment=b"hello",
    text=(("Title", "Night"),),
)


@pytest.fixture
def small_blocks(monkeypatch):
    """Make writers work in blocks of a few rows, and JPEG of any size be written by libvips."""
    monkeypatch.setattr("srcli.imaging.png._BLOCK_BYTES", 100)
    monkeypatch.setattr("srcli.imaging.png._IDAT_BYTES", 300)
    monkeypatch.setattr("srcli.imaging.tiff._STRIP_BYTES", 150)
    monkeypatch.setattr("srcli.imaging.encoding._BLOCK_BYTES", 130)
    monkeypatch.setattr("srcli.imaging.bands._BAND_BYTES", 170)
    monkeypatch.setattr("srcli.imaging.encoding._PILLOW_PIXELS", 0)


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
    metadata = data.draw(st.sampled_from([Metadata(), SIZED_EXIF]))
    whole = of_kind(dtype, channels, alpha=alpha, height=height, width=width, metadata=metadata)
    told = write_album(Album(pictures=(whole,)), tmp_path / f"whole-{name}")

    bands = banded(whole, sorted(cut for cut in cuts if cut < height))
    notes = write_rows(bands, tmp_path / name, height=height)

    assert told == notes
    assert (tmp_path / f"whole-{name}").read_bytes() == (tmp_path / name).read_bytes()


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_colours_are_converted_band_by_band(tmp_path, dtype):
    """A profile that PPM cannot store is applied to every band as to the whole."""
    metadata = Metadata(icc_profile=wide_gamut())
    whole = of_kind(dtype, 3, alpha=True, height=20, width=9, metadata=metadata)
    told = write_album(Album(pictures=(whole,)), tmp_path / "whole.ppm")

    notes = write_rows(banded(whole, [7, 8, 15]), tmp_path / "a.ppm", height=20)

    assert (tmp_path / "whole.ppm").read_bytes() == (tmp_path / "a.ppm").read_bytes()
    assert told == notes
    assert "PPM holds no ICC profile: converted to sRGB" in notes


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("metadata", [Metadata(), SIZED_EXIF], ids=["bare", "full"])
@pytest.mark.parametrize("quality", [0, 30, 95, 100])
def test_large_jpegs_are_what_pillow_would_write(
    tmp_path, monkeypatch, channels, metadata, quality
):
    """From the first segment to the last byte; only the size decides who encodes."""
    picture = of_kind(np.uint8, channels, height=83, width=61, metadata=metadata)
    write(picture, tmp_path / "small.jpg", quality=quality)
    monkeypatch.setattr("srcli.imaging.encoding._PILLOW_PIXELS", 83 * 61 - 1)
    monkeypatch.setattr(Image.Image, "tobytes", None)

    write(picture, tmp_path / "large.jpg", quality=quality)

    assert (tmp_path / "small.jpg").read_bytes() == (tmp_path / "large.jpg").read_bytes()


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("name", ["a.png", "a.tiff", "a.jpg"])
def test_metadata_states_the_size_of_the_whole(tmp_path, name):
    """Not that of the first band."""
    picture = of_kind(np.uint8, 3, height=23, width=31, metadata=SIZED_EXIF)
    write_rows(banded(picture, [4, 9]), tmp_path / name, height=23)

    found = read(tmp_path / name).metadata
    assert parsed(found.exif)[1][ExifTags.Base.ExifImageWidth] == 31
    assert b'PixelYDimension="23"' in found.xmp


@pytest.mark.parametrize("channels", [1, 3])
def test_ppm_of_eight_bits_is_pillows(tmp_path, channels):
    """The same header and levels."""
    as_image(noise(channels)).save(tmp_path / "pillow.ppm")
    write(Picture(pixels=noise(channels)), tmp_path / "a.ppm")

    assert (tmp_path / "pillow.ppm").read_bytes() == (tmp_path / "a.ppm").read_bytes()


@given(st.sampled_from([kind.values for kind in KINDS]), st.data())
def test_rows_of_png_are_filtered_so_that_any_decoder_finds_them(kind, data):
    """Also where neighbours are equally near, and at both ends of the range."""
    dtype, channels, alpha = kind
    height, width = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 9))
    few = st.sampled_from([0, 1, 2, 127, 128, 254, np.iinfo(dtype).max])
    count = height * width * (channels + alpha)
    drawn = data.draw(st.lists(few, min_size=count, max_size=count))
    levels = np.array(drawn, dtype).reshape(height, width, -1)
    opacity = levels[..., channels:] if alpha else None
    picture = Picture(pixels=levels[..., :channels], alpha=opacity)
    stream = io.BytesIO()
    write_stream(Album(pictures=(picture,)), stream, format="PNG")

    np.testing.assert_array_equal(levels, by_vips(stream.getvalue(), levels.shape))


def test_paeth_predicts_what_the_specification_says():
    """Of every kind of three neighbours: equal, equally near, at the ends of the range."""
    values = np.array([*range(6), 100, 101, 102, 126, 127, 128, 129, *range(250, 256)], np.uint8)
    left, above, corner = (
        np.ascontiguousarray(each) for each in np.meshgrid(values, values, values)
    )

    a, b, c = (each.astype(int) for each in (left, above, corner))
    p = a + b - c
    pa, pb, pc = abs(p - a), abs(p - b), abs(p - c)
    expected = np.where((pa <= pb) & (pa <= pc), a, np.where(pb <= pc, b, c))
    np.testing.assert_array_equal(expected, png_module._paeth(left, above, corner))


def test_smooth_rows_are_packed_well(tmp_path):
    """Filters turn a gradient into next to nothing."""
    rows, columns = np.mgrid[:200, :300]
    pixels = np.stack([rows, columns // 2, rows + columns // 3], axis=2).astype(np.uint8)
    for name in ("a.png", "a.tiff"):
        write(Picture(pixels=pixels), tmp_path / name)

        assert (tmp_path / name).stat().st_size < pixels.size / 20


def test_levels_are_packed_without_isa_l_too(tmp_path, monkeypatch):
    """Where its library is not, zlib packs, and what is read is the same."""
    monkeypatch.setattr("srcli.imaging.deflate._ENGINE", zlib)
    picture = of_kind(np.uint16, 3, height=30, width=20)
    for name in ("a.png", "a.tiff"):
        write(picture, tmp_path / name)

        np.testing.assert_array_equal(picture.pixels, read(tmp_path / name).pixels)


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
@pytest.mark.parametrize("writes", [0, 1, 2, 5])
@pytest.mark.parametrize("name", [*STREAMED, "a.bmp"])
def test_a_disk_that_fills_up_between_rows_is_told(tmp_path, monkeypatch, name, writes, capfd):
    """At whatever moment; and rows that are computed in vain are not asked for any more."""
    before, left = writing._Sink.write, itertools.count(writes, -1)

    def write_some(self, data):
        if next(left) <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return before(self, data)

    def endless():
        for number in range(1000):
            asked.append(number)
            yield of_kind(np.uint8, 3, height=5, width=600, seed=number)

    asked = []
    monkeypatch.setattr(writing._Sink, "write", write_some)

    with pytest.raises(OutputError, match="the disk is full; free some space") as caught:
        write_rows(endless(), tmp_path / name, height=5000)

    assert "\n" not in str(caught.value)
    assert names_in(tmp_path) == []
    assert len(asked) < 300 or name == "a.bmp"
    assert capfd.readouterr() == ("", "")


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


def test_a_bigtiff_is_begun_before_its_rows_are_there(monkeypatch, tmp_path):
    """By the size that they might have, as for a picture that is there."""
    monkeypatch.setattr("srcli.imaging.tiff._LARGEST", 5000)
    write_rows(itertools.repeat(SMALL, 20), tmp_path / "a.tiff", height=100)

    assert (tmp_path / "a.tiff").read_bytes()[:4] == b"II+\0"
    assert (100, 7, 3) == tifffile.imread(tmp_path / "a.tiff").shape


MEASURED = """
import re
import sys
from pathlib import Path

import numpy as np

from srcli.imaging import encoding
from srcli.imaging.images import Picture, write_rows

encoding._PILLOW_PIXELS = 0
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
    """16 megapixels, 48 or 96 MB, are written in less than 36 MB more than 0.4 are."""
    script = [sys.executable, "-c", MEASURED, str(tmp_path / name), depth]
    run = subprocess.run(script, capture_output=True, check=True, text=True)

    assert float(run.stdout) < 36
    assert read_size(tmp_path / name) == (8000, 2000)


# ---- names --------------------------------------------------------------------------------


def test_formats_are_known_by_suffix_in_either_case():
    """Upper and lower case name the same format; others name none."""
    names = ["a.jpg", "A.JPEG", "a.Png", "a.webp", "a.tif", "a.TIFF", "a.bmp", "a.gif", "a.pgm"]
    formats = ["JPEG", "JPEG", "PNG", "WEBP", "TIFF", "TIFF", "BMP", "GIF", "PPM"]

    assert formats == [format_of(Path(name)) for name in names]
    assert [format_of(Path(name)) for name in ("a.txt", "jpg", "a.jpg.eps")] == [None, None, None]


def test_suffixes_looked_at_in_folders():
    """They are lower case, include the common ones, and all can be written."""
    assert {
        ".jpg",
        ".jpeg",
        ".png",
        ".webp",
        ".tif",
        ".tiff",
        ".bmp",
        ".gif",
    } <= images.READABLE_SUFFIXES
    assert all(format_of(Path(f"a{suffix}")) for suffix in images.READABLE_SUFFIXES)
    assert {suffix.lower() for suffix in images.READABLE_SUFFIXES} == images.READABLE_SUFFIXES


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


def test_the_longest_name_of_a_file_system_can_be_written(tmp_path):
    """The temporary name is no longer than the target's."""
    path = tmp_path / ("a" * 251 + ".png")
    write(SMALL, path)

    assert [path.name] == names_in(tmp_path)
    np.testing.assert_array_equal(RGB, read(path).pixels)


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
