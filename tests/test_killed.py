"""Runs of the command line that get a signal, as processes: killed anywhere, they are resumed."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

import srcli

LAUNCHER = '''
"""Start runs of the command line without importing torch for each: a fork is one of its own."""
import json, os, signal, sys
from pathlib import Path
import torch
from srcli.cli.app import main
from srcli.model import weights
from srcli.training import trainer
from srcli.training.run_directory import RunDirectory

torch.optim.Adam([torch.zeros(1, requires_grad=True)])  # imports much that would be late
trainer._LOG_EVERY = 4
trainer.draw_curves = trainer.draw_samples = lambda *_: None
MOMENTS = {
    "step": (trainer.Trainer, "train_step"),
    "write": (weights, "save_file"),
    "rename": (Path, "replace"),
    "remove": (Path, "unlink"),
    "log": (RunDirectory, "log"),
    "resume": (RunDirectory, "resume_at"),
    "draw": (trainer.Trainer, "_draw"),
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
        output = os.open(order["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        if order["moment"]:
            strike(*order["moment"])
        sys.argv = ["srcli", *order["arguments"]]
        code = 99
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
'''


class Launcher:
    """Starts runs as processes and returns how they ended; ``process`` forks them."""

    def __init__(self, process, output):
        self.process, self._output = process, output

    def start(self, *arguments, moment=None):
        """Start a run; return the number of its process."""
        order = {
            "arguments": [str(one) for one in arguments],
            "moment": moment,
            "output": str(self._output),
        }
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def end(self):
        """Wait for the run to end: its exit code, below zero for a signal, and what it printed."""
        code = int(self.process.stdout.readline())
        return code, self._output.read_text(encoding="utf-8")

    def run(self, *arguments, moment=None):
        """Start a run and wait for its end."""
        self.start(*arguments, moment=moment)
        return self.end()


@pytest.fixture(scope="module")
def launcher(tmp_path_factory):
    """A process that starts runs."""
    if not hasattr(os, "fork"):
        pytest.skip("needs processes that fork")
    process = subprocess.Popen(
        [sys.executable, "-c", LAUNCHER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
        # As many threads as the undisturbed run has: sums of other parts have other last bits.
        env=os.environ
        | {"PYTHONPATH": str(Path(srcli.__file__).parents[1]), "OMP_NUM_THREADS": "1"},
    )
    with process:
        yield Launcher(process, tmp_path_factory.mktemp("launcher") / "output.txt")
        process.stdin.close()


@pytest.fixture
def run(tmp_path):
    """The directory of a run."""
    return tmp_path / "run"


@pytest.fixture
def saving(resumable, run):
    """The command line of the undisturbed run of the kind "area", but saving at every step."""
    return ["save_every=1" if part == "save_every=5" else part for part in resumable.command(run)]


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_saves_at_the_next_step(launcher, resumable, undisturbed, run, name):
    """The run ends with the signal's exit code and says how to resume; so it does, to the bit."""
    number, step = signal.Signals[name], {"SIGINT": 1, "SIGTERM": 4}[name]
    command = resumable.command(run)

    ended, printed = launcher.run(*command, moment=["step", step, int(number)])

    assert ended == 128 + number
    assert printed == f"interrupted at step {step}; continue with: srcli train --resume {run}\n"
    resumable.check_beginning(run, undisturbed["area"], step)
    assert launcher.run("train", "--resume", run, "--quiet") == (0, "")
    resumable.check_same(run, undisturbed["area"])


MOMENTS = [
    *[["write", count] for count in (1, 2, 3, 4)],
    *[["rename", count] for count in (1, 2, 3, 5)],
    *[["remove", count] for count in (2, 5)],
    *[["log", count] for count in (1, 2)],
    *[["step", count] for count in (1, 2)],
    *[["resume", 1], ["draw", 1]],
]
"""When a process kills itself, one after the other until the run is done. Every save writes and
renames the state, then the weights; the third ``remove`` is that of an old checkpoint."""


def test_a_run_killed_at_any_moment_ends_like_an_undisturbed_one(
    launcher, resumable, undisturbed, saving
):
    """Killed amid writing, renaming, removing, logging and drawing, over and over, it recovers."""
    run, ends = saving[-1], []
    for moment in MOMENTS:
        begun = any(run.glob("state/*.safetensors"))
        order = ["train", "--resume", run, "--set", "save_every=1"] if begun else saving
        ended, printed = launcher.run(*order, moment=[*moment, int(signal.SIGKILL)])
        assert ended in (-signal.SIGKILL, 0), printed
        ends.append(ended)

    assert launcher.run("train", "--resume", run, "--quiet") == (0, "")

    assert ends.count(-signal.SIGKILL) > len(MOMENTS) // 2
    resumable.check_same(run, undisturbed["area"])


def test_a_run_killed_at_random_ends_like_an_undisturbed_one(
    launcher, resumable, undisturbed, saving
):
    """From outside, whenever it happens to be, with a checkpoint at every step."""
    run = saving[-1]
    order = [*saving, "--set", "keep_last=1"]
    for _ in range(3):
        process = launcher.start(*order)
        with suppress(ProcessLookupError):  # it may have come to its end
            wait_for(lambda: any(run.glob("state/step-*")), process)
            time.sleep(random.uniform(0, 0.1))  # noqa: S311 - any moment will do
            os.kill(process, signal.SIGKILL)
        ended, printed = launcher.end()
        assert ended in {-signal.SIGKILL, 0}, printed
        assert any(run.glob("state/step-*"))
        order = ["train", "--resume", run, "--set", "save_every=1", "--set", "keep_last=1"]

    assert launcher.run("train", "--resume", run, "--quiet") == (0, "")

    resumable.check_same(run, undisturbed["area"])


def wait_for(condition, process):
    """Wait for something that a process does, a minute at most."""
    deadline = time.monotonic() + 60
    while not condition():
        os.kill(process, 0)
        assert time.monotonic() < deadline
        time.sleep(0.002)
