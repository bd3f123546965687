"""Integer arithmetic of sizes and patches: plain Python, no torch.

All but :class:`TargetSize` is in output pixels and for one axis; a picture is two of them.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Final, Self

from srcli.errors import UsageError

__all__ = [
    "MAX_SCALE",
    "PATCH",
    "Block",
    "Span",
    "TargetSize",
    "output_length",
    "plan_axis",
    "steps_to",
]

MAX_SCALE: Final = 16.0
"""The largest factor: beyond it a result has too little to do with its input."""

PATCH: Final = 120
"""Side of a patch in output pixels: the size the paper and every net here is trained on."""

_LONGEST_SIDE: Final = 1_000_000
"""Pixels: the longest side that may be asked for, beyond what any format or memory holds."""

_SIZE: Final = re.compile(r"\s*(>=)?\s*([0-9]{0,9})[xX]([0-9]{0,9})\s*")


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """Half-open run of pixels, ``start`` to ``stop``; it may reach outside the picture."""

    start: int
    stop: int

    def __post_init__(self) -> None:
        """Refuse an empty or backward span: it is a bug of the caller."""
        if self.start >= self.stop:
            raise ValueError(f"a span runs forward, not {self.start} to {self.stop}")

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class Block:
    """What one forward pass computes along an axis."""

    keep: Span
    """The pixels that are kept; those of neighbouring blocks touch and never overlap."""

    window: Span
    """The pixels that are computed: ``keep`` with context on both sides. Its start and its length
    are multiples of the stride, so that a block computes what the whole picture would."""

    @property
    def inner(self) -> Span:
        """``keep``, counted from the start of ``window``."""
        return Span(self.keep.start - self.window.start, self.keep.stop - self.window.start)

    def shifted(self, offset: int) -> "Block":
        """The same block ``offset`` pixels further on."""
        spans = (Span(span.start + offset, span.stop + offset) for span in (self.keep, self.window))
        return Block(*spans)


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetSize:
    """The size asked for a result, whatever the size of its input: one side or both."""

    width: int | None = None
    """Pixels across; ``None`` where the height alone decides."""

    height: int | None = None
    """Pixels down; ``None`` where the width alone decides."""

    cover: bool = False
    """Whether the sides are the least that a result has, instead of the most."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``1920x``, ``x1080``, ``1920x1080`` (fit inside) or ``>=3840x2160`` (cover).

        Raises:
            UsageError: If the text is none of these, or a side is out of 1..1,000,000.

        Example:
            >>> TargetSize.parse(">=3840x2160").of(1000, 1000)
            (3840, 3840)
        """
        match = _SIZE.fullmatch(text)
        if match is None or not (match[2] or match[3]):
            raise UsageError(
                f"--size {text!r} is not understood: use 1920x (width), x1080 (height), "
                "1920x1080 (fit inside) or '>=3840x2160' (cover)"
            )
        width, height = (int(side) if side else None for side in match.groups()[1:])
        if not all(side is None or 1 <= side <= _LONGEST_SIDE for side in (width, height)):
            raise UsageError(f"--size {text!r}: choose sides of 1 to {_LONGEST_SIDE} pixels")
        return cls(width=width, height=height, cover=match[1] is not None)

    def __str__(self) -> str:
        return f"{'>=' if self.cover else ''}{self.width or ''}x{self.height or ''}"

    def of(self, width: int, height: int) -> tuple[int, int]:
        """Return width and height of the result of one picture, pixels.

        The aspect is kept. The limiting side is exactly as given, the other is rounded half up.
        Images already that large keep their size.

        Example:
            >>> TargetSize.parse("1920x1080").of(400, 300)
            (1440, 1080)
        """
        factor = self.factor(width, height)
        return int(width * factor + Fraction(1, 2)), int(height * factor + Fraction(1, 2))

    def factor(self, width: int, height: int) -> Fraction:
        """Return the factor by which one picture is enlarged: at least 1, without a limit."""
        pairs = ((self.width, width), (self.height, height))
        ratios = [Fraction(asked, given) for asked, given in pairs if asked is not None]
        return max(Fraction(1), max(ratios) if self.cover else min(ratios))


def plan_axis(length: int, *, patch: int, overlap: int, stride: int, fuse: int = 1) -> list[Block]:
    """Cover an axis with a grid of patches, fused into blocks of up to ``fuse`` patches.

    The grid starts at 0 and its cells are ``patch`` long; the last may be cut short by the
    picture. Fused blocks share the cells evenly, so that no block is a sliver.

    Args:
        length: Pixels along the axis, at least 1.
        patch: Pixels per patch, a multiple of ``stride``.
        overlap: Context on each side; rounded up to a multiple of ``stride``.
        stride: The net's stride.
        fuse: Patches per block, at most.

    Returns:
        The blocks in ascending order.

    Raises:
        UsageError: If ``patch`` is not a positive multiple of ``stride``.

    Example:
        >>> [(b.keep.start, b.keep.stop) for b in plan_axis(250, patch=120, overlap=6, stride=6)]
        [(0, 120), (120, 240), (240, 250)]
    """
    if patch < stride or patch % stride:
        raise UsageError(f"--tile must be a multiple of the net's stride {stride}, not {patch}")
    margin = _round_up(overlap, stride)
    cells = -(-length // patch)
    count = -(-cells // fuse)
    edges = [cells * index // count * patch for index in range(count)] + [length]
    return [
        Block(
            keep=Span(start, stop),
            window=Span(start - margin, start + _round_up(stop - start, stride) + margin),
        )
        for start, stop in pairwise(edges)
    ]


def output_length(length: int, scale: float) -> int:
    """Round an enlarged side to whole pixels, half up; at least 1.

    Example:
        >>> output_length(5, 1.5)
        8
    """
    return max(1, int(length * scale + 0.5))


def steps_to(factor: float, trained: Sequence[float]) -> tuple[float, ...]:
    """Compose a factor of those that a net was trained for.

    As few steps as possible, and of these the ones whose product exceeds the factor least.

    Args:
        factor: What the product must at least be.
        trained: Factors above 1.

    Returns:
        The steps, the largest first.

    Example:
        >>> steps_to(2.5, (2, 3, 4)), steps_to(6, (2, 3, 4)), steps_to(16, (2, 3, 4))
        ((3,), (3, 2), (4, 4))
    """
    largest = max(trained)
    count = max(1, math.ceil(math.log(factor) / math.log(largest) - 1e-9))
    steps: list[float] = []
    for left in reversed(range(count)):
        needed = factor * (1 - 1e-9) / (math.prod(steps) * largest**left)
        steps.append(min((one for one in trained if one >= needed), default=largest))
    return tuple(sorted(steps, reverse=True))


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
