"""Cutting 120x120 patches out of images."""

from typing import NamedTuple

import torch
from torch import Tensor

from srcli.ops.spans import PATCH

__all__ = ["Cut", "center_patch", "cut_patch"]


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
