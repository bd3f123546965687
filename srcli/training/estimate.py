"""``srcli train --dry-run``: what a run would do and how long it would take."""

import math
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from statistics import fmean, median

import torch

from srcli.model.network import multiply_adds, parameter_count
from srcli.training.compute import computing
from srcli.training.config import TrainConfig
from srcli.training.distributed import join_process_group
from srcli.training.images import input_and_target
from srcli.training.trainer import Trainer

__all__ = ["Plan", "dry_run"]

_BURST_SECONDS = 5.0
"""Steps are measured for about so long, ..."""

_BURST_STEPS = 50
"""... and at most so many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run would do, from a short burst of its own steps."""

    device: str
    dtype: str
    processes: int
    train_images: int
    evaluation_images: int
    """Images that each evaluation looks at."""

    held_images: int
    """Images that are kept for evaluation."""

    test_images: int
    resident: bool
    """Whether the training images stay decoded in memory."""

    parameters: int
    gmac_per_patch: float
    """Of a forward pass, the mean over the scales; a training step costs about three."""

    batch: int
    """Patches per step of all processes together."""

    steps_per_epoch: int
    steps: int | None
    """None where a time is all that ends the run."""

    patches: int | None
    evaluations: int | None
    patches_per_second: float
    seconds: float
    """Estimated length of the run, evaluations included."""

    memory: int | None
    """Most bytes in use up to now: of the process, or on the GPU; None where unknown."""


def dry_run(
    config: TrainConfig,
    *,
    resume: bool = False,
    on_message: Callable[[str], None] = lambda _: None,
) -> Plan:
    """Find out what a run would do and cost, and write nothing.

    A few steps are run for a measure of speed and memory; evaluation is timed by one batch. The
    estimate for a run that is to be resumed is of the whole run. Arguments and errors are those of
    :func:`srcli.training.trainer.train`.
    """
    with join_process_group(config.device) as group:
        notice = on_message if group.is_main_process else lambda _: None
        return _plan(Trainer(config, group, notice, resume=resume))


def _plan(trainer: Trainer) -> Plan:
    config, images, device = trainer.config, trainer.images, trainer.group.device
    step_seconds = _seconds_of_a_step(trainer)
    evaluation_seconds = _seconds_of_an_evaluation(trainer)
    steps, evaluations = images.total_steps, None
    seconds = config.max_seconds or math.inf
    if steps is not None:
        evaluations = math.ceil(steps / trainer.evaluation_interval)
        evaluations *= len(images.splits.evaluation) > 0
        seconds = min(seconds, steps * step_seconds + evaluations * evaluation_seconds)
    return Plan(
        device=str(device),
        dtype=str(trainer.dtype).removeprefix("torch."),
        processes=trainer.group.size,
        train_images=len(images.splits.train),
        evaluation_images=min(len(images.splits.evaluation), config.eval_images or sys.maxsize),
        held_images=len(images.splits.evaluation),
        test_images=len(images.splits.test),
        resident=images.loader.resident,
        parameters=parameter_count(config.model),
        gmac_per_patch=fmean(multiply_adds(config.model.at(s)) for s in config.scales) / 1e9,
        batch=config.batch,
        steps_per_epoch=images.epoch_steps,
        steps=steps,
        patches=None if steps is None else steps * config.batch,
        evaluations=evaluations,
        patches_per_second=config.batch / step_seconds,
        seconds=seconds,
        memory=_memory(device),
    )


def _seconds_of_a_step(trainer: Trainer) -> float:
    """Measure a few steps that change no weights."""
    total = trainer.images.total_steps
    warm = 2 if total is None else min(2, total - 1)
    times: list[float] = []
    with (
        computing(trainer.config, trainer.group) as trainer.threads,
        closing(trainer.images.batches(0)) as batches,
    ):
        # A fixed number of steps for all processes: they wait for each other in each.
        while len(times) < warm + 1 or (
            trainer.group.size == 1 and sum(times) < _BURST_SECONDS and len(times) < _BURST_STEPS
        ):
            begun = time.monotonic()
            trainer.train_step(next(batches), 0.0)
            _synchronize(trainer.group.device)
            times.append(time.monotonic() - begun)
    return median(times[warm:])


@torch.no_grad()
def _seconds_of_an_evaluation(trainer: Trainer) -> float:
    begun = time.monotonic()
    batch = next(trainer.images.evaluation_batches(), None)
    if batch is None:  # no image is held out, or there are more processes than images
        return 0.0
    image, _ = input_and_target(batch, trainer.config.degradation)
    trainer.restore(image, batch.scales)
    _synchronize(trainer.group.device)
    return (time.monotonic() - begun) * trainer.images.held_out.count / len(batch.patches)


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _memory(device: torch.device) -> int | None:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return None
    import resource  # noqa: PLC0415 - there is none on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
