"""What decides a training run: its options, and the recipes that fill in what is not given.

Plain Python without torch, so that the command line can name every default in its help.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import MappingProxyType, UnionType
from typing import Any, Literal, get_args, get_origin

from srcli.data.choices import Augmentation, Sampling, Splitting
from srcli.errors import UsageError, require_at_least
from srcli.model.config import BASE, PAPER, ModelConfig
from srcli.ops.degradation import Degradation

__all__ = [
    "AUGMENTATIONS",
    "CHANGEABLE",
    "LOSSES",
    "OPTIMIZERS",
    "RECIPES",
    "SCHEDULES",
    "SPLITS",
    "Loss",
    "OptimizerName",
    "Schedule",
    "TrainConfig",
]

Loss = Literal["l1", "mse", "charbonnier", "fourier"]
OptimizerName = Literal["muon", "adam"]
Schedule = Literal["cosine", "constant"]

LOSSES: tuple[str, ...] = get_args(Loss)
"""What may be minimised between output and HR patch, both in [0, 1]."""

OPTIMIZERS: tuple[str, ...] = get_args(OptimizerName)
"""What may turn gradients into steps."""

SCHEDULES: tuple[str, ...] = get_args(Schedule)
"""How the learning rate goes after its warm-up."""

SPLITS: tuple[str, ...] = get_args(Splitting)
"""How images are parted into training, evaluation and test."""

AUGMENTATIONS: tuple[str, ...] = get_args(Augmentation)
"""How patches are turned before they are shown."""

CHANGEABLE = frozenset({"data_dir", "device", "keep_last", "output", "save_every", "workers"})
"""Fields that a resumed run may have otherwise: no step depends on them."""


_PATHS = ("output", "data_dir", "init_from")

_REMOVED: Mapping[str, Any] = {
    "candidates": 1,
    "mean_with": [],
    "teacher": None,
    "teacher_scale": None,
    "teachers": [],
}
"""Fields of earlier versions, with the value that asked for nothing."""

_REMOVED_DETAILS = frozenset({"teacher_share"})
"""Fields of earlier versions that said something only beside one of these."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """Everything that decides a run; stored as ``options.json``.

    Raises:
        UsageError: If a value is out of range.
    """

    output: Path
    """The run directory."""

    datasets: tuple[str, ...]
    """``celeba``, ``stl10`` (either with ``:part``), or folders, read recursively: a union."""

    data_dir: Path = Path("data")
    """Where the data sets with names lie."""

    recipe: str = "base"
    """The recipe that the defaults came from."""

    model: ModelConfig = BASE
    """The net's shape."""

    scales: tuple[float, ...] = (2.0, 3.0, 3.0, 4.0)
    """Scale factors to draw from, each entry as likely as the others: repeat one to weigh it."""

    balanced: bool = True
    """Whether every step has each scale factor in its share; else each patch draws its own, as in
    runs of before. It takes chance from the gradients, and a GPU sees the same shapes each step."""

    degradation: Degradation = field(default_factory=Degradation)
    """How LR is made of HR."""

    batch_size: int = 8
    """Patches per step and process."""

    processes: int = 1
    """Processes that train together; their patches are one batch."""

    optimizer: OptimizerName = "muon"
    """``muon``: Muon for the inner convolutions, Adam for the rest. ``adam``: Adam for all."""

    lr: float = 7e-4
    """Adam's peak learning rate; Muon's is twice that."""

    weight_decay: float = 0.0
    """Decoupled weight decay of what Muon trains: a step at the rate r takes r times this share
    of a weight away. Over a long run at a high rate the weights otherwise grow with its length."""

    warmup: int = 200
    """Steps in which the learning rate rises linearly from zero."""

    schedule: Schedule = "cosine"
    """After the warm-up: ``cosine``, half of one down to zero; ``constant``, the same rate to the
    end."""

    loss: Loss = "fourier"
    """What is minimised between output and HR patch, both in [0, 1]: ``fourier`` is L1 of the
    frequencies and a sixth of that of the pixels, of the colours and of their luma."""

    clip: float = 0.05
    """Largest norm of a gradient over all parameters; 0 turns clipping off. The norm lies near
    0.06 in the first steps with L1 and near 0.01 later; without the bound a net of wide levels
    lost hundreds of steps to a single spike at 1e-3."""

    ema: float = 0.999
    """Decay per step of the moving average of the weights, which is what is kept; 0: none."""

    steps: int | None = None
    """Length of the run in steps; None: ``epochs`` or ``max_seconds`` says."""

    epochs: float | None = None
    """Length of the run in passes of one patch an image."""

    max_seconds: float | None = None
    """Training stops after so many seconds (all stretches of a resumed run together). With
    neither steps nor epochs it also is what the learning rate is scheduled over."""

    seed: int = 0
    """Seed of the initial weights and of every draw."""

    split: Splitting = "held-out"
    """``held-out``: one image in fifty for evaluation. ``paper``: of 302,599 images 4,000 for
    test, 86,799 for training, the rest for evaluation; the same shares of any other number."""

    sampling: Sampling = "area"
    """``area``: every pixel of the set is as likely as any other. ``epoch``: every image once."""

    augment: Augmentation = "turn"
    """``turn``: one of the eight flips and quarter turns for each patch. ``mirror``: left and right
    alone, for what stands upright, as faces do. ``none``: as the image is."""

    eval_images: int | None = 64
    """Evaluate on at most so many images; None for all."""

    eval_every: int | None = 500
    """Steps between evaluations; None: once an epoch."""

    save_every: int = 500
    """Steps between checkpoints."""

    keep_last: int = 2
    """Checkpoints that are kept."""

    init_from: Path | None = None
    """Weights to start from instead of random ones."""

    limit: int | None = None
    """Use at most so many images, chosen by seed."""

    workers: int | None = None
    """Threads that decode images; None: one for each core."""

    compile: bool = False
    """Whether the net is compiled by ``torch.compile`` first."""

    device: str = "auto"
    dtype: str = "auto"

    def __post_init__(self) -> None:
        """Check the ranges that no type can."""
        if not self.datasets:
            raise UsageError("train needs at least one --dataset: give celeba, stl10 or a folder")
        self._check_length()
        require_at_least(
            1,
            batch_size=self.batch_size,
            processes=self.processes,
            steps=self.steps,
            limit=self.limit,
            eval_every=self.eval_every,
            eval_images=self.eval_images,
            save_every=self.save_every,
            keep_last=self.keep_last,
            workers=self.workers,
        )
        require_at_least(0, warmup=self.warmup, clip=self.clip, weight_decay=self.weight_decay)
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
        if not self.scales:
            raise UsageError("train needs at least one --scale")
        for scale in self.scales:
            if not 1 < scale <= 8:
                raise UsageError(f"--scale must lie in (1, 8] for training, not {scale:g}")

    def _check_length(self) -> None:
        if self.steps is None and self.epochs is None and self.max_seconds is None:
            raise UsageError("say how long to train: --steps, --epochs or --max-time")
        if self.steps is not None and self.epochs is not None:
            raise UsageError("--steps and --epochs both say how long; give one of them")

    @property
    def batch(self) -> int:
        """Patches per step of all processes together."""
        return self.batch_size * self.processes

    def to_json(self) -> str:
        """Write the options as readable JSON."""
        values = asdict(self)
        values["degradation"] = str(self.degradation)
        for name in _PATHS:
            values[name] = None if values[name] is None else str(values[name])
        # Absolute, so that a run can be resumed from any directory.
        values["data_dir"] = str(self.data_dir.absolute())
        return json.dumps(values, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "TrainConfig":
        """Read what :meth:`to_json` wrote.

        Raises:
            UsageError: If it is not that, saying why.
        """
        try:
            values: dict[str, Any] = json.loads(text)
            names = {one.name for one in fields(cls)}
            _modernise(values, names)
            if set(values) != names:
                odd = ", ".join(sorted(set(values) ^ names))
                raise UsageError(f"it lacks, or has besides what is known: {odd}")
            values["model"] = ModelConfig.from_json(json.dumps(values["model"]))
            values["degradation"] = Degradation.parse(values["degradation"])
            for name in ("datasets", "scales"):
                values[name] = tuple(values[name]) if type(values[name]) is list else values[name]
            for name in _PATHS:
                values[name] = Path(values[name]) if type(values[name]) is str else values[name]
            for one in fields(cls):
                if not _fits(values[one.name], one.type):
                    raise UsageError(f"{one.name} cannot be {values[one.name]!r}")
            return cls(**values)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UsageError(str(error)) from error


def _modernise(values: dict[str, Any], names: set[str]) -> None:
    """Bring the options of a run that an earlier version began to those of this one."""
    for name in sorted((_REMOVED.keys() | _REMOVED_DETAILS) & set(values)):
        value = values.pop(name)
        if value != _REMOVED.get(name, value):
            raise UsageError(f"{name} is {value!r}, which this version of srcli no longer has")
    if names & set(values):
        values.setdefault("balanced", False)  # each patch drew its factor
        if type(values.get("augment")) is bool:  # there was no mirroring alone
            values["augment"] = "turn" if values["augment"] else "none"


def _fits(value: object, kind: Any) -> bool:  # noqa: ANN401 - what an annotation may be
    """Whether a value is what the annotation of a field says."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Literal:
        return value in parts
    if origin is UnionType:
        return any(_fits(value, part) for part in parts)
    if origin is tuple:
        return type(value) is tuple and all(_fits(item, parts[0]) for item in value)
    if kind is float:
        return type(value) in {int, float}
    return isinstance(value, kind) and (kind is bool or type(value) is not bool)


RECIPES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "base": MappingProxyType({}),  # TrainConfig's own defaults
        "photo": MappingProxyType(
            {
                "degradation": Degradation.parse(
                    "kernel=any,blur=0..2,noise=0..8,jpeg=30..95,clean=0.5"
                )
            }
        ),
        "paper": MappingProxyType(
            {
                "model": PAPER,
                "scales": (3.0,),
                "epochs": 10,
                "optimizer": "adam",
                "lr": 1e-3,
                "loss": "mse",
                "warmup": 0,
                "schedule": "constant",
                "clip": 0.0,
                "ema": 0.0,
                "split": "paper",
                "sampling": "epoch",
                "augment": "none",
                "eval_images": None,
                "eval_every": None,
            }
        ),
    }
)
"""What each recipe sets instead of :class:`TrainConfig`'s own defaults. ``paper`` is "Súper
Resolución con Autoencoders Convolucionales": MSE, Adam, ten epochs, 120x120 crops of CelebA and
STL-10. It names neither batch size nor learning rate: 8, and Adam's usual 1e-3 throughout.
``photo`` is ``base`` on that paper's general degradation, with JPEG behind it."""
