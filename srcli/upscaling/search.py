"""What inputs stand for: images in folders, those that a pattern matches, those of a list."""

import codecs
import fnmatch
import glob
import heapq
import os
import re
import sys
import unicodedata
import warnings
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from pathspec.patterns.gitignore.basic import GitIgnoreBasicPattern as Pattern

from srcli.errors import ImageError, UsageError
from srcli.files import is_file, is_folder, is_there, one_line, reason
from srcli.imaging.formats import FOUND_SUFFIXES, LEFT_OUT_SUFFIXES, RAW_SUFFIXES, format_at
from srcli.upscaling.config import BatchConfig
from srcli.upscaling.left_out import LeftOut

__all__ = [
    "SEPARATORS",
    "Filters",
    "Found",
    "Identity",
    "Parts",
    "expand",
    "folded",
    "identity",
    "is_list",
    "joined_list",
    "parts_of",
    "read_list",
    "walk",
]

Parts = tuple[str, ...]
"""A path below a folder: the names on the way."""

Identity = tuple[int, int]
"""Device and number of a file: the same for every name that leads to it."""

SEPARATORS: Final = "/" if os.sep == "/" else "/\\"
_SEPARATOR: Final = f"[{re.escape(SEPARATORS)}]"

_PRIVATE_FOLDERS: Final = {"@eadir", "__macosx", "$recycle.bin", "system volume information"}
"""Thumbnails of a NAS, forks of a Mac, Windows' bin: in lower case."""

_NO_PICTURES: Final = {".thm", ".bak", ".tmp", ".part", ".partial", ".crdownload", ".download"}
"""Thumbnails of videos, backups and what is still fetched, in lower case: not looked into."""

_MOST_GLANCED: Final = 1000
"""Folders in which a search of the first level alone looks for one picture."""

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
    return tuple(name for name in re.split(_SEPARATOR, text) if name not in {"", "."})


def folded(name: str) -> str:
    """Return a name without its case and Unicode form."""
    if name.isascii():
        return name.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


@dataclass(frozen=True, slots=True)
class Found:
    """What a folder gave: an image, or what cannot be read and why."""

    parts: Parts
    problem: str | None = None
    is_folder: bool = False
    is_unread: bool = False
    """Whether it is a picture of a kind that is not read."""


# ---- patterns -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Filters:
    """What ``include`` and ``exclude`` leave of what is found."""

    include: tuple[Pattern, ...] = ()
    exclude: tuple[Pattern, ...] = ()

    @classmethod
    def of(cls, config: BatchConfig) -> Self:
        """Read the patterns of a config."""
        return cls(_filters(config.include), _filters(config.exclude))

    def takes(self, parts: Parts) -> bool:
        """Whether a file is kept."""
        if not (self.include or self.exclude):
            return True
        path = folded("/".join(parts))
        return not _match(self.exclude, path) and (not self.include or _match(self.include, path))

    def enters(self, parts: Parts) -> bool:
        """Whether a folder is searched."""
        return not (self.exclude and _match(self.exclude, folded("/".join(parts)) + "/"))


def _match(patterns: Iterable[Pattern], path: str) -> bool:
    return any(pattern.match_file(path) is not None for pattern in patterns)


def _filters(texts: Iterable[str]) -> tuple[Pattern, ...]:
    r"""Read patterns of an option: without a slash before its end one may match anywhere.

    ``\``, ``!``, ``#`` and spaces mean nothing in them. Brackets are a choice of letters, and
    besides may be what they are in many names.
    """
    found: list[Pattern] = []
    for text in texts:
        # Stars in a row say what one says, and would be tried in every combination.
        names = [name if name == "**" else re.sub(r"\*+", "*", name) for name in parts_of(text)]
        start = "/" if set(SEPARATORS) & set(text.rstrip(SEPARATORS)) else "/**/"
        path, end = folded("/".join(names)), "/" if text.endswith(tuple(SEPARATORS)) else ""
        escaped = (re.sub(signs, r"\\\g<0>", path) for signs in (r"[\\ ]", r"[\\ \[\]]"))
        with warnings.catch_warnings():  # [[] means a bracket, today and in later versions of re
            warnings.simplefilter("ignore", FutureWarning)
            found += [Pattern(f"{start}{one}{end}") for one in dict.fromkeys(escaped)]
    return tuple(found)


def expand(text: str, filters: Filters, left_out: LeftOut) -> list[str]:
    """Return a path as it is; of a pattern that the shell left alone the images, sorted.

    A folder that cannot be read is returned as well: its job will say so. What is there under a
    name with brackets is meant by it. With a slash at its end a pattern stands for folders.

    Raises:
        UsageError: If the text is empty.
    """
    if not text:
        raise UsageError("an input is empty; give a file, a folder or a pattern")
    if is_there(Path(text)) or not glob.has_magic(text):
        return [text]
    folder = Path(text).anchor
    names = [name for name in re.split(_SEPARATOR, text[len(folder) :]) if name]
    while names[1:] and (is_there(Path(folder, names[0])) or not glob.has_magic(names[0])):
        folder = os.path.join(folder, names.pop(0))  # noqa: PTH118 - which keeps a tree's mark
    if text.endswith(tuple(SEPARATORS)):
        return _folders(folder, names, filters)
    if names[-1] == "**":
        names.append("*")
    found = []
    if is_folder(Path(folder or os.curdir)):
        for one in walk(folder or os.curdir, filters, names=tuple(names)):
            path = os.path.join(folder, *one.parts) or os.curdir  # noqa: PTH118
            if one.is_unread:
                left_out.add_unread(path)
            else:
                found.append(path)
    return sorted(found, key=parts_of)


def _folders(folder: str, names: list[str], filters: Filters) -> list[str]:
    """List the folders that a pattern stands for, sorted."""
    below = os.path.join(*names, "")  # noqa: PTH118
    return sorted(
        os.path.join(folder, path)  # noqa: PTH118
        for form in {below, below.replace("[", "[[]")}
        for path in glob.glob(form, root_dir=folder or None)  # noqa: PTH207
        if not _is_private(parts_of(path)[-1]) and filters.enters(parts_of(path))
    )


def _fits(parts: Parts, names: Parts, *, begins: bool = False) -> bool:
    """Whether a path fits the names of a pattern, or begins one that may."""
    if not parts or not names:
        return bool(names) if begins and not parts else not parts and not names
    if names[0] == "**":
        less = names[1:2] != ("**",) and _fits(parts[1:], names, begins=begins)
        return less or _fits(parts, names[1:], begins=begins)
    # Brackets are a choice of letters, and besides what they are in many names.
    forms = (names[0], names[0].replace("[", "[[]"))
    fits = any(fnmatch.fnmatch(parts[0], form) for form in forms)
    return fits and _fits(parts[1:], names[1:], begins=begins)


# ---- folders ------------------------------------------------------------------------------


def walk(
    folder: str,
    filters: Filters,
    *,
    names: Parts = ("**", "*"),
    below: Parts = (),
    skip: Container[Identity] = (),
    glance: bool = False,
) -> Iterator[Found]:
    """Find the images of a folder: first those of its first level, in any order.

    Real folders come before links to them, so that what is found has its own name wherever it
    has one; each is searched once, so that links in a circle end. (``Path.walk`` follows them
    for ever, and says nothing of a folder that cannot be read.)

    Args:
        folder: Where to look.
        filters: What is left of what is found.
        names: Those of a pattern that what is found fits; by default all fit.
        below: The way to ``folder`` from where patterns begin.
        skip: Folders that are left out wherever they are found.
        glance: Whether to look into some folders only below the first level.
    """
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
            if glance and len(seen) > _MOST_GLANCED:
                return
            seen.add(number)
            with os.scandir(path) as entries:
                listing = [one for one in entries if not one.name.startswith(".")]
        except OSError as error:
            why = f"the folder cannot be read ({reason(error)})"
            problem = f"{why}; check the path and its permissions"
            yield Found(parts, problem, is_folder=True)
            continue
        for entry in listing:
            way = (*parts, entry.name)
            if not _is_folder(entry):
                if filters.takes((*below, *way)) and _fits(way, names):
                    yield from _looked_at(entry, way)
            elif (
                _fits(way, names, begins=True)
                and not _is_private(entry.name)
                and filters.enters((*below, *way))
            ):
                if entry.is_symlink():
                    heapq.heappush(links, way)
                else:
                    folders.append(way)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder or leads to one, or seems meant to: to a disk that is not there."""
    if not entry.is_symlink():
        return entry.is_dir()
    lost = "." not in entry.name and not os.path.exists(entry.path)  # noqa: PTH110
    return lost or os.path.isdir(entry.path)  # noqa: PTH112 - see files.is_folder


def _looked_at(entry: os.DirEntry[str], way: Parts) -> Iterator[Found]:
    """Tell a picture by its suffix, or where that says nothing by how it begins."""
    suffix = os.path.splitext(entry.name)[1].lower()  # noqa: PTH122
    if suffix in FOUND_SUFFIXES:
        there = entry.is_file(follow_symlinks=False) or is_file(entry.path)
        yield Found(way, None if there else "it is no file, and no link to one; check what it is")
    elif not (suffix in _NO_PICTURES or entry.name.endswith(("_original", "~"))):
        try:
            name = format_at(entry.path)
            # What is in a raw file's first directory is as a rule not its photograph.
            is_read = name is not None and not (name == "TIFF" and suffix in RAW_SUFFIXES)
            is_unread = not is_read and suffix in LEFT_OUT_SUFFIXES
        except ImageError:
            is_unread, is_read = True, False
        if is_read or is_unread:
            yield Found(way, is_unread=is_unread)


def _is_private(folder: str) -> bool:
    return folder.casefold() in _PRIVATE_FOLDERS


# ---- lists --------------------------------------------------------------------------------


def is_list(text: str) -> bool:
    """Whether an input names a list, and no file or folder of that name; or such a pattern."""
    if text == "@-" or not text.startswith("@"):
        return text == "@-"
    return not is_there(Path(text)) and (is_there(Path(text[1:])) or not glob.has_magic(text))


def read_list(source: str) -> list[str]:
    """Read a list of paths: one a line, or separated by NULs if it contains one.

    It is UTF-8, or UTF-16 with a byte order mark. Empty lines, the mark and the ends of lines of
    Windows are left out; everything else, such as spaces, is part of the name.

    Args:
        source: A path, or ``-`` for stdin.

    Raises:
        UsageError: If it cannot be read.
    """
    try:
        data = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
    except OSError as error:
        raise UsageError(
            f"cannot read the list {one_line(source)}: {reason(error)}; check the path"
        ) from error
    if data.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n")):
        raise UsageError(f"the list {one_line(source)} is a picture; give it without the @")
    try:
        text = _decoded(data)
    except UnicodeDecodeError as error:  # on Windows; elsewhere any bytes can be a name
        raise UsageError(f"the list {one_line(source)} is not UTF-8; write it as such") from error
    if "\0" in text:
        return [entry for entry in text.split("\0") if entry]
    lines = (line.removesuffix("\r") for line in text.removeprefix("\ufeff").split("\n"))
    return [line for line in lines if line]


def _decoded(data: bytes) -> str:
    # PowerShell writes UTF-16; a name may begin with such bytes, but has no NUL.
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) and b"\0" in data
    return data.decode("utf-16") if wide else data.decode("utf-8", _ERRORS)


def joined_list(entries: Iterable[str]) -> bytes:
    """Return what :func:`read_list` reads as these paths.

    One a line; each ended by a NUL where a name contains what ends a line.
    """
    kept = list(entries)
    end = "\0" if any(set("\n\r\ufeff") & set(entry) for entry in kept) else "\n"
    return "".join(f"{entry}{end}" for entry in kept).encode("utf-8", _ERRORS)
