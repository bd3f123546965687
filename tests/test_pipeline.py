"""Many files at a time: order, how far reading goes ahead, failures, interrupts."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from srcli.files import TEMPORARY_SUFFIX
from srcli.imaging import images
from srcli.upscaler import Settings
from srcli.upscaling import batch
from srcli.upscaling.config import BatchConfig
from srcli.upscaling.plan import plan
from srcli.upscaling.selection import Selection

EXACT = Settings(device="cpu", dtype="fp32")


SELECTED = {field.name for field in dataclasses.fields(Selection)}


def configured(*inputs, **options):
    """Options of a batch that computes in fp32 on the CPU."""
    chosen = {name: options.pop(name) for name in SELECTED & options.keys()}
    selection = Selection(inputs=inputs, **chosen)
    return BatchConfig(selection=selection, **{"settings": EXACT, **options})


def listing(folder="."):
    """Every file and folder below a folder."""
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*"))


def enlarge(*inputs, model, **options):
    """Plan and run a batch."""
    config = configured(*inputs, model=str(model), **options)
    return list(batch.run(config, plan(config.selection)))


def picture(width, height, mode="RGB"):
    """Draw noise: no two pixels are expected to be alike."""
    channels = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}[mode]
    levels = np.random.default_rng(5).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return Image.fromarray(levels[..., 0] if channels == 1 else levels)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.usefixtures("here")
def test_results_come_in_the_order_of_the_jobs(tiny_weights, threads):
    """However long each takes to read and write, the order and the pictures stay."""
    sizes = [(90, 70), (3, 2), (60, 80), (5, 5), (2, 9), (70, 9)]
    for number, size in enumerate(sizes):
        picture(*size).save(f"{number}.png")
    Path("2.png").write_bytes(b"broken")

    results = enlarge("*.png", model=tiny_weights, jobs=threads, output=Path("out"))

    assert [result.job.source.name for result in results] == [f"{n}.png" for n in range(6)]
    assert [result.status for result in results].count("done") == 5
    for number, (width, height) in enumerate(sizes):
        if number != 2:
            assert images.read_size(Path(f"out/{number}.png")) == (3 * width, 3 * height)


@pytest.mark.usefixtures("here")
def test_only_a_few_files_are_taken_ahead_of_the_net(tiny_weights):
    """What is read before the net is ready for it is bounded, whatever the number of files."""
    for number in range(12):
        picture(9, 7).save(f"{number:02}.png")
    config = configured("*.png", model=str(tiny_weights), jobs=2, output=Path("out"))
    taken = []

    def jobs():
        for job in plan(config.selection):
            taken.append(job)
            yield job

    results = batch.run(config, jobs())
    next(results)

    assert 1 <= len(taken) <= 2 + 2 + 3
    assert len(list(results)) == 11


@pytest.mark.usefixtures("here")
def test_reading_ends_while_large_pictures_wait(tiny_weights, monkeypatch):
    """Where what waits for the net or the disk is large, no more than one file waits."""
    for number in range(6):
        picture(30, 20).save(f"{number}.png")
    monkeypatch.setattr(batch, "_MOST_WAITING", 1)
    config = configured("*.png", model=str(tiny_weights), jobs=4, output=Path("out"))
    works, full = [], batch._is_full

    def observed(some):
        works.append(sum(work.bytes > 0 for work in some))
        return full(some)

    monkeypatch.setattr(batch, "_is_full", observed)

    results = list(batch.run(config, plan(config.selection)))

    assert [result.status for result in results] == ["done"] * 6
    assert max(works) <= 5


@pytest.mark.usefixtures("here")
def test_a_note_is_said_once_and_is_in_every_result(tiny_weights):
    """What a format cannot hold is reported with the first file that it concerns."""
    for name in ("a", "b", "c"):
        picture(9, 7, "RGBA" if name != "b" else "RGB").save(f"{name}.png")
    found = []
    config = configured("*.png", model=str(tiny_weights), format="jpg", output=Path("out"))

    results = list(batch.run(config, plan(config.selection), notice=found.append))

    assert [len(result.notes) for result in results] == [1, 0, 1]
    assert results[0].notes == results[2].notes
    assert found == [f"a.png: {results[0].notes[0]}"]
    assert "transparency" in found[0]


@pytest.mark.usefixtures("here")
def test_fail_fast_ends_at_the_first_failure(tiny_weights):
    """What was computed meanwhile is finished; nothing else is begun."""
    for name in ("a", "c", "d", "e", "f", "g", "h", "i"):
        picture(9, 7).save(f"{name}.png")
    Path("b.png").write_bytes(b"broken")

    results = enlarge("*.png", model=tiny_weights, fail_fast=True, jobs=1, output=Path("out"))

    assert [result.status for result in results[:2]] == ["done", "failed"]
    assert len(results) <= 4
    assert {result.status for result in results[2:]} <= {"done"}
    done = [result.job.source.name for result in results if result.status == "done"]
    assert listing("out") == done


@pytest.mark.usefixtures("here")
def test_an_interrupt_finishes_what_was_computed(tiny_weights):
    """Results of the net are written and reported before it ends; no half file stays."""
    for number in range(6):
        picture(9, 7).save(f"{number}.png")
    config = configured("*.png", model=str(tiny_weights), jobs=1, output=Path("out"))
    found = []

    def interrupt(job, _share):
        if job.source.name == "3.png":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        found.extend(batch.run(config, plan(config.selection), on_progress=interrupt))

    assert [(each.job.source.name, each.status) for each in found] == [
        (f"{number}.png", "done") for number in range(3)
    ]
    assert listing("out") == ["0.png", "1.png", "2.png"]


@pytest.mark.usefixtures("here")
def test_leftovers_in_the_folders_of_results_are_swept(tiny_weights):
    """The unfinished file of a run that was killed goes when the next one comes by."""
    picture(9, 7).save("a.png")
    Path("out").mkdir()
    Path(f"out/.0123456789ab{TEMPORARY_SUFFIX}").write_bytes(b"half")

    enlarge("a.png", model=tiny_weights, output=Path("out"))

    assert listing("out") == ["a.png"]
