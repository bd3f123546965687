"""Cutting 120x120 patches: out of one image, or many at once out of images kept in memory."""

from collections.abc import Iterable, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from srcli.ops.spans import PATCH

__all__ = ["Resident", "center_patch", "cut_patch"]


def center_patch(image: Tensor) -> Tensor:
    """Cut the 120x120 pixels in the middle of ``(C, H, W)``."""
    top, left = ((side - PATCH) // 2 for side in image.shape[1:])
    return image[:, top : top + PATCH, left : left + PATCH]


def cut_patch(image: Tensor, top: float, left: float, turn: int) -> Tensor:
    """Cut a patch out of ``(C, H, W)`` and turn it.

    Args:
        image: Both sides a patch at least.
        top: Where the patch begins, from 0 (first row) to 1 (the last one possible).
        left: The same for columns.
        turn: Which of the eight flips and quarter turns, 0 to 7.
    """
    row, column = _corner(image.shape[1], top), _corner(image.shape[2], left)
    return _dihedral(image[:, row : row + PATCH, column : column + PATCH], turn)


def _corner(side: int, share: float) -> int:
    """Where a patch begins on a side, for a share of 0 to 1 of the places possible."""
    return int(share * (side - PATCH + 1))


def _dihedral(patch: Tensor, which: int) -> Tensor:
    """One of the eight flips and quarter turns of a square patch."""
    turned = torch.rot90(patch, which % 4, (1, 2))
    return turned.flip(2) if which >= 4 else turned


class Resident:
    """Decoded images, one behind the other in one tensor on the device.

    Args:
        images: ``(3, H, W)`` ``uint8`` each, both sides a patch at least; None for one that
            could not be read.
        device: Where they are kept.
    """

    def __init__(self, images: Iterable[Tensor | None], device: torch.device) -> None:
        self.sizes: list[tuple[int, int]] = []
        """Height and width of each image; zero of one that could not be read."""
        self._device = device
        parts = [torch.empty(0, dtype=torch.uint8, device=device)]
        for image in images:
            self.sizes.append((0, 0) if image is None else (image.shape[1], image.shape[2]))
            if image is not None:
                parts.append(image.reshape(-1).to(device))
        self._pixels = torch.cat(parts)
        areas = torch.tensor([3 * height * width for height, width in self.sizes])
        self._starts: list[int] = (areas.cumsum(0) - areas).tolist()

    def image(self, place: int) -> Tensor:
        """View an image, ``(3, H, W)``."""
        height, width = self.sizes[place]
        start = self._starts[place]
        return self._pixels[start : start + 3 * height * width].view(3, height, width)

    def cut(self, cuts: Sequence[tuple[int, float, float, int]]) -> Tensor:
        """Cut patches, ``(N, 3, 120, 120)``; each cut is the image, top, left and turn."""
        if self._device.type == "cpu":
            return torch.stack([cut_patch(self.image(cut[0]), *cut[1:]) for cut in cuts])
        return self.gather(cuts)

    def gather(self, cuts: Sequence[tuple[int, float, float, int]]) -> Tensor:
        """Cut all patches by one indexing: a few launches for a batch instead of for a patch."""
        rows = []
        for place, top, left, turn in cuts:
            height, width = self.sizes[place]
            row, column = _corner(height, top), _corner(width, left)
            rows.append((self._starts[place] + row * width + column, height * width, width, turn))
        table = torch.tensor(rows).to(self._device, non_blocking=True)
        start, plane, line = (table[:, i, None, None, None] for i in range(3))
        down, across = (axis[table[:, 3]] for axis in _turns(self._device))
        channel = torch.arange(3, device=self._device)[None, :, None, None]
        return self._pixels[start + plane * channel + line * down[:, None] + across[:, None]]


@lru_cache(maxsize=8)
def _turns(device: torch.device) -> tuple[Tensor, Tensor]:
    """Row and column that each pixel of a turned patch comes from: ``(8, 120, 120)`` each."""
    places = torch.arange(PATCH * PATCH, device=device).view(1, PATCH, PATCH)
    turned = torch.cat([_dihedral(places, which) for which in range(8)])
    return turned // PATCH, turned % PATCH
