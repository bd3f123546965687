import errno
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms, features

from srcli import images, writing
from srcli.errors import OutputError
from srcli.images import Metadata, Picture, format_of, read, read_album, read_size, write
from srcli.tags import DIRECTORIES, dpi_of

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


def test_pointers_inside_exif_do_not_dangle(saved):
    """The interoperability directory is dropped together with the pointer to it."""
    exif = Image.Exif()
    exif[ExifTags.IFD.Exif] = {
        ExifTags.Base.ISOSpeedRatings: 640,
        ExifTags.IFD.Interop: {1: "R98"},
    }
    picture = read(saved(as_image(RGB), "a.png", exif=exif.tobytes()))

    assert parsed(picture.metadata.exif)[1] == {ExifTags.Base.ISOSpeedRatings: 640}


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

SMALL = Picture(pixels=RGB)


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
    path = tmp_path / "a.png"
    path.write_bytes(b"old")

    def save(_, stream, **__):
        stream.write(b"half a picture" * 10_000)
        raise error

    monkeypatch.setattr(Image.Image, "save", save)

    assert expected == refusal_of(path)
    assert path.read_bytes() == b"old"
    assert names_in(tmp_path) == ["a.png"]


def test_an_interrupted_encoding_leaves_the_old_file(tmp_path, monkeypatch):
    """Ctrl-C while encoding stays Ctrl-C and cleans up."""
    path = tmp_path / "a.png"
    path.write_bytes(b"old")

    def save(_, stream, **__):
        stream.write(b"half")
        assert len(names_in(tmp_path)) == 2
        raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", save)

    with pytest.raises(KeyboardInterrupt):
        write(SMALL, path)
    assert path.read_bytes() == b"old"
    assert names_in(tmp_path) == ["a.png"]


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
