"""``srcli upscale`` in a shell: exit codes, streams, the disk, help, completion."""

import os
import re
import stat
from io import BytesIO
from pathlib import Path

import pytest
import torch
import typer
from PIL import Image
from typer.testing import CliRunner
from upscale_runs import EXACT, run

from srcli.cli.app import app
from srcli.cli.options import complete_model
from srcli.imaging import images
from srcli.upscaling import conflicts
from srcli.upscaling.config import BatchConfig
from srcli.upscaling.selection import Selection

ROOT = Path(__file__).parents[1]


def tree(folder="."):
    """Every file below a folder with its content."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(Path(folder).rglob("*"))
        if path.is_file()
    }


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
def test_the_exit_code_reports_what_happened(monkeypatch, arguments, code):
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


# ---- what is on the disk ------------------------------------------------------------------


@pytest.mark.parametrize("asked", ["is_there", "is_folder"])
@pytest.mark.usefixtures("desk")
def test_a_folder_may_appear_while_it_is_looked_for(monkeypatch, asked):
    """Another thread or another command makes it too: no file fails for that."""
    real = getattr(conflicts, asked)

    def ask_and_make(path):
        answer = real(path)
        Path("out").mkdir(exist_ok=True)
        return answer

    monkeypatch.setattr(conflicts, asked, ask_and_make)

    result = run("in/a.png", "-o", "out/", "-s", "2")

    assert result.exit_code == 0, result.stderr


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


# ---- what is reported -------------------------------------------------------------------------


@pytest.mark.usefixtures("desk")
def test_quiet_leaves_errors_alone():
    """Neither results, nor what was skipped or changed, nor a summary: the failure alone."""
    result = run("in", "-r", "-q")

    assert (result.exit_code, result.stdout) == (1, "")
    assert re.fullmatch(r"error: in/broken\.png: .*\n", result.stderr)


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
        ("bash", "srcli ", {"upscale", "eval", "train", "models", "export"}),
        ("zsh", "srcli upscale --ski", {"--skip-existing"}),
        ("fish", "srcli upscale --model t", {"tiny"}),
        ("bash", "srcli upscale -m ", {"auto", "tiny"}),
        ("zsh", "srcli upscale --metadata ", {"keep", "no-location", "strip"}),
        ("fish", "srcli upscale --format w", {"webp"}),
        ("bash", "srcli upscale --tile ", {"auto"}),
        ("bash", "srcli upscale -j a", {"auto"}),
        ("bash", "srcli upscale --device cp", {"cpu"}),
        ("bash", "srcli upscale --dtype b", {"bf16"}),
        ("bash", "srcli eval ", {"celeba", "stl10", "in/"}),
        ("bash", "srcli eval in --metric d", {"dists"}),
        ("bash", "srcli eval in --baseline b", {"bicubic", "bilinear"}),
        ("bash", "srcli models t", {"tiny"}),
        ("bash", "srcli train --dataset i", {"in/"}),
        ("bash", "srcli train --recipe f", {"faces", "fast"}),
        ("bash", "srcli train --init-from t", {"tiny"}),
        ("bash", "srcli train --set loss", {"loss="}),
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
