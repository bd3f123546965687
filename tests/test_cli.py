"""The command line as a user meets it: exit codes, what is printed where, what is left behind."""

import csv
import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import srcli
from srcli import files
from srcli.cli.app import app
from srcli.imaging import images
from srcli.model import weights
from srcli.training import trainer as training
from srcli.training.run_directory import load_options
from srcli.upscaler import Settings, Upscaler

ROOT = typer.main.get_command(app)
EXACT = ("--device", "cpu", "--dtype", "fp32")
MODEL = ("-m", "tiny", *EXACT)

WAY_OUT = re.compile(
    r"(?<!cannot )\b(use|give|choose|check|convert|fetch|make|write|continue|say|must|takes?|"
    r"asks?|needs?|exclude|neither|has the fields)\b"
)
"""A word that tells what to do about an error, or what would have been right."""


@pytest.fixture
def desk(tmp_path, monkeypatch, photo, tiny_weights, tiny_config):
    """A working directory with a photo, the configuration ``tiny.json``, and ways to go wrong.

    The weights that are shipped are one file called ``tiny``.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(files, "shipped", lambda: {"tiny": tiny_weights})
    Image.fromarray(photo).save("photo.png")
    whole = Path("photo.png").read_bytes()
    Path("cut.png").write_bytes(whole[: len(whole) // 2])
    Path("notes.png").write_text("no picture", encoding="utf-8")
    Path("blocker").write_text("in the way", encoding="utf-8")
    Path("empty").mkdir()
    Path("tiny.json").write_text(tiny_config.to_json(), encoding="utf-8")
    Path("short.json").write_text("{}", encoding="utf-8")
    return tmp_path


@pytest.fixture
def damaged(desk, tiny_weights):
    """Weights files that cannot be used, beside the photo."""
    with safe_open(tiny_weights, framework="pt") as file:
        header = file.metadata()
    tensors = load_file(tiny_weights)
    save_file(tensors, "foreign.safetensors")
    save_file(tensors | {"head.bias": tensors["head.bias"] * torch.nan}, "nan.safetensors", header)
    del tensors["head.bias"]
    save_file(tensors, "missing.safetensors", header)
    Path("text.safetensors").write_text("no weights", encoding="utf-8")
    return desk


@pytest.fixture
def no_cuda(monkeypatch):
    """A machine without a GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture
def interruptible():
    """Let processes started here die of SIGINT even where this one was told to ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def run(*arguments):
    """Run a command line in this process; an error that is not ours fails the test."""
    return CliRunner().invoke(app, [str(part) for part in arguments], catch_exceptions=False)


def start(*arguments):
    """Start ``python -m srcli`` as a process of its own."""
    root = str(Path(srcli.__file__).parents[1])
    return subprocess.Popen(
        [sys.executable, "-m", "srcli", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        env=os.environ | {"PYTHONPATH": root},
    )


def wait_until(condition, process):
    """Wait for something that a process does, a minute at most."""
    deadline = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)


def tree(folder):
    """Every file below a folder with its content, and every folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in Path(folder).rglob("*")
    }


def check_refused(folder, arguments, code, text):
    """Check that a command line ends in one line and a code, with nothing written.

    A text that ends in an ellipsis is the beginning of the line.
    """
    before = tree(folder)

    result = run(*arguments)

    assert result.exit_code == code
    assert result.stdout == ""
    if text.endswith("…"):
        assert result.stderr.startswith(f"error: {text[:-1]}")
    else:
        assert result.stderr == f"error: {text}\n"
    assert result.stderr.count("\n") == 1
    assert result.stderr.endswith("\n")
    assert WAY_OUT.search(result.stderr), f"no way out: {result.stderr}"
    assert tree(folder) == before


# ---- bad input ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["gone.png"], 1, "gone.png: no such file; check the path"),
        (["blocker/photo.png"], 1, "blocker/photo.png: no such file; check the path"),
        (
            ["notes.png"],
            1,
            (
                "notes.png: not an image in a known format, or damaged at its start; "
                "convert it to PNG or JPEG"
            ),
        ),
        (["cut.png"], 1, "cut.png: truncated, its end is missing; fetch the file again"),
        (
            ["photo.png", "-o", "blocker/large.png"],
            1,
            "cannot write blocker/large.png: blocker is not a folder…",
        ),
        (["photo.png", "-o", "blocker"], 1, "photo.png: its result blocker has no known image …"),
        (["photo.png", "-o", "large.doc"], 1, "photo.png: its result large.doc has no known …"),
        (
            ["photo.png", "-o", "photo.png", "--overwrite"],
            1,
            "photo.png: its result photo.png is an input; use --output or --suffix",
        ),
        (
            ["photo.png", "-o", "cut.png"],
            1,
            "photo.png: cut.png is there already; use --overwrite or --skip-existing",
        ),
        (["photo.png", "--scale", "0"], 2, "--scale must lie in 1..16, not 0"),
        (["photo.png", "--scale", "nan"], 2, "--scale must lie in 1..16, not nan"),
        (["photo.png", "--scale", "-inf"], 2, "--scale must lie in 1..16, not -inf"),
        (["photo.png", "--scale", "17"], 2, "--scale must lie in 1..16, not 17"),
        (
            ["photo.png", "--tile", "100"],
            2,
            "--tile must be a multiple of the net's stride 12, not 100",
        ),
        (["photo.png", "--tile", "0"], 2, "--tile must be at least 1, not 0"),
        (["photo.png", "--tile", "x"], 2, "--tile must be a whole number or auto, not 'x'"),
        (["photo.png", "--overlap", "-1"], 2, "--overlap must be at least 0, not -1"),
        (["photo.png", "--overlap", "x"], 2, "--overlap must be a whole number or auto, not 'x'"),
        (["photo.png", "--batch-size", "0"], 2, "--batch-size must be at least 1, not 0"),
        (["photo.png", "--quality", "101"], 2, "--quality must lie in 1..100, not 101"),
        (["photo.png", "--format", "doc"], 2, "--format doc is unknown: use one of …"),
        (
            ["photo.png", "--suffix", "/a"],
            2,
            "--suffix '/a' must not contain a path separator",
        ),
        (
            ["photo.png", "--skip-existing", "--overwrite"],
            2,
            "--skip-existing and --overwrite exclude each other",
        ),
        (
            ["photo.png", "cut.png", "-o", "large.png"],
            2,
            "--output large.png is a file name; several inputs need a folder",
        ),
        (
            ["empty", "-o", "cut.png"],
            2,
            "--output cut.png is a file; a folder's results need a folder",
        ),
        (["empty"], 3, "no image found in empty (folders below it need -r)"),
        (["*.gif"], 3, "no image found in *.gif (folders below it need -r)"),
    ],
)
def test_bad_input_to_upscale_is_one_line(desk, arguments, code, text):
    """Whatever is wrong is named with the way out, in one line, and nothing is written."""
    check_refused(desk, ["upscale", *arguments, *MODEL], code, text)


@pytest.mark.parametrize(
    ("model", "text"),
    [
        ("empty", "empty is a folder; -m takes a .safetensors file or a name (tiny)"),
        ("other", "no weights called other: give a .safetensors file or a name (tiny)"),
        (
            "foreign.safetensors",
            (
                "foreign.safetensors is not a weights file of srcli "
                "(no 'srcli/1' in its header); use one made by srcli train"
            ),
        ),
        ("missing.safetensors", "missing.safetensors misses tensor head.bias; …"),
        (
            "nan.safetensors",
            "nan.safetensors: tensor head.bias holds NaN or infinity; use another file",
        ),
        ("text.safetensors", "cannot read weights text.safetensors: …"),
        ("photo.png", "cannot read weights photo.png: …"),
    ],
)
@pytest.mark.parametrize("command", [["upscale", "photo.png"], ["eval", "."]])
def test_weights_that_cannot_be_used_are_one_line(damaged, command, model, text):
    """A weights file that is not ours, incomplete or not finite is named; exit code 4."""
    Path("notes.png").unlink()
    Path("cut.png").unlink()

    check_refused(damaged, [*command, "-m", model, *EXACT], 4, text)


@pytest.mark.parametrize(
    "command",
    [
        ["upscale", "photo.png", "-m", "tiny"],
        ["eval", ".", "-m", "tiny"],
        ["train", "--dataset", ".", "--steps", "1", "--set", "model=tiny.json"],
    ],
)
@pytest.mark.parametrize(
    ("device", "code", "text"),
    [
        ("tpu", 2, "--device 'tpu' is unknown: use auto, cpu, cuda or cuda:N"),
        ("cuda:x", 2, "--device 'cuda:x' is unknown: use auto, cpu, cuda or cuda:N"),
        (
            "cuda",
            5,
            (
                "--device cuda: this machine has no CUDA device torch can use; "
                "use --device cpu or auto"
            ),
        ),
        (
            "cuda:1",
            5,
            (
                "--device cuda:1: this machine has no CUDA device torch can use; "
                "use --device cpu or auto"
            ),
        ),
    ],
)
@pytest.mark.usefixtures("no_cuda")
def test_a_device_that_is_not_there_is_one_line(desk, command, device, code, text):
    """An unknown device is wrong usage, a missing one has an exit code of its own."""
    check_refused(desk, [*command, "--device", device], code, text)


@pytest.mark.parametrize(
    ("dtype", "text"),
    [
        ("fp16", "--dtype fp16 needs a CUDA device; on the CPU use auto, bf16 or fp32"),
    ],
)
@pytest.mark.parametrize(
    "command",
    [
        ["upscale", "photo.png", "-m", "tiny"],
        ["eval", ".", "-m", "tiny"],
        ["train", "--dataset", ".", "--steps", "1", "--set", "model=tiny.json"],
    ],
)
def test_a_number_format_that_cannot_be_is_one_line(desk, command, dtype, text):
    """An unknown format, or one that the device lacks, is wrong usage."""
    check_refused(desk, [*command, "--device", "cpu", "--dtype", dtype], 2, text)


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["gone"], 4, "gone is not a folder of images…"),
        (["photo.png"], 4, "photo.png is not a folder of images…"),
        (["empty"], 4, "empty holds no image; give the folder of the HR images"),
        ([".", "--lr", "gone"], 4, "gone is not a folder of images…"),
        ([".", "--scale", "1"], 2, "--scale must lie in (1, 16], not 1"),
        ([".", "--scale", "nan"], 2, "--scale must lie in (1, 16], not nan"),
        ([".", "--limit", "0"], 2, "--limit must be at least 1, not 0"),
        ([".", "--crop-border", "-1"], 2, "--crop-border must be at least 0, not -1"),
        ([".", "--tile", "7"], 2, "--tile must be a multiple of the net's stride 12, not 7"),
        (["good", "-o", "blocker/scores.json"], 1, "cannot write blocker/scores.json: …"),
        (["good", "-o", "empty"], 1, "cannot write empty: …"),
        (["good", "--min-psnr", "nan"], 2, "--min-psnr …"),
        (
            ["."],
            1,
            "cut.png: truncated, its end is missing; fetch the file again",
        ),
    ],
)
def test_bad_input_to_eval_is_one_line(desk, arguments, code, text):
    """Data that is missing, options out of range and a blocked output are told in one line."""
    Path("good").mkdir()
    Path("photo.png").rename("good/photo.png")
    Path("notes.png").rename("photo.png")

    check_refused(desk, ["eval", *arguments, *MODEL], code, text)


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--steps", "0"], 2, "--steps must be at least 1, not 0"),
        ([], 2, "say how long to train: --steps, --epochs or --max-time"),
        (["--epochs", "0"], 2, "--epochs must be positive, not 0…"),
        (["--max-time", "soon"], 2, "--max-time 'soon' is not a time: write 90m, 1.5h or 600s"),
        (["--max-time", "m"], 2, "--max-time 'm' is not a time: write 90m, 1.5h or 600s"),
        (["--max-time", "-5m"], 2, "--max-time must be positive, not -300…"),
        (["--max-time", "nan"], 2, "--max-time must be positive, not nan"),
        (["--steps", "1", "--lr", "0"], 2, "--lr must be positive, not 0…"),
        (["--steps", "1", "--set", "ema=1"], 2, "ema must lie in [0, 1), not 1…"),
        (["--steps", "1", "--scale", "1"], 2, "--scale must lie in (1, 8] for training, not 1"),
        (["--steps", "1", "--batch-size", "0"], 2, "--batch-size must be at least 1, not 0"),
        (
            ["--steps", "1", "--set", "model=huge"],
            2,
            "model huge is neither a name (base, paper) nor a file…",
        ),
        (
            ["--steps", "1", "--set", "model=short.json"],
            2,
            "model short.json: a configuration has the fields …",
        ),
        (["--steps", "1", "--set", "model=photo.png"], 2, "model photo.png: …"),
        (
            ["--steps", "1", "--init-from", "other"],
            4,
            "no weights called other: give a .safetensors file or a name (tiny)",
        ),
        (
            ["--steps", "1", "--dataset", "gone"],
            4,
            "--dataset gone does not exist; give a folder of images, or one of celeba, stl10",
        ),
        (
            ["--steps", "1", "--dataset", "photo.png"],
            4,
            "--dataset photo.png is a file; give a folder of images, or one of celeba, stl10",
        ),
        (["--steps", "1", "--dataset", "empty"], 4, "--dataset empty holds no image …"),
        (["--steps", "1", "-o", "blocker"], 1, "cannot write the run directory blocker: …"),
        (
            ["--resume", "empty"],
            4,
            "--resume empty: there is no state to resume (state/step-N.safetensors is missing)…",
        ),
        (["--resume", "gone"], 4, "--resume gone: there is no state to resume …"),
    ],
)
def test_bad_input_to_train_is_one_line(desk, arguments, code, text):
    """A run that cannot start says so in one line and leaves no run directory."""
    if "--resume" in arguments:
        command = ["train", *arguments]
    else:
        needed = [] if any("model=" in part for part in arguments) else ["--set", "model=tiny.json"]
        command = ["train", "--dataset", ".", "-o", "run", *needed, *arguments, *EXACT]

    check_refused(desk, command, code, text)


def test_train_needs_a_dataset(desk):
    """Without images there is nothing to learn from."""
    check_refused(
        desk,
        ["train", "--set", "model=tiny.json", "--steps", "1", *EXACT],
        2,
        "train needs at least one --dataset: give celeba, stl10 or a folder",
    )


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (["upscale", "photo.png", "--scale", "x"], "--scale"),
        (["upscale", "photo.png", "--threads", "0"], "--threads"),
        (["upscale", "photo.png", "--sharpen"], "--sharpen"),
        (["upscale"], "INPUT"),
        (["upscale", "photo.png", "--dtype", "fp8"], "'auto', 'fp32', 'bf16', 'fp16'"),
        (["upscale", "photo.png", "--metadata", "drop"], "'keep', 'strip'"),
        (["eval", ".", "--limit", "x"], "--limit"),
        (["eval", ".", "--channel", "cb"], "'y', 'rgb'"),
        (["eval", ".", "--dtype", "fp8"], "'auto', 'fp32', 'bf16', 'fp16'"),
        (["train", "--steps", "x"], "--steps"),
        (["enlarge"], "enlarge"),
    ],
)
def test_a_command_line_that_cannot_be_parsed_is_named(desk, arguments, option):
    """What is no number, no option or no command is named and ends with 2."""
    before = tree(desk)

    result = run(*arguments)

    assert (result.exit_code, result.stdout) == (2, "")
    assert option in result.stderr
    assert tree(desk) == before


# ---- upscale ------------------------------------------------------------------------------


def test_upscale_says_what_it_made(desk):
    """One line on stderr names the result and its size, and stdout stays free."""
    result = run("upscale", "photo.png", *MODEL)

    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "photo_x3.png  291x183\n"
    upscaler = Upscaler("tiny", settings=Settings(device="cpu", dtype="fp32"))
    expected = upscaler.upscale(images.read(Path("photo.png")), (183, 291))
    assert np.array_equal(images.read(desk / "photo_x3.png").pixels, expected.pixels)


@pytest.mark.usefixtures("desk")
def test_verbose_says_from_what_and_how_fast():
    """``-v`` says what computes, and adds the input, its size, the seconds and their rate."""
    result = run("upscale", "photo.png", "-v", *MODEL)

    assert result.exit_code == 0
    assert re.fullmatch(
        r"tiny on cpu in float32\n"
        r"photo_x3\.png  291x183  from photo\.png 97x61 in (\d+\.\d\d) s \(\d+\.\d\d s/MP\)\n",
        result.stderr,
    )


def test_quiet_says_nothing_of_what_went_well(desk):
    """``-q`` is silent for what is done and skipped, and only for that."""
    assert (run("upscale", "photo.png", "-q", *MODEL)).output == ""
    assert (desk / "photo_x3.png").is_file()
    assert run("upscale", "photo.png", "-q", "--skip-existing", *MODEL).output == ""

    failed = run("upscale", "photo.png", "gone.png", "-q", "--overwrite", *MODEL)

    assert failed.exit_code == 1
    assert failed.stderr == "error: gone.png: no such file; check the path\n"


@pytest.mark.usefixtures("desk")
def test_the_exit_code_tells_that_one_of_many_failed():
    """The others are done, every file has its line, and a last one counts them."""
    Image.new("L", (5, 4)).save("grey.png")

    result = run("upscale", "photo.png", "cut.png", "grey.png", "-o", "out", "-s", "2", *MODEL)

    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        "out/photo.png  194x122",
        "error: cut.png: truncated, its end is missing; fetch the file again",
        "out/grey.png  10x8",
        "2 done, 0 skipped, 1 failed: cut.png",
    ]
    assert sorted(tree("out")) == ["grey.png", "photo.png"]


@pytest.mark.usefixtures("desk")
def test_a_second_run_skips_what_is_done():
    """``--skip-existing`` is success: exit code 0, the old result untouched."""
    Path("photos").mkdir()
    Path("photo.png").rename("photos/photo.png")
    run("upscale", "photos", *MODEL)
    before = tree("photos_x3")
    Image.new("L", (5, 4)).save("photos/grey.png")
    target = Path.cwd() / "photos_x3"

    result = run("upscale", "photos", "--skip-existing", *MODEL)

    assert result.exit_code == 0
    assert result.stderr.splitlines() == [
        f"{target}/grey.png  15x12",
        f"skipped: {target}/photo.png is there already",
        "1 done, 1 skipped, 0 failed",
    ]
    assert tree("photos_x3")["photo.png"] == before["photo.png"]


@pytest.mark.usefixtures("desk")
def test_a_folder_as_output_takes_the_file():
    """``-o`` with a folder that is there puts one file into it under its own name."""
    result = run("upscale", "photo.png", "-o", "empty", *MODEL)

    assert (result.exit_code, result.stderr) == (0, "empty/photo.png  291x183\n")


@pytest.mark.usefixtures("desk")
def test_every_option_reaches_its_place():
    """Format, suffix, quality, recursion, tile, overlap and threads do what they say."""
    Path("photos/sub").mkdir(parents=True)
    Path("photo.png").rename("photos/sub/photo.png")

    for quality in ("5", "95"):
        result = run(
            *("upscale", "photos", "-r", "-o", f"q{quality}", "-s", "2", "-f", ".JPG"),
            *("--suffix", "_large", "--quality", quality, "--lossless", "--no-progress"),
            *("-t", "60", "--overlap", "12", "--batch-size", "2", "--threads", "1", *MODEL),
        )
        assert result.exit_code == 0, result.stderr

    low, high = (Path(f"q{quality}/sub/photo_large.jpg") for quality in ("5", "95"))
    assert images.read_size(low) == images.read_size(high) == (194, 122)
    assert low.stat().st_size < high.stat().st_size / 3


@pytest.mark.usefixtures("desk")
def test_names_are_printed_as_they_are():
    """Brackets and blanks in a file's name are no markup."""
    Path("photo.png").rename("a [red] photo.png")

    result = run("upscale", "a [red] photo.png", *MODEL)

    assert result.stderr == "a [red] photo_x3.png  291x183\n"


# ---- a process of its own -----------------------------------------------------------------


def test_the_module_runs_as_a_program(desk, tiny_weights):
    """``python -m srcli upscale`` does it all in a process of its own; its code is the shell's."""
    process = start("upscale", "photo.png", "gone.png", "-m", tiny_weights, *EXACT)
    stdout, stderr = process.communicate(timeout=60)

    assert (process.returncode, stdout) == (1, "")
    assert stderr.splitlines() == [
        "photo_x3.png  291x183",
        "error: gone.png: no such file; check the path",
        "1 done, 0 skipped, 1 failed: gone.png",
    ]
    assert images.read_size(desk / "photo_x3.png") == (291, 183)


@pytest.mark.usefixtures("desk")
def test_a_terminal_gets_a_bar(tiny_weights):
    """Where stderr is a terminal a bar moves, and only the results stay on it."""
    pty, termios = pytest.importorskip("pty"), pytest.importorskip("termios")
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (24, 80))
    command = [sys.executable, "-m", "srcli", "upscale", "photo.png", "-m", str(tiny_weights)]
    environment = os.environ | {"PYTHONPATH": str(Path(srcli.__file__).parents[1])}
    with subprocess.Popen([*command, *EXACT], stderr=slave, env=environment) as process:
        os.close(slave)
        shown = b""
        while chunk := _read(master):
            shown += chunk
    os.close(master)

    assert process.returncode == 0
    assert b"100%|" in shown
    assert b"photo_x3.png  291x183\r\n" in shown
    assert b"\x1b[1m" not in shown, "NO_COLOR is set"


def _read(master):
    """Read from a terminal until its other end is closed, which Linux calls an error."""
    try:
        return os.read(master, 4096)
    except OSError:
        return b""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.usefixtures("desk", "interruptible")
def test_a_signal_keeps_what_is_finished(image_folder, tiny_weights, number, code):
    """In the middle of a folder: whole files stay, nothing half-written does, one line tells."""
    process = start(
        *("upscale", image_folder, "-o", "out", "-s", "12", "-q", "--threads", "1"),
        *("-m", tiny_weights, *EXACT),
    )
    wait_until(lambda: list(Path("out").glob("*.png")), process)
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=60)

    assert (process.returncode, stdout) == (code, "")
    told = re.fullmatch(
        r"interrupted: (\d) done, 0 skipped, 0 failed, (\d) not begun or unfinished; "
        r"the same command with --skip-existing goes on\n",
        stderr,
    )
    assert told, stderr
    done, left = map(int, told.groups())
    assert done >= 1
    assert left >= 1
    assert done + left == 6
    finished = sorted(Path("out").iterdir())
    assert [path.name for path in finished] == [f"{index}.png" for index in range(done)]
    for path in finished:
        width, height = images.read_size(image_folder / path.name)
        larger = images.read(path)
        assert (larger.width, larger.height) == (12 * width, 12 * height)


@pytest.mark.usefixtures("desk", "interruptible")
def test_a_signal_saves_a_run_that_can_go_on(image_folder):
    """Training stopped by SIGTERM keeps its state and says how to continue."""
    process = start(
        *("train", "--dataset", image_folder, "--set", "model=tiny.json", "--steps", "100000"),
        *("--batch-size", "1", "--threads", "1", "-o", "run", *EXACT),
    )
    log = Path("run/log.csv")
    wait_until(lambda: log.is_file() and log.read_text().count("\n") >= 2, process)
    process.send_signal(signal.SIGTERM)
    stdout, stderr = process.communicate(timeout=60)

    assert (process.returncode, stdout) == (143, "")
    told = re.fullmatch(
        r"interrupted at step (\d+); continue with: srcli train --resume run\n", stderr
    )
    assert told, stderr
    step = int(told[1])
    options = dataclasses.replace(load_options(Path("run")), steps=step + 2)

    report = training.train(options, resume=True)

    assert (report.step, report.finished) == (step + 2, True)
    with log.open(newline="") as file:
        steps = [int(row["step"]) for row in csv.DictReader(file)]
    assert steps == sorted(set(steps))
    assert steps[-1] == step + 2
    assert sorted(tree("run")) == [
        "curves.png",
        "log.csv",
        "model.safetensors",
        "options.json",
        "samples.png",
        "state",
        f"state/step-{step:08d}.safetensors",
        f"state/step-{step + 2:08d}.safetensors",
    ]


# ---- the whole way ------------------------------------------------------------------------


@pytest.mark.usefixtures("desk")
def test_train_eval_upscale(image_folder):
    """Weights that ``train`` made are scored by ``eval`` and used by ``upscale``."""
    trained = run(
        *("train", "--dataset", image_folder, "--set", "model=tiny.json", "-o", "run"),
        *(
            "--scale",
            "2",
            "--scale",
            "3",
            "--steps",
            "12",
            "--batch-size",
            "2",
            "--set",
            "warmup=1",
        ),
        *("--set", "loss=mse", "--set", "ema=0", "--seed", "4", "--threads", "1", *EXACT),
    )

    assert (trained.exit_code, trained.stdout) == (0, "")
    assert re.fullmatch(
        r"run/model\.safetensors: 12 steps, 24 patches in 0\.\d min "
        r"\(\d+\.\d% of it waiting for images\), loss 0\.\d{5}, "
        r"held-out RGB PSNR \d\d\.\d\d dB \(bicubic \d\d\.\d\d\)\n",
        trained.stderr,
    )
    options = json.loads(Path("run/options.json").read_text(encoding="utf-8"))
    chosen = ("datasets", "scales", "steps", "batch_size", "warmup", "loss", "ema", "seed", "dtype")
    assert [options[name] for name in chosen] == [
        *([str(image_folder)], [2.0, 3.0], 12, 2, 1, "mse", 0.0, 4, "fp32")
    ]
    header = weights.read_header(Path("run/model.safetensors"))
    assert header.config.to_json() == Path("tiny.json").read_text(encoding="utf-8")
    assert (header.training["steps"], header.scales) == (12, (2.0, 3.0))

    scored = run("eval", image_folder, "-m", "run/model.safetensors", "--json", *EXACT)

    assert (scored.exit_code, scored.stderr) == (0, "")
    report = json.loads(scored.stdout)
    assert report["methods"] == ["bicubic", "run/model.safetensors"]
    bicubic, own = (report["mean"][method]["psnr"] for method in report["methods"])
    assert 15 < bicubic < 50
    assert 15 < own < 50
    assert own != bicubic, "the net does something"

    larger = run("upscale", "photo.png", "-m", "run/model.safetensors", *EXACT)

    assert (larger.exit_code, larger.stderr) == (0, "photo_x3.png  291x183\n")
    assert images.read_size(Path("photo_x3.png")) == (291, 183)


@pytest.fixture
def finished(desk, image_folder):
    """A run of two steps in ``run``."""
    result = run(
        *("train", "--dataset", image_folder, "--set", "model=tiny.json", "--steps", "2", "-q"),
        *("--batch-size", "1", "--threads", "1", "-o", "run", *EXACT),
    )
    assert (result.exit_code, result.output) == (0, "")
    return desk


def test_a_run_is_not_trained_over(finished):
    """A directory that holds a run is refused, and keeps every byte."""
    check_refused(
        finished,
        [
            "train",
            "--dataset",
            ".",
            "--set",
            "model=tiny.json",
            "--steps",
            "1",
            "-o",
            "run",
            *EXACT,
        ],
        1,
        "run already holds a run: continue it with --resume run, or give another --output",
    )


@pytest.mark.usefixtures("finished")
def test_resuming_a_finished_run_changes_nothing():
    """There is nothing left to do: exit code 0, the same weights, no made-up figures."""
    before = load_file("run/model.safetensors"), weights.read_header(Path("run/model.safetensors"))

    result = run("train", "--resume", "run")

    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr.startswith("run/model.safetensors: 2 steps, 2 patches in ")
    after = load_file("run/model.safetensors"), weights.read_header(Path("run/model.safetensors"))
    assert after[1] == before[1]
    assert after[0].keys() == before[0].keys()
    assert all(torch.equal(tensor, before[0][name]) for name, tensor in after[0].items())
    assert "nan" not in result.stderr


def test_a_run_can_start_from_shipped_weights_by_name(desk, image_folder, tiny_weights):
    """``--init-from`` takes names as ``-m`` does, and the header remembers the file."""
    result = run(
        *("train", "--dataset", image_folder, "--set", "model=tiny.json", "--init-from", "tiny"),
        *("--epochs", "0.2", "--lr", "1e-9", "--batch-size", "1", "-o", "run", *EXACT),
    )

    assert result.exit_code == 0, result.stderr
    before, after = load_file(tiny_weights), load_file(desk / "run" / "model.safetensors")
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, atol=1e-6, rtol=0)
    assert weights.read_header(desk / "run/model.safetensors").training["init_from"] == (
        "tiny.safetensors"
    )


def test_a_run_from_weights_has_their_shape(desk, image_folder, tiny_config):
    """Without ``--config`` the net is that of the weights; a recipe gives the rest."""
    result = run(
        *("train", "--dataset", image_folder, "--init-from", "tiny", "--recipe", "photo"),
        *("--epochs", "0.2", "--batch-size", "1", "-o", "run", *EXACT),
    )

    assert result.exit_code == 0, result.stderr
    header = weights.read_header(desk / "run" / "model.safetensors")
    assert header.config == tiny_config
    assert header.training["recipe"] == "photo"


# ---- help and version ---------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(ROOT.commands))
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_says_all_there_is_to_say(name, flag):
    """Every parameter is named, has a text, and its text is shown to the last word."""
    result = run(name, flag)

    assert (result.exit_code, result.stderr) == (0, "")
    shown = _words(result.stdout)
    for parameter in ROOT.commands[name].params:
        for spelling in parameter.opts if parameter.param_type_name == "option" else ():
            assert re.search(rf"(?<![\w-]){spelling}(?![\w-])", result.stdout)
        assert parameter.help
        assert _words(parameter.help) in shown
        if isinstance(parameter.show_default, str):
            assert _words(parameter.show_default) in shown


def _words(text):
    """A text without line breaks, frames, and the backslash that keeps brackets from markup."""
    return " ".join(re.sub(r"[│╭╮╰╯─]", " ", text).replace("\\[", "[").split())


@pytest.mark.parametrize("arguments", [["--help"], ["-h"]])
def test_the_programs_help_lists_the_commands(arguments):
    """Each command stands in the overview with the first line of its help."""
    result = run(*arguments)

    assert (result.exit_code, result.stderr) == (0, "")
    for name, command in ROOT.commands.items():
        assert f"{name} {_words(command.help.splitlines()[0])}" in _words(result.stdout)


def test_the_version_is_printed():
    """``--version`` prints name and version on stdout."""
    result = run("--version")

    assert (result.exit_code, result.stdout) == (0, f"srcli {srcli.__version__}\n")
