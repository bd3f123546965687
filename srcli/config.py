"""Frozen, validated settings of the network: plain Python, importable without torch.

The configuration travels in the header of every weights file and is read before any
tensor is built, so a file alone is enough to rebuild its network.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields, replace
from typing import Any, Literal, NamedTuple, get_args

from srcli.errors import UsageError

__all__ = [
    "BASE",
    "CONFIGS",
    "JOINS",
    "KERNELS",
    "PAPER",
    "PATCH",
    "SYMMETRIES",
    "Degradation",
    "ModelConfig",
    "ScalePath",
    "require_at_least",
]

SYMMETRIES = 8
"""Ways to turn and mirror a square."""

PATCH = 120
"""Side of a patch in output pixels: the size the paper and every net here is trained on."""

_USUAL_CONTEXT = 16
"""Context around a patch in positions of the highest level: LR pixels on the paths of ``base``,
output pixels in the paper's net. It keeps the seam error of the shipped weights within one 8-bit
level at every factor, with single patches too, where 14 leave two at x4
(``benchmarks/seams.py`` measures it)."""


def require_at_least(low: int, **options: float | None) -> None:
    """Refuse a setting below its smallest value.

    Args:
        low: The smallest value.
        options: Values by the option's name, underscores for dashes; None is not set.

    Raises:
        UsageError: Naming the first option whose value is smaller or not finite.
    """
    for name, value in options.items():
        if value is not None and not (math.isfinite(value) and value >= low):
            option = f"--{name.replace('_', '-')}"
            raise UsageError(f"{option} must be at least {low}, not {value:g}")


_Unit = Literal["convolution", "residual"]
_Down = Literal["max-pool", "convolution"]
_Up = Literal["nearest", "depth-to-space"]
_Join = Literal["before", "first", "last"]
_Output = Literal["relu", "correction"]

JOINS: tuple[str, ...] = get_args(_Join)
"""Where a skip may be added in the decoder."""

_FAMILIES = (
    ("convolution", "max-pool", "nearest"),
    ("residual", "convolution", "depth-to-space"),
)
"""Unit, down and up go together: the paper's kind of net, and srcli's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalePath:
    """How pictures enlarged by one factor go through a net, where not as all others do.

    They have a first and a last convolution of their own, and space-to-depth by the factor itself:
    a position of the highest level then is one LR pixel, and all pixels of LR lie alike in it.
    Everything between is shared with the other factors.
    """

    scale: int
    """The factor, 2 or more; also that of the space-to-depth."""

    encoder: tuple[int, ...]
    """Units of each encoder level that they pass through, the level's first ones."""

    decoder: tuple[int, ...]
    """Units of each decoder level, the level's last ones: what mirrors the encoder's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """The shape of a residual autoencoder.

    Levels are counted from the highest resolution down; the last is the bottom. Every level
    but the bottom has an encoder and a decoder half, joined by an additive skip.

    Raises:
        UsageError: If a value is out of range or the lists do not match.
    """

    stem: int
    """Space-to-depth factor before the first convolution, 1 (none) or more."""

    widths: tuple[int, ...]
    """Channels per level, at least two levels."""

    encoder: tuple[int, ...]
    """Units per encoder level, one number for each level but the bottom."""

    bottom: int
    """Units at the bottom level."""

    decoder: tuple[int, ...]
    """Units per decoder level, in the order of ``widths``: the highest resolution first."""

    unit: _Unit
    """``convolution``: 3x3 and ReLU. ``residual``: x + conv(ReLU(conv(x)))."""

    down: _Down
    """How a level halves its resolution: 2x2 max-pool, or a 2x2 convolution of stride 2
    (that is space-to-depth and a 1x1 convolution in one)."""

    up: _Up
    """How it comes back: nearest neighbour, or a 1x1 convolution and depth-to-space."""

    join: _Join
    """Where a skip is added in the decoder: ``before`` its first unit, after the ``first``
    one (the paper's, as it is read here), or after the ``last``."""

    output: _Output
    """``relu``: the last convolution's ReLU is the picture (the paper).
    ``correction``: it is added to the input (global residual), no ReLU."""

    paths: tuple[ScalePath, ...] = ()
    """For factors that have a path of their own, rising; every other takes ``stem`` and all
    units."""

    symmetric: bool = False
    """Whether the result of a turned or mirrored picture is the result turned or mirrored, but for
    rounding: training keeps the weights so. Channels stand in groups of eight for it."""

    gated: bool = False
    """Whether what a residual unit adds is first multiplied, each value by one and a 1x1
    convolution of the unit's input (pixel attention, Zhao et al. 2020, without the sigmoid)."""

    def __post_init__(self) -> None:
        """Check every field, so that a damaged header cannot build a net."""
        for name, kinds in (
            ("unit", _Unit),
            ("down", _Down),
            ("up", _Up),
            ("join", _Join),
            ("output", _Output),
        ):
            if getattr(self, name) not in get_args(kinds):
                allowed = ", ".join(get_args(kinds))
                raise UsageError(f"{name} must be one of {allowed}, not {getattr(self, name)!r}")
        levels = len(self.widths)
        if levels < 2:
            raise UsageError(f"widths must name at least two levels, not {list(self.widths)}")
        if not len(self.encoder) == len(self.decoder) == levels - 1:
            raise UsageError(
                f"encoder and decoder must name {levels - 1} levels for widths "
                f"{list(self.widths)}, not {list(self.encoder)} and {list(self.decoder)}"
            )
        numbers = (self.stem, *self.widths, *self.encoder, self.bottom, *self.decoder)
        if any(type(n) is not int or not 1 <= n <= 4096 for n in numbers):  # a header may lie
            raise UsageError(f"stem, widths and unit counts must lie in 1..4096: {self.to_json()}")
        if PATCH % self.stride:
            raise UsageError(
                f"the stride {self.stride} of stem {self.stem} and {levels} levels must divide "
                f"the patch size {PATCH}"
            )
        family = (self.unit, self.down, self.up)
        if family not in _FAMILIES:
            known = " or ".join(", ".join(one) for one in _FAMILIES)
            raise UsageError(f"unit, down and up must be {known}, not {', '.join(family)}")
        # A nearest neighbour keeps the width of the level below, so no skip fits it as it is;
        # and without a stem there are no shallow features that a correction could build on.
        if self.up == "nearest" and (self.join == "before" or self.output == "correction"):
            raise UsageError(
                "up nearest needs join first or last and output relu, "
                f"not {self.join} and {self.output}"
            )
        self._check_paths()
        self._check_gates()
        self._check_symmetry()

    def _check_gates(self) -> None:
        if type(self.gated) is not bool:
            raise UsageError(f"gated must be true or false, not {self.gated!r}")
        if self.gated and self.unit != "residual":
            raise UsageError("gated needs residual units")

    def _check_symmetry(self) -> None:
        if type(self.symmetric) is not bool:
            raise UsageError(f"symmetric must be true or false, not {self.symmetric!r}")
        if self.symmetric and self.unit != "residual":
            raise UsageError("symmetric needs residual units")
        if self.symmetric and any(width % SYMMETRIES for width in self.widths):
            raise UsageError(
                f"symmetric needs widths that are multiples of {SYMMETRIES}, not "
                f"{list(self.widths)}"
            )

    def _check_paths(self) -> None:
        if self.paths and self.unit != "residual":
            raise UsageError("paths for scale factors need residual units")
        scales = [path.scale for path in self.paths]
        if any(type(scale) is not int or not 2 <= scale <= 8 for scale in scales):
            raise UsageError(f"the scale of a path must be a whole number of 2..8, not {scales}")
        if scales != sorted(set(scales)):
            raise UsageError(f"paths must name each scale once, rising, not {scales}")
        for path in self.paths:
            for name in ("encoder", "decoder"):
                counts, most = getattr(path, name), getattr(self, name)
                if len(counts) != len(most) or any(
                    type(count) is not int or not 1 <= count <= limit
                    for count, limit in zip(counts, most, strict=False)
                ):
                    raise UsageError(
                        f"the {name} of the path for scale {path.scale} must be 1 or more units, "
                        f"at most {list(most)}, not {list(counts)}"
                    )
            self.at(path.scale)  # its stride, too, must divide a patch

    def at(self, scale: float | None) -> "ModelConfig":
        """Tell the net that pictures enlarged by one factor go through.

        Args:
            scale: The factor; None for one without a path of its own.

        Returns:
            A configuration without paths.
        """
        path = self.path(scale)
        if path is None:
            return replace(self, paths=())
        return replace(self, stem=path.scale, encoder=path.encoder, decoder=path.decoder, paths=())

    def path(self, scale: float | None) -> ScalePath | None:
        """Find the path of a factor; None if it has none of its own."""
        return next((path for path in self.paths if path.scale == scale), None)

    @property
    def common_stride(self) -> int:
        """The stride of all ways through the net: a side that is a multiple of it fits each."""
        return math.lcm(self.stride, *(self.at(path.scale).stride for path in self.paths))

    @property
    def stride(self) -> int:
        """Output pixels per position of the bottom level: sides are multiples of it."""
        return self.stem << (len(self.widths) - 1)

    @property
    def receptive_margin(self) -> int:
        """Context, in output pixels, beyond which no pixel can change a patch.

        Each 3x3 convolution sees one position further, and a position of level ``k`` is
        ``stem * 2**k`` output pixels wide; a block of ``stride`` more covers how positions
        fall inside pooled and space-to-depth cells. A multiple of the stride.
        """
        convolutions = 2 if self.unit == "residual" else 1
        margin = 2 * self.stem  # the stem's or first, and the head's convolution
        for level, (down, up) in enumerate(zip(self.encoder, self.decoder, strict=True)):
            margin += (down + up) * convolutions * self.stem * 2**level
        margin += self.bottom * convolutions * self.stride + self.stride
        return -(-margin // self.stride) * self.stride

    @property
    def usual_margin(self) -> int:
        """Context, in output pixels, that leaves a seam of one 8-bit level at most.

        A multiple of the stride, and never more than :attr:`receptive_margin`.
        """
        margin = -(-_USUAL_CONTEXT * self.stem // self.stride) * self.stride
        return min(margin, self.receptive_margin)

    def to_json(self) -> str:
        """Write the configuration as one line of JSON with sorted keys."""
        values = asdict(self)
        # As files have it that were written before there was any of them.
        for name in ("paths", "symmetric", "gated"):
            if not values[name]:
                del values[name]
        return json.dumps(values, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "ModelConfig":
        """Read what :meth:`to_json` wrote.

        Args:
            text: JSON object with exactly the fields of this class.

        Returns:
            The validated configuration.

        Raises:
            UsageError: If it is not such an object, naming what is wrong.
        """
        try:
            values = json.loads(text)
        except ValueError as error:
            raise UsageError(f"the configuration is not JSON: {error}") from error
        lists = _with_tuples(values, cls, ("widths", "encoder", "decoder"), "configuration")
        paths = lists.get("paths", [])
        if not isinstance(paths, list | tuple):
            raise UsageError(f"paths must be a list, not {paths!r}")
        lists["paths"] = tuple(
            ScalePath(**_with_tuples(path, ScalePath, ("encoder", "decoder"), "path"))
            for path in paths
        )
        return cls(**lists)


def _with_tuples(
    values: object, kind: type[ModelConfig | ScalePath], names: tuple[str, ...], what: str
) -> dict[str, Any]:
    """Check a JSON object's fields, and turn its lists into tuples."""
    known = {field.name for field in fields(kind)}
    needed = {field.name for field in fields(kind) if field.default is MISSING}
    if not isinstance(values, Mapping) or not needed <= set(values) <= known:
        found = sorted(values) if isinstance(values, Mapping) else type(values).__name__
        raise UsageError(f"a {what} has the fields {sorted(known)}, not {found}")
    for name in names:
        if not isinstance(values[name], list):
            raise UsageError(f"{name} must be a list of numbers, not {values[name]!r}")
    return {**values, **{name: tuple(values[name]) for name in names}}


PAPER = ModelConfig(
    stem=1,
    widths=(64, 128, 256),
    encoder=(2, 2),
    bottom=1,
    decoder=(2, 2),
    unit="convolution",
    down="max-pool",
    up="nearest",
    join="first",
    output="relu",
)
"""The source paper's net: 1,110,403 parameters, 4.83 GMAC a patch."""

BASE = ModelConfig(
    stem=3,
    widths=(64, 48),
    encoder=(5,),
    bottom=2,
    decoder=(6,),
    unit="residual",
    down="convolution",
    up="depth-to-space",
    join="before",
    output="correction",
    paths=(
        ScalePath(scale=2, encoder=(2,), decoder=(3,)),
        ScalePath(scale=4, encoder=(5,), decoder=(6,)),
    ),
    symmetric=True,
)
"""The default net: it works at the resolution of LR and below, for x2 (where that is larger) with
half the units of the highest level. All factors but 2, 3 and 4 go as x3 does."""

CONFIGS = {"paper": PAPER, "base": BASE}
"""The configurations that have a name on the command line."""


class _Part(NamedTuple):
    """What a part of a degradation may be."""

    low: int
    high: int
    kind: type[int] | type[float]
    example: str


_PARTS = {
    "blur": _Part(0, 8, float, "blur=0.2..1.5"),
    "noise": _Part(0, 64, float, "noise=0..10"),
    "jpeg": _Part(1, 100, int, "jpeg=30..95"),
}

_SHARE_EXAMPLE = "clean=0.2"

_KERNEL_EXAMPLE = "kernel=bicubic+area"

_ANY_KERNEL = "any"
"""Stands for all of :data:`KERNELS`; what is written down names them, so that a record keeps its
meaning when there are more."""

KERNELS = ("bicubic", "bilinear", "area", "lanczos", "cubic")
"""The filters by which an HR picture may be reduced, plain bicubic first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Degradation:
    """What happens to a picture: blur, the reduction by a kernel, noise, JPEG.

    Blur, noise and JPEG are ranges, ends included, from which every sample's own value is drawn
    uniformly; None leaves the part out. Without any of them, and with the bicubic kernel alone,
    it is plain bicubic.

    Raises:
        UsageError: If a part is no rising range of numbers within its limits, or a kernel is
            unknown or named twice.
    """

    blur: tuple[float, float] | None = None
    """Standard deviation of the Gaussian blur, HR pixels, within 0..8."""

    noise: tuple[float, float] | None = None
    """Standard deviation of the white Gaussian noise, 8-bit levels of the LR picture, 0..64."""

    jpeg: tuple[int, int] | None = None
    """JPEG quality as libjpeg counts it, whole numbers within 1..100."""

    kernel: tuple[str, ...] = KERNELS[:1]
    """Names of :data:`KERNELS`; every sample is reduced by one of them, each as likely as the
    others."""

    clean: float = 0.0
    """Share of the samples that are spared all of it, below 1: plain bicubic."""

    def __post_init__(self) -> None:
        """Check every part, wherever it comes from."""
        for name in _PARTS:
            value = getattr(self, name)
            if value is not None and not _is_range(name, value):
                raise _bad_part(name, value)
        if not _is_kernels(self.kernel):
            raise _bad_kernel(self.kernel)
        if type(self.clean) is not float or not 0 <= self.clean < 1:
            raise _bad_share(self.clean)

    @property
    def is_bicubic(self) -> bool:
        """Whether the bicubic reduction is all there is."""
        ranges = [getattr(self, name) for name in _PARTS]
        return ranges.count(None) == len(ranges) and self.kernel == KERNELS[:1]

    def __str__(self) -> str:
        texts = [_range_text(name, getattr(self, name)) for name in _PARTS]
        if self.kernel != KERNELS[:1]:
            texts.append(f"kernel={'+'.join(self.kernel)}")
        if self.clean and not self.is_bicubic:
            texts.append(f"clean={self.clean!r}")
        return ",".join(filter(None, texts)) or "bicubic"

    @classmethod
    def parse(cls, text: str) -> "Degradation":
        """Read what ``str`` writes.

        Args:
            text: ``bicubic``, or parts separated by commas: a number or a range for each, of
                ``kernel`` names joined by ``+`` or ``any`` for all, of ``clean`` a share.
                Spaces do not matter.

        Returns:
            The validated degradation.

        Raises:
            UsageError: If a part is unknown, given twice, or not what it may be.

        Example:
            >>> str(Degradation.parse("jpeg = 75, blur = 0.2..1.5"))
            'blur=0.2..1.5,jpeg=75'
            >>> str(Degradation.parse("jpeg=30..95,clean=0.2"))
            'jpeg=30..95,clean=0.2'
            >>> str(Degradation.parse("kernel=area+lanczos,noise=3"))
            'noise=3,kernel=area+lanczos'
        """
        if text.strip() == "bicubic":
            return cls()
        parts: dict[str, Any] = {}
        for item in text.split(","):
            name, _, value = (piece.strip() for piece in item.partition("="))
            if name in parts:
                raise UsageError(f"--degradation names {name} twice; give it once")
            parts[name] = _read_part(name, value)
        return cls(**parts)


def _read_part(name: str, text: str) -> object:
    if name in _PARTS:
        return _read_range(name, text)
    if name == "kernel":
        return _read_kernels(text)
    if name == "clean":
        return _read_share(text)
    examples = [part.example for part in _PARTS.values()]
    raise UsageError(
        f"--degradation has no part {name!r}; give bicubic, or some of "
        f"{','.join([*examples, _KERNEL_EXAMPLE, _SHARE_EXAMPLE])}"
    )


def _is_range(name: str, value: object) -> bool:
    part = _PARTS[name]
    return (
        isinstance(value, tuple)
        and len(value) == 2
        and all(type(number) in {int, part.kind} for number in value)
        and part.low <= value[0] <= value[1] <= part.high
    )


def _read_range(name: str, text: str) -> tuple[float, float]:
    first, dots, last = text.partition("..")
    try:
        value = _PARTS[name].kind(first), _PARTS[name].kind(last if dots else first)
    except ValueError:
        raise _bad_part(name, text) from None
    if not _is_range(name, value):
        raise _bad_part(name, text)
    return value


def _is_kernels(value: object) -> bool:
    return (
        isinstance(value, tuple)
        and bool(value)
        and all(type(name) is str and name in KERNELS for name in value)
        and len(set(value)) == len(value)
    )


def _read_kernels(text: str) -> tuple[str, ...]:
    if text == _ANY_KERNEL:
        return KERNELS
    names = tuple(name.strip() for name in text.split("+"))
    if not _is_kernels(names):
        raise _bad_kernel(text)
    return names


def _read_share(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise _bad_share(text) from None


def _range_text(name: str, value: tuple[float, float] | None) -> str:
    if value is None:
        return ""
    first, last = (repr(_PARTS[name].kind(number)).removesuffix(".0") for number in value)
    return f"{name}={first}" if first == last else f"{name}={first}..{last}"


def _bad_kernel(value: object) -> UsageError:
    return UsageError(
        f"--degradation kernel must name some of {'+'.join(KERNELS)}, each once, or "
        f"{_ANY_KERNEL}, not {value!r}; give for example {_KERNEL_EXAMPLE}"
    )


def _bad_share(value: object) -> UsageError:
    return UsageError(
        "--degradation clean must be a share of the samples, at least 0 and below 1, "
        f"not {value!r}; give for example {_SHARE_EXAMPLE}"
    )


def _bad_part(name: str, value: object) -> UsageError:
    part = _PARTS[name]
    numbers = "whole numbers" if part.kind is int else "numbers"
    return UsageError(
        f"--degradation {name} must be a rising range of {numbers} within "
        f"{part.low}..{part.high}, not {value!r}; give for example {part.example}"
    )
