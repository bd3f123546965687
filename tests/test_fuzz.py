"""Damaged files by the hundred: each ends as done or as failed, in words, and none of it leaks.

``benchmarks/fuzz.py`` does the same with thousands of files of a corpus.
"""

import io
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from batch_files import configured
from PIL import Image, features
from reading_files import as_bytes, noise, tiff
from run_files import tool

from srcli.files import TEMPORARY_SUFFIX
from srcli.imaging import images
from srcli.upscaling import batch
from srcli.upscaling.config import Job

ROOT = Path(__file__).parents[1]
COUNT = 320
TARGETS = ("png", "jpg", "webp", "tif", "gif", "bmp", "ppm")
DEEP = {"dtype": np.uint16}
DAMAGES = tool("fuzz").DAMAGES


def levels(channels, dtype=np.uint8, seed=3):
    """Draw blocks of noise, which compress to files with some structure: 18 x 22."""
    return noise(channels, dtype, seed, 9, 11).repeat(2, axis=0).repeat(2, axis=1)


def pillow_files():
    """Make a file of every format and of most of its kinds."""
    rgb, rgba = (Image.fromarray(levels(count)) for count in (3, 4))
    grey = Image.fromarray(levels(1)[..., 0])
    bilevel, palette = grey.convert("1"), rgb.quantize(16)
    frames = [Image.fromarray(levels(3, seed=seed)) for seed in range(3)]
    yield "rgb.jpg", as_bytes(rgb, "JPEG", comment=b"night", dpi=(72, 72))
    yield "progressive.jpg", as_bytes(rgb, "JPEG", progressive=True, exif=Image.Exif().tobytes())
    yield "cmyk.jpg", as_bytes(rgb.convert("CMYK"), "JPEG")
    yield "grey.jpg", as_bytes(grey, "JPEG")
    for name, image in (("rgb", rgb), ("rgba", rgba), ("grey", grey), ("1", bilevel)):
        yield f"{name}.png", as_bytes(image, "PNG")
        yield f"{name}.tif", as_bytes(image, "TIFF", compression="tiff_adobe_deflate")
    yield "palette.png", as_bytes(palette, "PNG", transparency=3)
    for kind in ("PNG", "WEBP", "GIF"):
        yield f"animated.{kind.lower()}", as_bytes(frames, kind, duration=50, loop=2)
    yield "rgba.webp", as_bytes(rgba, "WEBP", lossless=True)
    yield "lossy.webp", as_bytes(rgb, "WEBP", exif=b"Exif\0\0II*\0")
    yield "grey.gif", as_bytes(grey, "GIF")
    yield "pages.tif", as_bytes(frames, "TIFF", compression="tiff_lzw")
    yield "fax.tif", as_bytes(bilevel, "TIFF", compression="group4")
    yield "jpeg.tif", as_bytes(rgb, "TIFF", compression="jpeg")
    yield "rgb.bmp", as_bytes(rgb, "BMP")
    yield "palette.bmp", as_bytes(palette, "BMP")
    yield "rgb.ppm", as_bytes(rgb, "PPM")
    yield "bits.pbm", as_bytes(bilevel, "PPM")
    if "avif" in features.get_supported():
        yield "rgba.avif", as_bytes(rgba, "AVIF", speed=10)


def deep_files():
    """Make files of 16 bits a channel."""
    for channels in (1, 3, 4):
        stream = io.BytesIO()
        alpha = None if channels < 4 else levels(1, **DEEP)
        picture = images.Picture(pixels=levels(min(channels, 3), **DEEP), alpha=alpha)
        images.write_stream(images.Album(pictures=(picture,)), stream, format="PNG")
        yield f"deep{channels}.png", stream.getvalue()
    for planar in ("contig", "separate"):
        yield f"{planar}.tif", tiff(levels(3, **DEEP), planar, compression="zlib")
    yield "deep.ppm", b"P6 22 18 65535\n" + levels(3, **DEEP).astype(">u2").tobytes()


@pytest.fixture(scope="module")
def sound():
    """Sound files by name."""
    return dict((*pillow_files(), *deep_files()))


def enlarged(files, folder, model):
    """Enlarge files by two as one run, each into one of the formats in turn."""
    jobs = []
    for number, (name, data) in enumerate(files):
        path = folder / "in" / f"{number}-{name}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        target = folder / "out" / f"{number}.{TARGETS[number % len(TARGETS)]}"
        jobs.append(Job(path, target, path.name))
    config = configured("fuzz", scale=2.0, existing="overwrite", model=str(model))
    return list(batch.run(config, jobs))


def test_every_sound_file_is_done(sound, tmp_path, tiny_weights):
    """The files that are going to be damaged can all be enlarged."""
    results = enlarged(sound.items(), tmp_path, tiny_weights)

    assert [(result.status, result.message) for result in results] == [("done", "")] * len(sound)
    for result in results:
        with Image.open(result.job.target) as image:
            assert image.size == (44, 36)


def test_damage_costs_a_file_and_nothing_else(sound, tmp_path, tiny_weights, capfd):
    """Each is done or has failed for a reason; nothing is printed, nothing is left behind."""
    chance, names = random.Random(11), list(sound)  # noqa: S311 - not a secret
    files = []
    for _ in range(COUNT):
        name, other = chance.choice(names), chance.choice(names)
        files.append((name, chance.choice(DAMAGES)(sound[name], sound[other], chance)))

    results = enlarged(files, tmp_path, tiny_weights)

    assert len(results) == COUNT
    for result in results:
        path = str(result.job.source)
        assert result.status in {"done", "failed"}, result
        if result.status == "done":
            assert result.job.target.stat().st_size > 0
        else:
            assert result.message.startswith(f"{path}: "), result.message
            assert result.message.isprintable()
            assert ": unexpected" not in result.message
            assert not result.job.target.exists()
    # Some damage is found and some is not: otherwise this tests nothing.
    assert 40 < sum(result.status == "done" for result in results) < COUNT - 100
    assert capfd.readouterr() == ("", "")
    assert not list(tmp_path.rglob(f"*{TEMPORARY_SUFFIX}"))


def test_the_large_fuzzer_runs(sound, tmp_path):
    """The program that does this with thousands of files tells what it found."""
    for name in ("rgb.jpg", "palette.png", "fax.tif"):
        (tmp_path / name).write_bytes(sound[name])
    report = tmp_path / "report.md"

    done = subprocess.run(
        [sys.executable, "benchmarks/fuzz.py", tmp_path, "--count", "9", "--report", report],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
        check=True,
        capture_output=True,
        text=True,
    )

    assert report.read_text(encoding="utf-8") == done.stdout.removesuffix("\n")
    assert "3 done, 0 failed, 0 hung or crashed; 0 bugs. Temporary files left: 0." in done.stdout
    assert done.stdout.count("stderr: 0.") == 2
