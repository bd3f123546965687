"""What the documents say of the shipped weights is what was measured, for these very files."""

import hashlib
import json
from pathlib import Path
from statistics import fmean

import pytest
from run_files import tool

from srcli.evaluation.config import EvalConfig
from srcli.evaluation.evaluate import evaluate
from srcli.model import weights
from srcli.ops.degradation import Degradation

ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared" / "data"
RESULTS = json.loads((ROOT / "benchmarks" / "results" / "scores.json").read_text("utf-8"))
BLOCKS = ("scores", "faces", "factors", "strengths")


scores = tool("scores")


def shown(name):
    """The rows of a table in the documents, without its head."""
    block = scores.page_of(name).read_text("utf-8").split(f"<!-- {name}:begin -->\n")[1]
    return block.split(f"<!-- {name}:end -->")[0].splitlines()[2:]


def rows(name):
    """The measured rows of a block."""
    return RESULTS["blocks"][name]["rows"]


def test_the_results_are_of_the_shipped_files():
    """Checksum and header are those of the files in weights/, no more and no less."""
    shipped = {path.stem: path for path in (ROOT / "weights").glob("*.safetensors")}

    assert set(RESULTS["weights"]) == set(RESULTS["headers"]) == set(shipped) <= set(scores.NAMES)
    for name, path in shipped.items():
        header = weights.read_header(path)
        assert RESULTS["weights"][name] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert RESULTS["headers"][name] == header.training
        assert list(header.scores) in ([], scores.lines(name, rows("scores")))


@pytest.mark.parametrize("name", BLOCKS)
def test_a_document_shows_the_results(name):
    """The rows of each table are the measured means, rounded, of all shipped nets and no other."""
    nets, others = scores.nets(name), {"faces": {"paper --tta"}}
    methods = {"bicubic", *nets} | others.get(name, set())
    assert RESULTS["blocks"][name]["nets"] == nets
    assert {method for row in rows(name) for method in row["mean"]} == methods
    assert shown(name) == scores.BLOCKS[name].table(rows(name)).splitlines()[2:]
    for row in rows(name):
        for method, mean in row["mean"].items() if "scores" in row else ():
            own = [score for score in row["scores"] if score["method"] == method]
            assert len(own) == row["images"]
            for key in ("psnr", "ssim", "accuracy"):
                assert mean[key] == pytest.approx(fmean(score[key] for score in own))


def test_the_tables_are_of_the_whole_sets():
    """Every image of every set was scored, at every factor and strength."""
    assert [(row["dataset"], row["scale"], row["images"]) for row in rows("scores")] == [
        (name, scale, images)
        for name, images in (("Set5", 5), ("Set14", 14))
        for scale in (2, 3, 4)
    ]
    assert [row["images"] for row in rows("faces")] == [500]
    assert [row["scale"] for row in rows("factors")] == [1.5, 2, 2.5, 3, 4, 6, 8, 16]
    assert {(row["lr"], row["images"]) for row in rows("factors")} == {("bicubic", 14)}
    assert [row["strength"] for row in rows("strengths")] == list(scores.STRENGTHS)
    for row in rows("strengths"):
        assert row["lr"] == str(Degradation.parse(scores.STRENGTHS[row["strength"]]))
        assert row["images"] == 20


@pytest.mark.parametrize(("name", "limit", "least"), [("set5", 5, 34.0), ("set14", 3, 25.5)])
def test_the_shipped_weights_score_what_they_must(name, limit, least):
    """On images of the benchmark sets ``base`` has the PSNR that is written down for each."""
    if not (DATA / name).is_dir():
        pytest.skip(f"shared/data/{name} is not beside the repository")

    report = evaluate(EvalConfig(dataset=DATA / name, limit=limit))

    (written,) = (
        {score["image"]: score["psnr"] for score in row["scores"] if score["method"] == "base"}
        for row in rows("scores")
        if (row["dataset"], row["scale"]) == (name.capitalize(), 3.0)
    )
    found = {score.image: score.values["psnr"] for score in report.scores if score.method == "base"}
    assert len(found) == limit
    assert report.mean("base")["psnr"] >= least
    for image, psnr in found.items():  # another number format, another machine
        assert psnr == pytest.approx(written[image], abs=0.05)
