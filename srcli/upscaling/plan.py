"""Which files ``srcli upscale`` enlarges, and under which names: plain Python, no torch.

Everything that can be known without opening a picture is decided here, before the first one is
touched: what the inputs stand for, what their results are called, which of those cannot be.

An input is a file, a folder, a pattern, ``-`` (stdin) or ``@LIST`` (a file that names inputs;
``@-`` reads it from stdin). A ``/./`` in a path marks where a tree begins, as rsync has it:
``photos/./2019/a.jpg`` is 2019/a.jpg of the folder photos, and its result goes where it goes
when the whole of photos is given. Files that a folder gave are listed under such names, so that
a list of some of them, given back as ``@LIST``, puts each result where it belongs.

A file that is named, on the command line or in a list, is meant. ``include`` and ``exclude``
choose among what folders and patterns give.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from srcli.errors import NothingToDoError, UsageError
from srcli.files import is_folder, is_there, one_line
from srcli.imaging.formats import format_of, suffix_of_result
from srcli.upscaling.conflicts import check
from srcli.upscaling.search import (
    SEPARATORS,
    Filters,
    Found,
    Identity,
    Parts,
    expand,
    identity,
    parts_of,
    read_list,
    walk,
)
from srcli.upscaling.selection import STREAM, Job, Selection

__all__ = ["plan"]

_TREE_MARK: Final = re.compile(rf"[{re.escape(SEPARATORS)}]\.[{re.escape(SEPARATORS)}]")


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
    filters = Filters.of(selection)
    given = _given(selection, filters)
    _check_streams(selection, given)
    results = _existing_results(selection, given)
    jobs: list[Job] = []
    for one in given:
        if one.is_folder:
            jobs += _folder_jobs(selection, one, filters, results)
        else:
            jobs.append(_file_job(selection, one, alone=len(given) == 1))
    if not jobs:
        raise NothingToDoError(_nothing(selection))
    return check(selection, jobs)


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
        return self.text[: mark.start() if mark else None].rstrip(SEPARATORS)

    @property
    def below(self) -> Parts:
        """The names after the first ``/./``: the way from the root of a tree to the path."""
        mark = self._mark()
        return () if mark is None else parts_of(self.text[mark.end() :])

    def _mark(self) -> re.Match[str] | None:
        mark = _TREE_MARK.search(self.text)
        below = parts_of(self.text[mark.end() :]) if mark else ()
        # A way that leads out of its tree would lead out of the folder of the results as well.
        return mark if below and os.pardir not in below else None


def _given(selection: Selection, filters: Filters) -> list[_Given]:
    """Resolve lists and patterns; each path once."""
    given: dict[tuple[bool, Path], _Given] = {}
    for text in selection.inputs:
        if text.startswith("@"):
            found = [_Given(entry, listed=True) for entry in _listed(text)]
        else:
            found = [_Given(path) for path in expand(text, filters)]
        for one in found:
            given.setdefault((one.is_stream, one.path), one)
    return list(given.values())


def _listed(text: str) -> list[str]:
    if text == "@":
        raise UsageError("@ names no list; give @LIST, or @- for one from stdin")
    return read_list(text[1:])


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


# ---- names --------------------------------------------------------------------------------


def _existing_results(selection: Selection, given: list[_Given]) -> set[Identity]:
    """Find the folders of results that are there: what is in them is no input of this run."""
    folders = [one for one in given if one.is_folder]
    targets = {_folder_target(selection, one.root) for one in folders}
    return {identity(target) for target in targets if is_folder(target)}


def _folder_jobs(
    selection: Selection, given: _Given, filters: Filters, results: set[Identity]
) -> list[Job]:
    target = _folder_target(selection, given.root)
    recursive = selection.recursive
    found = walk(str(given.path), filters, recursive=recursive, below=given.below, skip=results)
    return [_found_job(selection, given, target, one) for one in found]


def _found_job(selection: Selection, given: _Given, target: Path, found: Found) -> Job:
    below = Path(*given.below, *found.parts)
    named = below if found.is_folder else _named(selection, below, selection.folder_suffix)
    entry = f"{given.root}/./{below.as_posix()}" if found.parts else given.text
    return Job(given.path.joinpath(*found.parts), target / named, entry, found.problem)


def _folder_target(selection: Selection, root: str) -> Path:
    """Say where the results of a folder go."""
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
    ending = suffix_of_result(path)
    if selection.format is not None:
        ending = f".{selection.format}"
    return path.with_name(f"{path.stem}{suffix}{ending}")
