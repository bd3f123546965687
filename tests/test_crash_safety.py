"""A run that is killed, stopped or run twice at once, on full disks and closed streams."""

import os
import re
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest
from batch_files import picture
from command_runs import lines_of
from PIL import Image
from run_files import await_that, contents, needs_proc

from srcli.__main__ import main
from srcli.files import TEMPORARY_SUFFIX
from srcli.imaging.images import read

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

NAMES = ("a.jpg", "b.png", "c.webp", "d.tif", "e.gif", "sub/f.jpg", "sub/g.png", "sub/deep/h.png")
MOMENTS = (1, 2, 5, 8, 11, 14, 15)


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

KILL_AT_A_SYNC = """
def fsync(number, left=[{count}], real=os.fsync):
    left[0] -= 1
    if left[0] <= 0:
        os.kill(os.getpid(), signal.SIGKILL)
    real(number)

os.fsync = fsync
"""
"""Kills a run where a file is whole, and before or after it gets its name."""

HOLD_THE_PLAN = f"{HOLD}\nenlarging.plan = lambda *_: hold()"

SWALLOW = f"""{HOLD}
threading.Thread(target=threading.Event().wait).start()

def swallow(*_):
    try:
        hold()
    except KeyboardInterrupt:
        raise ValueError("could not determine the shape of object type") from None

upscaling.Upscaler.upscale = swallow
"""
"""Makes something else of a signal, as safetensors does, and has a thread that nobody ends."""


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A tree of small noisy pictures in several formats."""
    folder = tmp_path_factory.mktemp("night") / "photos"
    for index, name in enumerate(NAMES):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(30 + 7 * index, 90 - 7 * index).save(path)
    return folder


def test_a_killed_run_goes_on_to_the_very_same_files(here, photos, tiny_weights, server):
    """Killed at any moment and run again, it ends with an undisturbed run's bytes alone."""
    options = ["--model", tiny_weights, "--engine", "torch", "--recursive", "--skip-existing", "-q"]
    assert server.run(photos, *options, "--output", here / "whole")[1] == 0
    expected = contents(here / "whole")
    assert sorted(expected) == sorted(NAMES)

    found = []
    for count in MOMENTS:
        out, first = here / f"out{count}", KILL_AT_A_SYNC.format(count=count)
        assert server.run(photos, *options, "--output", out, first=first)[1] == -signal.SIGKILL
        left = contents(out)
        unfinished = {name for name in left if name.endswith(TEMPORARY_SUFFIX)}
        assert {name: left[name] for name in left.keys() - unfinished}.items() <= expected.items()
        found.append(len(left) - len(unfinished))

        again, code = server.run(photos, *options, "--output", out)
        assert (code, again.stderr) == (0, "")
        assert contents(out) == expected

    assert len(set(found)) > 2, "the moments lie all over the run"
    (out / "sub" / f".e1bfefa774fd{TEMPORARY_SUFFIX}").touch()  # killed behind the last result
    assert server.run(photos, *options, "--output", out)[1] == 0
    assert contents(out) == expected


def test_a_signal_that_a_library_makes_an_error_of_is_not_lost(row, on_cpu, server):
    """The run ends all the same: at once, or with the next file."""
    process = server.start(row, *on_cpu, "-o", "out", first=SWALLOW)
    await_that((row.parent / "held").exists)
    process.send(signal.SIGTERM)

    assert process.wait() == 143
    assert process.stderr.splitlines()[-1].startswith("interrupted: ")
    assert "Traceback" not in process.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_keeps_and_reports_what_it_did(row, on_cpu, server, number, code):
    """Whole files stay, JSON, list and last line tell the rest, and the same command continues."""
    here = row.parent
    command = [row, *on_cpu, "--skip-existing", "--json", "--failed-list", "failed.txt"]
    assert server.run(*command, "-o", "whole")[1] == 1
    expected = contents(here / "whole")

    process = server.start(*command, "-o", "out", first=HOLD_THE_NET)
    await_that((here / "held").exists)
    process.send(number)

    assert process.wait() == code
    files, summary = lines_of(process)
    assert [file["status"] for file in files] == ["done", "failed", "done"]
    assert [summary[name] for name in ("done", "failed", "unfinished", "exit_code")] == [
        *(2, 1, 3, code)
    ]
    assert process.stderr.splitlines()[-1] == (
        "interrupted: 2 done, 0 skipped, 1 failed, 3 not begun or unfinished; "
        "the same command with --skip-existing resumes"
    )
    assert Path("failed.txt").read_text() == f"{row}/./1.png\n"
    assert contents(here / "out").items() <= expected.items()
    assert sorted(contents(here / "out")) == ["0.png", "2.png"]

    again, code = server.run(*command, "-o", "out")

    assert code == 1
    assert [file["status"] for file in lines_of(again)[0]] == [
        *("skipped", "failed", "skipped", "done", "done", "done")
    ]
    assert contents(here / "out") == expected


def test_a_run_may_be_stopped_before_it_began(here, row, on_cpu, server):
    """While files are being looked for there is nothing to count: one word and the code."""
    process = server.start(row, *on_cpu, "-o", "out", first=HOLD_THE_PLAN)
    await_that((here / "held").exists)
    process.send(signal.SIGTERM)

    assert process.wait() == 143
    assert (process.stdout, process.stderr) == ("", "interrupted\n")
    assert not (here / "out").exists()


def test_the_program_may_be_stopped_while_it_is_imported(monkeypatch, capsys):
    """One word as well, and no traceback."""

    class Program:
        def __getattr__(self, name):
            raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "srcli.cli.app", Program())

    with pytest.raises(SystemExit) as ended:
        main()

    assert (ended.value.code, capsys.readouterr().err) == (130, "interrupted\n")


def test_a_second_signal_ends_a_run_that_still_writes(here, row, on_cpu, server):
    """The first one waits for what is being written; the second one does not, and cleans up."""
    process = server.start(
        *(row, *on_cpu, "-o", "out", "--failed-list", "failed.txt"), first=HOLD_THE_WRITING
    )
    await_that((here / "held").exists)
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


def test_a_stdin_that_does_not_end_can_be_left(here, on_cpu, server):
    """Ctrl-C ends a run whose thread still waits for the picture to come."""
    os.mkfifo("pipe")
    process = server.start("-", *on_cpu, "-v", stdin=here / "pipe")
    await_that(lambda: " on cpu in " in process.stderr)
    time.sleep(0.2)
    process.send(signal.SIGINT)

    assert process.wait() == 130
    assert process.stdout == ""
    assert "\ninterrupted: 0 done, 0 skipped, 0 failed, 1 not begun" in process.stderr


def test_a_file_that_another_run_is_at_is_left_to_it(here, row, on_cpu, server):
    """It is skipped, the others are done; once that run is killed, its file is done as well."""
    command = [row, *on_cpu, "--skip-existing", "--json", "-o", "out/deeper"]
    first = server.start(*command, first=HOLD_THE_NET)
    await_that((here / "held").exists)

    second, code = server.run(*command)

    assert code == 1, "one is broken"
    lines = {Path(line["input"]).name: line for line in lines_of(second)[0]}
    assert lines["3.png"]["status"] == "skipped"
    assert lines["3.png"]["message"] == "out/deeper/3.png: another run is at it"
    assert [lines[f"{index}.png"]["status"] for index in (0, 2)] == ["skipped"] * 2
    assert [lines[f"{index}.png"]["status"] for index in (4, 5)] == ["done"] * 2
    first.send(signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL

    third, _ = server.run(*command)

    assert [line["status"] for line in lines_of(third)[0]].count("done") == 1
    assert sorted(contents(here / "out")) == [f"deeper/{index}.png" for index in (0, 2, 3, 4, 5)]


def test_a_full_disk_costs_the_files_that_do_not_fit(here, row, on_cpu, server):
    """The old file stays, the others are done, and the reason is named."""
    Path("out").mkdir()
    Path("out/5.png").write_bytes(b"old")
    Image.new("RGB", (20, 20), "red").save(row / "4.png")
    Image.new("RGB", (21, 20), "red").save(row / "0.png")
    limit = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (14_000, 14_000))\n"

    process, code = server.run(row, *on_cpu, "-o", "out", "--overwrite", first=limit)

    assert code == 1
    assert {
        name: len(Path("out", name).read_bytes()) < 14_000 for name in contents(here / "out")
    } == {
        "0.png": True,
        "4.png": True,
        "5.png": True,
    }
    assert Path("out/5.png").read_bytes() == b"old"
    lines = process.stderr.splitlines()
    assert ": 2 done, 0 skipped, 4 failed: " in lines[-1]
    assert re.fullmatch(r"error: .*out/5\.png.*(too large|disk).*", lines[-2]), lines[-2]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_stdout_is_one_line(row, on_cpu, server):
    """A picture or JSON that cannot be poured out ends with 1 and the reason."""
    picture, code = server.run(row / "0.png", *on_cpu, "-o", "-", stdout="/dev/full")

    assert code == 1
    assert re.fullmatch(r"error: .*stdout.*\n", picture.stderr)

    lines, code = server.run(row / "0.png", *on_cpu, "--json", stdout="/dev/full")

    assert code == 1
    assert lines.stderr.splitlines()[-1] == (
        "error: cannot write to stdout: No space left on device; choose another file"
    )


def test_a_terminal_gets_no_picture(row, on_cpu, server):
    """Bytes of an image would only garble it: wrong usage, before anything is computed."""
    pty = pytest.importorskip("pty")
    master, slave = pty.openpty()

    process, code = server.run(row / "0.png", *on_cpu, "-o", "-", stdout=os.ttyname(slave))

    assert code == 2
    assert process.stderr == "error: stdout is a terminal; redirect it or give --output\n"
    os.set_blocking(master, False)
    with pytest.raises(BlockingIOError):
        os.read(master, 1)
    os.close(slave)
    os.close(master)


CLOSED = "os.closerange(0, 3)\nsys.stdin = sys.stdout = sys.stderr = None"
FULL = "os.dup2(os.open('/dev/full', os.O_WRONLY), 2)" if Path("/dev/full").exists() else ""


@pytest.mark.parametrize("first", [CLOSED, FULL], ids=["no streams", "a full log"])
def test_streams_that_cannot_be_used_cost_no_file(here, row, on_cpu, server, first):
    """What cannot be said is not said; nothing is read or written where the streams were."""
    shutil.copytree(row, "before")

    _, code = server.run(row, *on_cpu, "-o", "out", first=first)

    assert code == 1
    assert contents(row) == contents(here / "before")
    assert [read(path).height for path in (here / "out").iterdir()] == [60] * 5
    if first == CLOSED:
        assert server.run("-", "-o", "a.png", *on_cpu, first=first)[1] == 1, "empty"


NO_STDOUT = "os.close(1)\nsys.stdout = None"
SHORT_STDOUT = """
import io, resource
resource.setrlimit(resource.RLIMIT_FSIZE, (999, 999))
short = open(1, "wb", buffering=0, closefd=False)
sys.stdout = sys.__stdout__ = io.TextIOWrapper(short, write_through=True)
"""


@pytest.mark.parametrize(
    ("option", "first"),
    [("--json", NO_STDOUT), ("-o-", NO_STDOUT), ("-o-", SHORT_STDOUT)],
    ids=["json", "picture", "unbuffered"],
)
def test_what_stdout_does_not_take_is_an_error(row, on_cpu, server, option, first):
    """A picture or JSON where it is closed, and a picture where it takes a part alone."""
    process, code = server.run(row / "0.png", *on_cpu, option, first=first)

    why = "Bad file descriptor" if first == NO_STDOUT else "too large"
    assert (code, why in process.stderr) == (1, True)


def test_a_reader_that_goes_away_ends_the_run(here, row, on_cpu, server):
    """``srcli upscale --json ... | head`` stops with whole files, and says what is left."""
    first = "reader, writer = os.pipe()\nos.dup2(writer, 1)\nos.close(reader)\nos.close(writer)"

    process, code = server.run(row, *on_cpu, "-o", "out", "--json", "-q", first=first)

    assert code == 1
    assert process.stderr == (
        "error: nobody reads stdout any more: 1 done, 0 skipped, 0 failed, "
        "5 not begun or unfinished; the same command with --skip-existing resumes\n"
    )
    assert all(read(path).height == 60 for path in (here / "out").iterdir())


@pytest.mark.usefixtures("here")
@needs_proc
def test_memory_does_not_grow_with_the_files(on_cpu, server):
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

    assert server.run("many", *on_cpu, "--json", "-q", first=first)[1] == 0

    sizes = [int(size) for size in Path("sizes").read_text().split()]
    assert len(sizes) == 171
    # Kilobytes, at their lowest: between two times that memory is given back it rises. The results
    # alone would be 7 MB, if they stayed.
    assert min(sizes[110:]) - min(sizes[20:80]) < 3 * 1024
