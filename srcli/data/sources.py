"""Where training and evaluation images come from: CelebA, STL-10, any folder.

A source is a list of images, each read on its own when it is wanted: three hundred thousand of
them are never in memory together. CelebA is read as it is handed out, the archive untouched or
unpacked; STL-10 from its binary files, mapped into memory.
"""

import lzma
import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from srcli.data.downloads import REMOTES
from srcli.errors import DataError, ImageError, OutputError, UsageError
from srcli.files import is_file, is_folder, is_there, one_line, replacing
from srcli.imaging import images

__all__ = [
    "CELEBA_IMAGES",
    "DATASETS",
    "STL10",
    "STL10_IMAGES",
    "CelebA",
    "Folder",
    "Source",
    "absolute",
    "image_files",
    "open_source",
    "parse",
]

CELEBA_IMAGES = 202_599
"""Images of the whole CelebA."""

STL10_IMAGES = 100_000
"""Images of STL-10's unlabelled split."""

_CELEBA_PARTITIONS = ("train", "valid", "test")
"""What 0, 1 and 2 in ``list_eval_partition.txt`` stand for."""

_STL10_SPLITS = ("unlabeled", "train", "test")

DATASETS = {"celeba": _CELEBA_PARTITIONS, "stl10": _STL10_SPLITS}
"""The data sets that have a name, and the parts that may be asked for by ``name:part``."""

_STL10_SIDE = 96
_STL10_BYTES = 3 * _STL10_SIDE**2

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

_CELEBA_MEMBER = re.compile(r"(?:.*/)?img_align_celeba/([^./][^/]*\.jpg)")
"""An image in the archive; not the ``._`` file, which is no image, that a Mac adds for each."""

_CELEBA_PAGE = REMOTES["celeba"][0].page
_STL10_PAGE = REMOTES["stl10"][0].page


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
        """Tell width and height without decoding.

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
        """Tell width and height without decoding."""
        return images.read_size(self.files[index])


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
        if len(found) < CELEBA_IMAGES:
            notice(
                f"celeba: {len(found):,} of the {CELEBA_IMAGES:,} images are in {_shown(root)}; "
                "going on with these"
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
        """Tell width and height without decoding."""
        return images.read_size(Path(self.label(index)), self._bytes(index))

    def _chosen(self, partitions: Sequence[str]) -> list[str]:
        if not partitions or set(partitions) == set(_CELEBA_PARTITIONS):
            return sorted(self._found)
        part_of = _read_partitions(self._root)
        chosen = sorted(name for name in self._found if part_of.get(name) in partitions)
        if not chosen:
            raise DataError(
                f"celeba in {_shown(self._root)} holds no image of the partition "
                f"{' or '.join(partitions)}, by list_eval_partition.txt, among its "
                f"{len(self._found):,}; give another one, or fetch all with --download or from "
                f"{_CELEBA_PAGE}"
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
                f"({_reason(error)}); fetch the archive again"
            ) from error


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

    name = "stl10"

    def __init__(
        self,
        root: Path,
        splits: Sequence[str] = (),
        notice: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._parts: list[tuple[str, Path, NDArray[np.uint8]]] = []
        for split in splits or ("unlabeled",):
            path = root / "stl10_binary" / f"{split}_X.bin"
            if not is_file(path):
                _unpack(root, path, notice)
            self._parts.append((split, path, _mapped(path)))
        self._ends = np.cumsum([len(part) for _, _, part in self._parts])
        if not splits and len(self) < STL10_IMAGES:
            notice(
                f"stl10: {len(self):,} of the {STL10_IMAGES:,} images are in {_shown(root)}; "
                "going on with these"
            )

    def __len__(self) -> int:
        return int(self._ends[-1])

    def key(self, index: int) -> str:
        """Name an image by its split and its place there."""
        split, _, _, place = self._at(index)
        return f"stl10/{split}/{place}"

    def label(self, index: int) -> str:
        """Say where an image is."""
        _, path, _, place = self._at(index)
        return f"{path}[{place}]"

    def read(self, index: int) -> NDArray[np.uint8 | np.uint16]:
        """Copy an image out of the file: ``(96, 96, 3)``."""
        _, _, part, place = self._at(index)
        return np.ascontiguousarray(part[place].transpose(2, 1, 0))

    def size(self, index: int) -> tuple[int, int]:  # noqa: ARG002 - a source's
        """Tell width and height."""
        return _STL10_SIDE, _STL10_SIDE

    def _at(self, index: int) -> tuple[str, Path, NDArray[np.uint8], int]:
        which = int(np.searchsorted(self._ends, index, side="right"))
        split, path, part = self._parts[which]
        return split, path, part, index - int(self._ends[which]) + len(part)


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


def open_source(
    text: str, data_dir: Path, notice: Callable[[str], None] = lambda _: None
) -> Source:
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


def image_files(folder: Path) -> list[Path]:
    """List the images below a folder, sorted by path; hidden files and folders left out.

    Raises:
        DataError: If it is not a folder or holds none.
    """
    if not is_folder(folder):
        found = "is a file" if is_there(folder) else "does not exist"
        raise DataError(
            f"--dataset {one_line(str(folder))} {found}; give a folder of images, or one of "
            f"{', '.join(DATASETS)}"
        )
    files = images.files_in(folder, recursive=True)
    if not files:
        kinds = ", ".join(sorted(images.READABLE_SUFFIXES))
        raise DataError(
            f"--dataset {one_line(str(folder))} holds no image ({kinds}); give another folder"
        )
    return files


def _shown(path: Path) -> str:
    return one_line(str(path))


def _reason(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) else None
    return one_line(text or str(error) or type(error).__name__)


def _no_celeba(root: Path, holders: Sequence[Path]) -> str:
    empty = [path.name for path in holders if is_there(path)]
    found = _held(root) + (f" (with no image in {' or '.join(empty)})" if empty else "")
    return (
        f"celeba is not in {_shown(root)}, which {found}; expected img_align_celeba/ or "
        f"img_align_celeba.zip, and list_eval_partition.txt: fetch them with --download, or from "
        f"{_CELEBA_PAGE} and give their folder as --data-dir"
    )


def _held(root: Path) -> str:
    """Say what is in a folder that should hold a data set."""
    if not is_folder(root):
        return "is a file" if is_there(root) else "does not exist"
    try:
        names = sorted(path.name for path in root.iterdir() if not path.name.startswith("."))
    except OSError as error:
        return f"cannot be listed ({_reason(error)})"
    if not names:
        return "is empty"
    shown = ", ".join(one_line(name) for name in names[:4])
    return f"holds {shown}" + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _open_zip(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except _ZIP_DAMAGE as error:
        raise DataError(
            f"{_shown(path)} cannot be read as a zip file ({_reason(error)}): delete it and fetch "
            f"it again with --download or from {_CELEBA_PAGE}"
        ) from error


def _members(archive: zipfile.ZipFile) -> dict[str, str]:
    """Find the images in an archive: the name of each, and the member's."""
    found = map(_CELEBA_MEMBER.fullmatch, archive.namelist())
    return {match[1]: match[0] for match in found if match}


def _read_partitions(root: Path) -> dict[str, str]:
    """Read which partition each image is of."""
    path = root / "list_eval_partition.txt"
    partition = dict(zip("012", _CELEBA_PARTITIONS, strict=True))
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
        fields = (line.split() for line in lines if line.strip())
        return {name: partition[number] for name, number in fields}
    except OSError as error:
        raise DataError(
            f"{_shown(path)} says which image is of which partition and cannot be read "
            f"({_reason(error)}): fetch it with --download or from {_CELEBA_PAGE}"
        ) from error
    except (ValueError, KeyError) as error:
        raise DataError(
            f"{_shown(path)} does not hold lines such as '000001.jpg 0': delete it and fetch it "
            f"again with --download or from {_CELEBA_PAGE}"
        ) from error


def _mapped(path: Path) -> NDArray[np.uint8]:
    """Map a binary of STL-10 into memory: ``(n, 3, 96, 96)``, columns before rows."""
    try:
        size = path.stat().st_size
        levels = np.memmap(path, np.uint8, "r") if size else np.empty(0, np.uint8)
    except OSError as error:
        raise DataError(
            f"{_shown(path)} cannot be read ({_reason(error)}); check its permissions and the disk"
        ) from error
    if size == 0 or size % _STL10_BYTES:
        raise DataError(
            f"{_shown(path)} has {size:,} bytes, which is no whole number of images of "
            f"{_STL10_BYTES:,}: delete it and fetch it again with --download or from {_STL10_PAGE}"
        )
    return levels.reshape(-1, 3, _STL10_SIDE, _STL10_SIDE)


def _unpack(root: Path, path: Path, notice: Callable[[str], None]) -> None:
    """Unpack one binary out of the archive of STL-10."""
    archive = root / "stl10_binary.tar.gz"
    if not is_file(archive):
        raise DataError(
            f"stl10 is not in {_shown(root)}, which {_held(root)}; expected "
            f"stl10_binary/{path.name} or stl10_binary.tar.gz: fetch it with --download, or from "
            f"{_STL10_PAGE} and give its folder as --data-dir"
        )
    notice(f"unpacking {path.name} of {_shown(archive)}, once")
    try:
        with tarfile.open(archive, "r|gz") as tar:
            for member in tar:
                if Path(member.name).name == path.name and member.isfile():
                    _copy(cast("IO[bytes]", tar.extractfile(member)), path)
                    return
    # TypeError: tarfile's way to say that a file ends in the first bytes of its header.
    except (OSError, EOFError, TypeError, tarfile.TarError, zlib.error) as error:
        raise DataError(
            f"{_shown(archive)} is damaged or cannot be read ({_reason(error)}): delete it and "
            f"fetch it again with --download or from {_STL10_PAGE}"
        ) from error
    raise DataError(
        f"{_shown(archive)} holds no {path.name}: delete it and fetch it again with --download or "
        f"from {_STL10_PAGE}"
    )


def _copy(stream: IO[bytes], path: Path) -> None:
    try:
        path.parent.mkdir(exist_ok=True)
        with replacing(path) as temporary, temporary.open("wb") as file:
            while chunk := stream.read(1 << 22):
                file.write(chunk)
    except OSError as error:
        raise OutputError(
            f"cannot unpack to {_shown(path)}: {_reason(error)}; make room there, or unpack the "
            "archive by hand and give its folder as --data-dir"
        ) from error
