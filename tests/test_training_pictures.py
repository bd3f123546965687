"""The pictures in a run directory: the curves of a log, and samples of what the net makes."""

from pathlib import Path

import pytest
import torch

from srcli.model import weights
from srcli.ops.color import dequantize
from srcli.training import curves
from srcli.training.distributed import ProcessGroup
from srcli.training.images import TrainingImages
from srcli.training.pictures import draw_curves, draw_samples

PLAIN = {"patches": 40, "seconds": 1.25, "lr": 1e-3}
SCORED = {"eval_loss": 0.08, "eval_accuracy": 0.92, "eval_psnr": 30.25, "baseline_psnr": 29.5}


def row(step, loss=0.1, accuracy=0.9, **changes):
    """Make a line of the log at an epoch of ten steps."""
    values = {"step": step, "epoch": step / 10, "loss": loss, "accuracy": accuracy}
    return PLAIN | values | changes


def test_curves_show_both_losses_and_accuracies(monkeypatch):
    """Training values are means between evaluations, weighted by their steps."""
    calls = []
    monkeypatch.setattr(curves, "curves", lambda *a, **k: calls.append((a, k)))
    rows = (
        row(1, loss=1.0, accuracy=0.5),
        row(10, loss=0.4, accuracy=0.7, **SCORED),
        row(20, loss=0.2, accuracy=0.8, **(SCORED | {"eval_loss": 0.3})),
    )

    draw_curves(Path("runs/one/curves.png"), rows, "mse")

    ((path, panels), named) = calls[0]
    assert (path, named) == (Path("runs/one/curves.png"), {"title": "one"})
    epochs = [1.0, 2.0]
    assert panels == {
        "loss (mse)": [
            ("training", epochs, pytest.approx([(1.0 + 9 * 0.4) / 10, 0.2])),
            ("evaluation", epochs, [0.08, 0.3]),
        ],
        "accuracy": [
            ("training", epochs, pytest.approx([(0.5 + 9 * 0.7) / 10, 0.8])),
            ("evaluation", epochs, [0.92, 0.92]),
        ],
        "PSNR, dB": [("evaluation", epochs, [30.25] * 2), ("bicubic", epochs, [29.5] * 2)],
    }


def test_the_sample_is_what_the_captions_say(finished, monkeypatch):
    """A sample is LR, output and HR of an image not trained on, with its own two scores."""
    sheets = []
    monkeypatch.setattr(curves, "sheet", lambda *sheet: sheets.append(sheet))
    images = TrainingImages(finished.config, ProcessGroup(torch.device("cpu")), print)
    net, _ = weights.load(Path(finished.report.weights))

    draw_samples(Path("samples.png"), images, finished.config.degradation, net)

    ((path, (cells,)),) = sheets
    (batch,) = images.evaluation_batches()
    target, scores = dequantize(batch.patches), finished.report.scores
    assert path == Path("samples.png")
    assert [cell.title for cell in cells] == ["LR", "output", "HR"]
    low, output, high = (cell.image for cell in cells)
    assert (low.shape, output.shape, high.shape) == ((40, 40, 3), (120, 120, 3), (120, 120, 3))
    assert torch.equal(torch.from_numpy(high), (target[0] * 255).round().byte().permute(1, 2, 0))
    assert [cell.caption for cell in cells] == [
        *(f"bicubic {scores.baseline_psnr:.2f} dB", f"{scores.psnr:.2f} dB", "")
    ]
