"""``srcli upscale`` in a script: lists of failures, the objects of ``--json``, dry runs."""

import os
import re
import shutil
import sys
from pathlib import Path

import pytest
from PIL import Image
from run_files import contents
from upscale_runs import lines_of, run

from srcli.imaging import images
from srcli.upscaler import Upscaler

pytestmark = pytest.mark.usefixtures("desk")

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("arguments", "target"),
    [
        (["in", "-r", "-o", "out"], "out/broken.png"),
        (["in/*.png"], "in/broken_x3.png"),
        (["in/broken.png", "-o", "out.png"], "out.png"),
    ],
)
def test_a_list_of_failures_puts_results_where_they_belonged(arguments, target):
    """The same command with ``@LIST`` instead of the inputs does what was left, and only that."""
    options = [part for part in arguments if part.startswith("-")]
    options += arguments[arguments.index("-o") + 1 :] if "-o" in arguments else []
    assert run(*arguments, "--failed-list", "failed.txt").exit_code == 1
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
    """It counts and is named; given back with ``--overwrite`` it would cost an input.

    ``b.jpg`` and ``b.png`` want one name, ``a.png`` that of another input.
    """
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
