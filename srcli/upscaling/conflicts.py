"""Results that cannot be: in the place of an input, of another result, or of a file that is there.

Names are compared as the system's usual disks compare them: without their case and Unicode form on
Windows and macOS, as they are elsewhere.
"""

import os
import platform
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Final

from srcli.errors import ImageError
from srcli.files import is_folder, is_pipe, is_there, one_line
from srcli.imaging.formats import READABLE_SUFFIXES, format_at, format_of
from srcli.upscaling.config import STREAM, BatchConfig, Job
from srcli.upscaling.earlier import without_results
from srcli.upscaling.left_out import LeftOut
from srcli.upscaling.search import folded

__all__ = ["check"]

_FOLDING: Final = platform.system() in {"Darwin", "Windows"}
"""Whether names are Unicode here, and their case does not count."""


def check(config: BatchConfig, found: list[Job], left_out: LeftOut) -> list[Job]:
    """Mark the jobs whose results cannot be, before anything is begun.

    There is one job for each source, though a file may be found twice. Of several that want one
    place all are refused, each naming another one: which should have it is not ours to say.
    """
    place = _places()
    by_source: dict[str, Job] = {}
    for job in found:
        by_source.setdefault("-" if job.source == STREAM else place(job.source), job)
    made = ((place(job.target), source) for source, job in by_source.items())
    targets = {target: source for target, source in made if target != source}
    by_source, results = without_results(config, by_source, targets)
    left_out.results += [str(job.source) for job in results]
    jobs = list(by_source.values())
    claims: defaultdict[str, list[Job]] = defaultdict(list)
    for job in filter(_is_open, jobs):
        claims[place(job.target)].append(job)

    for target, several in claims.items():
        if len(several) > 1:  # a sidecar or a raw beside a photograph takes no name from it
            claims[target] = [job for job in several if _may_be_picture(job.source)]

    # What a link that is an input leads to is one as well.
    links = (job.source for job in jobs if os.path.islink(job.source))  # noqa: PTH114
    inputs = by_source.keys() | {place(Path(os.path.realpath(link))) for link in links}

    def checked(job: Job) -> Job:
        target = place(job.target)
        return _checked(config, job, claims[target], is_input=target in inputs)

    return [checked(job) if _is_open(job) else job for job in jobs]


def _may_be_picture(source: Path) -> bool:
    """Whether it may be read, by its name or how it begins; else reading it says what it is."""
    if is_pipe(source) or format_of(source) is not None:
        return is_there(source)
    with suppress(ImageError):
        return format_at(source) is not None
    return False


def _is_open(job: Job) -> bool:
    return job.problem is None and job.target != STREAM


def _checked(config: BatchConfig, job: Job, claims: list[Job], *, is_input: bool) -> Job:
    result = f"its result {one_line(job.target)}"
    other = next((one for one in claims if one is not job), None) if job in claims else None
    problem: str | None = None
    if is_input:
        problem = f"{result} is an input; use --output or --suffix"
    elif other is not None:
        problem = f"{result} is also that of {one_line(other.source)}; rename one of them"
    elif format_of(job.target) is None:
        known = " ".join(sorted(READABLE_SUFFIXES))
        problem = f"{result} has no known image suffix; use one of {known}"
    elif is_folder(job.target):
        problem = f"{result} is a folder; give another --output"
    elif config.existing == "error" and is_there(job.target):
        problem = f"{one_line(job.target)} is there already; use --overwrite or --skip-existing"
    return replace(job, problem=problem, again=not is_input)


def _places() -> Callable[[Path], str]:
    """Return what finds where paths lead; it asks the file system once for each folder."""
    real = cache(os.path.realpath)

    def place(path: Path) -> str:  # links are followed up to its folder, not from its name
        head, name = os.path.split(path)
        found = os.path.join(real(head), name)  # noqa: PTH118
        return folded(found) if _FOLDING else found

    return place
