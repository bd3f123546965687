"""Images in folders, and those that a pattern matches."""

import glob
import heapq
import itertools
import os
import re
from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from srcli.errors import UsageError
from srcli.files import is_folder, is_there, reason
from srcli.imaging.formats import FOUND_SUFFIXES
from srcli.upscaling.patterns import SEPARATORS, Filters, Parts, compiled, matches, parts_of

__all__ = ["Found", "Identity", "expand", "identity", "walk"]

Identity = tuple[int, int]
"""Device and number of a file: the same for every name that leads to it."""

_STARS: Final = re.compile(rf"(^|[{re.escape(SEPARATORS)}])\*\*($|[{re.escape(SEPARATORS)}])")

_PRIVATE_FOLDERS: Final = frozenset(
    {"@eadir", "__macosx", "$recycle.bin", "system volume information"}
)
"""Thumbnails of a NAS, forks of a Mac, Windows' bin: in lower case."""

_PROBLEMS: Final = {"file": None, "other": "it is no file, and no link to one; check what it is"}
"""The kinds of entries that a picture is looked for in, and what is wrong with them."""


def identity(path: str | Path) -> Identity:
    """Look up what a path leads to.

    Raises:
        OSError: If it leads nowhere.
    """
    status = os.stat(path)  # noqa: PTH116
    return status.st_dev, status.st_ino


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
            listing = _listing(path)
        except OSError as error:
            problem = (
                f"the folder cannot be read ({reason(error)}); check the path and its permissions"
            )
            found.append(Found(parts, problem, is_folder=True))
            continue
        for name, kind in listing:
            way = (*parts, name)
            if kind in _PROBLEMS and filters.takes((*below, *way)):
                found.append(Found(way, _PROBLEMS[kind]))
            elif kind in {"folder", "link"} and recursive and filters.enters((*below, *way)):
                if kind == "folder":
                    folders.append(way)
                else:
                    heapq.heappush(links, way)
    return sorted(found, key=lambda one: one.parts)


def _listing(folder: str) -> list[tuple[str, str]]:
    """Name what may count in a folder, and its kind: folder, link (to a folder), file, other."""
    with os.scandir(folder) as entries:
        kinds = [(entry.name, _kind(entry)) for entry in entries if entry.name[0] != "."]
    return sorted((name, kind) for name, kind in kinds if kind)


def _kind(entry: os.DirEntry[str]) -> str:
    if entry.is_dir(follow_symlinks=False):
        return "" if _is_private(entry.name) else "folder"
    if entry.is_symlink() and _is_for_folder(entry):
        return "" if _is_private(entry.name) else "link"
    if not _has_image_suffix(entry.name):
        return ""
    is_file = entry.is_file(follow_symlinks=False) or os.path.isfile(entry.path)  # noqa: PTH113
    return "file" if is_file else "other"


def _is_for_folder(link: os.DirEntry[str]) -> bool:
    """Whether a link leads to a folder, or seems to be meant to: to a disk that is not there."""
    lost = "." not in link.name and not os.path.exists(link.path)  # noqa: PTH110
    return lost or os.path.isdir(link.path)  # noqa: PTH112 - see files.is_folder


def _is_private(folder: str) -> bool:
    return folder.casefold() in _PRIVATE_FOLDERS


def _has_image_suffix(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in FOUND_SUFFIXES  # noqa: PTH122


# ---- patterns -----------------------------------------------------------------------------


def expand(text: str, filters: Filters) -> list[str]:
    """Give a path as it is; a pattern that the shell left alone as the images it matches, sorted.

    Raises:
        UsageError: If the text is empty.
    """
    if not text or "\0" in text:
        raise UsageError("an input is empty; give a file, a folder or a pattern")
    if is_there(Path(text)) or not glob.has_magic(text):
        return [text]
    folders = parts_of(text)[:-1]
    fixed = len(list(itertools.takewhile(lambda part: not glob.has_magic(part), folders)))
    stars = _STARS.search(text)
    found = _flat(text, filters, fixed) if stars is None else _tree(text, stars, filters, fixed)
    return sorted(found, key=parts_of)


def _flat(text: str, filters: Filters, fixed: int) -> Iterator[str]:
    """What a pattern without ``**`` matches; ``fixed`` names before it are no patterns."""
    literal = set(parts_of(text))
    # Not Path.glob: it refuses absolute patterns, and a pattern may be one.
    for match in glob.glob(text):  # noqa: PTH207
        parts = parts_of(match)[fixed:]
        if (
            _has_image_suffix(match)
            and filters.takes(parts)
            and _reaches(parts[:-1], literal)
            and not is_folder(Path(match))
        ):
            yield match


def _tree(text: str, stars: re.Match[str], filters: Filters, fixed: int) -> Iterator[str]:
    """What a pattern with ``**`` matches: Python's own would run in circles through links.

    A folder that cannot be read is given as well: its job will say so.
    """
    head, literal = text[: stars.start()] or stars[1], set(parts_of(text))
    pattern = compiled(f"**/{text[stars.end() :] or '*'}", os.path.normcase)
    for folder in glob.glob(head) if head else [""]:  # noqa: PTH207
        below = parts_of(folder)[fixed:]
        if folder and not is_folder(Path(folder)):
            continue
        if not (_reaches(below, literal) and (not below or filters.enters(below))):
            continue
        for found in walk(folder or os.curdir, filters, recursive=True, below=below):
            if found.is_folder or matches(pattern, os.path.normcase("/".join(found.parts))):
                yield os.path.join(folder, *found.parts) or os.curdir  # noqa: PTH118


def _reaches(parts: Parts, literal: set[str]) -> bool:
    """Whether a pattern may go that way: a private folder is to be named, not matched."""
    return not any(_is_private(part) and part not in literal for part in parts)
