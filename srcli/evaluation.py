"""``srcli eval``: scores by the literature's protocol, the bicubic baseline beside each model.

The protocol: LR pictures are given, or made here by the bicubic reduction; every method's
result is rounded to 8 bits, luma is BT.601 studio range and not rounded, ``scale`` pixels of
border are cut, PSNR and SSIM (11x11 Gaussian, sigma 1.5) are means over the images.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from srcli import images
from srcli.color import dequantize, luma, quantize
from srcli.config import require_at_least
from srcli.degradation import bicubic, degrade
from srcli.errors import DataError, UsageError
from srcli.images import Metadata, Picture
from srcli.metrics import crop_border, psnr, ssim
from srcli.upscaling import Settings, Upscaler

__all__ = ["BASELINE", "EvalConfig", "EvalReport", "Score", "evaluate"]

BASELINE = "bicubic"
"""Name of the method that every model is measured beside."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalConfig:
    """What is scored, and by which protocol.

    Raises:
        UsageError: If a value is out of range.
    """

    dataset: Path
    """Folder of HR images, or one with the folders ``HR`` and ``LRx{scale}``."""

    lr: Path | None = None
    """Folder of LR images of the same names; None: the data set's own, or made here."""

    models: tuple[str, ...] = ("base",)
    """Shipped names or weights files."""

    scale: float = 3.0
    channel: Literal["y", "rgb"] = "y"
    """What is compared: luma or the three channels."""

    crop_border: int | None = None
    """Border pixels cut from each side; None: the scale, rounded up."""

    limit: int | None = None
    """Score at most so many images."""

    settings: Settings = field(default_factory=Settings)
    """How the net computes."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not 1 < self.scale <= 16:
            raise UsageError(f"--scale must lie in (1, 16], not {self.scale:g}")
        require_at_least(0, crop_border=self.crop_border)
        require_at_least(1, limit=self.limit)

    @property
    def border(self) -> int:
        """Border pixels that are cut."""
        return -int(-self.scale // 1) if self.crop_border is None else self.crop_border


@dataclass(frozen=True, slots=True)
class Score:
    """How close one method came on one image."""

    image: str
    method: str
    psnr: float
    """dB."""

    ssim: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalReport:
    """All scores and what they mean."""

    dataset: str
    scale: float
    lr: str
    """Where the LR pictures came from: a folder's name, or ``bicubic`` for made here."""

    channel: str
    crop_border: int
    device: str
    dtype: str
    methods: tuple[str, ...]
    """The baseline, then the models, in the order asked for."""

    scores: tuple[Score, ...]

    def mean(self, method: str) -> tuple[float, float]:
        """Mean PSNR (dB) and SSIM of a method over the images."""
        own = [score for score in self.scores if score.method == method]
        return fmean(score.psnr for score in own), fmean(score.ssim for score in own)

    @property
    def protocol(self) -> str:
        """The protocol in one line."""
        what = "luma (BT.601 studio range)" if self.channel == "y" else "RGB"
        return (
            f"PSNR/SSIM on {what}, {self.crop_border} px border cut, x{self.scale:g}, "
            f"LR: {self.lr}, {self.dtype} on {self.device}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON values, the means included; an infinite PSNR is None."""
        values = asdict(self)
        for score in values["scores"]:
            score["psnr"] = _finite(score["psnr"])
        values["protocol"] = self.protocol
        values["mean"] = {
            method: {"psnr": _finite(psnr_), "ssim": ssim_}
            for method, (psnr_, ssim_) in ((name, self.mean(name)) for name in self.methods)
        }
        return values


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def evaluate(
    config: EvalConfig,
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> EvalReport:
    """Score models and the bicubic baseline on a data set.

    Args:
        config: What and how.
        on_progress: Called with the images done and their number.

    Returns:
        The report.

    Raises:
        DataError: If images are missing or do not fit each other.
        WeightsError: If a model cannot be loaded.
    """
    pairs, source = _pairs(config)
    upscalers = {
        name: Upscaler.from_weights(name, settings=config.settings) for name in config.models
    }
    scores: list[Score] = []
    for done, (high_path, low_path) in enumerate(pairs, start=1):
        high, low = _load(high_path, low_path, config.scale)
        size = high.height, high.width
        results = {BASELINE: _bicubic(low, size)}
        results |= {name: model.upscale(low, size) for name, model in upscalers.items()}
        for name, result in results.items():
            values = _compare(high_path, result, high, config)
            scores.append(Score(high_path.name, name, *values))
        on_progress(done, len(pairs))
    first = next(iter(upscalers.values()))
    return EvalReport(
        dataset=str(config.dataset),
        scale=config.scale,
        lr=source,
        channel=config.channel,
        crop_border=config.border,
        device=str(first.device),
        dtype=str(first.dtype).removeprefix("torch."),
        methods=(BASELINE, *upscalers),
        scores=tuple(scores),
    )


def _pairs(config: EvalConfig) -> tuple[list[tuple[Path, Path | None]], str]:
    """HR paths, each with its LR path or None where it is made here."""
    root = config.dataset
    folder = root / "HR" if (root / "HR").is_dir() else root
    highs = _listed(folder)[: config.limit]
    low_folder = config.lr
    if low_folder is None and (root / f"LRx{config.scale:g}").is_dir():
        low_folder = root / f"LRx{config.scale:g}"
    if low_folder is None:
        return [(high, None) for high in highs], "bicubic"
    lows = {path.stem: path for path in _listed(low_folder)}
    pairs: list[tuple[Path, Path | None]] = []
    for high in highs:
        # Published sets name an LR file like its HR file, some with "x3" behind it.
        low = lows.get(high.stem) or lows.get(f"{high.stem}x{config.scale:g}")
        if low is None:
            raise DataError(f"{low_folder} holds no LR image for {high.name}; give another --lr")
        pairs.append((high, low))
    return pairs, low_folder.name


def _listed(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder of images; give the folder of the HR images")
    found = images.files_in(folder, recursive=False)
    if not found:
        raise DataError(f"{folder} holds no image; give the folder of the HR images")
    return found


def _load(high_path: Path, low_path: Path | None, scale: float) -> tuple[Picture, Picture]:
    """HR and LR pictures that fit each other: HR is cut to a whole number of LR pixels."""
    high = images.read(high_path)
    if low_path is not None:
        low = images.read(low_path)
        height, width = round(low.height * scale), round(low.width * scale)
        if not (0 <= high.height - height < scale and 0 <= high.width - width < scale):
            raise DataError(
                f"{low_path} is {low.width}x{low.height}: that is not {high_path} "
                f"({high.width}x{high.height}) reduced by {scale:g}; "
                "give another --lr or --scale"
            )
        return _cut(high, height, width), low
    height = round(int(high.height / scale) * scale)
    width = round(int(high.width / scale) * scale)
    if min(height, width) < 1:
        raise DataError(f"{high_path} is too small to be reduced by {scale:g}")
    high = _cut(high, height, width)
    return high, _picture(quantize(degrade(dequantize(_tensor(high)), scale)))


def _bicubic(low: Picture, size: tuple[int, int]) -> Picture:
    return _picture(quantize(bicubic(_tensor(low), size)))


def _compare(path: Path, result: Picture, high: Picture, config: EvalConfig) -> tuple[float, float]:
    """PSNR and SSIM of two pictures, by the configured protocol."""
    shown = []
    for picture in (result, high):
        image = dequantize(_tensor(picture)).double()
        image = luma(image) if config.channel == "y" else image.expand(3, -1, -1)
        try:
            shown.append(crop_border(image, config.border)[None])
        except ValueError as error:
            raise DataError(f"{path} is too small to be scored: {error}") from error
    try:
        return float(psnr(*shown)), float(ssim(*shown))
    except ValueError as error:
        raise DataError(f"{path} cannot be scored: {error}") from error


def _tensor(picture: Picture) -> Tensor:
    return torch.from_numpy(picture.pixels).permute(2, 0, 1)


def _picture(levels: Tensor) -> Picture:
    pixels = np.asarray(levels.permute(1, 2, 0).contiguous().numpy(), dtype=np.uint8)
    return Picture(pixels=pixels, alpha=None, format=None, metadata=Metadata())


def _cut(picture: Picture, height: int, width: int) -> Picture:
    pixels = picture.pixels[:height, :width].copy()
    return Picture(pixels=pixels, alpha=None, format=picture.format, metadata=picture.metadata)
