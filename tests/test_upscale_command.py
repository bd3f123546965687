"""``srcli upscale`` as a script uses it: lists, JSON, codes, streams, help, completion."""

import json
import os
import re
import shutil
import stat
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from typer.testing import CliRunner

from srcli import files
from srcli.cli.app import app
from srcli.cli.console import say
from srcli.cli.options import complete_model
from srcli.errors import WeightsError
from srcli.imaging import images
from srcli.upscaler import Upscaler
from srcli.upscaling import folders
from srcli.upscaling.config import BatchConfig
from srcli.upscaling.selection import Selection

ROOT = Path(__file__).parents[1]
EXACT = ("-m", "tiny", "--device", "cpu", "--dtype", "fp32", "-j", "1")


@pytest.fixture
def desk(tmp_path, monkeypatch, tiny_weights):
    """A working directory with a folder ``in`` of pictures, one of them broken.

    The weights that are shipped are one file called ``tiny``.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(files, "shipped", lambda: {"tiny": tiny_weights})
    Path("in/sub").mkdir(parents=True)
    draw = np.random.default_rng(3)
    for name, shape in (("a.png", (11, 13, 3)), ("b.jpg", (9, 16, 3)), ("sub/c.png", (7, 5))):
        Image.fromarray(draw.integers(0, 256, shape, dtype=np.uint8)).save(Path("in", name))
    Path("in/broken.png").write_bytes(b"broken")
    return tmp_path


def run(*arguments, **options):
    """Run ``srcli upscale`` in this process; an error that is not ours fails the test."""
    command = ["upscale", *map(str, arguments), *EXACT]
    return CliRunner().invoke(app, command, catch_exceptions=False, prog_name="srcli", **options)


def mend():
    """Put a picture where the broken one was."""
    shutil.copy("in/a.png", "in/broken.png")


def tree(folder="."):
    """Every file below a folder with its content."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(Path(folder).rglob("*"))
        if path.is_file()
    }


def lines_of(result):
    """The objects of ``--json``: those of the files, and the summary."""
    *lines, summary = map(json.loads, result.stdout.splitlines())
    return lines, summary


# ---- the list of failures -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "target"),
    [
        (["in", "-r"], "in_x3/broken.png"),
        (["in", "-r", "-o", "out"], "out/broken.png"),
        (["in/./broken.png", "in/a.png", "-o", "out"], "out/broken.png"),
        (["in/broken.png", "in/a.png"], "in/broken_x3.png"),
        (["in/*.png"], "in/broken_x3.png"),
        (["in/broken.png", "-o", "out.png"], "out.png"),
    ],
)
@pytest.mark.usefixtures("desk")
def test_a_list_of_failures_puts_results_where_they_belonged(arguments, target):
    """The same command with ``@LIST`` instead of the inputs does what was left, and only that."""
    options = [part for part in arguments if part.startswith("-")]
    options += arguments[arguments.index("-o") + 1 :] if "-o" in arguments else []
    assert run(*arguments, "--failed-list", "failed.txt").exit_code == 1
    before = tree()
    mend()

    result = run("@failed.txt", *options, "--failed-list", "failed.txt")

    assert result.exit_code == 0, result.stderr
    made = {name for name, content in tree().items() if before.get(name) != content}
    assert made == {target, "in/broken.png", "failed.txt"}
    assert Path("failed.txt").read_bytes() == b""
    assert images.read_size(Path(target)) == (39, 33)


@pytest.mark.usefixtures("desk")
def test_a_list_is_empty_where_nothing_failed():
    """A script can look for its size; given back it is nothing to do."""
    Path("failed.txt").write_text("in/old.png\n")

    assert run("in/a.png", "--failed-list", "failed.txt").exit_code == 0
    assert Path("failed.txt").read_bytes() == b""

    result = run("@failed.txt")

    assert result.exit_code == 3
    assert result.stderr == "error: no image found in @failed.txt (folders below it need -r)\n"


@pytest.mark.usefixtures("desk")
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
    assert result.stderr.splitlines()[-1].endswith(f"4 failed: {', '.join(failed)}")
    assert Path("failed.txt").read_text().splitlines() == failed[1:]
    before = tree()

    assert run("@failed.txt", *options, "--overwrite").exit_code == 1
    assert tree() == before


@pytest.mark.parametrize(
    ("path", "code", "message"),
    [
        ("in", 1, "cannot write in: it is a folder; give another --failed-list"),
        ("no/a.txt", 1, "cannot write no/a.txt: no is no writable folder; give another …"),
        ("in/a.png", 2, "--failed-list in/a.png is named like an image; give a name such as …"),
        ("new.JPG", 2, "--failed-list new.JPG is named like an image; give a name such as …"),
    ],
)
@pytest.mark.usefixtures("desk")
def test_a_list_that_could_not_be_written_is_refused_at_once(path, code, message):
    """Not after the night; and no photo is replaced where the list's name was forgotten."""
    before = tree()

    result = run("in", "-r", "--failed-list", path)

    assert result.exit_code == code
    assert result.stderr.startswith(f"error: {message.removesuffix('…')}")
    assert tree() == before


@pytest.mark.usefixtures("desk")
def test_fail_fast_keeps_the_list_that_it_reads():
    """What was not begun is still in it; another list names the failure alone."""
    Path("list.txt").write_text("in/broken.png\nin/a.png\nin/b.jpg\nin/sub/c.png\n")
    listed = Path("list.txt").read_bytes()

    result = run("@list.txt", "--fail-fast", "--failed-list", "list.txt")

    assert result.exit_code == 1
    assert re.fullmatch(
        r"\d done, 0 skipped, 1 failed, \d not begun: in/broken.png",
        result.stderr.splitlines()[-1],
    )
    assert Path("list.txt").read_bytes() == listed

    run("@list.txt", "--fail-fast", "--failed-list", "other.txt", "--overwrite")

    assert Path("other.txt").read_text() == "in/broken.png\n"


ODD_NAMES = [
    " ",
    "-r",
    "two\nlines",
    "car\rriage",
    "@list",
    "[red]*?",
    "\N{LATIN SMALL LETTER A WITH DIAERESIS}\N{SNOWMAN}",
    os.fsdecode(b"\xff\xfe"),
    "x" * 251,
    "{scale}",
    "'\"$(id)",
    "\x1b[31mred",
    "a" + "\N{COMBINING DIAERESIS}",
]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
@pytest.mark.usefixtures("desk")
def test_odd_names_are_done_told_and_listed():
    """Whatever a file is called: its result has the name, its line is one, and it can be listed."""
    Path("odd").mkdir()
    for name in ODD_NAMES:
        Path("odd", f"{name}.png").write_bytes(b"broken")

    result = run("odd", "--failed-list", "failed.txt", "--json")

    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == len(ODD_NAMES) + 1
    assert all(line.isprintable() for line in result.stderr.splitlines())
    assert len(lines_of(result)[0]) == len(ODD_NAMES)
    for name in ODD_NAMES:
        shutil.copy("in/sub/c.png", f"odd/{name}.png")

    again = run("@failed.txt", "--json")

    assert again.exit_code == 0, again.stderr
    assert sorted(tree("odd_x3")) == sorted(f"{name}.png" for name in ODD_NAMES)
    assert all(line.isprintable() for line in again.stderr.splitlines())


# ---- JSON ---------------------------------------------------------------------------------


def documented():
    """The fields that docs/upscale.md promises: of a file, and of the summary."""
    text = (ROOT / "docs/upscale.md").read_text(encoding="utf-8")
    tables = re.split(r"\| field of .*\n", text)[1:]
    return [
        [name for row in table.split("\n\n")[0].splitlines() for name in names_in(row)]
        for table in tables
    ]


def names_in(row):
    """The names in the first cell of a table's row."""
    return re.findall(r"`(\w+)`", row.split("|")[1])


@pytest.mark.usefixtures("desk")
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
    assert [line["status"] for line in lines] == ["done", "skipped", "failed", "failed", "skipped"]
    assert [line["exit_code"] for line in lines] == [0, 0, 1, 1, 0]
    assert [bool(line["message"]) for line in lines] == [False, True, True, True, True]
    done = lines[0]
    assert (done["width"], done["height"]) == (16, 9)
    assert (done["output_width"], done["output_height"]) == (48, 27)
    assert (done["output"], done["pictures"], done["model"]) == ("in/b_x3.jpg", 1, "tiny")
    assert done["seconds"] > 0
    assert summary["seconds"] > 0
    assert {name: summary[name] for name in totals if name != "seconds"} == {
        "summary": True,
        "planned": 0,
        "patches": None,
        "memory": None,
        "done": 1,
        "skipped": 2,
        "failed": 2,
        "unfinished": 0,
        "megapixels": 0.001,
        "failed_inputs": ["in/broken.png", "gone.png"],
        "exit_code": 1,
        "rank": 0,
        "world_size": 1,
    }
    assert result.exit_code == 1


@pytest.mark.parametrize("options", [["-q"], ["-v"], ["-n"]])
@pytest.mark.usefixtures("desk")
def test_json_is_all_that_is_on_stdout(options):
    """However much is told, every line of stdout is an object."""
    result = run("in", "-r", "--json", *options)

    lines, summary = lines_of(result)
    assert (len(lines), summary["summary"]) == (4, True)
    assert result.exit_code == summary["exit_code"] == 1


@pytest.mark.usefixtures("desk")
def test_a_dry_run_writes_nothing_and_estimates_the_run():
    """Its fields are documented; sizes, frames and failures are those of the run after it."""
    frames = [Image.new("L", (8, 6), level) for level in (0, 90, 200)]
    frames[0].save("in/moving.gif", save_all=True, append_images=frames[1:], duration=50)
    before = tree()

    dry = run("in", "-r", "-n", "--json", "--failed-list", "failed.txt")

    assert tree() == before
    assert not Path("in_x3").exists()
    planned, totals = lines_of(dry)
    fields, whole = documented()
    assert all(sorted(line) == sorted(fields) for line in planned)
    assert sorted(totals) == sorted(whole)

    real = run("in", "-r", "--json")

    same = {"input", "output", "entry", "width", "height", "output_width", "output_height"}
    same |= {"pictures", "model", "model_reason"}
    done, summary = lines_of(real)
    good = [line["status"] != "failed" for line in done]
    assert [line["status"] == "planned" for line in planned] == good
    for estimated, told, is_good in zip(planned, done, good, strict=True):
        assert {name: estimated[name] for name in same} == {name: told[name] for name in same}
        assert estimated["patches"] == (told["pictures"] if is_good else None)
        assert ((estimated["memory"] or 0) > 1e8) == is_good
        assert (estimated["seconds"] > 0) == is_good
    assert (totals["planned"], totals["failed"]) == (summary["done"], summary["failed"]) == (4, 1)
    assert totals["patches"] == 6
    assert totals["seconds"] == pytest.approx(sum(line["seconds"] for line in planned), abs=0.01)
    assert dry.exit_code == real.exit_code == 1


@pytest.mark.usefixtures("desk")
def test_a_dry_run_of_what_is_there_has_nothing_to_do():
    """``--skip-existing`` is estimated too."""
    run("in/a.png")

    result = run("in/a.png", "-n", "--skip-existing")

    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr.splitlines() == [
        "skipped: in/a_x3.png is there already",
        "0 to do, 1 skipped, 0 failing: 0 megapixels, 0 patches, about 0.0 GB of memory and 0.0 s",
    ]


@pytest.mark.parametrize(
    ("seconds", "one", "both"),
    [
        (4.2, "4.2 s", "8.4 s"),
        (70, "70 s", "2 min"),
        (3600, "60 min", "2.0 h"),
    ],
)
@pytest.mark.usefixtures("desk")
def test_a_dry_run_tells_the_time_of_each_and_of_all(seconds, one, both, monkeypatch):
    """A blink in tenths of a second, a night in hours."""
    monkeypatch.setattr(Upscaler, "seconds", lambda *_: seconds)

    result = run("in/a.png", "in/sub/c.png", "-n")

    first, second, total = result.stderr.splitlines()
    assert first.endswith(f"1 patches, about 0.3 GB, {one}")
    assert second.endswith(f"1 patches, about 0.3 GB, {one}")
    assert total.endswith(f"2 patches, about 0.3 GB of memory and {both}")


@pytest.mark.parametrize("error", [MemoryError(), WeightsError("not finite")])
@pytest.mark.usefixtures("desk")
def test_a_dry_run_fails_where_the_net_would(error, monkeypatch):
    """Each file has its line, as in the run."""

    def fails(*_):
        raise error

    monkeypatch.setattr(Upscaler, "seconds", fails)
    monkeypatch.setattr(Upscaler, "bands", fails)

    dry = run("in/a.png", "in/sub/c.png", "-n")
    real = run("in/a.png", "in/sub/c.png")

    assert dry.stderr.splitlines()[:2] == real.stderr.splitlines()[:2]
    assert dry.exit_code == real.exit_code


# ---- codes --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["in/a.png"], 0),
        (["in/a.png", "-o", "out.webp"], 0),
        (["in", "-r"], 1),
        (["in/a.png", "-s", "0"], 2),
        (["in/a.png", "--json", "-o", "-"], 2),
        (["-", "@-"], 2),
        (["in/a.png", "in/b.jpg", "-o", "-"], 2),
        (["in", "-o", "-"], 2),
        (["-", "in/a.png"], 2),
        (["in/a.png", "--size", "3x3"], 0),
        (["in/a.png", "--size", "wide"], 2),
        (["in/a.png", "--size", "9x9", "-s", "2"], 2),
        (["in/sub", "--include", "*.gif"], 3),
        (["in/a.png", "-m", "other"], 4),
        (["in/a.png", "--device", "cuda"], 5),
        (["in/a.png", "in/broken.png", "--device", "cuda:3"], 5),
    ],
)
@pytest.mark.usefixtures("desk")
def test_the_exit_code_tells_what_happened(monkeypatch, arguments, code):
    """As the README has them; those from 2 on leave nothing behind."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    before = tree()
    options = [*EXACT[2:], "-m", "tiny"]
    if "-m" in arguments:
        options = options[:-2]
    if "--device" in arguments:
        options = options[2:]

    result = CliRunner().invoke(app, ["upscale", *arguments, *options], catch_exceptions=False)

    assert result.exit_code == code, result.stderr
    assert "Traceback" not in result.output
    if code > 1:
        assert result.stderr.count("\n") == 1
        assert tree() == before


@pytest.mark.usefixtures("desk")
def test_a_picture_too_large_for_the_memory_has_a_code_of_its_own(monkeypatch):
    """Out of memory alone is 5; beside another failure it is one of several, 1."""
    monkeypatch.setattr(images, "read_album", _no_memory)

    assert run("in/a.png").exit_code == 5
    assert run("in/a.png", "in/b.jpg").exit_code == 5
    assert run("in/a.png", "in/a.png/b.png", "-o", "out").exit_code == 5
    assert run("in/a.png", "-o", "in/a.png").exit_code == 1


def _no_memory(*_arguments, **_options):
    raise MemoryError


# ---- streams ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "options", "format_name"),
    [
        ("in/a.png", [], "PNG"),
        ("in/b.jpg", ["-f", "png"], "PNG"),
        ("in/a.png", ["-f", "webp", "--lossless"], "WEBP"),
    ],
)
@pytest.mark.usefixtures("desk")
def test_what_is_piped_through_is_what_a_file_gets(source, options, format_name):
    """Stdin to stdout, file to stdout and stdin to file give the very same bytes."""
    suffix = f".{options[1]}" if options else Path(source).suffix
    data = Path(source).read_bytes()
    run(source, *options, "-o", f"file{suffix}")
    expected = Path(f"file{suffix}").read_bytes()

    through = run("-", *options, input=data)
    out = run(source, *options, "-o", "-")
    run("-", *options, "-o", f"stdin{suffix}", input=data)

    assert through.exit_code == 0, through.stderr
    assert through.stdout_bytes == expected
    assert out.stdout_bytes == expected
    assert Path(f"stdin{suffix}").read_bytes() == expected
    with Image.open(BytesIO(expected)) as image:
        assert image.format == format_name


@pytest.mark.parametrize("data", [b"", b"no picture", b"\x89PNG\r\n\x1a\n"])
@pytest.mark.usefixtures("desk")
def test_a_stdin_that_is_no_picture_fails(data):
    """One line, code 1, and nothing on stdout that could be taken for a picture."""
    result = run("-", input=data)

    assert (result.exit_code, result.stdout_bytes) == (1, b"")
    assert result.stderr.startswith("error: -: ")
    assert result.stderr.count("\n") == 1


@pytest.mark.usefixtures("desk")
def test_a_list_may_come_from_stdin():
    """``find ... -print0 | srcli upscale @-`` does what is named, a name with a line break too."""
    Path("in/a.png").rename("in/a\nb.png")

    result = run("@-", "-o", "out", input=b"in/a\nb.png\0in/b.jpg\0")

    assert result.exit_code == 0, result.stderr
    assert sorted(tree("out")) == ["a\nb.png", "b.jpg"]


@pytest.mark.usefixtures("desk")
def test_a_list_does_not_name_lists():
    """``@other`` in a list is a file of that name: names from elsewhere have no power."""
    Path("inner.txt").write_text("in/a.png\n")
    Path("outer.txt").write_text("@inner.txt\n")

    result = run("@outer.txt")

    assert result.exit_code == 1
    assert result.stderr.startswith("error: @inner.txt: no such file")


# ---- what is on the disk ------------------------------------------------------------------


@pytest.mark.usefixtures("desk")
def test_an_empty_file_that_is_there_is_there():
    """Srcli never leaves one, so somebody else did: it is skipped, or replaced when asked."""
    Path("in/a_x3.png").touch()

    assert run("in/a.png", "--skip-existing").exit_code == 0
    assert Path("in/a_x3.png").read_bytes() == b""
    assert run("in/a.png", "--overwrite").exit_code == 0
    assert images.read_size(Path("in/a_x3.png")) == (39, 33)


@pytest.mark.usefixtures("desk")
def test_a_file_that_vanishes_costs_only_itself(monkeypatch):
    """What was there when the list was made and is gone now has its line."""
    real = images.read_album

    def read(path, *arguments, **options):
        Path("in/b.jpg").unlink(missing_ok=True)
        return real(path, *arguments, **options)

    monkeypatch.setattr(images, "read_album", read)

    result = run("in", "-r", "-o", "out")

    assert result.exit_code == 1
    assert "error: in/b.jpg: no such file; check the path" in result.stderr.splitlines()
    assert sorted(tree("out")) == ["a.png", "sub/c.png"]


@pytest.mark.parametrize("asked", ["is_there", "is_folder"])
@pytest.mark.usefixtures("desk")
def test_a_folder_may_appear_while_it_is_looked_for(monkeypatch, asked):
    """Another thread or another command makes it too: no file fails for that."""
    real = getattr(folders, asked)

    def ask_and_make(path):
        answer = real(path)
        Path("out").mkdir(exist_ok=True)
        return answer

    monkeypatch.setattr(folders, asked, ask_and_make)

    result = run("in/a.png", "-o", "out/", "-s", "2")

    assert result.exit_code == 0, result.stderr


@pytest.mark.usefixtures("desk")
def test_results_inside_the_inputs_folder_are_no_inputs():
    """However often it is run, the tree does not grow."""
    mend()
    command = ["in", "-r", "-o", "in/large", "--skip-existing"]
    assert run(*command).exit_code == 0
    before = tree()

    result = run(*command)

    assert result.stderr.splitlines()[-1] == "0 done, 4 skipped, 0 failed"
    assert tree() == before


@pytest.mark.skipif(os.name != "posix", reason="Windows has other permissions")
@pytest.mark.usefixtures("desk")
def test_a_result_has_the_permissions_of_a_new_file():
    """Those that the user's mask leaves, not those of a private temporary file."""
    previous = os.umask(0o027)
    try:
        run("in/a.png")
    finally:
        os.umask(previous)

    assert stat.S_IMODE(Path("in/a_x3.png").stat().st_mode) == 0o640


# ---- what is told -------------------------------------------------------------------------


@pytest.mark.usefixtures("desk")
def test_quiet_leaves_errors_alone():
    """Neither results, nor what was skipped or changed, nor a summary: the failure alone."""
    result = run("in", "-r", "-q")

    assert (result.exit_code, result.stdout) == (1, "")
    assert re.fullmatch(r"error: in/broken\.png: .*\n", result.stderr)


@pytest.mark.usefixtures("desk")
def test_a_broken_terminal_does_not_end_a_run(monkeypatch):
    """What cannot be said is not said; the work goes on."""
    monkeypatch.setattr(sys, "stderr", _Gone())

    say("hello")


class _Gone:
    """A terminal that has been closed."""

    def write(self, _text):
        """Fail as a terminal does whose other end is gone."""
        raise OSError(5, "Input/output error")


def _words(text):
    return " ".join(re.sub(r"[│╭╮╰╯─]", " ", text).split())


@pytest.mark.usefixtures("desk")
def test_the_help_fits_a_terminal_and_shows_how():
    """Eighty columns, panels by what options are about, and a command line for each way of use."""
    result = run("--help", env={"COLUMNS": "80", "TERMINAL_WIDTH": "80"})

    assert (result.exit_code, result.stderr) == (0, "")
    assert max(map(len, result.stdout.splitlines())) <= 80
    for panel in ("Files", "Results", "Network", "Messages"):
        assert re.search(rf"─ {panel} ─", result.stdout)
    shown = _words(result.stdout)
    for example in (
        "srcli upscale photo.jpg",
        "srcli upscale *.jpg --size 3840x2160 -o big",
        "srcli upscale holiday -r --skip-existing",
        "srcli upscale @failed.txt",
        "torchrun --nproc-per-node 4 -m srcli upscale holiday -r",
        "Exit codes: 0 all done or skipped, 1 a file failed,",
    ):
        assert example in shown


def test_every_option_is_in_a_panel_and_documented():
    """Nothing is left to be found by chance."""
    page = (ROOT / "docs/upscale.md").read_text(encoding="utf-8")
    command = typer.main.get_command(app).commands["upscale"]
    for option in command.params:
        if option.param_type_name == "option" and option.name != "help":
            assert option.help, option.name
            assert f"`{option.opts[0]}`" in page, option.opts
    table = page[page.index("| option |") : page.index("## What it promises")]
    known = {spelling for option in command.params for spelling in option.opts}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", table)) <= known


@pytest.mark.parametrize(
    ("shell", "typed", "expected"),
    [
        ("bash", "srcli up", {"upscale"}),
        ("bash", "srcli ", {"upscale", "eval", "train", "models"}),
        ("zsh", "srcli upscale --ski", {"--skip-existing"}),
        ("fish", "srcli upscale --model t", {"tiny"}),
        ("bash", "srcli upscale -m ", {"auto", "tiny"}),
        ("zsh", "srcli upscale --metadata ", {"keep", "strip"}),
        ("fish", "srcli upscale --format w", {"webp"}),
    ],
)
@pytest.mark.usefixtures("desk")
def test_the_shell_completes(shell, typed, expected):
    """Commands, options and their values, by the protocol of each shell."""
    words = typed.split(" ")
    environment = {
        "_SRCLI_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": typed,
        "COMP_CWORD": str(len(words) - 1),
        "_TYPER_COMPLETE_ARGS": typed,
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }

    result = CliRunner().invoke(app, [], prog_name="srcli", env=environment)

    assert result.exit_code == 0, result.output
    if shell == "zsh":
        found = set(re.findall(r'"([\w-]+)"?', re.sub(r'":"[^"]*', "", result.stdout)))
    else:
        found = {line.split("\t")[0] for line in result.stdout.splitlines() if line.strip()}
    assert found == expected, result.stdout


@pytest.mark.usefixtures("desk")
def test_weights_files_are_completed_too():
    """``-m mine`` finds ``mine.safetensors`` in the working directory."""
    Path("mine.safetensors").touch()

    assert complete_model("mi") == ["mine.safetensors"]
    assert complete_model("") == ["auto", "tiny", "mine.safetensors"]


def test_the_command_and_its_interface_have_the_same_defaults():
    """What is not said on the command line is what ``BatchConfig`` has."""
    options = {
        option.name: option.default
        for option in typer.main.get_command(app).commands["upscale"].params
    }
    config = BatchConfig(selection=Selection(inputs=("a",)))

    for name in ("model", "quality", "lossless", "metadata", "fail_fast"):
        assert options[name] == getattr(config, name)
