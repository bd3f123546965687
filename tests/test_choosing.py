"""``choose``: what a JPEG's tables say of its quality, and which weights follow from it."""

import json
from pathlib import Path

import pytest
from PIL import Image, JpegPresets
from reading_files import as_bytes

import srcli
from srcli import files
from srcli.imaging.reading import read_album, read_header
from srcli.upscaler import Upscaler
from srcli.upscaling.choose import BEST_CLEANED, Choice, choose, choose_weights, general

ROOT = Path(__file__).parents[1]
BOTH = ("base", "photo")
NAME = Path("a file")

ANNEX_K = (
    "16 11 10 16 24 40 51 61 12 12 14 19 26 58 60 55 14 13 16 24 40 57 69 56 "
    "14 17 22 29 51 87 80 62 18 22 37 56 68 109 103 77 "
    "24 35 55 64 81 104 113 92 49 64 78 87 103 121 120 101 "
    "72 92 95 98 112 100 103 99"
)
"""Table K.1 of ITU-T T.81, row by row."""


def scaled(quality):
    """Scale Annex K's table of luma as libjpeg does, by its documented formula."""
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    return [min(255, max(1, (int(step) * percent + 50) // 100)) for step in ANNEX_K.split()]


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


# ---- the quality of a JPEG ----------------------------------------------------------------


def test_libjpegs_own_qualities_are_found_exactly(small):
    """What Pillow wrote at a quality from 1 to 100 is of that quality, grey or not."""
    for image in (small, small.convert("L")):
        found = [coding(as_bytes(image, "JPEG", quality=each)).quality for each in range(1, 101)]

        assert found == [*range(1, 101)]


def test_every_way_of_writing_a_jpeg_keeps_its_quality(small):
    """Progressive, optimised, with restarts, in CMYK or of several pictures: the tables tell."""
    ways = [
        as_bytes(small, "JPEG", quality=83, progressive=True, restart_marker_rows=1),
        as_bytes(small, "JPEG", quality=83, exif=b"Exif\0\0" + b"\0" * 9000, comment=b"\xff\xdb"),
        as_bytes(small.convert("CMYK"), "JPEG", quality=83),
        as_bytes(small, "MPO", quality=83, save_all=True, append_images=[small]),
        as_bytes(small, "JPEG", qtables=[scaled(83)]),
        as_bytes(small, "JPEG", qtables=[scaled(83), scaled(20)]),  # luma's counts
    ]

    assert {coding(data).quality for data in ways} == {83}
    assert {coding(data).format for data in ways} == {"JPEG"}


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
        assert choose(found, BOTH).reason == f"{kind}: base"


# ---- the choice ---------------------------------------------------------------------------


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
        found = choose(coding(as_bytes(image, "JPEG", quality=quality, **options)), BOTH)

        assert found == Choice(name=name, reason=f"JPEG of quality {quality}: {name}")


def test_the_threshold_is_the_measured_one():
    """The constant is what ``benchmarks/choice.py`` found when it was last run."""
    record = json.loads((ROOT / "benchmarks/results/choice.json").read_text(encoding="utf-8"))

    assert record["thresholds"]["JPEG"] == BEST_CLEANED


def test_without_photo_every_file_gets_base(small, monkeypatch, tiny_weights):
    """Where no photo weights are shipped auto means base, and the reason says so."""
    monkeypatch.setattr(files, "shipped", lambda: {"base": tiny_weights})
    found = choose(coding(as_bytes(small, "JPEG", quality=30)), general())

    assert general() == ("base",)
    assert found == Choice(name="base", reason="JPEG of quality 30: base, as there is no photo")
    assert choose(None, BOTH) == Choice(name="base", reason="unknown: base")


# ---- for Python programs ------------------------------------------------------------------


def test_a_program_chooses_by_a_path(small, tmp_path, monkeypatch, tiny_weights):
    """``srcli.choose_weights`` takes a path or its text, and gives a name that Upscaler takes."""
    monkeypatch.setattr(files, "shipped", lambda: dict.fromkeys(BOTH, tiny_weights))
    path = tmp_path / "photo.jpg"
    path.write_bytes(as_bytes(small, "JPEG", quality=60))

    choice = srcli.choose_weights(path)

    assert choice == Choice(name="photo", reason="JPEG of quality 60: photo")
    assert choose_weights(str(path)) == choice
    assert Upscaler(choice.name)(small, scale=2).size == (80, 48)
