"""``srcli eval`` on data sets: by name, degraded, and with an LR folder of their own."""

import json
import re
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from command_runs import run
from PIL import Image

from srcli import files
from srcli.evaluation import evaluate

EXACT = ("--device", "cpu", "--dtype", "fp32", "--threads", "1")

NOTICE = "warning: celeba: 12 of the 202,599 images are in data/celeba; continuing with these\n"
"""What every command says of this little CelebA."""


@pytest.fixture
def desk(here, monkeypatch, tiny_weights, celeba):
    """A working directory with twelve faces of CelebA's layout in ``data/celeba``."""
    monkeypatch.setattr(files, "shipped", lambda: {"tiny": tiny_weights})
    shutil.copytree(celeba, "data/celeba")
    return here


@pytest.mark.usefixtures("desk")
def test_faces_are_scored_on_the_test_partition():
    """``eval celeba`` scores the middles of the four test images, with the paper's accuracy."""
    result = run("eval", "celeba", "-m", "tiny", *EXACT)

    assert (result.exit_code, result.stderr) == (0, NOTICE)
    rows = re.findall(r"│ (\S+)\s+│ (\S+) / (\S+) / (\S+)% │", result.stdout)
    assert [row[0] for row in rows] == [f"{n:06d}.jpg" for n in range(9, 13)] + ["mean"]
    assert "accuracy on RGB, of the middle 120x120 pixels" in " ".join(result.stdout.split())


@pytest.mark.usefixtures("desk")
def test_accuracy_is_the_share_of_agreeing_pixels():
    """The numbers of ``--json`` are those of the definition, computed by hand."""
    report = json.loads(run("eval", "celeba", "-m", "tiny", "--json", *EXACT).stdout)

    with Image.open("data/celeba/img_align_celeba/000009.jpg") as image:
        high = np.asarray(image)[49:169, 29:149]
    low = Image.fromarray(high).resize((40, 40), Image.Resampling.BICUBIC)
    filtered = np.asarray(low.resize((120, 120), Image.Resampling.BICUBIC))
    agree = filtered.argmax(-1)[3:-3, 3:-3] == high.argmax(-1)[3:-3, 3:-3]
    found = next(score for score in report["scores"] if score["image"] == "000009.jpg")
    assert found["method"] == "bicubic"
    assert found["accuracy"] == pytest.approx(agree.mean(), abs=0.01)


@pytest.mark.usefixtures("desk")
def test_lr_can_be_made_worse():
    """A degradation costs PSNR, is named in the protocol, and follows from the seed."""

    def scored(*options):
        text = run("eval", "celeba", "-m", "tiny", "--json", *options, *EXACT).stdout
        return json.loads(text)

    clean, worse = scored(), scored("--degradation", "blur=1..2,noise=5..9,jpeg=20..40")
    again = scored("--degradation", "noise=5..9,blur=1..2,jpeg=20..40")
    other = scored("--degradation", "blur=1..2,noise=5..9,jpeg=20..40", "--seed", "1")

    assert worse["mean"]["bicubic"]["psnr"] < clean["mean"]["bicubic"]["psnr"] - 1
    assert (clean["lr"], worse["lr"]) == ("bicubic", "blur=1..2,noise=5..9,jpeg=20..40")
    assert again["scores"] == worse["scores"]
    assert other["scores"] != worse["scores"]


@pytest.mark.usefixtures("desk")
def test_a_given_lr_is_not_made_worse():
    """``--lr`` and ``--degradation`` contradict each other, as do ``--lr`` and a named set."""
    faces = "data/celeba/img_align_celeba"
    both = run("eval", faces, "--lr", faces, "--degradation", "jpeg=50", "-m", "tiny")
    named = run("eval", "celeba", "--lr", faces, "-m", "tiny")

    assert (both.exit_code, named.exit_code) == (2, 2)
    assert "--degradation jpeg=50 would do nothing" in both.stderr
    assert "LR of celeba is made here" in named.stderr


def test_a_degradation_goes_before_the_sets_own_lr(desk):
    """A set's LR folder is not what ``--degradation`` asks for: LR is made of HR then."""
    faces = sorted((desk / "data/celeba/img_align_celeba").iterdir())
    for folder in ("set/HR", "set/LRx3"):
        Path(folder).mkdir(parents=True)
    with Image.open(faces[0]) as image:
        image.crop((0, 0, 120, 120)).save("set/HR/a.png")
        image.crop((0, 0, 120, 120)).resize((40, 40)).save("set/LRx3/a.png")

    plain = json.loads(run("eval", "set", "-m", "tiny", "--json", *EXACT).stdout)
    worse = run("eval", "set", "-m", "tiny", "--json", "--degradation", "noise=9", *EXACT)

    assert (plain["lr"], json.loads(worse.stdout)["lr"]) == ("LRx3", "noise=9")


@pytest.mark.usefixtures("desk")
def test_a_signal_unwinds_the_work(monkeypatch):
    """SIGTERM does as Ctrl-C: a line, and no unfinished panel is left behind."""

    def stopped(*_):  # the handler itself: no worker of the suite dies if there is none
        signal.getsignal(signal.SIGTERM)(signal.SIGTERM, None)

    monkeypatch.setattr(evaluate, "evaluate", stopped)

    result = run("eval", "celeba", "-m", "tiny", *EXACT)

    assert (result.exit_code, result.stderr) == (143, "interrupted\n")
