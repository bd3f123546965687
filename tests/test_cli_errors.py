"""What a command line cannot do ends in one line and a code, and nothing is written."""

import re
import shlex
import sys
from pathlib import Path

import pytest
import torch
from command_runs import EXACT, run
from PIL import Image

from srcli import files

MODEL = ("-m", "tiny", *EXACT)

WAY_OUT = re.compile(
    r"(?<!cannot )\b(use|see|leave|give|choose|check|convert|fetch|make|write|continue|say|must|"
    r"takes?|asks?|needs?|exclude|neither|has the fields)\b"
)
"""A word that says what to do about an error, or what would have been right."""


def cases(table):
    """Read a table of ``arguments | code | text``, a case a line."""
    rows = [line.split(" | ", 2) for line in table.strip().splitlines()]
    return pytest.mark.parametrize(
        ("arguments", "code", "text"),
        [(shlex.split(row[0]), int(row[1]), row[2]) for row in rows],
        ids=[row[0] for row in rows],
    )


@pytest.fixture
def desk(here, monkeypatch, photo, tiny_weights, tiny_config):
    """A working directory with a photo, the net ``tiny.json``, and ways to go wrong.

    The weights that are shipped are one file called ``tiny``.
    """
    monkeypatch.setattr(files, "shipped", lambda: {"tiny": tiny_weights})
    Image.fromarray(photo).save("photo.png")
    Path("notes").write_text("no picture", encoding="utf-8")
    Path("blocker").write_text("in the way", encoding="utf-8")
    Path("empty").mkdir()
    Path("tiny.json").write_text(tiny_config.to_json(), encoding="utf-8")
    Path("short.json").write_text("{}", encoding="utf-8")
    return here


def tree(folder):
    """Every file below a folder with its content, and every folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in Path(folder).rglob("*")
    }


@pytest.fixture
def refused(desk):
    """Return a check that a command line ends in one line and a code, with nothing written.

    A text that ends in an ellipsis is the beginning of the line.
    """

    def check(arguments, code, text):
        before = tree(desk)

        result = run(*arguments)

        assert (result.exit_code, result.stdout) == (code, "")
        rest = r".*" if text.endswith("…") else ""
        assert re.fullmatch(f"error: {re.escape(text.removesuffix('…'))}{rest}\n", result.stderr)
        assert WAY_OUT.search(result.stderr), f"no way out: {result.stderr}"
        assert tree(desk) == before

    return check


@cases(
    """
gone.png | 1 | gone.png: no such file; check the path
photo.png -o blocker/large.png | 1 | cannot write blocker/large.png: …
photo.png --tile 100 | 2 | --tile must be a multiple of the net's stride 12, not 100
photo.png --tile x | 2 | --tile must be a whole number or auto, not 'x'
photo.png --batch-size 0 | 2 | --batch-size must be at least 1, not 0
photo.png --skip-existing --overwrite | 2 | --skip-existing and --overwrite exclude each …
photo.png --scale 2 --size 9x9 | 2 | --scale and --size exclude each other; give one
photo.png --quiet -v | 2 | --quiet and --verbose exclude each other; give one
photo.png -f jpg -o a.PNG | 2 | --format jpg and --output a.PNG differ; give one of them
photo.png --size wide | 2 | --size …
photo.png --output= | 2 | --output is empty; give a value or leave it out
photo.png --json -o - | 2 | --json and --output - both want stdout; give one
empty | 3 | no image found in empty; check the path
photo.png --failed-list empty | 1 | cannot write empty: it is a folder; give the name of a file
photo.png --failed-list no/a.txt | 1 | cannot write no/a.txt: no is no folder; make it first
photo.png --failed-list raw.CR2 | 2 | --failed-list raw.CR2 is named like an image; give another …
"""
)
def test_bad_input_to_upscale_is_one_line(refused, arguments, code, text):
    """Whatever is wrong is named with the way out, in one line, and nothing is written."""
    refused(["upscale", *arguments, *MODEL], code, text)


@cases(
    """
gone | 4 | gone is not a folder of images…
photo.png | 4 | photo.png is not a folder of images…
empty | 4 | empty holds no image; give the folder of the HR images
. --scale 1 | 2 | --scale must lie in (1, 16], not 1
good -o blocker/scores.json | 1 | cannot write blocker/scores.json: …
good -o empty | 1 | cannot write empty: …
good -o /proc/scores.json | 1 | cannot write /proc/scores.json: …
good --min-psnr nan | 2 | --min-psnr …
"""
)
def test_bad_input_to_eval_is_one_line(refused, arguments, code, text):
    """Data that is missing, options out of range and a blocked output are named in one line."""
    Path("good").mkdir()
    Path("photo.png").rename("good/photo.png")
    Path("notes").rename("photo.png")

    refused(["eval", *arguments, *MODEL], code, text)


@cases(
    """
--steps 0 | 2 | --steps must be at least 1, not 0
--scale 2 | 2 | say how long to train: --steps, --epochs or --max-time
--max-time soon | 2 | --max-time 'soon' is not a time: write 90m, 1.5h or 600s
--steps 1 --set los=l1 | 2 | --set los: there is no such name (do you mean loss?); give one of …
--steps 1 --los l1 | 2 | --los: there is no such option (do you mean --…
--steps 1 --loss l7 | 2 | --set loss must be …
--steps 1 --recipe x | 2 | --recipe x is unknown: give base, faces, fast, paper, photo, …
--steps 1 --degradation fog=1 | 2 | --degradation has no part 'fog'…
--steps 1 --set model=short.json | 2 | model short.json: a configuration has the fields …
--steps 1 --init-from other | 4 | no weights called other: give a .safetensors file or a name (tiny)
--steps 1 --dataset gone | 4 | --dataset gone does not exist; give a folder of images, or one of …
--steps 1 --dataset photo.png | 4 | --dataset photo.png is a file; give a folder of images, or one …
--steps 1 --dataset empty | 4 | --dataset empty holds no image …
--steps 1 --dataset celeba:all | 2 | --dataset celeba:all: celeba has the parts train, …
--steps 1 --dataset stl10 | 4 | stl10 is not in …
--steps 1 -o blocker | 1 | cannot write the run directory blocker: …
--resume empty | 4 | --resume empty: options.json cannot be used: No such file or directory; give …
"""
)
def test_bad_input_to_train_is_one_line(refused, arguments, code, text):
    """A run that cannot start says so in one line and leaves no run directory."""
    command = ["train", *arguments]
    if "--resume" not in arguments:
        shape = [] if "model=" in " ".join(arguments) else ["--set", "model=tiny.json"]
        data = [] if "--dataset" in arguments else ["--dataset", "."]
        output = [] if "-o" in arguments else ["-o", "run"]
        command += [*data, *output, *shape, *EXACT]

    refused(command, code, text)


def test_a_package_that_is_missing_is_named(refused, monkeypatch):
    """What draws is an extra: the line says how to install it, before anything is computed."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    train = ["train", "--dataset", ".", "--steps", "1", "--set", "model=tiny.json", "-o", "run"]

    refused(train, 2, "srcli train needs the package …")
    refused(
        ["eval", ".", "--panels", "panels", "-m", "tiny"],
        2,
        "--panels needs the package matplotlib, which is not …",
    )


@cases(
    """
upscale photo.png -m empty | 4 | no weights called empty: give a .safetensors file or a name (tiny)
upscale photo.png -m ./notes | 4 | cannot read weights notes: …
eval . -m ./notes | 4 | cannot read weights notes: …
upscale photo.png -m tiny --device tpu | 2 | --device 'tpu' is unknown: use auto, cpu, cuda, …
upscale photo.png -m tiny --device cuda:1 | 5 | --device cuda:1: this machine has no CUDA device …
eval . -m tiny --device cuda | 5 | --device cuda: this machine has no CUDA device torch can use; …
train --dataset . --steps 1 --set model=tiny.json --device cuda | 5 | --device cuda: this machine …
upscale photo.png --scale x | 2 | --scale must be a number, not 'x'
upscale photo.png --threads 0 | 2 | --threads must be at least 1, not 0
upscale photo.png --dtype fp8 | 2 | --dtype must be one of auto, fp32, bf16, fp16, int8, not 'fp8'
upscale photo.png -f doc | 2 | --format must be one of auto, png, jpg, jpeg, webp, avif, tiff, …
upscale photo.png --scale | 2 | --scale needs a value; give one
upscale photo.png --tta=3 | 2 | --tta takes no value; leave it out
upscale photo.png --sharp | 2 | --sharp: there is no such option (do you mean --sharpness?); …
upscale | 2 | INPUT is missing; see srcli upscale --help
eval . --channel cb | 2 | --channel must be one of y, rgb, not 'cb'
eval "" | 2 | an argument is empty; give a value or leave it out
train --dataset= | 2 | --dataset is empty; give a value or leave it out
eval . -o a.safetensors | 2 | --output a.safetensors is named like weights; give another name
eval . other | 2 | other: it is an argument too many; see srcli eval --help
eval . --min-psrn 3 | 2 | --min-psrn: there is no such option (do you mean --min-psnr?); see srcli …
upscal photo.png | 2 | upscal: there is no such command (do you mean upscale?); give one of …
enlarge | 2 | enlarge: there is no such command; give one of upscale, eval, models, export, train
--quiet | 2 | --quiet: there is no such option; see srcli --help
-- | 2 | missing command; see srcli --help
"""
)
def test_what_no_command_can_use_is_one_line(refused, monkeypatch, arguments, code, text):
    """Weights, devices, numbers, choices, options and commands that there are not are named."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    refused(arguments, code, text)
