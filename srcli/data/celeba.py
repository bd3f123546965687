"""CelebA, read as it is handed out: the archive untouched, or unpacked."""

import lzma
import re
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from srcli.data.downloads import REMOTES
from srcli.data.folders import contents_of, shown
from srcli.errors import DataError, ImageError
from srcli.files import is_file, is_folder, is_there, one_line, reason
from srcli.imaging import images

__all__ = ["IMAGES", "PARTITIONS", "CelebA"]

IMAGES = 202_599
"""Images of the whole data set."""

PARTITIONS = ("train", "valid", "test")
"""What 0, 1 and 2 in ``list_eval_partition.txt`` stand for."""

_ZIP_DAMAGE = (
    OSError,
    EOFError,
    ValueError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
)
"""What :mod:`zipfile` raises when it runs into damage, a strange compression or a password."""

_MEMBER = re.compile(r"(?:.*/)?img_align_celeba/([^./][^/]*\.jpg)")
"""An image in the archive; not the ``._`` file, which is no image, that a Mac adds for each."""

_PAGE = REMOTES["celeba"][0].page


class CelebA:
    """The aligned faces of CelebA, 178x218, out of the folder or the untouched archive.

    Liu, Luo, Wang, Tang: Deep Learning Face Attributes in the Wild, ICCV 2015.

    Args:
        root: Folder with ``img_align_celeba/`` or ``img_align_celeba.zip``, and
            ``list_eval_partition.txt``.
        partitions: Some of train, valid and test; empty for all.
        notice: Called with one line if images are missing.

    Raises:
        DataError: If the layout is another one.
    """

    name = "celeba"

    def __init__(
        self,
        root: Path,
        partitions: Sequence[str] = (),
        notice: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._root = root
        folder, archive = root / "img_align_celeba", root / "img_align_celeba.zip"
        self._zip: zipfile.ZipFile | None = None
        found: dict[str, str] = {}  # an image's name, and the archive's member of that name
        if is_folder(folder):
            found = {path.name: path.name for path in images.files_in(folder, recursive=False)}
        self._holder = folder if found else archive
        if not found and is_file(archive):
            self._zip = _open_zip(archive)
            found = _members(self._zip)
        if not found:
            raise DataError(_no_celeba(root, [folder, archive]))
        self._found = found
        self._names = self._chosen(partitions)
        if len(found) < IMAGES:
            notice(
                f"celeba: {len(found):,} of the {IMAGES:,} images are in {shown(root)}; "
                "continuing with these"
            )

    def __len__(self) -> int:
        return len(self._names)

    def key(self, index: int) -> str:
        """Name an image as the official lists do."""
        return self._names[index]

    def label(self, index: int) -> str:
        """Say where an image is."""
        return str(self._holder / self._names[index])

    def read(self, index: int) -> NDArray[np.uint8 | np.uint16]:
        """Decode an image."""
        return images.read(Path(self.label(index)), self._bytes(index)).pixels

    def size(self, index: int) -> tuple[int, int]:
        """Return width and height without decoding."""
        return images.read_size(Path(self.label(index)), self._bytes(index))

    def _chosen(self, partitions: Sequence[str]) -> list[str]:
        if not partitions or set(partitions) == set(PARTITIONS):
            return sorted(self._found)
        part_of = _read_partitions(self._root)
        chosen = sorted(name for name in self._found if part_of.get(name) in partitions)
        if not chosen:
            raise DataError(
                f"celeba in {shown(self._root)} holds no image of the partition "
                f"{' or '.join(partitions)}, by list_eval_partition.txt, among its "
                f"{len(self._found):,}; give another one, or get all with --download or from "
                f"{_PAGE}"
            )
        return chosen

    def _bytes(self, index: int) -> bytes | None:
        if self._zip is None:
            return None
        try:  # several threads may read one archive: it locks what has to be locked
            return self._zip.read(self._found[self._names[index]])
        except _ZIP_DAMAGE as error:
            raise ImageError(
                f"{one_line(self.label(index))}: cannot be read out of the archive "
                f"({reason(error)}); download the archive again"
            ) from error


def _no_celeba(root: Path, holders: Sequence[Path]) -> str:
    empty = [path.name for path in holders if is_there(path)]
    found = contents_of(root) + (f" (with no image in {' or '.join(empty)})" if empty else "")
    return (
        f"celeba is not in {shown(root)}, which {found}; expected img_align_celeba/ or "
        f"img_align_celeba.zip, and list_eval_partition.txt: get them with --download, or from "
        f"{_PAGE} and give their folder as --data-dir"
    )


def _open_zip(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except _ZIP_DAMAGE as error:
        raise DataError(
            f"{shown(path)} cannot be read as a zip file ({reason(error)}): delete it and "
            f"download it again with --download or from {_PAGE}"
        ) from error


def _members(archive: zipfile.ZipFile) -> dict[str, str]:
    """Find the images in an archive: the name of each, and the member's."""
    found = map(_MEMBER.fullmatch, archive.namelist())
    return {match[1]: match[0] for match in found if match}


def _read_partitions(root: Path) -> dict[str, str]:
    """Read which partition each image is of."""
    path = root / "list_eval_partition.txt"
    partition = dict(zip("012", PARTITIONS, strict=True))
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
        fields = (line.split() for line in lines if line.strip())
        return {name: partition[number] for name, number in fields}
    except OSError as error:
        raise DataError(
            f"{shown(path)} says which image is of which partition and cannot be read "
            f"({reason(error)}): get it with --download or from {_PAGE}"
        ) from error
    except (ValueError, KeyError) as error:
        raise DataError(
            f"{shown(path)} does not hold lines such as '000001.jpg 0': delete it and "
            f"download it again with --download or from {_PAGE}"
        ) from error
