"""``choose``: what a JPEG's tables say of its quality, and which weights follow from it."""

from pathlib import Path

import pytest
from PIL import Image, JpegPresets
from reading_files import as_bytes

import srcli
from srcli import files
from srcli.imaging.reading import read_album, read_header
from srcli.upscaler import Upscaler
from srcli.upscaling.choose import GENERAL, Choice, choose, choose_weights

NAME = Path("a file")


def coding(data):
    """Tell how bytes were encoded, by both ways to open a file; they must agree."""
    header, album = read_header(NAME, data), read_album(NAME, data)
    assert header.coding == album.coding
    assert header.format == album.format == header.coding.format
    return header.coding


@pytest.fixture(scope="module")
def small(photo):
    """A picture of 40 x 24 pixels."""
    return Image.fromarray(photo[:24, :40])


def test_libjpegs_own_qualities_are_found_exactly(small):
    """What Pillow wrote at a quality from 1 to 100 is of that quality, grey or not."""
    for image in (small, small.convert("L")):
        found = [coding(as_bytes(image, "JPEG", quality=each)).quality for each in range(1, 101)]

        assert found == [*range(1, 101)]


def test_foreign_tables_are_ordered_by_how_coarse_they_are(small):
    """Photoshop's own tables, as Pillow's presets have them, come in the order of their names."""
    web = ("web_low", "web_medium", "web_high", "web_very_high", "web_maximum")
    for names in (web, ("low", "medium", "high", "maximum")):
        tables = [JpegPresets.presets[name]["quantization"] for name in names]
        found = [coding(as_bytes(small, "JPEG", qtables=table)).quality for table in tables]

        assert found == sorted(set(found))


def test_only_a_jpeg_says_how_much_it_has_lost(small):
    """Any other format gets base; of WebP it is known whether it lost something."""
    for kind, options in (("PNG", {}), ("TIFF", {}), ("WEBP", {}), ("WEBP", {"lossless": True})):
        found = coding(as_bytes(small, kind, icc_profile=b"p" * 333, **options))

        assert (found.quality, found.lossless) == (None, "lossless" in options)
        assert choose(found).reason == f"{kind}: base"


@pytest.mark.parametrize(
    ("quality", "name"), [(1, "photo"), (84, "photo"), (85, "base"), (100, "base")]
)
def test_a_jpeg_is_cleaned_up_to_a_quality(small, quality, name):
    """In colour and grey, of any subsampling: the limit is 84."""
    for image, options in (
        (small, {"subsampling": 2}),
        (small, {"subsampling": 0, "progressive": True}),
        (small.convert("L"), {}),
    ):
        found = choose(coding(as_bytes(image, "JPEG", quality=quality, **options)))

        assert found == Choice(name=name, reason=f"JPEG of quality {quality}: {name}")


def test_a_program_chooses_by_a_path(small, tmp_path, monkeypatch, tiny_weights):
    """``srcli.choose_weights`` takes a path or its text, and gives a name that Upscaler takes."""
    monkeypatch.setattr(files, "shipped", lambda: dict.fromkeys(GENERAL, tiny_weights))
    path = tmp_path / "photo.jpg"
    path.write_bytes(as_bytes(small, "JPEG", quality=60))

    choice = srcli.choose_weights(path)

    assert choice == Choice(name="photo", reason="JPEG of quality 60: photo")
    assert choose_weights(str(path)) == choice
    assert Upscaler(choice.name)(small, scale=2).size == (80, 48)
