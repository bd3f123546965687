"""The moving parts of a training run: set up, one step, one evaluation, the state to resume.

What happens at a step follows from the options and the step's number alone, so that a run
may be stopped anywhere and resumed, and may be shared by several processes.
"""

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, assert_never

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from srcli.data.degrading import training_input
from srcli.data.loading import Batch, Centers, Loader
from srcli.data.pool import Pool, Splits, open_pool, split
from srcli.data.sampling import Sampler
from srcli.errors import DataError, DeviceError, TrainingError, UsageError
from srcli.model import weights
from srcli.model.network import ResidualAutoencoder
from srcli.ops.color import dequantize
from srcli.ops.devices import memory_errors, on_device, resolve_device, resolve_dtype
from srcli.ops.metrics import agreement, psnr
from srcli.training.config import Loss, TrainConfig
from srcli.training.distributed import Team
from srcli.training.optimizers import Optimizer
from srcli.training.run_directory import RunDirectory
from srcli.training.symmetry import Symmetry

__all__ = [
    "Run",
    "Scores",
    "evaluate",
    "fastest_kernels",
    "memory_told",
    "optimise",
    "own_device",
    "require_finite",
    "restore",
    "restored",
    "shared",
    "start",
    "state",
    "threads",
]

_LUMA_SHARES = (0.299, 0.587, 0.114)
"""Of R, G and B in the luma of ITU-R BT.601."""

_CHARBONNIER_EPSILON = 1e-3
"""Where the Charbonnier loss turns from square to absolute, on [0, 1] (LapSRN, Lai 2017)."""


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


@dataclass(slots=True)
class Run:
    """A run's moving parts."""

    config: TrainConfig
    team: Team
    directory: RunDirectory
    device: torch.device
    dtype: torch.dtype
    splits: Splits
    loader: Loader
    sampler: Sampler
    centers: Centers | None
    net: ResidualAutoencoder
    trained: nn.Module
    """The net as the loop calls it: compiled, distributed, or itself."""

    average: ResidualAutoencoder
    optimizer: Optimizer
    symmetry: Symmetry | None
    """What keeps the weights symmetric, where the net is to be."""

    images: str
    """Fingerprint of the images: a run goes on with those that it was begun with."""

    origin: Mapping[str, Any] | None
    """How the weights that the run was started from had been made."""

    epoch_steps: int
    total: int | None
    step: int = 0
    seconds: float = 0.0
    """In the training loop, all stretches together."""

    before: float = 0.0
    """Those of the stretches before this one."""

    waited: float = 0.0
    """Those of this stretch in which the net waited for images."""

    losses: list[Tensor] = field(default_factory=list)
    """Of each step since the last line of the log; so are the accuracies."""

    accuracies: list[Tensor] = field(default_factory=list)
    loss: float = math.nan
    accuracy: float = math.nan
    scores: Scores | None = None
    drawn: float = -math.inf
    stopped: bool = False
    """Whether any of the processes was asked to stop."""

    crew: Executor | None = None
    """Threads that compute a part of a batch each; None: all of it is computed at once."""

    part: int = 0
    """Patches in each but the last of these parts."""

    @property
    def done(self) -> float:
        """Share of the schedule, 0 to 1."""
        if self.total is not None:
            return min(1.0, self.step / self.total)
        return min(1.0, self.seconds / (self.config.max_seconds or math.inf))

    @property
    def out_of_time(self) -> bool:
        """Whether the time given is used up."""
        limit = self.config.max_seconds
        return limit is not None and self.seconds >= limit

    @property
    def over(self) -> bool:
        """Whether the run has come to its end."""
        return self.done >= 1 or self.out_of_time

    @property
    def lr(self) -> float:
        """The rate of the next step: a linear warm-up, then the schedule."""
        rise = min(1.0, (self.step + 1) / max(1, self.config.warmup))
        match self.config.schedule:
            case "cosine":
                return self.config.lr * rise * 0.5 * (1 + math.cos(math.pi * self.done))
            case "constant":
                return self.config.lr * rise
            case unknown:
                assert_never(unknown)

    @property
    def epoch(self) -> float:
        """Passes over the training images so far."""
        if self.config.sampling == "epoch":
            return self.step / self.epoch_steps
        return self.step * self.config.batch / len(self.splits.train)


def own_device(name: str, local: int, size: int) -> torch.device:
    """Turn the option into a device; of several processes each takes a GPU of its own.

    Args:
        name: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        local: Place of this process among those of its machine, from 0.
        size: Number of all processes.

    Raises:
        DeviceError: If there is no such device on this machine.
        UsageError: If the name is none of these.
    """
    device = resolve_device(name)
    if device.type == "cuda" and size > 1:
        device = resolve_device(f"cuda:{local}")
        torch.cuda.set_device(device)
    return device


def shared(config: TrainConfig, team: Team, *, resume: bool) -> TrainConfig:
    """Part a batch among the processes; a resumed run keeps its batch, whoever shares it."""
    if not resume:
        return replace(config, processes=team.size)
    if config.batch % team.size:
        raise UsageError(
            f"--resume {config.output}: its batch of {config.batch} patches cannot be shared by "
            f"{team.size} processes; use a number of processes that divides it"
        )
    return replace(config, batch_size=config.batch // team.size, processes=team.size)


def start(
    config: TrainConfig, team: Team, say: Callable[[str], None], *, resume: bool = False
) -> Run:
    """Open the data, build the net, and get ready for the first step.

    Args:
        config: The run's options, its batch already shared among the team.
        team: The processes that train together.
        say: Called with one line for anything worth knowing.
        resume: Whether a checkpoint follows: then the weights to start from are not needed.

    Raises:
        DataError: If a data set is missing or empty, or too much of it unreadable.
        DeviceError: If the images do not fit into the device's memory.
        UsageError: If options contradict each other.
        WeightsError: If the weights to start from cannot be loaded.
    """
    device = team.device
    dtype = resolve_dtype(config.dtype, device)
    if dtype == torch.float16:
        raise UsageError("--dtype fp16 cannot hold the gradients; use auto, bf16 or fp32")
    if not team.leads:
        team.wait()  # the first process may have an archive to unpack
    pool = open_pool(config.datasets, config.data_dir, config.seed, say).limited(config.limit)
    if team.leads:
        team.wait()
    splits = split(pool, config.seed, config.split)
    torch.manual_seed(config.seed)
    net, origin = _initial(config, resume=resume)
    net = on_device(net, device)
    symmetry = Symmetry(net, config.model) if config.model.symmetric else None
    if symmetry and config.init_from is None:
        symmetry.begin()
    workers = config.workers or os.cpu_count() or 1
    with memory_told(config, device):
        loader = Loader(splits.train, device, workers=workers)
        sampler = Sampler(
            len(splits.train),
            config.seed,
            scales=config.scales,
            augment=config.augment,
            areas=loader.areas() if config.sampling == "area" else None,
            balanced=config.balanced,
        )
    if not len(splits.evaluation):
        say(
            f"there is no image left to evaluate on ({len(pool)} in all): curves and samples "
            "show training alone; give more images"
        )
    average = ResidualAutoencoder(config.model)
    average.load_state_dict(net.state_dict())
    epoch_steps = sampler.steps_per_epoch(config.batch)
    return Run(
        config=config,
        team=team,
        directory=RunDirectory(config.output),
        device=device,
        dtype=dtype,
        splits=splits,
        loader=loader,
        sampler=sampler,
        centers=_centers(config, team, splits.evaluation, device, workers),
        net=net,
        trained=_wrapped(net, config, team),
        average=on_device(average, device).eval().requires_grad_(requires_grad=False),
        optimizer=Optimizer(net, config.optimizer, config.weight_decay),
        symmetry=symmetry,
        images=pool.fingerprint(),
        origin=origin,
        epoch_steps=epoch_steps,
        total=_total(config, len(splits.train), epoch_steps),
    )


def _initial(
    config: TrainConfig, *, resume: bool
) -> tuple[ResidualAutoencoder, Mapping[str, Any] | None]:
    """Make the net to begin with, and tell how its weights had been made."""
    if config.init_from is None or resume:
        return ResidualAutoencoder(config.model), None
    before, header = weights.load(config.init_from)
    # Symmetric weights may be trained on without their symmetry, but not the other way round.
    if config.model not in (header.config, replace(header.config, symmetric=False)):
        raise UsageError(
            f"--init-from {config.init_from}: its net has another shape than --set model asks "
            "for; use weights of that shape"
        )
    return before.train(), header.training


def _wrapped(net: ResidualAutoencoder, config: TrainConfig, team: Team) -> nn.Module:
    if config.compile:
        # What a batch is parted into by scales differs from step to step; each part is one graph.
        dynamic = True if config.model.paths else None
        net.restore = torch.compile(net.restore, dynamic=dynamic)  # type: ignore[method-assign]
    wrapped: nn.Module = net
    if team.size > 1:
        wrapped = DistributedDataParallel(
            net,
            gradient_as_bucket_view=True,
            find_unused_parameters=not _goes_every_way(config),
        )
    return wrapped


def _goes_every_way(config: TrainConfig) -> bool:
    """Whether each process has a patch for every way through the net in every step."""
    ways = {config.model.path(scale) for scale in config.scales}
    if ways != {None, *config.model.paths}:
        return False
    return len(ways) == 1 or (config.balanced and config.batch_size >= len(config.scales))


def _centers(
    config: TrainConfig, team: Team, held: Pool, device: torch.device, workers: int
) -> Centers | None:
    """Choose the evaluation images, evenly spread, and of them those of this process."""
    total = len(held)
    if not total:
        return None
    count = min(total, config.eval_images or total)
    places = [i * total // count for i in range(count)][team.rank :: team.size]
    return Centers(held, places, device, workers=workers, size=config.batch_size)


def _total(config: TrainConfig, images: int, epoch_steps: int) -> int | None:
    """Count the steps of the run; None where its time is all that ends it."""
    if config.epochs is None:
        return config.steps
    if config.sampling == "epoch":
        return max(1, math.ceil(config.epochs * epoch_steps))
    return max(1, math.ceil(config.epochs * images / config.batch))


@contextmanager
def fastest_kernels(device: torch.device) -> Iterator[None]:
    """Let cuDNN try its kernels for each shape and keep the fastest, on a GPU.

    A step's shapes are those of the step before, so this costs the first steps alone.
    """
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = before or device.type == "cuda"
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


@contextmanager
def threads(run: Run) -> Iterator[None]:
    """Compute parts of a batch in threads of their own, on a CPU: sooner than by sharing layers.

    Threads that share a layer wait for each other at its end. Two Zen 5 cores that take half of a
    batch each learn from 1.25 times as many patches a second in bf16, 1.15 times in fp32.
    """
    before, size = torch.get_num_threads(), run.config.batch_size
    count = min(before, size)
    if count < 2 or run.device.type != "cpu" or run.team.size > 1 or run.config.compile:
        yield
        return
    run.part = math.ceil(size / count)
    cores = max(1, before // count)
    try:
        with ThreadPoolExecutor(count, "srcli-step", torch.set_num_threads, (cores,)) as run.crew:
            yield
    finally:
        run.crew = None
        torch.set_num_threads(before)  # that of the threads had become everyone's


def optimise(run: Run, batch: Batch, lr: float) -> None:
    """Take one step on a batch and let the average follow."""
    config = run.config
    run.optimizer.zero_grad()
    if run.crew is None:
        loss, accuracy = _losses(run, batch)
        loss.backward()  # type: ignore[no-untyped-call]
    else:
        loss, accuracy = _descend(run, run.crew, batch)
    if run.symmetry:
        run.symmetry.average_gradients()
    if config.clip:
        nn.utils.clip_grad_norm_(run.net.parameters(), config.clip)
    run.optimizer.step(lr)
    run.step += 1
    # Early on the average follows closely, so that it forgets the random start.
    decay = min(config.ema, (1 + run.step) / (10 + run.step))
    with torch.no_grad():
        torch._foreach_lerp_(list(run.average.parameters()), list(run.net.parameters()), 1 - decay)
    run.accuracies.append(accuracy)
    run.losses.append(loss.detach())


def _losses(run: Run, batch: Batch) -> tuple[Tensor, Tensor]:
    """Run the net on a batch: the loss, to be descended from, and the accuracy."""
    config = run.config
    target = dequantize(batch.patches)
    image = training_input(target, batch.scales, config.degradation, batch.draws)
    image = image.contiguous(memory_format=torch.channels_last)
    with _precision(run):
        output = run.trained(image, batch.scales).float()
    loss = _loss(output, target, config.loss)
    with torch.no_grad():
        accuracy = agreement(output, target).mean()
    return loss, accuracy


def _descend(run: Run, crew: Executor, batch: Batch) -> tuple[Tensor, Tensor]:
    """Do as ``_losses`` and give the net its gradients, each part of the batch on its own.

    Every loss is a mean over the patches, so its gradient is that of the parts', by their sizes;
    they are added up in the parts' order.
    """
    parameters = list(run.net.parameters())
    count, size = len(batch.scales), run.part

    def part(start: int) -> tuple[Sequence[Tensor | None], Tensor]:
        rows = slice(start, start + size)
        some = Batch(batch.patches[rows], batch.scales[rows], batch.draws[rows])
        loss, accuracy = _losses(run, some)
        share = len(some.scales) / count
        gradients = torch.autograd.grad(share * loss, parameters, allow_unused=True)
        return gradients, share * torch.stack([loss.detach(), accuracy])

    sums: list[Tensor | None] = [None] * len(parameters)
    means = torch.zeros(2)
    for gradients, shares in crew.map(part, range(0, count, size)):
        for place, gradient in enumerate(gradients):
            total = sums[place]
            if gradient is not None:
                sums[place] = gradient if total is None else total.add_(gradient)
        means += shares
    for parameter, total in zip(parameters, sums, strict=True):
        parameter.grad = total
    return means[0], means[1]


def _precision(run: Run) -> torch.autocast:
    """Compute in the run's format; weights that are cast to it are kept for no other thread.

    Threads would share them, but when the first is done all are forgotten: where a part of a batch
    uses a weight twice, it was left to chance whether its gradients were added up in bf16.
    """
    mixed = run.dtype != torch.float32
    return torch.autocast(run.device.type, run.dtype, mixed, cache_enabled=run.crew is None)


def _fourier(error: Tensor) -> Tensor:
    """Mean absolute error of colours and luma, most of it that of their frequencies.

    The shares are those of SAFMN (Sun et al. 2023): L1 plus 0.05 times that of the transform, which
    is not normalised there; at 120x120 that is six times L1 of the orthonormal one. Half of the
    whole is about luma, by which pictures are judged.
    """
    # The shares as numbers: a tensor of them would be copied, and a GPU wait for it, each step.
    red, green, blue = (
        share * error[:, place : place + 1] for place, share in enumerate(_LUMA_SHARES)
    )
    luma = red + green + blue
    return 0.5 * (_spectral(error) + _spectral(luma))


def _spectral(error: Tensor) -> Tensor:
    frequencies = torch.view_as_real(torch.fft.rfft2(error, norm="ortho"))
    return frequencies.abs().mean() + error.abs().mean() / 6


def _loss(output: Tensor, target: Tensor, kind: Loss) -> Tensor:
    match kind:
        case "mse":
            return functional.mse_loss(output, target)
        case "l1":
            return functional.l1_loss(output, target)
        case "fourier":
            return _fourier(output - target)
        case "charbonnier":
            return ((output - target).square() + _CHARBONNIER_EPSILON**2).sqrt().mean()
        case unknown:
            assert_never(unknown)


def require_finite(run: Run) -> None:
    """Stop before a loss that is no number gets into the log or a checkpoint.

    The losses of all processes are looked at together: otherwise those that saw none would
    wait for ever for the one that stopped.
    """
    losses = torch.stack(run.losses or [torch.zeros(())]).double().cpu()
    bad = (~run.team.sum(losses).isfinite()).nonzero()
    if len(bad):
        step = run.step - len(run.losses) + int(bad[0]) + 1
        raise TrainingError(
            f"the loss is no longer finite at step {step}: resume from the last checkpoint or "
            f"train again with a lower --lr than {run.config.lr:g}"
        )


@torch.no_grad()
def evaluate(run: Run) -> Scores:
    """Score the averaged net, and its input, on the evaluation images."""
    assert run.centers is not None
    sums = torch.zeros(5, dtype=torch.float64)
    for batch in run.centers.batches(run.config.scales, run.config.seed):
        target = dequantize(batch.patches)
        image = training_input(target, batch.scales, run.config.degradation, batch.draws)
        output = restored(run, image, batch.scales)
        values = [
            _loss(output, target, run.config.loss).double() * len(target),
            agreement(output, target).sum(),
            psnr(output.clamp(0, 1), target).sum(),
            psnr(image.clamp(0, 1), target).sum(),
        ]
        sums += torch.tensor([*map(float, values), len(target)], dtype=torch.float64)
    loss, accuracy, score, baseline, count = run.team.sum(sums).tolist()
    if not count:
        raise DataError("none of the evaluation images can be read; give other images")
    return Scores(
        loss=loss / count,
        accuracy=accuracy / count,
        psnr=score / count,
        baseline_psnr=baseline / count,
    )


def restored(run: Run, image: Tensor, scales: Sequence[float]) -> Tensor:
    """Run the averaged net on ``(N, 3, 120, 120)`` inputs; the result is ``float32``."""
    image = image.contiguous(memory_format=torch.channels_last)
    with _precision(run):
        output: Tensor = run.average(image, scales)
    return output.float()


def state(run: Run) -> dict[str, Tensor]:
    """Everything a run is resumed from, but its step and its clock.

    All processes have to ask together: losses are averaged over them.
    """
    losses = torch.stack([torch.zeros(()).to(run.device), *run.losses])[1:]
    accuracies = torch.stack(
        [torch.zeros((), dtype=torch.float64).to(run.device), *run.accuracies]
    )[1:]
    return {
        **{f"net.{key}": value for key, value in run.net.state_dict().items()},
        **{f"ema.{key}": value for key, value in run.average.state_dict().items()},
        **{f"optimizer.{key}": value for key, value in run.optimizer.state().items()},
        "recent.loss": run.team.mean(losses),
        "recent.accuracy": run.team.mean(accuracies),
    }


def restore(run: Run, say: Callable[[str], None]) -> None:
    """Put a run back to where its newest readable checkpoint left it.

    Raises:
        DataError: If there is none, or it is of another net or of other images.
    """
    progress, tensors = run.directory.load(say)
    if progress.get("images", run.images) != run.images:
        raise DataError(
            f"the images of {', '.join(run.config.datasets)} are no longer those that "
            f"{run.directory.path} was begun with: give them back as they were, or start again "
            "with another --output"
        )
    try:
        run.step, run.seconds = int(progress["step"]), float(progress["seconds"])
        run.origin = progress.get("origin")
        run.before = run.seconds
        run.net.load_state_dict(_part(tensors, "net."))
        run.average.load_state_dict(_part(tensors, "ema."))
        run.optimizer.restore(_part(tensors, "optimizer."))
        run.losses = list(tensors["recent.loss"].to(run.device))
        run.accuracies = list(tensors["recent.accuracy"].to(run.device))
    except (ValueError, LookupError, TypeError, RuntimeError) as error:
        reason = str(error).splitlines()[-1].strip()
        raise DataError(
            f"the state in {run.directory.path} cannot be resumed: {reason}; start again with "
            "another --output"
        ) from error


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }


@contextmanager
def memory_told(config: TrainConfig, device: torch.device) -> Iterator[None]:
    """Turn a want of memory into an error that says what to change."""
    try:
        with memory_errors():
            yield
    except MemoryError as error:
        raise DeviceError(
            f"{device} is out of memory: use a smaller --batch-size than {config.batch_size}"
        ) from error
