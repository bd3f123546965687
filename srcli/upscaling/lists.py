"""Lists of paths: what ``@LIST`` reads and ``--failed-list`` writes."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from srcli.errors import OutputError, UsageError
from srcli.files import is_there, one_line, reason, replacing

__all__ = ["read_list", "write_list"]

_ERRORS: Final = sys.getfilesystemencodeerrors()
"""How bytes of a name that are no UTF-8 become text and back: as Python does for paths."""


def read_list(source: str) -> list[str]:
    """Read a list of paths: one a line, or separated by NULs if it contains one.

    Empty lines, a byte order mark and the ends of lines of Windows are left out; everything
    else, such as spaces, is part of the name.

    Args:
        source: A path, or ``-`` for stdin.

    Returns:
        The paths as they stand there, relative to the working directory.

    Raises:
        UsageError: If there is no such list or it cannot be read.
    """
    try:
        text = _bytes_of(source).decode("utf-8", _ERRORS)
    except UnicodeDecodeError as error:  # on Windows; elsewhere any bytes can be a name
        raise UsageError(f"the list {one_line(source)} is not UTF-8; write it as such") from error
    if "\0" in text:
        return [entry for entry in text.split("\0") if entry]
    lines = (line.removesuffix("\r") for line in text.removeprefix("\ufeff").split("\n"))
    return [line for line in lines if line]


def write_list(path: Path, entries: Iterable[str]) -> None:
    """Write a list of paths that :func:`read_list` reads as they are, whole or not at all.

    One a line; each ended by a NUL where a name contains what ends a line.

    Args:
        path: The file, replaced if it is there; its folder must exist.
        entries: What ``Job.entry`` says.

    Raises:
        OutputError: If it cannot be written.
    """
    kept = list(entries)
    lines = not any("\n" in entry or "\r" in entry or "\ufeff" in entry for entry in kept)
    end = "\n" if lines else "\0"
    data = "".join(f"{entry}{end}" for entry in kept).encode("utf-8", _ERRORS)
    try:
        with replacing(path) as temporary:
            temporary.write_bytes(data)
    except OSError as error:
        raise OutputError(
            f"cannot write the list {one_line(str(path))}: {reason(error)}; choose another path"
        ) from error


def _bytes_of(source: str) -> bytes:
    if source == "-" and sys.stdin is None:  # started with it closed, as some daemons do
        raise UsageError("there is no stdin to read the list @- from; give @LIST")
    try:
        return sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
    except OSError as error:
        name = one_line(source)
        way = "check the path"
        if is_there(Path(f"@{source}")):
            way = f"give ./@{name} for the file of that name"
        raise UsageError(f"cannot read the list {name}: {reason(error)}; {way}") from error
