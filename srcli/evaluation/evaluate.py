"""``srcli eval``: scores by the literature's protocol, resampling filters beside the models.

The protocol: LR pictures are given, or made here by the degradation that training uses; every
method's result is rounded to 8 bits, luma is BT.601 studio range and not rounded, ``scale``
pixels of border are cut, PSNR and SSIM (11x11 Gaussian, sigma 1.5) are means over the images.
Of CelebA and STL-10 the 120x120 pixels in the middle are scored, what the source paper trains
on; its "accuracy" is measured on RGB, the border cut as well.
"""

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from types import MappingProxyType
from typing import Any, Final, Literal

import numpy as np
import torch
from torch import Tensor

from srcli.data.degrading import degrade
from srcli.data.loading import center, named_draws
from srcli.data.sampling import open_pool
from srcli.data.sources import DATASETS, parse
from srcli.errors import DataError, UsageError, require_at_least
from srcli.evaluation import panels
from srcli.files import is_folder, one_line
from srcli.imaging import images
from srcli.imaging.images import Picture
from srcli.model.weights import ScoreLine
from srcli.ops.color import dequantize, luma, quantize
from srcli.ops.degradation import Degradation
from srcli.ops.degrade import PHASE_DRAWS
from srcli.ops.metrics import agreement, crop_border, psnr, ssim
from srcli.ops.resample import axis_weights
from srcli.ops.spans import Span
from srcli.upscaler import Settings, Upscaler

__all__ = ["BASELINE", "FILTERS", "EvalConfig", "EvalReport", "Score", "evaluate"]

BASELINE = "bicubic"
"""Name of the filter that every model is measured beside unless told."""

FILTERS: Final = MappingProxyType(
    {"bicubic": "bicubic", "lanczos": "lanczos", "bilinear": "bilinear", "nearest": "area"}
)
"""The filters that models can be measured beside, and each one's kernel: enlarging is where
Pillow's BOX becomes its NEAREST."""

_COLUMNS = ("dataset", "image", "method", "scale", "psnr", "ssim", "accuracy")
"""The columns of the scores as CSV."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalConfig:
    """What is scored, and by which protocol.

    Raises:
        UsageError: If a value is out of range.
    """

    dataset: Path | str
    """Folder of HR images, or one with the folders ``HR`` and ``LRx{scale}``; or ``celeba`` (its
    test partition) or ``stl10``, either with ``:part``."""

    data_dir: Path = Path("data")
    """Where the data sets with names lie."""

    lr: Path | None = None
    """Folder of LR images of the same names; None: the data set's own, or made here."""

    degradation: Degradation = field(default_factory=Degradation)
    """How LR is made here. Other than bicubic it goes before LR of the data set's own."""

    seed: int = 0
    """What each image's degradation is drawn from, together with its name."""

    models: tuple[str, ...] = ("base",)
    """Shipped names or weights files."""

    baselines: tuple[str, ...] = (BASELINE,)
    """Names of :data:`FILTERS` that the models are measured beside."""

    scale: float = 3.0
    channel: Literal["y", "rgb"] = "y"
    """What is compared: luma or the three channels."""

    crop_border: int | None = None
    """Border pixels cut from each side; None: the scale, rounded up."""

    limit: int | None = None
    """Score at most so many images."""

    panels: Path | None = None
    """Folder for one picture of each image: its most telling detail by every method."""

    settings: Settings = field(default_factory=Settings)
    """How the net computes."""

    def __post_init__(self) -> None:
        """Check the ranges."""
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
        self._check_methods()

    def _check_methods(self) -> None:
        """Refuse names that mean nothing, or two things."""
        for name in self.baselines:
            if name not in FILTERS:
                known = ", ".join(FILTERS)
                raise UsageError(f"--baseline must be one of {known} or none, not {name!r}")
        if not self.models:
            raise UsageError("nothing to score: give weights, e.g. -m base")
        if "auto" in self.models:
            raise UsageError(
                "-m auto chooses for each file of srcli upscale; srcli eval needs weights by "
                "name, e.g. -m base -m photo"
            )
        for name in set(self.models).intersection(self.baselines):
            raise UsageError(
                f"-m {name} is the name of a --baseline too; give the file as ./{name}"
            )
        for option, names in (("-m", self.models), ("--baseline", self.baselines)):
            if len(set(names)) < len(names):
                raise UsageError(f"{option} must name each method once, not {', '.join(names)}")

    @property
    def is_named(self) -> bool:
        """Whether the data set is one of those with a name."""
        return parse(str(self.dataset))[0] in DATASETS

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
    accuracy: float
    """Share of pixels whose largest channel is the original's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalReport:
    """All scores and what they mean."""

    dataset: str
    scale: float
    lr: str
    """Where the LR pictures came from: a folder's name, or the degradation that made them."""

    channel: str
    crop_border: int
    device: str
    dtype: str
    methods: tuple[str, ...]
    """The baselines, then the models, in the order asked for."""

    scores: tuple[Score, ...]

    baselines: tuple[str, ...] = (BASELINE,)
    """Those of the methods that are filters."""

    has_accuracy: bool = False
    """Whether accuracy belongs to the data set's protocol, as it does to the source paper's."""

    def mean(self, method: str) -> tuple[float, float]:
        """Mean PSNR (dB) and SSIM of a method over the images."""
        own = [score for score in self.scores if score.method == method]
        return fmean(score.psnr for score in own), fmean(score.ssim for score in own)

    def accuracy(self, method: str) -> float:
        """Mean accuracy of a method over the images."""
        return fmean(score.accuracy for score in self.scores if score.method == method)

    @property
    def models(self) -> tuple[str, ...]:
        """Those of the methods that are weights, in the order asked for."""
        return tuple(name for name in self.methods if name not in self.baselines)

    @property
    def labels(self) -> dict[str, str]:
        """What each method is called in little room, by its name.

        A path is shortened from the left as far as it can still be told from the others: every
        run has a ``model.safetensors``.
        """
        return _labels(self.methods)

    def score_line(self, method: str, dataset: str | None = None) -> ScoreLine:
        """Sum a method up for the header of its weights: :func:`srcli.model.weights.record_scores`.

        Args:
            method: One of the report's methods.
            dataset: What to call the data set; None: its folder's name, or its own.

        Returns:
            The means and what they are means of.

        Raises:
            ValueError: If the report has no such method, or its mean PSNR is infinite.
        """
        if method not in self.methods:
            raise ValueError(f"the report is of {', '.join(self.methods)}, not of {method}")
        psnr_mean, ssim_mean = self.mean(method)
        return ScoreLine(
            dataset=dataset or Path(self.dataset).resolve().name,
            scale=self.scale,
            lr=self.lr,
            channel=self.channel,
            psnr=psnr_mean,
            ssim=ssim_mean,
            images=len(self.scores) // len(self.methods),
        )

    @property
    def protocol(self) -> str:
        """The protocol in one line."""
        what = "luma (BT.601 studio range)" if self.channel == "y" else "RGB"
        if self.has_accuracy:
            what += ", accuracy on RGB, of the middle 120x120 pixels"
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
            method: {
                "psnr": _finite(self.mean(method)[0]),
                "ssim": self.mean(method)[1],
                "accuracy": self.accuracy(method),
            }
            for method in self.methods
        }
        return values

    def to_csv(self) -> str:
        """The scores as CSV: a line for each image and method, and one for each method's mean.

        Returns:
            Columns dataset, image, method, scale, psnr (dB, or ``inf``), ssim, accuracy; the
            image of a mean is ``mean``.
        """
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(_COLUMNS)
        rows = [(s.image, s.method, s.psnr, s.ssim, s.accuracy) for s in self.scores]
        rows += [("mean", name, *self.mean(name), self.accuracy(name)) for name in self.methods]
        for image, method, *values in rows:
            names = map(one_line, (self.dataset, image, method))
            dataset, image_name, method_name = names
            writer.writerow((dataset, image_name, method_name, f"{self.scale:g}", *values))
        return text.getvalue()


def _labels(methods: Sequence[str]) -> dict[str, str]:
    """Give each method the shortest end of its path that no other has."""
    parts = {method: Path(method).parts for method in methods}
    labels: dict[str, str] = {}
    for length in range(1, max(map(len, parts.values()), default=0) + 1):
        ends = {method: "/".join(found[-length:]) for method, found in parts.items()}
        for method, end in ends.items():
            if list(ends.values()).count(end) == 1:
                labels.setdefault(method, end)
    return {method: labels.get(method, method) for method in methods}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def evaluate(
    config: EvalConfig,
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
    on_message: Callable[[str], None] = lambda _: None,
) -> EvalReport:
    """Score models and filters on a data set; draw the panels that are asked for.

    Args:
        config: What and how.
        on_progress: Called with the images done and their number.
        on_message: Called with one line for anything worth knowing.

    Returns:
        The report.

    Raises:
        DataError: If images are missing or do not fit each other.
        OutputError: If a panel cannot be written.
        UsageError: If the panels would lie among the images.
        WeightsError: If a model cannot be loaded.
    """
    cases, source = _named_cases(config, on_message) if config.is_named else _cases(config)
    upscalers = {name: Upscaler(name, settings=config.settings) for name in config.models}
    targets = _panel_files(config.panels, cases)
    scores: list[Score] = []
    for done, (case, target) in enumerate(zip(cases, targets, strict=True), start=1):
        high, low = case.read()
        size = high.height, high.width
        results = {name: _filtered(low, size, name) for name in config.baselines}
        results |= {name: model.upscale(low, size) for name, model in upscalers.items()}
        own = [
            Score(case.name, name, *_compare(case.label, result, high, config))
            for name, result in results.items()
        ]
        scores += own
        if target is not None:
            _draw_panel(target, config, (high, low), results, own)
        on_progress(done, len(cases))
    first = next(iter(upscalers.values()))
    return EvalReport(
        dataset=str(config.dataset),
        scale=config.scale,
        lr=source,
        channel=config.channel,
        crop_border=config.border,
        device=str(first.device),
        dtype=str(first.dtype).removeprefix("torch."),
        methods=(*config.baselines, *upscalers),
        scores=tuple(scores),
        baselines=config.baselines,
        has_accuracy=config.is_named,
    )


@dataclass(frozen=True, slots=True)
class _Case:
    """One image to score: what it is called, and how its HR and LR pictures are had."""

    name: str
    label: str
    read: Callable[[], tuple[Picture, Picture]]
    folders: tuple[Path, ...] = ()
    """Where its files lie, among which nothing may be written."""


def _named_cases(config: EvalConfig, say: Callable[[str], None]) -> tuple[list[_Case], str]:
    """The middles of the images of CelebA or STL-10, LR made here."""
    name, parts = parse(str(config.dataset))
    text = f"{name}:test" if name == "celeba" and not parts else str(config.dataset)
    pool = open_pool([text], config.data_dir, config.seed, say).limited(config.limit)

    def reader(place: int) -> Callable[[], tuple[Picture, Picture]]:
        def read() -> tuple[Picture, Picture]:
            high = _picture(center(pool.read(place)))
            return _reduced(high, pool.key(place), pool.label(place), config)

        return read

    cases = [
        _Case(pool.key(i), pool.label(i), reader(i), (Path(pool.label(i)).parent,))
        for i in range(len(pool))
    ]
    return cases, str(config.degradation)


def _cases(config: EvalConfig) -> tuple[list[_Case], str]:
    """The images of a folder, each with its LR image or with one made here."""
    root = Path(config.dataset)
    highs = _listed(root / "HR" if (root / "HR").is_dir() else root)[: config.limit]
    lows = config.lr
    own = root / f"LRx{config.scale:g}"
    if lows is None and own.is_dir() and config.degradation.is_bicubic:
        lows = own
    pairs = _pairs(highs, lows, config.scale)

    def reader(high: Path, low: Path | None) -> Callable[[], tuple[Picture, Picture]]:
        return lambda: _load(high, low, config)

    cases = [
        _Case(
            high.name,
            str(high),
            reader(high, low),
            tuple(path.parent for path in (high, low) if path is not None),
        )
        for high, low in pairs
    ]
    return cases, str(config.degradation) if lows is None else lows.name


def _pairs(highs: list[Path], folder: Path | None, scale: float) -> list[tuple[Path, Path | None]]:
    """HR paths, each with its LR path or None where it is made here."""
    if folder is None:
        return [(high, None) for high in highs]
    lows = {path.stem: path for path in _listed(folder)}
    pairs: list[tuple[Path, Path | None]] = []
    for high in highs:
        # Published sets name an LR file like its HR file, some with "x3" behind it.
        low = lows.get(high.stem) or lows.get(f"{high.stem}x{scale:g}")
        if low is None:
            raise DataError(f"{folder} holds no LR image for {high.name}; give another --lr")
        pairs.append((high, low))
    return pairs


def _listed(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise DataError(
            f"{folder} is not a folder of images; give the folder of the HR images, or one of "
            f"{', '.join(DATASETS)}"
        )
    found = images.files_in(folder, recursive=False)
    if not found:
        raise DataError(f"{folder} holds no image; give the folder of the HR images")
    return found


def _load(high_path: Path, low_path: Path | None, config: EvalConfig) -> tuple[Picture, Picture]:
    """HR and LR pictures that fit each other: HR is cut to a whole number of LR pixels."""
    high, scale = images.read(high_path), config.scale
    if low_path is None:
        return _reduced(high, high_path.name, str(high_path), config)
    low = images.read(low_path)
    height, width = round(low.height * scale), round(low.width * scale)
    if not (0 <= high.height - height < scale and 0 <= high.width - width < scale):
        raise DataError(
            f"{low_path} is {low.width}x{low.height}: that is not {high_path} "
            f"({high.width}x{high.height}) reduced by {scale:g}; "
            "give another --lr or --scale"
        )
    return _cut(high, height, width), low


def _reduced(high: Picture, name: str, label: str, config: EvalConfig) -> tuple[Picture, Picture]:
    """Make the LR picture by the degradation, its draws following from the image's name."""
    scale = config.scale
    height = round(int(high.height / scale) * scale)
    width = round(int(high.width / scale) * scale)
    if min(height, width) < 1:
        raise DataError(f"{label} is too small to be reduced by {scale:g}")
    high = _cut(high, height, width)
    draws = named_draws(config.seed, name)[None]
    draws[:, PHASE_DRAWS] = 0.0  # a whole picture
    image = dequantize(_tensor(high))[None]
    return high, _picture(quantize(degrade(image, scale, config.degradation, draws))[0])


def _filtered(low: Picture, size: tuple[int, int], name: str) -> Picture:
    """Enlarge by one of :data:`FILTERS`, rounded once."""
    down = axis_weights(low.height, size[0], Span(0, size[0]), FILTERS[name])
    across = axis_weights(low.width, size[1], Span(0, size[1]), FILTERS[name])
    tall = down.apply(dequantize(_tensor(low)))
    # Rows are gathered several times faster than columns.
    return _picture(quantize(across.apply(tall.mT.contiguous()).mT.contiguous()))


def _panel_files(folder: Path | None, cases: Sequence[_Case]) -> list[Path | None]:
    """Name each image's panel, and see before anything is computed that it can be written."""
    if folder is None:
        return [None] * len(cases)
    for source in {source for case in cases for source in case.folders}:
        if is_folder(folder) and folder.resolve() == source.resolve():
            raise UsageError(
                f"--panels {folder} is where the images are, which could be written over; "
                "give another folder"
            )
    return [*panels.prepare(folder, [case.name for case in cases])]


def _draw_panel(
    target: Path,
    config: EvalConfig,
    pair: tuple[Picture, Picture],
    results: Mapping[str, Picture],
    scores: Sequence[Score],
) -> None:
    """Show LR, what every method makes of it, and HR, where the first baseline is furthest off."""
    high, low = pair
    size = high.height, high.width
    first = next(iter(config.baselines), None)
    plain = _filtered(low, size, BASELINE) if first is None else results[first]
    labels = _labels(list(results))
    squares = _filtered(low, size, "nearest")
    views: list[panels.View] = [
        ("LR", squares, f"{low.width}x{low.height}, x{config.scale:g}"),
        *(
            (labels[one.method], results[one.method], f"{one.psnr:.2f} dB / {one.ssim:.4f}")
            for one in scores
        ),
        ("HR", high, f"{high.width}x{high.height}"),
    ]
    panels.draw(target, views, panels.worst_window(high, plain))


def _compare(
    label: str, result: Picture, high: Picture, config: EvalConfig
) -> tuple[float, float, float]:
    """PSNR, SSIM and accuracy of two pictures, by the configured protocol."""
    colors, shown = [], []
    for picture in (result, high):
        image = dequantize(_tensor(picture)).double()
        try:
            cropped = crop_border(image, config.border)[None]
        except ValueError as error:
            raise DataError(f"{label} is too small to be scored: {error}") from error
        colors.append(cropped.expand(-1, 3, -1, -1))
        shown.append(luma(cropped) if config.channel == "y" else colors[-1])
    try:
        return float(psnr(*shown)), float(ssim(*shown)), float(agreement(*colors))
    except ValueError as error:
        raise DataError(f"{label} cannot be scored: {error}") from error


def _tensor(picture: Picture) -> Tensor:
    return torch.from_numpy(picture.pixels).permute(2, 0, 1)


def _picture(levels: Tensor) -> Picture:
    pixels = np.asarray(levels.permute(1, 2, 0).contiguous().numpy(), dtype=np.uint8)
    return Picture(pixels=pixels)


def _cut(picture: Picture, height: int, width: int) -> Picture:
    pixels = picture.pixels[:height, :width].copy()
    return Picture(pixels=pixels, metadata=picture.metadata)
