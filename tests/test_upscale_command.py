"""``srcli upscale`` in a shell: exit codes, streams, the disk, help, completion."""

import os
import re
import stat
import sys
import threading
from pathlib import Path

import pytest
from typer.testing import CliRunner
from upscale_runs import run

from srcli.cli.app import app
from srcli.imaging import images

pytestmark = pytest.mark.usefixtures("desk")


def test_a_picture_too_large_for_the_memory_has_a_code_of_its_own(monkeypatch):
    """Out of memory alone is 5; beside another failure it is one of several, 1."""

    def fails(*_, **__):
        raise MemoryError

    monkeypatch.setattr(images, "read_album", fails)

    assert run("in/a.png", "in/b.jpg").exit_code == 5
    assert run("in/a.png", "in/a.png/b.png", "-o", "out").exit_code == 5


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
        ("bash", "srcli upscale --tile ", {"auto"}),
        ("bash", "srcli upscale --device cp", {"cpu"}),
        ("bash", "srcli eval ", {"celeba", "stl10", "in/"}),
        ("bash", "srcli eval in --metric d", {"dists"}),
        ("bash", "srcli models t", {"tiny"}),
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

    result = CliRunner().invoke(app, [], prog_name="srcli", env=environment)

    assert result.exit_code == 0, result.output
    if shell == "zsh":
        found = set(re.findall(r'"([\w-]+)"?', re.sub(r'":"[^"]*', "", result.stdout)))
    else:
        found = {line.split("\t")[0] for line in result.stdout.splitlines() if line.strip()}
    assert found == expected, result.stdout
