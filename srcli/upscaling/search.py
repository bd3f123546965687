"""What inputs stand for: images in folders, those that a pattern matches, those of a list."""

import codecs
import glob
import heapq
import os
import re
import sys
import unicodedata
import warnings
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Self

from pathspec.patterns.gitignore.basic import GitIgnoreBasicPattern as Pattern

from srcli.errors import ImageError, UsageError
from srcli.files import is_file, is_folder, is_there, one_line, reason
from srcli.imaging.formats import FOUND_SUFFIXES, LEFT_OUT_SUFFIXES, RAW_SUFFIXES
from srcli.imaging.kinds import format_at
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

_STARS: Final = re.compile(rf"(^|[{re.escape(SEPARATORS)}])\*\*($|[{re.escape(SEPARATORS)}])")

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
    names = re.split(f"[{re.escape(SEPARATORS)}]", text)
    return tuple(name for name in names if name not in {"", "."})


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

    @property
    def is_deeper(self) -> bool:
        """Whether it lies below the first level."""
        return len(self.parts) + self.is_folder > 1


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

    def below(self, folder: Parts) -> Self:
        """Leave out the patterns that would exclude a folder which is named itself: it is meant."""
        path = folded("/".join(folder)) + "/"
        return replace(self, exclude=tuple(one for one in self.exclude if not _match([one], path)))

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
    """Whether a pattern matches a path, or a folder on its way."""
    return any(pattern.match_file(path) is not None for pattern in patterns)


def _filters(texts: Iterable[str]) -> tuple[Pattern, ...]:
    """Read patterns of an option: without a slash before its end one may match anywhere."""
    anchored = (
        text if set(SEPARATORS) & set(text.rstrip(SEPARATORS)) else f"**/{text}" for text in texts
    )
    return tuple(pattern for text in anchored for pattern in _compiled(text, folded))


def _compiled(text: str, fold: Callable[[str], str]) -> tuple[Pattern, ...]:
    r"""Read a pattern about a whole path, in which ``\``, ``!``, ``#`` and spaces mean nothing.

    Brackets are a choice of letters, and besides may be what they are in many names.
    """
    # Stars in a row say what one says, and would be tried in every combination.
    names = [name if name == "**" else re.sub(r"\*+", "*", name) for name in parts_of(text)]
    path, end = fold("/".join(names)), "/" if text.endswith(tuple(SEPARATORS)) else ""
    escaped = (re.sub(signs, r"\\\g<0>", path) for signs in (r"[\\ ]", r"[\\ \[\]]"))
    with warnings.catch_warnings():  # [[] means a bracket, today and in later versions of re
        warnings.simplefilter("ignore", FutureWarning)
        return tuple(Pattern(f"/{one}{end}") for one in dict.fromkeys(escaped))


def expand(text: str, filters: Filters, left_out: LeftOut) -> list[str]:
    """Return a path as it is; of a pattern that the shell left alone the images, sorted.

    A folder that cannot be read is returned as well: its job will say so. What is there under a
    name with brackets is meant by it, in the middle of a pattern too. With a slash at its end a
    pattern stands for folders.

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
    names = parts_of(text)
    found: list[str] = []
    for folder, below in _folders(head):
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
        found += _matching(inside, folder, rest, left_out) if rest else [f"{folder}{os.sep}"]
    return sorted(found, key=parts_of)


def _matching(inside: Iterable[Found], folder: str, rest: str, left_out: LeftOut) -> Iterator[str]:
    """Pick what fits the rest of a pattern; count what fits and is not read."""
    patterns = _compiled(rest, os.path.normcase)
    for one in inside:
        path = os.path.join(folder, *one.parts) or os.curdir  # noqa: PTH118
        if one.is_folder or _match(patterns, os.path.normcase("/".join(one.parts))):
            if one.is_unread:
                left_out.add_unread(path)
            else:
                yield path


def _folders(head: str) -> list[tuple[str, Parts]]:
    """List what the folders of a pattern stand for, each with its way from the first magic name."""
    start = Path(head).anchor
    found: list[tuple[str, Parts]] = [(start, ())]
    for name in re.split(f"[{re.escape(SEPARATORS)}]+", head[len(start) :]):
        found = [
            (path, (*below, os.path.basename(path)) if below or path != literal else ())  # noqa: PTH119
            for folder, below in found
            for literal in [os.path.join(folder, name)]  # noqa: PTH118
            for path in (
                [literal]
                if is_there(Path(literal)) or not glob.has_magic(name)
                # Not Path.glob: it refuses absolute patterns, and a pattern may be one.
                # Brackets are a choice of letters, and besides what they are in many names.
                else dict.fromkeys(
                    path
                    for text in (name, name.replace("[", "[[]"))
                    for path in glob.glob(os.path.join(glob.escape(folder), text))  # noqa: PTH118, PTH207
                )
            )
        ]
    return found


# ---- folders ------------------------------------------------------------------------------


def walk(
    folder: str,
    filters: Filters,
    *,
    recursive: bool | None,
    below: Parts = (),
    skip: Container[Identity] = (),
    hidden: bool = False,
) -> Iterator[Found]:
    """Find the images of a folder: first those of its first level, in any order.

    Real folders come before links to them, so that what is found has its own name wherever it
    has one; each is searched once, so that links in a circle end. (``Path.walk`` follows them
    for ever, and says nothing of a folder that cannot be read.)

    Args:
        folder: Where to look.
        filters: What is left of what is found.
        recursive: Whether to look below the first level too; None: in some folders there.
        below: The way to ``folder`` from where patterns begin.
        skip: Folders that are left out wherever they are found.
        hidden: Whether names that begin with a dot count.
    """
    filters = filters.below(below)
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
            if recursive is None and len(seen) > _MOST_GLANCED:
                return
            seen.add(number)
            with os.scandir(path) as entries:
                listing = [one for one in entries if hidden or not one.name.startswith(".")]
        except OSError as error:
            why = f"the folder cannot be read ({reason(error)})"
            problem = f"{why}; check the path and its permissions"
            yield Found(parts, problem, is_folder=True)
            continue
        for entry in listing:
            way = (*parts, entry.name)
            if not _is_folder(entry):
                yield from _looked_at(entry, way) if filters.takes((*below, *way)) else ()
            elif (
                recursive is False or _is_private(entry.name) or not filters.enters((*below, *way))
            ):
                continue
            elif entry.is_symlink():
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
    # PowerShell writes UTF-16; a name may begin with such bytes, but has no NUL.
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) and b"\0" in data
    try:
        text = data.decode("utf-16") if wide else data.decode("utf-8", _ERRORS)
    except UnicodeDecodeError as error:  # on Windows; elsewhere any bytes can be a name
        raise UsageError(f"the list {one_line(source)} is not UTF-8; write it as such") from error
    if "\0" in text:
        return [entry for entry in text.split("\0") if entry]
    lines = (line.removesuffix("\r") for line in text.removeprefix("\ufeff").split("\n"))
    return [line for line in lines if line]


def joined_list(entries: Iterable[str]) -> bytes:
    """Return what :func:`read_list` reads as these paths.

    One a line; each ended by a NUL where a name contains what ends a line.
    """
    kept = list(entries)
    end = "\0" if any(set("\n\r\ufeff") & set(entry) for entry in kept) else "\n"
    return "".join(f"{entry}{end}" for entry in kept).encode("utf-8", _ERRORS)
