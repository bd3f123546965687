"""``srcli eval``: what it prints, what it writes, and how it ends; data sets that have a name."""

import csv
import json
import re
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from command_runs import cells_of, run_eval, strictly
from PIL import Image

from srcli.evaluation import evaluate as module
from srcli.evaluation.config import BASELINE, EvalConfig
from srcli.evaluation.evaluate import evaluate
from srcli.upscaler import Settings

pytestmark = pytest.mark.usefixtures("paired")


@pytest.fixture
def report(tiny_weights):
    """What the tiny net scores on ``HR``."""
    settings = Settings(device="cpu", dtype="fp32")
    return evaluate(EvalConfig(dataset="HR", models=(str(tiny_weights),), settings=settings))


def test_json_holds_scores_means_and_protocol(tiny_weights, report):
    """One object on stdout, nothing else on either stream; ``-o`` writes the same."""
    Path("scores.json").write_text("older", encoding="utf-8")

    result = run_eval("HR", "-m", tiny_weights, "--json", "-o", "scores.json")

    assert (result.exit_code, result.stderr) == (0, "")
    assert Path("scores.json").read_text(encoding="utf-8") == result.stdout
    assert sorted(path.name for path in Path().iterdir()) == ["HR", "scores.json"]
    assert strictly(result.stdout) == {
        "dataset": "HR",
        "scale": 3.0,
        "lr": "bicubic",
        "channel": "y",
        "crop_border": 3,
        "device": "cpu",
        "dtype": "float32",
        "methods": [BASELINE, str(tiny_weights)],
        "baselines": [BASELINE],
        "scores": [
            {"image": score.image, "method": score.method, **score.values}
            for score in report.scores
        ],
        "mean": {method: report.mean(method) for method in report.methods},
        "metrics": [],
        "lower_is_better": [],
        "has_accuracy": False,
        "protocol": (
            "PSNR/SSIM on luma (BT.601 studio range), 3 px border cut, x3, LR: bicubic, "
            "float32 on cpu"
        ),
    }


def test_a_csv_file_has_a_row_for_every_score(tiny_weights, report):
    """A file that is called .csv is a table: each image and method, then the means."""
    result = run_eval("HR", "-m", tiny_weights, "-o", "SCORES.CSV", "-q")

    assert (result.exit_code, result.stdout) == (0, "")
    header, *rows = csv.reader(Path("SCORES.CSV").read_text(encoding="utf-8").splitlines())
    assert header == ["dataset", "image", "method", "scale", "psnr", "ssim", "accuracy"]
    values = [*report.scores, *(("mean", name, report.mean(name)) for name in report.methods)]
    assert rows == [
        ["HR", image, method, "3", *map(str, numbers.values())] for image, method, numbers in values
    ]


def test_any_name_and_an_infinite_score_can_be_written(plain_weights):
    """A name that is no text or has a line break, and equal pictures, fit into CSV and JSON."""
    Path("flat").mkdir()
    Image.new("RGB", (60, 48), (10, 200, 30)).save("flat/a,\n\udcff.png", "PNG")

    result = run_eval("flat", "-m", plain_weights, "-o", "scores.csv", "--json")

    _, line, *rest = Path("scores.csv").read_text(encoding="utf-8").splitlines()
    assert (line[:36], len(rest)) == (r'flat,"a,\n\udcff.png",bicubic,3,inf,', 3)
    score = strictly(result.stdout)["scores"][0]
    assert (score["psnr"], score["ssim"]) == (None, 1.0)


def test_the_table_shows_every_score(tiny_weights, report):
    """A row for each image and one for the mean, the protocol below; names are no markup."""
    Path("HR/b.png").rename("HR/b [red] 1.png")

    result = run_eval("HR", "-m", tiny_weights)

    assert (result.exit_code, result.stderr) == (0, "")
    values = [score.values for score in report.scores] + [*map(report.mean, report.methods)]
    cells = [f"{one['psnr']:.2f} / {one['ssim']:.4f}" for one in values]
    assert cells_of(result.stdout) == [
        ["image", BASELINE, "tiny.safetensors"],
        ["a.png", *cells[:2]],
        ["b [red] 1.png", *cells[2:4]],
        ["mean", *cells[4:]],
    ]
    assert report.protocol in " ".join(result.stdout.split())
    with Image.open("HR/a.png") as page:
        page.save("HR/a.tif", save_all=True, append_images=[page])
    assert run_eval("HR", "-m", tiny_weights, "--limit", "2").stderr == (
        "warning: HR/a.tif: the first of its 2 pictures is scored\n"
    )


def test_a_gate_that_a_model_misses_ends_with_six(tiny_weights, plain_weights, report):
    """Every model must reach it, no baseline; scores are written all the same, and named."""
    plain, tiny = (report.mean(name)["psnr"] for name in (BASELINE, str(tiny_weights)))
    assert tiny < plain - 0.02
    gate = ("--min-psnr", f"{(plain + tiny) / 2:.4f}")
    both = ("-m", plain_weights, "-m", tiny_weights)

    result = run_eval("HR", *both, "--json", "-o", "a.json", *gate)
    quiet = run_eval("HR", "-m", tiny_weights, "-q", "--min-psnr", "60", "--baseline", "none")

    assert result.exit_code == 6
    assert json.loads(result.stdout)["mean"][str(tiny_weights)]["psnr"] == tiny
    assert Path("a.json").read_text(encoding="utf-8") == result.stdout
    assert run_eval("HR", "-m", plain_weights, *gate).exit_code == 0
    assert (quiet.exit_code, quiet.stdout) == (6, "")
    assert quiet.stderr == f"error: {tiny_weights} has {tiny:.2f} dB, --min-psnr asks for 60\n"


def test_a_signal_unwinds_the_work(tiny_weights, monkeypatch):
    """SIGTERM does as Ctrl-C: a line, and no unfinished panel is left behind."""

    def stopped(*_):  # the handler itself: no worker of the suite dies if there is none
        signal.getsignal(signal.SIGTERM)(signal.SIGTERM, None)

    monkeypatch.setattr(module, "evaluate", stopped)

    result = run_eval("HR", "-m", tiny_weights)

    assert (result.exit_code, result.stderr) == (143, "interrupted\n")


@pytest.fixture
def faces(paired, celeba):
    """Twelve faces of CelebA's layout in ``data/celeba``; return the folder of the images."""
    shutil.copytree(celeba, paired / "data/celeba")
    return Path("data/celeba/img_align_celeba")


def test_faces_are_scored_on_the_test_partition(faces, tiny_weights):
    """The middles of the four test images, with the paper's accuracy, as computed by hand."""
    table = run_eval("celeba", "-m", tiny_weights)
    report = json.loads(run_eval("celeba", "-m", tiny_weights, "--json").stdout)

    assert table.exit_code == 0
    assert table.stderr == (
        "warning: celeba: 12 of the 202,599 images are in data/celeba; continuing with these\n"
    )
    rows = re.findall(r"│ (\S+)\s+│ (\S+) / (\S+) / (\S+)% │", table.stdout)
    assert [row[0] for row in rows] == [f"{n:06d}.jpg" for n in range(9, 13)] + ["mean"]
    assert "accuracy on RGB, of the middle 120x120 pixels" in " ".join(table.stdout.split())
    with Image.open(faces / "000009.jpg") as image:
        high = np.asarray(image)[49:169, 29:149]
    low = Image.fromarray(high).resize((40, 40), Image.Resampling.BICUBIC)
    filtered = np.asarray(low.resize((120, 120), Image.Resampling.BICUBIC))
    agree = filtered.argmax(-1)[3:-3, 3:-3] == high.argmax(-1)[3:-3, 3:-3]
    found = report["scores"][0]
    assert (found["image"], found["method"]) == ("000009.jpg", "bicubic")
    assert found["accuracy"] == pytest.approx(agree.mean(), abs=0.01)


def test_stl10_is_scored_on_its_test_images(tiny_weights, paired):
    """And not on those that it is trained on."""
    path = paired / "data/stl10_binary/test_X.bin"
    path.parent.mkdir(parents=True)
    path.write_bytes(bytes(range(256)) * 108)

    report = json.loads(run_eval("stl10", "-m", tiny_weights, "--json").stdout)

    assert {one["image"] for one in report["scores"]} == {"stl10/test/0"}


@pytest.mark.usefixtures("faces")
def test_lr_can_be_made_worse(tiny_weights):
    """A degradation costs PSNR, is named in the protocol, and follows from the seed."""

    def scored(*options):
        return json.loads(run_eval("celeba", "-m", tiny_weights, "--json", *options).stdout)

    clean, worse = scored(), scored("--degradation", "blur=1..2,noise=5..9,jpeg=20..40")
    again = scored("--degradation", "noise=5..9,blur=1..2,jpeg=20..40")
    other = scored("--degradation", "blur=1..2,noise=5..9,jpeg=20..40", "--seed", "1")

    assert worse["mean"]["bicubic"]["psnr"] < clean["mean"]["bicubic"]["psnr"] - 1
    assert (clean["lr"], worse["lr"]) == ("bicubic", "blur=1..2,noise=5..9,jpeg=20..40")
    assert again["scores"] == worse["scores"]
    assert other["scores"] != worse["scores"]


def test_a_degradation_goes_before_the_sets_own_lr(tiny_weights):
    """A set's LR folder is not what ``--degradation`` asks for: LR is made of HR then."""
    Path("LRx3").mkdir()
    for name in ("a", "b"):
        with Image.open(f"HR/{name}.png") as image:
            image.resize((image.width // 3, image.height // 3)).save(f"LRx3/{name}.png")

    plain = json.loads(run_eval(".", "-m", tiny_weights, "--json").stdout)
    worse = run_eval(".", "-m", tiny_weights, "--json", "--degradation", "noise=9")

    assert (plain["lr"], json.loads(worse.stdout)["lr"]) == ("LRx3", "noise=9")
