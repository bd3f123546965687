"""A run may be stopped anywhere; resumed, it ends as if it had not been. Damage is one line."""

import itertools
import json
import re
import shutil

import pytest
from command_runs import run

from srcli.model import weights
from srcli.training.run_directory import load_options
from srcli.training.trainer import train

STEPS = 10


@pytest.fixture(autouse=True)
def _hasty(monkeypatch, resumable):
    """Log at steps 1, 4, 8 besides evaluations, and draw nothing."""
    resumable.hasten(monkeypatch)


def after(steps):
    """Ask a run to stop after so many steps."""
    count = itertools.count(1)
    return lambda: next(count) >= steps


def content(run):
    """Read every file of a run; of tensors the values, for their header has no fixed order."""
    return {str(path.relative_to(run)): read(path) for path in run.rglob("*") if path.is_file()}


def read(path):
    """Read a file in a form that can be compared."""
    if path.suffix != ".safetensors":
        return path.read_bytes()
    metadata, tensors = weights.read_tensors(path)
    return metadata, {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}


@pytest.mark.parametrize(
    ("kind", "stop"), [("area", 3), ("area", 4), ("area", 5), ("epoch", 7), ("adversary", 4)]
)
def test_a_run_stopped_anywhere_ends_like_an_undisturbed_one(
    resumable, undisturbed, tmp_path, kind, stop
):
    """Weights, state and log are the same to the last bit, wherever the stop falls."""
    config = resumable.options(tmp_path / "run", kind)

    stopped = train(config, should_stop=after(stop))
    resumable.check_beginning(config.output, undisturbed[kind], stop)
    report = train(load_options(config.output), resume=True)

    assert (stopped.step, stopped.finished) == (stop, False)
    assert (report.step, report.finished) == (STEPS, True)
    assert report.seconds > stopped.seconds
    resumable.check_same(config.output, undisturbed[kind])


def test_a_finished_run_resumed_changes_nothing(finished, tmp_path, monkeypatch):
    """No file says anything else afterwards, pictures included; no step is taken."""
    monkeypatch.undo()  # here pictures are drawn
    run = shutil.copytree(finished.config.output, tmp_path / finished.config.output.name)
    before = content(run)
    progress = []

    report = train(load_options(run), resume=True, on_progress=progress.append)

    assert content(run) == before
    assert {"curves.png", "samples.png", "model.safetensors"} <= before.keys()
    assert progress == []
    assert (report.step, report.finished, report.loss) == (60, True, None)
    assert report.seconds == finished.report.seconds
    assert report.output == str(run), "a run can be moved"


def test_the_weights_to_start_from_are_needed_once(resumable, saved_run, tiny_weights, tmp_path):
    """A run that began from weights continues without their file."""
    start = tmp_path / "start.safetensors"
    shutil.copy(tiny_weights, start)
    config = resumable.options(tmp_path / "run", init_from=start)
    train(config, should_stop=after(2))
    start.unlink()

    report = train(load_options(config.output), resume=True, should_stop=after(1))

    assert report.step == 3
    record = saved_run(config.output).header.training
    assert record["init_from"] == "start.safetensors"
    assert record["origin"] == weights.read_header(tiny_weights).training


def change_options(saved, **changes):
    """Write other options."""
    path = saved.path / "options.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    changes["model"] = values["model"] | changes.get("model", {})
    path.write_text(json.dumps(values | changes), encoding="utf-8")


def change_state(saved, state, progress):
    """Write another checkpoint in place of the newest."""
    weights.write_tensors(saved.newest, state, {"progress": progress})


@pytest.fixture
def stopped_copy(stopped, saved_run, tmp_path):
    """A copy of a run that was stopped after its first step, to be damaged."""
    return saved_run(shutil.copytree(stopped, tmp_path / "run"))


@pytest.fixture(scope="module")
def stopped(resumable, tmp_path_factory):
    """A run that was stopped after its first step; to look at only."""
    config = resumable.options(tmp_path_factory.mktemp("stopped") / "run")
    with pytest.MonkeyPatch.context() as patch:
        resumable.hasten(patch)
        train(config, should_stop=after(1))
    return config.output


@pytest.mark.parametrize(
    "otherwise",
    [
        *("--recipe paper", "--scale 4", "--degradation bicubic"),
        *("--model base", "--init-from base", "--output elsewhere"),
        *("--epochs 1", "--dtype bf16", "--features vgg16.safetensors"),
    ],
)
def test_an_option_that_would_change_the_run_is_refused(stopped, otherwise):
    """It is named with what the run was begun with, and nothing is touched."""
    before = content(stopped)
    option, value = otherwise.split()

    result = run("train", "--resume", stopped, option, value)

    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(
        f"error: {option} would change the run in {stopped}, which was begun with "
    )
    assert result.stderr.count("\n") == 1
    assert content(stopped) == before


def test_the_same_options_are_accepted(resumable, undisturbed, stopped_copy, image_folder):
    """A command line that repeats what the run was begun with resumes it, saving otherwise.

    The images may lie elsewhere.
    """
    path = stopped_copy.path
    otherwise = {"save_every=5": "save_every=4", "workers=1": "workers=2"}
    otherwise[image_folder] = shutil.copytree(image_folder, path.parent / "moved")
    command = [otherwise.get(part, part) for part in resumable.command(path)]
    more = ("--data-dir", path.parent / "sets", "--set", "clip=0.05", "--max-time", "9m")

    result = run(*command, "--resume", path, *more, "--recipe", path / "options.json")

    assert (result.exit_code, result.stdout) == (0, "")
    assert re.match(rf"{re.escape(str(path))}/model\.safetensors: 10 steps, ", result.stderr)
    assert stopped_copy.steps == [8, 10]
    resumable.check_same(path, undisturbed["area"])


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (lambda s: change_options(s, candidates=2), "it has what is not known: candidates; "),
        (lambda s: s.newest.write_bytes(b""), "no checkpoint in "),
        (lambda s: change_options(s, model={"widths": [4, 4]}), " cannot be resumed: "),
        (lambda s: change_state(s, {}, '{"step": 1, "seconds": 1}'), " cannot be resumed: "),
        (lambda s: change_state(s, s.state, '{"step": 1}'), " cannot be resumed: "),
        (lambda s: (s.path / "log.csv").write_bytes(b"a,b\n1,2\n"), "/log.csv cannot be read ("),
        (lambda s: (s.path / "log.csv").write_bytes(b"\xff\n"), "/log.csv cannot be read ("),
    ],
    ids=["option", "damaged", "net", "poor state", "no clock", "foreign log", "no text"],
)
def test_what_cannot_be_resumed_is_one_line(stopped_copy, damage, text):
    """The directory is named with the reason and the way out, exit code 4; the log stays."""
    damage(stopped_copy)
    log = (stopped_copy.path / "log.csv").read_bytes()

    result = run("train", "--resume", stopped_copy.path)

    assert (result.exit_code, result.stdout) == (4, "")
    *warnings, line = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert text in line
    assert str(stopped_copy.path) in line
    assert "Error(s) in loading" not in line
    assert "; give " in line or "; start again with another --output" in line
    assert all(one.startswith("warning: step-00000001.safetensors") for one in warnings)
    assert (stopped_copy.path / "log.csv").read_bytes() == log
