"""Several processes under ``torchrun`` train the net of one: the same curve, reported once."""

import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from run_files import await_that

import srcli
from srcli.errors import UsageError
from srcli.ops.degradation import Degradation
from srcli.training.distributed import join_process_group
from srcli.training.run_directory import RunDirectory, load_options
from srcli.training.trainer import train

STEPS = 10
SHARP = {
    "loss": "l1",
    "optimizer": "adam",
    "adversarial": 0.1,
    "perceptual": 0.5,
    "steps": 4,
    "eval_every": 2,
}
ENVIRONMENT = {"PYTHONPATH": str(Path(srcli.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


@pytest.fixture(scope="module")
def make(tmp_path_factory, run_options, image_folder):
    """Return a function that makes options of eight patches a step and nine evaluation images."""
    pictures = tmp_path_factory.mktemp("pictures")
    for index in range(12):
        shutil.copy(image_folder / f"{index % 6}.png", pictures / f"{index}.png")
    folder = tmp_path_factory.mktemp("runs")

    def options(name, **changes):
        values = {
            "datasets": (str(pictures),),
            "scales": (2.0, 3.0),
            "degradation": Degradation.parse("blur=0..1,noise=0..5,jpeg=50..95"),
            "loss": "fourier",
            "split": "paper",
            "batch_size": 8,
            "steps": STEPS,
            "lr": 3e-3,
            "ema": 0.9,
            "eval_every": 5,
            "eval_images": None,
        }
        return run_options(folder / name, **(values | changes))

    return options


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"RANK": "x"}, "RANK, LOCAL_RANK, WORLD_SIZE cannot be x, 0, 1"),
        ({"RANK": "1"}, "RANK, LOCAL_RANK, WORLD_SIZE cannot be 1, 0, 1"),
        ({"WORLD_SIZE": "2"}, "the 2 processes of WORLD_SIZE cannot find each other: .*"),
    ],
)
def test_what_torchrun_would_not_set_is_one_line(monkeypatch, values, text):
    """Ranks that cannot be, or several processes without a place to meet, are named."""
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in values.items():
        monkeypatch.setenv(name, value)

    with pytest.raises(UsageError) as caught, join_process_group("cpu"):
        pytest.fail("nobody joined")

    assert re.fullmatch(f"{text}[:;] use torchrun", str(caught.value))


# Two processes in a session of their own: they train one run after the other

TWO_PROCESSES = '''
"""Train several runs by two processes, and write down what each of them saw."""
import itertools, json, math, os, signal, sys
from dataclasses import asdict, replace
from pathlib import Path
import torch
from srcli.errors import SrcliError
from srcli.training import trainer
from srcli.training.config import TrainConfig
from srcli.training.distributed import join_process_group
from srcli.training.run_directory import load_options
from srcli.training.trainer import Trainer, train

folder, rank = Path(sys.argv[1]), int(os.environ["RANK"])
trainer._LOG_EVERY = 4
trainer.draw_curves = trainer.draw_samples = lambda *_: None
torch.set_num_threads(1)
seen = {}


def attempt(name, config, **named):
    """Train and note the report, or the error, or that the process ended silently."""
    try:
        seen[name] = asdict(train(config, **named))
    except SrcliError as error:
        seen[name] = {"error": str(error), "code": error.exit_code}
    except SystemExit as end:
        seen[name] = {"silent": end.code}


def after(steps, only=None):
    count = itertools.count(1)
    return lambda: next(count) >= steps and only in (None, rank)


pair, sharp = (
    TrainConfig.from_json((folder / f"{name}.json").read_text()) for name in ("pair", "sharp")
)
attempt("pair", pair)
attempt("sharp", sharp)
parted = replace(pair, output=folder / "parted")
attempt("first part", parted, should_stop=after(5))
attempt("second part", load_options(parted.output), resume=True)
attempt("halved", replace(pair, output=folder / "halved"), should_stop=after(7, only=1))
attempt("refused", pair)
with join_process_group("cpu") as group:
    seen["gathered"] = group.gather([f"{rank}.png", "both.png"])

measure, calls = Trainer._measure, itertools.count(1)
def spoiled(run, batch):
    loss, values = measure(run, batch)
    factor = math.nan if next(calls) == 3 and rank == 1 else 1
    return loss * factor, values | dict(loss=values["loss"] * factor)
Trainer._measure = spoiled
attempt("nan", replace(pair, output=folder / "nan"))
Trainer._measure = measure

def write():
    (folder / f"seen-{rank}.json").write_text(json.dumps(seen))
write()

# The last run: one process is gone without a word.
signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun ends the other one, which has to write
step = Trainer.train_step
def dying(run, batch, lr):
    step(run, batch, lr)
    if run.step == 3 and rank == 1:
        os._exit(77)
Trainer.train_step = dying
attempt("lost", replace(pair, output=folder / "lost", save_every=2))
write()
'''


@pytest.fixture(scope="module")
def pair(make, resumable):
    """Let two processes train every run that the tests look at: their folder, what each saw."""
    folder = make("x").output.parent
    with pytest.MonkeyPatch.context() as patch:
        resumable.hasten(patch)
        for name, changes in (("pair", {}), ("sharp", SHARP)):
            train(make(f"whole_{name}", **changes))
            config = make(name, **(changes | {"batch_size": 4}))
            (folder / f"{name}.json").write_text(config.to_json(), encoding="utf-8")
    (folder / "two_processes.py").write_text(TWO_PROCESSES, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, *TORCHRUN, folder / "two_processes.py", folder],
        capture_output=True,
        check=False,
        encoding="utf-8",
        timeout=300,
        env=os.environ | ENVIRONMENT,
    )
    files = [folder / f"seen-{rank}.json" for rank in range(2)]
    assert all(file.exists() for file in files), done.stderr
    seen = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    assert "find_unused_parameters" not in done.stderr, "the terminal is srcli's"
    return folder, seen


def check_same_curve(run, other, rel=1e-4):
    """Check that two logs say the same, to a share of each value."""
    found, expected = (
        [row | {"seconds": 0} for row in RunDirectory(path, load_options(path)).rows()]
        for path in (run, other)
    )
    assert found == [pytest.approx(row, rel=rel) for row in expected]


@pytest.mark.slow
@pytest.mark.parametrize("run", ["pair", "sharp"])
def test_two_processes_train_the_net_of_one(pair, saved_run, run):
    """Four patches each are the eight of one: the same curve, weights and discriminator."""
    folder, _ = pair
    check_same_curve(folder / run, folder / f"whole_{run}", rel=1e-4 if run == "pair" else 1e-3)

    found = saved_run(folder / run).state
    for name, tensor in saved_run(folder / f"whole_{run}").state.items():
        # Muon may orthogonalise in bf16, and Adam's first steps have the size of the rate whatever
        # the gradient's: single weights may differ by a step, a whole tensor by little.
        distance = (found[name].double() - tensor).norm() / tensor.double().norm().clamp(min=1e-12)
        # An absolute error's gradient is its sign: rounding turns it over where there is little.
        assert distance < (0.1 if name.startswith("optimizer.") else 0.03), name


@pytest.mark.slow
def test_two_processes_write_one_run(pair, saved_run):
    """There is one log, one state and one set of weights, which count everybody's patches."""
    folder, seen = pair
    saved = saved_run(folder / "pair")

    assert [row["step"] for row in saved.log] == ["1", "4", "5", "8", "10"]
    options = load_options(saved.path)
    assert (options.batch_size, options.processes, options.batch) == (4, 2, 8)
    assert saved.header.training["batch_size"] == 8
    assert saved.header.training["patches"] == 80
    first, second = ((one["pair"]["scores"], one["pair"]["seconds"]) for one in seen)
    assert first == second
    assert [one["gathered"] for one in seen] == [["0.png", "1.png", "both.png"]] * 2


@pytest.mark.slow
def test_a_run_of_two_is_resumed_by_two_or_by_one(pair, resumable, monkeypatch):
    """Two end like an undisturbed run, to the bit; one alone goes on; a stop of one stops both."""
    folder, seen = pair
    assert [one["first part"]["step"] for one in seen] == [5, 5]
    resumable.check_same(folder / "parted", folder / "pair")
    resumable.hasten(monkeypatch)
    for result in (one["halved"] for one in seen):
        assert (result["step"], result["finished"], result["stopped"]) == (7, False, True)

    report = train(load_options(folder / "halved"), resume=True)

    assert (report.step, report.patches) == (STEPS, 8 * STEPS)
    check_same_curve(folder / "halved", folder / "whole_pair")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("refused", r".* already holds a run: continue it with --resume .*"),
        ("nan", r"the loss is no longer finite at step 3: .*"),
    ],
)
def test_one_process_reports_what_went_wrong(pair, saved_run, name, text):
    """Whichever fails first reports it, whether one or both of them meet the error."""
    folder, seen = pair
    silent, reported = sorted((one[name] for one in seen), key=len)

    assert (silent, reported["code"]) == ({"silent": 1}, 1)
    assert re.fullmatch(text, reported["error"])
    if name == "nan":  # what one of them saw gets into no log and no weights
        assert [row["step"] for row in saved_run(folder / "nan").log] == ["1"]
        assert not (folder / "nan" / "model.safetensors").exists()


@pytest.mark.slow
def test_a_process_that_is_gone_is_missed(pair, saved_run):
    """The other one says so instead of waiting; the last checkpoint is there to continue from."""
    folder, seen = pair
    assert seen[0]["lost"]["error"] == (
        "another process of this run has ended (killed, or out of memory): use --resume to "
        "continue from the last checkpoint"
    )
    assert saved_run(folder / "lost").steps == [2]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
def test_torchrun_can_be_stopped(resumable, saved_run, tmp_path, monkeypatch):
    """SIGTERM to ``torchrun`` saves once, is reported, and leaves a run that one can resume."""
    resumable.hasten(monkeypatch)
    run = tmp_path / "run"
    changed = {10: 100_000, "eval_every=3": "eval_every=50"}  # saved at every fifth step
    command = [str(changed.get(part, part)) for part in resumable.command(run)]
    process = subprocess.Popen(
        [sys.executable, *TORCHRUN, "-m", "srcli", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        env=os.environ | ENVIRONMENT,
    )
    try:
        await_that(lambda: process.poll() is not None or any(run.glob("state/step-*")))
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(timeout=60)
    finally:
        process.terminate()

    found = re.findall(r"interrupted at step (\d+); continue with: srcli train --resume", stderr)
    assert [int(step) for step in found] == saved_run(run).steps[-1:], "the main process alone"
    assert "[rank1]: Traceback" not in stderr
    options = dataclasses.replace(load_options(run), steps=int(found[0]) + 2)
    report = train(options, resume=True)
    assert (report.step, report.finished) == (options.steps, True)
