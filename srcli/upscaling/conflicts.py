"""Results that cannot be: in the place of an input, of another result, or of a file that is there.

Names are compared as the system's usual disks compare them: without their case and Unicode form on
Windows and macOS, as they are elsewhere.
"""

import os
import platform
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Final

from srcli.files import is_folder, is_there, one_line
from srcli.imaging.formats import READABLE_SUFFIXES, format_of
from srcli.upscaling.patterns import folded
from srcli.upscaling.search import Identity, identity
from srcli.upscaling.selection import STREAM, Job, Selection

__all__ = ["check", "without_repeats"]

_FOLDING: Final = platform.system() in {"Darwin", "Windows"}
"""Whether names are Unicode here, and their case does not count."""

_LONGEST_NAME: Final = 255
"""What every common file system allows for one name: bytes, or UTF-16 units on some."""


def without_repeats(jobs: list[Job]) -> list[Job]:
    """Leave out what was found before, directly or through a folder."""
    places = _Places()
    kept: dict[str | None, Job] = {}
    for job in jobs:
        kept.setdefault(None if job.source == STREAM else places.of(job.source), job)
    return list(kept.values())


def check(selection: Selection, jobs: list[Job]) -> list[Job]:
    """Mark the jobs whose results cannot be, before anything is begun.

    Args:
        selection: The options.
        jobs: Each source once.

    Returns:
        The jobs with their problems. Of several that want one place all are refused, each naming
        another one: which of them should have it is not ours to say.
    """
    places = _Places()
    if selection.existing == "skip":
        jobs = _without_own_results(jobs, places)
    sources = _Sources(jobs, places)
    claims: defaultdict[str, list[Job]] = defaultdict(list)
    for job in jobs:
        if job.problem is None and job.target != STREAM:
            claims[places.of(job.target)].append(job)
    return [
        _checked(selection, job, sources, claims[places.of(job.target)])
        if job.problem is None and job.target != STREAM
        else job
        for job in jobs
    ]


def _checked(selection: Selection, job: Job, sources: "_Sources", claims: list[Job]) -> Job:
    """Mark one job, given all that want the place of its result."""
    result = f"its result {one_line(str(job.target))}"
    if sources.hold(job.target):
        problem = f"{result} is an input; use --output or --suffix"
        return replace(job, problem=problem, again=False)
    other = next((one for one in claims if one is not job), None)
    if other is not None:
        source = one_line(str(other.source))
        return replace(job, problem=f"{result} is also that of {source}; rename one of them")
    return replace(job, problem=_problem(selection, job.target))


def _problem(selection: Selection, target: Path) -> str | None:
    """Say why there can be no file at a target, if so."""
    shown = one_line(str(target))
    if format_of(target) is None:
        known = " ".join(sorted(READABLE_SUFFIXES))
        return f"its result {shown} has no known image suffix; use one of {known}"
    if _length(target.name) > _LONGEST_NAME:
        return f"the name of its result {shown} is too long; use a shorter --suffix, or --output"
    if is_folder(target):
        return f"its result {shown} is a folder; give another --output"
    if selection.existing == "error" and is_there(target):
        return f"{shown} is there already; use --overwrite or --skip-existing"
    return None


def _length(name: str) -> int:
    """Count what file systems count in a name: bytes, on some UTF-16 units."""
    if _FOLDING:
        return len(name.encode("utf-16-le", "surrogatepass")) // 2
    return len(os.fsencode(name))


def _without_own_results(jobs: list[Job], places: "_Places") -> list[Job]:
    """Leave out the inputs that an earlier run made from other inputs of this one.

    ``srcli upscale *.png --skip-existing`` finds the results beside the originals when it is
    run again, and is to resume with the originals.
    """
    made_from = {
        places.of(job.target): places.of(job.source)
        for job in jobs
        if STREAM not in (job.source, job.target) and is_there(job.target)
    }
    located = ((job, places.of(job.source)) for job in jobs)
    return [job for job, place in located if made_from.get(place, place) == place]


class _Places:
    """Finds where paths lead; asks the file system once for each folder."""

    def __init__(self) -> None:
        self._folders: dict[str, str] = {}

    def of(self, path: Path) -> str:
        """Locate a path; links are followed up to its folder, not from its name."""
        head, name = os.path.split(path)
        if head not in self._folders:
            self._folders[head] = os.path.realpath(head)
        place = os.path.join(self._folders[head], name)  # noqa: PTH118
        return folded(place) if _FOLDING else place


class _Sources:
    """The inputs, known by their places and by what lies there."""

    def __init__(self, jobs: Iterable[Job], places: _Places) -> None:
        self._paths = [job.source for job in jobs if job.source != STREAM]
        self._find = places
        self._places = {places.of(path) for path in self._paths}

    def hold(self, target: Path) -> bool:
        """Whether a target is an input, by whatever name or link."""
        if self._find.of(target) in self._places:
            return True
        return is_there(target) and _file_at(target) in self._files

    @cached_property
    def _files(self) -> set[Identity]:
        return {file for file in map(_file_at, self._paths) if file is not None}


def _file_at(path: Path) -> Identity | None:
    try:
        return identity(path)
    except OSError:
        return None
