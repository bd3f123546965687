"""``srcli train``: the loop that makes weights, and what a run directory holds.

A run directory::

    options.json          every resolved option, written before step one
    log.csv               loss and learning rate, and evaluation on held-out images
    state/latest.json     the newest checkpoint's name, step and seconds
    state/step-N.safetensors   net, EMA and optimiser: what --resume continues from
    model.safetensors     the EMA weights, ready for ``srcli upscale -m``
"""

import csv
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, assert_never

import torch
from torch import Tensor
from torch.nn import functional

from srcli import weights
from srcli.color import dequantize
from srcli.config import BASE, ModelConfig, require_at_least
from srcli.datasets import FolderDataset, image_files, load_folder, split
from srcli.degradation import training_input
from srcli.devices import memory_errors, on_device, resolve_device, resolve_dtype
from srcli.errors import DataError, DeviceError, OutputError, TrainingError, UsageError
from srcli.files import replacing
from srcli.metrics import psnr
from srcli.model import ResidualAutoencoder

__all__ = ["Progress", "TrainConfig", "TrainReport", "load_options", "train"]

_Loss = Literal["mse", "l1", "charbonnier"]

_CHARBONNIER_EPSILON = 1e-3
"""Where the Charbonnier loss turns from square to absolute, on [0, 1] (LapSRN, Lai 2017)."""

_EVALUATION_PATCHES = 64
_LOG_EVERY = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """Everything that decides a run; stored as ``options.json``.

    Raises:
        UsageError: If a value is out of range.
    """

    output: Path
    """The run directory."""

    datasets: tuple[Path, ...]
    """Folders of HR images, read recursively."""

    model: ModelConfig = BASE
    """The net's shape."""

    scales: tuple[float, ...] = (3.0,)
    """Scale factors to draw from, each entry as likely as the others: repeat one to weigh it."""

    batch_size: int = 16
    """Patches per step."""

    lr: float = 1e-3
    """Adam's peak learning rate."""

    warmup: int = 200
    """Steps in which the learning rate rises linearly from zero."""

    loss: _Loss = "l1"
    """What is minimised between output and HR patch, both in [0, 1]."""

    clip: float = 0.05
    """Largest norm of a gradient over all parameters; 0 turns clipping off. The norm lies near
    0.06 in the first steps with L1 and near 0.01 later; without the bound a net of wide levels
    lost hundreds of steps to a single spike at 1e-3."""

    ema: float = 0.999
    """Decay per step of the moving average of the weights; the average is what is kept."""

    steps: int | None = None
    """Length of the run in steps; None: ``epochs`` or ``max_seconds`` says."""

    epochs: float | None = None
    """Length of the run in passes of one patch an image."""

    max_seconds: float | None = None
    """Training stops after so many seconds (all stretches of a resumed run together). With
    neither steps nor epochs it also is what the learning rate is scheduled over."""

    seed: int = 0
    """Seed of the initial weights and of every draw."""

    eval_every: int = 500
    """Steps between evaluations on held-out images."""

    save_every: int = 500
    """Steps between checkpoints."""

    init_from: Path | None = None
    """Weights to start from instead of random ones."""

    limit: int | None = None
    """Use at most so many images, chosen by seed."""

    device: str = "auto"
    dtype: str = "auto"

    def __post_init__(self) -> None:
        """Check the ranges that no type can."""
        if not self.datasets:
            raise UsageError("train needs at least one --dataset")
        self._check_length()
        require_at_least(
            1,
            batch_size=self.batch_size,
            steps=self.steps,
            limit=self.limit,
            eval_every=self.eval_every,
            save_every=self.save_every,
        )
        require_at_least(0, warmup=self.warmup, clip=self.clip)
        if not 0 <= self.seed < 2**63:
            raise UsageError(f"--seed must lie in 0..2**63-1, not {self.seed}")
        for name, number in (
            ("--lr", self.lr),
            ("--epochs", self.epochs),
            ("--max-time", self.max_seconds),
        ):
            if number is not None and not (math.isfinite(number) and number > 0):
                raise UsageError(f"{name} must be positive, not {number}")
        if not 0 <= self.ema < 1:
            raise UsageError(f"--ema must lie in [0, 1), not {self.ema}")
        for scale in self.scales:
            if not 1 < scale <= 8:
                raise UsageError(f"--scale must lie in (1, 8] for training, not {scale:g}")

    def _check_length(self) -> None:
        if self.steps is None and self.epochs is None and self.max_seconds is None:
            raise UsageError("say how long to train: --steps, --epochs or --max-time")
        if self.steps is not None and self.epochs is not None:
            raise UsageError("--steps and --epochs both say how long; give one of them")

    def to_json(self) -> str:
        """Write the options as readable JSON."""
        values = asdict(self)
        values["output"] = str(self.output)
        # Absolute, so that a run can be resumed from any directory.
        values["datasets"] = [str(path.absolute()) for path in self.datasets]
        values["init_from"] = str(self.init_from) if self.init_from else None
        return json.dumps(values, indent=2) + "\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where a run is after a step."""

    step: int
    done: float
    """Share of the run, 0 to 1."""

    loss: float
    """Mean over the last logged stretch."""

    lr: float
    eval_psnr: float | None
    """RGB PSNR on held-out patches at the last evaluation, dB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainReport:
    """How a run ended."""

    weights: Path
    step: int
    patches: int
    seconds: float
    """Time in the training loop, all stretches together."""

    loss: float
    eval_psnr: float | None
    baseline_psnr: float | None
    """The bicubic input's PSNR on the same patches, dB."""

    finished: bool
    """False if the run was stopped early and can be resumed."""


@dataclass(slots=True)
class _Run:
    """A run's moving parts."""

    config: TrainConfig
    device: torch.device
    dtype: torch.dtype
    data: FolderDataset
    held: FolderDataset | None
    net: ResidualAutoencoder
    average: ResidualAutoencoder
    optimizer: torch.optim.Adam
    total: int | None
    step: int = 0
    seconds: float = 0.0
    recent: list[Tensor] = field(default_factory=list)
    loss: float = math.nan
    eval_psnr: float | None = None
    baseline_psnr: float | None = None

    @property
    def done(self) -> float:
        """Share of the schedule, 0 to 1."""
        if self.total is not None:
            return min(1.0, self.step / self.total)
        return min(1.0, self.seconds / (self.config.max_seconds or math.inf))

    @property
    def out_of_time(self) -> bool:
        limit = self.config.max_seconds
        return limit is not None and self.seconds >= limit

    @property
    def lr(self) -> float:
        """Cosine from the peak to zero over the run, after a linear warm-up."""
        rise = min(1.0, (self.step + 1) / max(1, self.config.warmup))
        return self.config.lr * rise * 0.5 * (1 + math.cos(math.pi * self.done))


def train(
    config: TrainConfig,
    *,
    resume: bool = False,
    on_progress: Callable[[Progress], None] = lambda _: None,
    on_message: Callable[[str], None] = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> TrainReport:
    """Train a net, or continue a run where its last checkpoint left it.

    Args:
        config: The run's options.
        resume: Continue from the run directory's state instead of starting anew.
        on_progress: Called after every step.
        on_message: Called with one line for anything worth knowing (an unreadable image).
        should_stop: Asked after every step; true saves the state and ends the run early.

    Returns:
        The report; ``report.weights`` is the file that was written.

    Raises:
        DataError: If a data set is missing or empty.
        OutputError: If the run directory cannot be written, or already holds a run.
        TrainingError: If the loss is not finite; the last checkpoint stays.
        DeviceError: If the device is not there or out of memory.
    """
    if not resume:
        _refuse_directory(config.output)
    run = _start(config, on_message)
    if resume:
        _restore(run)
        _trim_log(config.output / "log.csv", run.step)
    else:
        _prepare_directory(config)
    begun = time.monotonic() - run.seconds
    with (config.output / "log.csv").open("a", newline="", encoding="utf-8") as file:
        log = csv.writer(file, lineterminator="\n")
        if file.tell() == 0:
            log.writerow(["step", "patches", "seconds", "lr", "loss", "eval_psnr", "baseline_psnr"])
        while run.done < 1 and not run.out_of_time:
            lr = run.lr
            try:
                with memory_errors():
                    _optimise(run, lr)
            except MemoryError as error:
                raise DeviceError(
                    f"{run.device} is out of memory: use a smaller --batch-size than "
                    f"{config.batch_size}"
                ) from error
            run.seconds = time.monotonic() - begun
            _observe(run, log, lr)
            file.flush()
            stop = should_stop()
            on_progress(
                Progress(
                    step=run.step, done=run.done, loss=run.loss, lr=lr, eval_psnr=run.eval_psnr
                )
            )
            if stop:
                break
            if run.step % config.save_every == 0:
                _save(run)
    _save(run)
    return TrainReport(
        weights=config.output / "model.safetensors",
        step=run.step,
        patches=run.step * config.batch_size,
        seconds=run.seconds,
        loss=run.loss,
        eval_psnr=run.eval_psnr,
        baseline_psnr=run.baseline_psnr,
        finished=run.done >= 1,
    )


def load_options(directory: Path) -> TrainConfig:
    """Read the options of a run to resume it.

    Raises:
        DataError: If the directory holds no run that can be resumed.
    """
    path = directory / "options.json"
    if not (directory / "state" / "latest.json").is_file():
        raise DataError(
            f"--resume {directory}: there is no state to resume (state/latest.json is missing); "
            "give a run directory of srcli train"
        )
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        values["model"] = ModelConfig.from_json(json.dumps(values["model"]))
        values["output"] = directory
        values["datasets"] = tuple(Path(name) for name in values["datasets"])
        values["scales"] = tuple(values["scales"])
        values["init_from"] = Path(values["init_from"]) if values["init_from"] else None
        return TrainConfig(**values)
    except (OSError, ValueError, KeyError, TypeError, UsageError) as error:
        raise DataError(f"--resume {directory}: options.json cannot be used: {error}") from error


def _refuse_directory(output: Path) -> None:
    """Find out before images are loaded what a run directory cannot be."""
    blocker = next((part for part in (output, *output.parents) if part.exists()), output)
    if blocker.exists() and not blocker.is_dir():
        raise OutputError(
            f"cannot write the run directory {output}: {blocker} is not a folder; "
            "give another --output"
        )
    if (output / "state" / "latest.json").exists():
        raise OutputError(
            f"{output} already holds a run: continue it with --resume {output}, "
            "or give another --output"
        )
    if (output / "model.safetensors").exists():
        raise OutputError(f"{output} already holds trained weights; give another --output")


def _prepare_directory(config: TrainConfig) -> None:
    output = config.output
    try:
        (output / "state").mkdir(parents=True, exist_ok=True)
        (output / "log.csv").unlink(missing_ok=True)
        (output / "options.json").write_text(config.to_json(), encoding="utf-8")
    except OSError as error:
        raise OutputError(
            f"cannot write the run directory {output}: {error.strerror}; give another --output"
        ) from error


def _trim_log(path: Path, step: int) -> None:
    """Drop what was logged after the checkpoint that a run resumes from: it comes again."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    steps = (line.split(",")[0] for line in lines[1:])
    kept = lines[:1] + [
        line
        for line, cell in zip(lines[1:], steps, strict=True)
        if cell.isdecimal() and int(cell) <= step
    ]
    if kept != lines:
        path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")


def _start(config: TrainConfig, on_message: Callable[[str], None]) -> _Run:
    device = resolve_device(config.device)
    dtype = resolve_dtype(config.dtype, device)
    if dtype == torch.float16:
        raise UsageError("--dtype fp16 cannot hold the gradients; use auto, bf16 or fp32")
    files = [path for folder in config.datasets for path in image_files(folder)]
    if config.limit is not None and config.limit < len(files):
        order = torch.randperm(
            len(files), generator=torch.Generator().manual_seed(config.seed)
        ).tolist()
        files = [files[index] for index in sorted(order[: config.limit])]
    kept, held = split(files, config.seed)
    data = load_folder(kept, config.seed, on_message)
    try:
        evaluation = load_folder(held, config.seed, on_message) if held else None
    except DataError:  # what is unreadable was told: train without evaluation
        evaluation = None
    torch.manual_seed(config.seed)
    net = ResidualAutoencoder(config.model)
    if config.init_from is not None:
        source, header = weights.load(config.init_from)
        if header.config != config.model:
            raise UsageError(
                f"--init-from {config.init_from} holds another shape of net than --config"
            )
        net.load_state_dict(source.state_dict())
    net = on_device(net, device).train()
    average = on_device(ResidualAutoencoder(config.model), device)
    average.load_state_dict(net.state_dict())
    total = config.steps
    if total is None and config.epochs is not None:
        total = max(1, math.ceil(config.epochs * len(data) / config.batch_size))
    return _Run(
        config=config,
        device=device,
        dtype=dtype,
        data=data,
        held=evaluation,
        net=net,
        average=average.eval().requires_grad_(requires_grad=False),
        optimizer=torch.optim.Adam(net.parameters(), lr=config.lr, fused=True),
        total=total,
    )


def _optimise(run: _Run, lr: float) -> None:
    batch = run.data.batch(run.step, run.config.batch_size, run.config.scales)
    target = dequantize(batch.patches.to(run.device))
    image = training_input(target, batch.scales).contiguous(memory_format=torch.channels_last)
    for group in run.optimizer.param_groups:
        group["lr"] = lr
    with torch.autocast(run.device.type, dtype=run.dtype, enabled=run.dtype != torch.float32):
        output = run.net(image)
    loss = _loss(output.float(), target, run.config.loss)
    run.optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    if run.config.clip:
        torch.nn.utils.clip_grad_norm_(run.net.parameters(), run.config.clip)
    run.optimizer.step()
    run.step += 1
    # Early on the average follows closely, so that it forgets the random start.
    decay = min(run.config.ema, (1 + run.step) / (10 + run.step))
    with torch.no_grad():
        for slow, fast in zip(run.average.parameters(), run.net.parameters(), strict=True):
            slow.lerp_(fast, 1 - decay)
    run.recent.append(loss.detach())


def _loss(output: Tensor, target: Tensor, kind: _Loss) -> Tensor:
    match kind:
        case "mse":
            return functional.mse_loss(output, target)
        case "l1":
            return functional.l1_loss(output, target)
        case "charbonnier":
            return ((output - target).square() + _CHARBONNIER_EPSILON**2).sqrt().mean()
        case unknown:
            assert_never(unknown)


def _observe(run: _Run, log: Any, lr: float) -> None:  # noqa: ANN401 - csv has no public writer type
    """Log a stretch of steps and evaluate when it is time."""
    last = run.done >= 1 or run.out_of_time
    evaluate = run.held is not None and (run.step % run.config.eval_every == 0 or last)
    if not (run.step % _LOG_EVERY == 0 or run.step == 1 or evaluate or last):
        return
    _require_finite(run, torch.stack(run.recent))
    run.loss = float(torch.stack(run.recent).mean())
    run.recent.clear()
    if evaluate:
        run.eval_psnr, run.baseline_psnr = _evaluate(run)
    scores = [run.eval_psnr, run.baseline_psnr] if evaluate else [None, None]
    log.writerow(
        [run.step, run.step * run.config.batch_size, f"{run.seconds:.1f}", f"{lr:.3e}"]
        + [f"{run.loss:.6f}"]
        + ["" if score is None else f"{score:.4f}" for score in scores]
    )


def _require_finite(run: _Run, *values: Tensor) -> None:
    if not all(bool(value.isfinite().all()) for value in values):
        raise TrainingError(
            f"the loss is no longer finite at step {run.step}: resume from the last checkpoint or "
            f"train again with a lower --lr than {run.config.lr:g}"
        )


@torch.no_grad()
def _evaluate(run: _Run) -> tuple[float, float]:
    """Mean RGB PSNR of the EMA net, and of its input, on held-out patches, dB."""
    assert run.held is not None
    target = dequantize(run.held.centers(_EVALUATION_PATCHES).to(run.device))
    scales = run.config.scales
    image = training_input(target, [scales[i % len(scales)] for i in range(len(target))])
    with torch.autocast(run.device.type, dtype=run.dtype, enabled=run.dtype != torch.float32):
        parts = [run.average(part) for part in torch.split(image, run.config.batch_size)]
    output = torch.cat(parts).float().clamp(0, 1)
    return float(psnr(output, target).mean()), float(psnr(image.clamp(0, 1), target).mean())


def _save(run: _Run) -> None:
    """Write a checkpoint and the EMA weights; the older checkpoint goes last."""
    state = run.config.output / "state"
    name = f"step-{run.step:08d}.safetensors"
    _require_finite(run, *run.recent, *run.net.parameters())  # never over a good checkpoint
    moments = run.optimizer.state_dict()["state"]
    tensors = {
        **{f"net.{key}": value for key, value in run.net.state_dict().items()},
        **{f"ema.{key}": value for key, value in run.average.state_dict().items()},
        **{
            f"adam.{index}.{key}": value
            for index, values in moments.items()
            for key, value in values.items()
        },
    }
    progress = {"step": run.step, "seconds": run.seconds}
    weights.write_tensors(state / name, tensors, {"progress": json.dumps(progress)})
    weights.save(
        run.config.output / "model.safetensors",
        run.average.state_dict(),
        run.config.model,
        _record(run),
    )
    latest = {"file": name, **progress}
    try:
        with replacing(state / "latest.json") as temporary:
            temporary.write_text(json.dumps(latest) + "\n", encoding="utf-8")
        for old in state.glob("step-*.safetensors"):
            if old.name != name:
                old.unlink()
    except OSError as error:
        raise OutputError(f"cannot write {state}: {error.strerror}") from error


def _restore(run: _Run) -> None:
    state = run.config.output / "state"
    try:
        latest = json.loads((state / "latest.json").read_text(encoding="utf-8"))
        metadata, tensors = weights.read_tensors(state / latest["file"])
        progress = json.loads(metadata["progress"])
        run.step, run.seconds = int(progress["step"]), float(progress["seconds"])
        run.net.load_state_dict(_part(tensors, "net."))
        run.average.load_state_dict(_part(tensors, "ema."))
        moments: dict[int, dict[str, Tensor]] = {}
        parameters = list(run.net.parameters())
        for key, value in _part(tensors, "adam.").items():
            index, name = int(key.split(".")[0]), key.split(".")[1]
            # The fused Adam walks through memory: a moment must lie as its parameter does.
            like = parameters[index]
            same = torch.empty_like(like).copy_(value) if value.shape == like.shape else value
            moments.setdefault(index, {})[name] = same
        run.optimizer.load_state_dict({**run.optimizer.state_dict(), "state": moments})
    except (OSError, ValueError, LookupError, TypeError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"the state in {state} cannot be resumed: {reason}") from error


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }


def _record(run: _Run) -> dict[str, Any]:
    """What the header of the weights says of their making."""
    config = run.config
    return {
        "data": [folder.name for folder in config.datasets],
        "images": len(run.data),
        "degradation": "bicubic",
        "scales": list(config.scales),
        "loss": config.loss,
        "optimizer": f"Adam {config.lr:g}, warm-up {config.warmup} steps, cosine to 0",
        "ema": config.ema,
        "batch_size": config.batch_size,
        "steps": run.step,
        "patches": run.step * config.batch_size,
        "hours": round(run.seconds / 3600, 3),
        "seed": config.seed,
        "dtype": str(run.dtype).removeprefix("torch."),
        "torch": torch.__version__,
        "init_from": config.init_from.name if config.init_from else None,
    }
