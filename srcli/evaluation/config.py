"""The options of an evaluation, checked."""

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal

from srcli.data.sources import DATASETS, parse
from srcli.errors import UsageError, require_at_least, suggestion
from srcli.evaluation.perceptual import METRICS
from srcli.ops.degradation import Degradation
from srcli.upscaler import Settings

__all__ = ["BASELINE", "FILTERS", "EvalConfig"]

BASELINE = "bicubic"
"""The filter that models are compared with by default."""

FILTERS: Final = MappingProxyType(
    {"bicubic": "bicubic", "lanczos": "lanczos", "bilinear": "bilinear", "nearest": "area"}
)
"""The resampling kernel of each baseline: enlarging by area is Pillow's NEAREST."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalConfig:
    """The images, the methods and the protocol of an evaluation.

    Raises:
        UsageError: If a value is out of range.
    """

    dataset: Path | str
    """Folder of HR images, or one with the folders ``HR`` and ``LRx{scale}``; or ``celeba`` or
    ``stl10``: their ``test``, or another ``:part``."""

    data_dir: Path = Path("data")
    """Folder of the data sets with names."""

    lr: Path | None = None
    """Folder of LR images of the same names; None: the data set's own, or made here."""

    degradation: Degradation = field(default_factory=Degradation)
    """How LR is made here. Other than bicubic it replaces LR of the data set's own."""

    seed: int = 0
    """Each image's degradation is drawn from it and the image's name."""

    models: tuple[str, ...] = ("base",)
    """Shipped names or weights files."""

    sharpness: tuple[float, ...] = ()
    """Each model is mixed with its sharp sibling so far, one method for each; none: as the settings
    say."""

    baselines: tuple[str, ...] = (BASELINE,)
    """Names of :data:`FILTERS` that the models are compared with."""

    metrics: tuple[str, ...] = ()
    """Names of :data:`~srcli.evaluation.perceptual.METRICS` to compute beside PSNR and SSIM."""

    scale: float = 3.0
    channel: Literal["y", "rgb"] = "y"
    """Score luma or the three channels."""

    crop_border: int | None = None
    """Border pixels cut from each side; None: the scale, rounded up."""

    limit: int | None = None
    """Score at most so many images."""

    panels: Path | None = None
    """Folder for one picture of each image: the detail that differs most, by every method."""

    settings: Settings = field(default_factory=Settings)
    """How the net computes."""

    def __post_init__(self) -> None:
        """Check the values."""
        if not 1 < self.scale <= 16:
            raise UsageError(f"--scale must lie in (1, 16], not {self.scale:g}")
        require_at_least(0, crop_border=self.crop_border, seed=self.seed)
        require_at_least(1, limit=self.limit)
        if self.lr is not None and not self.degradation.is_bicubic:
            raise UsageError(
                f"--lr {self.lr} gives the LR images, so --degradation {self.degradation} would "
                "do nothing; give one of the two"
            )
        if self.lr is not None and self.is_named:
            raise UsageError(f"--lr {self.lr}: LR of {self.dataset} is made here; leave it out")
        for name in self.metrics:
            if name not in METRICS:
                known = f"psnr, ssim, {', '.join(METRICS)}"
                near = suggestion(name, METRICS)
                raise UsageError(f"--metric must be one of {known}, not {name!r}{near}")
        for name in self.baselines:
            if name not in FILTERS:
                known = ", ".join(FILTERS)
                raise UsageError(f"--baseline must be one of {known} or none, not {name!r}")

    @property
    def nets(self) -> dict[str, tuple[str, Settings]]:
        """The weights of each method that is a net, and how it computes."""
        return {
            model if mixed is None else f"{model} with sharpness {mixed:g}": (
                model,
                replace(self.settings, sharpness=mixed),
            )
            for model in self.models
            for mixed in self.sharpness or (self.settings.sharpness,)
        }

    @property
    def is_named(self) -> bool:
        """Whether the data set is one of those with a name."""
        return parse(str(self.dataset))[0] in DATASETS

    @property
    def border(self) -> int:
        """Border pixels that are cut."""
        return math.ceil(self.scale) if self.crop_border is None else self.crop_border
