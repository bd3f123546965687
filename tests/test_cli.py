"""The command line as a user meets it: help, a process of its own, and the whole way."""

import json
import os
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import typer
from command_runs import EXACT, run
from PIL import Image

import srcli
from srcli.cli.app import app
from srcli.imaging import images
from srcli.model import weights

ROOT = typer.main.get_command(app)
MODEL = ("-m", "tiny", *EXACT)
PYTHONPATH = {"PYTHONPATH": str(Path(srcli.__file__).parents[1])}


@pytest.fixture
def desk(desk, photo, tiny_config):
    """The usual one with a photo, and the shape of ``tiny``."""
    Image.fromarray(photo).save("photo.png")
    Path("tiny.json").write_text(tiny_config.to_json(), encoding="utf-8")
    return desk


def words(text):
    """A text without line breaks, frames, and the backslash that keeps brackets from markup."""
    return " ".join(re.sub(r"[│╭╮╰╯─]", " ", text).replace("\\[", "[").split())


@pytest.mark.parametrize("name", sorted(ROOT.commands))
@pytest.mark.parametrize("columns", ["80", "200"])
def test_help_says_all_there_is_to_say(name, columns):
    """Every parameter is named, has a text, and its text is shown to the last word."""
    result = run(name, "-h", env={"COLUMNS": columns})

    assert (result.exit_code, result.stderr) == (0, "")
    assert f"{name} {words(ROOT.commands[name].help.splitlines()[0])}" in words(run("-h").stdout)
    assert not re.search(r"…|<(bool|str|path|list\[)", result.stdout)
    shown = words(result.stdout)
    for parameter in ROOT.commands[name].params:
        for spelling in parameter.opts if parameter.param_type_name == "option" else ():
            assert re.search(rf"(?<![\w-]){spelling}(?![\w-])", result.stdout)
        assert parameter.help
        assert words(parameter.help) in shown
        if isinstance(parameter.show_default, str):
            assert words(parameter.show_default) in shown


def test_train_has_few_options_in_panels():
    """What is seldom given is a value of the recipe; each option stands under a heading."""
    options = ROOT.commands["train"].params

    assert len(options) <= 22
    panels = {option.rich_help_panel for option in options if option.name != "help"}
    assert panels == {"Data", "Recipe", "Run", "Network", "Messages"}


def test_the_names_that_set_takes_are_listed():
    """``--set help`` prints each with its default and what it means."""
    text = run("train", "--set", "help")

    assert (text.exit_code, text.stderr) == (0, "")
    assert re.search(
        r"^lr=0\.001 +Adam's peak learning rate; Muon's is twice that\.$", text.stdout, re.MULTILINE
    )
    names = [line.partition("=")[0] for line in text.stdout.splitlines()]
    assert {"datasets", "model", "clip"} <= set(names)


@pytest.mark.usefixtures("desk")
def test_verbose_reports_from_what_and_how_fast():
    """``-v`` says what computes, and adds the input, its size, the seconds and their rate."""
    Path("photo.png").rename("a [red] photo.png")  # no markup

    result = run("upscale", "a [red] photo.png", "in/broken.png", "-v", *MODEL)

    assert result.exit_code == 1
    assert re.fullmatch(
        r"tiny on cpu in float32\n"
        r"a \[red\] photo_x3\.png  291x183  from a \[red\] photo\.png 97x61 "
        r"in (\d+\.\d\d) s \(\d+\.\d\d s/MP\)\n"
        r"error: in/broken\.png: .*\n"
        r"0\.053 megapixels in [\d.]+ s: 1 done, 0 skipped, 1 failed: in/broken\.png\n",
        result.stderr,
    )


@pytest.mark.usefixtures("desk")
def test_every_option_reaches_its_place():
    """Format, suffix, quality, recursion, tile, overlap and threads do what they say."""
    Path("photo.png").rename("in/sub/photo.png")
    Path("in/broken.png").unlink()

    for quality in ("5", "95"):
        result = run(
            *("upscale", "in", "-r", "-o", f"q{quality}", "-s", "2", "-f", "JPG"),
            *("--suffix", "_large", "--quality", quality, "--lossless", "--no-progress"),
            *("-t", "60", "--overlap", "12", "--batch-size", "2", "--threads", "1", *MODEL),
        )
        assert result.exit_code == 0, result.stderr

    low, high = (Path(f"q{quality}/sub/photo_large.jpg") for quality in ("5", "95"))
    assert images.read_size(low) == images.read_size(high) == (194, 122)
    assert low.stat().st_size < high.stat().st_size / 3


def test_the_module_runs_as_a_program_at_a_terminal(desk, tiny_weights):
    """``python -m srcli`` does it all; a bar moves on stderr, and only the results stay there."""
    pty, termios = pytest.importorskip("pty"), pytest.importorskip("termios")
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (24, 80))
    command = [sys.executable, "-m", "srcli", "upscale", "photo.png", "gone.png", *EXACT]
    with subprocess.Popen(
        [*command, "-m", str(tiny_weights)],
        stdout=subprocess.PIPE,
        stderr=slave,
        env=os.environ | PYTHONPATH | {"TERM": "xterm"},
    ) as process:
        os.close(slave)
        shown = b""
        with suppress(OSError):  # so Linux calls it that the other end is closed
            while chunk := os.read(master, 4096):
                shown += chunk
        stdout = process.stdout.read()
    os.close(master)

    assert (process.returncode, stdout) == (1, b"")
    assert b" 100%  0.1/0.1 MP" in shown, "the bar moves"
    for line in (
        b"photo_x3.png  291x183\r\n",
        b"error: gone.png: no such file; check the path\r\n",
        b"1 done, 0 skipped, 1 failed: gone.png\r\n",
    ):
        assert line in shown
    assert b"\x1b[1m" not in shown, "NO_COLOR is set"
    assert images.read_size(desk / "photo_x3.png") == (291, 183)


@pytest.mark.usefixtures("desk")
def test_train_eval_upscale(image_folder, tiny_config):
    """Weights that ``train`` made are scored by ``eval`` and used by ``upscale``."""
    folder = Path("run")
    result = run(
        *("train", "--dataset", image_folder, "--set", "model=tiny.json", "-o", folder),
        *("--scale", "2", "--scale", "3", "--steps", "12"),
        *("--batch-size", "2", "--set", "warmup=1", "--set", "loss=mse", "--set", "ema=0"),
        *("--seed", "4", "--threads", "1", *EXACT),
    )

    assert (result.exit_code, result.stdout) == (0, "")
    model = folder / "model.safetensors"
    header = weights.read_header(model)
    assert header.config == tiny_config
    assert (header.training["steps"], header.scales) == (12, (2.0, 3.0))

    scored = run("eval", image_folder, "-m", model, "--json", *EXACT)

    assert (scored.exit_code, scored.stderr) == (0, "")
    report = json.loads(scored.stdout)
    assert report["methods"] == ["bicubic", str(model)]
    bicubic, own = (report["mean"][method]["psnr"] for method in report["methods"])
    assert 15 < own < 50
    assert own != bicubic, "the net does something"

    larger = run("upscale", "photo.png", "-m", model, *EXACT)

    assert (larger.exit_code, larger.stderr) == (0, "photo_x3.png  291x183\n")
