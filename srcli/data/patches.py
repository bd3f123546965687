"""Cutting 120x120 patches: out of one image, or many at once out of images kept in memory."""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from srcli.ops.spans import PATCH

__all__ = ["Cut", "Resident", "center_patch", "cut_patch"]


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
