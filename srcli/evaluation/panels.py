"""Panels of ``srcli eval``: the detail of an image that differs most, as every method shows it."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np
import torch
from numpy.typing import NDArray

from srcli.errors import OutputError
from srcli.files import is_folder, one_line, reason
from srcli.imaging.pictures import Picture
from srcli.ops.color import dequantize, luma, quantize
from srcli.ops.spans import Span
from srcli.training.curves import Cell, sheet

__all__ = ["View", "draw", "prepare", "worst_window"]

_SIDE = 160
"""Longest side of a detail, HR pixels."""

_LUMA_STEPS = 255 * 16
"""Luma errors are compared in sixteenths of an 8-bit level, as whole numbers: their sums are
exact, so that the choice of a detail is the same on every machine."""

_MAX_COLUMNS = 6
"""More views than these continue in another row: a screen has about that much width."""

_MAX_NAME_BYTES = 200
"""Of a panel's file name without number and suffix: file systems take 255 in all."""

_FORBIDDEN = str.maketrans(dict.fromkeys('/\\:*?"<>|', "_"))
"""Characters that some file system does not take in names."""

View = tuple[str, Picture, str]
"""A title, a picture of the size of HR, and the caption below it."""


def prepare(folder: Path, images: Sequence[str]) -> list[Path]:
    """Make the folder of the panels, check that files can be written there, and name them.

    A panel is named after its image's stem, or its whole name where others share the stem.

    Args:
        folder: Made if missing, with the folders above it.
        images: Names of images, such as ``baby.png`` or ``stl10/test/7``.

    Returns:
        The path of each image's panel, no two of them equal in any letter case.

    Raises:
        OutputError: If the folder cannot be made or written to, or if a folder is in the way.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OutputError(
            f"cannot write panels into {one_line(str(folder))}: {reason(error)}; "
            "give another --panels"
        ) from error
    paths = [folder / f"{name}.png" for name in _names(images)]
    for path in paths:
        if is_folder(path):
            raise OutputError(
                f"cannot write {one_line(str(path))}: it is a folder; give another --panels"
            )
    return paths


def worst_window(high: Picture, result: Picture, side: int = _SIDE) -> tuple[Span, Span]:
    """Find the window in which a result differs most from the original.

    It is where the mean squared error of luma is largest; of equal ones the first, row by row.

    Args:
        high: The original.
        result: A picture of the same size.
        side: Longest side of the window, pixels; a smaller picture is taken whole.

    Returns:
        Rows and columns of the window.
    """
    error = (_luma(high) - _luma(result)).round().astype(np.int64) ** 2
    height, width = (min(side, length) for length in error.shape)
    sums = np.zeros((error.shape[0] + 1, error.shape[1] + 1), np.int64)
    sums[1:, 1:] = error.cumsum(0).cumsum(1)
    boxes = sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width]
    boxes += sums[:-height, :-width]
    top, left = np.unravel_index(int(boxes.argmax()), boxes.shape)
    return Span(int(top), int(top) + height), Span(int(left), int(left) + width)


def draw(path: Path, views: Sequence[View], window: tuple[Span, Span]) -> None:
    """Draw one window of several pictures side by side.

    Args:
        path: The PNG file to write or replace; its folder must exist.
        views: The pictures, left to right and down, in rows of about one length.
        window: Rows and columns of it, pixels.

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
    pixels: NDArray[np.uint8] = quantize(dequantize(torch.from_numpy(part))).numpy()
    return pixels


def _luma(picture: Picture) -> NDArray[np.float64]:
    """Return luma in the steps that errors are compared in, ``(H, W)``."""
    image = dequantize(torch.from_numpy(picture.pixels).permute(2, 0, 1)).double()
    values: NDArray[np.float64] = (luma(image)[0] * _LUMA_STEPS).numpy()
    return values


def _names(images: Sequence[str]) -> list[str]:
    """Name the panels of images, without suffix.

    Example:
        >>> _names(["a.png", "b.png", "b.jpg", "stl10/test/7"])
        ['a', 'b.png', 'b.jpg', 'stl10_test_7']
    """
    stems = [_portable(name if "/" in name else Path(name).stem) for name in images]
    counts = Counter(stem.casefold() for stem in stems)
    taken: set[str] = set()
    names: list[str] = []
    for image, stem in zip(images, stems, strict=True):
        name = stem if counts[stem.casefold()] == 1 else _portable(image)
        number, free = 1, name
        while free.casefold() in taken:
            number += 1
            free = f"{name}_{number}"
        names.append(free)
        taken.add(free.casefold())
    return names


def _portable(name: str) -> str:
    """Make a name that any file system takes."""
    printable = "".join(letter if letter.isprintable() else "_" for letter in name)
    short = printable.translate(_FORBIDDEN).encode()[:_MAX_NAME_BYTES]
    return short.decode(errors="ignore")
