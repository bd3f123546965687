"""Images that are files: a folder of them, or pairs of HR and LR."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from srcli.data.choices import DATASETS
from srcli.errors import DataError, ImageError
from srcli.files import is_file, is_folder, is_there, one_line
from srcli.imaging import images
from srcli.imaging.formats import FOUND_SUFFIXES
from srcli.ops.spans import PATCH

__all__ = ["Files", "Folder", "Pairs", "files_in", "lr_images"]

_DRAWN = {"curves.png", "samples.png"}
"""Pictures of a run directory."""


def files_in(folder: Path, *, recursive: bool = False) -> list[Path]:
    """List the images of a folder, and below it, sorted by path; nothing hidden."""
    found = folder.rglob("*") if recursive else folder.glob("*")
    return sorted(
        path
        for path in found
        if path.suffix.lower() in FOUND_SUFFIXES
        and is_file(path)
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


class Files:
    """A source of images that are files, each named by its file's name: a folder may be moved."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = files

    def __len__(self) -> int:
        return len(self._files)

    def key(self, index: int) -> str:
        """Name an image: the same wherever the source lies; what a split is drawn from."""
        return self._files[index].name

    def label(self, index: int) -> str:
        """Say where an image is, for messages."""
        return str(self._files[index])

    def read(self, index: int) -> NDArray[np.uint8 | np.uint16]:
        """Decode an image, ``(H, W, C)`` with C 1 or 3; ``ImageError`` if it is damaged."""
        return images.read(self._files[index], self._content(index)).pixels

    def size(self, index: int) -> tuple[int, int]:
        """Return width and height without decoding; ``ImageError`` if the header is damaged."""
        return images.read_size(self._files[index], self._content(index))

    def _content(self, index: int) -> bytes | None:  # noqa: ARG002 - of those in an archive
        """Read the bytes of a file that lies in no folder; None for one that does."""
        return None


class Folder(Files):
    """The images of a folder and of those below it, by path; nothing hidden.

    Raises:
        DataError: If it is no folder or holds no image; the option that named it is named.
    """

    def __init__(self, path: Path, option: str = "--dataset", *, recursive: bool = True) -> None:
        if not is_folder(path):
            found = "is a file" if is_there(path) else "does not exist"
            others = f", or one of {', '.join(DATASETS)}" if option == "--dataset" else ""
            raise DataError(f"{option} {one_line(path)} {found}; give a folder of images{others}")
        # What a run draws into a directory within the folder is none of its images.
        super().__init__(
            [
                file
                for file in files_in(path, recursive=recursive)
                if file.name not in _DRAWN or not is_file(file.with_name("log.csv"))
            ]
        )
        if not self._files:
            kinds = ", ".join(sorted(images.READABLE_SUFFIXES))
            raise DataError(
                f"{option} {one_line(path)} holds no image ({kinds}); give another folder"
            )


class Pairs(Folder):
    """HR images and LR images of some factors, in the folders ``HR``, ``LRx2``, ``LRx3``, ...

    Raises:
        DataError: If one is missing, or there are two of it.
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
            folder = path / f"LRx{scale:g}"
            self._lows[scale] = lr_images(self._files, folder, files_in(folder), scale)
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


def lr_images(
    highs: Sequence[Path], folder: Path, found: Sequence[Path], scale: float
) -> list[Path]:
    """Find LR of HR files among those of a folder by their stems, some with ``x3`` behind.

    Raises:
        DataError: If LR of a file is missing, or it cannot be said which it is.
    """
    pairs: dict[str, tuple[list[Path], list[Path]]] = {}
    for high in highs:
        pairs.setdefault(high.stem, ([], []))[0].append(high)
    for low in found:
        stem = low.stem if low.stem in pairs else low.stem.removesuffix(f"x{scale:g}")
        if stem in pairs:
            pairs[stem][1].append(low)
    for own, lows in pairs.values():
        if len(own) != 1 or len(lows) != 1:
            held = " and ".join(one_line(low.name) for low in lows) or "no LR image"
            names = " and ".join(one_line(high.name) for high in own)
            raise DataError(
                f"{one_line(folder)} holds {held} for {names}; each HR image needs one of its own"
            )
    return [pairs[high.stem][1][0] for high in highs]
