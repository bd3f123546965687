"""Where training and evaluation images come from: CelebA, STL-10, any folder, pairs.

A source is a list of images, each read on its own when it is wanted: three hundred thousand of
them are never in memory together.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from srcli.data import celeba, stl10
from srcli.data.celeba import CelebA
from srcli.data.stl10 import STL10
from srcli.errors import DataError, ImageError, UsageError
from srcli.files import is_file, is_folder, is_there, one_line
from srcli.imaging import images
from srcli.ops.spans import PATCH

__all__ = [
    "DATASETS",
    "Folder",
    "Pairs",
    "Source",
    "absolute",
    "lr_image",
    "open_folder",
    "open_source",
    "parse",
]

DATASETS = {"celeba": celeba.PARTITIONS, "stl10": stl10.SPLITS}
"""The data sets that have a name, and the parts that may be asked for by ``name:part``."""

_DRAWN = {"curves.png", "samples.png"}
"""Pictures of a run directory."""


class Source(Protocol):
    """A list of images that are read one by one, from any thread."""

    def __len__(self) -> int: ...

    def key(self, index: int) -> str:
        """Name an image: the same wherever the source lies; what a split is drawn from."""

    def label(self, index: int) -> str:
        """Say where an image is, for messages."""

    def read(self, index: int) -> NDArray[np.uint8 | np.uint16]:
        """Decode an image: ``(H, W, C)`` with C 1 or 3.

        Raises:
            ImageError: If it is damaged.
        """

    def size(self, index: int) -> tuple[int, int]:
        """Return width and height without decoding.

        Raises:
            ImageError: If the header is damaged.
        """


class Folder:
    """The images of a folder and of those below it, by path; nothing hidden.

    Raises:
        DataError: If it is no folder or holds no image; the option that named it is named.
    """

    def __init__(self, path: Path, option: str = "--dataset", *, recursive: bool = True) -> None:
        if not is_folder(path):
            found = "is a file" if is_there(path) else "does not exist"
            raise DataError(
                f"{option} {one_line(path)} {found}; give a folder of images, or one of "
                f"{', '.join(DATASETS)}"
            )
        # What a run draws into a directory within the folder is none of its images.
        self._files = [
            file
            for file in images.files_in(path, recursive=recursive)
            if file.name not in _DRAWN or not is_file(file.with_name("log.csv"))
        ]
        if not self._files:
            kinds = ", ".join(sorted(images.READABLE_SUFFIXES))
            raise DataError(
                f"{option} {one_line(path)} holds no image ({kinds}); give another folder"
            )

    def __len__(self) -> int:
        return len(self._files)

    def key(self, index: int) -> str:
        """Name an image by its file's name alone: a folder may be moved."""
        return self._files[index].name

    def label(self, index: int) -> str:
        """Say where an image is."""
        return str(self._files[index])

    def read(self, index: int) -> NDArray[np.uint8 | np.uint16]:
        """Decode an image."""
        return images.read(self._files[index]).pixels

    def size(self, index: int) -> tuple[int, int]:
        """Return width and height without decoding."""
        return images.read_size(self._files[index])


class Pairs(Folder):
    """HR images and LR images of some factors, in the folders ``HR``, ``LRx2``, ``LRx3``, ...

    Raises:
        DataError: If one is missing.
    """

    def __init__(self, path: Path, scales: Sequence[float], option: str) -> None:
        super().__init__(path / "HR", option, recursive=False)
        shown = one_line(path)
        factors = [one for one in range(2, 9) if PATCH % one == 0]
        known = [one for one in factors if is_folder(path / f"LRx{one}")]
        self._lows: dict[float, list[Path]] = {}
        for scale in sorted(set(scales)):
            if scale not in known:
                has = ", ".join(f"LRx{one}" for one in known) or f"none of {factors}"
                raise DataError(
                    f"{option} {shown} has HR and {has}, but no LR images for --scale {scale:g}: "
                    f"give other factors, or {shown}/HR, whose LR is made here"
                )
            lows = {
                file.stem: file for file in images.files_in(path / f"LRx{scale:g}", recursive=False)
            }
            found = [lr_image(high, lows, scale) for high in self._files]
            for high, low in zip(self._files, found, strict=True):
                if low is None:
                    raise DataError(
                        f"{option} {shown}: LRx{scale:g} holds no image for {one_line(high.name)}; "
                        "add it or take the other one away"
                    )
            self._lows[scale] = [low for low in found if low]
        self.grid = math.lcm(*map(int, self._lows))
        """HR pixels at whose multiples every factor's LR pixels begin."""

    def size(self, index: int) -> tuple[int, int]:
        """Return width and height of HR without decoding.

        Raises:
            DataError: If LR of a factor is no reduction of it.
            ImageError: If it is smaller than a patch.
        """
        width, height = super().size(index)
        if min(width, height) < PATCH:
            raise ImageError(f"{one_line(self.label(index))} has sides below {PATCH} pixels")
        for scale, lows in self._lows.items():
            wide, tall = images.read_size(lows[index])
            if not all(0 <= a - b * scale < scale for a, b in ((width, wide), (height, tall))):
                raise DataError(
                    f"{one_line(lows[index])} is {wide}x{tall}: that is not "
                    f"{one_line(self.label(index))} ({width}x{height}) reduced by {scale:g}; "
                    "take the pair away or replace it"
                )
        return width, height

    def read(self, index: int) -> NDArray[np.uint8 | np.uint16]:
        """Decode HR, once it is known that LR fits."""
        self.size(index)
        return super().read(index)

    def read_low(self, index: int, scale: float) -> NDArray[np.uint8 | np.uint16]:
        """Decode LR.

        Raises:
            DataError: If it is damaged: nothing can stand in for it.
        """
        try:
            return images.read(self._lows[scale][index]).pixels
        except ImageError as error:
            raise DataError(
                f"{error}; it is LR of a pair: replace both or take both away"
            ) from error


def lr_image(high: Path, lows: Mapping[str, Path], scale: float) -> Path | None:
    """Find LR of an HR file by its stem: published sets have some with ``x3`` behind it."""
    return lows.get(high.stem) or lows.get(f"{high.stem}x{scale:g}")


def parse(text: str) -> tuple[str, tuple[str, ...]]:
    """Split ``celeba:train,valid`` into the data set and its parts; a folder has none.

    A part that is named twice counts once.

    Raises:
        UsageError: If the data set has no such part.

    Example:
        >>> parse("celeba:train,valid"), parse("photos")
        (('celeba', ('train', 'valid')), ('photos', ()))
    """
    name, _, parts = text.partition(":")
    if name not in DATASETS:
        return text, ()
    named = [part.strip() for part in parts.split(",")] if ":" in text else []
    for part in named:
        if part not in DATASETS[name]:
            known = ", ".join(DATASETS[name])
            raise UsageError(
                f"--dataset {one_line(text)}: {name} has the parts {known}, not {part!r}; choose "
                "among them"
            )
    return name, tuple(dict.fromkeys(named))


def absolute(text: str) -> str:
    """Make a folder independent of the working directory; a data set's name stays."""
    return text if parse(text)[0] in DATASETS else str(Path(text).absolute())


def open_folder(path: Path, scales: Sequence[float], option: str = "--dataset") -> Folder:
    """Open a folder of images, or of pairs if it has ``HR`` and an ``LRx`` with a factor."""
    if is_folder(path / "HR") and any(path.glob("LRx*")):
        return Pairs(path, scales, option)
    return Folder(path, option)


def open_source(
    text: str, data_dir: Path, notice: Callable[[str], None], scales: Sequence[float] = ()
) -> Source:
    """Open what ``--dataset`` names.

    Args:
        text: ``celeba`` or ``stl10``, either with ``:part,part`` behind it, or a folder.
        data_dir: Where the data sets with names lie: the data set's own folder or one above.
        notice: Called with one line for anything worth knowing.
        scales: Factors whose LR images are wanted, where a folder has them.

    Raises:
        DataError: If it is not there, or laid out in another way.
        UsageError: If the data set has no such part.
    """
    name, parts = parse(text)
    if name not in DATASETS:
        return open_folder(Path(text), scales)
    inner = data_dir / name
    root = inner if is_folder(inner) else data_dir
    return CelebA(root, parts, notice) if name == "celeba" else STL10(root, parts, notice)
