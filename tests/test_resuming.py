"""A run may be stopped, killed or refused at any moment; resumed, it ends as if it had not been."""

import csv
import dataclasses
import itertools
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import srcli
from srcli.cli.app import app
from srcli.errors import DataError
from srcli.files import TEMPORARY_SUFFIX
from srcli.model import weights
from srcli.ops.degradation import Degradation
from srcli.training import trainer as training
from srcli.training.config import CHANGEABLE, TrainConfig, option_of
from srcli.training.run_directory import load_options
from srcli.training.trainer import train

STEPS = 10

KINDS = {
    "area": {"sampling": "area", "eval_every": 3},
    "epoch": {"sampling": "epoch", "eval_every": None, "loss": "mse", "augment": "none"},
}
"""How the recipes draw their images. Evaluations are at 3, 6, 9, 10, and at every second step."""


def hasten(patch):
    """Log at steps 1, 4, 8 besides evaluations; draw no pictures, most of a short run's time."""
    patch.setattr(training, "_LOG_EVERY", 4)
    for name in ("curves", "samples"):
        patch.setattr(f"srcli.training.curves.{name}", lambda *_, **__: None)


@pytest.fixture(autouse=True)
def _hasty(monkeypatch):
    """Log often and draw nothing."""
    hasten(monkeypatch)


@pytest.fixture(scope="module")
def make(image_folder, tiny_config):
    """Return a function that makes the options of a short run of every kind of work."""

    def options(output, kind="area", **changes):
        values = {
            "output": output,
            "datasets": (str(image_folder),),
            "data_dir": output.parent,
            "model": tiny_config,
            "scales": (2.0, 3.0),
            "degradation": Degradation.parse("blur=0..1,noise=0..5,jpeg=50..95"),
            "batch_size": 4,
            "steps": STEPS,
            "warmup": 3,
            "lr": 3e-3,
            "ema": 0.99,
            "clip": 0.05,
            "schedule": "cosine",
            "save_every": 5,
            "device": "cpu",
            "dtype": "fp32",
            "workers": 1,
        }
        return TrainConfig(**(values | KINDS[kind] | changes))

    return options


@pytest.fixture(scope="module")
def whole(make, tmp_path_factory):
    """Runs that were never stopped, one of each kind."""
    with pytest.MonkeyPatch.context() as patch:
        hasten(patch)
        runs = {kind: make(tmp_path_factory.mktemp("whole") / kind, kind) for kind in KINDS}
        for config in runs.values():
            train(config)
    return {kind: config.output for kind, config in runs.items()}


def after(steps):
    """Ask a run to stop after so many steps."""
    count = itertools.count(1)
    return lambda: next(count) >= steps


def log_of(run):
    """Read the log without the column that tells the time."""
    with (run / "log.csv").open(newline="", encoding="utf-8") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def tensors_of(path):
    """Read the tensors of a safetensors file."""
    return weights.read_tensors(path)[1]


def newest(run):
    """Find the newest checkpoint."""
    return max((run / "state").glob("step-*.safetensors"))


def steps_of(run):
    """List the steps that there are checkpoints of."""
    return sorted(int(path.stem[5:]) for path in (run / "state").iterdir())


def content(run):
    """Read every file of a run; of tensors the values, for their header has no fixed order."""
    return {str(path.relative_to(run)): told(path) for path in run.rglob("*") if path.is_file()}


def told(path):
    """Tell what a file says, in a form that can be compared."""
    if path.suffix != ".safetensors":
        return path.read_bytes()
    metadata, tensors = weights.read_tensors(path)
    return metadata, {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}


def check_same(run, other):
    """Check that two runs ended alike: weights, state and log, and no file more or less."""
    for name in ("model.safetensors", f"state/{newest(other).name}"):
        found, expected = tensors_of(run / name), tensors_of(other / name)
        assert found.keys() == expected.keys()
        assert [key for key in found if not torch.equal(found[key], expected[key])] == []
    assert log_of(run) == log_of(other)
    assert not list(run.rglob(f"*{TEMPORARY_SUFFIX}"))
    made = {path.name for path in run.iterdir() if path.suffix != ".png"}
    assert made == {"log.csv", "model.safetensors", "options.json", "state"}


# Stopped and resumed


@pytest.mark.parametrize("kind", KINDS)
def test_the_undisturbed_run_has_what_a_stop_may_fall_on(whole, kind):
    """Lines, evaluations and saves fall on different steps, so that a stop meets all of them."""
    rows = log_of(whole[kind])
    evaluated = [int(row["step"]) for row in rows if row["eval_loss"]]

    assert evaluated == ([3, 6, 9, 10] if kind == "area" else [2, 4, 6, 8, 10])
    alone = {int(row["step"]) for row in rows} - set(evaluated)
    assert alone == ({1, 4, 8} if kind == "area" else {1})
    assert steps_of(whole[kind]) == [5, 10]


@pytest.mark.parametrize(
    ("kind", "stop"),
    [*(("area", stop) for stop in range(1, STEPS)), *(("epoch", stop) for stop in (1, 2, 5, 7, 8))],
)
def test_a_run_stopped_anywhere_ends_like_an_undisturbed_one(make, whole, tmp_path, kind, stop):
    """Weights, state and log are the same to the last bit, wherever the stop falls."""
    config = make(tmp_path / "run", kind)

    stopped = train(config, should_stop=after(stop))
    report = train(load_options(config.output), resume=True)

    assert (stopped.step, stopped.finished) == (stop, False)
    assert (report.step, report.finished) == (STEPS, True)
    assert report.seconds > stopped.seconds
    check_same(config.output, whole[kind])


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_resumed_at_every_step_ends_like_an_undisturbed_one(make, whole, tmp_path, kind):
    """One step at a time, as many stretches as steps, is the same run."""
    config = make(tmp_path / "run", kind, keep_last=3)

    steps = [
        train(config, resume=stretch > 0, should_stop=after(1)).step for stretch in range(STEPS)
    ]

    assert steps == list(range(1, STEPS + 1))
    assert steps_of(config.output) == [8, 9, 10]
    check_same(config.output, whole[kind])


@pytest.mark.parametrize("stop", [3, 4])
def test_a_stopped_run_holds_only_what_has_been(make, whole, tmp_path, stop):
    """The log of a stopped run is the beginning of the undisturbed one's; its weights load."""
    config = make(tmp_path / "run")

    train(config, should_stop=after(stop))

    expected = [row for row in log_of(whole["area"]) if int(row["step"]) <= stop]
    assert log_of(config.output) == expected
    assert steps_of(config.output) == [stop]
    _, header = weights.load(config.output / "model.safetensors")
    assert header.training["steps"] == stop


def test_a_finished_run_resumed_changes_nothing(make, tmp_path, monkeypatch):
    """No file says anything else afterwards, pictures included; no step is taken."""
    monkeypatch.undo()  # here pictures are drawn
    config = make(tmp_path / "run", steps=3)
    first = train(config)
    before = content(config.output)
    progress = []

    report = train(load_options(config.output), resume=True, on_progress=progress.append)

    assert content(config.output) == before
    assert {"curves.png", "samples.png", "model.safetensors"} <= before.keys()
    assert progress == []
    assert (report.step, report.finished, report.loss) == (3, True, None)
    assert report.seconds == first.seconds


def test_a_run_can_be_moved(make, whole, tmp_path):
    """A run is continued where its directory is now, not where it began."""
    config = make(tmp_path / "run")
    train(config, should_stop=after(2))
    moved = tmp_path / "deeper" / "moved"
    moved.parent.mkdir()
    config.output.rename(moved)

    report = train(load_options(moved), resume=True)

    assert report.output == str(moved)
    assert not config.output.exists()
    check_same(moved, whole["area"])


def test_the_weights_to_start_from_are_needed_once(make, tiny_weights, tmp_path):
    """A run that began from weights goes on without their file."""
    start = tmp_path / "start.safetensors"
    shutil.copy(tiny_weights, start)
    config = make(tmp_path / "run", init_from=start)
    other = make(tmp_path / "other", init_from=start)
    train(other)
    train(config, should_stop=after(2))
    start.unlink()

    train(load_options(config.output), resume=True)

    check_same(config.output, other.output)
    header = weights.read_header(config.output / "model.safetensors")
    assert header.training["init_from"] == "start.safetensors"
    assert header.training["origin"] == weights.read_header(tiny_weights).training


def test_saving_otherwise_changes_nothing_else(make, whole, tmp_path):
    """What a resumed run may have otherwise leaves its weights and its log as they were."""
    config = make(tmp_path / "run")
    train(config, should_stop=after(4))
    changes = {"save_every": 2, "keep_last": 3, "workers": 2, "data_dir": tmp_path / "x"}

    train(dataclasses.replace(config, **changes), resume=True)

    assert changes.keys() < CHANGEABLE
    assert steps_of(config.output) == [6, 8, 10]
    check_same(config.output, whole["area"])


# Damaged


@pytest.mark.parametrize("damage", ["cut", "empty", "garbage"])
def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(make, whole, tmp_path, damage):
    """The one before is used, which a notice tells, and the run still ends as it should."""
    config = make(tmp_path / "run", save_every=3, keep_last=2)
    train(config, should_stop=after(7))
    assert steps_of(config.output) == [6, 7]
    path = newest(config.output)
    path.write_bytes({"cut": path.read_bytes()[:-100], "empty": b"", "garbage": b"x" * 99}[damage])
    told = []

    train(load_options(config.output), resume=True, on_message=told.append)

    (notice,) = told
    assert notice.startswith("step-00000007.safetensors cannot be read and is passed over: ")
    assert steps_of(config.output) == [9, 10]
    check_same(config.output, whole["area"])


def test_a_damaged_checkpoint_never_outlives_the_good_ones(make, tmp_path):
    """Where one checkpoint is kept, the next save keeps the new one and not the damaged one."""
    config = make(tmp_path / "run", keep_last=2)
    train(config, should_stop=after(7))
    newest(config.output).write_bytes(b"x")
    again = dataclasses.replace(config, keep_last=1)

    report = train(again, resume=True, should_stop=after(1))

    assert report.step == 6
    assert steps_of(config.output) == [6]
    assert train(again, resume=True, on_message=pytest.fail).finished


def another_net(run):
    """Ask for another net than the state is of, and for none that is too large to make."""
    path = run / "options.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    values["model"]["widths"] = [4, 4]
    path.write_text(json.dumps(values), encoding="utf-8")


def poor_state(run):
    """Leave out of the state what it needs."""
    weights.write_tensors(
        newest(run), {"net.head.bias": torch.zeros(1)}, {"progress": '{"step": 1, "seconds": 1}'}
    )


def no_clock(run):
    """Leave out of the progress what it needs."""
    weights.write_tensors(newest(run), tensors_of(newest(run)), {"progress": '{"step": 1}'})


@pytest.mark.parametrize("damage", [another_net, poor_state, no_clock])
def test_a_state_of_another_run_is_one_line(make, tmp_path, damage):
    """A state that does not fit the options is named, with the reason and the way out."""
    config = make(tmp_path / "run")
    train(config, should_stop=after(1))
    log = (config.output / "log.csv").read_bytes()
    damage(config.output)

    with pytest.raises(DataError) as caught:
        train(load_options(config.output), resume=True)

    text = str(caught.value)
    assert text.startswith(f"the state in {config.output} cannot be resumed: ")
    assert text.endswith("; start again with another --output")
    assert "\n" not in text
    assert "Error(s) in loading" not in text
    assert (config.output / "log.csv").read_bytes() == log


# Killed: real processes, real signals

NURSERY = '''
"""Start runs of the command line without importing torch for each: a fork is one of its own."""
import json, os, signal, sys
from pathlib import Path
import torch
from srcli.cli import app as cli
from srcli.model import weights
from srcli.training import curves as plots, trainer as training
from srcli.training.run_directory import RunDirectory

torch.optim.Adam([torch.zeros(1, requires_grad=True)])  # imports much that would be late
training._LOG_EVERY = 4
plots.curves = plots.samples = lambda *_, **__: None
MOMENTS = {
    "step": (training, "optimise"),
    "write": (weights, "save_file"),
    "rename": (Path, "replace"),
    "remove": (Path, "unlink"),
    "log": (RunDirectory, "log"),
    "take up": (RunDirectory, "take_up"),
    "draw": (RunDirectory, "draw_curves"),
}


def strike(name, count, number):
    """Send the process a signal at its count-th call of something."""
    owner, attribute = MOMENTS[name]
    original = getattr(owner, attribute)

    def struck(*arguments, **named):
        nonlocal count
        count -= 1
        if count:
            return original(*arguments, **named)
        if name == "write":  # half a file is there when it dies
            original(*arguments, **named)
            os.truncate(arguments[1], os.path.getsize(arguments[1]) // 2)
        os.kill(os.getpid(), number)
        return original(*arguments, **named)

    setattr(owner, attribute, struck)


for line in sys.stdin:
    order = json.loads(line)
    child = os.fork()
    if not child:
        output = os.open(order["said"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        if order["moment"]:
            strike(*order["moment"])
        sys.argv = ["srcli", *order["arguments"]]
        code = 99
        try:
            cli.main()
        except SystemExit as end:
            code = end.code or 0
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
'''


class Nursery:
    """Starts runs as processes and tells how they ended; ``process`` forks them."""

    def __init__(self, process, said):
        self.process, self._said = process, said

    def start(self, *arguments, moment=None):
        """Start a run; return the number of its process."""
        order = {
            "arguments": [str(one) for one in arguments],
            "moment": moment,
            "said": str(self._said),
        }
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def end(self):
        """Wait for the run to end: its exit code, below zero for a signal, and what it said."""
        code = int(self.process.stdout.readline())
        return code, self._said.read_text(encoding="utf-8")

    def run(self, *arguments, moment=None):
        """Start a run and wait for its end."""
        self.start(*arguments, moment=moment)
        return self.end()


@pytest.fixture(scope="module")
def nursery(tmp_path_factory):
    """A process that starts runs."""
    if not hasattr(os, "fork"):
        pytest.skip("needs processes that fork")
    process = subprocess.Popen(
        [sys.executable, "-c", NURSERY],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
        # As many threads as the undisturbed run has: sums of other parts have other last bits.
        env=os.environ
        | {"PYTHONPATH": str(Path(srcli.__file__).parents[1]), "OMP_NUM_THREADS": "1"},
    )
    with process:
        yield Nursery(process, tmp_path_factory.mktemp("nursery") / "said.txt")
        process.stdin.close()


@pytest.fixture
def command(tmp_path, image_folder, tiny_config):
    """The command line of the undisturbed run of the kind "area", in a folder of its own."""
    (tmp_path / "tiny.json").write_text(tiny_config.to_json(), encoding="utf-8")
    return [
        *("train", "--dataset", image_folder, "--set", f"model={tmp_path / 'tiny.json'}"),
        *("--scale", 2, "--scale", 3, "--degradation", "blur=0..1,noise=0..5,jpeg=50..95"),
        *("--batch-size", 4, "--steps", STEPS, "--set", "warmup=3", "--lr", 3e-3),
        *("--set", "ema=0.99", "--set", "eval_every=3", "--set", "save_every=5"),
        *("--device", "cpu", "--dtype", "fp32", "--set", "workers=1"),
        *("--threads", 1, "--output", tmp_path / "run"),
    ]


def saving(command):
    """Let the command line save at every step."""
    return ["save_every=1" if part == "save_every=5" else part for part in command]


@pytest.mark.parametrize(
    ("number", "step"), [(signal.SIGINT, 1), (signal.SIGTERM, 4)], ids=["SIGINT", "SIGTERM"]
)
def test_a_signal_saves_at_the_next_step(nursery, command, whole, number, step):
    """The run ends with the signal's exit code and says how to go on; so it does, to the bit."""
    run = command[-1]

    ended, said = nursery.run(*command, moment=["step", step, int(number)])

    assert ended == 128 + number
    assert said == (f"interrupted at step {step}; continue with: srcli train --resume {run}\n")
    assert steps_of(run) == [step]
    assert nursery.run("train", "--resume", run, "--quiet") == (0, "")
    check_same(run, whole["area"])


MOMENTS = [
    *[["write", count] for count in (1, 2, 3, 4)],
    *[["rename", count] for count in (1, 2, 3, 5)],
    *[["remove", count] for count in (2, 5)],
    *[["log", count] for count in (1, 2)],
    *[["step", count] for count in (1, 2)],
    *[["take up", 1], ["draw", 1]],
]
"""When a process kills itself, one after the other until the run is done. Every save writes and
renames the state, then the weights; the third ``remove`` is that of an old checkpoint."""


def test_a_run_killed_at_any_moment_ends_like_an_undisturbed_one(nursery, command, whole, tmp_path):
    """Killed amid writing, renaming, removing, logging and drawing, over and over, it recovers."""
    run, told = tmp_path / "run", []
    for moment in MOMENTS:
        begun = (run / "state").exists() and any(run.glob("state/*.safetensors"))
        order = ["train", "--resume", run, "--set", "save_every=1"] if begun else saving(command)
        ended, said = nursery.run(*order, moment=[*moment, int(signal.SIGKILL)])
        assert ended in (-signal.SIGKILL, 0), said
        told.append(ended)
        if begun:
            assert int(newest(run).stem[5:]) <= STEPS

    assert nursery.run("train", "--resume", run, "--quiet") == (0, "")

    assert told.count(-signal.SIGKILL) > len(MOMENTS) // 2
    check_same(run, whole["area"])


def test_a_run_killed_at_random_ends_like_an_undisturbed_one(nursery, command, whole, tmp_path):
    """From outside, whenever it happens to be, with a checkpoint at every step."""
    run = tmp_path / "run"
    order = [*saving(command), "--set", "keep_last=1"]
    for _ in range(4):
        process = nursery.start(*order)
        with suppress(ProcessLookupError):  # it may have come to its end
            wait_for(lambda: any(run.glob("state/step-*")), process)
            time.sleep(random.uniform(0, 0.1))  # noqa: S311 - any moment will do
            os.kill(process, signal.SIGKILL)
        ended, said = nursery.end()
        assert ended in {-signal.SIGKILL, 0}, said
        assert any(run.glob("state/step-*"))
        order = ["train", "--resume", run, "--set", "save_every=1", "--set", "keep_last=1"]

    assert nursery.run("train", "--resume", run, "--quiet", "--set", "keep_last=1") == (0, "")

    assert steps_of(run) == [STEPS]
    check_same(run, whole["area"])


def wait_for(condition, process):
    """Wait for something that a process does, a minute at most."""
    deadline = time.monotonic() + 60
    while not condition():
        os.kill(process, 0)
        assert time.monotonic() < deadline
        time.sleep(0.002)


# Other options


def invoke(*arguments):
    """Run a command line in this process; an error that is not ours fails the test."""
    return CliRunner().invoke(app, [str(one) for one in arguments], catch_exceptions=False)


OTHERWISE = {
    "datasets": ["--dataset", "stl10"],
    "recipe": ["--recipe", "paper"],
    "model": ["--set", "model=base"],
    "scales": ["--scale", "4"],
    "degradation": ["--degradation", "bicubic"],
    "batch_size": ["--batch-size", "5"],
    "optimizer": ["--set", "optimizer=adam"],
    "lr": ["--lr", "0.1"],
    "weight_decay": ["--set", "weight_decay=0.1"],
    "warmup": ["--set", "warmup=4"],
    "schedule": ["--set", "schedule=constant"],
    "loss": ["--set", "loss=mse"],
    "clip": ["--set", "clip=0"],
    "ema": ["--set", "ema=0"],
    "steps": ["--steps", "11"],
    "epochs": ["--epochs", "1"],
    "max_seconds": ["--max-time", "9m"],
    "seed": ["--seed", "1"],
    "split": ["--set", "split=paper"],
    "eval_images": ["--set", "eval_images=1"],
    "eval_every": ["--set", "eval_every=4"],
    "init_from": ["--init-from", "base"],
    "augment": ["--set", "augment=mirror"],
    "limit": ["--set", "limit=3"],
    "compile": ["--set", "compile=true"],
    "balanced": ["--set", "balanced=false"],
    "sampling": ["--set", "sampling=epoch"],
    "dtype": ["--dtype", "bf16"],
}
"""Options that would make another run, by the field that they set."""

NOT_OPTIONS = {"processes"}
"""What follows from ``torchrun``."""


@pytest.fixture(scope="module")
def stopped(make, tmp_path_factory):
    """A run that was stopped after its first step; to look at only."""
    config = make(tmp_path_factory.mktemp("stopped") / "run")
    with pytest.MonkeyPatch.context() as patch:
        hasten(patch)
        train(config, should_stop=after(1))
    return config.output


def test_every_option_may_change_or_is_refused():
    """No option is forgotten: each is known to change the run, or not to."""
    names = {field.name for field in dataclasses.fields(TrainConfig)}

    assert names == OTHERWISE.keys() | CHANGEABLE | NOT_OPTIONS


@pytest.mark.parametrize("name", OTHERWISE)
def test_an_option_that_would_change_the_run_is_refused(stopped, name):
    """It is named with what the run was begun with, and nothing is touched."""
    before = content(stopped)

    result = invoke("train", "--resume", stopped, *OTHERWISE[name])

    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(
        f"error: {option_of(name)} would change the run in {stopped}, which was begun with "
    )
    assert result.stderr.count("\n") == 1
    assert content(stopped) == before


def test_the_same_options_are_accepted(command, stopped, whole, tmp_path):
    """A command line that repeats what the run was begun with resumes it, saving otherwise."""
    run = shutil.copytree(stopped, tmp_path / "run")
    otherwise = {"save_every=5": "save_every=4", "workers=1": "workers=2"}
    command = [otherwise.get(part, part) for part in command]
    more = ("--set", "keep_last=1", "--data-dir", tmp_path / "sets", "--set", "clip=0.05")

    result = invoke(*command, "--resume", run, *more, "--recipe", "base")

    assert (result.exit_code, result.stdout) == (0, "")
    assert re.match(rf"{re.escape(str(run))}/model\.safetensors: 10 steps, ", result.stderr)
    assert steps_of(run) == [10]
    check_same(run, whole["area"])


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (lambda run: shutil.rmtree(run / "state"), "there is no state to resume"),
        (lambda run: (run / "options.json").unlink(), "options.json cannot be used: "),
        (
            lambda run: (run / "options.json").write_text('{"epochs": 1}', encoding="utf-8"),
            "options.json cannot be used: it lacks, or has besides what is known: ",
        ),
        (lambda run: newest(run).write_bytes(b""), "no checkpoint in "),
        (another_net, " cannot be resumed: "),
    ],
    ids=["no state", "no options", "foreign", "damaged", "another net"],
)
def test_what_is_no_run_is_one_line(stopped, tmp_path, damage, text):
    """A directory that cannot be resumed is named on one line, with exit code 4."""
    run = shutil.copytree(stopped, tmp_path / "run")
    damage(run)

    result = invoke("train", "--resume", run)

    assert (result.exit_code, result.stdout) == (4, "")
    lines = result.stderr.splitlines()
    assert lines[-1].startswith("error: ")
    assert text in lines[-1]
    assert str(run) in lines[-1]
    assert all(line.startswith("warning: step-00000001.safetensors") for line in lines[:-1])
