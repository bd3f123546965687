"""The options of a training run: their types, defaults, ranges, and how they are kept as JSON.

Plain Python without torch, so that the command line can complete and list their names.
:mod:`srcli.training.recipe` makes them from a recipe.
"""

import inspect
import json
import re
from dataclasses import MISSING, asdict, dataclass, field, fields
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, NamedTuple, get_args, get_origin

from srcli.data.choices import Augmentation, Sampling, Splitting
from srcli.errors import UsageError, require_at_least
from srcli.model.config import BASE, CONFIGS, ModelConfig
from srcli.ops.degradation import Degradation

__all__ = [
    "CHANGEABLE",
    "Loss",
    "OptimizerName",
    "Schedule",
    "Setting",
    "TrainConfig",
    "option_of",
    "settings",
    "shown",
    "typed",
]

Loss = Literal["l1", "mse", "fourier"]
OptimizerName = Literal["muon", "adam"]
Schedule = Literal["cosine", "constant"]
Precision = Literal["auto", "fp32", "bf16"]
"""No ``fp16``: it cannot hold the gradients."""

_MAX_WORKERS = 1024
"""More would read batches ahead until memory is full."""

CHANGEABLE = frozenset(
    {"data_dir", "datasets", "device", "patience", "save_every", "tensorboard", "valid", "workers"}
)
"""Fields that a resumed run may have otherwise: no step depends on them, nor on where the images
lie, whose names it knows."""

_OPTION_OF = {"datasets": "--dataset", "scales": "--scale", "max_seconds": "--max-time"}
"""The fields whose option has another name than they."""

_NOT_SET = frozenset({"output", "processes", "recipe"})
"""Fields that belong to a single run: no recipe and no ``--set`` has them."""

_DOCUMENTED = re.compile(r'^    (\w+): .+\n    """([^"]+)"""$', re.MULTILINE)
"""A field and the docstring below it."""

_GONE = {"balanced": True, "compile": False, "keep_last": None}
"""Fields that older files of options may have: with these values (None: any) no step changes."""


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

    valid: Path | None = None
    """A folder of images to evaluate on instead of a part of the data sets."""

    recipe: str = "base"
    """The recipe that the values came from."""

    model: ModelConfig = BASE
    """The net's shape: ``base``, ``fast``, ``paper``, a JSON file, or single fields of it
    (``model.widths``). Fields that are not given are those of ``init_from``'s weights, else of
    ``base``."""

    scales: tuple[float, ...] = (2.0, 2.0, 3.0, 3.0, 4.0)
    """Scale factors, of which every step has each entry in its share: repeat one to weigh it."""

    degradation: Degradation = field(default_factory=Degradation)
    """How LR is made of HR."""

    symmetric_share: float = 0.0
    """Share of the run, from its beginning, in which a net that is not symmetric is trained as if
    it were: it learns from eight views of each patch, and is free to leave that afterwards."""

    batch_size: int = 16
    """Patches per step and process."""

    processes: int = 1
    """Processes that train together; their patches are one batch."""

    optimizer: OptimizerName = "muon"
    """``muon`` (Muon for the inner convolutions, Adam for the rest) or ``adam`` (Adam for all)."""

    lr: float = 1e-3
    """Adam's peak learning rate; Muon's is twice that."""

    weight_decay: float = 0.05
    """Decoupled weight decay of what Muon trains: at the rate r a step takes away r times this
    share of a weight. Over a long run at a high rate the weights otherwise grow with its length."""

    warmup: int = 200
    """Steps in which the learning rate rises linearly from zero."""

    schedule: Schedule = "cosine"
    """After the warm-up: ``cosine``, half of one down to zero; ``constant``, the same rate to the
    end."""

    loss: Loss = "fourier"
    """What is minimised between output and HR patch: ``fourier``, ``l1`` or ``mse``.
    ``fourier`` is L1 of the frequencies and a sixth of that of the pixels, of the
    colours and of their luma."""

    adversarial: float = 0.0
    """Weight of the discriminator's part of the loss, that of ``loss`` being 1; 0: there is no
    discriminator. It rises from a third of this within 2,000 steps."""

    perceptual: float = 0.0
    """Weight of the distance of a frozen net's features; it needs a discriminator beside it."""

    spectrum: float = 0.0
    """Weight of what stands out of a result's spectrum at the frequencies of the LR grid; it needs
    a discriminator beside it."""

    features: Path | None = None
    """VGG16's convolutions, as ``benchmarks/vgg16_features.py`` makes the file; none: the features
    of the discriminator are matched."""

    clip: float = 0.05
    """Largest norm of a gradient over all parameters; 0 turns clipping off. The norm lies near
    0.06 in the first steps with L1 and near 0.01 later; without the bound a net of wide levels
    lost hundreds of steps to a single spike at 1e-3."""

    ema: float = 0.999
    """Decay per step of the moving average of the weights, which is what is kept; 0: none."""

    steps: int | None = None
    """Length of the run in steps; none: ``epochs`` or ``max_seconds`` says."""

    epochs: float | None = None
    """Length of the run in passes of one patch an image."""

    max_seconds: float | None = None
    """Training stops after so many seconds (all sessions of a resumed run together). With
    neither steps nor epochs it also is what the learning rate is scheduled over."""

    seed: int = 0
    """Seed of the initial weights and of every draw."""

    split: Splitting = "held-out"
    """How images are split: ``held-out``, one in fifty for evaluation; ``paper``, of 302,599 images
    4,000 for test, 86,799 for training, the rest for evaluation, and the same shares of any other
    number."""

    sampling: Sampling = "area"
    """What is drawn equally often: ``area``, every pixel of the set; ``epoch``, every image."""

    augment: Augmentation = "turn"
    """How patches are turned: ``turn``, one of the eight flips and quarter turns; ``mirror``, left
    and right alone, for what stands upright, as faces do; ``none``."""

    eval_images: int | None = 64
    """Evaluate on at most so many images; none: all."""

    eval_every: int | None = 500
    """Steps between evaluations; none: once an epoch."""

    patience: int | None = None
    """Evaluations without a better PSNR that end the run; none: it has its length."""

    tensorboard: bool = False
    """Whether what ``log.csv`` has is written for TensorBoard too."""

    save_every: int = 500
    """Steps between checkpoints."""

    init_from: Path | None = None
    """Weights to start from, a shipped name or a file; none: random ones."""

    limit: int | None = None
    """Use at most so many images, chosen by seed; none: all."""

    workers: int | None = None
    """Threads that decode images; none: one for each core."""

    device: str = "auto"
    """``auto``, ``cpu``, ``cuda`` or ``cuda:N``."""

    dtype: Precision = "auto"
    """``auto``, ``fp32`` or ``bf16``."""

    def __post_init__(self) -> None:
        """Check the ranges that no type can."""
        self._check_images()
        self._check_length()
        counts = ["batch_size", "processes", "steps", "limit", "eval_every", "eval_images"]
        counts += ["patience", "save_every", "workers"]
        require_at_least(1, **{name: getattr(self, name) for name in counts})
        weights = ["warmup", "clip", "weight_decay", "adversarial", "perceptual", "spectrum"]
        require_at_least(0, **{name: getattr(self, name) for name in weights})
        if (self.workers or 0) > _MAX_WORKERS:
            raise UsageError(f"--workers must be at most {_MAX_WORKERS}, not {self.workers}")
        if not 0 <= self.seed < 2**63:
            raise UsageError(f"--seed must lie in 0..2**63-1, not {self.seed}")
        for name in ("lr", "epochs", "max_seconds"):
            number = getattr(self, name)
            if number is not None and not 0 < number < 1e9:
                raise UsageError(f"{option_of(name)} must lie between 0 and 1e9, not {number}")
        self._check_adversary()
        if not 0 <= self.ema < 1:
            raise UsageError(f"ema must lie in [0, 1), not {self.ema}")
        if not 0 <= self.symmetric_share <= 1:
            raise UsageError(f"symmetric_share must lie in [0, 1], not {self.symmetric_share}")

    def _check_adversary(self) -> None:
        if not self.adversarial and (self.features or self.perceptual or self.spectrum):
            raise UsageError(
                "features, perceptual and spectrum need a discriminator beside them: use --recipe "
                "sharp, or --set adversarial=0.06"
            )

    def _check_images(self) -> None:
        if not self.datasets:
            raise UsageError("train needs at least one --dataset: give celeba, stl10 or a folder")
        if not self.scales:
            raise UsageError("train needs at least one --scale")
        for scale in self.scales:
            if not 1.01 <= scale <= 8:
                raise UsageError(f"--scale must lie in 1.01..8 for training, not {scale:g}")

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
        # The folder is absolute, so that a run can be resumed from any directory.
        changed = {"degradation": str(self.degradation), "data_dir": self.data_dir.absolute()}
        return json.dumps(asdict(self) | changed, indent=2, default=str) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "TrainConfig":
        """Read what :meth:`to_json` wrote.

        Raises:
            UsageError: If it is not that, saying why.
        """
        try:
            values: Any = json.loads(text)
            if not isinstance(values, dict):
                raise UsageError("it is no JSON object")
            for name, done in _GONE.items():
                if done is None or values.get(name) is done:
                    values.pop(name, None)
            # What an older version did not have is done by default as it was then.
            if odd := values.keys() - {one.name for one in fields(cls)}:
                raise UsageError(f"it has what is not known: {', '.join(sorted(odd))}")
            if missing := {"datasets", "model", "output"} - values.keys():
                raise UsageError(f"it lacks {', '.join(sorted(missing))}")
            values["model"] = ModelConfig.from_json(json.dumps(values["model"]))
            return cls(**{name: typed(name, value) for name, value in values.items()})
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UsageError(str(error)) from error


def option_of(name: str) -> str:
    """Return the option of a field on the command line."""
    return _OPTION_OF.get(name, f"--{name.replace('_', '-')}")


def typed(name: str, value: Any) -> Any:  # noqa: ANN401 - any JSON or TOML
    """Return a value of JSON or TOML as the type of a field of :class:`TrainConfig`.

    Raises:
        UsageError: If it is nothing of the kind, naming what is.
    """
    kind = TrainConfig.__dataclass_fields__[name].type
    try:
        return _of_kind(kind, value)
    except TypeError:
        raise UsageError(f"{name} must be {_expected(kind)}, not {value!r:.80}") from None


def _of_kind(kind: Any, value: Any) -> Any:  # noqa: ANN401 - an annotation, and any JSON or TOML
    """Return a value as what an annotation says; ``TypeError`` if it cannot be."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin is UnionType:  # something or None
        return None if value is None else _of_kind(parts[0], value)
    if origin is tuple and type(value) in {list, tuple}:
        return tuple(_of_kind(parts[0], item) for item in value)
    if kind is Degradation and type(value) is str:
        return Degradation.parse(value)
    if kind is Path and type(value) is str and value:
        return Path(value)
    is_whole = type(value) is int and abs(value) < 2**63
    if kind in {int, float} and is_whole:
        return kind(value)
    fits = value in parts if origin is Literal else kind is not int and isinstance(value, kind)
    if not fits or value == "":
        raise TypeError
    return value


def _expected(kind: Any) -> str:  # noqa: ANN401 - what an annotation may be
    """Describe what the annotation of a field allows."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Literal:
        return f"one of {', '.join(parts)}"
    if origin is UnionType:
        return " or ".join(_expected(part) for part in parts)
    if origin is tuple:
        return f"a list, each item {_expected(parts[0])}"
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
    others = {NoneType: "none", Path: "a path", Degradation: "a text", ModelConfig: "a table"}
    return (words | others)[kind]


class Setting(NamedTuple):
    """A field of :class:`TrainConfig` that a recipe or ``--set`` may have."""

    name: str
    default: str
    meaning: str
    """The first sentence of the field's docstring."""


@cache
def settings() -> tuple[Setting, ...]:
    """Return every field that a recipe or ``--set`` may have, in the order of the class."""
    meanings = _meanings()
    defaults = {one.name: one.default for one in fields(TrainConfig)}
    defaults["degradation"] = Degradation()  # each has its own
    return tuple(
        Setting(name, shown(value), meanings[name])
        for name, value in defaults.items()
        if name not in _NOT_SET
    )


def shown(value: object) -> str:
    """Return a field's value as ``--set`` would have it."""
    match value:
        case ModelConfig():
            names = (name for name, shape in CONFIGS.items() if shape == value)
            return next(names, "another net")
        case tuple():
            return f"[{', '.join(map(shown, value))}]"
        case bool():
            return str(value).lower()
        case float():
            return f"{value:g}"
        case _:
            return "none" if value in (None, MISSING) else str(value)


def _meanings() -> dict[str, str]:
    """Return the first sentence of each field's docstring, which Python itself does not keep."""
    meanings = {}
    for name, text in _DOCUMENTED.findall(inspect.getsource(TrainConfig)):
        sentence, end, _ = " ".join(text.split()).replace("``", "").partition(". ")
        meanings[name] = sentence + end.strip()
    return meanings
