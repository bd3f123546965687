"""What a command line cannot do ends in one line and a code, and nothing is written."""

import re
import shlex
import sys
from pathlib import Path

import pytest
import torch
from batch_files import listing
from command_runs import EXACT, run
from PIL import Image
from run_files import contents

from srcli import files

MODEL = ("-m", "tiny", *EXACT)

WAY_OUT = re.compile(
    r"(?<!cannot )\b(use|see|leave|give|choose|check|convert|fetch|make|write|continue|say|must|"
    r"takes?|asks?|needs?|exclude|neither|run srcli|has the fields)\b"
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
    """A working directory with a photo, the only weights ``tiny``, and ways to go wrong."""
    monkeypatch.setattr(files, "shipped", lambda: {"tiny": tiny_weights})
    Image.fromarray(photo).save("photo.png")
    Path("notes").write_text("no picture", encoding="utf-8")
    Path("blocker").write_text("in the way", encoding="utf-8")
    for name in ("empty", "empty.onnx"):
        Path(name).mkdir()
    Path("tiny.json").write_text(tiny_config.to_json(), encoding="utf-8")
    Path("short.json").write_text("{}", encoding="utf-8")
    Path("page.html").write_text("photo.png", encoding="utf-8")
    return here


@pytest.fixture
def refused(desk):
    """Return a check that a command ends in one line, ``…`` any text, and writes nothing."""

    def check(arguments, code, text):
        before = listing(desk), contents(desk)

        result = run(*arguments)

        assert (result.exit_code, result.stdout) == (code, "")
        assert re.fullmatch(f"error: {re.escape(text).replace('…', '.*')}\n", result.stderr)
        assert WAY_OUT.search(result.stderr), f"no way out: {result.stderr}"
        assert (listing(desk), contents(desk)) == before

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
photo.png --failed-list - | 2 | --failed-list - : stdout is for results and --json; give the…
photo.png --failed-list raw.CR2 | 2 | --failed-list raw.CR2 is named like an image; give another …
photo.png --sharpness 2 | 2 | --sharpness must lie in 0..1, not 2…
photo.png --sharpness 0.5 | 4 | --sharpness cannot mix tiny: it has no sibling among the weights …
photo.png --compare page.jpg | 2 | --compare page.jpg must end in .html; give a name such …
photo.png --compare no/p.html | 1 | cannot write no/p.html: no is no folder; make it …
page.html --compare empty/../page.html | 2 | --compare empty/../page.html is an input or a result …
@page.html --compare page.html | 2 | --compare page.html is an input or a result of this run; …
photo.png -o p.html --compare p.html | 2 | --compare p.html is an input or a result of this run; …
photo.png -o - --compare p.html | 2 | --compare reads files again, which no pipe can be; give files
"""
)
def test_bad_input_to_upscale_is_one_line(refused, arguments, code, text):
    """Whatever is wrong is named with the way out, in one line, and nothing is written."""
    refused(["upscale", *arguments, *MODEL], code, text)


@cases(
    """
gone | 4 | gone is not a folder of images; give a folder …/DatasetPreparation.md has the links
photo.png | 4 | photo.png is not a folder of images…
empty | 4 | empty holds no image; give a folder of HR images…
. --scale 1 | 2 | --scale must lie in (1, 16], not 1
good -o blocker/scores.json | 1 | cannot write blocker/scores.json: …
good -o empty | 1 | cannot write empty: …
good -o /proc/scores.json | 1 | cannot write /proc/scores.json: …
good --min-psnr nan | 2 | --min-psnr …
good -s 2 --scale 2.5 | 2 | --scale is given 2 times (2, 2.5); run srcli eval for each…
good --baseline cubic | 2 | --baseline must be one of bicubic, lanczos, bilinear, nearest…
good --lr low | 4 | low is not a folder of images; give that of the LR images as --lr…
good --lr good --degradation jpeg=50 | 2 | --lr good gives the LR images, so --degradation …
celeba --lr good | 2 | --lr good: LR of celeba is made here; leave it out…
good --metric lpip | 2 | --metric must be one of psnr, ssim, lpips, lpips-vgg, dists, …
good --panels empty/../good | 2 | --panels empty/../good is where the images are…give another…
good --panels blocker/out | 1 | cannot write …; give another --panels
good --sharpness 2 | 2 | --sharpness must lie in 0..1, not 2…
good --sharpness 0.5 | 4 | --sharpness cannot mix tiny: it has no sibling among the weights …
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
--steps 1 --los l1 | 2 | No such option: --los (Possible options: …
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
    """What is an extra: the line says how to install it, before anything is computed."""
    for name in ("matplotlib", "onnx"):
        monkeypatch.setitem(sys.modules, name, None)
    train = ["train", "--dataset", ".", "--steps", "1", "--set", "model=tiny.json", "-o", "run"]

    refused(train, 2, "srcli train needs the package …")
    panels = ["eval", ".", "--panels", "panels", "-m", "tiny"]
    refused(panels, 2, "--panels needs the package matplotlib, which is not …")
    install = "which is not installed; install it with: pip install 'srcli[export]'"
    refused(["export"], 2, f"srcli export needs the package onnx, {install}")


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
upscale photo.png --quality 101 | 2 | --quality must be at most 100, not 101
upscale photo.png --max-pixels 0 | 2 | --max-pixels must be at least 1, not 0
upscale photo.png --threads 0 | 2 | --threads must be at least 1, not 0
upscale photo.png --dtype fp8 | 2 | --dtype must be one of auto, fp32, bf16, fp16, int8, not 'fp8'
upscale photo.png -f doc | 2 | --format must be one of auto, png, jpg, jpeg, webp, avif, tiff, …
upscale photo.png --scale | 2 | Option '--scale' requires an argument; see srcli COMMAND --help
upscale photo.png --tta=3 | 2 | Option '--tta' does not take a value; see srcli COMMAND --help
upscale photo.png --sharp | 2 | No such option: --sharp (Possible options: --help, --sharpness); …
upscale | 2 | Missing argument 'INPUT'; see srcli upscale --help
export -m gone | 4 | no weights called gone…
export -m tiny --sharpness 0.5 | 4 | --sharpness cannot mix tiny…
export -m tiny -s 2.5 | 2 | --scale 2.5: tiny can be exported for 2 or 3 or 4; give …
export -m tiny -o x.safetensors | 2 | --output x.safetensors must end in .onnx…
export -m tiny -o no/x.onnx | 1 | cannot write no/x.onnx: no is no folder; make it first…
export -m tiny -o empty.onnx | 1 | cannot write empty.onnx: it is a folder; give the name of…
export -m tiny -o /proc/x.onnx | 1 | cannot write /proc/x.onnx: …; choose another --output…
eval . --channel cb | 2 | --channel must be one of y, rgb, not 'cb'
eval "" | 2 | an argument is empty; give a value or leave it out
train --dataset= | 2 | --dataset is empty; give a value or leave it out
eval . -o a.safetensors | 2 | --output a.safetensors is named like weights; give another name
eval . other | 2 | Got unexpected extra argument(s) (other); see srcli eval --help
eval . --min-psrn 3 | 2 | No such option: --min-psrn (Possible options: --min-psnr); see srcli …
upscal photo.png | 2 | upscal: there is no such command (do you mean upscale?); give one of …
enlarge | 2 | enlarge: there is no such command; give one of upscale, eval, models, export, train
--quiet | 2 | No such option: --quiet; see srcli --help
-- | 2 | Missing command; see srcli --help
"""
)
def test_what_no_command_can_use_is_one_line(refused, monkeypatch, arguments, code, text):
    """Weights, devices, numbers, choices, options and commands that there are not are named."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    refused(arguments, code, text)
