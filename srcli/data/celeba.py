"""CelebA, read as it is handed out: the archive untouched, or unpacked."""

import lzma
import re
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

from srcli.data.choices import DATASETS
from srcli.data.downloads import PAGES
from srcli.data.folders import Files, files_in
from srcli.errors import DataError, ImageError
from srcli.files import is_file, is_folder, one_line, reason

__all__ = ["IMAGES", "CelebA"]

IMAGES = 202_599
"""Images of the whole data set."""

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

_GET = f"with --download, or from {PAGES['celeba']}"


class CelebA(Files):
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

    def __init__(
        self, root: Path, partitions: Sequence[str], notice: Callable[[str], None]
    ) -> None:
        holder = root / "img_align_celeba"
        self._zip: zipfile.ZipFile | None = None
        files = files_in(holder) if is_folder(holder) else []
        self._members = {path.name: path.name for path in files}
        """An image's name, and what it is called in the archive."""
        archive = root / "img_align_celeba.zip"
        if not files and is_file(archive):
            holder, self._zip = archive, _open_zip(archive)
            found = filter(None, map(_MEMBER.fullmatch, self._zip.namelist()))
            self._members = {match[1]: match[0] for match in found}
        if not self._members:
            raise DataError(
                f"no image of celeba is in {one_line(root)}; expected img_align_celeba/ or "
                f"img_align_celeba.zip, and list_eval_partition.txt: get them {_GET}, and give "
                "their folder as --data-dir"
            )
        names = sorted(self._members)
        if partitions and set(partitions) != set(DATASETS["celeba"]):
            part_of = _read_partitions(root / "list_eval_partition.txt")
            names = [name for name in names if part_of.get(name) in partitions]
        if not names:
            raise DataError(
                f"celeba in {one_line(root)} holds no image of the partition "
                f"{' or '.join(partitions)}, by list_eval_partition.txt, among its "
                f"{len(self._members):,}; give another one, or get all {_GET}"
            )
        if len(self._members) < IMAGES:
            notice(
                f"celeba: {len(self._members):,} of the {IMAGES:,} images are in "
                f"{one_line(root)}; continuing with these"
            )
        super().__init__([holder / name for name in names])

    def _content(self, index: int) -> bytes | None:
        if self._zip is None:
            return None
        try:  # several threads may read one archive: it locks what has to be locked
            return self._zip.read(self._members[self.key(index)])
        except _ZIP_DAMAGE as error:
            raise ImageError(
                f"{one_line(self.label(index))}: cannot be read out of the archive "
                f"({reason(error)}); download the archive again"
            ) from error


def _open_zip(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except _ZIP_DAMAGE as error:
        raise DataError(
            f"{one_line(path)} cannot be read as a zip file ({reason(error)}): delete it and "
            f"download it again {_GET}"
        ) from error


def _read_partitions(path: Path) -> dict[str, str]:
    """Read which partition each image is of."""
    partition = dict(zip("012", DATASETS["celeba"], strict=True))
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
        fields = (line.split() for line in lines if line.strip())
        return {name: partition[number] for name, number in fields}
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            f"{one_line(path)} does not say in lines such as '000001.jpg 0' which image is of "
            f"which partition ({reason(error)}): delete it and download it again {_GET}"
        ) from error
