"""``srcli train --dry-run``: what a run would do and how long it would take."""

import math
import sys
import time
from collections.abc import Callable
from contextlib import closing
from statistics import median
from typing import Any

import torch

from srcli.model.network import parameter_count
from srcli.training.compute import computing
from srcli.training.config import TrainConfig
from srcli.training.distributed import join_process_group
from srcli.training.images import input_and_target
from srcli.training.trainer import Trainer

__all__ = ["dry_run"]

_BURST_SECONDS = 5.0
"""Steps are measured for about so long, ..."""

_BURST_STEPS = 50
"""... and at most so many."""


def dry_run(
    config: TrainConfig,
    *,
    resume: bool = False,
    on_message: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Find out what a run would do and cost, and write nothing.

    A few steps are run for a measure of speed; evaluation is timed by one batch. The
    estimate for a run that is to be resumed is of the whole run. Arguments and errors are those of
    :func:`srcli.training.trainer.train`.

    Returns:
        JSON values. ``steps`` is None where a time is all that ends the run; ``seconds`` include
        the evaluations.
    """
    with join_process_group(config.device) as group:
        notice = on_message if group.is_main_process else lambda _: None
        return _plan(Trainer(config, group, notice, resume=resume))


def _plan(trainer: Trainer) -> dict[str, Any]:
    config, images = trainer.config, trainer.images
    step_seconds = _seconds_of_a_step(trainer)
    steps, seconds = images.total_steps, config.max_seconds or math.inf
    if steps is not None:
        evaluations = math.ceil(steps / trainer.evaluation_interval)
        estimate = steps * step_seconds + evaluations * _seconds_of_an_evaluation(trainer)
        seconds = min(seconds, estimate)
    return {
        "device": str(trainer.group.device),
        "dtype": str(trainer.dtype).removeprefix("torch."),
        "processes": trainer.group.size,
        "train_images": len(images.splits.train),
        "evaluation_images": min(len(images.splits.evaluation), config.eval_images or sys.maxsize),
        "test_images": len(images.splits.test),
        "parameters": parameter_count(config.model),
        "batch": config.batch,
        "steps_per_epoch": images.epoch_steps,
        "steps": steps,
        "patches_per_second": config.batch / step_seconds,
        "seconds": seconds,
    }


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
