"""A night's run that is killed, stopped, shared or fed with rubbish: nothing is lost."""

import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from srcli.files import TEMPORARY_SUFFIX

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

ROOT = Path(__file__).parents[1]
NAMES = ("a.jpg", "b.png", "c.webp", "d.tif", "e.gif", "sub/f.jpg", "sub/g.png", "sub/deep/h.png")
MOMENTS = 8

SERVER = """
import gc, json, os, signal, sys, threading, time
from pathlib import Path
import torch
torch.set_num_threads(1)
from srcli import upscaler as upscaling  # what a run would import, once for all
from srcli.cli import app as cli, enlarging, reporter
from srcli.upscaling import batch, estimate, plan as planning, share
try:
    import typer._adapters  # which Typer leaves for later
except ImportError:
    pass
gc.freeze()  # or each process would take most of a second to tidy up what it has from this one
print("ready", flush=True)
for line in sys.stdin:
    asked = json.loads(line)
    if "wait" in asked:
        print(os.waitstatus_to_exitcode(os.waitpid(asked["wait"], 0)[1]), flush=True)
        continue
    process = os.fork()
    if not process:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.dup2(os.open(asked["stdin"], os.O_RDWR), 0)
        for number, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(asked[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        os.environ.update(asked["environment"])
        sys.argv = ["srcli", *asked["arguments"]]
        exec(asked["first"])
        cli.main()
    print(process, flush=True)
"""
"""Starts real processes that need not import torch again: each line of JSON is one."""

STEADY = {"MALLOC_ARENA_MAX": "1"}
"""Without it each thread's own heap grows when it likes, by megabytes."""

HOLD = """
def hold():
    Path("held").touch()
    time.sleep(30)
"""

HOLD_THE_NET = f"""{HOLD}
def upscale(self, picture, *rest, real=upscaling.Upscaler.upscale):
    return hold() if picture.width == 33 else real(self, picture, *rest)

upscaling.Upscaler.upscale = upscale
"""
"""Makes a run stop for good at the picture that is 33 pixels wide."""

HOLD_THE_WRITING = f"""{HOLD}
def fsync(number):
    if threading.current_thread() is not threading.main_thread():
        hold()

os.fsync = fsync
"""
"""Makes a thread stop for good when a result is written, but has not got its name."""

HOLD_THE_PLAN = f"{HOLD}\nplanning.plan = lambda selection: hold()"

SWALLOW = f"""{HOLD}
def swallow(*_):
    try:
        hold()
    except KeyboardInterrupt:
        raise ValueError("could not determine the shape of object type") from None
"""
"""Makes something else of a signal, as safetensors does."""

SWALLOW_IN_THE_NET = f"{SWALLOW}\nupscaling.Upscaler.upscale = swallow"
SWALLOW_AT_THE_START = f"{SWALLOW}\nupscaling.weights.load = swallow"


class Run:
    """One process of ``srcli``, and what it says."""

    def __init__(self, server, number, stdout, stderr):
        self._server, self._stdout, self._stderr = server, stdout, stderr
        self.number = number

    def send(self, sent):
        """Send a signal, unless it has ended."""
        with suppress(ProcessLookupError):
            os.kill(self.number, sent)

    def wait(self):
        """Wait for its end: the exit code, negative for a signal."""
        return int(self._server.ask({"wait": self.number}))

    @property
    def stdout(self):
        """What it has written there."""
        return _text(self._stdout)

    @property
    def stderr(self):
        """What it has written there."""
        return _text(self._stderr)

    @property
    def lines(self):
        """The objects of ``--json``: those of the files, and the summary."""
        *files, summary = map(json.loads, self.stdout.splitlines())
        return files, summary


def _text(path):
    """Read what a process said, if it lived to open the file."""
    return path.read_text() if path.exists() else ""


class Server:
    """Runs ``srcli`` in processes of their own, quickly."""

    def __init__(self):
        self._count = 0
        self._said = tempfile.TemporaryDirectory()
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", SERVER],
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **STEADY},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout.readline() == "ready\n"

    def ask(self, asked):
        """Ask something; the answer."""
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline()

    def start(self, *arguments, first="", stdin=os.devnull, stdout=None, environment=None):
        """Start one in the working directory; ``first`` is run in it before."""
        self._count += 1
        said = [Path(self._said.name, f"{name}{self._count}") for name in ("stdout", "stderr")]
        asked = {
            "arguments": ["upscale", *map(str, arguments)],
            "first": f"os.chdir({str(Path.cwd())!r})\n{first}",
            "stdin": str(stdin),
            "stdout": str(stdout or said[0]),
            "stderr": str(said[1]),
            "environment": environment or {},
        }
        return Run(self, int(self.ask(asked)), *said)

    def run(self, *arguments, **options):
        """Run one to its end; it and its exit code."""
        process = self.start(*arguments, **options)
        return process, process.wait()

    def close(self):
        """End."""
        self._process.communicate(timeout=60)
        self._said.cleanup()


@pytest.fixture(scope="module")
def server():
    """A server of processes."""
    started = Server()
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


@pytest.fixture
def row(here):
    """A folder of six pictures, the second one broken, the fourth 33 pixels wide."""
    folder = here / "row"
    folder.mkdir()
    draw = np.random.default_rng(2)
    for index in range(6):
        levels = draw.integers(0, 256, (20, 30 + index, 3), dtype=np.uint8)
        Image.fromarray(levels).save(folder / f"{index}.png")
    (folder / "1.png").write_bytes(b"broken")
    return folder


@pytest.fixture
def options(tiny_weights):
    """What every command needs: the tiny net on the CPU, one file after the other."""
    return ["--model", str(tiny_weights), "--device", "cpu", "--dtype", "fp32", "-j", "1"]


def contents(folder):
    """Every file below a folder, hidden ones included, by its path: checksums."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def await_there(path):
    """Wait until something is there, half a minute at most."""
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} has not come"
        time.sleep(0.005)


# ---- killed -------------------------------------------------------------------------------


def test_a_killed_run_goes_on_to_the_very_same_files(here, photos, tiny_weights, server):
    """Killed at any moment and run again, it ends with an undisturbed run's bytes alone."""
    options = ["--model", tiny_weights, "--device", "cpu", "--recursive", "--skip-existing", "-q"]
    begun = time.perf_counter()
    assert server.run(photos, *options, "--output", here / "whole")[1] == 0
    seconds = time.perf_counter() - begun
    expected = contents(here / "whole")
    assert sorted(expected) == sorted(NAMES)

    found = []
    for number in range(MOMENTS):
        out = here / f"out{number}"
        process = server.start(photos, *options, "--output", out)
        time.sleep(seconds * (number + 0.5) / MOMENTS)
        process.send(signal.SIGKILL)
        process.wait()
        left = contents(out) if out.exists() else {}
        unfinished = {name for name in left if name.endswith(TEMPORARY_SUFFIX)}
        assert {name: left[name] for name in left.keys() - unfinished}.items() <= expected.items()
        found.append(len(left) - len(unfinished))

        again, code = server.run(photos, *options, "--output", out)
        assert (code, again.stderr) == (0, "")
        assert contents(out) == expected

    assert len(set(found)) > 2, "the moments lie all over the run"


def test_a_run_killed_while_it_writes_leaves_no_temporary_file(here, row, options, server):
    """The unfinished file that SIGKILL leaves is seen, and gone after the next run."""
    command = [row, *options, "--skip-existing", "-o", "out"]
    process = server.start(*command, first=HOLD_THE_WRITING)
    await_there(here / "held")
    process.send(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    (left,) = (here / "out").iterdir()
    assert left.name.endswith(TEMPORARY_SUFFIX)

    assert server.run(*command)[1] == 1

    assert sorted(contents(here / "out")) == ["0.png", "2.png", "3.png", "4.png", "5.png"]


# ---- stopped ------------------------------------------------------------------------------

SIGNALS = [
    pytest.param(signal.SIGINT, 130, id="SIGINT"),
    pytest.param(signal.SIGTERM, 143, id="SIGTERM"),
]


@pytest.mark.parametrize(
    "first", [SWALLOW_IN_THE_NET, SWALLOW_AT_THE_START], ids=["in the net", "at the start"]
)
def test_a_signal_that_a_library_makes_an_error_of_is_not_lost(row, options, server, first):
    """The run ends all the same: at once, or with the next file."""
    process = server.start(row, *options, "-o", "out", first=first)
    await_there(row.parent / "held")
    process.send(signal.SIGTERM)

    assert process.wait() == 143
    assert process.stderr.splitlines()[-1].startswith("interrupted: ")
    assert "Traceback" not in process.stderr


@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_a_stopped_run_keeps_and_reports_what_it_did(row, options, server, number, code):
    """Whole files stay, JSON, list and last line tell the rest, and the same command continues."""
    here = row.parent
    command = [row, *options, "--skip-existing", "--json", "--failed-list", "failed.txt"]
    assert server.run(*command, "-o", "whole")[1] == 1
    expected = contents(here / "whole")

    process = server.start(*command, "-o", "out", first=HOLD_THE_NET)
    await_there(here / "held")
    process.send(number)

    assert process.wait() == code
    files, summary = process.lines
    assert [Path(file["input"]).name for file in files] == ["0.png", "1.png", "2.png"]
    assert [file["status"] for file in files] == ["done", "failed", "done"]
    assert summary.pop("seconds") > 0
    assert summary == {
        "summary": True,
        "planned": 0,
        "patches": None,
        "memory": None,
        "done": 2,
        "skipped": 0,
        "failed": 1,
        "unfinished": 3,
        "megapixels": round((90 + 96) * 60 / 1e6, 3),
        "failed_inputs": [f"{row}/./1.png"],
        "exit_code": code,
        "rank": 0,
        "world_size": 1,
    }
    assert process.stderr.splitlines()[-1] == (
        "interrupted: 2 done, 0 skipped, 1 failed, 3 not begun or unfinished; "
        "the same command with --skip-existing resumes"
    )
    assert Path("failed.txt").read_text() == f"{row}/./1.png\n"
    assert contents(here / "out").items() <= expected.items()
    assert sorted(contents(here / "out")) == ["0.png", "2.png"]

    again, code = server.run(*command, "-o", "out")

    assert code == 1
    assert [file["status"] for file in again.lines[0]] == [
        *("skipped", "failed", "skipped", "done", "done", "done")
    ]
    assert contents(here / "out") == expected


def test_a_signal_at_any_moment_leaves_whole_files_and_true_counts(here, row, options, server):
    """Wherever it hits: no traceback, no temporary file, and what is reported done is there."""
    begun = time.perf_counter()
    assert server.run(row, *options, "-o", "whole")[1] == 1
    seconds = time.perf_counter() - begun
    expected = contents(here / "whole")
    moments = random.Random(1)  # noqa: S311 - not a secret
    for number in range(8):
        process = server.start(row, *options, "-o", f"out{number}", "--json")
        time.sleep(seconds * (number + moments.random()) / 8)
        process.send((signal.SIGINT, signal.SIGTERM)[number % 2])

        # Negative: before the command begins, or when all is reported and torch tidies up.
        assert process.wait() in {130, 143, 1, -signal.SIGINT, -signal.SIGTERM}
        left = contents(here / f"out{number}") if Path(f"out{number}").exists() else {}
        assert left.items() <= expected.items()
        assert "Traceback" not in process.stderr
        if '"summary"' in process.stdout:
            assert process.lines[1]["done"] == len(left)


@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_a_run_may_be_stopped_before_it_began(row, options, server, number, code):
    """While files are being looked for there is nothing to count: one word and the code."""
    here = row.parent
    process = server.start(row, *options, "-o", "out", first=HOLD_THE_PLAN)
    await_there(here / "held")
    process.send(number)

    assert process.wait() == code
    assert (process.stdout, process.stderr) == ("", "interrupted\n")
    assert not (here / "out").exists()


def test_a_second_signal_ends_a_run_that_still_writes(here, row, options, server):
    """The first one waits for what is being written; the second one does not, and cleans up."""
    process = server.start(
        *(row, *options, "-o", "out", "--failed-list", "failed.txt"), first=HOLD_THE_WRITING
    )
    await_there(here / "held")
    process.send(signal.SIGINT)
    time.sleep(0.3)
    assert process.stderr == "", "it waits"
    begun = time.monotonic()
    process.send(signal.SIGINT)

    assert process.wait() == 130
    assert time.monotonic() - begun < 20, "it has not waited for the disk"
    assert process.stderr.splitlines()[-1].startswith("interrupted: 0 done, 0 skipped, ")
    assert contents(here / "out") == {}
    assert Path("failed.txt").exists()


def test_a_stdin_that_does_not_end_can_be_left(here, options, server):
    """Ctrl-C ends a run whose thread still waits for the picture to come."""
    os.mkfifo("pipe")
    process = server.start(
        "-",
        *options,
        "-f",
        "png",
        stdin=here / "pipe",
        first=(
            "real = upscaling.Upscaler.__init__\n"
            "def made(self, *args, **kwargs):\n"
            "    real(self, *args, **kwargs)\n"
            "    Path('ready').touch()\n"
            "upscaling.Upscaler.__init__ = made\n"
        ),
    )
    await_there(here / "ready")
    time.sleep(0.2)
    process.send(signal.SIGINT)

    assert process.wait() == 130
    assert process.stdout == ""
    assert process.stderr.startswith("interrupted: 0 done, 0 skipped, 0 failed, 1 not begun")


def test_a_list_is_not_replaced_while_it_is_not_done(here, row, options, server):
    """``@LIST --failed-list LIST``, stopped, still names the files that it did not come to."""
    listed = "".join(f"{row}/./{index}.png\n" for index in range(6))
    Path("list.txt").write_text(listed)
    command = ["@list.txt", *options, "-o", "out", "--failed-list", "./list.txt"]
    process = server.start(*command, first=HOLD_THE_NET)
    await_there(here / "held")
    process.send(signal.SIGINT)
    assert process.wait() == 130
    assert Path("list.txt").read_text() == listed

    assert server.run(*command, "--skip-existing")[1] == 1

    assert Path("list.txt").read_text() == f"{row}/./1.png\n"


# ---- shared -------------------------------------------------------------------------------


def test_two_commands_may_go_over_one_folder(here, photos, tiny_weights, server):
    """Started at once with ``--skip-existing`` they do not hurt each other's files."""
    options = ["-r", "--model", tiny_weights, "--device", "cpu", "--skip-existing", "-q"]
    assert server.run(photos, *options, "-o", "whole")[1] == 0

    pair = [server.start(photos, *options, "-o", "out") for _ in range(2)]

    assert [process.wait() for process in pair] == [0, 0]
    assert [process.stderr for process in pair] == ["", ""]
    assert contents(here / "out") == contents(here / "whole")


# ---- what the system does -----------------------------------------------------------------


def test_a_full_disk_costs_the_files_that_do_not_fit(here, row, options, server):
    """The old file stays, the others are done, and the reason is named."""
    Path("out").mkdir()
    Path("out/5.png").write_bytes(b"old")
    Image.new("RGB", (35, 20), "red").save(row / "4.png")
    Image.new("RGB", (34, 20), "red").save(row / "0.png")
    limit = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))\n"

    process, code = server.run(row, *options, "-o", "out", "--overwrite", first=limit)

    assert code == 1
    assert {
        name: len(Path("out", name).read_bytes()) < 6000 for name in contents(here / "out")
    } == {
        "0.png": True,
        "4.png": True,
        "5.png": True,
    }
    assert Path("out/5.png").read_bytes() == b"old"
    lines = process.stderr.splitlines()
    assert lines[-1].startswith("2 done, 0 skipped, 4 failed: ")
    assert re.fullmatch(r"error: .*out/5\.png.*(too large|disk).*", lines[-2]), lines[-2]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_stdout_is_one_line(row, options, server):
    """A picture or JSON that cannot be poured out ends with 1 and the reason."""
    picture, code = server.run(row / "0.png", *options, "-o", "-", stdout="/dev/full")

    assert code == 1
    assert re.fullmatch(r"error: .*stdout.*\n", picture.stderr)

    lines, code = server.run(row / "0.png", *options, "--json", stdout="/dev/full")

    assert code == 1
    assert lines.stderr.splitlines()[-1] == (
        "error: cannot write to stdout: No space left on device; choose another file"
    )


def test_a_terminal_gets_no_picture(row, options, server):
    """Bytes of an image would only garble it: wrong usage, before anything is computed."""
    pty = pytest.importorskip("pty")
    master, slave = pty.openpty()

    process, code = server.run(row / "0.png", *options, "-o", "-", stdout=os.ttyname(slave))

    assert code == 2
    assert process.stderr == "error: stdout is a terminal; redirect it or give --output\n"
    os.set_blocking(master, False)
    with pytest.raises(BlockingIOError):
        os.read(master, 1)
    os.close(slave)
    os.close(master)


@pytest.mark.parametrize(
    "wanted",
    [
        pytest.param(
            (0, ["-", "-o", "a.png"], "- reads stdin, and it is closed; give a file"),
            id="picture in",
        ),
        pytest.param(
            (1, ["-o", "-"], "stdout is closed; redirect it or give --output"), id="picture out"
        ),
        pytest.param(
            (1, ["--json"], "--json needs a stdout, and it is closed; give one"), id="JSON"
        ),
    ],
)
def test_what_is_closed_cannot_be_used(row, options, server, wanted):
    """A stream that is wanted and not there is wrong usage."""
    closed, arguments, message = wanted
    inputs = arguments if "-" == arguments[0] else [row / "0.png", *arguments]
    first = f"os.close({closed})\nsys.{('stdin', 'stdout')[closed]} = None"

    process, code = server.run(*inputs, *options, first=first)

    assert (code, process.stderr) == (2, f"error: {message}\n")
    assert len(contents(row)) == 6


def test_a_daemon_without_any_stream_does_its_work(here, row, options, server):
    """Started with all three closed, nothing is read or written where they were."""
    shutil.copytree(row, "before")
    first = "os.closerange(0, 3)\nsys.stdin = sys.stdout = sys.stderr = None"

    _, code = server.run(row, *options, first=first)

    assert code == 1
    assert contents(row) == contents(here / "before")
    assert sorted(contents(here / "row_x3")) == ["0.png", "2.png", "3.png", "4.png", "5.png"]
    for path in (here / "row_x3").iterdir():
        with Image.open(path) as image:
            image.load()


def test_a_log_on_a_full_disk_loses_no_file(here, row, options, server):
    """What cannot be said on stderr is not said, and the work is done."""
    first = "os.dup2(os.open('/dev/full', os.O_WRONLY), 2)" if Path("/dev/full").exists() else ""

    _, code = server.run(row, *options, "-o", "out", first=first)

    assert code == 1
    assert len(contents(here / "out")) == 5


def test_a_reader_that_goes_away_ends_the_run(here, row, options, server):
    """``srcli upscale --json ... | head`` stops as pipes do: quietly, with whole files."""
    first = "reader, writer = os.pipe()\nos.dup2(writer, 1)\nos.close(reader)\nos.close(writer)"

    process, code = server.run(row, *options, "-o", "out", "--json", "-q", first=first)

    assert code == 1
    assert "Traceback" not in process.stderr
    for path in (here / "out").iterdir():
        with Image.open(path) as image:
            image.load()


@pytest.mark.usefixtures("here")
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
def test_memory_does_not_grow_with_the_files(options, server):
    """After eighty files and after a hundred and seventy the process is as large, but for noise."""
    Path("many").mkdir()
    Image.new("RGB", (60, 50), "blue").save("many/000.png")
    for index in range(1, 170):
        shutil.copy("many/000.png", f"many/{index:03}.png")
    first = """
def printed(values, sizes=[]):
    status = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    sizes.append(int(status["RssAnon"].split()[0]))
    if "summary" in values:
        Path("sizes").write_text(" ".join(map(str, sizes)))

reporter.print_json = printed
"""

    assert server.run("many", *options, "--json", "-q", first=first)[1] == 0

    sizes = [int(size) for size in Path("sizes").read_text().split()]
    assert len(sizes) == 171
    # Kilobytes, at their lowest: between two times that memory is given back it rises. The results
    # alone would be 7 MB, if they stayed.
    assert min(sizes[110:]) - min(sizes[20:80]) < 3 * 1024
