"""A picture through the net, block by block: enlarge, run, cut the context, hand on finished rows.

Pure tensors. The picture is never enlarged whole: each block's input is the bicubic filter's
result for that block's window alone, which is bit for bit what the whole picture's would be. Nor
need it ever be whole itself: its rows may come as they are decoded, or as another net makes them.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from typing import Self

import torch
from torch import Tensor

from srcli.ops.resample import AxisWeights, axis_weights, resampled
from srcli.ops.spans import Block, Span

__all__ = ["Grid", "Place", "Rows", "enlarge_rows"]


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
        """See a picture ``(C, H, W)`` that is in memory as rows; nothing is copied."""
        channels, height, width = image.shape
        return cls([image], (channels, height, width))

    def part(self, first: int, stop: int) -> Tensor:
        """Give the rows from ``first`` to ``stop``, and forget what is above them.

        Args:
            first: No row above that of an earlier call.
            stop: One behind the last row.

        Returns:
            ``(C, stop - first, W)``.

        Raises:
            ValueError: If there are fewer rows than were announced, or forgotten ones are asked
                for: a bug of the caller.
        """
        if first < self._first:
            raise ValueError(f"row {first} is forgotten: the first one held is {self._first}")
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
        # A generator that has failed is over: whoever asks again is to hear the same.
        if self._failure is not None:
            raise self._failure
        try:
            return next(self._bands)
        except StopIteration:
            raise ValueError(f"the picture ends after {self._stop} rows") from None
        except BaseException as error:
            self._failure = error
            raise


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """Where blocks are computed, and how."""

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


_IN_FLIGHT = 2
"""Rows of blocks that a GPU has at a time: one is computed, one on its way to memory."""


def enlarge_rows(
    image: Rows,
    grid: Grid,
    places: Sequence[Place],
    batch_size: int,
    finish: Callable[[Tensor], Tensor] = lambda result: result,
) -> Iterator[tuple[Span, Tensor]]:
    """Enlarge a picture and yield its finished rows from top to bottom.

    Args:
        image: The picture's rows.
        grid: The blocks of the result.
        places: One or more; several share the rows of blocks.
        batch_size: Windows per call of a net.
        finish: What is done to each block's result, pixel by pixel, where it was computed.

    Yields:
        The span of finished rows and their pixels, ``(C, rows, width)``, on the CPU, of the dtype
        that ``finish`` returns; by default ``float32``, not clamped.
    """
    if len(places) == 1 and places[0].device.type == "cpu":
        for row in grid.rows:
            yield row.keep, _Stripe.of(image, grid, row).through(places[0], batch_size, finish)
        return
    count = _IN_FLIGHT * len(places)
    waiting: deque[tuple[Span, Future[Tensor]]] = deque()
    with ThreadPoolExecutor(count, "srcli-blocks") as pool:
        for number, row in enumerate(grid.rows):
            if len(waiting) == count:
                span, future = waiting.popleft()
                yield span, future.result()
            stripe, place = _Stripe.of(image, grid, row), places[number % len(places)]
            waiting.append((row.keep, pool.submit(stripe.through, place, batch_size, finish)))
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

    def through(self, place: Place, batch_size: int, finish: Callable[[Tensor], Tensor]) -> Tensor:
        """Compute its blocks: ``(C, rows, width)``, on the CPU."""
        part, inner = _sent(self.part, place.device), self.row.inner
        band = torch.empty(0)
        for chosen in self._batches(batch_size):
            windows = torch.stack([self._window(part, column) for column in chosen])
            for column, result in zip(chosen, place.net(windows), strict=True):
                across = column.inner
                done = finish(result[:, inner.start : inner.stop, across.start : across.stop])
                if not band.numel():
                    total = self.columns[-1].keep.stop
                    band = done.new_empty(done.shape[0], len(self.row.keep), total)
                band[:, :, column.keep.start : column.keep.stop] = done
        return _fetched(band)

    def _batches(self, batch_size: int) -> Iterator[list[Block]]:
        """Part the columns; only windows of one shape make a batch."""
        for _, group in groupby(self.columns, key=lambda column: len(column.window)):
            same = list(group)
            for start in range(0, len(same), batch_size):
                yield same[start : start + batch_size]

    def _window(self, part: Tensor, column: Block) -> Tensor:
        """Enlarge what one block sees, by the bicubic filter: ``(C, h, w)``."""
        across = axis_weights(self.width, self.columns[-1].keep.stop, column.window)
        return resampled(part[..., across.first : across.stop], self.down, across)


def _sent(part: Tensor, device: torch.device) -> Tensor:
    """Bring input rows to where they are needed, at their own depth."""
    if device.type == "cpu":
        return part
    return part.contiguous().pin_memory().to(device, non_blocking=True)


def _fetched(band: Tensor) -> Tensor:
    """Bring a finished band to the CPU; a GPU goes on with other bands meanwhile."""
    if band.device.type == "cpu":
        return band
    host = torch.empty(band.shape, dtype=band.dtype, pin_memory=True)
    computed = torch.cuda.current_stream(band.device).record_event()
    beside = torch.cuda.Stream(band.device)  # type: ignore[no-untyped-call]
    with torch.cuda.stream(beside):
        beside.wait_event(computed)
        host.copy_(band, non_blocking=True)
        band.record_stream(beside)  # or its memory would be given to another band too early
    beside.synchronize()
    return host
