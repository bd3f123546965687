"""What the system does to a run: full disks, closed streams, readers that go away, memory."""

import os
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image
from run_files import contents, needs_proc

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


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


def test_a_daemon_without_any_stream_does_its_work(here, row, on_cpu, server):
    """Started with all three closed, nothing is read or written where they were."""
    shutil.copytree(row, "before")
    first = "os.closerange(0, 3)\nsys.stdin = sys.stdout = sys.stderr = None"

    _, code = server.run(row, *on_cpu, first=first)

    assert code == 1
    assert contents(row) == contents(here / "before")
    assert sorted(contents(here / "row_x3")) == ["0.png", "2.png", "3.png", "4.png", "5.png"]
    for path in (here / "row_x3").iterdir():
        with Image.open(path) as image:
            image.load()
    assert server.run("-", "-o", "a.png", *on_cpu, first=first)[1] == 1, "empty"


def test_a_log_on_a_full_disk_loses_no_file(here, row, on_cpu, server):
    """What cannot be said on stderr is not said, and the work is done."""
    first = "os.dup2(os.open('/dev/full', os.O_WRONLY), 2)" if Path("/dev/full").exists() else ""

    _, code = server.run(row, *on_cpu, "-o", "out", first=first)

    assert code == 1
    assert len(contents(here / "out")) == 5


def test_a_reader_that_goes_away_ends_the_run(here, row, on_cpu, server):
    """``srcli upscale --json ... | head`` stops as pipes do: quietly, with whole files."""
    first = "reader, writer = os.pipe()\nos.dup2(writer, 1)\nos.close(reader)\nos.close(writer)"

    process, code = server.run(row, *on_cpu, "-o", "out", "--json", "-q", first=first)

    assert code == 1
    assert "Traceback" not in process.stderr
    for path in (here / "out").iterdir():
        with Image.open(path) as image:
            image.load()


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
