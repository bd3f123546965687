"""Which steps enlarge a picture, and which blocks of patches each step computes."""

import operator
from collections import Counter
from dataclasses import dataclass
from itertools import accumulate

from srcli.model.config import ModelConfig
from srcli.model.tiling import Grid
from srcli.ops.spans import PATCH, Block, plan_axis, steps_to

__all__ = ["Layout", "Step"]


@dataclass(frozen=True, slots=True)
class Step:
    """One enlargement by the net."""

    size: tuple[int, int]
    """Height and width of its result."""

    scale: float
    """The trained factor whose path through the net it takes; ``size`` may differ by a pixel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Steps, blocks and patches of one net. All sizes are height and width in pixels.

    Raises:
        UsageError: If the patch size is not a multiple of the stride of every path.
    """

    config: ModelConfig

    scales: tuple[float, ...]
    """The factors that the net was trained for."""

    patch: int = PATCH
    """Side of a patch in output pixels."""

    overlap: int | None = None
    """Context around a patch in output pixels; None: the usual one."""

    def __post_init__(self) -> None:
        """Check the patch size."""
        plan_axis(1, patch=self.patch, overlap=0, stride=self.config.common_stride)

    def steps(self, source: tuple[int, int], size: tuple[int, int]) -> list[Step]:
        """List what the net computes one after the other; the last is of ``size`` or larger.

        A net works best where the pixels of LR lie in its input as they did in training. On eight
        images of Set14 ``base`` has 28.63 dB at x2.5, and 29.81 where it enlarges by 3 and the
        result is reduced; at x6, two steps of 2.45 have 24.64 dB, 3 and 2 have 25.46. A net trained
        for a single factor takes that again, however much work it is: ``paper`` at x4 has 22.34 dB
        on the middles of 20 photographs by two steps of 2, 25.09 by two of 3; bicubic has 24.22.

        Args:
            source: Size of the picture.
            size: Size of the result, neither side below the picture's.

        Returns:
            No step where ``size`` is that of the picture.
        """
        if size == source:
            return []
        pairs = list(zip(source, size, strict=True))
        # A result that is a pixel larger or smaller still has its pixels where they belong.
        factor = max(1.0, *((after - 1) / before for before, after in pairs))
        scales = steps_to(factor, self.scales)
        products = accumulate(scales, operator.mul)
        *sizes, last = [(round(source[0] * one), round(source[1] * one)) for one in products]
        is_near = all(abs(one - other) <= 1 for one, other in zip(last, size, strict=True))
        sizes.append(size if is_near else (max(last[0], size[0]), max(last[1], size[1])))
        return [Step(*step) for step in zip(sizes, scales, strict=True)]

    def blocks(self, length: int, fuse: int, scale: float | None) -> list[Block]:
        """Cover an axis with blocks of up to ``fuse`` patches, for the path of one factor."""
        config = self.config.at(scale)
        overlap = config.usual_margin
        if self.overlap is not None:
            # More context than the receptive field cannot change a pixel, only cost time.
            overlap = min(self.overlap, config.receptive_margin)
        return plan_axis(length, patch=self.patch, overlap=overlap, stride=config.stride, fuse=fuse)

    def grid(self, step: Step, fuse: int, start: int = 0) -> Grid:
        """Cover a step's result from row ``start`` on with blocks of up to ``fuse`` patches."""
        height, width = step.size
        rows = self.blocks(height - start, fuse, step.scale)
        return Grid(
            rows=[block.shifted(start) for block in rows],
            columns=self.blocks(width, fuse, step.scale),
        )

    def patches(self, source: tuple[int, int], size: tuple[int, int]) -> int:
        """Count the patches of all steps; what blocks compute as context is not counted."""
        return sum(
            -(-step.size[0] // self.patch) * -(-step.size[1] // self.patch)
            for step in self.steps(source, size)
        )

    def windows(self, step: Step, fuse: int) -> Counter[int]:
        """Count the windows of a step by their area in pixels, context included."""
        grid = self.grid(step, fuse)
        return Counter(
            len(row.window) * len(column.window) for row in grid.rows for column in grid.columns
        )

    def band_rows(self, height: int, fuse: int) -> int:
        """Count the rows of the largest band of a result of so many rows."""
        # The blocks' edges follow from the patch size alone, whichever path they take.
        return max(len(block.keep) for block in self.blocks(height, fuse, None))
