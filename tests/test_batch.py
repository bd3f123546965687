"""A batch of files: what becomes of each, how they overlap, what a dry run says."""

from pathlib import Path

import pytest
from batch_files import configured, enlarge, listing, picture
from PIL import Image

from srcli.ops.spans import TargetSize
from srcli.upscaler import Upscaler
from srcli.upscaling import batch
from srcli.upscaling.plan import plan

pytestmark = pytest.mark.usefixtures("here")


def test_what_fails_leaves_no_folder(here, tiny_weights):
    """The output folder is made for a result: not for a broken input, nor where it is too large."""
    Path("bad.png").touch()
    picture(1100, 2).save("wide.webp")
    picture(10, 5).save("small.png")
    before = listing(here)
    options = {"model": tiny_weights, "output": Path("out/b")}

    bad, wide = enlarge("bad.png", "wide.webp", scale=15, **options)
    (small,) = enlarge("small.png", size=TargetSize(width=180), **options)

    assert bad.status == wide.status == "failed"
    assert wide.message == (
        "out/b/wide.webp: 16500x30 pixels exceed the 16383 a side that WEBP can hold; "
        "write PNG or TIFF"
    )
    assert small.message == "small.png: --size 180x is 18 times its 10x5; choose at most 16 times"
    assert listing(here) == before


@pytest.mark.parametrize(
    ("existing", "statuses"), [("error", ["failed", "failed"]), ("skip", ["done", "skipped"])]
)
def test_an_output_that_appears_meanwhile_stays(tiny_weights, existing, statuses):
    """Somebody else has put it there while the net was at work at it, or at another one."""
    for name in ("a.png", "b.png"):
        picture(9, 7).save(name)
    config = configured("a.png", "b.png", model=str(tiny_weights), existing=existing)

    def meanwhile(_job, _share):
        for name in ("a_x3.png", "b_x3.png")[existing == "skip" :]:
            Path(name).write_text("precious", encoding="utf-8")

    first, second = batch.run(config, plan(config), on_progress=meanwhile)

    assert [first.status, second.status] == statuses
    assert "meanwhile; use --overwrite or --skip-existing" in first.message or existing == "skip"
    assert Path("b_x3.png").read_text(encoding="utf-8") == "precious"


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (MemoryError(), 5, "the result does not fit into memory; use a smaller …"),
        (ZeroDivisionError("by\nzero"), 1, "unexpected ZeroDivisionError: by\\nzero; please …"),
    ],
)
def test_an_error_of_the_net_costs_only_the_file(tiny_weights, monkeypatch, error, code, message):
    """Short of memory, or a bug: one line that says what to do, and the next file is done."""
    upscale = Upscaler.upscale

    def stumble(self, given, size, *rest):
        if given.width == 40:
            raise error
        return upscale(self, given, size, *rest)

    picture(40, 7).save("a.png")
    picture(9, 7).save("b.png")
    monkeypatch.setattr(Upscaler, "upscale", stumble)

    first, second = enlarge("a.png", "b.png", model=tiny_weights)

    assert (first.status, second.status, first.exit_code) == ("failed", "done", code)
    assert first.message.startswith(f"a.png: {message.removesuffix('…')}")
    assert listing() == ["a.png", "b.png", "b_x3.png"]


def test_stripped_metadata_are_gone(tiny_weights):
    """``strip`` leaves pixels alone in the file, ``no-location`` drops the place."""
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    exif[0x8825] = {1: "N"}
    picture(9, 7).save("a.jpg", exif=exif, comment=b"secret")
    found = {}
    for metadata in ("keep", "strip", "no-location"):
        enlarge("a.jpg", model=tiny_weights, suffix=metadata, metadata=metadata)
        with Image.open(f"a{metadata}.jpg") as image:
            kept = image.getexif()
            found[metadata] = kept.get(0x010F), kept.get_ifd(0x8825), "comment" in image.info

    assert found == {
        "keep": ("Maker", {1: "N"}, True),
        "strip": (None, {}, False),
        "no-location": ("Maker", {}, True),
    }


def test_only_a_few_files_are_taken_ahead_of_the_net(tiny_weights):
    """What is read before the net is ready for it is bounded, whatever the number of files."""
    for number in range(12):
        picture(9, 7).save(f"{number:02}.png")
    config = configured("*.png", model=str(tiny_weights), jobs=2, output=Path("out"))
    taken = []

    def jobs():
        for job in plan(config):
            taken.append(job)
            yield job

    results = batch.run(config, jobs())
    next(results)

    assert 1 <= len(taken) <= 2 + 2 + 3
    assert len(list(results)) == 11


def test_a_note_is_said_once_and_is_in_every_result(tiny_weights):
    """What a format cannot hold is reported with the first file that it concerns."""
    for name in ("a", "b", "c"):
        picture(9, 7, "RGBA" if name != "b" else "RGB").save(f"{name}.png")
    found = []
    config = configured("*.png", model=str(tiny_weights), format="jpg", output=Path("out"))

    results = list(batch.run(config, plan(config), notice=found.append))

    assert [len(result.notes) for result in results] == [1, 0, 1]
    assert results[0].notes == results[2].notes
    assert found == [f"a.png: {results[0].notes[0]}"]
    assert "transparency" in found[0]
