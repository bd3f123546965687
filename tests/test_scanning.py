"""Pictures that are decoded a few rows at a time."""

import os
import random
from functools import partial

import numpy as np
import pytest
import pyvips
import tifffile
from PIL import ExifTags, Image, ImageFile
from reading_files import SRGB, as_bytes, as_image, exif_block, tiff, waves
from run_files import growth, needs_proc, tool

from srcli.errors import ImageError
from srcli.imaging.reading import read, scan

SIZES = ((1, 1), (7, 5), (129, 131), (301, 257))
"""Width and height: one pixel, less than a block, over the end of a band, two and a bit."""


MAKER = Image.Exif()
MAKER[ExifTags.Base.Make] = "Maker"


def by_pillow(levels, path, **options):
    """Save through Pillow, with metadata."""
    more = {"icc_profile": SRGB, "exif": MAKER, "dpi": (300, 300), "comment": b"said"}
    as_image(levels).save(path, **{**more, **options})


def by_vips(levels, path, **options):
    """Save through libvips, which knows 16 bits of colour."""
    pyvips.Image.new_from_array(levels).write_to_file(str(path), **options)


def by_tifffile(levels, path, **options):
    """Save as a TIFF of any layout."""
    tifffile.imwrite(path, levels if levels.shape[2] == 3 else levels[..., 0], **options)


COLOUR, DEEP, GREY, DEEP_GREY = (3, np.uint8), (3, np.uint16), (1, np.uint8), (1, np.uint16)
TILES = {"tile": True, "tile_width": 32, "tile_height": 32}

WAYS = {
    "png": (by_pillow, "a.png", COLOUR, {}),
    "png-16": (by_vips, "a.png", DEEP, {}),
    "png-grey-16": (by_vips, "a.png", DEEP_GREY, {}),
    "jpeg-420": (by_pillow, "a.jpg", COLOUR, {"quality": 80}),
    "jpeg-422": (by_pillow, "a.jpg", COLOUR, {"quality": 60, "subsampling": 1}),
    "jpeg-rgb": (by_pillow, "a.jpg", COLOUR, {"keep_rgb": True}),
    "jpeg-restarts": (by_pillow, "a.jpg", COLOUR, {"restart_marker_rows": 1}),
    "jpeg-progressive": (by_pillow, "a.jpg", COLOUR, {"progressive": True}),
    "jpeg-grey": (by_pillow, "a.jpg", GREY, {"quality": 75}),
    "tiff": (by_tifffile, "a.tif", COLOUR, {}),
    "tiff-grey": (by_tifffile, "a.tif", GREY, {"rowsperstrip": 3}),
    "tiff-grey-16": (by_tifffile, "a.tif", DEEP_GREY, {"compression": "zlib", "rowsperstrip": 50}),
    "tiff-motorola": (by_tifffile, "a.tif", DEEP, {"byteorder": ">"}),
    "bigtiff": (by_tifffile, "a.tif", GREY, {"bigtiff": True, "compression": "zlib"}),
    "tiff-lzw": (by_vips, "a.tif", DEEP, {"compression": "lzw", "predictor": "horizontal"}),
    "tiff-tiles": (by_vips, "a.tif", COLOUR, {"compression": "deflate", **TILES}),
    "tiff-pyramid": (by_vips, "a.tif", COLOUR, {"pyramid": True, **TILES}),
    "tiff-jpeg": (by_pillow, "a.tif", COLOUR, {"compression": "jpeg"}),
    "tiff-jpeg-tiles": (by_vips, "a.tif", COLOUR, {"compression": "jpeg", **TILES}),
}
"""Who saves a kind of file, its name, its channels and depth, and options."""


def save(way, size, folder):
    """Save a picture in one of the ways."""
    write, name, (channels, dtype), options = WAYS[way]
    write(waves(*size, channels, dtype), folder / name, **options)
    return folder / name


def scanned(path, **options):
    """Put a scan's bands together; None where there is none."""
    with scan(path, **options) as found:
        return None if found is None else np.concatenate([*found.rows])


@pytest.mark.parametrize("way", WAYS)
def test_the_bands_are_the_picture(way, tmp_path):
    """Bands have the levels of ``read``, bit for bit, in every format and at every size."""
    for size in SIZES:
        path = save(way, size, tmp_path)
        whole = read(path)
        with scan(path) as found:
            assert found is not None
            bands = [*found.rows]
        assert (found.width, found.height) == size == (whole.width, whole.height)
        assert (found.channels, found.dtype) == (whole.pixels.shape[2], whole.pixels.dtype)
        assert all(band.flags.writeable and band.dtype == found.dtype for band in bands)
        assert size[1] < 257 or len(bands) > 1
        np.testing.assert_array_equal(np.concatenate(bands), whole.pixels)
        assert found.metadata == whole.metadata
        assert WAYS[way][0] is not by_pillow or found.metadata.exif
        assert found.coding.format == found.format
        path.unlink()


@pytest.mark.parametrize("rows", [1, 3, 128, 129, 272, 700])
@pytest.mark.parametrize("compression", ["none", "tiff_lzw", "zlib"])
def test_strips_of_any_height_are_scanned(compression, rows, tmp_path):
    """However many rows a compressed strip has, bands lose none of them."""
    levels, path = waves(60, 700), tmp_path / "a.tif"
    if compression in {"none", "zlib"}:
        by_tifffile(levels, path, compression=compression, rowsperstrip=rows)
    else:
        by_pillow(levels, path, compression=compression, strip_size=rows * 180)
    np.testing.assert_array_equal(scanned(path), levels)


@pytest.mark.parametrize("way", ["png-16", "jpeg-420"])
def test_long_rows_come_in_lower_bands(way, tmp_path):
    """Where rows are so long that 128 of them are much, a band has fewer, and no row is lost."""
    write, name, (channels, dtype), options = WAYS[way]
    levels = np.tile(waves(500, 100, channels, dtype), (1, 120, 1))
    write(levels, tmp_path / name, **options)
    with scan(tmp_path / name) as found:
        bands = [*found.rows]
    assert max(len(band) for band in bands) < 128
    np.testing.assert_array_equal(np.concatenate(bands), read(tmp_path / name).pixels)


def by_pillow_as(mode):
    """Return what saves a picture through Pillow in another mode."""
    return lambda levels, path: as_image(levels).convert(mode).save(path)


def frames(levels, path):
    """Save an animation of two frames, or two pages."""
    path.write_bytes(
        as_bytes([levels, levels[::-1].copy()], path.suffix[1:].replace("tif", "tiff"))
    )


def in_one_strip(levels, path):
    """Save a picture of 36 MB in a compressed strip."""
    by_tifffile(np.tile(levels, (67, 150, 1)), path, compression="zlib", rowsperstrip=9999)


def behind_its_copy(levels, path):
    """Save a picture behind a page that is called a copy."""
    with tifffile.TiffWriter(path) as writer:
        writer.write(255 - levels, photometric="rgb", subfiletype=1)
        writer.write(levels, photometric="rgb")


REFUSED = {
    "palette": ("a.png", by_pillow_as("P")),
    "alpha": ("a.png", by_pillow_as("RGBA")),
    "interlaced": ("a.png", partial(by_vips, interlace=True)),
    "animated": ("a.png", frames),
    "turned jpeg": ("a.jpg", partial(by_pillow, exif=exif_block(6))),
    "cmyk": ("a.jpg", by_pillow_as("CMYK")),
    "alpha tiff": ("a.tif", by_pillow_as("RGBA")),
    "two pages": ("a.tif", frames),
    "white is zero": (
        "a.tif",
        lambda levels, path: by_tifffile(levels[..., :1], path, photometric="miniswhite"),
    ),
    "planes": (
        "a.tif",
        lambda levels, path: path.write_bytes(tiff(levels, planar="separate")),
    ),
    "one compressed strip that is too large to be held": ("a.tif", in_one_strip),
    "behind its copy": ("a.tif", behind_its_copy),
    "ppm": ("a.ppm", by_pillow),
    "webp": ("a.webp", by_pillow),
}
"""A name, and who writes there what is to be read in the other way."""


@pytest.mark.parametrize("kind", REFUSED)
def test_other_kinds_are_left_to_read(kind, tmp_path):
    """Of what needs more than decoding there is no scan, and ``read`` reads it."""
    name, write = REFUSED[kind]
    write(waves(40, 30), tmp_path / name)
    assert scanned(tmp_path / name) is None
    assert read(tmp_path / name).pixels.size


def test_a_pipe_is_left_alone(tmp_path):
    """Nothing is taken from a pipe, which could not be read again."""
    os.mkfifo(tmp_path / "pipe")
    assert scanned(tmp_path / "pipe") is None


def test_a_missing_end_is_reported_when_rows_come_to_it(tmp_path):
    """The first rows of a file that is cut off come, then an error that names it."""
    path = save("tiff-grey", (301, 1000), tmp_path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 3 // 4])
    with scan(path) as found:
        first = next(found.rows)
        with pytest.raises(ImageError, match=rf"{path.name}: truncated, its end is missing"):
            list(found.rows)
    np.testing.assert_array_equal(first, waves(301, 1000, 1)[: len(first)])


DAMAGES = tool("fuzz").cut_off, tool("fuzz").flip_bits
DAMAGED = "png png-16 jpeg-420 jpeg-progressive tiff tiff-lzw tiff-tiles tiff-jpeg"


@pytest.mark.parametrize("way", DAMAGED.split())
def test_damage_never_gives_other_levels_than_read(way, tmp_path, monkeypatch, capfd):
    """Of a damaged file come the rows of ``read``, or an error, or no scan; nothing is printed."""
    chance, same = random.Random(5), 0  # noqa: S311 - the same damage each time
    whole = save(way, (83, 301), tmp_path).read_bytes()
    # Or what stands behind the last row of a JPEG may be damaged as well.
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", way.startswith("jpeg"))
    for number in range(60):
        path = tmp_path / f"{number}{WAYS[way][1]}"
        path.write_bytes(chance.choice(DAMAGES)(whole, whole, chance))
        levels, problem = None, path.name
        try:
            levels = scanned(path)
        except ImageError as error:
            problem = str(error)
        assert path.name in problem
        assert "\n" not in problem
        if levels is not None:
            same += 1
            np.testing.assert_array_equal(levels, read(path).pixels)
    assert same < 55
    assert capfd.readouterr() == ("", "")


@needs_proc
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "tiles.tif"])
def test_memory_does_not_grow_with_the_picture(name, tmp_path):
    """60 megapixels pass in less than 60 MB, of which their levels alone are 180.

    Of up to three attempts the best counts: how far libvips reads ahead depends on what else the
    machine does (a JPEG takes 47 to 51 MB where it does nothing else, now and then 64).
    """
    path = tmp_path / name
    large(path)
    first = """
from srcli.imaging.reading import scan
from srcli.imaging.decoding import vips
vips()
"""
    work = """
with scan(Path(sys.argv[1])) as found:
    assert sum(map(len, found.rows)) == 7500
"""
    assert any(growth(work, path, first=first) < 60 for _ in range(3))


def large(path):
    """Make a picture of 8000 x 7500 pixels out of a small one."""
    tile = pyvips.Image.new_from_array(waves(500, 500))
    image = tile.replicate(16, 15)
    if path.suffix == ".png":
        image.pngsave(str(path), compression=1, filter="none")
    elif path.suffix == ".jpg":
        image.jpegsave(str(path), Q=80)
    else:
        tiled = "tiles" in path.name
        image.tiffsave(str(path), compression="none" if tiled else "deflate", level=1, tile=tiled)
