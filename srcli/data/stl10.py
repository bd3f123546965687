"""STL-10, mapped into memory from its binary files."""

import shutil
import tarfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, cast

import numpy as np
from numpy.typing import NDArray

from srcli.data.downloads import PAGES
from srcli.errors import DataError, OutputError
from srcli.files import is_file, one_line, reason, replacing

__all__ = ["IMAGES", "STL10"]

IMAGES = 100_000
"""Images of the unlabelled split."""

_COUNTS = {"unlabeled": IMAGES, "train": 5_000, "test": 8_000}

_SIDE = 96
_BYTES = 3 * _SIDE**2

_GET = f"with --download, or from {PAGES['stl10']}"


class STL10:
    """The 96x96 images of STL-10's binary release, mapped into memory.

    Coates, Lee, Ng: An Analysis of Single Layer Networks in Unsupervised Feature Learning,
    AISTATS 2011. A file holds one image after another, each as three planes (red, green, blue)
    of bytes in column-major order.

    Args:
        root: Folder with ``stl10_binary/`` or ``stl10_binary.tar.gz``. The archive stays as it
            is; what is needed of it is unpacked beside it once, since nothing can be mapped
            out of a compressed file.
        splits: Some of unlabeled, train and test; empty for unlabeled, as the paper has it.
        notice: Called with one line if something is unpacked or missing.

    Raises:
        DataError: If the layout is another one.
        OutputError: If the archive cannot be unpacked for want of room or permission.
    """

    def __init__(self, root: Path, splits: Sequence[str], notice: Callable[[str], None]) -> None:
        self._places: list[tuple[str, Path, int]] = []
        """Of each image its split, the split's file and the place there."""
        self._pixels: dict[str, NDArray[np.uint8]] = {}
        for split in splits or ("unlabeled",):
            path = root / "stl10_binary" / f"{split}_X.bin"
            if not is_file(path):
                _unpack(root / "stl10_binary.tar.gz", path, notice)
            self._pixels[split] = _mapped(path)
            self._places += [(split, path, place) for place in range(len(self._pixels[split]))]
        whole = sum(_COUNTS[split] for split in self._pixels)
        if len(self) < whole:
            notice(
                f"stl10: {len(self):,} of the {whole:,} images are in {one_line(root)}; "
                "continuing with these"
            )

    def __len__(self) -> int:
        return len(self._places)

    def key(self, index: int) -> str:
        """Name an image by its split and its place there."""
        split, _, place = self._places[index]
        return f"stl10/{split}/{place}"

    def label(self, index: int) -> str:
        """Say where an image is."""
        _, path, place = self._places[index]
        return f"{path}[{place}]"

    def read(self, index: int) -> NDArray[np.uint8 | np.uint16]:
        """Copy an image out of the file: ``(96, 96, 3)``."""
        split, _, place = self._places[index]
        return np.ascontiguousarray(self._pixels[split][place].transpose(2, 1, 0))

    def size(self, index: int) -> tuple[int, int]:  # noqa: ARG002 - a source's
        """Return width and height."""
        return _SIDE, _SIDE


def _mapped(path: Path) -> NDArray[np.uint8]:
    """Map a binary of STL-10 into memory: ``(n, 3, 96, 96)``, columns before rows."""
    try:
        size = path.stat().st_size
        if size and not size % _BYTES:
            return np.memmap(path, np.uint8, "r").reshape(-1, 3, _SIDE, _SIDE)
    except OSError as error:
        raise DataError(
            f"{one_line(path)} cannot be read ({reason(error)}); check its permissions and the disk"
        ) from error
    raise DataError(
        f"{one_line(path)} has {size:,} bytes, which is no whole number of images of {_BYTES:,}: "
        f"delete it and download it again {_GET}"
    )


def _unpack(archive: Path, path: Path, notice: Callable[[str], None]) -> None:
    """Unpack one binary out of the archive of STL-10."""
    if not is_file(archive):
        raise DataError(
            f"stl10 is not in {one_line(archive.parent)}; expected stl10_binary/{path.name} or "
            f"{archive.name}: get it {_GET}, and give its folder as --data-dir"
        )
    notice(f"unpacking {path.name} of {one_line(archive)}, once")
    try:
        with tarfile.open(archive, "r|gz") as tar:
            for member in tar:
                if Path(member.name).name == path.name and member.isfile():
                    _copy(cast("IO[bytes]", tar.extractfile(member)), path)
                    return
    # TypeError: tarfile's way to say that a file ends in the first bytes of its header.
    except (OSError, EOFError, TypeError, tarfile.TarError, zlib.error) as error:
        raise DataError(
            f"{one_line(archive)} is damaged or cannot be read ({reason(error)}): delete it and "
            f"download it again {_GET}"
        ) from error
    raise DataError(
        f"{one_line(archive)} holds no {path.name}: delete it and download it again {_GET}"
    )


def _copy(stream: IO[bytes], path: Path) -> None:
    try:
        path.parent.mkdir(exist_ok=True)
        with replacing(path) as temporary, temporary.open("wb") as file:
            shutil.copyfileobj(stream, file)
    except OSError as error:
        raise OutputError(
            f"cannot unpack to {one_line(path)}: {reason(error)}; make room there, or unpack the "
            "archive by hand and give its folder as --data-dir"
        ) from error
