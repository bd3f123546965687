"""What an evaluation reports: scores, means and the protocol, as JSON and as CSV."""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from srcli.evaluation.config import BASELINE
from srcli.evaluation.perceptual import METRICS
from srcli.files import one_line

__all__ = ["EvalReport", "Score", "short_labels"]

_COLUMNS = ("dataset", "image", "method", "scale", "psnr", "ssim", "accuracy")
"""The columns of the scores as CSV; those of added metrics follow."""


@dataclass(frozen=True, slots=True)
class Score:
    """The scores of one method on one image."""

    image: str
    method: str
    psnr: float
    """dB."""

    ssim: float
    accuracy: float
    """Share of pixels whose largest channel is the original's."""

    added: dict[str, float] = field(default_factory=dict)
    """The metrics beside these, by name."""

    @property
    def values(self) -> dict[str, float]:
        """All of them by name."""
        return {"psnr": self.psnr, "ssim": self.ssim, "accuracy": self.accuracy, **self.added}


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalReport:
    """All scores, and the protocol they were measured by."""

    dataset: str
    scale: float
    lr: str
    """The origin of LR: a folder's name, or the degradation that made it."""

    channel: str
    crop_border: int
    device: str
    dtype: str
    methods: tuple[str, ...]
    """The baselines, then the models, in the order asked for."""

    scores: tuple[Score, ...]

    baselines: tuple[str, ...] = (BASELINE,)
    """Those of the methods that are filters."""

    metrics: tuple[str, ...] = ()
    """Metrics beside PSNR and SSIM, in the order asked for."""

    has_accuracy: bool = False
    """Whether accuracy belongs to the data set's protocol, as it does to the source paper's."""

    def mean(self, method: str) -> dict[str, float]:
        """Mean of each of a method's scores over the images, by name."""
        own = [score.values for score in self.scores if score.method == method]
        return {name: fmean(values[name] for values in own) for name in own[0]}

    @property
    def models(self) -> tuple[str, ...]:
        """Those of the methods that are weights, in the order asked for."""
        return tuple(name for name in self.methods if name not in self.baselines)

    @property
    def protocol(self) -> str:
        """The protocol in one line."""
        what = "luma (BT.601 studio range)" if self.channel == "y" else "RGB"
        if self.has_accuracy:
            what += ", accuracy on RGB, of the middle 120x120 pixels"
        added = ""
        if self.metrics:
            added = f", {'/'.join(map(_marked, self.metrics))} on RGB, uncut"
        if self._lower_is_better:
            added += " (*: lower is better)"
        return (
            f"PSNR/SSIM on {what}, {self.crop_border} px border cut{added}, x{self.scale:g}, "
            f"LR: {self.lr}, {self.dtype} on {self.device}"
        )

    @property
    def heading(self) -> str:
        """What the numbers of a cell are, or nothing where they are the usual two or three."""
        usual = ["PSNR", "SSIM", *(["accuracy"] if self.has_accuracy else [])]
        return " / ".join([*usual, *map(_marked, self.metrics)]) if self.metrics else ""

    @property
    def _lower_is_better(self) -> list[str]:
        return [name for name in self.metrics if METRICS[name].lower_is_better]

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON values, the means included; what is not finite is None."""
        return asdict(self) | {
            "scores": [
                {"image": one.image, "method": one.method, **_finite(one.values)}
                for one in self.scores
            ],
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
        writer.writerow((*_COLUMNS, *self.metrics))
        lines = [(one.image, one.method, one.values) for one in self.scores]
        lines += [("mean", method, self.mean(method)) for method in self.methods]
        for image, method, values in lines:
            names = map(one_line, (self.dataset, image, method))
            writer.writerow((*names, f"{self.scale:g}", *values.values()))
        return text.getvalue()


def short_labels(methods: Sequence[str]) -> dict[str, str]:
    """Return a label of each method, by its name: the shortest end of its path no other has.

    Every run has a ``model.safetensors``.
    """
    parts = {method: Path(method).parts for method in methods}
    labels: dict[str, str] = {}
    for length in range(1, max(map(len, parts.values()), default=0) + 1):
        ends = {method: "/".join(found[-length:]) for method, found in parts.items()}
        for method, end in ends.items():
            if list(ends.values()).count(end) == 1:
                labels.setdefault(method, end)
    return {method: labels.get(method, method) for method in methods}


def _marked(name: str) -> str:
    """Return a metric's label, with a star if lower is better."""
    return METRICS[name].label + "*" * METRICS[name].lower_is_better


def _finite(values: dict[str, float]) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in values.items()}
