"""``srcli upscale`` in a shell and in scripts: streams, lists of failures, JSON, dry runs."""

import os
import re
import shutil
import stat
import sys
import threading
from pathlib import Path

import command_runs
import pytest
from command_runs import lines_of
from command_runs import run_upscale as run
from PIL import Image
from run_files import contents

from srcli.imaging import images
from srcli.upscaler import Upscaler

pytestmark = pytest.mark.usefixtures("desk")

ROOT = Path(__file__).parents[1]


def test_a_picture_too_large_for_the_memory_has_a_code_of_its_own(monkeypatch):
    """Out of memory alone is 5; beside another failure it is one of several, 1."""

    def fails(*_, **__):
        raise MemoryError

    monkeypatch.setattr(images, "read_album", fails)

    assert run("in/a.png", "in/b.jpg").exit_code == 5
    assert run("in/a.png", "in/a.png/b.png", "-o", "out").exit_code == 1


@pytest.mark.parametrize(
    ("source", "options"),
    [("in/a.png", []), ("in/a.png", ["-f", "webp", "--lossless"])],
)
def test_what_is_piped_through_is_what_a_file_gets(source, options):
    """Stdin to stdout, file to stdout and stdin to file give the very same bytes."""
    suffix = f".{options[1]}" if options else Path(source).suffix
    data = Path(source).read_bytes()
    run(source, *options, "-o", f"file{suffix}")
    expected = Path(f"file{suffix}").read_bytes()

    through = run("-", *options, input=data)
    out = run(source, *options, "-o", "-")
    run("-", *options, "-o", f"stdin{suffix}", input=data)

    assert through.exit_code == 0, through.stderr
    assert through.stdout_bytes == out.stdout_bytes == expected
    assert Path(f"stdin{suffix}").read_bytes() == expected


@pytest.mark.skipif(sys.platform == "win32", reason="no pipes with names")
@pytest.mark.parametrize("options", [["-n", "--size", "13x"], ["--size", "13x", "--keep-times"]])
def test_a_pipe_is_read_once(monkeypatch, options):
    """What looks ahead leaves ``<(...)`` of a shell alone, also in one of several processes."""
    data = Path("in/a.png").read_bytes()
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    os.mkfifo("pipe.png")
    threading.Thread(target=Path("pipe.png").write_bytes, args=[data], daemon=True).start()

    result = run("pipe.png", "-o", "out.png", *options)

    assert result.exit_code == 0, result.stderr
    assert Path("out.png").exists() is ("-n" not in options)


@pytest.mark.skipif(os.name != "posix", reason="Windows has other permissions")
def test_a_result_has_the_permissions_of_a_new_file():
    """Those that the user's mask leaves, not those of a private temporary file."""
    previous = os.umask(0o027)
    try:
        run("in/a.png")
    finally:
        os.umask(previous)

    assert stat.S_IMODE(Path("in/a_x3.png").stat().st_mode) == 0o640


def test_quiet_leaves_errors_alone():
    """Neither results, nor what was skipped or changed, nor a summary: the failure alone."""
    result = run("in", "-r", "-q")

    assert (result.exit_code, result.stdout) == (1, "")
    assert re.fullmatch(r"error: in/broken\.png: .*\n", result.stderr)


@pytest.mark.parametrize(
    ("shell", "typed", "expected"),
    [
        ("bash", "srcli ", {"upscale", "eval", "train", "models", "export"}),
        ("zsh", "srcli upscale --ski", {"--skip-existing"}),
        ("fish", "srcli upscale --model t", {"tiny"}),
        ("bash", "srcli upscale -m ", {"auto", "tiny", "mine.safetensors"}),
        ("zsh", "srcli upscale --metadata ", {"keep", "no-location", "strip"}),
        ("bash", "srcli eval ", {"celeba", "stl10", "in/"}),
        ("bash", "srcli train --recipe f", {"faces", "fast"}),
        ("bash", "srcli train --set loss", {"loss="}),
    ],
)
def test_the_shell_completes(shell, typed, expected):
    """Commands, options and their values, by the protocol of each shell."""
    Path("mine.safetensors").touch()
    words = typed.split(" ")
    environment = {
        "_SRCLI_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": typed,
        "COMP_CWORD": str(len(words) - 1),
        "_TYPER_COMPLETE_ARGS": typed,
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }

    result = command_runs.run(env=environment)

    assert result.exit_code == 0, result.output
    if shell == "zsh":
        found = set(re.findall(r'"([\w-]+)"?', re.sub(r'":"[^"]*', "", result.stdout)))
    else:
        found = {line.split("\t")[0] for line in result.stdout.splitlines() if line.strip()}
    assert found == expected, result.stdout


@pytest.mark.parametrize(
    ("source", "options", "target"),
    [
        ("in", ["-r", "-o", "out"], "out/broken.png"),
        ("in/*.png", [], "in/broken_x3.png"),
        ("in/broken.png", ["-o", "out.png"], "out.png"),
    ],
)
def test_a_list_of_failures_puts_results_where_they_belonged(source, options, target):
    """The same command with ``@LIST`` instead of the inputs does what was left, and only that."""
    assert run(source, *options, "--failed-list", "failed.txt").exit_code == 1
    before = contents(Path())
    shutil.copy("in/a.png", "in/broken.png")

    result = run("@failed.txt", *options, "--failed-list", "failed.txt")

    assert result.exit_code == 0, result.stderr
    made = {name for name, content in contents(Path()).items() if before.get(name) != content}
    assert made == {target, "in/broken.png", "failed.txt"}
    assert images.read_size(Path(target)) == (39, 33)
    assert Path("failed.txt").read_bytes() == b""
    assert run("@failed.txt").stderr == ("error: no image found in @failed.txt; check the path\n")


def test_what_would_replace_something_else_is_not_listed():
    """It counts and is named; given back with ``--overwrite`` it would cost an input."""
    shutil.copy("in/a.png", "in/b.png")
    shutil.copy("in/a.png", "a_x3.png")
    shutil.copy("in/a.png", "a.png")
    inputs = ["a.png", "a_x3.png", "in/b.jpg", "in/b.png", "in/broken.png"]
    options = ["-f", "png", "--failed-list", "failed.txt", "--json"]

    result = run(*inputs, *options)

    assert result.exit_code == 1
    lines, summary = lines_of(result)
    assert [line["status"] for line in lines] == ["failed", "done", "failed", "failed", "failed"]
    failed = ["a.png", "in/b.jpg", "in/b.png", "in/broken.png"]
    assert summary["failed_inputs"] == failed
    assert len(result.stderr.splitlines()) == 4
    assert Path("failed.txt").read_text().splitlines() == failed[1:]
    before = contents(Path())

    assert run("@failed.txt", *options, "--overwrite").exit_code == 1
    assert contents(Path()) == before


def test_fail_fast_keeps_the_list_that_it_reads():
    """What was not begun is still in it; another list names the failure alone."""
    Path("list.txt").write_text("in/broken.png\nin/a.png\nin/b.jpg\nin/sub/c.png\n")
    listed = Path("list.txt").read_bytes()

    result = run("@list.txt", "--fail-fast", "--failed-list", "list.txt")

    assert result.exit_code == 1
    assert re.fullmatch(
        r"(.* s: )?\d done, 0 skipped, 1 failed, \d not begun: in/broken.png",
        result.stderr.splitlines()[-1],
    )
    assert Path("list.txt").read_bytes() == listed

    run("@list.txt", "--fail-fast", "--failed-list", "other.txt", "--overwrite")

    assert Path("other.txt").read_text() == "in/broken.png\n"


ODD_NAMES = [
    *(" ", "-r", "two\nlines", "car\rriage", "@list", "[red]*?", "{scale}", "'\"$(id)"),
    *("\x1b[31mred", "x" * 251, os.fsdecode(b"\xff\xfe"), "a\N{COMBINING DIAERESIS}\N{SNOWMAN}"),
]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_odd_names_are_done_reported_and_listed():
    """Whatever a file is called: its result has the name, its line is one, and it can be listed."""
    Path("odd").mkdir()
    for name in ODD_NAMES:
        Path("odd", f"{name}.png").write_bytes(b"broken")

    result = run("odd", "--failed-list", "failed.txt", "--json")

    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == len(ODD_NAMES)
    assert all(line.isprintable() for line in result.stderr.splitlines())
    assert len(lines_of(result)[0]) == len(ODD_NAMES)
    for name in ODD_NAMES:
        shutil.copy("in/sub/c.png", f"odd/{name}.png")

    again = run("@failed.txt", "--json")

    assert again.exit_code == 0, again.stderr
    assert sorted(contents(Path("odd_x3"))) == sorted(f"{name}.png" for name in ODD_NAMES)
    assert all(line.isprintable() for line in again.stderr.splitlines())


def documented():
    """The fields that docs/upscale.md promises: of a file, and of the summary."""
    text = (ROOT / "docs/upscale.md").read_text(encoding="utf-8")
    _, *tables = re.split(r"\| field of .*\n", text)
    firsts = [
        re.findall(r"^\| (`.*?) \|", table.split("\n\n")[0], re.MULTILINE) for table in tables
    ]
    return [re.findall(r"`(\w+)`", " ".join(cells)) for cells in firsts]


def test_json_has_the_documented_fields():
    """One object a file in the order of the inputs, then the summary; nothing else on stdout."""
    shutil.copy("in/a.png", "in/a_x3.png")
    inputs = ["in/b.jpg", "in/a.png", "in/broken.png", "gone.png", "in/sub/c.png"]
    Path("in/sub/c_x3.png").write_bytes(b"there")

    result = run(*inputs, "--json", "--skip-existing", "-v")

    lines, summary = lines_of(result)
    fields, totals = documented()
    assert all(sorted(line) == sorted(fields) for line in lines)
    assert sorted(summary) == sorted(totals)
    assert [line["input"] for line in lines] == [line["entry"] for line in lines] == inputs
    assert [(line["status"], line["exit_code"], bool(line["message"])) for line in lines] == [
        *(("done", 0, False), ("skipped", 0, True), ("failed", 1, True)),
        *(("failed", 1, True), ("skipped", 0, True)),
    ]
    done = lines[0]
    assert (done["width"], done["height"]) == (16, 9)
    assert (done["output_width"], done["output_height"]) == (48, 27)
    assert (done["output"], done["pictures"], done["model"]) == ("in/b_x3.jpg", 1, "tiny")
    assert done["seconds"] > 0
    assert summary["seconds"] > 0
    counts = {"planned": 0, "done": 1, "skipped": 2, "failed": 2, "unfinished": 0, "exit_code": 1}
    assert counts.items() <= summary.items()
    assert (summary["megapixels"], summary["rank"], summary["world_size"]) == (0.001, 0, 1)
    assert [summary[name] for name in ("patches", "memory", "disk", "disk_free")] == [None] * 4
    assert summary["failed_inputs"] == ["in/broken.png", "gone.png"]
    assert result.exit_code == 1


def test_a_dry_run_writes_nothing_and_estimates_the_run():
    """Its fields are documented; sizes, frames and failures are those of the run after it."""
    frames = [Image.new("L", (8, 6), level) for level in (0, 90, 200)]
    frames[0].save("in/moving.gif", save_all=True, append_images=frames[1:], duration=50)
    before = contents(Path())

    dry = run("in", "-r", "-n", "--json", "--failed-list", "failed.txt")

    assert contents(Path()) == before
    assert not Path("in_x3").exists()
    planned, totals = lines_of(dry)
    fields, whole = map(sorted, documented())
    assert all(sorted(line) == fields for line in planned)
    assert sorted(totals) == whole

    real = run("in", "-r", "--json")

    same = {"input", "output", "entry", "width", "height", "output_width", "output_height"}
    same |= {"pictures", "model", "model_reason"}
    done, summary = lines_of(real)
    good = [line["status"] != "failed" for line in done]
    assert [line["status"] == "planned" for line in planned] == good
    for estimated, found, is_good in zip(planned, done, good, strict=True):
        assert {name: estimated[name] for name in same} == {name: found[name] for name in same}
        assert estimated["patches"] == (found["pictures"] if is_good else None)
        assert ((estimated["memory"] or 0) > 1e8) == is_good
        assert ((estimated["disk"] or 0) > 0) == is_good
        assert estimated["seconds"] >= 0  # of a tiny net, it may be less than a thousandth
        assert is_good or not estimated["seconds"]
    assert (totals["planned"], totals["failed"]) == (summary["done"], summary["failed"]) == (4, 1)
    assert totals["patches"] == 6
    assert totals["disk"] == sum(line["disk"] or 0 for line in planned) < totals["disk_free"]
    assert totals["seconds"] == pytest.approx(sum(line["seconds"] for line in planned), abs=0.01)
    assert dry.exit_code == real.exit_code == 1


def test_a_dry_run_reports_the_time_of_each_and_of_all(monkeypatch):
    """A blink in tenths of a second, a night in hours; and room on the disk."""
    for seconds, one, both in ((4.2, "4.2 s", "8.4 s"), (5700, "95 min", "3 h 10 min")):
        monkeypatch.setattr(Upscaler, "seconds", lambda *_, seconds=seconds: seconds)

        first, second, total = run("in/a.png", "in/sub/c.png", "-n").stderr.splitlines()

        assert first.endswith(f"1 patches, about 0.3 GB of memory, 1 kB on disk, {one}")
        assert second.endswith(f"1 patches, about 0.3 GB of memory, 116 bytes on disk, {one}")
        assert re.search(r"2 patches, about 0\.3 GB of memory, 2 kB on disk \(.*\) and ", total)
        assert total.endswith(f" free) and {both}")
