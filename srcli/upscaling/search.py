"""What inputs stand for: images in folders, those that a pattern matches, those of a list."""

import glob
import heapq
import os
import re
import sys
import unicodedata
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Self

from pathspec.patterns.gitignore.basic import GitIgnoreBasicPattern as Pattern

from srcli.errors import OutputError, UsageError
from srcli.files import is_folder, is_there, one_line, reason, replacing
from srcli.imaging.formats import FOUND_SUFFIXES
from srcli.upscaling.selection import Selection

__all__ = [
    "SEPARATORS",
    "Filters",
    "Found",
    "Identity",
    "Parts",
    "expand",
    "folded",
    "identity",
    "parts_of",
    "read_list",
    "walk",
    "write_list",
]

Parts = tuple[str, ...]
"""A path below a folder: the names on the way."""

Identity = tuple[int, int]
"""Device and number of a file: the same for every name that leads to it."""

SEPARATORS: Final = "/" if os.sep == "/" else "/\\"

_STARS: Final = re.compile(rf"(^|[{re.escape(SEPARATORS)}])\*\*($|[{re.escape(SEPARATORS)}])")

_PRIVATE_FOLDERS: Final = {"@eadir", "__macosx", "$recycle.bin", "system volume information"}
"""Thumbnails of a NAS, forks of a Mac, Windows' bin: in lower case."""

_ERRORS: Final = sys.getfilesystemencodeerrors()
"""How bytes of a name that are no UTF-8 become text and back: as Python does for paths."""


def identity(path: str | Path) -> Identity:
    """Look up what a path leads to.

    Raises:
        OSError: If it leads nowhere.
    """
    status = os.stat(path)  # noqa: PTH116
    return status.st_dev, status.st_ino


def parts_of(text: str) -> Parts:
    """Split a path into its names."""
    names = re.split(f"[{re.escape(SEPARATORS)}]", text)
    return tuple(name for name in names if name not in {"", "."})


def folded(name: str) -> str:
    """Return a name without its case and Unicode form."""
    if name.isascii():
        return name.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


# ---- patterns -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Filters:
    """What ``include`` and ``exclude`` leave of what is found."""

    names: tuple[Pattern, ...] = ()
    """Of ``include``, about the file's name alone."""

    paths: tuple[Pattern, ...] = ()
    """Of ``include``, about its path below the folder."""

    exclude: tuple[Pattern, ...] = ()

    @classmethod
    def of(cls, selection: Selection) -> Self:
        """Read the patterns of a selection."""
        by_name = [text for text in selection.include if not set(SEPARATORS) & set(text)]
        by_path = [text for text in selection.include if text not in by_name]
        return cls(*(tuple(map(_filter, some)) for some in (by_name, by_path, selection.exclude)))

    def below(self, folder: Parts) -> Self:
        """Leave out the patterns that would exclude a folder which is named itself: it is meant."""
        path = folded("/".join(folder)) + "/"
        return replace(self, exclude=tuple(one for one in self.exclude if not _match([one], path)))

    def takes(self, parts: Parts) -> bool:
        """Whether a file is kept."""
        path = folded("/".join(parts))
        if _match(self.exclude, path):
            return False
        if not self.names and not self.paths:
            return True
        return _match(self.names, folded(parts[-1])) or _match(self.paths, path)

    def enters(self, parts: Parts) -> bool:
        """Whether a folder is searched."""
        return not (self.exclude and _match(self.exclude, folded("/".join(parts)) + "/"))


def _match(patterns: Iterable[Pattern], path: str) -> bool:
    """Whether a pattern matches a path, or a folder on its way."""
    return any(pattern.match_file(path) is not None for pattern in patterns)


def _filter(text: str) -> Pattern:
    """Read a pattern of an option: without a slash before its end it may match anywhere."""
    anchored = set(SEPARATORS) & set(text.rstrip(SEPARATORS))
    return _compiled(text if anchored else f"**/{text}", folded)


def _compiled(text: str, fold: Callable[[str], str]) -> Pattern:
    r"""Read a pattern about a whole path, in which ``\``, ``!``, ``#`` and spaces mean nothing."""
    # Stars in a row say what one says, and would be tried in every combination.
    names = [name if name == "**" else re.sub(r"\*+", "*", name) for name in parts_of(text)]
    path = re.sub(r"[\\ ]", r"\\\g<0>", fold("/".join(names)))
    return Pattern(f"/{path}{'/' if text.endswith(tuple(SEPARATORS)) else ''}")


def expand(text: str, filters: Filters) -> list[str]:
    """Return a path as it is; of a pattern that the shell left alone the images, sorted.

    A folder that cannot be read is returned as well: its job will say so.

    Raises:
        UsageError: If the text is empty.
    """
    if not text or "\0" in text:
        raise UsageError("an input is empty; give a file, a folder or a pattern")
    if is_there(Path(text)) or not glob.has_magic(text):
        return [text]
    stars = _STARS.search(text)
    if stars is None:
        head, rest = os.path.split(text)
    else:  # Python's own would run in circles through links
        head, rest = text[: stars.start()] or stars[1], f"**/{text[stars.end() :] or '*'}"
    if not rest:
        return []
    pattern, names = _compiled(rest, os.path.normcase), parts_of(text)
    fixed = next(index for index, name in enumerate(names) if glob.has_magic(name))
    found: list[str] = []
    # Not Path.glob: it refuses absolute patterns, and a pattern may be one.
    for folder in glob.glob(head) if glob.has_magic(head) else [head]:  # noqa: PTH207
        below = parts_of(folder)[fixed:]
        # A private folder is to be named, not matched.
        private = any(_is_private(part) and part not in names for part in below)
        if private or not is_folder(Path(folder or os.curdir)):
            continue
        if below and not filters.enters(below):
            continue
        inside = walk(
            folder or os.curdir,
            filters,
            recursive=stars is not None,
            below=below,
            hidden=rest.startswith("."),
        )
        found += [
            os.path.join(folder, *one.parts) or os.curdir  # noqa: PTH118
            for one in inside
            if one.is_folder or _match([pattern], os.path.normcase("/".join(one.parts)))
        ]
    return sorted(found, key=parts_of)


# ---- folders ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Found:
    """What a folder gave: an image, or what cannot be read and why."""

    parts: Parts
    problem: str | None = None
    is_folder: bool = False


def walk(
    folder: str,
    filters: Filters,
    *,
    recursive: bool,
    below: Parts = (),
    skip: Container[Identity] = (),
    hidden: bool = False,
) -> list[Found]:
    """List the images of a folder, sorted by path.

    Real folders come before links to them, so that what is found has its own name wherever it
    has one; each is searched once, so that links in a circle end. (``Path.walk`` follows them
    for ever, and says nothing of a folder that cannot be read.)

    Args:
        folder: Where to look.
        filters: What is left of what is found.
        recursive: Whether to look below the first level too.
        below: The way to ``folder`` from where patterns begin.
        skip: Folders that are left out wherever they are found.
        hidden: Whether names that begin with a dot count.

    Returns:
        Paths below ``folder``.
    """
    filters = filters.below(below)
    found: list[Found] = []
    seen: set[Identity] = set()
    folders: list[Parts] = [()]
    links: list[Parts] = []
    while folders or links:
        parts = folders.pop() if folders else heapq.heappop(links)
        path = os.path.join(folder, *parts)  # noqa: PTH118
        try:
            number = identity(path)
            if number in seen or (parts and number in skip):
                continue
            seen.add(number)
            with os.scandir(path) as entries:
                listing = [one for one in entries if hidden or not one.name.startswith(".")]
        except OSError as error:
            why = f"the folder cannot be read ({reason(error)})"
            problem = f"{why}; check the path and its permissions"
            found.append(Found(parts, problem, is_folder=True))
            continue
        for entry in listing:
            way = (*parts, entry.name)
            if _is_folder(entry):
                if recursive and not _is_private(entry.name) and filters.enters((*below, *way)):
                    if entry.is_symlink():
                        heapq.heappush(links, way)
                    else:
                        folders.append(way)
            elif _has_image_suffix(entry.name) and filters.takes((*below, *way)):
                found.append(Found(way, _problem(entry)))
    return sorted(found, key=lambda one: one.parts)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder or leads to one, or seems meant to: to a disk that is not there."""
    if not entry.is_symlink():
        return entry.is_dir()
    lost = "." not in entry.name and not os.path.exists(entry.path)  # noqa: PTH110
    return lost or os.path.isdir(entry.path)  # noqa: PTH112 - see files.is_folder


def _problem(entry: os.DirEntry[str]) -> str | None:
    is_file = entry.is_file(follow_symlinks=False) or os.path.isfile(entry.path)  # noqa: PTH113
    return None if is_file else "it is no file, and no link to one; check what it is"


def _is_private(folder: str) -> bool:
    return folder.casefold() in _PRIVATE_FOLDERS


def _has_image_suffix(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in FOUND_SUFFIXES  # noqa: PTH122


# ---- lists --------------------------------------------------------------------------------


def read_list(source: str) -> list[str]:
    """Read a list of paths: one a line, or separated by NULs if it contains one.

    Empty lines, a byte order mark and the ends of lines of Windows are left out; everything
    else, such as spaces, is part of the name.

    Args:
        source: A path, or ``-`` for stdin.

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


def _bytes_of(source: str) -> bytes:
    if source == "-" and sys.stdin is None:  # started with it closed, as some daemons do
        raise UsageError("there is no stdin to read the list @- from; give @LIST")
    try:
        return sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
    except OSError as error:
        name, way = one_line(source), "check the path"
        if is_there(Path(f"@{source}")):
            way = f"give ./@{name} for the file of that name"
        raise UsageError(f"cannot read the list {name}: {reason(error)}; {way}") from error


def write_list(path: Path, entries: Iterable[str]) -> None:
    """Write a list of paths that :func:`read_list` reads as they are, whole or not at all.

    One a line; each ended by a NUL where a name contains what ends a line.

    Raises:
        OutputError: If it cannot be written.
    """
    kept = list(entries)
    end = "\0" if any(set("\n\r\ufeff") & set(entry) for entry in kept) else "\n"
    data = "".join(f"{entry}{end}" for entry in kept).encode("utf-8", _ERRORS)
    try:
        with replacing(path) as temporary:
            temporary.write_bytes(data)
    except OSError as error:
        raise OutputError(
            f"cannot write the list {one_line(str(path))}: {reason(error)}; choose another path"
        ) from error
