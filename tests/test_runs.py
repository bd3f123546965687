"""A run directory: what is written when, what is kept, and what is made of what is damaged."""

import csv
import dataclasses
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import srcli
from srcli.errors import DataError, OutputError
from srcli.files import TEMPORARY_SUFFIX
from srcli.model import weights
from srcli.training import run_directory as runs
from srcli.training.config import TrainConfig
from srcli.training.run_directory import Row, RunDirectory, load_options

COLUMNS = (
    "step,epoch,patches,seconds,lr,loss,accuracy,eval_loss,eval_accuracy,eval_psnr,baseline_psnr"
)
PLAIN = {"epoch": 0.5, "patches": 40, "seconds": 1.25, "lr": 1e-3, "loss": 0.1, "accuracy": 0.9}
SCORED = {"eval_loss": 0.08, "eval_accuracy": 0.92, "eval_psnr": 30.25, "baseline_psnr": 29.5}


@pytest.fixture
def config(tmp_path, tiny_config):
    """Options of a run in a folder that is not there yet."""
    return TrainConfig(
        output=tmp_path / "runs" / "one",
        datasets=(str(tmp_path / "photos"), "stl10:train"),
        data_dir=tmp_path,
        model=tiny_config,
        steps=10,
    )


@pytest.fixture
def directory(config):
    """A run directory before step one."""
    run = RunDirectory(config.output)
    run.begin(config)
    return run


def row(step, **changes):
    """Make a line of the log."""
    return Row(step=step, **(PLAIN | changes))


def save(directory, step, keep_last=2, value=0.0):
    """Save a checkpoint of one tensor."""
    directory.save(step, {"net.x": torch.full((3,), value)}, {"step": step}, keep_last=keep_last)


def checkpoints(directory):
    """List the steps that there are checkpoints of."""
    return [
        int(path.stem.removeprefix("step-"))
        for path in sorted((directory.path / "state").glob("*.safetensors"))
    ]


def leftovers(directory):
    """List unfinished files."""
    return list(directory.path.rglob(f"*{TEMPORARY_SUFFIX}"))


def no_room(*_, **__):
    """Fail as a full disk does."""
    raise OSError(28, "No space left on device")


def test_a_run_begins_with_its_options_and_an_empty_log(config, directory):
    """Before step one there are the options, a log of its header alone, and a place for state."""
    names = sorted(path.name for path in config.output.iterdir())

    assert names == ["log.csv", "options.json", "state"]
    assert (config.output / "log.csv").read_text(encoding="utf-8") == COLUMNS + "\n"
    assert directory.rows() == []
    kept = TrainConfig.from_json((config.output / "options.json").read_text(encoding="utf-8"))
    assert kept == config


def test_folders_are_kept_as_absolute_ones(config, tmp_path, monkeypatch):
    """A run may be resumed from another working directory; a data set's name stays a name."""
    monkeypatch.chdir(tmp_path)
    run = RunDirectory(Path("here"))
    run.begin(dataclasses.replace(config, datasets=("photos", "celeba:valid")))
    save(run, 1)

    monkeypatch.chdir("/")

    kept = load_options(tmp_path / "here").datasets
    assert kept == (str(tmp_path / "photos"), "celeba:valid")


@pytest.mark.parametrize("name", ["log.csv", "options.json"])
def test_a_folder_that_cannot_be_written_is_one_line(config, monkeypatch, name):
    """When the directory cannot be made or filled, the reason and the way out are told."""
    if name == "options.json":
        monkeypatch.setattr(runs, "replacing", no_room)
    else:
        monkeypatch.setattr(Path, "mkdir", no_room)

    with pytest.raises(OutputError) as caught:
        RunDirectory(config.output).begin(config)

    assert str(caught.value) == (
        f"cannot write the run directory in {config.output}: No space left on device; "
        "make room or give another --output"
    )


def test_a_new_directory_is_not_refused(config, directory):
    """Neither a path that is not there nor a run that never saved is in the way."""
    RunDirectory(config.output / "deeper" / "still").refuse()
    directory.log(row(1))

    directory.refuse()


def test_a_directory_with_a_run_is_refused(config, directory):
    """Where there is a checkpoint the two ways out are named."""
    save(directory, 3)

    with pytest.raises(OutputError) as caught:
        directory.refuse()

    assert str(caught.value) == (
        f"{config.output} already holds a run: continue it with --resume {config.output}, "
        "or give another --output"
    )


def test_a_directory_with_weights_is_refused(config, directory):
    """Weights are never trained over, though nothing of the run is left beside them."""
    directory.weights.touch()

    with pytest.raises(OutputError) as caught:
        directory.refuse()

    assert str(caught.value) == (
        f"{config.output} already holds trained weights; give another --output"
    )


@pytest.mark.parametrize("below", ["", "deeper", "deeper/still"])
def test_a_file_in_the_directorys_place_is_refused(tmp_path, below):
    """A path that is a file, or lies below one, names that file."""
    (tmp_path / "file").touch()
    path = tmp_path / "file" / below

    with pytest.raises(OutputError) as caught:
        RunDirectory(path).refuse()

    assert str(caught.value) == (
        f"cannot write the run directory {path}: {tmp_path / 'file'} is not a folder; "
        "give another --output"
    )


def test_the_log_has_its_columns(config, directory):
    """A line without an evaluation leaves its cells empty; numbers have eight digits."""
    directory.log(row(1, loss=1 / 3))
    directory.log(row(100, **SCORED))

    assert (config.output / "log.csv").read_text(encoding="utf-8").splitlines() == [
        COLUMNS,
        "1,0.5,40,1.25,0.001,0.33333333,0.9,,,,",
        "100,0.5,40,1.25,0.001,0.1,0.9,0.08,0.92,30.25,29.5",
    ]
    with (config.output / "log.csv").open(newline="", encoding="utf-8") as file:
        assert [line["eval_psnr"] for line in csv.DictReader(file)] == ["", "30.25"]


@given(
    st.integers(1, 10**12),
    st.integers(1, 10**15),
    st.floats(0, 1e6),
    st.none() | st.floats(-100, 100),
)
def test_a_line_reads_back(step, patches, loss, score):
    """Counts come back exactly however long the run, measures to eight digits."""
    line = row(step, patches=patches, loss=loss, eval_psnr=score)
    cells = dict(zip(COLUMNS.split(","), line.cells(), strict=True))

    read = Row.read(cells)

    assert (read.step, read.patches) == (step, patches)
    assert type(read.step) is type(read.patches) is int
    assert read.loss == pytest.approx(loss, rel=1e-7)
    assert read.eval_psnr == (None if score is None else pytest.approx(score, rel=1e-7))
    assert Row.read(dict(zip(COLUMNS.split(","), read.cells(), strict=True))) == read


def test_an_unfinished_last_line_does_not_count(directory, config):
    """However short a killed process or a power cut left the last line, those before it stay."""
    path = config.output / "log.csv"
    directory.log(row(1))
    whole = path.read_bytes()
    directory.log(row(2, **SCORED))
    last = path.read_bytes().removeprefix(whole)
    assert last.endswith(b"29.5\n")

    for size in range(len(last)):
        path.write_bytes(whole + last[:size])
        assert directory.rows() == [row(1)]


def test_a_log_that_is_cut_in_its_header_is_empty(directory, config):
    """A log without a single whole line holds nothing, and is made anew."""
    (config.output / "log.csv").write_text("step,epo", encoding="utf-8")

    assert directory.rows() == []
    directory.take_up(5)
    assert (config.output / "log.csv").read_text(encoding="utf-8") == COLUMNS + "\n"


@pytest.mark.parametrize(
    "content",
    [
        None,
        b"\xff\xfe\n",
        b"a,b\n1,2\n",
        COLUMNS.encode() + b"\n1,x,1,1,1,1,1,,,,\n",
        COLUMNS.encode() + b"\n1.5,1,1,1,1,1,1,,,,\n",
    ],
    ids=["missing", "binary", "foreign", "no number", "half a step"],
)
def test_a_damaged_log_is_one_line(directory, config, content):
    """A log that cannot be read is named; nothing is made up in its place."""
    (config.output / "log.csv").unlink()
    if content is not None:
        (config.output / "log.csv").write_bytes(content)

    with pytest.raises(DataError) as caught:
        directory.take_up(1)

    text = str(caught.value)
    assert text.startswith(f"{config.output / 'log.csv'} cannot be read (")
    assert text.endswith("); start again with another --output")
    assert "\n" not in text


def test_taking_up_drops_what_comes_again(directory, config):
    """Lines after the checkpoint's step go, the others stay to the letter."""
    for step in (1, 5, 10, 15):
        directory.log(row(step, loss=step / 7, **SCORED))
    before = (config.output / "log.csv").read_text(encoding="utf-8").splitlines()

    directory.take_up(10)

    assert (config.output / "log.csv").read_text(encoding="utf-8").splitlines() == before[:4]


def test_taking_up_and_beginning_clear_what_a_killed_process_left(directory, config):
    """Unfinished files of ours go from the run's own folders, files of others stay."""
    other = config.output / "pictures" / f".x{TEMPORARY_SUFFIX}"
    other.parent.mkdir()
    for step in (directory.take_up, lambda _: directory.begin(config)):
        for folder in (config.output, config.output / "state", other.parent):
            (folder / f".x{TEMPORARY_SUFFIX}").touch()

        step(0)

        assert leftovers(directory) == [other]


def test_a_log_that_cannot_be_written_is_one_line(directory, config, monkeypatch):
    """A full disk is told by its own words."""
    monkeypatch.setattr(Path, "open", no_room)

    with pytest.raises(OutputError) as caught:
        directory.log(row(1))

    assert str(caught.value) == (
        f"cannot write log.csv in {config.output}: No space left on device; "
        "make room or give another --output"
    )


def test_a_log_that_cannot_be_taken_up_stays(directory, config, monkeypatch):
    """When there is no room to write the log anew, the old one is untouched."""
    directory.log(row(7))
    before = (config.output / "log.csv").read_bytes()
    monkeypatch.setattr(runs, "replacing", no_room)

    with pytest.raises(OutputError, match=r"^cannot write log\.csv in .*: No space left"):
        directory.take_up(1)

    assert (config.output / "log.csv").read_bytes() == before


def test_a_checkpoint_reads_back(directory):
    """Progress and tensors come back as they were."""
    tensors = {"net.x": torch.rand(2, 3), "adam.0.step": torch.tensor(3.0), "none": torch.empty(0)}
    directory.save(3, tensors, {"step": 3, "seconds": 1.5}, keep_last=2)

    progress, read = directory.load(pytest.fail)

    assert progress == {"step": 3, "seconds": 1.5}
    assert read.keys() == tensors.keys()
    assert all(torch.equal(read[name], tensors[name]) for name in tensors)


@pytest.mark.parametrize("keep_last", [1, 2, 3])
def test_as_many_checkpoints_are_kept_as_asked(directory, keep_last):
    """The newest N stay; the older ones go when a newer one is whole."""
    for count in range(1, 6):
        save(directory, 10 * count, keep_last)
        expected = [10 * one for one in range(1, count + 1)][-keep_last:]
        assert checkpoints(directory) == expected
    assert leftovers(directory) == []


def test_fewer_checkpoints_than_before_are_kept_if_asked(directory):
    """Asked for fewer, the surplus goes at the next save."""
    for step in (1, 2, 3):
        save(directory, step, keep_last=3)

    save(directory, 4, keep_last=1)

    assert checkpoints(directory) == [4]


@pytest.mark.parametrize("keep_last", [1, 2])
def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(directory, config, keep_last):
    """It is passed over with a notice; once the run has saved anew, only good ones are kept."""
    save(directory, 4, keep_last=2, value=4.0)
    save(directory, 6, keep_last=2, value=6.0)
    damaged = config.output / "state" / "step-00000006.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-5])
    notices = []

    progress, tensors = directory.load(notices.append)
    save(directory, 5, keep_last, value=5.0)

    assert progress == {"step": 4}
    assert tensors["net.x"].tolist() == [4.0] * 3
    (notice,) = notices
    assert notice.startswith("step-00000006.safetensors cannot be read and is passed over: ")
    assert "\n" not in notice
    assert checkpoints(directory) == [4, 5][-keep_last:]
    assert directory.load(pytest.fail)[0] == {"step": 5}


@pytest.mark.parametrize(
    "content",
    [b"", b"x", b"\0" * 500, None],
    ids=["empty", "garbage", "zeros", "foreign"],
)
def test_without_a_readable_checkpoint_there_is_no_run(directory, config, content):
    """When every checkpoint is damaged, or none is ours, it is one line naming the folder."""
    path = config.output / "state" / "step-00000001.safetensors"
    if content is None:
        weights.write_tensors(path, {"a": torch.zeros(1)}, {})
    else:
        path.write_bytes(content)
    notices = []

    with pytest.raises(DataError) as caught:
        directory.load(notices.append)

    assert str(caught.value) == (
        f"--resume {config.output}: no checkpoint in {config.output / 'state'} can be read; "
        "give another run directory, or start again with another --output"
    )
    assert len(notices) == 1
    assert "\n" not in notices[0]


def test_a_checkpoint_that_cannot_be_written_leaves_the_older_ones(directory, config, monkeypatch):
    """On a full disk the save is one line, nothing unfinished stays, and no checkpoint goes."""
    for step in (1, 2):
        save(directory, step, keep_last=2)
    monkeypatch.setattr(weights, "save_file", no_room)

    with pytest.raises(OutputError) as caught:
        save(directory, 3, keep_last=1)

    assert str(caught.value) == (
        f"cannot write the checkpoint in {config.output}: cannot write "
        f"{config.output / 'state' / 'step-00000003.safetensors'}: No space left on device; "
        "make room or give another --output"
    )
    assert checkpoints(directory) == [1, 2]
    assert leftovers(directory) == []


def test_weights_that_cannot_be_written_leave_the_older_ones(
    directory, config, tiny_config, monkeypatch
):
    """The weights that were there stay whole."""
    directory.save_weights({"x": torch.zeros(1)}, tiny_config, {"steps": 1})
    before = directory.weights.read_bytes()
    monkeypatch.setattr(weights, "save_file", no_room)

    with pytest.raises(OutputError) as caught:
        directory.save_weights({"x": torch.ones(1)}, tiny_config, {"steps": 2})

    assert str(caught.value) == (
        f"cannot write the weights in {config.output}: cannot write {directory.weights}: "
        "No space left on device; make room or give another --output"
    )
    assert directory.weights.read_bytes() == before
    assert leftovers(directory) == []


FILLING = """
import resource, signal, sys
from pathlib import Path
import torch
from srcli.errors import OutputError
from srcli.training.run_directory import RunDirectory

resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
directory = RunDirectory(Path(sys.argv[1]))
directory.save(2, {"net.x": torch.zeros(100)}, {"step": 2}, keep_last=1)
try:
    directory.save(3, {"net.x": torch.zeros(100_000)}, {"step": 3}, keep_last=1)
except OutputError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs resource limits")
def test_a_real_write_that_fails_half_way_leaves_the_older_checkpoint(directory, config):
    """When the system stops a file from growing, the save fails whole in a line of ours."""
    done = subprocess.run(
        [sys.executable, "-c", FILLING, config.output],
        capture_output=True,
        check=True,
        encoding="utf-8",
        env=os.environ | {"PYTHONPATH": str(Path(srcli.__file__).parents[1])},
    )

    assert done.stdout.startswith(f"cannot write the checkpoint in {config.output}: ")
    assert done.stdout.endswith("; make room or give another --output\n")
    assert done.stdout.count("\n") == 1
    assert checkpoints(directory) == [2]
    assert leftovers(directory) == []
    assert directory.load(pytest.fail)[0] == {"step": 2}


def test_unreadable_images_are_listed(directory, config, monkeypatch):
    """skipped.txt holds one line an image, those of the stretches before included."""
    path = config.output / "skipped.txt"
    directory.skipped(["b.png: no image", "a.png: cut"])
    assert path.read_text(encoding="utf-8") == "a.png: cut\nb.png: no image\n"

    directory.skipped(["b.png: no image", "c.png: cut"])
    assert path.read_text(encoding="utf-8") == "a.png: cut\nb.png: no image\nc.png: cut\n"
    monkeypatch.setattr(runs, "replacing", no_room)
    with pytest.raises(OutputError, match=r"^cannot write skipped\.txt in .*: No space left"):
        directory.skipped([])


def test_options_are_read_where_the_run_lies_now(directory, config, tmp_path):
    """The options of a run that was moved name the folder that it was moved to."""
    save(directory, 1)
    assert load_options(config.output) == config

    config.output.rename(tmp_path / "moved")

    assert load_options(tmp_path / "moved") == dataclasses.replace(
        config, output=tmp_path / "moved"
    )


@pytest.mark.parametrize("begun", [False, True], ids=["empty folder", "never saved"])
def test_resuming_needs_a_state(config, tmp_path, begun):
    """A folder without a checkpoint is no run that could be continued."""
    folder = config.output if begun else tmp_path
    if begun:
        RunDirectory(folder).begin(config)

    with pytest.raises(DataError) as caught:
        load_options(folder)

    assert str(caught.value) == (
        f"--resume {folder}: there is no state to resume (state/step-N.safetensors is missing); "
        "give a run directory of srcli train"
    )


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        lambda path: path.write_text("", encoding="utf-8"),
        lambda path: path.write_text(path.read_text(encoding="utf-8")[:-30], encoding="utf-8"),
        lambda path: path.write_text("[]", encoding="utf-8"),
        lambda path: path.write_text('{"steps": 3}', encoding="utf-8"),
        lambda path: path.write_text('{"train": {"epochs": 3}}', encoding="utf-8"),
        lambda path: path.write_bytes(b"\xff\xfe"),
        lambda path: (path.unlink(), path.mkdir()),
    ],
    ids=["missing", "empty", "cut", "list", "poor", "foreign", "binary", "folder"],
)
def test_damaged_options_are_one_line(directory, config, damage):
    """Options that cannot be read name the directory, the reason and the way out."""
    save(directory, 1)
    damage(config.output / "options.json")

    with pytest.raises(DataError) as caught:
        load_options(config.output)

    text = str(caught.value)
    assert text.startswith(f"--resume {config.output}: options.json cannot be used: ")
    assert text.endswith("; give the run directory of a run of this version")
    assert "\n" not in text


def test_an_option_of_another_kind_is_named(directory, config):
    """A file that someone edited by hand says which option is wrong."""
    save(directory, 1)
    path = config.output / "options.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(values | {"loss": "l3"}), encoding="utf-8")

    with pytest.raises(DataError, match=r": options\.json cannot be used: loss must be one of "):
        load_options(config.output)


@pytest.fixture
def drawn(directory, monkeypatch):
    """What ``draw_curves`` hands to the plots for the log that it finds."""

    def draw(*rows):
        for one in rows:
            directory.log(one)
        calls = []
        monkeypatch.setattr(runs.plots, "curves", lambda *a, **k: calls.append((a, k)))
        directory.draw_curves("mse")
        ((path, panels), named) = calls[0]
        assert path == directory.path / "curves.png"
        assert named == {"title": "one"}
        return {
            (panel, curve.label): (curve.x, curve.y)
            for panel, curves in panels.items()
            for curve in curves
        }

    return draw


def test_curves_show_both_losses_and_accuracies(drawn):
    """Training values are means between evaluations, weighted by their steps."""
    curves = drawn(
        row(1, epoch=0.1, loss=1.0, accuracy=0.5),
        row(10, epoch=1.0, loss=0.4, accuracy=0.7, **SCORED),
        row(20, epoch=2.0, loss=0.2, accuracy=0.8, **(SCORED | {"eval_loss": 0.3})),
    )

    assert list(curves) == [
        ("loss (mse)", "training"),
        ("loss (mse)", "evaluation"),
        ("accuracy", "training"),
        ("accuracy", "evaluation"),
        ("PSNR, dB", "evaluation"),
        ("PSNR, dB", "bicubic"),
    ]
    x, y = curves["loss (mse)", "training"]
    assert x == [1.0, 2.0]
    assert y == pytest.approx([(1.0 + 9 * 0.4) / 10, 0.2])
    assert curves["loss (mse)", "evaluation"] == ([1.0, 2.0], [0.08, 0.3])
    assert curves["accuracy", "training"][1] == pytest.approx([(0.5 + 9 * 0.7) / 10, 0.8])
    assert curves["PSNR, dB", "bicubic"] == ([1.0, 2.0], [29.5, 29.5])


def test_curves_without_an_evaluation_show_every_line(drawn):
    """A run of one image has training curves alone."""
    curves = drawn(row(1, epoch=1, loss=0.4), row(3, epoch=3, loss=0.2))

    assert curves["loss (mse)", "training"] == ([1.0, 3.0], [0.4, 0.2])
    assert curves["loss (mse)", "evaluation"] == ([], [])


def test_curves_are_a_picture(directory, config):
    """The curves of a log are a PNG wide enough to read."""
    directory.log(row(1))
    directory.log(row(2, loss=math.nan, **SCORED))

    directory.draw_curves("l1")

    with Image.open(config.output / "curves.png") as picture:
        assert picture.format == "PNG"
        assert picture.width >= 1024
        assert 300 <= picture.height <= picture.width


def test_curves_that_cannot_be_written_are_one_line(directory, monkeypatch):
    """A full disk at the last picture is an error like any other."""
    monkeypatch.setattr("srcli.training.curves.replacing", no_room)
    directory.log(row(1))

    with pytest.raises(OutputError, match="No space left on device") as caught:
        directory.draw_curves("l1")

    assert "\n" not in str(caught.value)


def test_the_weights_say_how_they_were_made(directory, tiny_config):
    """The record given to the weights is in their header."""
    directory.save_weights({"x": torch.zeros(1)}, tiny_config, {"steps": 4, "scales": [3.0]})

    header = weights.read_header(directory.weights)

    assert (header.config, header.training) == (tiny_config, {"steps": 4, "scales": [3.0]})
