"""What an evaluation reports: scores, means and the protocol, as JSON and as CSV."""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from srcli.evaluation.config import EvalConfig
from srcli.evaluation.perceptual import METRICS
from srcli.files import one_line
from srcli.ops.engines import Compute

__all__ = ["EvalReport", "Score", "short_labels"]

_COLUMNS = ("dataset", "image", "method", "scale", "psnr", "ssim", "accuracy")
"""The columns of the scores as CSV; those of added metrics follow."""


class Score(NamedTuple):
    """The scores of one method on one image."""

    image: str
    method: str
    values: dict[str, float]
    """By name: ``psnr`` in dB, ``ssim``, ``accuracy`` (the share of pixels whose largest channel is
    the original's), then the added metrics."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalReport:
    """All scores, and the protocol they were measured by."""

    config: EvalConfig
    lr: str
    """The origin of LR: a folder's name, or the degradation that made it."""

    compute: Compute
    scores: tuple[Score, ...]

    @property
    def models(self) -> tuple[str, ...]:
        """The methods that are weights, in the order asked for."""
        return tuple(self.config.nets)

    @property
    def methods(self) -> tuple[str, ...]:
        """The baselines, then the models, in the order asked for."""
        return (*self.config.baselines, *self.models)

    def mean(self, method: str) -> dict[str, float]:
        """Mean of each of a method's scores over the images, by name."""
        own = [score.values for score in self.scores if score.method == method]
        return {name: fmean(values[name] for values in own) for name in own[0]}

    @property
    def protocol(self) -> str:
        """The protocol in one line."""
        config = self.config
        what = "luma (BT.601 studio range)" if config.channel == "y" else "RGB"
        if config.is_named:
            what += ", accuracy on RGB, of the middle 120x120 pixels"
        added = ""
        if config.metrics:
            added = f", {'/'.join(map(_marked, config.metrics))} on RGB, uncut"
        if self._lower_is_better:
            added += " (*: lower is better)"
        return (
            f"PSNR/SSIM on {what}, {config.border} px border cut{added}, x{config.scale:g}, "
            f"LR: {self.lr}, {self.compute.format} on {self.compute.device}"
        )

    @property
    def heading(self) -> str:
        """What the numbers of a cell are, or nothing where they are the usual two or three."""
        usual = ["PSNR", "SSIM", *(["accuracy"] if self.config.is_named else [])]
        added = [*map(_marked, self.config.metrics)]
        return " / ".join([*usual, *added]) if added else ""

    @property
    def _lower_is_better(self) -> list[str]:
        return [name for name in self.config.metrics if METRICS[name].lower_is_better]

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON values, the means included; what is not finite is None."""
        return {
            "dataset": str(self.config.dataset),
            "scale": self.config.scale,
            "lr": self.lr,
            "channel": self.config.channel,
            "crop_border": self.config.border,
            "device": str(self.compute.device),
            "dtype": self.compute.format,
            "methods": self.methods,
            "scores": [
                {"image": image, "method": method, **_finite(values)}
                for image, method, values in self.scores
            ],
            "baselines": self.config.baselines,
            "metrics": self.config.metrics,
            "has_accuracy": self.config.is_named,
            "lower_is_better": self._lower_is_better,
            "protocol": self.protocol,
            "mean": {method: _finite(self.mean(method)) for method in self.methods},
        }

    def to_csv(self) -> str:
        """The scores as CSV: a line for each image and method, and one for each method's mean.

        The image of a mean is ``mean``; a PSNR may be ``inf``.
        """
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow((*_COLUMNS, *self.config.metrics))
        means = (Score("mean", method, self.mean(method)) for method in self.methods)
        for image, method, values in (*self.scores, *means):
            names = map(one_line, (str(self.config.dataset), image, method))
            writer.writerow((*names, f"{self.config.scale:g}", *values.values()))
        return text.getvalue()


def short_labels(methods: Sequence[str]) -> dict[str, str]:
    """Return a label of each method, by its name: that of its file if no other has it."""
    names = [Path(method).name for method in methods]
    return {
        method: name if names.count(name) == 1 else method
        for method, name in zip(methods, names, strict=True)
    }


def _marked(name: str) -> str:
    """Return a metric's label, with a star if lower is better."""
    return METRICS[name].label + "*" * METRICS[name].lower_is_better


def _finite(values: dict[str, float]) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in values.items()}
