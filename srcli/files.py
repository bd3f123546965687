"""Files that appear whole or not at all: plain Python, no torch."""

import hashlib
import importlib
import os
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType

__all__ = [
    "AUTO",
    "DEFAULT_SHARPNESS",
    "TEMPORARY_SUFFIX",
    "abandon",
    "claimed",
    "is_file",
    "is_folder",
    "is_pipe",
    "is_there",
    "one_line",
    "reason",
    "replacing",
    "scratch",
    "shipped",
    "sweep",
]

AUTO = "auto"
"""What a person gives instead of weights to have them chosen for each file."""

DEFAULT_SHARPNESS = 0.5
"""How far ``srcli upscale`` mixes the weights that ``auto`` chooses among with their sharp
siblings, where there are any: 0 is not at all."""

TEMPORARY_SUFFIX = ".srcli-tmp"
"""What unfinished files are called, so that a leftover of a crash is known for what it is."""

_UNFINISHED: set[Path] = set()
"""The temporary files of this process."""

_LOCK_TRIES = 10
_LOCK_SECONDS = 0.02
"""How often and how long a lock is waited for: :func:`sweep` holds one for a moment, and so does a
process that is being killed."""

_FCNTL: ModuleType | None = None
with suppress(ImportError):  # Windows has no such locks
    _FCNTL = importlib.import_module("fcntl")


def is_there(path: Path) -> bool:
    """Whether a path names anything, a dangling link included.

    Like the two below it answers no where :mod:`pathlib` raises: a name too long for the file
    system, a loop of links, a folder that may not be searched.
    """
    return os.path.lexists(path)


def is_folder(path: Path) -> bool:
    """Whether a path leads to a folder."""
    return os.path.isdir(path)  # noqa: PTH112 - see is_there


def is_file(path: str | Path) -> bool:
    """Whether a path leads to a file."""
    return os.path.isfile(path)  # noqa: PTH113 - see is_there


def is_pipe(path: str | Path) -> bool:
    """Whether what a path leads to can be read once only: ``-``, a pipe, ``<(...)`` of a shell."""
    if str(path) == "-":
        return True
    with suppress(OSError):
        mode = os.stat(path).st_mode  # noqa: PTH116
        return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)
    return False


def one_line(text: str | Path) -> str:
    r"""Make a path or a codec's words safe to print on one line of any terminal.

    Example:
        >>> one_line("a photo.png"), one_line("two\nlines")
        ('a photo.png', 'two\\nlines')
    """
    text = str(text)
    return text if text.isprintable() else repr(text)[1:-1]


def reason(error: Exception) -> str:
    """Say in one line, safe to print, what an exception has to tell."""
    text = error.strerror if isinstance(error, OSError) else None
    return one_line(text or str(error) or type(error).__name__)


@contextmanager
def replacing(target: Path, modified: int | None = None) -> Iterator[Path]:
    """Give a temporary file beside ``target`` that becomes it when the block succeeds.

    The file and then its folder are synced to the disk, so that after a power cut the target is
    either the old file or the new one. The temporary file is removed on any failure but the
    sudden death of the process; what that leaves :func:`sweep` finds. Its name is short and
    random: a long target name must not make it too long for the file system.

    Args:
        target: The final path; its folder must exist.
        modified: When it is to have been changed, nanoseconds since 1970; None: now.

    Yields:
        The path of the temporary file, which is there and empty.

    Raises:
        OSError: What the file system says.
    """
    with scratch(target.parent) as temporary:
        yield temporary
        if modified is not None:
            os.utime(temporary, ns=(modified, modified))
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        temporary.replace(target)
        _sync_folder(target.parent)


@contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """Give a file that is gone after the block, and that :func:`sweep` finds after a crash.

    Yields:
        The path of the file in ``folder``, which must exist. It is there and empty.

    Raises:
        OSError: What the file system says.
    """
    path = folder / f".{secrets.token_hex(6)}{TEMPORARY_SUFFIX}"
    with _held(path):
        yield path


@contextmanager
def claimed(target: Path) -> Iterator[bool]:
    """Claim a file that is to be made, so that one process at a time makes it.

    A claim is the lock on a temporary file beside the target, named after it. The system takes it
    back however the process ends; :func:`sweep` finds the file, or the next claim takes it over.
    Where a file system knows no locks, and on Windows, whoever asks has the claim.

    Args:
        target: The final path. Its folder is made.

    Yields:
        Whether it is ours; False: another process is at it.

    Raises:
        OSError: What the file system says.
    """
    name = hashlib.sha256(os.fsencode(target.name)).hexdigest()[:12]
    target.parent.mkdir(parents=True, exist_ok=True)
    with _held(target.with_name(f".{name}{TEMPORARY_SUFFIX}")) as ours:
        yield ours


@contextmanager
def _held(path: Path) -> Iterator[bool]:
    """Make a file, and remove it after the block; False: a living process holds its lock."""
    number = _locked(path)
    if number is None:
        yield False
        return
    _UNFINISHED.add(path)
    try:
        yield True
    finally:
        path.unlink(missing_ok=True)
        _UNFINISHED.discard(path)
        os.close(number)


def _locked(path: Path) -> int | None:
    """Make, open and lock a file: the descriptor that holds the lock, or None."""
    for _ in range(_LOCK_TRIES):
        number = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        if _FCNTL is None:  # Windows, where an open file can be neither removed nor renamed
            os.close(number)
            return os.open(os.devnull, os.O_RDWR)
        try:
            _FCNTL.flock(number, _FCNTL.LOCK_EX | _FCNTL.LOCK_NB)
        except BlockingIOError:
            os.close(number)
            time.sleep(_LOCK_SECONDS)
            continue
        except OSError:  # a file system without locks
            return number
        if os.fstat(number).st_nlink:
            return number
        os.close(number)  # removed before it was locked: it was taken for a leftover
    return None


def abandon() -> None:
    """Remove the temporary files that other threads are writing: the process ends without them."""
    for path in list(_UNFINISHED):
        with suppress(OSError):
            path.unlink()


def sweep(folder: Path) -> None:
    """Remove the temporary files that processes which died have left in a folder, if it is there.

    A living writer holds a lock on its file, which the system takes back however the process
    ends; where a file system knows no locks, nothing is removed.
    """
    if _FCNTL is None:
        return
    found: list[Path] = []
    with suppress(OSError):
        found += folder.glob(f".*{TEMPORARY_SUFFIX}")
    for path in found:
        # Gone meanwhile, of another user, or held by a living process.
        with suppress(OSError), path.open("rb+") as file:
            _FCNTL.flock(file, _FCNTL.LOCK_EX | _FCNTL.LOCK_NB)
            path.unlink()


def _sync_folder(folder: Path) -> None:
    """Make a new name in a folder outlive a power cut, where folders can be synced."""
    with suppress(OSError):
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def shipped() -> dict[str, Path]:
    """Find the weights that travel with srcli.

    Returns:
        Path by name: beside the package in an installed copy, in ``weights/`` in a checkout.
    """
    package = Path(__file__).parent
    for folder in (package / "_shipped", package.parent / "weights"):
        if folder.is_dir():
            return {path.stem: path for path in sorted(folder.glob("*.safetensors"))}
    return {}
