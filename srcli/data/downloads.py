"""Download the data sets that srcli knows by name: checked, and resumed after an interruption.

A file is downloaded under another name beside its own, and gets its own only once its MD5 is the
published one. ``gdown`` transfers it, from Google Drive and from plain hosts alike. It is an
extra and slow to import, so it is imported when something is to be downloaded.
"""

import hashlib
from pathlib import Path
from typing import NamedTuple

from srcli.errors import DataError, OutputError, require_package
from srcli.files import is_there, one_line, reason

__all__ = ["PAGES", "REMOTES", "Remote", "download"]

_RETRIES = 5
"""How often one call resumes a broken connection, with growing pauses between."""

_TIMEOUT = 60.0
"""Seconds without a byte after which a connection counts as broken."""


class Remote(NamedTuple):
    """A file of a data set: its name in the data set's folder, where it is, and its MD5."""

    name: str
    url: str
    md5: str


PAGES = {
    "celeba": "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html",
    "stl10": "https://cs.stanford.edu/~acoates/stl10/",
}
"""Where a person can get a data set by hand when its host refuses a program."""

REMOTES = {
    "celeba": (
        Remote(
            "img_align_celeba.zip",
            "https://drive.google.com/uc?id=0B7EVK8r0v71pZjFTYXZWM3FlRnM",
            "00d2c5bc6d35e252742224ab0c1e8fcb",
        ),
        Remote(
            "list_eval_partition.txt",
            "https://drive.google.com/uc?id=0B7EVK8r0v71pY0NSMzRuSXJEVkk",
            "d32c9cbf5e040fd4025c592c306e6668",
        ),
    ),
    "stl10": (
        Remote(
            "stl10_binary.tar.gz",
            "http://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz",
            "91f7769df0f17e558f3565bffb0c7dfb",
        ),
    ),
}
"""The files of each data set; the Drive ids and the MD5 sums are those that torchvision checks."""


def download(dataset: str, folder: Path, *, quiet: bool = False) -> None:
    """Download the files of a data set that are not in a folder yet.

    What is there already is checked first, all of it, before anything is downloaded.

    Raises:
        UsageError: If the package that downloads is missing.
        DataError: If a host refuses or breaks off, or if a file, downloaded or found, is not the
            published one.
        OutputError: If the folder, or a file in it, cannot be written or read.
    """
    remotes = REMOTES[dataset]
    names = " and ".join(remote.name for remote in remotes)
    by_hand = f"put {names} from {PAGES[dataset]} into {one_line(folder)} by hand"
    try:
        for remote in [remote for remote in remotes if not _is_whole(remote, folder)]:
            _fetch(remote, folder, by_hand, quiet=quiet)
    except OSError as error:
        raise OutputError(
            f"cannot write or read {one_line(folder)}: {reason(error)}; make room or choose "
            "another folder"
        ) from error


def _is_whole(remote: Remote, folder: Path) -> bool:
    """Whether the file is in the folder; raise ``DataError`` if another file has its name."""
    path = folder / remote.name
    if not is_there(path):
        return False
    found = _md5(path)
    if found != remote.md5:
        raise DataError(
            f"{one_line(path)} is not the published file (its MD5 is {found}, not {remote.md5}); "
            "delete it to have it downloaded again"
        )
    return True


def _fetch(remote: Remote, folder: Path, by_hand: str, *, quiet: bool) -> None:
    """Download one file and name it if its MD5 is right."""
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = folder / f"{remote.name}.download"
    # It is there if a call was stopped after the last byte and before the check.
    if not is_there(unfinished):
        _receive(remote, unfinished, by_hand, quiet=quiet)
    found = _md5(unfinished)
    if found != remote.md5:
        unfinished.unlink()
        raise DataError(
            f"what {remote.url} sent is not the published {remote.name} (its MD5 is {found}, "
            f"not {remote.md5}) and was removed; try again, or {by_hand}"
        )
    unfinished.chmod(0o644)  # gdown's files are readable by their owner alone
    unfinished.replace(folder / remote.name)


def _receive(remote: Remote, unfinished: Path, by_hand: str, *, quiet: bool) -> None:
    """Download one file to its last byte, from where an earlier call stopped."""
    require_package("gdown", "train", "--download")
    import gdown  # noqa: PLC0415 - an extra, and slow to import

    try:
        gdown.download(
            remote.url,
            str(unfinished),
            quiet=quiet,
            use_cookies=False,
            resume=True,
            timeout=_TIMEOUT,
            retries=_RETRIES,
        )
    except (gdown.DownloadError, OSError) as error:
        # What requests raises is an OSError as well, but one without a number.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        why = one_line(" ".join(str(error).split()).rstrip("."))
        raise DataError(
            f"cannot download {remote.name}: {why}; try again later, delete "
            f"{one_line(unfinished)}*.part to start anew, or {by_hand}"
        ) from error


def _md5(path: Path) -> str:
    # The sum detects damage, not malice; declared so, it is computed under FIPS rules as well.
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
