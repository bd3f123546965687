"""``srcli train``: the loop that makes weights; ``run_directory`` has what it leaves behind.

What happens at a step follows from the options and the step's number alone, so that a run
may be stopped anywhere and resumed, and may be shared by several processes.
"""

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch
from torch import Tensor

from srcli.data.degrading import degrade, training_input
from srcli.data.loading import Batch, Centers
from srcli.data.pool import Pool
from srcli.data.sources import DATASETS, parse
from srcli.errors import DataError, TrainingError
from srcli.model.network import multiply_adds, parameter_count
from srcli.ops.color import dequantize, quantize
from srcli.ops.metrics import psnr
from srcli.training import curves as plots
from srcli.training.config import TrainConfig
from srcli.training.distributed import Team, join_team
from srcli.training.engine import (
    Run,
    Scores,
    evaluate,
    fastest_kernels,
    memory_told,
    optimise,
    own_device,
    require_finite,
    restore,
    restored,
    shared,
    start,
    state,
    threads,
)
from srcli.training.run_directory import Row, RunDirectory

__all__ = ["Plan", "Progress", "TrainReport", "dry_run", "train"]


_LOG_EVERY = 100
_SAMPLES = 4
_SECONDS_BETWEEN_PICTURES = 60.0
_BURST_SECONDS = 5.0
_NAMED = 10
"""Unreadable images that are named at the end of a run; all of them are in skipped.txt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where a run is after a step."""

    step: int
    epoch: float
    """Passes over the training images."""

    done: float
    """Share of the run, 0 to 1."""

    loss: float
    """Mean over the last logged stretch."""

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
    """Time in the training loop, all stretches together."""

    waited: float
    """Share of this stretch's time in which the net waited for images, 0 to 1."""

    loss: float | None
    """Mean over the last logged stretch; None if this stretch had no step."""

    accuracy: float | None
    scores: Scores | None
    skipped: int
    """Images that could not be read."""

    finished: bool
    """False if the run was stopped early and can be resumed."""

    stopped: bool
    """Whether this process, or another one of the run, was asked to stop."""


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


def train(
    config: TrainConfig,
    *,
    resume: bool = False,
    on_progress: Callable[[Progress], None] = lambda _: None,
    on_message: Callable[[str], None] = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> TrainReport:
    """Train a net, or continue a run where its last checkpoint left it.

    Under ``torchrun`` every process calls this with the same options; the first one writes.

    Args:
        config: The run's options.
        resume: Continue from the run directory's state instead of starting anew.
        on_progress: Called after every step.
        on_message: Called with one line for anything worth knowing (an unreadable image); in
            the first process only.
        should_stop: Asked after every step; true saves the state and ends the run early.

    Returns:
        The report; ``report.weights`` is the file that was written.

    Raises:
        DataError: If a data set is missing or empty, or too much of it unreadable.
        OutputError: If the run directory cannot be written, or already holds a run.
        TrainingError: If the loss is not finite; the last checkpoint stays.
        DeviceError: If the device is not there or out of memory.
        UsageError: If the batch of a resumed run cannot be shared by the processes.
    """
    with join_team(partial(own_device, config.device)) as team:
        say = on_message if team.leads else _silent
        if not resume and team.leads:
            RunDirectory(config.output).refuse()
        return _train(config, team, say, on_progress, should_stop, resume=resume)


def _train(
    config: TrainConfig,
    team: Team,
    say: Callable[[str], None],
    on_progress: Callable[[Progress], None],
    should_stop: Callable[[], bool],
    *,
    resume: bool,
) -> TrainReport:
    run = start(shared(config, team, resume=resume), team, say, resume=resume)
    if resume:
        restore(run, say)
    if team.leads and resume:
        run.directory.take_up(run.step)
    elif team.leads:
        run.directory.begin(run.config)
    with memory_told(run.config, run.device), fastest_kernels(run.device), threads(run):
        _loop(run, on_progress, should_stop)
        skipped = _finish(run, say)
    return _report(run, len(skipped))


def dry_run(
    config: TrainConfig,
    *,
    resume: bool = False,
    on_message: Callable[[str], None] = lambda _: None,
) -> Plan:
    """Find out what a run would do and cost, and write nothing.

    A few steps are run for a measure of speed and memory; evaluation is timed by one batch.

    Args:
        config: The run's options.
        resume: Whether they are those of a run that is to be continued, whose batch stays the
            same whoever shares it. What is told is the whole run all the same.
        on_message: Called with one line for anything worth knowing, in the first process only.

    Raises:
        DataError: As :func:`train` does.
        UsageError: As :func:`train` does.
        DeviceError: As :func:`train` does.
    """
    with join_team(partial(own_device, config.device)) as team:
        say = on_message if team.leads else _silent
        return _plan(shared(config, team, resume=resume), team, say)


def _plan(config: TrainConfig, team: Team, say: Callable[[str], None]) -> Plan:
    run = start(config, team, say)
    step_seconds, evaluation_seconds = _burst(run)
    steps, evaluations = run.total, _evaluations(run)
    seconds = config.max_seconds or math.inf
    if steps is not None and evaluations is not None:
        seconds = min(seconds, steps * step_seconds + evaluations * evaluation_seconds)
    return Plan(
        device=str(run.device),
        dtype=str(run.dtype).removeprefix("torch."),
        processes=team.size,
        train_images=len(run.splits.train),
        evaluation_images=min(len(run.splits.evaluation), config.eval_images or sys.maxsize),
        held_images=len(run.splits.evaluation),
        test_images=len(run.splits.test),
        resident=run.loader.resident,
        parameters=parameter_count(config.model),
        gmac_per_patch=fmean(multiply_adds(config.model.at(s)) for s in config.scales) / 1e9,
        batch=config.batch,
        steps_per_epoch=run.epoch_steps,
        steps=steps,
        patches=None if steps is None else steps * config.batch,
        evaluations=evaluations,
        patches_per_second=config.batch / step_seconds,
        seconds=seconds,
        memory=_memory(run.device),
    )


def _silent(_: str) -> None:
    """Say nothing."""


def _loop(
    run: Run, on_progress: Callable[[Progress], None], should_stop: Callable[[], bool]
) -> None:
    config, team = run.config, run.team
    begun = time.monotonic() - run.seconds
    rows = team.rows(config.batch)
    with closing(run.loader.batches(run.sampler, run.step, config.batch, rows)) as batches:
        while not run.over:
            lr = run.lr
            optimise(run, _timed_next(run, batches), lr)
            run.stopped, run.seconds = team.agree(
                stop=should_stop(), seconds=time.monotonic() - begun
            )
            _observe(run, lr)
            on_progress(_progress(run, lr))
            if run.stopped:
                break
            if run.step % config.save_every == 0 and not run.over:
                _save(run)
    _save(run)


def _progress(run: Run, lr: float) -> Progress:
    return Progress(
        step=run.step, epoch=run.epoch, done=run.done, loss=run.loss, lr=lr, scores=run.scores
    )


def _timed_next(run: Run, batches: Iterator[Batch]) -> Batch:
    """Take the next batch, and add up what it made the net wait."""
    begun = time.monotonic()
    batch = next(batches)
    run.waited += time.monotonic() - begun
    return batch


def _eval_every(run: Run) -> int:
    return run.config.eval_every or run.epoch_steps


def _evaluations(run: Run) -> int | None:
    """Count the evaluations of the run; None where its time is all that ends it."""
    if run.total is None:
        return None
    return 0 if run.centers is None else math.ceil(run.total / _eval_every(run))


def _observe(run: Run, lr: float) -> None:
    """Log a stretch of steps and evaluate when it is time."""
    wanted = run.centers is not None and (run.step % _eval_every(run) == 0 or run.over)
    if not (run.step % _LOG_EVERY == 0 or run.step == 1 or wanted or run.over):
        return
    require_finite(run)
    run.loss, run.accuracy = _means(run, run.losses), _means(run, run.accuracies)
    run.losses.clear()
    run.accuracies.clear()
    scores = None
    if wanted:
        scores = run.scores = evaluate(run)
    if not run.team.leads:
        return
    run.directory.log(
        Row(
            step=run.step,
            epoch=run.epoch,
            patches=run.step * run.config.batch,
            seconds=round(run.seconds, 2),
            lr=lr,
            loss=run.loss,
            accuracy=run.accuracy,
            **_logged(scores),
        )
    )
    if wanted and run.seconds - run.drawn >= _SECONDS_BETWEEN_PICTURES and not run.over:
        _draw(run)


def _logged(scores: Scores | None) -> dict[str, float]:
    if scores is None:
        return {}
    return {
        "eval_loss": scores.loss,
        "eval_accuracy": scores.accuracy,
        "eval_psnr": scores.psnr,
        "baseline_psnr": scores.baseline_psnr,
    }


def _means(run: Run, values: list[Tensor]) -> float:
    """Average over the steps, and over the processes."""
    mean = torch.stack(values).double().mean().cpu()
    return run.team.sum(mean).item() / run.team.size


@torch.no_grad()
def _draw(run: Run) -> None:
    """Draw the curves, and a few pictures that the net was not trained on."""
    run.drawn = run.seconds
    run.directory.draw_curves(run.config.loss)
    held = run.splits.test if len(run.splits.test) else run.splits.evaluation
    config = run.config
    rows, captions = [], []
    for batch in _samples(run, held):
        target = dequantize(batch.patches)
        image = training_input(target, batch.scales, config.degradation, batch.draws)
        output = restored(run, image, batch.scales).clamp(0, 1)
        low = degrade(target, batch.scales[0], config.degradation, batch.draws)
        rows.append([_levels(picture[0]) for picture in (low, output, target)])
        before, after = (float(psnr(one.clamp(0, 1), target)) for one in (image, output))
        captions.append([f"bicubic {before:.2f} dB", f"{after:.2f} dB", ""])
    if rows:
        path = run.directory.path / "samples.png"
        plots.samples(path, ["LR", "output", "HR"], rows, captions)


def _samples(run: Run, held: Pool) -> Iterator[Batch]:
    """Cut the middle of a few images, evenly spread; one that cannot be read is left out."""
    count = min(_SAMPLES, len(held))
    for place in [i * len(held) // count for i in range(count)]:
        alone = Centers(held, [place], run.device, workers=1, size=1)
        with suppress(DataError):
            yield from alone.batches(run.config.scales, run.config.seed)


def _levels(picture: Tensor) -> Any:  # noqa: ANN401 - numpy's array type says no more here
    return quantize(picture).permute(1, 2, 0).cpu().numpy()


def _finish(run: Run, say: Callable[[str], None]) -> list[str]:
    """Draw the last pictures, and name the images that any process left out."""
    evaluated = [] if run.centers is None else run.centers.failures
    reasons = run.team.gather([*run.loader.failures.values(), *evaluated])
    if run.team.leads:
        _draw(run)
        if reasons:
            run.directory.skipped(reasons)
            say(f"{len(reasons)} images could not be read and were left out:")
            for reason in reasons[:_NAMED]:
                say(f"  {reason}")
            if len(reasons) > _NAMED:
                say(f"  and {len(reasons) - _NAMED} more: {run.directory.path / 'skipped.txt'}")
    run.team.wait()
    return reasons


def _report(run: Run, skipped: int) -> TrainReport:
    stepped = not math.isnan(run.loss)
    stretch = run.seconds - run.before
    return TrainReport(
        output=str(run.directory.path),
        weights=str(run.directory.weights),
        step=run.step,
        patches=run.step * run.config.batch,
        seconds=run.seconds,
        waited=run.waited / stretch if stretch else 0.0,
        loss=run.loss if stepped else None,
        accuracy=run.accuracy if stepped else None,
        scores=run.scores,
        skipped=skipped,
        finished=run.done >= 1,
        stopped=run.stopped,
    )


def _save(run: Run) -> None:
    """Write a checkpoint and the averaged weights."""
    require_finite(run)
    if not all(bool(value.isfinite().all()) for value in run.net.parameters()):
        raise TrainingError(
            f"the weights are no longer finite at step {run.step}: resume from the last "
            f"checkpoint or train again with a lower --lr than {run.config.lr:g}"
        )
    tensors = state(run)
    if not run.team.leads:
        return
    progress = {
        "step": run.step,
        "seconds": run.seconds,
        "images": run.images,
        "origin": run.origin,
    }
    run.directory.save(run.step, tensors, progress, keep_last=run.config.keep_last)
    run.directory.save_weights(run.average.state_dict(), run.config.model, _record(run))


def _record(run: Run) -> dict[str, Any]:
    """What the header of the weights says of their making."""
    config = run.config
    rate = "cosine to 0" if config.schedule == "cosine" else "constant"
    steps = f"{config.lr:g}, warm-up {config.warmup} steps, {rate}"
    return {
        "recipe": config.recipe,
        # What a data set is called, not where it lay.
        "data": [
            name if parse(name)[0] in DATASETS else Path(name).name for name in config.datasets
        ],
        "images": len(run.splits.train),
        "split": config.split,
        "degradation": str(config.degradation),
        "scales": list(config.scales),
        "loss": config.loss,
        "optimizer": f"{config.optimizer.capitalize()} {steps}",
        "weight_decay": config.weight_decay,
        "ema": config.ema,
        "augment": config.augment,
        "batch_size": config.batch,
        "epochs": round(run.epoch, 2),
        "steps": run.step,
        "patches": run.step * config.batch,
        "hours": round(run.seconds / 3600, 3),
        "seed": config.seed,
        "dtype": str(run.dtype).removeprefix("torch."),
        "torch": torch.__version__,
        "init_from": config.init_from.name if config.init_from else None,
        "origin": None if run.origin is None else dict(run.origin),
    }


def _burst(run: Run) -> tuple[float, float]:
    """Measure seconds per step, and per evaluation, by running a few."""
    config = run.config
    rows = run.team.rows(config.batch)
    warm = 2 if run.total is None else min(2, run.total - 1)
    times: list[float] = []
    with (
        memory_told(config, run.device),
        fastest_kernels(run.device),
        threads(run),
        closing(run.loader.batches(run.sampler, 0, config.batch, rows)) as batches,
    ):
        # A fixed number of steps for all processes: they wait for each other in each.
        while len(times) < warm + 1 or (
            run.team.size == 1 and sum(times) < _BURST_SECONDS and len(times) < 50
        ):
            begun = time.monotonic()
            optimise(run, next(batches), 0.0)
            _synchronise(run.device)
            times.append(time.monotonic() - begun)
    return median(times[warm:]), _evaluation_seconds(run)


def _evaluation_seconds(run: Run) -> float:
    if run.centers is None:
        return 0.0
    begun = time.monotonic()
    first = next(run.centers.batches(run.config.scales, run.config.seed), None)
    if first is None:  # more processes than images
        return 0.0
    target, config = dequantize(first.patches), run.config
    with torch.no_grad():
        image = training_input(target, first.scales, config.degradation, first.draws)
        restored(run, image, first.scales)
    _synchronise(run.device)
    return (time.monotonic() - begun) * run.centers.count / len(first.patches)


def _synchronise(device: torch.device) -> None:
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
