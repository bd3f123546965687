"""What a run reports: its scores, its progress, its end, and the record in its weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from srcli.data.sources import DATASETS, parse
from srcli.training.config import TrainConfig

__all__ = ["Progress", "Scores", "TrainReport", "recipe_record", "skipped_lines"]

_NAMED = 10
"""Unreadable images that are named at the end of a run; all of them are in skipped.txt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """How the averaged net does on the evaluation images, means over them."""

    loss: float
    accuracy: float
    """Share of pixels whose largest channel is the HR patch's."""

    psnr: float
    """Of RGB, dB."""

    baseline_psnr: float
    """The bicubic input's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where a run is after a step."""

    step: int
    epoch: float
    """Passes over the training images."""

    done: float
    """Share of the run, 0 to 1."""

    loss: float
    """Mean over the steps of the last line of the log."""

    lr: float
    scores: Scores | None
    """The last evaluation's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainReport:
    """How a run ended."""

    output: str
    weights: str
    step: int
    patches: int
    seconds: float
    """Time in the training loop, all sessions together."""

    waited: float
    """Share of this session's time in which the net waited for images, 0 to 1."""

    loss: float | None
    """Mean over the steps of the last line of the log; None if this session had no step."""

    accuracy: float | None
    scores: Scores | None
    skipped: int
    """Images that could not be read."""

    finished: bool
    """False if the run was stopped early and can be resumed."""

    stopped: bool
    """Whether this process, or another one of the run, was asked to stop."""


def recipe_record(config: TrainConfig) -> dict[str, Any]:
    """Return what the header of the weights says of the options that they were made with."""
    schedule = "cosine to 0" if config.schedule == "cosine" else config.schedule
    steps = f"{config.lr:g}, warm-up {config.warmup} steps, {schedule}"
    return {
        "recipe": config.recipe,
        # What a data set is called, not where it lay.
        "data": [
            name if parse(name)[0] in DATASETS else Path(name).name for name in config.datasets
        ],
        "split": config.split,
        "degradation": str(config.degradation),
        "scales": list(config.scales),
        "loss": config.loss,
        "optimizer": f"{config.optimizer.capitalize()} {steps}",
        "weight_decay": config.weight_decay,
        "ema": config.ema,
        "augment": config.augment,
        "batch_size": config.batch,
        "seed": config.seed,
        "init_from": config.init_from.name if config.init_from else None,
    }


def skipped_lines(reasons: Sequence[str], path: Path) -> list[str]:
    """Return the lines that name images which could not be read, the first ten of them.

    Args:
        reasons: A line for each image.
        path: The file that has them all.
    """
    lines = [f"{len(reasons)} images could not be read and were left out:"]
    lines += [f"  {reason}" for reason in reasons[:_NAMED]]
    if len(reasons) > _NAMED:
        lines.append(f"  and {len(reasons) - _NAMED} more: {path}")
    return lines
