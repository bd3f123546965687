"""Fetch the data sets that srcli knows by name: whole, checked, resumed after an interruption.

A file is fetched under another name beside its own, and gets its own only once its MD5 is the
published one. ``gdown`` does the talking, to Google Drive and to plain hosts alike; it takes
long to import, so it is imported when something is to be fetched.
"""

import glob
import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path
from types import MappingProxyType

from srcli.errors import DataError, OutputError, UsageError
from srcli.files import is_there, one_line

__all__ = ["REMOTES", "Remote", "download", "fetch"]

_RETRIES = 5
"""How often one call takes up a broken connection again, with growing pauses between."""

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
    """Fetch the files of a data set that are not in a folder yet.

    What is there already is checked first, all of it, before anything is fetched.

    Args:
        dataset: A key of :data:`REMOTES`.
        folder: Where the files go; it is made if it is missing.
        quiet: No progress bar and nothing else on stderr.
        notice: Called with one line for what is worth knowing.

    Returns:
        The paths of all files of the data set, in the order of :data:`REMOTES`.

    Raises:
        UsageError: If the data set is not one of them.
        DataError: If a host refuses or breaks off, or if a file, fetched or found, is not the
            published one.
        OutputError: If the folder cannot be written to.
    """
    if dataset not in REMOTES:
        known = " or ".join(REMOTES)
        raise UsageError(f"the data set {one_line(dataset)} cannot be fetched; choose {known}")
    return _fetch_missing(REMOTES[dataset], folder, quiet=quiet, notice=notice)


def fetch(remote: Remote, folder: Path, *, quiet: bool = False) -> Path:
    """Fetch one file unless it is in the folder already, going on where a call broke off.

    Args:
        remote: What to fetch.
        folder: Where the file goes; it is made if it is missing.
        quiet: No progress bar and nothing else on stderr.

    Returns:
        The path of the file, whose MD5 is right.

    Raises:
        DataError: If the host refuses or breaks off, or if the file, fetched or found, is not
            the published one.
        OutputError: If the folder cannot be written to.
    """
    (path,) = _fetch_missing((remote,), folder, quiet=quiet, notice=lambda _: None)
    return path


def _fetch_missing(
    remotes: Sequence[Remote], folder: Path, *, quiet: bool, notice: Callable[[str], None]
) -> list[Path]:
    """Fetch in order what is not in the folder; give the paths of all."""
    missing = [remote for remote in remotes if not _is_whole(remote, folder, notice)]
    for index, remote in enumerate(missing):
        unfinished = folder / f"{remote.name}.download"
        with _explained(missing[index:], folder):
            folder.mkdir(parents=True, exist_ok=True)
            # It is there if a call was stopped after the last byte and before the check.
            if not is_there(unfinished):
                _transfer(remote, unfinished, quiet=quiet, notice=notice)
            _accept(remote, unfinished, folder)
    return [folder / remote.name for remote in remotes]


def _is_whole(remote: Remote, folder: Path, notice: Callable[[str], None]) -> bool:
    """Whether the file is in the folder; raise ``DataError`` if another file has its name."""
    path = folder / remote.name
    if not is_there(path):
        return False
    shown = one_line(str(path))
    try:
        with path.open("rb") as file:
            found = _md5(file)
    except OSError as error:
        raise DataError(
            f"cannot read {shown}: {error.strerror}; check it or choose another folder"
        ) from error
    if found != remote.md5:
        raise DataError(
            f"{shown} is not the published file (its MD5 is {found}, not {remote.md5}); "
            "delete it to have it fetched again"
        )
    notice(f"{shown} is already there")
    return True


def _transfer(
    remote: Remote, unfinished: Path, *, quiet: bool, notice: Callable[[str], None]
) -> None:
    """Fetch into ``unfinished``, from where an earlier call stopped if the host can do that."""
    import gdown  # noqa: PLC0415 - see the module's docstring

    before = _partials(unfinished)
    try:
        _request(remote, unfinished, quiet=quiet)
    except gdown.DownloadError as error:
        # What the network breaks off has a cause or has brought something, and a refusal has a
        # class of its own: to go on later helps. What is left would fail the same for ever: the
        # host sends no parts of a file, or there are two partial files.
        hopeful = error.__cause__ is not None or isinstance(error, gdown.FileURLRetrievalError)
        if hopeful or before != _partials(unfinished):
            raise
        notice(f"{remote.name} cannot be resumed; it is fetched from the start")
        for partial in before:
            partial.unlink()
        _request(remote, unfinished, quiet=quiet)


def _request(remote: Remote, unfinished: Path, *, quiet: bool) -> None:
    """Let gdown fetch a file; it keeps what has arrived beside ``unfinished`` if it fails."""
    import gdown  # noqa: PLC0415 - see the module's docstring

    target = one_line(str(unfinished.with_name(remote.name)))
    gdown.download(
        remote.url,
        str(unfinished),
        quiet=quiet,
        use_cookies=False,
        resume=True,
        log_messages={"start": "", "output": f"To: {target}\n"},
        timeout=_TIMEOUT,
        retries=_RETRIES,
    )


def _partials(unfinished: Path) -> dict[Path, int]:
    """Find what gdown keeps of an interrupted download, and how many bytes it is."""
    # gdown puts eight random characters and this suffix behind the name that it is given.
    pattern = f"{glob.escape(unfinished.name)}{'?' * 8}.part"
    return {path: path.stat().st_size for path in unfinished.parent.glob(pattern)}


def _accept(remote: Remote, unfinished: Path, folder: Path) -> None:
    """Give a fetched file its name if its MD5 is right; otherwise remove it."""
    with unfinished.open("rb+") as file:
        found = _md5(file)
        os.fsync(file.fileno())
    if found != remote.md5:
        unfinished.unlink()
        raise DataError(
            f"what {remote.url} sent is not the published {remote.name} (its MD5 is {found}, "
            f"not {remote.md5}) and was removed; try again, or {_by_hand([remote], folder)}"
        )
    unfinished.chmod(_usual_mode())
    unfinished.replace(folder / remote.name)


def _md5(file: BufferedIOBase) -> str:
    """Compute the MD5 of an open file in hexadecimal digits."""
    # The sum finds damage, not malice; said so, it is computed under FIPS rules as well.
    return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _usual_mode() -> int:
    """Work out the mode of a new file; gdown's are its owner's alone."""
    umask = os.umask(0)
    os.umask(umask)
    return 0o666 & ~umask


@contextmanager
def _explained(missing: Sequence[Remote], folder: Path) -> Iterator[None]:
    """Turn what gdown and the disk raise over the first of the missing files into one line."""
    import gdown  # noqa: PLC0415 - see the module's docstring

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
    return DataError(
        f"cannot fetch {missing[0].name}: {_reason(error)}; "
        f"try again later, or {_by_hand(missing, folder)}"
    )


def _by_hand(missing: Sequence[Remote], folder: Path) -> str:
    """Say what a person is to fetch, from which page, and where to put it."""
    names = " and ".join(remote.name for remote in missing)
    pages = " and ".join(dict.fromkeys(remote.page for remote in missing))
    them = "it" if len(missing) == 1 else "them"
    return f"get {names} by hand from {pages} and put {them} into {one_line(str(folder))}"


def _reason(error: Exception) -> str:
    """Pick what gdown says is wrong out of what it says, without its heading and its advice."""
    text = str(error).removeprefix("Failed to retrieve file url:").strip()
    said = re.split(r"\n\n|\.\n", text, maxsplit=1)[0]
    return one_line(" ".join(said.split()).rstrip(".")) or type(error).__name__
