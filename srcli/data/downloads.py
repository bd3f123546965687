"""Download the data sets that srcli knows by name: checked, and resumed after an interruption.

A file is downloaded under another name beside its own, and gets its own only once its MD5 is the
published one. ``gdown`` transfers it, from Google Drive and from plain hosts alike: it resumes
both. It is an extra and slow to import, so it is imported when something is to be downloaded.
"""

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, ModuleType

from srcli.errors import DataError, OutputError, UsageError
from srcli.files import is_there, one_line, replacing

__all__ = ["REMOTES", "Remote", "download"]

_RETRIES = 5
"""How often one call resumes a broken connection, with growing pauses between."""

_TIMEOUT = 60.0
"""Seconds without a byte after which a connection counts as broken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """A file of a data set, where it is and what it is known by."""

    name: str
    """What the file is called in the data set's folder."""

    url: str
    """Where it is fetched from; ``https://drive.google.com/uc?id=ID`` is Google Drive's file."""

    md5: str
    """32 lower-case hexadecimal digits."""

    page: str
    """Where a person can get it by hand when the host refuses a program."""


_CELEBA = "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html"
_STL10 = "https://cs.stanford.edu/~acoates/stl10/"

REMOTES: Mapping[str, tuple[Remote, ...]] = MappingProxyType(
    {
        "celeba": (
            Remote(
                name="img_align_celeba.zip",
                url="https://drive.google.com/uc?id=0B7EVK8r0v71pZjFTYXZWM3FlRnM",
                md5="00d2c5bc6d35e252742224ab0c1e8fcb",
                page=_CELEBA,
            ),
            Remote(
                name="list_eval_partition.txt",
                url="https://drive.google.com/uc?id=0B7EVK8r0v71pY0NSMzRuSXJEVkk",
                md5="d32c9cbf5e040fd4025c592c306e6668",
                page=_CELEBA,
            ),
        ),
        "stl10": (
            Remote(
                name="stl10_binary.tar.gz",
                url="http://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz",
                md5="91f7769df0f17e558f3565bffb0c7dfb",
                page=_STL10,
            ),
        ),
    }
)
"""The files of each data set, in the order in which they are fetched.

CelebA: Liu, Luo, Wang, Tang: Deep Learning Face Attributes in the Wild, ICCV 2015. STL-10:
Coates, Lee, Ng: An Analysis of Single-Layer Networks in Unsupervised Feature Learning,
AISTATS 2011. The Drive ids and the MD5 sums are those that torchvision checks.
"""


def download(
    dataset: str,
    folder: Path,
    *,
    quiet: bool = False,
    notice: Callable[[str], None] = lambda _: None,
) -> list[Path]:
    """Download the files of a data set that are not in a folder yet.

    What is there already is checked first, all of it, before anything is downloaded.

    Args:
        dataset: A key of :data:`REMOTES`.
        folder: Where the files go; it is made if it is missing.
        quiet: No progress bar and nothing else on stderr.
        notice: Called with one line for what is worth knowing.

    Returns:
        The paths of all files of the data set, in the order of :data:`REMOTES`.

    Raises:
        UsageError: If the data set is not one of them, or the package that downloads is missing.
        DataError: If a host refuses or breaks off, or if a file, downloaded or found, is not the
            published one.
        OutputError: If the folder cannot be written to.
    """
    if dataset not in REMOTES:
        known = " or ".join(REMOTES)
        raise UsageError(f"the data set {one_line(dataset)} cannot be downloaded; choose {known}")
    remotes = REMOTES[dataset]
    missing = [remote for remote in remotes if not _is_whole(remote, folder, notice)]
    for index, remote in enumerate(missing):
        with _errors_in_one_line(missing[index:], folder):
            folder.mkdir(parents=True, exist_ok=True)
            _fetch(remote, folder, quiet=quiet)
    return [folder / remote.name for remote in remotes]


def _is_whole(remote: Remote, folder: Path, notice: Callable[[str], None]) -> bool:
    """Whether the file is in the folder; raise ``DataError`` if another file has its name."""
    path = folder / remote.name
    if not is_there(path):
        return False
    shown = one_line(str(path))
    try:
        found = _md5(path)
    except OSError as error:
        raise DataError(
            f"cannot read {shown}: {error.strerror}; check it or choose another folder"
        ) from error
    if found != remote.md5:
        raise DataError(
            f"{shown} is not the published file (its MD5 is {found}, not {remote.md5}); "
            "delete it to have it downloaded again"
        )
    notice(f"{shown} is already there")
    return True


def _fetch(remote: Remote, folder: Path, *, quiet: bool) -> None:
    """Download one file, from where an earlier call stopped, and name it if its MD5 is right."""
    unfinished, target = folder / f"{remote.name}.download", folder / remote.name
    # It is there if a call was stopped after the last byte and before the check.
    if not is_there(unfinished):
        _gdown().download(
            remote.url,
            str(unfinished),
            quiet=quiet,
            use_cookies=False,
            resume=True,
            log_messages={"start": "", "output": f"To: {one_line(str(target))}\n"},
            timeout=_TIMEOUT,
            retries=_RETRIES,
        )
    found = _md5(unfinished)
    if found != remote.md5:
        unfinished.unlink()
        raise DataError(
            f"what {remote.url} sent is not the published {remote.name} (its MD5 is {found}, "
            f"not {remote.md5}) and was removed; try again, or {_by_hand([remote], folder)}"
        )
    unfinished.chmod(0o644)  # gdown's files are readable by their owner alone
    with replacing(target) as temporary:
        unfinished.replace(temporary)


def _gdown() -> ModuleType:
    try:
        import gdown  # noqa: PLC0415 - an extra, and slow to import
    except ImportError as error:
        raise UsageError(
            "--download needs the package gdown, which is not installed; install it with: "
            "pip install 'srcli[train]'"
        ) from error
    return gdown


def _md5(path: Path) -> str:
    # The sum detects damage, not malice; declared so, it is computed under FIPS rules as well.
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


@contextmanager
def _errors_in_one_line(missing: Sequence[Remote], folder: Path) -> Iterator[None]:
    """Turn what gdown and the disk raise over the first of the missing files into one line."""
    gdown = _gdown()
    try:
        yield
    except gdown.DownloadError as error:
        raise _refusal(error, missing, folder) from error
    except OSError as error:
        # What requests raises is an OSError as well, but one without a number.
        if error.errno is None:
            raise _refusal(error, missing, folder) from error
        shown = one_line(str(folder / missing[0].name))
        raise OutputError(
            f"cannot write {shown}: {error.strerror}; make room or choose another folder"
        ) from error


def _refusal(error: Exception, missing: Sequence[Remote], folder: Path) -> DataError:
    """Say that the first of the missing files did not come, and how a person gets them all."""
    name = missing[0].name
    partial = ""
    if "byte range" in str(error) or "multiple temporary" in str(error):  # it would never resume
        partial = f"delete {one_line(str(folder / name))}.download*.part to start anew, "
    return DataError(
        f"cannot download {name}: {_reason(error)}; {partial}try again later, "
        f"or {_by_hand(missing, folder)}"
    )


def _by_hand(missing: Sequence[Remote], folder: Path) -> str:
    """Say what a person is to download, from which page, and where to put it."""
    names = " and ".join(remote.name for remote in missing)
    pages = " and ".join(dict.fromkeys(remote.page for remote in missing))
    them = "it" if len(missing) == 1 else "them"
    return f"get {names} by hand from {pages} and put {them} into {one_line(str(folder))}"


def _reason(error: Exception) -> str:
    """Pick what gdown says is wrong out of its message, without its heading and its advice."""
    text = str(error).removeprefix("Failed to retrieve file url:").strip()
    said = re.split(r"\n\n|\.\n", text, maxsplit=1)[0]
    return one_line(" ".join(said.split()).rstrip(".")) or type(error).__name__
