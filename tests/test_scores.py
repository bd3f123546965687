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


def test_the_results_are_of_the_shipped_file():
    """The checksum in the results is that of weights/base.safetensors, and so is the header."""
    file = ROOT / "weights" / "base.safetensors"

    assert RESULTS["weights"]["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert RESULTS["header"] == weights.read_header(file).training


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
