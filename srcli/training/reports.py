"""What a run measures and reports: steps, scores, its end, and the record in its weights."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from srcli.data.sources import DATASETS, parse
from srcli.errors import TrainingError
from srcli.training.config import TrainConfig
from srcli.training.distributed import ProcessGroup
from srcli.training.images import GIVEN, TrainingImages

__all__ = [
    "Progress",
    "RecentSteps",
    "Scores",
    "TrainReport",
    "diverged",
    "training_record",
]


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

    def cells(self) -> dict[str, float]:
        """Return the log's columns of them."""
        own = {f"eval_{name}": value for name, value in asdict(self).items()}
        return own | {"baseline_psnr": own.pop("eval_baseline_psnr")}


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


class RecentSteps:
    """Loss, accuracy and the like of the steps since the last line of the log.

    They stay on the device, so that a GPU need not be waited for. What concerns all processes has
    to be called by all of them together, after the same number of steps.
    """

    def __init__(self, group: ProcessGroup) -> None:
        self._group = group
        self._values: dict[str, list[Tensor]] = {}

    def append(self, values: Mapping[str, Tensor]) -> None:
        """Add the values of a step, ``loss`` and ``accuracy`` among them."""
        for name, value in values.items():
            self._values.setdefault(name, []).append(value.detach())

    def require_finite(self, step: int, lr: float) -> None:
        """Raise ``TrainingError`` if a loss up to ``step``, the last one, is not finite.

        The losses of all processes are looked at together: otherwise those that saw none would
        wait for ever for the one that stopped.
        """
        if not self._values:
            return
        sums = torch.stack([torch.stack(values).double() for values in self._values.values()])
        losses = sums.sum(0).cpu()
        bad = (~self._group.sum(losses).isfinite()).nonzero()
        if len(bad):
            raise diverged("loss is", step - len(losses) + int(bad[0]) + 1, lr)

    def take_means(self) -> dict[str, float]:
        """Return the means over the steps and all processes, and begin anew."""
        means = {
            name: float(self._group.mean(torch.stack(values).double().mean().cpu()))
            for name, values in self._values.items()
        }
        self._values.clear()
        return means

    def state(self) -> dict[str, Tensor]:
        """Return everything to continue from, the same for all processes."""
        return {
            name: self._group.mean(torch.stack(values)) for name, values in self._values.items()
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Continue from what :meth:`state` returned."""
        self._values = {
            name: list(values.to(self._group.device))
            for name, values in state.items()
            if len(values)
        }


def diverged(what: str, step: int, lr: float) -> TrainingError:
    """Make the error for what is not finite any more."""
    return TrainingError(
        f"the {what} no longer finite at step {step}: resume from the last checkpoint or train "
        f"again with a lower --set lr than {lr:g}"
    )


def training_record(
    config: TrainConfig, images: TrainingImages, step: int, seconds: float, origin: object
) -> dict[str, Any]:
    """Return what the header of the weights says of their training: JSON values.

    ``origin`` is the record of the weights that it began with.
    """
    schedule = "cosine to 0" if config.schedule == "cosine" else config.schedule
    steps = f"{config.lr:g}, warm-up {config.warmup} steps, {schedule}"
    loss: str = config.loss
    if config.adversarial:
        features = config.features.stem if config.features else "features of the discriminator"
        loss += f", {config.perceptual:g} x {features}, {config.adversarial:g} x discriminator"
    return {
        "recipe": config.recipe,
        # What a data set is called, not where it lay.
        "data": [
            name if parse(name)[0] in DATASETS else Path(name).name for name in config.datasets
        ],
        "images": len(images.splits.train),
        "split": config.split,
        "degradation": GIVEN if images.has_pairs else str(config.degradation),
        "scales": list(config.scales),
        "loss": loss,
        "optimizer": f"{config.optimizer.capitalize()} {steps}",
        "weight_decay": config.weight_decay,
        "ema": config.ema,
        "augment": config.augment,
        "batch_size": config.batch,
        "seed": config.seed,
        "init_from": config.init_from.name if config.init_from else None,
        "origin": origin,
        "steps": step,
        "patches": step * config.batch,
        "epochs": round(images.epoch(step), 2),
        "hours": round(seconds / 3600, 3),
        "torch": torch.__version__,
    }
