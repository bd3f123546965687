"""A run directory: what is written when, what is kept, and what is made of what is damaged."""

import dataclasses
from pathlib import Path

import pytest
import torch
from run_files import contents, refusal

from srcli.errors import OutputError
from srcli.model import weights
from srcli.training import run_directory
from srcli.training.run_directory import RunDirectory, load_options

COLUMNS = (
    "step,epoch,patches,seconds,lr,loss,accuracy,eval_loss,eval_accuracy,eval_psnr,baseline_psnr"
)
PLAIN = {"epoch": 0.5, "patches": 40, "seconds": 1.25, "lr": 1e-3, "loss": 0.1, "accuracy": 0.9}
SCORED = {"eval_loss": 0.08, "eval_accuracy": 0.92, "eval_psnr": 30.25, "baseline_psnr": 29.5}


@pytest.fixture
def config(options):
    """Options of a run in a folder that is not there yet."""
    return options("runs/one")


@pytest.fixture
def directory(config):
    """A run directory before step one."""
    run = RunDirectory(config.output)
    run.begin(config)
    return run


def row(step, **changes):
    """Make a line of the log."""
    return {"step": step} | PLAIN | changes


def save(directory, step, value=0.0):
    """Save a checkpoint of one tensor."""
    state = {"net": {"x": torch.full((3,), value)}}
    directory.save(step, state, {"step": step})


def test_a_directory_with_a_run_or_weights_is_refused(config, directory):
    """What is there is never overwritten, and the ways out are named; all else is fine."""
    RunDirectory(config.output / "deeper" / "still").require_new()
    directory.log(row(1))
    directory.require_new()
    for write in (directory.weights.touch, lambda: save(directory, 3)):
        write()
        assert refusal(directory.require_new, OutputError) == (
            f"{config.output} already holds a run: continue it with --resume {config.output}, "
            "or give another --output"
        )
        directory.weights.unlink(missing_ok=True)


def test_an_unfinished_last_line_does_not_count(directory, config):
    """However short a killed process or a power cut left the last line, those before it stay."""
    path = config.output / "log.csv"
    directory.log(row(1, loss=1 / 3))
    whole = path.read_bytes()
    directory.log(row(2, **SCORED))
    last = path.read_bytes().removeprefix(whole)
    assert whole.decode() == f"{COLUMNS}\n1,0.5,40,1.25,0.001,0.33333333,0.9,,,,\n"

    for size in range(len(last)):
        path.write_bytes(whole + last[:size])
        assert directory.rows() == [row(1, loss=0.33333333)]
    directory.resume_at(5)
    assert path.read_bytes() == whole
    path.write_bytes(whole[:9])
    directory.resume_at(5)
    assert path.read_text(encoding="utf-8") == COLUMNS + "\n", "cut in its header it is made anew"


def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(directory, saved_run):
    """It is passed over with a notice; once the run has saved anew, only good ones are kept."""
    save(directory, 4, value=4.0)
    save(directory, 6, value=6.0)
    damaged = saved_run(directory.path).newest
    damaged.write_bytes(damaged.read_bytes()[:-5])
    notices = []

    progress, state = directory.load(notices.append)
    save(directory, 5, value=5.0)

    assert progress == {"step": 4}
    assert state["net"]["x"].tolist() == [4.0] * 3
    (notice,) = notices
    assert notice.startswith("step-00000006.safetensors cannot be read and is passed over: ")
    assert "\n" not in notice
    assert saved_run(directory.path).steps == [4, 5]
    assert directory.load(pytest.fail)[0] == {"step": 5}


def test_unreadable_images_are_listed(directory, config):
    """skipped.txt holds one line an image, those of the sessions before included."""
    path = config.output / "skipped.txt"

    assert directory.list_skipped(["b.png: no image", "a.png: cut"]) == path
    directory.list_skipped(["b.png: no image", "c.png: cut"])
    assert path.read_text(encoding="utf-8") == "a.png: cut\nb.png: no image\nc.png: cut\n"


@pytest.mark.parametrize(
    ("what", "place", "write"),
    [
        ("the run directory", (run_directory, "replacing"), lambda run, config: run.begin(config)),
        ("log.csv", (Path, "open"), lambda run, _: run.log(row(1))),
        ("the checkpoint", (weights, "save_file"), lambda run, _: save(run, 3)),
        ("skipped.txt", (run_directory, "replacing"), lambda run, _: run.list_skipped(["x"])),
    ],
    ids=["options", "log", "checkpoint", "skipped"],
)
def test_what_cannot_be_written_is_one_line(directory, config, what, place, write):
    """A full disk is reported by its own words, with the way out; what was there stays."""
    directory.log(row(7))
    save(directory, 1)
    save(directory, 2)

    def no_room(*_, **__):
        raise OSError(28, "No space left on device")

    before = contents(config.output)
    text = f"cannot write {what} in {config.output}: .*No space left on device; make room or give "
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(*place, no_room)
        with pytest.raises(OutputError, match=text):
            write(directory, config)

    assert contents(config.output) == before


def test_folders_are_kept_as_absolute_ones(config, tmp_path, monkeypatch):
    """A run may be resumed from another working directory; a data set's name stays a name."""
    monkeypatch.chdir(tmp_path)
    run = RunDirectory(Path("here"))
    run.begin(dataclasses.replace(config, datasets=("photos", "celeba:valid")))
    save(run, 1)

    monkeypatch.chdir("/")

    kept = load_options(tmp_path / "here").datasets
    assert kept == (str(tmp_path / "photos"), "celeba:valid")
