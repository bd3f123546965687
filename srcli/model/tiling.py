"""A picture through the net, block by block: enlarge, run, cut the context, yield finished rows.

The picture is never enlarged whole: each block's input is the bicubic filter's result for that
block's window alone, which is bit for bit what the whole picture's would be. Nor is the picture
itself needed whole: its rows may arrive as they are decoded or as another step makes them.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from typing import Self

import torch
from torch import Tensor

from srcli.model.rows import Rows
from srcli.ops.resample import AxisWeights, axis_weights, resampled
from srcli.ops.spans import Block, Span

__all__ = ["Grid", "Worker", "enlarge_rows"]

_ROWS_PER_GPU = 2
"""Rows of blocks that a GPU has at a time: one is computed, one is copied to memory."""


@dataclass(frozen=True, slots=True, eq=False)
class Worker:
    """A device that computes blocks, and how it does."""

    device: torch.device

    net: Callable[[Tensor], Tensor]
    """Maps ``(N, C, h, w)`` ``float32`` inputs on the device to results of the same shape."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Grid:
    """Blocks that cover a result."""

    rows: Sequence[Block]
    """Those that cover its height, in ascending order."""

    columns: Sequence[Block]
    """Those that cover its width."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the result."""
        return self.rows[-1].keep.stop, self.columns[-1].keep.stop


def enlarge_rows(
    image: Rows,
    grid: Grid,
    workers: Sequence[Worker],
    batch_size: int,
    finish: Callable[[Tensor], Tensor] = lambda result: result,
) -> Iterator[tuple[Span, Tensor]]:
    """Enlarge a picture and yield its finished rows from top to bottom.

    Args:
        image: The picture's rows.
        grid: The blocks of the result.
        workers: One or more; several take turns at the rows of blocks.
        batch_size: Windows per call of a net.
        finish: Applied to each block's result, pixel by pixel, on the device that computed it.

    Yields:
        The span of finished rows and their pixels, ``(C, rows, width)``, on the CPU, of the dtype
        that ``finish`` returns; by default ``float32``, not clamped.
    """
    if len(workers) == 1 and workers[0].device.type == "cpu":
        for row in grid.rows:
            yield row.keep, _Stripe.of(image, grid, row).computed(workers[0], batch_size, finish)
        return
    count = _ROWS_PER_GPU * len(workers)
    waiting: deque[tuple[Span, Future[Tensor]]] = deque()
    with ThreadPoolExecutor(count, "srcli-blocks") as pool:
        for number, row in enumerate(grid.rows):
            if len(waiting) == count:
                span, future = waiting.popleft()
                yield span, future.result()
            stripe, worker = _Stripe.of(image, grid, row), workers[number % len(workers)]
            waiting.append((row.keep, pool.submit(stripe.computed, worker, batch_size, finish)))
        for span, future in waiting:
            yield span, future.result()


@dataclass(frozen=True, slots=True, eq=False)
class _Stripe:
    """A row of blocks, and the rows of the picture that it needs."""

    part: Tensor
    """``(C, n, W)``."""

    width: int
    """Of the picture."""

    down: AxisWeights
    row: Block
    columns: Sequence[Block]

    @classmethod
    def of(cls, image: Rows, grid: Grid, row: Block) -> Self:
        down = axis_weights(image.size[0], grid.size[0], row.window)
        return cls(image.part(down.first, down.stop), image.size[1], down, row, grid.columns)

    def computed(
        self, worker: Worker, batch_size: int, finish: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """Compute its blocks: ``(C, rows, width)``, on the CPU."""
        part, inner = _to_device(self.part, worker.device), self.row.inner
        band = torch.empty(0)
        for chosen in self._batches(batch_size):
            windows = torch.stack([self._window(part, column) for column in chosen])
            for column, result in zip(chosen, worker.net(windows), strict=True):
                across = column.inner
                done = finish(result[:, inner.start : inner.stop, across.start : across.stop])
                if not band.numel():
                    total = self.columns[-1].keep.stop
                    band = done.new_empty(done.shape[0], len(self.row.keep), total)
                band[:, :, column.keep.start : column.keep.stop] = done
        return _to_cpu(band)

    def _batches(self, batch_size: int) -> Iterator[list[Block]]:
        """Group the columns; only windows of one shape make a batch."""
        for _, group in groupby(self.columns, key=lambda column: len(column.window)):
            same = list(group)
            for start in range(0, len(same), batch_size):
                yield same[start : start + batch_size]

    def _window(self, part: Tensor, column: Block) -> Tensor:
        """Enlarge what one block sees, by the bicubic filter: ``(C, h, w)``."""
        across = axis_weights(self.width, self.columns[-1].keep.stop, column.window)
        return resampled(part[..., across.first : across.stop], self.down, across)


def _to_device(part: Tensor, device: torch.device) -> Tensor:
    """Copy input rows to a device, at their own bit depth."""
    if device.type == "cpu":
        return part
    return part.contiguous().pin_memory().to(device, non_blocking=True)


def _to_cpu(band: Tensor) -> Tensor:
    """Copy a finished band to the CPU; a GPU computes other bands meanwhile."""
    if band.device.type == "cpu":
        return band
    host = torch.empty(band.shape, dtype=band.dtype, pin_memory=True)
    computed = torch.cuda.current_stream(band.device).record_event()
    copying = torch.cuda.Stream(band.device)  # type: ignore[no-untyped-call]
    with torch.cuda.stream(copying):
        copying.wait_event(computed)
        host.copy_(band, non_blocking=True)
        band.record_stream(copying)  # or its memory would be reused by another band too early
    copying.synchronize()
    return host
