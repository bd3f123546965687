"""Frozen, validated shape of the network: plain Python, importable without torch.

The header of every weights file contains the configuration, which is read before any tensor is
built: a file alone is enough to rebuild its network.
"""

import json
import math
from dataclasses import MISSING, asdict, dataclass, fields, replace
from typing import Any

from srcli.errors import UsageError
from srcli.ops.spans import PATCH

__all__ = [
    "BASE",
    "CONFIGS",
    "FAST",
    "PAPER",
    "SYMMETRIES",
    "ModelConfig",
    "ScalePath",
]

SYMMETRIES = 8
"""Orientations of a square: four turns, each mirrored or not."""

_USUAL_CONTEXT = 16
"""Context around a patch in positions of the highest level. It keeps the seams of the shipped
weights within one 8-bit level, where 14 leave two at x4 (``benchmarks/seams.py`` measures it)."""

_LISTS = ("widths", "encoder", "decoder", "paths")

_PAPERS = {"unit": "convolution", "down": "max-pool", "up": "nearest", "output": "relu"}
_KINDS = {
    "first": _PAPERS,
    "last": _PAPERS,
    "before": {
        "unit": "residual",
        "down": "convolution",
        "up": "depth-to-space",
        "output": "correction",
    },
}
"""What a file says beside where skips join: the kinds of layers, which follow from that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalePath:
    """The path through a net of pictures enlarged by one factor, where it is not the common one.

    It has a first and a last convolution of its own, and space-to-depth by the factor itself: a
    position of the highest level then is one LR pixel, and all pixels of LR lie alike in it.
    Everything between is shared with the other factors.
    """

    scale: int
    """The factor, 2 or more; also the factor of the space-to-depth."""

    encoder: tuple[int, ...]
    """Units of each encoder level that are used: the level's first ones."""

    decoder: tuple[int, ...]
    """Units of each decoder level that are used: its last ones, which mirror the encoder's."""


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

    join: str
    """Where a skip is added in the decoder, and so what kind of net it is.

    After the ``first`` unit of a level (the paper's, as it is read here) or after the ``last``: a
    unit is a 3x3 convolution and ReLU, a 2x2 max-pool halves the resolution, nearest neighbour
    brings it back, and the last convolution's ReLU is the picture.

    ``before`` the first (srcli's own): a unit is x + conv(ReLU(conv(x))), a 2x2 convolution of
    stride 2 leads down (that is space-to-depth and a 1x1 convolution in one), a 1x1 convolution and
    depth-to-space up, and the last convolution's result is added to the input, without a ReLU."""

    paths: tuple[ScalePath, ...] = ()
    """Of the factors that have a path of their own, rising; all others take ``stem`` and every
    unit."""

    symmetric: bool = False
    """Whether the result of a turned or mirrored picture is the result turned or mirrored, but for
    rounding. Training keeps the weights symmetric; channels come in groups of eight."""

    def __post_init__(self) -> None:
        """Check every field, so that a damaged header cannot build a net."""
        self._check_levels()
        if type(self.symmetric) is not bool:
            raise UsageError(f"symmetric must be true or false, not {self.symmetric!r}")
        if (self.symmetric or self.paths) and not self.is_residual:
            raise UsageError("symmetric and paths need residual units")
        if self.symmetric and any(width % SYMMETRIES for width in self.widths):
            raise UsageError(
                f"symmetric needs widths that are multiples of {SYMMETRIES}, not "
                f"{list(self.widths)}"
            )
        self._check_paths()

    def _check_levels(self) -> None:
        if str(self.join) not in _KINDS:
            raise UsageError(f"join must be {', '.join(_KINDS)}, not {self.join!r:.80}")
        levels = len(self.widths)
        if levels < 2:
            raise UsageError(f"widths must name at least two levels, not {list(self.widths)}")
        if not len(self.encoder) == len(self.decoder) == levels - 1:
            raise UsageError(
                f"encoder and decoder must name {levels - 1} levels for widths "
                f"{list(self.widths)}, not {list(self.encoder)} and {list(self.decoder)}"
            )
        numbers = (self.stem, *self.widths, *self.encoder, self.bottom, *self.decoder)
        if not all(_is_whole(number, 1, 4096) for number in numbers):
            raise UsageError(f"stem, widths and unit counts must lie in 1..4096: {self.to_json()}")
        if PATCH % self.stride:
            raise UsageError(
                f"the stride {self.stride} of stem {self.stem} and {levels} levels must divide "
                f"the patch size {PATCH}"
            )

    def _check_paths(self) -> None:
        scales = [path.scale for path in self.paths]
        if not all(_is_whole(scale, 2, 8) for scale in scales) or scales != sorted(set(scales)):
            raise UsageError(
                f"paths must name whole scales of 2..8, each once and rising, not {scales}"
            )
        for path in self.paths:
            self.at(path.scale)  # which checks its numbers and its stride

    @property
    def is_residual(self) -> bool:
        """Whether it is a net of residual units, which corrects its input."""
        return self.join == "before"

    def at(self, scale: float | None) -> "ModelConfig":
        """Return the shape, without paths, of the net that pictures enlarged by a factor pass.

        None stands for any factor without a path of its own.
        """
        path = self.path(scale)
        if path is None:
            return replace(self, paths=())
        return replace(self, stem=path.scale, encoder=path.encoder, decoder=path.decoder, paths=())

    def path(self, scale: float | None) -> ScalePath | None:
        """Return the path of a factor; None if it has none of its own."""
        return next((path for path in self.paths if path.scale == scale), None)

    @property
    def common_stride(self) -> int:
        """The least common multiple of all paths' strides: a side that is a multiple fits each."""
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
        convolutions = 2 if self.is_residual else 1
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
        # Left out where unused, as in files that were written before these fields existed.
        unused = {name for name in ("paths", "symmetric") if not getattr(self, name)}
        values = {name: value for name, value in asdict(self).items() if name not in unused}
        return json.dumps(values | _KINDS[self.join], sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "ModelConfig":
        """Parse what :meth:`to_json` wrote: a JSON object of the fields of this class.

        Raises:
            UsageError: If it is not such an object, naming what is wrong.
        """
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"the configuration is not JSON: {error}") from error
        kinds = {}
        if isinstance(values, dict):
            kinds = {name: values.pop(name) for name in _PAPERS if name in values}
        values = _checked(values, cls, "configuration")
        paths = tuple(ScalePath(**_checked(path, ScalePath, "path")) for path in values["paths"])
        config = cls(**values | {"paths": paths})
        known = _KINDS[config.join]
        if known | kinds != known:
            raise UsageError(f"a net of join {config.join} has {known}, not {kinds!r:.80}")
        return config


def _checked(values: object, kind: type[ModelConfig | ScalePath], what: str) -> dict[str, Any]:
    """Return a JSON object as the fields of a class, its lists as tuples."""
    known = {field.name for field in fields(kind)}
    needed = {field.name for field in fields(kind) if field.default is MISSING}
    if not isinstance(values, dict) or not needed <= set(values) <= known:
        found = sorted(values) if isinstance(values, dict) else type(values).__name__
        raise UsageError(f"a {what} has the fields {sorted(known)}, not {found}")
    lists = {name: values.get(name, []) for name in _LISTS if name in known}
    for name, value in lists.items():
        if not isinstance(value, list):
            raise UsageError(f"{name} must be a list, not {value!r}")
    return values | {name: tuple(value) for name, value in lists.items()}


def _is_whole(value: object, low: int, high: int) -> bool:
    """Whether a value of JSON, which may be anything, is a whole number in a range."""
    return type(value) is int and low <= value <= high


PAPER = ModelConfig(
    stem=1,
    widths=(64, 128, 256),
    encoder=(2, 2),
    bottom=1,
    decoder=(2, 2),
    join="first",
)
"""The source paper's net: 1,110,403 parameters, 4.83 GMAC a patch."""

BASE = ModelConfig(
    stem=3,
    widths=(64, 48),
    encoder=(5,),
    bottom=2,
    decoder=(6,),
    join="before",
    paths=(
        ScalePath(scale=2, encoder=(2,), decoder=(3,)),
        ScalePath(scale=4, encoder=(5,), decoder=(6,)),
    ),
    symmetric=True,
)
"""The default net: it works at the resolution of LR and below, for x2 (where that is larger) with
half the units of the highest level. All factors but 2 and 4 take the path of x3."""

FAST = replace(
    BASE,
    widths=(32, 32),
    encoder=(4,),
    bottom=1,
    decoder=(6,),
    paths=(
        ScalePath(scale=2, encoder=(2,), decoder=(2,)),
        ScalePath(scale=4, encoder=(4,), decoder=(6,)),
    ),
)
"""``base`` with half its channels, for old machines and previews: a quarter of its work."""

CONFIGS = {"paper": PAPER, "base": BASE, "fast": FAST}
"""The configurations that have a name on the command line."""
