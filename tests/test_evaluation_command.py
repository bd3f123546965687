"""``srcli eval``: what it prints, what it writes, and how it ends."""

import csv
import json
from pathlib import Path

import pytest
from command_runs import run_eval
from PIL import Image

from srcli.evaluation.config import BASELINE, EvalConfig
from srcli.evaluation.evaluate import evaluate
from srcli.upscaler import Settings


@pytest.fixture(autouse=True)
def paired(here, photo):
    """A working directory with a folder ``HR`` of two pictures, and nothing else."""
    Path("HR").mkdir()
    Image.fromarray(photo).save("HR/a.png")
    Image.fromarray(photo[:50, :70]).save("HR/b.png")
    return here


@pytest.fixture
def report(tiny_weights):
    """What the tiny net scores on ``HR``."""
    settings = Settings(device="cpu", dtype="fp32")
    return evaluate(EvalConfig(dataset="HR", models=(str(tiny_weights),), settings=settings))


def strictly(text):
    """Parse JSON as every other program does: without NaN and Infinity."""

    def refuse(constant):
        raise ValueError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


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
            {
                "image": score.image,
                "method": score.method,
                **score.values,
            }
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
    values = [(s.image, s.method, *s.values.values()) for s in report.scores]
    values += [("mean", name, *report.mean(name).values()) for name in report.methods]
    assert rows == [
        ["HR", image, method, "3", *map(str, numbers)] for image, method, *numbers in values
    ]


def test_any_name_and_an_infinite_score_can_be_written(plain_weights):
    """A name that is no text or has a line break, and equal pictures, fit into CSV and JSON."""
    Path("flat").mkdir()
    Image.new("RGB", (60, 48), (10, 200, 30)).save("flat/a,\n\udcff.png", "PNG")

    result = run_eval("flat", "-m", plain_weights, "-o", "scores.csv", "--json")

    assert result.exit_code == 0
    lines = Path("scores.csv").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 1 + 2 + 2
    assert lines[1].startswith(r'flat,"a,\n\udcff.png",bicubic,3,inf,1.0,')
    score = strictly(result.stdout)["scores"][0]
    assert (score["psnr"], score["ssim"]) == (None, 1.0)


@pytest.mark.parametrize(
    ("given", "methods"),
    [
        ((), ["bicubic"]),
        (("nearest", "lanczos", "nearest"), ["nearest", "lanczos"]),
        (("none",), []),
    ],
    ids=["default", "two", "none"],
)
def test_baseline_chooses_the_filters(tiny_weights, given, methods):
    """Each name is taken once, in the order given; none takes the default away."""
    options = [word for name in given for word in ("--baseline", name)]

    result = run_eval("HR", "-m", tiny_weights, "--limit", "1", *options, "--json")

    assert result.exit_code == 0
    assert json.loads(result.stdout)["methods"] == [*methods, str(tiny_weights)]


NO_SET = (
    "set5 is not a folder of images; give a folder of HR images, or one with the folders "
    "HR and LRx3, or celeba or stl10; Set5, Set14 and other such sets have to be downloaded "
    "by hand: https://github.com/XPixelGroup/BasicSR/blob/master/docs/DatasetPreparation.md has "
    "the links"
)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (
            ["HR", "-s", "2", "--scale", "2.5"],
            2,
            "--scale is given 2 times (2, 2.5); run srcli eval for each",
        ),
        (["set5"], 4, NO_SET),
        (
            ["HR", "--lr", "low"],
            4,
            "low is no folder of images; give that of the LR images as --lr",
        ),
    ],
    ids=["two scales", "set5", "no LR"],
)
def test_what_cannot_be_scored_is_refused_in_one_line(tiny_weights, arguments, code, message):
    """The line says what, the value and the way out; nothing is printed on stdout."""
    result = run_eval(*arguments, "-m", tiny_weights)

    assert (result.exit_code, result.stdout) == (code, "")
    assert result.stderr == f"error: {message}\n"


def rows_of(text):
    """The cells of each line of the table in a text."""
    return [
        [cell.strip() for cell in line.strip("│┃").replace("┃", "│").split("│")]
        for line in text.splitlines()
        if "│" in line or "┃" in line
    ]


def test_the_table_shows_every_score(tiny_weights, report):
    """A row for each image and one for the mean, the protocol below; names are no markup."""
    Path("HR/b.png").rename("HR/b [red] 1.png")

    result = run_eval("HR", "-m", tiny_weights)

    assert (result.exit_code, result.stderr) == (0, "")
    values = [score.values for score in report.scores] + [*map(report.mean, report.methods)]
    cells = [f"{one['psnr']:.2f} / {one['ssim']:.4f}" for one in values]
    assert rows_of(result.stdout) == [
        ["image", BASELINE, "tiny.safetensors"],
        ["a.png", *cells[:2]],
        ["b [red] 1.png", *cells[2:4]],
        ["mean", *cells[4:]],
    ]
    assert report.protocol in " ".join(result.stdout.split())


def test_a_gate_that_a_model_misses_ends_with_six(tiny_weights, plain_weights, report):
    """Scores are printed and written all the same; one line says which model failed.

    The baseline may lie below the gate or above it; every model must reach it.
    """
    plain, tiny = (report.mean(name)["psnr"] for name in (BASELINE, str(tiny_weights)))
    assert tiny < plain - 0.02
    gate = ("--min-psnr", f"{(plain + tiny) / 2:.4f}")

    result = run_eval(
        "HR", "-m", plain_weights, "-m", tiny_weights, "--json", "-o", "a.json", *gate
    )
    quiet = run_eval("HR", "-m", tiny_weights, "-q", "--min-psnr", "60")

    assert result.exit_code == 6
    assert result.stderr.startswith(f"error: {tiny_weights} has {tiny:.2f} dB, --min-psnr asks for")
    assert json.loads(result.stdout)["mean"][str(tiny_weights)]["psnr"] == tiny
    assert Path("a.json").read_text(encoding="utf-8") == result.stdout
    assert run_eval("HR", "-m", plain_weights, *gate).exit_code == 0
    assert (quiet.exit_code, quiet.stdout) == (6, "")
    assert quiet.stderr == f"error: {tiny_weights} has {tiny:.2f} dB, --min-psnr asks for 60\n"
