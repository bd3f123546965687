"""Which files ``srcli upscale`` enlarges, and under which names: plain Python, no torch.

Everything that can be known without opening a picture is decided here, before the first one is
touched: what the inputs stand for, what their results are called, which of those cannot be.

An input is a file, a folder, a pattern, ``-`` (stdin) or ``@LIST`` (a file that names inputs;
``@-`` reads it from stdin). A ``/./`` in a path marks where a tree begins, as rsync has it:
``photos/./2019/a.jpg`` is 2019/a.jpg of the folder photos, and its result goes where it goes
when the whole of photos is given. Files that a folder gave are listed under such names, so that
a list of some of them, given back as ``@LIST``, puts each result where it belonged.

A file that is named, on the command line or in a list, is meant. ``include`` and ``exclude``
choose among what folders and patterns give.
"""

import fnmatch
import glob
import heapq
import itertools
import os
import platform
import re
import sys
import unicodedata
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Final, Literal, Self

from srcli.errors import NothingToDoError, OutputError, UsageError
from srcli.files import is_folder, is_there, one_line, reason, replacing
from srcli.imaging.formats import READABLE_SUFFIXES, format_of
from srcli.ops.spans import MAX_SCALE, TargetSize

__all__ = ["STREAM", "Job", "Selection", "plan", "read_list", "write_list"]

STREAM: Final = Path("-")
"""Stands for stdin as a source, and for stdout as a target."""

_LONGEST_NAME: Final = 255
"""What every common file system allows for one name: bytes, or UTF-16 units on some."""

_SYSTEM: Final = platform.system()

_FOLDING_SYSTEMS: Final = frozenset({"Darwin", "Windows"})
"""Where names are Unicode, and their case seldom counts."""

_PRIVATE_FOLDERS: Final = frozenset(
    {"@eadir", "__macosx", "$recycle.bin", "system volume information"}
)
"""Thumbnails of a NAS, forks of a Mac, Windows' bin: in lower case, as all compare here."""

_SEPARATORS: Final = "/" if os.sep == "/" else "/\\"

_SEPARATOR: Final = f"[{re.escape(_SEPARATORS)}]"

_TREE_MARK: Final = re.compile(rf"{_SEPARATOR}\.{_SEPARATOR}")

_STARS: Final = re.compile(rf"(^|{_SEPARATOR})\*\*($|{_SEPARATOR})")

_ERRORS: Final = sys.getfilesystemencodeerrors()
"""How bytes of a name that are no UTF-8 become text and back: as Python does for paths."""

_PROBLEMS: Final = {"file": None, "other": "it is no file, and no link to one; check what it is"}
"""The kinds of entries that a picture is looked for in, and what is wrong with them."""

_Parts = tuple[str, ...]
"""A path below a folder: the names on the way."""

_Identity = tuple[int, int]
"""Device and number of a file: the same for every name that leads to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What to enlarge, how far as the names have it, and where the results go.

    Raises:
        UsageError: If a value is out of range.
    """

    inputs: tuple[str, ...]
    """Files, folders, glob patterns, ``-`` and ``@LIST``."""

    output: Path | None = None
    """A file for one input file, else a folder; ``STREAM`` is stdout; None: beside each input.

    One file from a list counts as one of several: ``output`` is a folder, unless a file of that
    name exists or its name is that of an image. So the one failure of many lands in their folder,
    and the one failure of one under its name.
    """

    scale: float = 3.0
    """Output pixels per input pixel along each axis, 1 to 16; ``size`` comes first."""

    size: TargetSize | None = None
    """The size of every result instead of a scale."""

    suffix: str | None = None
    """What is added to a name, where ``{scale}`` is 3 or 1920x1080.

    None: ``_x3`` or ``_1920x1080`` beside the input, nothing in a folder.
    """

    format: str | None = None
    """File suffix of the results without the dot; None keeps the input's."""

    recursive: bool = False
    """Whether folders are searched below their first level."""

    include: tuple[str, ...] = ()
    """Patterns of which a file that a folder or a pattern gave must fit one; none: all fit.

    Without a slash they are about the file's name, with one about its path below the folder, in
    which ``**`` is any number of folders; with one at its end, about the folders it is in. Case
    and Unicode form do not count: cameras write .JPG, and a Mac takes accents apart.
    """

    exclude: tuple[str, ...] = ()
    """Patterns of files that are left out; a folder that fits one is left out as a whole."""

    existing: Literal["error", "skip", "overwrite"] = "error"
    """What to do with an output that is already there."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not 1 <= self.scale <= MAX_SCALE:  # also refuses NaN
            raise UsageError(f"--scale must lie in 1..16, not {self.scale:g}")
        if self.format is not None and f".{self.format}" not in READABLE_SUFFIXES:
            known = ", ".join(sorted(suffix[1:] for suffix in READABLE_SUFFIXES))
            raise UsageError(f"--format {one_line(self.format)} is unknown: use one of {known}")
        _check_suffix(self.suffix or "")
        for option, patterns in (("--include", self.include), ("--exclude", self.exclude)):
            if not all(pattern.strip(_SEPARATORS + ".") for pattern in patterns):
                raise UsageError(f"{option} is empty; give a pattern such as *.jpg")

    @property
    def label(self) -> str:
        """The scale or the size as names have it: ``x3``, ``1920x1080``."""
        return f"x{self.scale:g}" if self.size is None else str(self.size).removeprefix(">=")

    @property
    def name_suffix(self) -> str:
        """What marks a name beside its input as enlarged, such as ``_x3``."""
        return f"_{self.label}" if self.suffix is None else self.folder_suffix

    @property
    def folder_suffix(self) -> str:
        """What is added to names in a folder of results: nothing unless asked for."""
        scale = f"{self.scale:g}" if self.size is None else self.label
        return (self.suffix or "").replace("{scale}", scale)


@dataclass(frozen=True, slots=True)
class Job:
    """One input file and where its result goes."""

    source: Path
    """The file; ``STREAM`` is stdin."""

    target: Path
    """The result; ``STREAM`` is stdout."""

    entry: str
    """The input as a list names it: the same command with ``@LIST`` gives the same target."""

    problem: str | None = None
    """Why it cannot be done, if that is known before reading it. A folder that cannot be read
    is a job with a problem too: nothing is left out without a word."""

    again: bool = True
    """Whether giving it back in a list can mean the same: not where its result is an input or
    also that of another job. Given back without that one, it would replace what is not its own."""


def plan(selection: Selection) -> list[Job]:
    """Find the inputs and name their outputs; no picture is read.

    Folders give the images of their first level, or all below it: sorted, without hidden files
    and the folders that systems keep for themselves. Links to folders are followed, but no
    folder is searched twice. A file that is found twice is done once, as it was found first.

    Args:
        selection: The options.

    Returns:
        The jobs, in the order of the inputs; those that cannot be done say why. No two without
        a problem have one target, and none has an input as its target.

    Raises:
        NothingToDoError: If no image matched.
        UsageError: If ``output`` cannot serve the inputs given, a list cannot be read, or stdin
            or stdout is wanted twice.
    """
    places = _Places()
    given = _given(selection)
    _check_streams(selection, given)
    results = _existing_results(selection, given)
    jobs: list[Job] = []
    for one in given:
        if one.is_folder:
            jobs += _folder_jobs(selection, one, results)
        else:
            jobs.append(_file_job(selection, one, alone=len(given) == 1))
    if not jobs:
        raise NothingToDoError(_nothing(selection))
    return _checked(selection, _once(jobs, places), places)


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

    One a line; each ended by a NUL where a name could not be told from the end of its line.

    Args:
        path: The file, replaced if it is there; its folder must exist.
        entries: What :attr:`Job.entry` says.

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


def _check_suffix(suffix: str) -> None:
    shown = repr(suffix)
    if "/" in suffix or "\\" in suffix:
        raise UsageError(f"--suffix {shown} must not contain a path separator")
    if "\0" in suffix:
        raise UsageError(f"--suffix {shown} must not contain a NUL; use other characters")
    if set("{}") & set(suffix.replace("{scale}", "")):
        raise UsageError(f"--suffix {shown}: of what stands in braces only {{scale}} is known")


# ---- what the inputs stand for ------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Given:
    """One input: a file or a folder, or stdin."""

    text: str
    listed: bool = False
    """Whether a list named it."""

    @property
    def is_stream(self) -> bool:
        return self.text == "-"

    @property
    def path(self) -> Path:
        """The path; a file that is called "-" is not taken for stdin."""
        path = Path(self.text)
        return path.absolute() if path == STREAM and not self.is_stream else path

    @property
    def is_folder(self) -> bool:
        return not self.is_stream and is_folder(self.path)

    @property
    def root(self) -> str:
        """The folder that ``below`` begins in, else the path; no separator at its end."""
        mark = self._mark()
        return self.text[: mark.start() if mark else None].rstrip(_SEPARATORS)

    @property
    def below(self) -> _Parts:
        """The names after the first ``/./``: the way from the root of a tree to the path."""
        mark = self._mark()
        return () if mark is None else _parts_of(self.text[mark.end() :])

    def _mark(self) -> re.Match[str] | None:
        mark = _TREE_MARK.search(self.text)
        below = _parts_of(self.text[mark.end() :]) if mark else ()
        # A way that leads out of its tree would lead out of the folder of the results as well.
        return mark if below and os.pardir not in below else None


def _parts_of(text: str) -> _Parts:
    names = re.split(_SEPARATOR, text)
    return tuple(name for name in names if name not in {"", "."})


def _given(selection: Selection) -> list[_Given]:
    """Resolve lists and patterns; each path once."""
    choice = _Choice.of(selection)
    given: dict[tuple[bool, Path], _Given] = {}
    for text in selection.inputs:
        if text.startswith("@"):
            found = [_Given(entry, listed=True) for entry in _listed(text)]
        else:
            found = [_Given(path) for path in _expand(text, choice)]
        for one in found:
            given.setdefault((one.is_stream, one.path), one)
    return list(given.values())


def _listed(text: str) -> list[str]:
    if text == "@":
        raise UsageError("@ names no list; give @LIST, or @- for one from stdin")
    return read_list(text[1:])


def _expand(text: str, choice: "_Choice") -> list[str]:
    """A path as it is; a pattern that the shell left alone as the images it matches, sorted."""
    if not text or "\0" in text:
        raise UsageError("an input is empty; give a file, a folder or a pattern")
    if is_there(Path(text)) or not glob.has_magic(text):
        return [text]
    stars = _STARS.search(text)
    fixed = len(_fixed_parts(text))
    if stars is None:
        return sorted(_shallow_matches(text, choice, fixed), key=_parts_of)
    return sorted(_deep_matches(text, stars, choice, fixed), key=_parts_of)


def _fixed_parts(text: str) -> _Parts:
    """The names that a pattern begins with and that are none themselves."""
    folders = _parts_of(text)[:-1]
    return tuple(itertools.takewhile(lambda part: not glob.has_magic(part), folders))


def _shallow_matches(text: str, choice: "_Choice", fixed: int) -> Iterator[str]:
    literal = set(_parts_of(text))
    # Not Path.glob: it refuses absolute patterns, and a pattern may be one.
    for match in glob.glob(text):  # noqa: PTH207
        parts = _parts_of(match)[fixed:]
        if (
            _has_image_suffix(match)
            and choice.takes(parts)
            and _reaches(choice, parts[:-1], literal)
            and not is_folder(Path(match))
        ):
            yield match


def _deep_matches(text: str, stars: re.Match[str], choice: "_Choice", fixed: int) -> Iterator[str]:
    """What a pattern with ``**`` matches: Python's own would run in circles through links.

    A folder that cannot be read is given as well: its job will say so.
    """
    head, literal = text[: stars.start()] or stars[1], set(_parts_of(text))
    pattern = _Pattern.of(f"**/{text[stars.end() :] or '*'}", os.path.normcase)
    for folder in glob.glob(head) if head else [""]:  # noqa: PTH207
        below = _parts_of(folder)[fixed:]
        if (folder and not is_folder(Path(folder))) or not _reaches(choice, below, literal):
            continue
        for found in _walk(folder or os.curdir, choice, recursive=True, below=below):
            if found.is_folder or pattern.fits(tuple(map(os.path.normcase, found.parts))):
                yield os.path.join(folder, *found.parts) or os.curdir  # noqa: PTH118


def _reaches(choice: "_Choice", parts: _Parts, literal: set[str]) -> bool:
    """Whether a pattern may go that way: a private folder is to be named, not matched."""
    ways = (parts[:depth] for depth in range(1, len(parts) + 1))
    private = any(_is_private(part) and part not in literal for part in parts)
    return not private and all(map(choice.enters, ways))


def _check_streams(selection: Selection, given: list[_Given]) -> None:
    """Refuse what would mix two things in stdin or stdout."""
    streams = [one for one in given if one.is_stream]
    if streams and "@-" in selection.inputs:
        raise UsageError("- and @- both read stdin; give the list or the picture as a file")
    if len(given) > 1 and streams and selection.output is None:
        raise UsageError("the result of - goes to stdout, alone; give an --output for several")
    if selection.output == STREAM and (len(given) > 1 or any(one.is_folder for one in given)):
        raise UsageError("--output - (stdout) takes one file; several need a folder: give its name")


def _nothing(selection: Selection) -> str:
    """Say where no image was found, and why that may be."""
    shown = [one_line(text) for text in selection.inputs[:5]]
    more = len(selection.inputs) - len(shown)
    where = ", ".join(shown) + (f" and {more} more" if more else "")
    patterns = [f"--include {pattern}" for pattern in selection.include]
    patterns += [f"--exclude {pattern}" for pattern in selection.exclude]
    fits = f" that fits {one_line(' '.join(patterns))}; check the patterns" if patterns else ""
    hint = "" if selection.recursive else " (folders below it need -r)"
    return f"no image found in {where}{fits}{hint}"


# ---- patterns -----------------------------------------------------------------------------


def _normal(name: str) -> str:
    """A name with its accents put together, as most systems have them."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def _folded(name: str) -> str:
    """A name without its case and Unicode form."""
    return _normal(_normal(name).casefold())


@dataclass(frozen=True, slots=True)
class _Pattern:
    """A pattern for a path below a folder."""

    parts: tuple[re.Pattern[str] | None, ...]
    """One for each name on the way; ``None`` is ``**``, any number of names."""

    @classmethod
    def of(cls, text: str, fold: Callable[[str], str]) -> Self:
        """Read a pattern; ``fold`` is what the names went through that it is held against."""
        parts = [
            None if name == "**" else re.compile(fnmatch.translate(fold(name)))
            for name in _parts_of(text)
        ]
        # Two ** in a row say what one says, and would be tried in every combination.
        pairs = itertools.pairwise([*parts, re.compile("")])
        return cls(tuple(part for part, after in pairs if part or after))

    def fits(self, parts: _Parts) -> bool:
        """Whether a path is what the pattern describes."""
        return _fits(self.parts, parts)


def _fits(pattern: tuple[re.Pattern[str] | None, ...], parts: _Parts) -> bool:
    if not pattern:
        return not parts
    first, rest = pattern[0], pattern[1:]
    if first is None:
        return any(_fits(rest, parts[start:]) for start in range(len(parts) + 1))
    return bool(parts) and bool(first.match(parts[0])) and _fits(rest, parts[1:])


@dataclass(frozen=True, slots=True)
class _Choice:
    """What ``include`` and ``exclude`` leave of what is found."""

    include: tuple[_Pattern, ...] = ()
    exclude: tuple[_Pattern, ...] = ()

    @classmethod
    def of(cls, selection: Selection) -> Self:
        """Read the patterns; one without a slash is about a name, wherever it is."""
        include = (_chosen(text, inside=True) for text in selection.include)
        exclude = (_chosen(text, inside=False) for text in selection.exclude)
        return cls(tuple(include), tuple(exclude))

    def takes(self, parts: _Parts) -> bool:
        """Whether a file is kept whose folders are."""
        if not self.include and not self.exclude:
            return True
        names = tuple(map(_folded, parts))
        included = not self.include or any(pattern.fits(names) for pattern in self.include)
        return included and self.enters(parts)

    def enters(self, parts: _Parts) -> bool:
        """Whether a folder is searched whose folders are."""
        if not self.exclude:
            return True
        names = tuple(map(_folded, parts))
        return not any(pattern.fits(names) for pattern in self.exclude)


def _chosen(text: str, *, inside: bool) -> _Pattern:
    """Read a pattern of an option; a slash at its end says that it is about folders.

    Args:
        text: The pattern.
        inside: Whether it then describes what is in them, not the folders themselves.
    """
    path = text.rstrip(_SEPARATORS)
    anywhere = not set(_SEPARATORS) & set(path)
    end = "/**" if inside and path != text else ""
    return _Pattern.of(f"{'**/' if anywhere else ''}{path}{end}", _folded)


# ---- folders ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Found:
    """What a folder gave: an image, or what cannot be read and says why."""

    parts: _Parts
    problem: str | None = None
    is_folder: bool = False


def _walk(
    folder: str,
    choice: _Choice,
    *,
    recursive: bool,
    below: _Parts = (),
    skip: Container[_Identity] = (),
) -> list[_Found]:
    """List the images of a folder, sorted by path.

    Real folders come before links to them, so that what is found has its own name wherever it
    has one; each is searched once, so that links in a circle end.

    Args:
        folder: Where to look.
        choice: What is left of what is found.
        recursive: Whether to look below the first level too.
        below: The way to ``folder`` from where patterns begin.
        skip: Folders that are left out wherever they are found.

    Returns:
        Paths below ``folder``.
    """
    found: list[_Found] = []
    seen: set[_Identity] = set()
    folders: list[_Parts] = [()]
    links: list[_Parts] = []
    while folders or links:
        parts = folders.pop() if folders else heapq.heappop(links)
        path = os.path.join(folder, *parts)  # noqa: PTH118
        try:
            identity = _identity(path)
            if identity in seen or (parts and identity in skip):
                continue
            seen.add(identity)
            listing = _listing(path)
        except OSError as error:
            problem = (
                f"the folder cannot be read ({reason(error)}); check the path and its permissions"
            )
            found.append(_Found(parts, problem, is_folder=True))
            continue
        ways = ((kind, (*parts, name)) for name, kind in listing)
        for kind, way in ways:
            if kind == "folder" and recursive and choice.enters((*below, *way)):
                folders.append(way)
            elif kind == "link" and recursive and choice.enters((*below, *way)):
                heapq.heappush(links, way)
            elif kind in _PROBLEMS and choice.takes((*below, *way)):
                found.append(_Found(way, _PROBLEMS[kind]))
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
    return os.path.splitext(name)[1].lower() in READABLE_SUFFIXES  # noqa: PTH122


def _identity(path: str | Path) -> _Identity:
    status = os.stat(path)  # noqa: PTH116
    return status.st_dev, status.st_ino


# ---- names --------------------------------------------------------------------------------


def _existing_results(selection: Selection, given: list[_Given]) -> set[_Identity]:
    """Tell the folders of results that are there: what is in them is no input of this run."""
    folders = [one for one in given if one.is_folder]
    targets = {_folder_target(selection, one.root) for one in folders}
    return {_identity(target) for target in targets if is_folder(target)}


def _folder_jobs(selection: Selection, given: _Given, results: set[_Identity]) -> list[Job]:
    target = _folder_target(selection, given.root)
    found = _walk(
        str(given.path),
        _Choice.of(selection),
        recursive=selection.recursive,
        below=given.below,
        skip=results,
    )
    return [_found_job(selection, given, target, one) for one in found]


def _found_job(selection: Selection, given: _Given, target: Path, found: _Found) -> Job:
    below = Path(*given.below, *found.parts)
    named = below if found.is_folder else _named(selection, below, selection.folder_suffix)
    entry = f"{given.root}/./{below.as_posix()}" if found.parts else given.text
    return Job(given.path.joinpath(*found.parts), target / named, entry, found.problem)


def _folder_target(selection: Selection, root: str) -> Path:
    """Tell where the results of a folder go."""
    output = selection.output
    # "C:" alone is the working directory of the drive.
    folder = root if os.path.splitdrive(root)[1] else root + os.sep
    if output is None:
        # "." and ".." have no name of their own; a link keeps the one it was given by.
        whole = Path(os.path.abspath(folder))  # noqa: PTH100 - resolve() follows links
        if not whole.name:
            raise UsageError(f"{folder} has no folder beside it; give an --output")
        return whole.with_name(f"{whole.name}_{selection.label}")
    if is_there(output) and not is_folder(output):
        shown = one_line(str(output))
        raise UsageError(f"--output {shown} is a file; a folder's results need a folder")
    return output


def _file_job(selection: Selection, given: _Given, *, alone: bool) -> Job:
    """Name the result of what is no folder."""
    streamed = selection.output is None and given.is_stream
    if streamed or selection.output == STREAM:
        target = STREAM
    elif given.below:
        below = _named(selection, Path(*given.below), selection.folder_suffix)
        target = _folder_target(selection, given.root) / below
    else:
        target = _file_target(selection, given, alone=alone)
    return Job(given.path, target, given.text)


def _file_target(selection: Selection, given: _Given, *, alone: bool) -> Path:
    output = selection.output
    file = Path("stdin") if given.is_stream else given.path
    if output is None:
        return _named(selection, file, selection.name_suffix)
    # A name for one file is that file's, even if its suffix will be refused; several go into a
    # folder unless the name can only be that of an image. One in a list may be left of several.
    named = output.suffix if alone and not given.listed else format_of(output)
    if is_folder(output) or (not is_there(output) and not named):
        return output / _named(selection, Path(file.name), selection.folder_suffix)
    if not alone:
        shown = one_line(str(output))
        raise UsageError(f"--output {shown} is a file name; several inputs need a folder")
    return output


def _named(selection: Selection, path: Path, suffix: str) -> Path:
    """Name a result: ``suffix`` before the dot, the chosen format's ending after it."""
    ending = path.suffix if format_of(path) else ".png"
    if selection.format is not None:
        ending = f".{selection.format}"
    return path.with_name(f"{path.stem}{suffix}{ending}")


# ---- what cannot be -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a path leads, whatever the way: a name in a folder, which a link may lead to."""

    anchor: str = field(compare=False)
    """The nearest folder that exists."""

    identity: _Identity
    """Of the anchor."""

    tail: _Parts
    """What does not exist below it, and the name."""


class _Places:
    """Finds where paths lead; asks the file system once for each folder."""

    def __init__(self) -> None:
        self._folders: dict[str, _Place] = {}

    def of(self, path: Path) -> _Place:
        """Locate a path; links are followed up to its folder, not from its name."""
        head, name = os.path.split(path)
        if head not in self._folders:
            self._folders[head] = _located(os.path.realpath(head))
        folder = self._folders[head]
        return _Place(folder.anchor, folder.identity, (*folder.tail, name))


def _located(folder: str) -> _Place:
    """Split a path into what exists and what does not."""
    missing: list[str] = []
    while True:
        head, name = os.path.split(folder)
        identity = _file_at(folder)
        if identity is None and head != folder:
            folder = head
            missing.insert(0, name)
        else:  # what exists; or a drive that does not
            return _Place(folder, identity or (0, 0), tuple(missing))


def _once(jobs: list[Job], places: _Places) -> list[Job]:
    """Leave out what was found before, directly or through a folder."""
    kept: dict[_Place | None, Job] = {}
    for job in jobs:
        kept.setdefault(None if job.source == STREAM else places.of(job.source), job)
    return list(kept.values())


def _checked(selection: Selection, jobs: list[Job], places: _Places) -> list[Job]:
    """Mark the jobs that would overwrite an input, another job's result, or a file."""
    if selection.existing == "skip":
        jobs = _without_own_results(jobs, places)
    sources = _Sources(jobs, places)
    claims = _Claims()
    checked = []
    for job in jobs:
        problem = job.problem
        if problem is None and job.target != STREAM:
            place = places.of(job.target)
            taken = _taken(job, place, sources, claims)
            problem = taken or _problem(selection, job, place)
            claims.add(place, job.source)
            job = replace(job, problem=problem, again=taken is None)  # noqa: PLW2901
        checked.append(job)
    return checked


def _taken(job: Job, place: _Place, sources: "_Sources", claims: "_Claims") -> str | None:
    """Say whose a target is already, if it is an input's or another job's."""
    result = f"its result {one_line(str(job.target))}"
    if sources.hold(job.target, place, exists=_exists(job, place)):
        return f"{result} is an input; use --output or --suffix"
    if (holder := claims.holder(place)) is not None:
        return f"{result} is also that of {one_line(str(holder))}; rename one of them"
    return None


def _exists(job: Job, place: _Place) -> bool:
    # Nothing is asked of the disk about what lies in a folder that is not there.
    return len(place.tail) == 1 and is_there(job.target)


def _problem(selection: Selection, job: Job, place: _Place) -> str | None:
    """Say why there can be no file at a target, if so."""
    exists = _exists(job, place)
    if (problem := _name_problem(job.target)) is not None:
        return problem
    if exists and is_folder(job.target):
        return f"its result {one_line(str(job.target))} is a folder; give another --output"
    if exists and selection.existing == "error":
        return f"{one_line(str(job.target))} is there already; use --overwrite or --skip-existing"
    return None


def _name_problem(target: Path) -> str | None:
    """Say why no file can have that name, if so."""
    shown = one_line(str(target))
    if format_of(target) is None:
        known = " ".join(sorted(READABLE_SUFFIXES))
        return f"its result {shown} has no known image suffix; use one of {known}"
    if _length(target.name) > _LONGEST_NAME:
        return f"the name of its result {shown} is too long; use a shorter --suffix, or --output"
    return None


def _length(name: str) -> int:
    """Count what file systems count in a name: bytes, on some UTF-16 units."""
    if _SYSTEM in _FOLDING_SYSTEMS:
        return len(name.encode("utf-16-le", "surrogatepass")) // 2
    return len(os.fsencode(name))


def _without_own_results(jobs: list[Job], places: _Places) -> list[Job]:
    """Leave out the inputs that an earlier run made from other inputs of this one.

    ``srcli upscale *.png --skip-existing`` finds the results beside the originals when it is
    run again, and is to go on with the originals.
    """
    made_from = {
        places.of(job.target): places.of(job.source)
        for job in jobs
        if STREAM not in (job.source, job.target) and is_there(job.target)
    }
    located = ((job, places.of(job.source)) for job in jobs)
    return [job for job, place in located if made_from.get(place, place) == place]


class _Sources:
    """The inputs, known by their places and by what lies there."""

    def __init__(self, jobs: list[Job], places: _Places) -> None:
        self._paths = [job.source for job in jobs if job.source != STREAM]
        self._places = {places.of(path) for path in self._paths}

    def hold(self, target: Path, place: _Place, *, exists: bool) -> bool:
        """Whether a target is an input, by whatever name or link."""
        return place in self._places or (exists and _file_at(target) in self._files)

    @cached_property
    def _files(self) -> set[_Identity]:
        return {file for file in map(_file_at, self._paths) if file is not None}


def _file_at(path: str | Path) -> _Identity | None:
    try:
        return _identity(path)
    except OSError:
        return None


class _Claims:
    """The targets that are taken; where the file system takes two names for one, so does this."""

    def __init__(self) -> None:
        self._taken: dict[tuple[_Identity, _Parts], list[tuple[_Place, Path]]] = {}
        self._folds: dict[str, Callable[[str], str]] = {}

    def add(self, place: _Place, source: Path) -> None:
        """Take a place for the result of a source."""
        self._taken.setdefault(self._key(place), []).append((place, source))

    def holder(self, place: _Place) -> Path | None:
        """Name the source whose result goes to that place, if one does."""
        for taken, source in self._taken.get(self._key(place), ()):
            if taken.tail == place.tail or self._same(taken, place):
                return source
        return None

    def _key(self, place: _Place) -> tuple[_Identity, _Parts]:
        return place.identity, tuple(map(_folded, place.tail))

    def _same(self, one: _Place, other: _Place) -> bool:
        if one.anchor not in self._folds:
            self._folds[one.anchor] = _fold_of(one.anchor)
        fold = self._folds[one.anchor]
        return tuple(map(fold, one.tail)) == tuple(map(fold, other.tail))


def _fold_of(folder: str) -> Callable[[str], str]:
    """Give what makes two names equal that a folder does not tell apart."""
    cases = _is_blind_to(_other_case, folder, otherwise=_SYSTEM in _FOLDING_SYSTEMS)
    forms = _is_blind_to(_other_form, folder, otherwise=_SYSTEM == "Darwin")
    if cases:
        return _folded if forms else str.casefold
    return _normal if forms else str


def _is_blind_to(change: Callable[[str], str], folder: str, *, otherwise: bool) -> bool:
    """Whether a folder finds what is in it under changed names, as nearly as can be seen.

    Nothing is made to find out: where no name can be changed, the folder above tells, as far as
    that is on the same device.
    """
    try:
        device = _identity(folder)[0]
        for place in (folder, *map(str, Path(folder).parents)):
            if _identity(place)[0] != device:
                break
            names = os.listdir(place)  # noqa: PTH208
            known = set(names)
            for name in names:
                changed = change(name)
                if changed not in known:
                    return os.path.lexists(os.path.join(place, changed))  # noqa: PTH118
    except OSError:
        pass
    return otherwise


def _other_case(name: str) -> str:
    return name.swapcase() if name.isascii() else name


def _other_form(name: str) -> str:
    apart = unicodedata.normalize("NFD", name)
    return apart if apart != name else _normal(name)
