"""Patches drawn by seed, of which images and which part of each, and cut out of them.

What the patches of a step are follows from the seed and the step's number alone: a resumed run
draws what an undisturbed one would have drawn, and several processes draw one batch together,
each its own rows.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from srcli.data.choices import Augmentation
from srcli.data.degrading import DRAWS
from srcli.ops.spans import PATCH

__all__ = ["Cut", "Draw", "Resident", "Sampler", "center_patch", "cut_patch", "derive_seed"]

_TURNS: Mapping[Augmentation, Sequence[int]] = {
    "turn": range(8),
    "mirror": (0, 0, 0, 0, 4, 4, 4, 4),
    "none": (0,) * 8,
}
"""Which of the eight flips and quarter turns an eighth of the draws stands for."""


class Cut(NamedTuple):
    """Where a patch comes from and how it is turned."""

    image: int
    """The image's place in its list."""

    top: float
    """Where the patch begins, from 0 (first row) to 1 (the last one possible)."""

    left: float
    turn: int
    """Which of the eight flips and quarter turns, 0 to 7; 0 is none, 4 left and right alone."""

    grid: int = 1
    """Pixels at whose multiples the patch begins: the factor, where LR is cut as well."""

    def corner(self, height: int, width: int, side: int = PATCH) -> tuple[int, int]:
        """Return row and column where the patch begins in an image of a size."""
        down, across = ((length - side) // self.grid + 1 for length in (height, width))
        return int(self.top * down) * self.grid, int(self.left * across) * self.grid


class Draw(NamedTuple):
    """Where the patches of one step come from, not yet read; one entry a patch in each."""

    cuts: list[Cut]
    scales: list[float]
    degradation: Tensor
    """``(N, DRAWS)`` uniform numbers that the degradation is drawn from."""


class Sampler:
    """Draws the patches of every step; the same seed and step give the same draw.

    Args:
        count: Images to draw from.
        seed: What every draw follows from.
        scales: Factors that take turns, from a drawn one on, so that a step has each in its share,
            to the patch where the batch is a multiple of their number.
        augment: How patches are flipped and turned.
        areas: Pixels of each image, zero for one that cannot be read: every pixel of the set is
            as likely as any other, with replacement. None: every image once an epoch, in an
            order of the epoch's own; the last batch of an epoch is filled up with the first
            images of that order.
    """

    def __init__(
        self,
        count: int,
        seed: int,
        *,
        scales: Sequence[float],
        augment: Augmentation,
        areas: Sequence[int] | None = None,
    ) -> None:
        self._count, self._seed, self._augment = count, seed, augment
        self._scales = list(scales)
        self._edges: Tensor | None = None
        if areas is not None:
            weights = torch.tensor(areas, dtype=torch.float64)
            self._edges = weights.cumsum(0) / weights.sum()
        self._order = lru_cache(maxsize=2)(self._order_of)

    def steps_per_epoch(self, size: int) -> int:
        """Count the steps of ``size`` patches in which every image has its turn."""
        return -(-self._count // size)

    def draw(self, step: int, size: int) -> Draw:
        """Draw the patches of one step, from 0 on: ``size`` of all processes together."""
        generator = torch.Generator().manual_seed(derive_seed(self._seed, step))
        draws = torch.rand(size, 5, generator=generator, dtype=torch.float64)
        which, top, left, turn, factor = draws.unbind(1)
        turns = [_TURNS[self._augment][int(value * 8)] for value in turn.tolist()]
        places = self._images(which, step, size), top.tolist(), left.tolist(), turns
        count = len(self._scales)
        first = int(factor[0] * count)
        return Draw(
            cuts=[Cut(*cut) for cut in zip(*places, strict=True)],
            scales=[self._scales[(first + row) % count] for row in range(size)],
            degradation=torch.rand(size, DRAWS, generator=generator, dtype=torch.float64),
        )

    def _images(self, which: Tensor, step: int, size: int) -> list[int]:
        if self._edges is not None:
            chosen = torch.searchsorted(self._edges, which.contiguous(), right=True)
        else:
            epoch, batch = divmod(step, self.steps_per_epoch(size))
            places = torch.arange(batch * size, (batch + 1) * size) % self._count
            chosen = self._order(epoch)[places]
        images: list[int] = chosen.tolist()
        return images

    def _order_of(self, epoch: int) -> Tensor:
        generator = torch.Generator().manual_seed(derive_seed(self._seed, f"epoch {epoch}"))
        return torch.randperm(self._count, generator=generator)


def derive_seed(seed: int, value: int | str) -> int:
    """Hash a seed with a step or a name into 63 bits: neighbours get unrelated streams."""
    # A file's name may hold bytes that are no text.
    text = f"{seed}/{value}".encode(errors="surrogatepass")
    digest = hashlib.blake2b(text, digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def center_patch(image: Tensor, grid: int = 1, side: int = PATCH) -> Tensor:
    """Cut the pixels in the middle of ``(C, H, W)``, beginning at a multiple of the grid."""
    top, left = ((length - side) // 2 // grid * grid for length in image.shape[1:])
    return image[:, top : top + side, left : left + side]


def cut_patch(image: Tensor, cut: Cut, side: int = PATCH) -> Tensor:
    """Cut a patch out of ``(C, H, W)``, both sides a patch at least, and turn it."""
    height, width = image.shape[1:]
    row, column = cut.corner(height, width, side)
    return _turned(image[:, row : row + side, column : column + side], cut.turn)


def _turned(patch: Tensor, turn: int) -> Tensor:
    """One of the eight flips and quarter turns of a square patch."""
    turned = torch.rot90(patch, turn % 4, (1, 2))
    return turned.flip(2) if turn >= 4 else turned


class Resident:
    """Decoded images, one behind the other in one tensor on a device.

    Each is ``(3, H, W)`` ``uint8``, or None if it could not be read.
    """

    def __init__(self, images: Iterable[Tensor | None], device: torch.device) -> None:
        self._device = device
        self._sizes: list[tuple[int, int]] = []
        self._starts: list[int] = []
        parts, start = [torch.empty(0, dtype=torch.uint8, device=device)], 0
        for image in images:
            self._starts.append(start)
            self._sizes.append((0, 0) if image is None else (image.shape[1], image.shape[2]))
            if image is not None:
                parts.append(image.reshape(-1).to(device))
                start += image.numel()
        self._pixels = torch.cat(parts)

    def cut(self, cuts: Sequence[Cut]) -> Tensor:
        """Cut patches, ``(N, 3, 120, 120)``, by one indexing: a few launches on a GPU, not N."""
        rows = []
        for cut in cuts:
            height, width = self._sizes[cut.image]
            row, column = cut.corner(height, width)
            first = self._starts[cut.image] + row * width + column
            rows.append((first, height * width, width, cut.turn))
        table = torch.tensor(rows).to(self._device, non_blocking=True)
        start, plane, line = (table[:, i, None, None, None] for i in range(3))
        down, across = (axis[table[:, 3]] for axis in _turns(self._device))
        channel = torch.arange(3, device=self._device)[None, :, None, None]
        return self._pixels[start + plane * channel + line * down[:, None] + across[:, None]]


@lru_cache(maxsize=8)
def _turns(device: torch.device) -> tuple[Tensor, Tensor]:
    """Row and column that each pixel of a turned patch comes from: ``(8, 120, 120)`` each."""
    places = torch.arange(PATCH * PATCH, device=device).view(1, PATCH, PATCH)
    turned = torch.cat([_turned(places, turn) for turn in range(8)])
    return turned // PATCH, turned % PATCH
