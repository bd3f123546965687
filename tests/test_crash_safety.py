"""A run that is killed, stopped or run twice at once: nothing is lost."""

import os
import signal
import time
from pathlib import Path

import pytest
from batch_files import picture
from run_files import await_that, contents

from srcli.files import TEMPORARY_SUFFIX

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

ROOT = Path(__file__).parents[1]
NAMES = ("a.jpg", "b.png", "c.webp", "d.tif", "e.gif", "sub/f.jpg", "sub/g.png", "sub/deep/h.png")
MOMENTS = 8


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
    (out / "sub" / f".e1bfefa774fd{TEMPORARY_SUFFIX}").touch()  # killed behind the last result
    assert server.run(photos, *options, "--output", out)[1] == 0
    assert contents(out) == expected


def test_a_run_killed_while_it_writes_leaves_no_temporary_file(here, row, on_cpu, server):
    """The unfinished file that SIGKILL leaves is seen, and gone after the next run."""
    command = [row, *on_cpu, "--skip-existing", "-o", "out"]
    process = server.start(*command, first=HOLD_THE_WRITING)
    await_that((here / "held").exists)
    process.send(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    left = list((here / "out").iterdir())
    assert len(left) == 2, "the claim and the file"
    assert all(path.name.endswith(TEMPORARY_SUFFIX) for path in left)

    assert server.run(*command)[1] == 1

    assert sorted(contents(here / "out")) == ["0.png", "2.png", "3.png", "4.png", "5.png"]


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
    files, summary = process.lines
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
    assert [file["status"] for file in again.lines[0]] == [
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
    lines = {Path(line["input"]).name: line for line in second.lines[0]}
    assert lines["3.png"]["status"] == "skipped"
    assert lines["3.png"]["message"] == "out/deeper/3.png: another run is at it"
    assert [lines[f"{index}.png"]["status"] for index in (0, 2)] == ["skipped"] * 2
    assert [lines[f"{index}.png"]["status"] for index in (4, 5)] == ["done"] * 2
    first.send(signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL

    third, _ = server.run(*command)

    assert [line["status"] for line in third.lines[0]].count("done") == 1
    assert sorted(contents(here / "out")) == [f"deeper/{index}.png" for index in (0, 2, 3, 4, 5)]
