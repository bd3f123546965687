"""Where training and evaluation images come from: CelebA, STL-10, any folder.

A source is a list of images, each read on its own when it is wanted: three hundred thousand of
them are never in memory together.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from srcli.data import celeba, stl10
from srcli.data.celeba import CelebA
from srcli.data.stl10 import STL10
from srcli.errors import DataError, UsageError
from srcli.files import is_folder, is_there, one_line
from srcli.imaging import images

__all__ = ["DATASETS", "Folder", "Source", "absolute", "open_source", "parse"]

DATASETS = {"celeba": celeba.PARTITIONS, "stl10": stl10.SPLITS}
"""The data sets that have a name, and the parts that may be asked for by ``name:part``."""


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

    Args:
        path: The folder.
        option: What named it.

    Raises:
        DataError: If it is no folder or holds no image.
    """

    def __init__(self, path: Path, option: str = "--dataset") -> None:
        if not is_folder(path):
            found = "is a file" if is_there(path) else "does not exist"
            raise DataError(
                f"{option} {one_line(path)} {found}; give a folder of images, or one of "
                f"{', '.join(DATASETS)}"
            )
        self._files = images.files_in(path, recursive=True)
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


def open_source(text: str, data_dir: Path, notice: Callable[[str], None]) -> Source:
    """Open what ``--dataset`` names.

    Args:
        text: ``celeba`` or ``stl10``, either with ``:part,part`` behind it, or a folder.
        data_dir: Where the data sets with names lie: the data set's own folder or one above.
        notice: Called with one line for anything worth knowing.

    Raises:
        DataError: If it is not there, or laid out in another way.
        UsageError: If the data set has no such part.
    """
    name, parts = parse(text)
    if name not in DATASETS:
        return Folder(Path(text))
    inner = data_dir / name
    root = inner if is_folder(inner) else data_dir
    return CelebA(root, parts, notice) if name == "celeba" else STL10(root, parts, notice)
