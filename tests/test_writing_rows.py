"""Pictures into files while their rows come."""

import itertools

import numpy as np
import pytest
from run_files import growth, needs_proc
from writing_files import KINDS, of_kind, write

from srcli.imaging.images import Metadata, Picture, read, read_size
from srcli.imaging.streaming import part_of
from srcli.imaging.writing import write_rows

STREAMED = ("a.png", "a.tiff", "a.ppm", "a.jpg")
LABELLED = Metadata(
    xmp=b'<x xmlns:exif="http://ns.adobe.com/exif/1.0/" exif:PixelYDimension="4"/>',
    dpi=(300.0, 150.0),
    iptc=b"\x1c\x02\x05\x00\x05Title",
    comment=b"hello",
    text=(("Title", "Night"),),
)


@pytest.mark.parametrize("kind", [kind.values for kind in KINDS])
@pytest.mark.parametrize("name", STREAMED)
def test_the_file_is_the_same_however_the_picture_was_cut(tmp_path, monkeypatch, name, kind):
    """Byte for byte, with what is said about it."""
    monkeypatch.setattr("srcli.imaging.streaming._BAND_BYTES", 170)
    dtype, channels, alpha = kind
    whole = of_kind(dtype, channels, alpha=alpha, height=30, width=11, metadata=LABELLED)
    told = write(whole, tmp_path / f"whole-{name}")

    for cuts in ((0, 30), (0, 1, 14, 15, 30), range(31)):
        bands = (part_of(whole, slice(*pair)) for pair in itertools.pairwise(cuts))
        assert write_rows(bands, tmp_path / name, height=30) == told
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
