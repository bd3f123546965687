"""``srcli eval --metric``: what the library computes, where it stands, and what is missing."""

import csv
import hashlib
import json
import math
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from command_runs import run_eval
from PIL import Image
from run_files import refusal

from srcli.errors import WeightsError
from srcli.evaluation import panels, perceptual
from srcli.evaluation.config import EvalConfig
from srcli.evaluation.perceptual import METRICS, PerceptualScorer
from srcli.evaluation.report import EvalReport, Score
from srcli.imaging.pictures import Picture
from srcli.ops.engines import Compute

CPU = torch.device("cpu")


@pytest.fixture
def library():
    """The library of the extra, imported as it is installed."""
    return pytest.importorskip("torchmetrics.functional.image", exc_type=ImportError)


def batch(pixels):
    """An image as torchmetrics takes it, ``(1, 3, H, W)`` in [0, 1]."""
    return torch.from_numpy(np.asarray(pixels, np.float32)).permute(2, 0, 1)[None] / 255


@pytest.mark.usefixtures("here")
def test_added_metrics_stand_in_every_output(library, photo, tiny_weights, monkeypatch):
    """Table, JSON, CSV and panels have them behind PSNR and SSIM, by one name each."""
    Path("HR").mkdir()
    Image.fromarray(np.tile(photo, (3, 2, 1))).save("HR/a.png")
    captions = []
    monkeypatch.setattr(panels, "draw", lambda _, views, __: captions.append(views[1][2]))
    options = ("-m", tiny_weights, "--metric", "ms-ssim,psnr", "--metric", "vif")

    made = run_eval("HR", *options, "--json", "-o", "a.csv", "--panels", "out")
    table = run_eval("HR", *options)

    assert (made.exit_code, made.stderr) == (0, "")
    report = json.loads(made.stdout)
    assert (report["metrics"], report["lower_is_better"]) == (["ms-ssim", "vif"], [])
    score = report["scores"][0]
    assert list(score)[2:] == ["psnr", "ssim", "accuracy", "ms-ssim", "vif"]
    assert report["mean"]["bicubic"] == {name: score[name] for name in list(score)[2:]}
    header, first, *_ = csv.reader(Path("a.csv").read_text(encoding="utf-8").splitlines())
    assert header[4:] == list(score)[2:]
    assert [float(value) for value in first[4:]] == [score[name] for name in header[4:]]
    shown = f"{score['psnr']:.2f} / {score['ssim']:.4f} / {score['ms-ssim']:.4f}"
    assert f"{shown} / {score['vif']:.4f}" in table.stdout
    assert "PSNR / SSIM / MS-SSIM / VIF" in table.stdout
    assert "cut, MS-SSIM/VIF on RGB, uncut, x3, LR" in " ".join(table.stdout.split())
    assert captions[0].endswith(f"MS-SSIM {score['ms-ssim']:.4f} / VIF {score['vif']:.4f}")

    with Image.open("HR/a.png") as image:  # 194 columns are cut to 192
        high = image.crop((0, 0, 192, 183))
    low = high.resize((64, 61), Image.Resampling.BICUBIC)
    result = low.resize(high.size, Image.Resampling.BICUBIC)
    expected = library.multiscale_structural_similarity_index_measure(
        batch(result), batch(high), data_range=1.0
    )
    assert score["ms-ssim"] == pytest.approx(float(expected), abs=1e-4)


def test_a_metric_that_is_better_when_lower_has_a_star():
    """In the table's heading and in the protocol, which says what it means; JSON lists them."""
    scores = {"psnr": 30.0, "ssim": 0.9, "accuracy": 1.0, "lpips": 0.25, "vif": math.nan}
    report = EvalReport(
        config=EvalConfig(dataset="HR", scale=4.0, baselines=(), metrics=("lpips", "vif")),
        lr="LRx4",
        compute=Compute("torch", CPU, torch.float32, "cpu"),
        scores=(Score("a.png", "base", scores),),
    )
    values = report.to_dict()

    assert report.heading == "PSNR / SSIM / LPIPS* / VIF"
    assert "4 px border cut, LPIPS*/VIF on RGB, uncut (*: lower is better), x4" in report.protocol
    assert values["lower_is_better"] == ["lpips"]
    assert (values["mean"]["base"]["lpips"], values["scores"][0]["vif"]) == (0.25, None)


@pytest.mark.usefixtures("paired")
@pytest.mark.parametrize("module", ["torchmetrics.functional", "torchvision"])
def test_a_missing_library_is_named(monkeypatch, tiny_weights, module):
    """The line says what to install without another torch."""
    package = module.partition(".")[0]
    monkeypatch.setitem(sys.modules, "torchvision", ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, module, None)

    result = run_eval("HR", "-m", tiny_weights, "--metric", "lpips")

    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"error: --metric lpips needs the package {package}, which")
    version = torch.__version__.partition("+")[0]
    assert result.stderr.endswith(f"pip install 'srcli[metrics]' torch=={version}\n")


@pytest.mark.usefixtures("paired", "library")
def test_a_torchvision_of_another_torch_is_named(monkeypatch, tiny_weights):
    """Its import fails with whatever torch raises; that is one line."""
    Path("torchvision.py").write_text("raise RuntimeError('operator nms does not exist.\\nx')")
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    monkeypatch.syspath_prepend(Path.cwd())

    result = run_eval("HR", "-m", tiny_weights, "--metric", "dists")

    assert result.exit_code == 2
    assert result.stderr.startswith("error: --metric dists: the installed torchvision does not fit")
    assert "(operator nms does not exist); install the build" in result.stderr


@pytest.mark.usefixtures("library")
def test_a_net_is_read_only_if_it_is_the_published_file(monkeypatch, tmp_path):
    """Missing, it is named with its address and not downloaded; another file is not opened."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setitem(sys.modules, "torchvision", ModuleType("torchvision"))
    *_, file, digest = METRICS["dists"]
    path = tmp_path / "hub" / "checkpoints" / file

    missing = refusal(lambda: PerceptualScorer(["dists"], CPU), WeightsError)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"<html>")
    other = refusal(lambda: PerceptualScorer(["dists"], CPU), WeightsError)

    assert missing == (
        f"--metric dists needs {path}, which is not there; add --download, or get it from "
        f"https://download.pytorch.org/models/{file}"
    )
    assert other.startswith(f"{path} is not the published file (its SHA-256 begins")
    assert other.endswith(f"not {digest[:8]}); delete it and add --download")


def test_nets_are_downloaded_on_demand(monkeypatch, tmp_path):
    """Each once, checked, and only those that are missing; what fails is one line."""
    (tmp_path / "a.pth").write_bytes(b"weights")
    (tmp_path / "b.pth").write_bytes(b"a page")
    digest = hashlib.sha256(b"weights").hexdigest()
    nets = {"lpips": "a.pth", "dists": "b.pth"}
    metrics = {name: METRICS[name]._replace(file=nets[name], digest=digest) for name in nets}
    monkeypatch.setattr(perceptual, "METRICS", {**METRICS, **metrics})
    monkeypatch.setattr(perceptual, "_HOST", tmp_path.as_uri())
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))

    perceptual.fetch(["lpips", "vif"], quiet=True)
    with pytest.raises(WeightsError, match=r"b\.pth: invalid hash value .*try again later, or put"):
        perceptual.fetch(["lpips", "dists"], quiet=True)

    folder = tmp_path / "home" / "hub" / "checkpoints"
    assert [path.name for path in folder.iterdir()] == ["a.pth"]


@pytest.mark.usefixtures("library")
def test_a_picture_that_is_too_small_is_named():
    """Each metric has its own smallest size, and its library's words for it."""
    tiny = Picture(pixels=np.zeros((20, 24, 1), np.uint8))

    with pytest.raises(perceptual.DataError, match=r"^a cannot be scored by --metric vif: "):
        PerceptualScorer(["vif"], CPU).scores("a", tiny, tiny)
