"""Panels of ``srcli eval``: a telling detail of an image, as every method shows it."""

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
from srcli.training import plots

__all__ = ["SIDE", "View", "draw", "prepare", "telling"]

SIDE = 160
"""Longest side of a detail, HR pixels."""

_LUMA_STEPS = 255 * 16
"""Luma errors are compared in sixteenths of an 8-bit level, as whole numbers: their sums are
exact, so that the choice of a detail is the same on every machine."""

_LONGEST_NAME = 200
"""Most bytes of a panel's file name without number and suffix: file systems take 255 in all."""

_FORBIDDEN = str.maketrans(dict.fromkeys('/\\:*?"<>|', "_"))
"""What the file systems of all kinds do not have in names."""

View = tuple[str, Picture, str]
"""A title, a picture of the size of HR, and what stands below it."""


def prepare(folder: Path, images: Sequence[str]) -> list[Path]:
    """Make the folder of the panels, see that files can be written there, and name them.

    A panel is called by its image's stem, or by more of its name where others share the stem.

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


def telling(high: Picture, result: Picture, side: int = SIDE) -> tuple[Span, Span]:
    """Choose the detail in which a result differs most from the original.

    It is where the mean squared error of luma over the window is largest; of equal ones the
    first, row by row.

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
        views: What is shown, left to right.
        window: Rows and columns of it, pixels.

    Raises:
        OutputError: If the file cannot be written.
    """
    plots.panel(
        path,
        [
            plots.Cell(title=title, image=_detail(picture, window), caption=caption)
            for title, picture, caption in views
        ],
    )


def _detail(picture: Picture, window: tuple[Span, Span]) -> NDArray[np.uint8]:
    rows, columns = window
    part = picture.pixels[rows.start : rows.stop, columns.start : columns.stop]
    levels: NDArray[np.uint8] = quantize(dequantize(torch.from_numpy(part))).numpy()
    return levels


def _luma(picture: Picture) -> NDArray[np.float64]:
    """Luma in the steps that errors are compared in, ``(H, W)``."""
    image = dequantize(torch.from_numpy(picture.pixels).permute(2, 0, 1)).double()
    levels: NDArray[np.float64] = (luma(image)[0] * _LUMA_STEPS).numpy()
    return levels


def _names(images: Sequence[str]) -> list[str]:
    """Name the panels of images, without suffix.

    Example:
        >>> _names(["a.png", "b.png", "b.jpg", "stl10/test/7"])
        ['a', 'b.png', 'b.jpg', 'stl10_test_7']
    """
    stems = [_plain(name if "/" in name else Path(name).stem) for name in images]
    counts = Counter(stem.casefold() for stem in stems)
    taken: set[str] = set()
    names: list[str] = []
    for image, stem in zip(images, stems, strict=True):
        names.append(_free(stem if counts[stem.casefold()] == 1 else _plain(image), taken))
        taken.add(names[-1].casefold())
    return names


def _plain(name: str) -> str:
    """Make a name that any file system takes."""
    printable = "".join(letter if letter.isprintable() else "_" for letter in name)
    short = printable.translate(_FORBIDDEN).encode()[:_LONGEST_NAME]
    return short.decode(errors="ignore")


def _free(name: str, taken: set[str]) -> str:
    """Number a name until it is free."""
    number, found = 1, name
    while found.casefold() in taken:
        number += 1
        found = f"{name}_{number}"
    return found
