"""Files that cannot be read: one line each, and nothing on the terminal."""

import errno
import io
import os
import struct
import threading
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image
from reading_files import (
    AVIF,
    NAME,
    RGB,
    WIDTH,
    as_bytes,
    exif_block,
    message_of,
    noise,
    png,
    tiff,
)
from run_files import refusal

from srcli.errors import ImageError
from srcli.imaging.opening import PILLOW_SILENCE
from srcli.imaging.reading import from_pillow, read, read_album, read_header, read_size

BY_DEFAULT = (
    "are more than the 179 million that are decoded by default (a decompression bomb?); "
    "raise --max-pixels if you trust it"
)
TRUNCATED = "truncated, its end is missing; fetch the file again"


@pytest.mark.parametrize("verb", [read, read_size])
def test_what_is_no_image_is_told_apart(tmp_path, saved, verb):
    """Each says what is there and what to do."""
    expected = "no such file; check the path"
    assert expected == message_of(tmp_path / "missing.png", verb)
    assert expected == message_of(saved(b"x", "file") / "inside.png", verb)
    expected = "a folder, not an image file; name files in it"
    assert expected == message_of(tmp_path, verb)
    assert message_of(NAME, verb, b"") == "empty (0 bytes); fetch the file again"
    expected = "not an image in a known format, or damaged at its start; convert it to PNG or JPEG"
    for data in (b"hello world", b"\xff\xd8", b"%!PS-Adobe-3.0 EPSF-3.0\nshowpage\n"):
        assert message_of(NAME, verb, data) == expected


@pytest.mark.parametrize(
    "kind",
    ["JPEG", "PNG", "GIF", "BMP", "TIFF", "PPM", "WEBP", pytest.param("AVIF", marks=AVIF)],
)
def test_truncated_files(kind):
    """A file that lost its second half is called so, where its codec knows what is wrong."""
    whole = as_bytes(noise(3, height=64, width=64), kind)

    message = message_of(NAME, data=whole[: len(whole) // 2])

    if kind in {"WEBP", "AVIF"}:
        assert message.endswith(("fetch the file again", "convert it to PNG or JPEG"))
    else:
        assert message == TRUNCATED


def test_a_pillow_image_is_called_by_its_file(saved):
    """A program that opened a damaged file reads its name, not that of a class."""
    whole = as_bytes(noise(3, height=64, width=64), "JPEG")
    path = saved(whole[: len(whole) // 2], "a.jpg")

    with Image.open(os.fsencode(path)) as image:
        assert refusal(lambda: from_pillow(image), ImageError) == f"{path}: {TRUNCATED}"


@pytest.mark.parametrize("verb", [read, read_album, read_header, read_size])
def test_decompression_bombs_are_refused_by_their_header(verb):
    """A size beyond the limit is told, and what to do; the memory for it is never asked for."""
    data = bytearray(png(8, 0, b"abc"))
    data[16:24] = struct.pack(">II", 20_000, 20_000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))

    assert f"400000000 pixels {BY_DEFAULT}" == message_of(NAME, verb, bytes(data))


def test_a_webp_is_refused_before_its_canvas_is_made():
    """Opening a WebP already allocates, so the limit holds before its exact size is known."""
    data = bytearray(as_bytes(noise(4), "WEBP", exif=exif_block()))
    data[24:30] = b"\x9f\x3f\0\x9f\x3f\0"  # 16288x16288 in the extended header

    assert message_of(NAME, data=bytes(data)) == f"16288x16288 pixels {BY_DEFAULT}"


@pytest.mark.parametrize("verb", [read, read_album, read_header])
def test_the_limit_is_the_callers(monkeypatch, verb):
    """Neither Pillow's limit nor what others set it to counts, and it is left as it was."""
    data = as_bytes(Image.new("L", (15, 10)), "PNG")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 60)

    assert verb(NAME, data) is not None
    assert verb(NAME, data, max_pixels=150) is not None
    line = r"(15x10|150) pixels are more than the 149 that --max-pixels"
    with pytest.raises(ImageError, match=line):
        verb(NAME, data, max_pixels=149)

    assert Image.MAX_IMAGE_PIXELS == 60
    with PILLOW_SILENCE.up_to(), PILLOW_SILENCE.up_to(150):
        assert Image.MAX_IMAGE_PIXELS == 75, "other threads of a program are protected meanwhile"


def test_a_frame_larger_than_its_gif_is_refused():
    """A GIF's frame may claim far more than its canvas: it is not decoded."""
    data = bytearray(as_bytes([Image.new("L", (10, 10), 9 * number) for number in range(3)], "GIF"))
    struct.pack_into("<HH", data, data.rindex(b",\0\0\0\0") + 5, 60000, 60000)

    message = message_of(NAME, read_album, bytes(data))

    assert "60000x60000 pixels are more than the 179 million" in message


@pytest.mark.parametrize(
    ("kind", "words"), [("GIF", "5 frames of 10x10"), ("TIFF", "its pages to here have 500")]
)
def test_frames_and_pages_count_together(kind, words):
    """The limit is one of the file: its frames or pages together must not exceed it."""
    data = as_bytes([Image.new("L", (10, 10), 9 * number) for number in range(5)], kind)

    assert len(read_album(NAME, data, max_pixels=500).pictures) == 5
    assert read(NAME, data, max_pixels=100).width == 10
    with pytest.raises(ImageError, match=words):
        read_album(NAME, data, max_pixels=499)


def test_a_few_bytes_do_not_cost_gigabytes():
    """A 16-bit TIFF that claims millions of pixels in a kilobyte is refused before decoding."""
    data = bytearray(tiff(noise(3, np.uint16)))
    assert read(NAME, bytes(data)).width == WIDTH
    (where,) = struct.unpack_from("<L", data, 4)
    struct.pack_into("<L", data, where + 10, 1 << 24)

    with pytest.raises(ImageError, match="bytes cannot hold 16777216x5 pixels"):
        read(NAME, bytes(data))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (PermissionError(errno.EACCES, "no"), "no permission to read it; change its permissions"),
        (
            OSError(errno.EIO, "Input/output error"),
            "cannot be read (Input/output error); check the path and the disk",
        ),
        (MemoryError(), "does not fit into memory; cut it into parts"),
        (EOFError(), TRUNCATED),
        (OSError(errno.EINVAL, "Invalid"), "damaged (Invalid); fetch the file again"),
        (
            ValueError("Truncated gAMA chunk"),
            "damaged (Truncated gAMA chunk); fetch the file again",
        ),
        (ZeroDivisionError(), "damaged (ZeroDivisionError); fetch the file again"),
        (SyntaxError("two\nlines"), r"damaged (two\nlines); fetch the file again"),
    ],
)
def test_whatever_a_codec_throws_is_one_error(monkeypatch, error, expected):
    """Decoders and the system raise of every kind; a user sees one line."""

    def explode(*_):
        raise error

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", explode)

    assert expected == message_of(NAME, data=as_bytes(RGB, "BMP"))


def test_a_pipe_is_read_like_a_file(tmp_path):
    """Process substitution gives a pipe, which cannot be rewound."""
    os.mkfifo(tmp_path / "pipe")
    data = as_bytes(RGB, "PNG")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=[data])
    writer.start()

    picture = read(tmp_path / "pipe")

    writer.join()
    np.testing.assert_array_equal(RGB, picture.pixels)


def test_threads_read_at_the_same_time_and_warn_of_nothing(recwarn):
    """Pillow warns about this EXIF block when left to itself; the filters are left alone."""
    exif = b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"
    files = [as_bytes(noise(3, seed=seed), "PNG", exif=exif) for seed in range(8)]
    with pytest.warns(UserWarning, match="Corrupt EXIF"), Image.open(io.BytesIO(files[0])) as image:
        image.getexif()
    before = list(warnings.filters)

    with ThreadPoolExecutor(4) as pool:
        pictures = list(pool.map(lambda data: read(NAME, data), files * 4))

    for seed, picture in enumerate(pictures):
        np.testing.assert_array_equal(noise(3, seed=seed % 8), picture.pixels)
    assert before == warnings.filters
    assert not recwarn.list
