"""The pictures in a run directory: the curves of its log, and samples of what the net makes."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from srcli.data.degrading import degrade
from srcli.ops.color import dequantize, quantize
from srcli.ops.degradation import Degradation
from srcli.ops.metrics import psnr
from srcli.training import curves
from srcli.training.images import TrainingImages, input_and_target
from srcli.training.run_directory import Row

__all__ = ["draw_curves", "draw_samples"]

Restore = Callable[[Tensor, Sequence[float]], Tensor]
"""Takes enlarged pictures and their scales, ``(N, 3, H, W)``, and returns what the net makes."""


def draw_curves(path: Path, rows: Sequence[Row], loss: str) -> None:
    """Draw the log's loss (of that name), accuracy and PSNR against the epoch, as PNG.

    Raises:
        OutputError: If the file cannot be written.
    """
    trained = _between_evaluations(rows)
    tested = [row for row in rows if "eval_loss" in row]

    def curve(label: str, rows: Sequence[Row], field: str) -> curves.Curve:
        return curves.Curve(label, [row["epoch"] for row in rows], [row[field] for row in rows])

    panels = {
        f"loss ({loss})": [
            curve("training", trained, "loss"),
            curve("evaluation", tested, "eval_loss"),
        ],
        "accuracy": [
            curve("training", trained, "accuracy"),
            curve("evaluation", tested, "eval_accuracy"),
        ],
        "PSNR, dB": [
            curve("evaluation", tested, "eval_psnr"),
            curve("bicubic", tested, "baseline_psnr"),
        ],
    }
    if any("discriminator" in row for row in rows):
        panels["parts of the loss"] = [
            curve(name, trained, name) for name in ("features", "adversarial", "discriminator")
        ]
    curves.curves(path, panels, title=path.parent.name)


@torch.no_grad()
def draw_samples(
    path: Path, images: TrainingImages, degradation: Degradation, restore: Restore
) -> None:
    """Draw LR, output and HR of a few images that the net was not trained on, if any can be read.

    Raises:
        OutputError: If the file cannot be written.
    """
    rows: list[list[curves.Cell]] = []
    titles = ("LR", "output", "HR")
    for batch in images.samples():
        image, target = input_and_target(batch, degradation)
        output = restore(image, batch.scales).clamp(0, 1)
        low = degrade(target, batch.scales[0], degradation, batch.draws)
        if batch.lows:
            low = dequantize(batch.lows[0])[None]
        before, after = (float(psnr(one.clamp(0, 1), target)) for one in (image, output))
        captions = (f"bicubic {before:.2f} dB", f"{after:.2f} dB", "")
        rows.append(
            [
                curves.Cell(image=_pixels(picture[0]), title=title, caption=caption)
                for picture, title, caption in zip(
                    (low, output, target), titles, captions, strict=True
                )
            ]
        )
        titles = ("", "", "")  # above the first row alone
    if rows:
        curves.sheet(path, rows)


def _pixels(picture: Tensor) -> Any:  # noqa: ANN401 - numpy's array type says no more here
    return quantize(picture).permute(1, 2, 0).cpu().numpy()


def _between_evaluations(rows: Sequence[Row]) -> list[Row]:
    """Average the training values of the lines up to each evaluation, weighted by steps."""
    result: list[Row] = []
    loss = accuracy = counted = before = 0.0
    evaluated = any("eval_loss" in row for row in rows)
    for row in rows:
        steps, before = row["step"] - before, row["step"]
        loss, accuracy = loss + row["loss"] * steps, accuracy + row["accuracy"] * steps
        counted += steps
        if ("eval_loss" in row or not evaluated) and counted:
            result.append(row | {"loss": loss / counted, "accuracy": accuracy / counted})
            loss = accuracy = counted = 0.0
    return result
