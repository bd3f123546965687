"""Pictures that come from top to bottom, a few rows at a time, and are never held whole."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import chain
from typing import Final, cast

import numpy as np

from srcli.imaging.pictures import Levels, Picture, interleaved

_BAND_BYTES: Final = 1 << 22


def part_of(picture: Picture, rows: slice) -> Picture:
    """Cut rows out of a picture, without copying them."""
    alpha = None if picture.alpha is None else picture.alpha[rows]
    return replace(picture, pixels=picture.pixels[rows], alpha=alpha)


class Rows:
    """The rows of one picture, which can be gone through once."""

    def __init__(
        self,
        bands: Iterable[Picture],
        *,
        height: int,
        fit: Callable[[Picture], Picture] = lambda picture: picture,
    ) -> None:
        """Ask for the first of the bands.

        Args:
            bands: Full-width parts of the picture from top to bottom, of one kind, at least one.
            height: Rows of the whole picture.
            fit: What to make of each band; pixel by pixel, so that the cuts do not matter.
        """
        self.height, self._fit, rest = height, fit, iter(bands)
        first = next(rest)
        pixels = np.broadcast_to(first.pixels[:1].copy(), (height, *first.pixels.shape[1:]))
        alpha = first.alpha
        if alpha is not None:
            alpha = cast("Levels", np.broadcast_to(alpha[:1].copy(), (height, first.width, 1)))
        self.raw = replace(first, pixels=cast("Levels", pixels), alpha=alpha)
        """The first row as it came, as often as the picture has rows, in the memory of one.

        It has the size, the kind and the metadata of the whole: EXIF and XMP state the size."""

        self.like = fit(part_of(self.raw, slice(1)))
        """The first row, fitted."""

        self._bands = chain([first], rest)  # which forgets the first, when the second is wanted

    @classmethod
    def of(cls, picture: Picture, *, fit: Callable[[Picture], Picture]) -> "Rows":
        """Take the rows of a picture that is there."""
        step = max(1, _BAND_BYTES // picture.pixels[0].nbytes)
        tops = range(0, picture.height, step)
        bands = (part_of(picture, slice(top, top + step)) for top in tops)
        return cls(bands, height=picture.height, fit=fit)

    @property
    def width(self) -> int:
        """Columns, in pixels."""
        return self.like.width

    @property
    def channels(self) -> int:
        """Samples of a pixel, its opacity included."""
        return int(self.like.pixels.shape[2]) + (self.like.alpha is not None)

    @property
    def itemsize(self) -> int:
        """Bytes of a sample."""
        return self.like.pixels.itemsize

    @property
    def row_bytes(self) -> int:
        """Bytes of a row, its opacity included."""
        return self.width * self.channels * self.itemsize

    def levels(self) -> Iterator[Levels]:
        """Give the bands, fitted, with the opacity behind the other channels, C-contiguous."""
        for band in self._bands:
            yield interleaved(self._fit(band))
            del band  # it may be large

    def whole(self) -> Picture:
        """Collect all rows, as they came."""
        alpha = None if self.raw.alpha is None else self.raw.alpha.copy()
        whole = replace(self.raw, pixels=self.raw.pixels.copy(), alpha=alpha)
        top = 0
        for band in self._bands:
            whole.pixels[top : top + band.height] = band.pixels
            if alpha is not None and band.alpha is not None:
                alpha[top : top + band.height] = band.alpha
            top += band.height
            del band  # it may be large
        return whole
