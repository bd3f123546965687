"""A night's run that is killed, stopped, shared or fed with rubbish: nothing is lost."""

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from srcli.files import TEMPORARY_SUFFIX

ROOT = Path(__file__).parents[1]
NAMES = ("a.jpg", "b.png", "c.webp", "d.tif", "e.gif", "sub/f.jpg", "sub/g.png", "sub/deep/h.png")
MOMENTS = 30

SERVER = """
import os, signal, sys, warnings
import torch
torch.set_num_threads(1)
from srcli import batch, cli, sharing  # what a run would import, once for all
print("ready", flush=True)
for line in sys.stdin:
    process = os.fork()
    if not process:
        sys.argv = ["srcli", *line.rstrip("\\n").split("\\t")]
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        cli.main()
    print(process, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)
"""
"""Starts real processes that need not import torch again: each line of arguments is one."""

forking = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


class Server:
    """Runs ``srcli`` in processes of their own, quickly."""

    def __init__(self, folder):
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", SERVER],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout.readline() == "ready\n"

    def start(self, *arguments):
        """Start one; its number as a process."""
        self._process.stdin.write("\t".join(map(str, arguments)) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def wait(self):
        """Wait for it; its exit code, negative for a signal."""
        return int(self._process.stdout.readline())

    def close(self):
        """End; what all of them wrote on stderr."""
        return self._process.communicate(timeout=60)[1]


@pytest.fixture
def server(tmp_path):
    """A server of processes whose working directory is the test's own."""
    started = Server(tmp_path)
    yield started
    started.close()


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A tree of small noisy pictures in several formats."""
    folder = tmp_path_factory.mktemp("night") / "photos"
    draw = np.random.default_rng(1)
    for name in NAMES:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        height, width = draw.integers(30, 90, 2)
        levels = draw.integers(0, 256, (height // 6 + 1, width // 6 + 1, 3), dtype=np.uint8)
        Image.fromarray(levels).resize((width, height)).save(path)
    return folder


def contents(folder):
    """Every file below a folder, hidden ones included, by its path: checksums."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@forking
def test_a_killed_run_goes_on_to_the_very_same_files(tmp_path, photos, tiny_weights, server):
    """Killed at thirty moments and run again, it ends with an undisturbed run's bytes alone."""
    options = ["--model", tiny_weights, "--device", "cpu", "--recursive", "--skip-existing", "-q"]
    begun = time.perf_counter()
    server.start("upscale", photos, *options, "--output", tmp_path / "whole")
    assert server.wait() == 0
    seconds = time.perf_counter() - begun
    expected = contents(tmp_path / "whole")
    assert sorted(expected) == sorted(NAMES)

    found = []
    moments = random.Random(0).choices(range(1000), k=MOMENTS)  # noqa: S311 - not a secret
    for number, moment in enumerate(moments):
        out = tmp_path / f"out{number}"
        process = server.start("upscale", photos, *options, "--output", out)
        time.sleep(seconds * moment / 1000)
        with suppress(ProcessLookupError):  # it had ended by then
            os.kill(process, signal.SIGKILL)
        server.wait()
        left = contents(out) if out.exists() else {}
        unfinished = {name for name in left if name.endswith(TEMPORARY_SUFFIX)}
        assert {name: left[name] for name in left.keys() - unfinished}.items() <= expected.items()
        found.append(len(left) - len(unfinished))

        server.start("upscale", photos, *options, "--output", out)
        assert server.wait() == 0
        assert contents(out) == expected

    assert len(set(found)) > 2, "the moments lie all over the run"


@forking
def test_a_run_killed_while_it_writes_leaves_no_temporary_file(
    tmp_path, photos, tiny_weights, server
):
    """The unfinished file that SIGKILL leaves is seen, and gone after the next run."""
    options = ["--model", tiny_weights, "--device", "cpu", "-r", "--skip-existing", "-q"]
    out = tmp_path / "out"
    out.mkdir()
    process = server.start("upscale", photos, *options, "--output", out)
    deadline = time.monotonic() + 60
    while not any(path.name.endswith(TEMPORARY_SUFFIX) for path in out.iterdir()):
        assert time.monotonic() < deadline
    os.kill(process, signal.SIGKILL)
    assert server.wait() == -signal.SIGKILL

    server.start("upscale", photos, *options, "--output", out)

    assert server.wait() == 0
    assert sorted(contents(out)) == sorted(NAMES)
