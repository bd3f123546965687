"""A picture through the net, patch by patch: which steps, which blocks, and their computation.

The picture is never enlarged whole: each block's input is the bicubic filter's result for that
block's window alone, which is bit for bit what the whole picture's would be. Nor is the picture
itself needed whole: its rows may arrive as they are decoded or as another step makes them.
"""

import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from typing import Self

import torch
from torch import Tensor

from srcli.model.config import ModelConfig
from srcli.ops.color import dequantize
from srcli.ops.resample import axis_weights, bicubic, resampled
from srcli.ops.spans import PATCH, Block, Span, plan_axis, steps_to

__all__ = [
    "SLICE_ROWS",
    "Grid",
    "Layout",
    "Rows",
    "Step",
    "enlarge_rows",
    "enlarged_by_filter",
    "reduced",
    "unchanged",
]


SLICE_ROWS = 64
"""Rows that are filtered at a time where the net takes no part."""


@dataclass(frozen=True, slots=True)
class Step:
    """One enlargement by the net."""

    size: tuple[int, int]
    """Height and width of its result."""

    scale: float
    """The trained factor whose path through the net it takes; ``size`` may differ by a pixel."""


@dataclass(frozen=True, slots=True)
class Grid:
    """Blocks that cover a result: those along its height and along its width, in order."""

    rows: Sequence[Block]
    columns: Sequence[Block]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the result."""
        return self.rows[-1].keep.stop, self.columns[-1].keep.stop

    @property
    def area(self) -> int:
        """Pixels of all windows, context included: what the net computes."""
        return sum(len(row.window) for row in self.rows) * sum(
            len(column.window) for column in self.columns
        )


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
        result is reduced; at x6, two steps of 2.45 have 24.64 dB, 3 and 2 have 25.46.

        There is none where ``size`` is that of the picture; neither side may be below it.
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

    def grid(self, step: Step, fuse: int, start: int = 0) -> Grid:
        """Cover a step's result from row ``start`` on with blocks of up to ``fuse`` patches."""
        rows = self._blocks(step.size[0] - start, fuse, step.scale)
        columns = self._blocks(step.size[1], fuse, step.scale)
        return Grid([block.shifted(start) for block in rows], columns)

    def _blocks(self, length: int, fuse: int, scale: float | None) -> list[Block]:
        config = self.config.at(scale)
        overlap = config.usual_margin
        if self.overlap is not None:
            # More context than the receptive field cannot change a pixel, only cost time.
            overlap = min(self.overlap, config.receptive_margin)
        return plan_axis(length, patch=self.patch, overlap=overlap, stride=config.stride, fuse=fuse)

    def patches(self, source: tuple[int, int], size: tuple[int, int]) -> int:
        """Count the patches of all steps; what blocks compute as context is not counted."""
        return sum(
            -(-step.size[0] // self.patch) * -(-step.size[1] // self.patch)
            for step in self.steps(source, size)
        )

    def band_rows(self, height: int, fuse: int) -> int:
        """Count the rows of the largest band of a result of so many rows."""
        # The blocks' edges follow from the patch size alone, whichever path they take.
        return max(len(block.keep) for block in self._blocks(height, fuse, None))


class Rows:
    """The rows of a picture, of which only those still needed are held.

    Args:
        bands: ``(C, n, W)`` each, from top to bottom; integers or floating point in [0, 1].
        shape: Channels, height and width of the whole picture.
    """

    def __init__(self, bands: Iterable[Tensor], shape: tuple[int, int, int]) -> None:
        self._bands = iter(bands)
        self._held: list[Tensor] = []
        self._first = self._stop = 0
        self._failure: BaseException | None = None
        self.channels, *self.size = shape

    @classmethod
    def of(cls, image: Tensor) -> Self:
        """View a picture ``(C, H, W)`` that is in memory as rows; nothing is copied."""
        channels, height, width = image.shape
        return cls([image], (channels, height, width))

    def part(self, first: int, stop: int) -> Tensor:
        """Return the rows from ``first`` to ``stop``, ``(C, n, W)``, and release those above.

        Raises:
            ValueError: If there are fewer rows than announced, or released ones are asked for: a
                bug of the caller.
        """
        if first < self._first:
            raise ValueError(f"row {first} has been released: the first one held is {self._first}")
        while self._stop < stop:
            band = self._next()
            self._held.append(band)
            self._stop += band.shape[-2]
            # Joined once for all that is needed; what is above is not even held until then.
            while len(self._held) > 1 and self._first + self._held[0].shape[-2] <= first:
                self._first += self._held.pop(0).shape[-2]
        whole = self._held[0] if len(self._held) == 1 else torch.cat(self._held, -2)
        self._held = [whole[..., first - self._first :, :]]
        self._first = first
        return self._held[0][..., : stop - first, :]

    def _next(self) -> Tensor:
        # A generator that has failed is exhausted: a second caller must see the same error.
        if self._failure is not None:
            raise self._failure
        try:
            return next(self._bands)
        except StopIteration:
            raise ValueError(f"the picture ends after {self._stop} rows") from None
        except BaseException as error:
            self._failure = error
            raise


def enlarge_rows(
    image: Rows,
    grid: Grid,
    net: Callable[[Tensor], Tensor],
    device: torch.device,
    *,
    batch_size: int,
    finish: Callable[[Tensor], Tensor],
) -> Iterator[tuple[Span, Tensor]]:
    """Enlarge a picture and yield its finished rows from top to bottom.

    Args:
        image: The picture's rows.
        grid: The blocks of the result.
        net: Maps ``(N, C, h, w)`` ``float32`` windows on the device to results of that shape.
        device: Where windows are made.
        batch_size: Windows per call of the net.
        finish: Applied to each block's result, pixel by pixel, on the device.

    Yields:
        The span of finished rows and their pixels, ``(C, rows, width)``, on the CPU, of the dtype
        that ``finish`` returns.
    """
    height, width = grid.size
    for row in grid.rows:
        down = axis_weights(image.size[0], height, row.window)
        part = image.part(down.first, down.stop).to(device)
        band = torch.empty(0)
        for columns in _batches(grid.columns, batch_size):
            across = [axis_weights(part.shape[-1], width, column.window) for column in columns]
            windows = torch.stack(
                [resampled(part[..., one.first : one.stop], down, one) for one in across]
            )
            for column, result in zip(columns, net(windows), strict=True):
                inside = (slice(block.inner.start, block.inner.stop) for block in (row, column))
                done = finish(result[:, *inside])
                if not band.numel():
                    band = done.new_empty(*done.shape[:2], width)
                band[:, :, column.keep.start : column.keep.stop] = done
        yield row.keep, band.cpu()


def _batches(columns: Sequence[Block], batch_size: int) -> Iterator[list[Block]]:
    """Group the blocks of a row; only windows of one shape make a batch."""
    for _, group in groupby(columns, key=lambda column: len(column.window)):
        same = list(group)
        for start in range(0, len(same), batch_size):
            yield same[start : start + batch_size]


def unchanged(rows: Rows, finish: Callable[[Tensor], Tensor]) -> Iterator[tuple[Span, Tensor]]:
    """Yield rows at their own size, a few at a time: their span and what ``finish`` returns."""
    for span in _slices(rows.size[0]):
        yield span, finish(dequantize(rows.part(span.start, span.stop)))


def enlarged_by_filter(
    image: Tensor, size: tuple[int, int], span: Span, finish: Callable[[Tensor], Tensor]
) -> Tensor:
    """Enlarge ``(C, H, W)`` by the bicubic filter alone, for what is no photograph (alpha).

    Args:
        image: The whole picture.
        size: Height and width of the whole result.
        span: The rows of the result that are wanted.
        finish: Applied to some rows at a time, pixel by pixel.
    """
    across = Span(0, size[1])
    parts = (Span(span.start + one.start, span.start + one.stop) for one in _slices(len(span)))
    return torch.cat([finish(bicubic(image, size, (part, across))) for part in parts], -2)


def reduced(
    bands: Iterator[tuple[Span, Tensor]], source: tuple[int, int], size: tuple[int, int]
) -> Iterator[tuple[Span, Tensor]]:
    """Reduce rows by the bicubic filter as they arrive.

    Args:
        bands: Spans of rows and their pixels ``(C, n, W)``, floating point, from top to bottom.
        source: Height and width of the whole picture that they are of.
        size: Height and width of the result.

    Yields:
        Spans of rows of the result and ``(C, rows, width)``.
    """
    across = axis_weights(source[1], size[1], Span(0, size[1]))
    held, first, stop = torch.empty(0), 0, 0  # reduced columns of the rows first to stop
    for wanted in _slices(size[0]):
        down = axis_weights(source[0], size[0], wanted)
        while stop < down.stop:
            span, band = next(bands)
            narrow = across.apply(band.mT.contiguous()).mT
            held = torch.cat([held[:, down.first - first :], narrow], 1) if stop else narrow
            first, stop = (down.first if stop else 0), span.stop
        yield wanted, down.apply(held[:, down.first - first : down.stop - first].contiguous())


def _slices(height: int) -> Iterator[Span]:
    """Cut rows into spans few enough that they may become float."""
    for start in range(0, height, SLICE_ROWS):
        yield Span(start, min(start + SLICE_ROWS, height))
