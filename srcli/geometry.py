"""Integer arithmetic of patches along one axis: plain Python, no torch.

Everything here is in output pixels and for one axis; a picture is two of them.
"""

from dataclasses import dataclass
from itertools import pairwise

from srcli.errors import UsageError

__all__ = ["Block", "Span", "output_length", "plan_axis", "step_lengths"]


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
    """What one forward pass makes along an axis."""

    keep: Span
    """The pixels that are kept: neighbouring blocks' ``keep`` touch and never overlap."""

    window: Span
    """The pixels that are computed: ``keep`` with context on both sides, a multiple of the
    stride long, and starting at one, so that a block computes what the whole picture would."""

    @property
    def inner(self) -> Span:
        """``keep``, counted from the start of ``window``."""
        return Span(self.keep.start - self.window.start, self.keep.stop - self.window.start)


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
        UsageError: If ``patch`` is not a positive multiple of ``stride`` or ``overlap`` negative.

    Example:
        >>> [(b.keep.start, b.keep.stop) for b in plan_axis(250, patch=120, overlap=6, stride=6)]
        [(0, 120), (120, 240), (240, 250)]
    """
    if patch < stride or patch % stride:
        raise UsageError(f"--tile must be a multiple of the net's stride {stride}, not {patch}")
    if overlap < 0:
        raise UsageError(f"the overlap must not be negative, it is {overlap}")
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


def step_lengths(length: int, final: int, *, steps: int) -> list[int]:
    """Lengths on the way from ``length`` to ``final`` in ``steps`` equal factors.

    Returns:
        ``steps`` lengths, the last of them ``final``.

    Example:
        >>> step_lengths(10, 160, steps=2)
        [40, 160]
    """
    factor = (final / length) ** (1 / steps)
    return [*(output_length(length, factor**step) for step in range(1, steps)), final]


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
