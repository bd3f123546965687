"""Files that cannot be read: one line each, and nothing on the terminal."""

import errno
import os
import struct
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from reading_files import (
    AVIF,
    RGB,
    WIDTH,
    as_image,
    exif_block,
    message_of,
    noise,
    png,
    smooth,
    tiff,
)

from srcli.errors import ImageError
from srcli.imaging.reading import from_pillow, read, read_album, read_header, read_size


def claiming(width, height):
    """Make a PNG whose header claims a size that its few bytes cannot fill."""
    data = bytearray(png(8, 0, b"abc"))
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


AVIF_FILE = pytest.param("a.avif", marks=AVIF)
BY_DEFAULT = (
    "are more than the 179 million that are decoded by default (a decompression bomb?); "
    "raise --max-pixels if you trust it"
)


# ---- errors of reading --------------------------------------------------------------------


@pytest.mark.parametrize("verb", [read, read_size])
def test_what_is_no_image_is_told_apart(tmp_path, saved, verb):
    """Each says what is there and what to do."""
    expected = "no such file; check the path"
    assert expected == message_of(tmp_path / "missing.png", verb)
    assert expected == message_of(saved(b"x", "file") / "inside.png", verb)
    expected = "a folder, not an image file; name files in it"
    assert expected == message_of(tmp_path, verb)
    assert message_of(saved(b"", "empty.jpg"), verb) == "empty (0 bytes); fetch the file again"
    expected = "not an image in a known format, or damaged at its start; convert it to PNG or JPEG"
    for data in (b"hello world", b"\xff\xd8", b"%!PS-Adobe-3.0 EPSF-3.0\nshowpage\n"):
        assert message_of(saved(data, "a.png"), verb) == expected


@pytest.mark.parametrize(
    "name",
    [
        "a.jpg",
        "a.png",
        "a.gif",
        "a.bmp",
        "a.tiff",
        "a.ppm",
        "a.webp",
        pytest.param("a.avif", marks=AVIF),
    ],
)
def test_truncated_files(saved, name):
    """A file that lost its second half is called so, where its codec knows what is wrong."""
    whole = saved(as_image(noise(3, height=64, width=64)), name).read_bytes()
    path = saved(whole[: len(whole) // 2], name)

    message = message_of(path)

    if name in {"a.webp", "a.avif"}:
        assert message.endswith(("fetch the file again", "convert it to PNG or JPEG"))
    else:
        assert message == "truncated, its end is missing; fetch the file again"


@pytest.mark.parametrize("kind", [str, Path, os.fsencode])
def test_a_pillow_image_is_called_by_its_file(saved, kind):
    """A program that opened a damaged file reads its name, not that of a class."""
    whole = saved(as_image(noise(3, height=64, width=64)), "a.jpg").read_bytes()
    path = saved(whole[: len(whole) // 2], "a.jpg")

    with Image.open(kind(path)) as image, pytest.raises(ImageError) as caught:
        from_pillow(image)

    assert str(caught.value).startswith(f"{path}: truncated, ")


# ---- decompression bombs ------------------------------------------------------------------


@pytest.mark.parametrize("verb", [read, read_album, read_header, read_size])
def test_decompression_bombs_are_refused_by_their_header(saved, verb):
    """A size beyond the limit is told, and what to do; the memory for it is never asked for."""
    path = saved(claiming(20000, 20000), "bomb.png")

    assert f"400000000 pixels {BY_DEFAULT}" == message_of(path, verb)


def test_a_webp_is_refused_before_its_canvas_is_made(saved):
    """Opening a WebP already allocates, so the limit holds before its exact size is known."""
    data = bytearray(saved(Image.new("RGBA", (8, 8)), "a.webp", exif=exif_block()).read_bytes())
    data[24:30] = b"\x9f\x3f\0\x9f\x3f\0"  # 16288x16288 in the extended header

    assert message_of(saved(bytes(data), "bomb.webp")) == f"16288x16288 pixels {BY_DEFAULT}"


@pytest.mark.parametrize("verb", [read, read_album, read_header])
def test_the_limit_is_the_callers(saved, monkeypatch, verb):
    """Neither Pillow's limit nor what others set it to counts, and it is left as it was."""
    path = saved(Image.new("L", (15, 10)), "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 60)

    assert verb(path) is not None
    assert verb(path, max_pixels=150) is not None
    with pytest.raises(
        ImageError, match=r"(15x10|150) pixels are more than the 149 that --max-pixels"
    ):
        verb(path, max_pixels=149)

    assert Image.MAX_IMAGE_PIXELS == 60


def test_a_frame_larger_than_its_gif_is_refused(saved):
    """A GIF's frame may claim far more than its canvas: it is not decoded."""
    frames = [Image.new("L", (10, 10), 9 * number) for number in range(3)]
    data = bytearray(
        saved(frames[0], "a.gif", save_all=True, append_images=frames[1:]).read_bytes()
    )
    struct.pack_into("<HH", data, data.rindex(b",\0\0\0\0") + 5, 60000, 60000)

    message = message_of(saved(bytes(data), "a.gif"), read_album)

    assert "3600000000 pixels are more than the 179 million" in message


def test_frames_and_pages_count_together(saved):
    """The limit is one of the file: its frames or pages together must not exceed it."""
    frames = [Image.new("L", (10, 10), 9 * number) for number in range(5)]
    for name, words in {
        "a.gif": "5 frames of 10x10",
        "a.tiff": "its pages to here have 500",
    }.items():
        path = saved(frames[0], name, save_all=True, append_images=frames[1:])

        assert len(read_album(path, max_pixels=500).pictures) == 5
        assert read(path, max_pixels=100).width == 10
        with pytest.raises(ImageError, match=words):
            read_album(path, max_pixels=499)


def test_a_few_bytes_do_not_cost_gigabytes():
    """A 16-bit TIFF that claims millions of pixels in a kilobyte is refused before decoding."""
    data = tiff(noise(3, np.uint16))
    assert read(Path("a.tiff"), data).width == WIDTH
    (where,) = struct.unpack_from("<L", data, 4)
    bad = bytearray(data)
    bad[where + 10 : where + 14] = struct.pack("<L", 1 << 24)

    with pytest.raises(ImageError, match="bytes cannot hold 16777216x5 pixels"):
        read(Path("a.tiff"), bytes(bad))


# ---- what the system and the codecs refuse ------------------------------------------------


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
    """Decoders and the system raise of every kind; a user sees one line."""
    path = saved(as_image(RGB), "a.png")

    def explode(*_):
        raise error

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", explode)

    assert expected == message_of(path)


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
