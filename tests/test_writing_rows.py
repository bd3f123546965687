"""Pictures into files while their rows come."""

import errno
import itertools
import os
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from run_files import growth, needs_proc
from writing_files import KINDS, of_kind, write

from srcli.errors import OutputError
from srcli.imaging import writing
from srcli.imaging.bands import part_of
from srcli.imaging.images import Metadata, Picture, read, read_size
from srcli.imaging.writing import write_rows

STREAMED = ("a.png", "a.tiff", "a.ppm", "a.jpg")
LABELLED = Metadata(
    xmp=b'<x xmlns:exif="http://ns.adobe.com/exif/1.0/" exif:PixelYDimension="4"/>',
    dpi=(300.0, 150.0),
    iptc=b"\x1c\x02\x05\x00\x05Title",
    comment=b"hello",
    text=(("Title", "Night"),),
)


@pytest.fixture
def small_bands(monkeypatch):
    """Make writers work in bands of a few rows."""
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


@pytest.mark.usefixtures("small_bands")
@pytest.mark.parametrize("kind", [kind.values for kind in KINDS], ids=[kind.id for kind in KINDS])
@pytest.mark.parametrize("name", STREAMED)
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_the_file_is_the_same_however_the_picture_was_cut(tmp_path, name, kind, data):
    """Byte for byte, with what is said about it, whatever the height; and bands may be reused."""
    dtype, channels, alpha = kind
    height, width = data.draw(st.integers(1, 30)), data.draw(st.integers(1, 20))
    cuts = data.draw(st.sets(st.integers(1, 29)))
    whole = of_kind(dtype, channels, alpha=alpha, height=height, width=width, metadata=LABELLED)
    told = write(whole, tmp_path / f"whole-{name}")

    bands = banded(whole, sorted(cut for cut in cuts if cut < height))
    notes = write_rows(bands, tmp_path / name, height=height)

    assert told == notes
    assert (tmp_path / f"whole-{name}").read_bytes() == (tmp_path / name).read_bytes()
    if name in {"a.png", "a.tiff"}:
        np.testing.assert_array_equal(whole.pixels, read(tmp_path / name).pixels)


def test_smooth_rows_are_packed_well(tmp_path):
    """Filters turn a gradient into next to nothing."""
    rows, columns = np.mgrid[:200, :300]
    pixels = np.stack([rows, columns // 2, rows + columns // 3], axis=2).astype(np.uint8)
    for name in ("a.png", "a.tiff"):
        write(Picture(pixels=pixels), tmp_path / name)

        assert (tmp_path / name).stat().st_size < pixels.size / 20


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
    assert not [*tmp_path.iterdir()]
    assert len(asked) < 20


FIRST = """
import numpy as np
from srcli.imaging.images import Picture, write_rows

path, height, width = Path(sys.argv[1]), 2000, 8000
band = np.random.default_rng(0).integers(0, 99, (50, width, 3)).astype(sys.argv[2])
bands = (Picture(pixels=band + band.dtype.type(number)) for number in range(height // 50))
write_rows([Picture(pixels=band)], path, height=50)
"""


@needs_proc
@pytest.mark.parametrize(
    ("name", "depth"),
    [("a.png", "uint8"), ("a.tiff", "uint16"), ("a.ppm", "uint8"), ("a.jpg", "uint8")],
)
def test_rows_are_not_held(tmp_path, name, depth):
    """16 megapixels, 48 or 96 MB, are written in less than 36 or 64 MB more than 0.4 are."""
    work = "write_rows(bands, path, height=height)"
    grown = growth(work, tmp_path / name, depth, first=FIRST)

    assert grown < (36 if depth == "uint8" else 64)
    assert read_size(tmp_path / name) == (8000, 2000)
