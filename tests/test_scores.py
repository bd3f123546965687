"""What README says of the shipped weights is what was measured, for this very file."""

import hashlib
import json
from pathlib import Path

import pytest

from srcli import weights
from srcli.evaluation import EvalConfig, evaluate

ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared" / "data"
RESULTS = json.loads((ROOT / "benchmarks" / "results" / "scores.json").read_text("utf-8"))


def test_every_shipped_file_has_results():
    """What is in weights/ is what was scored, no more and no less."""
    shipped = {path.stem for path in (ROOT / "weights").glob("*.safetensors")}

    assert set(RESULTS["weights"]) == set(RESULTS["headers"]) == shipped


@pytest.mark.parametrize("name", sorted(RESULTS["weights"]))
def test_the_results_are_of_the_shipped_file(name):
    """The checksum in the results is that of the file in weights/, and so is the header."""
    file = ROOT / "weights" / f"{name}.safetensors"

    assert RESULTS["weights"][name] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert RESULTS["headers"][name] == weights.read_header(file).training


def test_readme_shows_the_results():
    """Every row of README's table is a mean of the results, rounded."""
    block = (ROOT / "README.md").read_text("utf-8").split("<!-- scores:begin -->\n")[1]
    rows = block.split("<!-- scores:end -->")[0].splitlines()[2:]

    expected = [
        f"| {report['dataset']} | ×{report['scale']:g} | "
        + " | ".join(f"{mean['psnr']:.2f} / {mean['ssim']:.4f}" for mean in report["mean"].values())
        + " |"
        for report in RESULTS["reports"]
    ]
    assert expected == rows
    assert len(rows) == 6


def test_readme_shows_the_faces():
    """The table of CelebA's test images is the results, rounded."""
    block = (ROOT / "README.md").read_text("utf-8").split("<!-- faces:begin -->\n")[1]
    rows = block.split("<!-- faces:end -->")[0].splitlines()[2:]

    assert rows == [
        f"| {name} | {mean['psnr']:.2f} | {mean['ssim']:.4f} | {mean['accuracy']:.2%} |"
        for name, mean in RESULTS["faces"]["mean"].items()
    ]
    assert [row.split(" | ")[0] for row in rows] == ["| bicubic", "| paper", "| base"]


def test_the_papers_weights_beat_bicubic_on_faces():
    """On the first images of CelebA's test partition, measured here and now, by 1.5 dB at least."""
    if not (DATA / "celeba").is_dir():
        pytest.skip("shared/data/celeba is not beside the repository")

    report = evaluate(
        EvalConfig(dataset="celeba", data_dir=DATA, models=("paper",), limit=12, seed=1)
    )

    assert report.mean("paper")[0] > report.mean("bicubic")[0] + 1.5
    assert report.mean("paper")[1] > report.mean("bicubic")[1]


@pytest.mark.parametrize(("name", "least"), [("set5", 33.5), ("set14", 29.7)])
def test_the_shipped_weights_score_what_they_must(name, least):
    """On the benchmark sets ``base`` reaches its least PSNR, and the result written down."""
    if not (DATA / name).is_dir():
        pytest.skip(f"shared/data/{name} is not beside the repository")

    found = evaluate(EvalConfig(dataset=DATA / name)).mean("base")[0]

    (written,) = (
        report["mean"]["base"]["psnr"]
        for report in RESULTS["reports"]
        if (report["dataset"], report["scale"]) == (name.capitalize(), 3.0)
    )
    assert found >= least
    assert found == pytest.approx(written, abs=0.03)  # another number format, another machine
