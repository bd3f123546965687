"""What a source of images is, and the plainest one: a folder."""

from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from srcli.data.downloads import REMOTES
from srcli.errors import DataError
from srcli.files import is_folder, is_there, one_line, reason
from srcli.imaging import images

__all__ = ["Folder", "Source", "contents_of", "image_files", "shown"]


class Source(Protocol):
    """A list of images that are read one by one, from any thread."""

    @property
    def name(self) -> str:
        """What reports call it."""

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
    """The images of a folder and of those below it.

    Args:
        path: The folder.

    Raises:
        DataError: If it is no folder or holds no image.
    """

    def __init__(self, path: Path) -> None:
        self.name = path.name or str(path)
        self.files = image_files(path)

    def __len__(self) -> int:
        return len(self.files)

    def key(self, index: int) -> str:
        """Name an image by its file's name alone: a folder may be moved."""
        return self.files[index].name

    def label(self, index: int) -> str:
        """Say where an image is."""
        return str(self.files[index])

    def read(self, index: int) -> NDArray[np.uint8 | np.uint16]:
        """Decode an image."""
        return images.read(self.files[index]).pixels

    def size(self, index: int) -> tuple[int, int]:
        """Return width and height without decoding."""
        return images.read_size(self.files[index])


def image_files(folder: Path) -> list[Path]:
    """List the images below a folder, sorted by path; hidden files and folders left out.

    Raises:
        DataError: If it is not a folder or holds none.
    """
    if not is_folder(folder):
        found = "is a file" if is_there(folder) else "does not exist"
        raise DataError(
            f"--dataset {shown(folder)} {found}; give a folder of images, or one of "
            f"{', '.join(REMOTES)}"
        )
    files = images.files_in(folder, recursive=True)
    if not files:
        kinds = ", ".join(sorted(images.READABLE_SUFFIXES))
        raise DataError(f"--dataset {shown(folder)} holds no image ({kinds}); give another folder")
    return files


def contents_of(folder: Path) -> str:
    """Say in a few words what is in a folder that should hold a data set."""
    if not is_folder(folder):
        return "is a file" if is_there(folder) else "does not exist"
    try:
        names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        return f"cannot be listed ({reason(error)})"
    if not names:
        return "is empty"
    first = ", ".join(one_line(name) for name in names[:4])
    return f"holds {first}" + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def shown(path: Path) -> str:
    """Write a path on one line of any terminal."""
    return one_line(str(path))
