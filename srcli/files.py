"""Files that appear whole or not at all: plain Python, no torch."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = [
    "TEMPORARY_SUFFIX",
    "is_file",
    "is_folder",
    "is_there",
    "one_line",
    "reason",
    "replacing",
]

TEMPORARY_SUFFIX = ".srcli-tmp"
"""What unfinished files are called, so that a leftover of a crash is known for what it is."""


def is_there(path: Path) -> bool:
    """Whether a path names anything, a dangling link included.

    Like the two below it answers no where :mod:`pathlib` raises: a name too long for the file
    system, a loop of links, a folder that may not be searched.
    """
    return os.path.lexists(path)


def is_folder(path: Path) -> bool:
    """Whether a path leads to a folder."""
    return os.path.isdir(path)  # noqa: PTH112 - see is_there


def is_file(path: Path) -> bool:
    """Whether a path leads to a file."""
    return os.path.isfile(path)  # noqa: PTH113 - see is_there


def one_line(text: str) -> str:
    r"""Make a file name or a codec's words safe to print on one line of any terminal.

    Example:
        >>> one_line("a photo.png"), one_line("two\nlines")
        ('a photo.png', 'two\\nlines')
    """
    return text if text.isprintable() else repr(text)[1:-1]


def reason(error: Exception) -> str:
    """Say in one line, safe to print, what an exception has to tell."""
    text = error.strerror if isinstance(error, OSError) else None
    return one_line(text or str(error) or type(error).__name__)


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Give a temporary path beside ``target`` that becomes it when the block succeeds.

    The file is synced to the disk before it is renamed, so that after a power cut the target
    is either the old file or the new one. The temporary file is removed on any failure. Its
    name is short and random: a long target name must not make it too long for the file system.

    Args:
        target: The final path; its folder must exist.

    Yields:
        The temporary path. The block creates the file there.

    Raises:
        OSError: What the file system says.
    """
    temporary = target.with_name(f".{secrets.token_hex(6)}{TEMPORARY_SUFFIX}")
    try:
        yield temporary
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
