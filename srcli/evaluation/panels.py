"""Panels of ``srcli eval``: the detail of an image that differs most, as every method shows it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from srcli.errors import OutputError, UsageError
from srcli.evaluation.pairs import Pair
from srcli.files import one_line, reason
from srcli.imaging.pictures import Picture
from srcli.ops.arrays import planes
from srcli.ops.color import dequantize, luma, quantize
from srcli.ops.spans import Span
from srcli.training.curves import Cell, sheet

__all__ = ["draw", "prepare", "worst_window"]

_SIDE = 160
"""Longest side of a detail, HR pixels."""

_MAX_COLUMNS = 6
"""More views than these continue in another row: a screen has about that much width."""


def prepare(folder: Path, pairs: Sequence[Pair]) -> list[Path]:
    """Make the folder of the panels, and name that of each image.

    Panels are named after the stems of images such as ``baby.png`` or ``stl10/test/7``, or by
    their whole names where two share a stem.

    Raises:
        OutputError: If the folder cannot be made.
        UsageError: If the images lie there.
    """
    for source in {source for pair in pairs for source in pair.folders}:
        if folder.resolve() == source.resolve():
            raise UsageError(
                f"--panels {folder} is where the images are, which could be written over; "
                "give another folder"
            )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"cannot write panels into {one_line(str(folder))}: {reason(error)}; "
            "give another --panels"
        ) from error
    flat = [pair.name.replace("/", "_") for pair in pairs]  # of stl10/test/7
    stems = [Path(name).stem for name in flat]
    are_unique = len({stem.casefold() for stem in stems}) == len(stems)
    return [folder / f"{name}.png" for name in (stems if are_unique else flat)]


def worst_window(high: Picture, result: Picture, side: int = _SIDE) -> tuple[Span, Span]:
    """Find rows and columns of the window in which a result differs most from the original.

    It is where the mean squared error of luma is largest; of equal ones the first, row by row. A
    picture smaller than ``side`` is taken whole.
    """
    error = (_luma(high) - _luma(result)).square()
    height, width = (min(side, length) for length in error.shape[1:])
    means = functional.avg_pool2d(error, (height, 1), stride=1)
    means = functional.avg_pool2d(means, (1, width), stride=1)
    top, left = divmod(int(means.argmax()), means.shape[2])
    return Span(top, top + height), Span(left, left + width)


def draw(path: Path, views: Sequence[tuple[str, Picture, str]], window: tuple[Span, Span]) -> None:
    """Draw rows and columns of several pictures side by side, as a PNG file.

    A view is a title, a picture of the size of HR, and the caption below it.

    Raises:
        OutputError: If the file cannot be written.
    """
    cells = [
        Cell(title=title, image=_detail(picture, window), caption=caption)
        for title, picture, caption in views
    ]
    rows = -(-len(cells) // _MAX_COLUMNS)
    columns = -(-len(cells) // rows)
    grid = [cells[start : start + columns] for start in range(0, len(cells), columns)]
    sheet(path, grid, option="--panels")


def _detail(picture: Picture, window: tuple[Span, Span]) -> NDArray[np.uint8]:
    """Cut a window out as a screen shows it, ``(H, W, C)`` ``uint8``."""
    rows, columns = window
    part = picture.pixels[rows.start : rows.stop, columns.start : columns.stop]
    detail: NDArray[np.uint8] = quantize(dequantize(torch.from_numpy(part))).numpy()
    return detail


def _luma(picture: Picture) -> Tensor:
    """Return luma, ``(1, H, W)`` ``float64``."""
    return luma(dequantize(planes(picture.pixels)).double())
