"""Files that cannot be written, and what is left of them: nothing."""

import errno

import numpy as np
import pytest
from PIL import Image
from reading_files import AVIF, noise
from run_files import refusal
from writing_files import SMALL, write

from srcli.errors import OutputError
from srcli.imaging import writing
from srcli.imaging.images import Picture, read_size


def refusal_of(path, picture=SMALL):
    """Write in vain and give the message, after checking that it is one line and left nothing."""
    text = refusal(lambda: write(picture, path), OutputError)
    assert text.startswith(f"{path}: ")
    return text.removeprefix(f"{path}: ")


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
    picture = Picture(pixels=np.zeros((limit + 1, 1, 1), np.uint8))

    assert refusal_of(tmp_path / name, picture) == f"1x{limit + 1} {problem}"
    write(Picture(pixels=np.zeros((1, limit, 1), np.uint8)), tmp_path / name)
    assert (limit, 1) == read_size(tmp_path / name)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tiff", "a.webp", "a.bmp", "a.gif", "a.ppm"])
def test_what_the_disk_refuses_is_told_through_every_encoder(tmp_path, monkeypatch, name):
    """The system's reason survives Pillow's encoders, and nothing is left behind."""

    def refuse(*_):
        raise OSError(errno.ENOSPC, "No space left")

    monkeypatch.setattr(writing._Sink, "write", refuse)

    picture = Picture(pixels=noise(3, height=80, width=100))  # more than a buffer
    expected = "cannot be written (No space left); choose another place"
    assert expected == refusal_of(tmp_path / name, picture)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("bad\nvalue"), r"cannot be encoded (bad\nvalue); choose another format"),
        (MemoryError(), "encoding it does not fit into memory; write BMP or PPM"),
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
    assert [*tmp_path.iterdir()] == [path]
