"""Which files ``srcli upscale`` enlarges, and under which names.

Everything that can be known without decoding a picture is decided here, before the first one is
touched: what the inputs stand for, what their results are called, which of those cannot be. In
folders a picture is known by its suffix, or where that says nothing by its first bytes.

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
from typing import Final, Self

from srcli.errors import NothingToDoError, SrcliError, UsageError
from srcli.files import is_folder, is_pipe, is_there, one_line
from srcli.imaging.formats import format_of, suffix_of_result
from srcli.imaging.images import read_header
from srcli.upscaling.config import STREAM, BatchConfig, Job
from srcli.upscaling.conflicts import check
from srcli.upscaling.left_out import LeftOut, listed
from srcli.upscaling.search import (
    SEPARATORS,
    Filters,
    Found,
    Identity,
    Parts,
    expand,
    identity,
    is_list,
    parts_of,
    read_list,
    walk,
)

__all__ = ["plan"]

_TREE_MARK: Final = re.compile(rf"[{re.escape(SEPARATORS)}]\.[{re.escape(SEPARATORS)}]")


def plan(config: BatchConfig, left_out: LeftOut | None = None) -> list[Job]:
    """Find the inputs and name their outputs; no picture is decoded.

    Folders give the images of their first level, or all below it: sorted, without hidden files
    and the folders that systems keep for themselves. Links to folders are followed, but no
    folder is searched twice. A file that is found twice is done once, as it was found first; the
    result of an earlier run is not done where its original is.

    The jobs are in the order of the inputs; those that cannot be done say why. No two without
    a problem have one target, and none has an input as its target.

    Raises:
        NothingToDoError: If no image matched.
        UsageError: If ``output`` cannot serve the inputs given, a list cannot be read, or stdin
            or stdout is wanted twice.
    """
    filters = Filters.of(config)
    left_out = LeftOut() if left_out is None else left_out
    given = _given(config, filters, left_out)
    _check_streams(config, given)
    folders = {_folder_target(config, one.root) for one in given if one.is_folder}
    # What is in the folders of results that are there is no input of this run.
    results = {identity(folder) for folder in folders if is_folder(folder)}
    jobs: list[Job] = []
    for one in given:
        if one.is_folder:
            jobs += _folder_jobs(config, one, filters, results, left_out)
        else:
            jobs.append(_file_job(config, one, alone=len(given) == 1))
    if not jobs:
        raise NothingToDoError("; ".join(_nothing(config, left_out.lines())))
    return check(config, jobs, left_out)


# ---- what the inputs stand for ------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Given:
    """One input: a file or a folder, or stdin."""

    text: str
    listed: bool
    """Whether a list named it."""

    path: Path
    root: str
    """The folder that ``below`` begins in, else the path; no separator at its end."""

    below: Parts
    """The names after the first ``/./``: the way from the root of a tree to the path."""

    @classmethod
    def of(cls, text: str, *, listed: bool = False) -> Self:
        """Read what was given."""
        path = Path(text)
        if path == STREAM and text != "-":  # a file that is called "-" is not taken for stdin
            path = path.absolute()
        mark = _TREE_MARK.search(text)
        below = parts_of(text[mark.end() :]) if mark else ()
        # A way that leads out of its tree would lead out of the folder of the results as well.
        if mark is None or not below or os.pardir in below:
            return cls(text, listed, path, text.rstrip(SEPARATORS), ())
        return cls(text, listed, path, text[: mark.start()].rstrip(SEPARATORS), below)

    @property
    def is_stream(self) -> bool:
        return self.path == STREAM

    @property
    def is_folder(self) -> bool:
        return not self.is_stream and is_folder(self.path)


def _given(config: BatchConfig, filters: Filters, left_out: LeftOut) -> list[_Given]:
    given: dict[Path, _Given] = {}
    for text in config.inputs:
        from_list = is_list(text)
        for path in read_list(text[1:]) if from_list else expand(text, filters, left_out):
            one = _Given.of(path, listed=from_list)
            given.setdefault(one.path, one)
    return list(given.values())


def _check_streams(config: BatchConfig, given: list[_Given]) -> None:
    streams = [one for one in given if one.is_stream]
    if streams and "@-" in config.inputs:
        raise UsageError("- and @- both read stdin; give the list or the picture as a file")
    if len(given) > 1 and streams and config.output is None:
        raise UsageError("the result of - goes to stdout, alone; give an --output for several")
    if config.output == STREAM and (len(given) > 1 or any(one.is_folder for one in given)):
        raise UsageError("--output - (stdout) takes one file; several need a folder: give its name")


def _nothing(config: BatchConfig, left_out: list[str]) -> list[str]:
    """Say where no image was found, and why that may be."""
    patterns = [f"--include {pattern}" for pattern in config.include]
    patterns += [f"--exclude {pattern}" for pattern in config.exclude]
    fits = f" that fits {one_line(' '.join(patterns))}" if patterns else ""
    advice = ["check the patterns"] if patterns else [] if left_out else ["check the path"]
    return [f"no image found in {listed(config.inputs)}{fits}", *advice, *left_out]


# ---- names --------------------------------------------------------------------------------


def _folder_jobs(
    config: BatchConfig,
    given: _Given,
    filters: Filters,
    results: set[Identity],
    left_out: LeftOut,
) -> list[Job]:
    """Name the results of what a folder has, sorted by path; what is not taken is counted."""
    found: list[Found] = []
    glance = not config.recursive
    for one in walk(str(given.path), filters, below=given.below, skip=results, glance=glance):
        if len(one.parts) + one.is_folder > 1 and not config.recursive:
            if not one.is_folder:
                left_out.deeper.append(given.text)
                break
        elif one.is_unread:
            left_out.add_unread(str(given.path.joinpath(*one.parts)))
        else:
            found.append(one)

    target, jobs = _folder_target(config, given.root), []
    for one in sorted(found, key=lambda one: one.parts):
        below, source = Path(*given.below, *one.parts), given.path.joinpath(*one.parts)
        named = below if one.is_folder else _named(config, below, source)
        entry = f"{given.root}/./{below.as_posix()}" if one.parts else given.text
        jobs.append(Job(source, target / named, entry, one.problem))
    return jobs


def _folder_target(config: BatchConfig, root: str) -> Path:
    output = config.output
    # "C:" alone is the working directory of the drive.
    folder = root if os.path.splitdrive(root)[1] else root + os.sep
    if output is None:
        whole = Path(folder)
        if whole.name in {"", os.pardir}:  # as of "."; a link keeps the name it was given by
            whole = Path(os.path.abspath(folder))  # noqa: PTH100 - resolve() follows links
        if not whole.name:
            raise UsageError(f"{folder} has no folder beside it; give an --output")
        return whole.with_name(f"{whole.name}_{config.label}")
    if is_there(output) and not is_folder(output):
        shown = one_line(str(output))
        raise UsageError(f"--output {shown} is a file; a folder's results need a folder")
    return output


def _file_job(config: BatchConfig, given: _Given, *, alone: bool) -> Job:
    if config.output == STREAM or (config.output is None and given.is_stream):
        target = STREAM
    elif given.below:
        below = _named(config, Path(*given.below), given.path)
        target = _folder_target(config, given.root) / below
    else:
        target = _file_target(config, given, alone=alone)
    return Job(given.path, target, given.text)


def _file_target(config: BatchConfig, given: _Given, *, alone: bool) -> Path:
    output = config.output
    source = None if given.is_stream else given.path
    file = source or Path("stdin")
    if output is None:
        return _named(config, file, source, beside=True)
    # A name for one file is that file's, even if its suffix will be refused; several go into a
    # folder unless the name can only be that of an image. One in a list may be left of several.
    named = output.suffix if alone and not given.listed else format_of(output)
    if config.into_folder or is_folder(output) or (not is_there(output) and not named):
        folder = _folder_target(config, given.root)
        return folder / _named(config, Path(file.name), source)
    if not alone:
        shown = one_line(str(output))
        raise UsageError(f"--output {shown} is a file name; several inputs need a folder")
    if config.format is not None and format_of(output) not in {None, config.wanted_format}:
        shown = one_line(str(output))
        raise UsageError(f"--format {config.format} and --output {shown} differ; give one of them")
    return output


def _named(config: BatchConfig, path: Path, source: Path | None, *, beside: bool = False) -> Path:
    """Name a result: as the options have it, with the chosen format's ending."""
    ending = suffix_of_result(source) if config.format is None else f".{config.format}"

    def size() -> tuple[int, int]:
        if source is None or is_pipe(source):
            raise UsageError("a name with {width} or {height} needs files; a pipe is read once")
        try:
            header = read_header(source, max_pixels=config.max_pixels)
            return config.result_size(header.width, header.height)
        except (SrcliError, OSError, MemoryError):  # its job will say what is the matter
            return 0, 0

    return path.with_name(config.result_name(path.stem, size, beside=beside) + ending)
