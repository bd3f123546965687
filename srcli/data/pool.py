"""The images of all data sets as one list, read by place, and the parts it is split into."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from srcli.data import celeba, stl10
from srcli.data.choices import Splitting
from srcli.data.folders import Pairs
from srcli.data.sampling import derive_seed
from srcli.data.sources import Source, open_source
from srcli.ops.arrays import planes
from srcli.ops.color import dequantize, quantize
from srcli.ops.resample import bicubic
from srcli.ops.spans import PATCH

__all__ = ["Pool", "Splits", "open_pool", "split"]

_KEEP_SIDE = 1024
"""Images larger than this keep one crop of it, chosen by seed: a bound on memory."""

_PAPER_TEST, _PAPER_TRAIN = 4_000, 86_799
"""Images that the source paper drew for test and training from CelebA and STL-10 together."""


class Pool:
    """Images of one or more sources, as one list: all of them, or those that are chosen.

    The kept crop of a very large image follows from the seed and the image's name.
    """

    def __init__(self, sources: Sequence[Source], seed: int) -> None:
        self._images = [(source, index) for source in sources for index in range(len(source))]
        self._seed = seed
        self.total = len(self._images)
        """Images of all sources, chosen or not."""

    def __len__(self) -> int:
        return len(self._images)

    def only(self, places: Iterable[int]) -> "Pool":
        """Narrow the list to the images at ``places``."""
        narrowed = Pool([], self._seed)
        narrowed._images = [self._images[place] for place in places]
        narrowed.total = self.total
        return narrowed

    def limited(self, limit: int | None) -> "Pool":
        """Narrow the list to at most ``limit`` images, chosen by seed, in their order."""
        if limit is None or limit >= len(self):
            return self
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(self._seed))
        return self.only(sorted(order[:limit].tolist()))

    def key(self, place: int) -> str:
        """Name an image: the same wherever its source lies."""
        source, index = self._images[place]
        return source.key(index)

    def label(self, place: int) -> str:
        """Say where an image is, for messages."""
        source, index = self._images[place]
        return source.label(index)

    def shared(self, other: "Pool") -> list[str]:
        """List the images that another pool has too: a folder may be given twice."""
        places = range(len(other))
        names = {other.key(place) for place in places}
        labels = {Path(other.label(place)).absolute() for place in places}
        own = [self.label(place) for place in range(len(self)) if self.key(place) in names]
        return [label for label in own if Path(label).absolute() in labels]

    def fingerprint(self) -> str:
        """Hash the images' names in their order: another list draws another run."""
        digest = hashlib.blake2b(digest_size=8)
        for place in range(len(self)):
            digest.update(f"{self.key(place)}\n".encode(errors="surrogatepass"))
        return digest.hexdigest()

    def size(self, place: int) -> tuple[int, int]:
        """Return height and width of what :meth:`read` returns, from the header alone."""
        source, index = self._images[place]
        width, height = source.size(index)
        return _kept(height, width, _grid(source))[1]

    def read(self, place: int) -> Tensor:
        """Decode an image to ``(3, H, W)`` ``uint8``, both sides a patch at least.

        Raises:
            ImageError: If it is damaged.
        """
        source, index = self._images[place]
        values = _of_8_bits(source.read(index))
        height, width = values.shape[1:]
        window, size = _kept(height, width, _grid(source))
        top, left = self._corner(source, index, (height, width), window)
        values = values[:, top : top + window[0], left : left + window[1]]
        if size != window:
            values = quantize(bicubic(values, size))
        return values.expand(3, -1, -1).contiguous()

    def has_low(self, place: int) -> bool:
        """Whether an image has LR images of its own."""
        return isinstance(self._images[place][0], Pairs)

    @property
    def has_pairs(self) -> bool:
        """Whether any image of the union has LR images of its own."""
        return any(isinstance(source, Pairs) for source, _ in self._images)

    def read_low(self, place: int, scale: float) -> Tensor:
        """Decode what LR has of what :meth:`read` returns: ``(3, h, w)`` ``uint8``.

        Raises:
            DataError: If it is damaged.
            ImageError: If the header of HR is.
        """
        source, index = self._images[place]
        assert isinstance(source, Pairs)
        width, height = source.size(index)
        window, _ = _kept(height, width, source.grid)
        corner = self._corner(source, index, (height, width), window)
        values = _of_8_bits(source.read_low(index, scale))
        for axis, at, side in zip((1, 2), corner, window, strict=True):
            values = values.narrow(axis, int(at // scale), int(side // scale))
        return values.expand(3, -1, -1).contiguous()

    def _corner(
        self, source: Source, index: int, size: tuple[int, int], window: tuple[int, int]
    ) -> tuple[int, int]:
        """Return row and column where the kept window of an image begins."""
        if window == size:
            return 0, 0
        generator = torch.Generator().manual_seed(derive_seed(self._seed, source.key(index)))
        top, left = torch.rand(2, generator=generator).tolist()
        grid = _grid(source)
        down, across = ((side - kept) // grid + 1 for side, kept in zip(size, window, strict=True))
        return int(top * down) * grid, int(left * across) * grid


class Splits(NamedTuple):
    """A union of images, parted by seed."""

    train: Pool
    evaluation: Pool
    """What is evaluated on during training; may be empty."""

    test: Pool
    """What training never looks at; empty but for the paper's split."""


def open_pool(
    names: Sequence[str],
    data_dir: Path,
    seed: int,
    notice: Callable[[str], None] = lambda _: None,
    scales: Sequence[float] = (),
) -> Pool:
    """Open data sets as one union, in the order given, each as :func:`open_source` does."""
    return Pool([open_source(name, data_dir, notice, scales) for name in names], seed)


def split(pool: Pool, seed: int, kind: Splitting) -> Splits:
    """Part a union into training, evaluation and test images by their names and the seed.

    ``held-out`` is one in fifty for evaluation, at least one of two or more, and no test. ``paper``
    is 4,000 for test, 86,799 for training, the rest of the 302,599 for evaluation; of fewer images
    the same shares, one for training at least.
    """
    total = len(pool)
    ranked = sorted(range(total), key=lambda i: (derive_seed(seed, pool.key(i)), i))
    if kind == "paper":
        whole = celeba.IMAGES + stl10.IMAGES
        test = round(total * _PAPER_TEST / whole)
        train = test + max(1, round(total * _PAPER_TRAIN / whole))
        parts = ranked[test:train], ranked[train:], ranked[:test]
    else:
        held = max(1, total // 50) if total > 1 else 0
        parts = ranked[held:], ranked[:held], []
    return Splits(*(pool.only(sorted(part)) for part in parts))


def _of_8_bits(pixels: NDArray[np.uint8 | np.uint16]) -> Tensor:
    """Lay ``(H, W, C)`` out as ``(C, H, W)`` ``uint8``."""
    values = planes(pixels)
    return values if values.dtype == torch.uint8 else quantize(dequantize(values))


def _grid(source: Source) -> int:
    """Return the HR pixels at whose multiples a window may begin."""
    return source.grid if isinstance(source, Pairs) else 1


def _kept(height: int, width: int, grid: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the size of the window of an image that is kept, and what that is enlarged to."""
    short = min(height, width)
    # The bound is on what is kept, so a picture that is to be enlarged gives up more.
    bound = _KEEP_SIDE if short >= PATCH else max(1, _KEEP_SIDE * short // PATCH)
    bound -= bound % grid
    window = min(height, bound), min(width, bound)
    if short >= PATCH:
        return window, window
    # STL-10 has sides of 96: enlarged until the short side is a patch, as the paper needs.
    tall, wide = (max(PATCH, round(side * PATCH / short)) for side in window)
    return window, (tall, wide)
