"""Rows of a picture that arrive from top to bottom, of which only those still needed are held."""

from collections.abc import Callable, Iterable, Iterator
from typing import Self

import torch
from torch import Tensor

from srcli.ops.color import dequantize
from srcli.ops.resample import axis_weights, bicubic
from srcli.ops.spans import Span

__all__ = ["SLICE_ROWS", "Rows", "enlarged_by_filter", "reduced", "unchanged"]

SLICE_ROWS = 64
"""Rows that are filtered at a time where the net takes no part."""


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
