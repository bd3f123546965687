"""What a result keeps of its file: its bytes where it is large enough, its time, every level."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from batch_files import enlarge, picture
from command_runs import run_upscale as run

from srcli.imaging import images
from srcli.ops.spans import TargetSize
from srcli.upscaling import steps

pytestmark = pytest.mark.usefixtures("here")

PAST = 1_299_196_800_123_456_700
"""In nanoseconds: 4 March 2011."""


def moving(path, **options):
    """Write an animation of two frames."""
    picture(9, 8).save(path, save_all=True, append_images=[picture(9, 8).rotate(180)], **options)


def sized(text, *inputs, model, **options):
    """Enlarge to a size."""
    return enlarge(*inputs, size=TargetSize.parse(text), model=model, **options)


@pytest.mark.parametrize("name", ["a.JPEG", "a.png", "a.webp", "a.gif", "a.tif", "a.ppm"])
def test_a_picture_that_is_large_enough_is_copied(plain_weights, name):
    """Byte for byte, a note says so; one that is smaller is enlarged."""
    small, large = Path(f"small_{name}"), Path(f"large_{name}")
    picture(5, 4).save(small)
    if name == "a.gif":
        moving(large)
    else:
        picture(9, 8).save(large)

    first, second = sized("8x8", small.name, large.name, model=plain_weights, output=Path("out"))

    assert (first.status, first.after) == ("done", (8, 6))
    assert (second.status, second.after) == ("done", (9, 8))
    assert second.notes == ("as large as asked for already: copied as it is",)
    assert Path("out", large.name).read_bytes() == large.read_bytes()


@pytest.mark.parametrize(
    "options", [{"format": "png"}, {"metadata": "strip"}, {"metadata": "no-location"}]
)
def test_what_is_to_change_is_no_copy(plain_weights, options):
    """Another format, or other metadata."""
    picture(9, 8).save("a.jpg", comment=b"said")

    (result,) = sized("8x8", "a.jpg", model=plain_weights, output=Path("out"), **options)

    assert (result.status, result.after) == ("done", (9, 8))
    assert result.job.target.read_bytes() != Path("a.jpg").read_bytes()


@pytest.mark.parametrize("rows", [False, True])
def test_a_copy_is_made_once_it_was_decoded(plain_weights, monkeypatch, rows):
    """Whole or by rows, so that damage is found; what it is called does not matter."""
    if rows:
        monkeypatch.setattr(steps, "SCANNED_PIXELS", 1)
    picture(300, 400).save("a.HEIC", "JPEG")
    data = Path("a.HEIC").read_bytes()
    Path("b.jpg").write_bytes(data[: len(data) // 2])

    good, bad = sized("100x", "a.HEIC", "b.jpg", model=plain_weights, output=Path("out"))

    assert (good.status, Path("out/a.jpg").read_bytes()) == ("done", data)
    assert (bad.status, Path("out/b.jpg").exists()) == ("failed", False)


@pytest.mark.usefixtures("desk")
def test_a_dry_run_knows_a_copy():
    """No patch is computed and no weights are used; stdin is copied to stdout as well."""
    before = Path("in/b.jpg").read_bytes()

    dry = run("in/b.jpg", "--size", "9x9", "-n", "--json")
    real = run("in/b.jpg", "--size", "9x9", "--json", "-o", "new.d/")

    planned, done = (json.loads(one.stdout.splitlines()[0]) for one in (dry, real))
    assert (planned["patches"], planned["seconds"], planned["output_width"]) == (0, 0, 16)
    assert planned["model"] is done["model"] is None
    assert Path("new.d/b.jpg").read_bytes() == before
    assert run("-", "--size", "9x9", input=before).stdout_bytes == before
    assert run("in/b.jpg", "--size", "9x9", "-o", "-").stdout_bytes == before


@pytest.mark.parametrize("rows", [False, True])
@pytest.mark.parametrize("name", ["a.jpg", "a.webp", "a.tif", "a.gif"])
def test_times_are_kept(plain_weights, monkeypatch, name, rows):
    """Of an enlarged file, of one written by rows, of an animation and of a copy."""
    if rows:
        for limit in ("STREAMED_PIXELS", "SCANNED_PIXELS"):
            monkeypatch.setattr(steps, limit, 1)
    if name == "a.gif":
        moving(name)
    else:
        picture(9, 8).save(name)
    os.utime(name, ns=(PAST, PAST))
    options = {"model": plain_weights, "keep_times": True, "existing": "overwrite"}

    for more in ({}, {"metadata": "strip"}, {"size": TargetSize.parse("8x")}):
        (result,) = enlarge(name, **options, **more)
        assert result.status == "done", result.message
        assert result.job.target.stat().st_mtime_ns == PAST
    (result,) = enlarge(name, **options | {"keep_times": False})
    assert result.job.target.stat().st_mtime_ns > PAST


@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("RGBA", {"exact": True}),
        ("RGB", {"icc_profile": bytes(200)}),
        ("RGB", {"save_all": True, "append_images": [picture(9, 8).rotate(180)]}),
    ],
)
def test_lossless_webp_stays_lossless(mode, options):
    """Of one or more pictures; what lost something, or was no WebP, is written at its quality."""
    for name, lossless in (("a.webp", True), ("a.webp", False), ("a.png", False)):
        more = {"lossless": lossless} if name == "a.webp" else {}
        picture(9, 8, mode).save(name, **more, **options)
        album = images.read_album(Path(name))
        images.write_album(album, Path("b.webp"))
        again = images.read_album(Path("b.webp"))

        assert again.coding.lossless is lossless
        for one, other in zip(album.pictures, again.pictures, strict=True):
            assert np.array_equal(one.pixels, other.pixels) is lossless
