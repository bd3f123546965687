"""HR patches out of folders of images, drawn by seed.

Images are decoded once and kept as ``uint8``; a patch is a view into one of them. What the
patches of a step are follows from the seed and the step's number alone, so a resumed run
draws what an undisturbed one would have drawn.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from srcli import images
from srcli.color import dequantize, quantize
from srcli.config import PATCH
from srcli.degradation import bicubic
from srcli.errors import DataError, ImageError

__all__ = ["Batch", "FolderDataset", "image_files", "load_folder", "split"]

_KEEP_SIDE = 1024
"""Images larger than this keep one crop of it, chosen by seed: a bound on memory."""


@dataclass(frozen=True, slots=True)
class Batch:
    """HR patches and the scale factor by which each is to be degraded."""

    patches: Tensor
    """``(N, 3, 120, 120)`` ``uint8``."""

    scales: list[float]
    """N scale factors."""


class FolderDataset:
    """Decoded images from which steps draw their patches.

    Args:
        images: ``(3, H, W)`` ``uint8`` each, both sides at least :data:`srcli.config.PATCH`.
        seed: What every draw follows from.
    """

    def __init__(self, images: Sequence[Tensor], seed: int) -> None:
        self.images = list(images)
        self._seed = seed
        # A large image offers more patches: every pixel is as likely as any other.
        areas = torch.tensor([image[0].numel() for image in images], dtype=torch.float64)
        self._edges = areas.cumsum(0) / areas.sum()

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, step: int, size: int, scales: Sequence[float]) -> Batch:
        """Draw the patches of one step, flipped and turned at random.

        Args:
            step: Number of the step; the same number is the same batch.
            size: Patches.
            scales: Factors to draw from, each entry as likely as the others.

        Returns:
            The patches with their factors.
        """
        generator = torch.Generator().manual_seed(_mix(self._seed, step))
        draws = torch.rand(size, 5, generator=generator, dtype=torch.float64)
        patches = torch.empty(size, 3, PATCH, PATCH, dtype=torch.uint8)
        factors = []
        for patch, (which, top, left, turn, factor) in zip(patches, draws.tolist(), strict=True):
            image = self.images[int(torch.searchsorted(self._edges, which, right=True))]
            row = int(top * (image.shape[1] - PATCH + 1))
            column = int(left * (image.shape[2] - PATCH + 1))
            crop = image[:, row : row + PATCH, column : column + PATCH]
            patch.copy_(_dihedral(crop, int(turn * 8)))
            factors.append(scales[int(factor * len(scales))])
        return Batch(patches, factors)

    def centers(self, count: int) -> Tensor:
        """Cut the centre of up to ``count`` images, evenly spread: a fixed evaluation set.

        Returns:
            ``(n, 3, 120, 120)`` ``uint8``.
        """
        total = len(self.images)
        count = min(count, total)
        return torch.stack([_center(self.images[i * total // count]) for i in range(count)])


def image_files(folder: Path) -> list[Path]:
    """List the images below a folder, sorted by path; hidden files and folders left out.

    Raises:
        DataError: If it is not a folder or holds none.
    """
    if not folder.is_dir():
        found = "is a file" if folder.exists() else "does not exist"
        raise DataError(f"--dataset {folder} {found}; give a folder of images")
    files = images.files_in(folder, recursive=True)
    if not files:
        kinds = ", ".join(sorted(images.READABLE_SUFFIXES))
        raise DataError(f"--dataset {folder} holds no image ({kinds}); give another folder")
    return files


def split(files: Sequence[Path], seed: int) -> tuple[list[Path], list[Path]]:
    """Hold some images out of training: one in fifty, at least one of two or more, by seed.

    Which images depends on the files' names and the seed, not on their folder.

    Returns:
        The training files and the held-out ones, each in the given order.
    """
    count = max(1, len(files) // 50) if len(files) > 1 else 0
    ranked = sorted(files, key=lambda path: _mix(seed, path.name))
    held = set(ranked[:count])
    return [path for path in files if path not in held], [p for p in files if p in held]


def load_folder(
    files: Iterable[Path], seed: int, warn: Callable[[str], None] = lambda _: None
) -> FolderDataset:
    """Decode images once; unreadable ones are told and left out.

    Args:
        files: Paths of images.
        seed: Seed of the data set's draws.
        warn: Called with one line for each image that is left out.

    Raises:
        DataError: If not one of them could be decoded.
    """
    files = list(files)
    with ThreadPoolExecutor() as pool:
        results = list(pool.map(lambda path: _decode(path, seed), files))
    for result in results:
        if isinstance(result, str):
            warn(result)
    decoded = [result for result in results if isinstance(result, Tensor)]
    if not decoded:
        raise DataError(f"none of the {len(files)} images could be decoded; give other images")
    return FolderDataset(decoded, seed)


def _decode(path: Path, seed: int) -> Tensor | str:
    """Decode to ``(3, H, W)`` 8-bit levels, both sides a patch at least; or say why not."""
    try:
        picture = images.read(path)
    except ImageError as error:
        return f"{error}; it is left out"
    levels = quantize(dequantize(torch.from_numpy(picture.pixels).permute(2, 0, 1)))
    height, width = levels.shape[1:]
    short = min(height, width)
    # The bound is on what is kept, so a picture that is to be enlarged gives up more.
    bound = _KEEP_SIDE if short >= PATCH else max(1, _KEEP_SIDE * short // PATCH)
    if max(height, width) > bound:
        generator = torch.Generator().manual_seed(_mix(seed, path.name))
        where = torch.rand(2, generator=generator).tolist()
        for axis, at in zip((1, 2), where, strict=True):
            keep = min(levels.shape[axis], max(bound, short))
            levels = levels.narrow(axis, int(at * (levels.shape[axis] - keep + 1)), keep)
    if short < PATCH:  # the paper's data needs it too: STL-10 has sides of 96
        height, width = (max(PATCH, round(side * PATCH / short)) for side in levels.shape[1:])
        levels = quantize(bicubic(levels, (height, width)))
    return levels.expand(3, -1, -1).contiguous()


def _center(image: Tensor) -> Tensor:
    top, left = ((side - PATCH) // 2 for side in image.shape[1:])
    return image[:, top : top + PATCH, left : left + PATCH]


def _dihedral(patch: Tensor, which: int) -> Tensor:
    """One of the eight flips and quarter turns of a square patch."""
    turned = torch.rot90(patch, which % 4, (1, 2))
    return turned.flip(2) if which >= 4 else turned


def _mix(seed: int, value: int | str) -> int:
    """Hash a seed with a step or a name into 63 bits: neighbours get unrelated streams."""
    digest = hashlib.blake2b(f"{seed}/{value}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
