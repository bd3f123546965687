"""Patches drawn by seed: of which images, which part of each, in which order.

What the patches of a step are follows from the seed and the step's number alone: a resumed run
draws what an undisturbed one would have drawn, and several processes draw one batch together,
each its own rows.
"""

import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from srcli.data.choices import Augmentation
from srcli.data.degrading import DRAWS
from srcli.data.patches import Cut

__all__ = ["Draw", "Sampler", "derive_seed"]

_TURNS: Mapping[Augmentation, Sequence[int]] = {
    "turn": range(8),
    "mirror": (0, 0, 0, 0, 4, 4, 4, 4),
    "none": (0,) * 8,
}
"""Which of the eight flips and quarter turns an eighth of the draws stands for."""


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
