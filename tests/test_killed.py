"""Runs of training that get a signal, as processes: killed anywhere, they are resumed."""

import os
import signal

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

STRIKE = """
from srcli.model import weights
from srcli.training.run_directory import RunDirectory

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
"""
"""Lets a process send itself a signal at its count-th call of something."""


@pytest.fixture
def train(server):
    """Run ``srcli train`` until it ends, or kills itself: its exit code, and what it printed."""

    def ended(*arguments, moment=None):
        first = STRIKE + (f"strike(*{moment!r})" if moment else "")
        process, code = server.run(*arguments, command="train", first=first)
        return code, process.stdout + process.stderr

    return ended


@pytest.fixture
def saving(resumable, tmp_path):
    """The command line of the undisturbed run of the kind "area", but saving at every step."""
    command = resumable.command(tmp_path / "run")[1:]
    return ["save_every=1" if part == "save_every=5" else part for part in command]


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_saves_at_the_next_step(train, resumable, undisturbed, tmp_path, name):
    """The run ends with the signal's exit code and says how to resume; so it does, to the bit."""
    number, step = signal.Signals[name], {"SIGINT": 1, "SIGTERM": 4}[name]
    run = tmp_path / "run"

    ended, printed = train(*resumable.command(run)[1:], moment=["step", step, int(number)])

    assert ended == 128 + number
    assert printed == f"interrupted at step {step}; continue with: srcli train --resume {run}\n"
    resumable.check_beginning(run, undisturbed["area"], step)
    assert train("--resume", run, "--quiet") == (0, "")
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
    train, resumable, undisturbed, saving
):
    """Killed amid writing, renaming, removing, logging and drawing, over and over, it recovers."""
    run, ends = saving[-1], []
    for moment in MOMENTS:
        begun = any(run.glob("state/*.safetensors"))
        order = ["--resume", run, "--set", "save_every=1"] if begun else saving
        ended, printed = train(*order, moment=[*moment, int(signal.SIGKILL)])
        assert ended in (-signal.SIGKILL, 0), printed
        ends.append(ended)

    assert train("--resume", run, "--quiet") == (0, "")

    assert ends.count(-signal.SIGKILL) > len(MOMENTS) // 2
    resumable.check_same(run, undisturbed["area"])
