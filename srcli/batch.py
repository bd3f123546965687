"""``srcli upscale``: files and folders in, larger files out, each for itself.

Everything that can be known without decoding a picture is decided before the first one is
touched: which files, under which names, and which of those names cannot be.
"""

import glob
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from srcli import images
from srcli.errors import ImageError, NothingToDoError, OutputError, UsageError
from srcli.files import is_folder, is_there
from srcli.geometry import output_length
from srcli.upscaling import Settings, Upscaler

__all__ = ["BatchConfig", "Job", "Result", "plan", "run"]

_MAX_SCALE = 16.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchConfig:
    """What to enlarge, how far, and where the results go.

    Raises:
        UsageError: If a value is out of range.
    """

    inputs: tuple[str, ...]
    """Files, folders and glob patterns."""

    output: Path | None = None
    """A file for one input file, else a folder; None: beside each input."""

    scale: float = 3.0
    """Output pixels per input pixel along each axis, 1 to 16."""

    model: str = "base"
    """Shipped name or weights file."""

    suffix: str | None = None
    """What is added to a name; None: ``_x{scale}`` beside the input, nothing in a folder."""

    format: str | None = None
    """File suffix of the results without the dot; None keeps the input's."""

    quality: int = 95
    """JPEG, WebP and AVIF quality, 1 to 100."""

    lossless: bool = False
    """Lossless WebP, and AVIF at its best."""

    recursive: bool = False
    """Whether folders are searched below their first level."""

    existing: Literal["error", "skip", "overwrite"] = "error"
    """What to do with an output that is already there."""

    settings: Settings = field(default_factory=Settings)
    """How the net computes."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not 1 <= self.scale <= _MAX_SCALE:  # also refuses NaN
            raise UsageError(f"--scale must lie in 1..16, not {self.scale:g}")
        if not 1 <= self.quality <= 100:
            raise UsageError(f"--quality must lie in 1..100, not {self.quality}")
        if self.format is not None and f".{self.format}" not in images.READABLE_SUFFIXES:
            known = ", ".join(sorted(suffix[1:] for suffix in images.READABLE_SUFFIXES))
            raise UsageError(f"--format {self.format} is unknown: use one of {known}")
        if self.suffix is not None and ("/" in self.suffix or "\\" in self.suffix):
            raise UsageError(f"--suffix {self.suffix!r} must not contain a path separator")

    @property
    def name_suffix(self) -> str:
        """What marks a name as enlarged, such as ``_x3``."""
        return f"_x{self.scale:g}" if self.suffix is None else self.suffix


@dataclass(frozen=True, slots=True)
class Job:
    """One input file and where its result goes."""

    source: Path
    target: Path
    problem: str | None = None
    """Why it cannot be done, if that is known before reading it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of one input file."""

    job: Job
    status: Literal["done", "skipped", "failed"]
    message: str = ""
    """The reason, for what failed or was skipped: one line."""

    before: tuple[int, int] | None = None
    """Width and height of the input, pixels."""

    after: tuple[int, int] | None = None
    """Width and height of the output, pixels."""

    seconds: float = 0.0
    """From reading to the renamed result."""


def plan(config: BatchConfig) -> list[Job]:
    """Find the inputs and name their outputs; no picture is read.

    Returns:
        The jobs, in the order of the inputs; those that cannot be done say why.

    Raises:
        NothingToDoError: If no image matched.
        UsageError: If ``output`` cannot serve the inputs given.
    """
    jobs: list[Job] = []
    named = list(dict.fromkeys(found for text in config.inputs for found in _expand(text)))
    single = len(named) == 1 and not is_folder(named[0])
    for path in named:
        if is_folder(path):
            target = _folder_target(config, path)
            jobs += [
                Job(file, target / _named(config, file.relative_to(path), config.suffix or ""))
                for file in _images_in(path, target, recursive=config.recursive)
            ]
        else:
            jobs.append(Job(path, _file_target(config, path, single=single)))
    if not jobs:
        hint = "" if config.recursive else " (folders below it need -r)"
        raise NothingToDoError(f"no image found in {', '.join(config.inputs)}{hint}")
    return _refuse_clashes(jobs, config)


def run(
    config: BatchConfig,
    jobs: list[Job],
    *,
    on_ready: Callable[[Upscaler], None] = lambda _: None,
    on_progress: Callable[[Job, float], None] = lambda _job, _share: None,
    notice: Callable[[str], None] = lambda _: None,
) -> Iterator[Result]:
    """Do the jobs one after the other; a failing one costs only itself.

    Args:
        config: The options.
        jobs: What :func:`plan` gave.
        on_ready: Called once, with what will enlarge them.
        on_progress: Called with a job and the share of it that is done, 0 to 1.
        notice: Called with one line for what is worth knowing.

    Yields:
        One result for each job, in order.

    Raises:
        WeightsError: If the weights are missing or damaged: before the first job.
        DeviceError: If the device is not there or out of memory.
    """
    upscaler = Upscaler.from_weights(config.model, settings=config.settings, notice=notice)
    on_ready(upscaler)
    for job in jobs:
        yield _do(config, upscaler, job, on_progress, notice)


def _do(
    config: BatchConfig,
    upscaler: Upscaler,
    job: Job,
    on_progress: Callable[[Job, float], None],
    notice: Callable[[str], None],
) -> Result:
    begun = time.perf_counter()
    if job.problem is not None:
        return Result(job=job, status="failed", message=f"{job.source}: {job.problem}")
    if config.existing == "skip" and is_there(job.target):
        return Result(job=job, status="skipped", message=f"{job.target} is there already")
    try:
        # Not before there is something to write: a failed input leaves no empty folder.
        album = images.read_album(job.source)
        picture = album.pictures[0]
        for note in album.notes:
            notice(f"{job.source}: {note}")
        size = (
            output_length(picture.height, config.scale),
            output_length(picture.width, config.scale),
        )
        _check_folder(job.target)
        images.check_size(job.target, size[1], size[0])
        larger = upscaler.upscale(picture, size, lambda share: on_progress(job, share))
        _prepare(job.target, config)
        images.write(larger, job.target, quality=config.quality, lossless=config.lossless)
    except (ImageError, OutputError) as error:
        return Result(job=job, status="failed", message=str(error))
    except MemoryError:
        problem = "the result does not fit into memory; use a smaller --scale or --tile"
        return Result(job=job, status="failed", message=f"{job.source}: {problem}")
    except OSError as error:  # a folder that vanished or may not be searched
        problem = f"{error.strerror or error}; check the path and its permissions"
        return Result(job=job, status="failed", message=f"{job.source}: {problem}")
    return Result(
        job=job,
        status="done",
        before=(picture.width, picture.height),
        after=(larger.width, larger.height),
        seconds=time.perf_counter() - begun,
    )


def _expand(text: str) -> list[Path]:
    """A path as it is; a pattern that the shell left alone as the images it matches, sorted."""
    if not text:
        raise UsageError("an input is empty; give a file, a folder or a pattern")
    if is_there(Path(text)) or not glob.has_magic(text):
        return [Path(text)]
    # Not Path.glob: it refuses absolute patterns, and a pattern may be one.
    matches = (Path(match) for match in glob.glob(text, recursive=True))  # noqa: PTH207
    return sorted(path for path in matches if images.is_image(path))


def _images_in(folder: Path, target: Path, *, recursive: bool) -> list[Path]:
    """Images of a folder, without those in ``target`` where that lies inside the folder.

    Results are no inputs of the next run.
    """
    found = images.files_in(folder, recursive=recursive)
    results = Path(os.path.abspath(target))  # noqa: PTH100 - links are not followed here
    if results == Path(os.path.abspath(folder)):  # noqa: PTH100
        return found
    return [
        path
        for path in found
        if not Path(os.path.abspath(path)).is_relative_to(results)  # noqa: PTH100
    ]


def _folder_target(config: BatchConfig, folder: Path) -> Path:
    if config.output is None:
        # "." and ".." have no name of their own; a link keeps the one it was given by.
        whole = Path(os.path.abspath(folder))  # noqa: PTH100 - resolve() follows links
        if not whole.name:
            raise UsageError(f"{folder} has no folder beside it; give an --output")
        return whole.with_name(f"{whole.name}_x{config.scale:g}")
    if is_there(config.output) and not is_folder(config.output):
        raise UsageError(f"--output {config.output} is a file; a folder's results need a folder")
    return config.output


def _file_target(config: BatchConfig, file: Path, *, single: bool) -> Path:
    output = config.output
    if output is None:
        return file.with_name(_named(config, Path(file.name), config.name_suffix).name)
    # A name for one file is that file's, even if its suffix will be refused; several go into a
    # folder unless the name can only be that of an image.
    named = output.suffix if single else images.format_of(output)
    if is_folder(output) or (not is_there(output) and not named):
        return output / _named(config, Path(file.name), config.suffix or "")
    if not single:
        raise UsageError(f"--output {output} is a file name; several inputs need a folder")
    return output


def _named(config: BatchConfig, path: Path, suffix: str) -> Path:
    """Name a result: ``suffix`` before the dot, the chosen format's ending after it."""
    ending = path.suffix if images.format_of(path) else ".png"
    if config.format is not None:
        ending = f".{config.format}"
    return path.with_name(f"{path.stem}{suffix}{ending}")


def _refuse_clashes(jobs: list[Job], config: BatchConfig) -> list[Job]:
    """Mark the jobs that would overwrite an input, another job's result, or a file."""
    if config.existing == "skip":
        jobs = _without_own_results(jobs)
    sources = {os.path.realpath(job.source) for job in jobs}
    taken: dict[str, Path] = {}
    checked = []
    for job in jobs:
        target = os.path.realpath(job.target)
        problem = None
        if target in sources:
            problem = f"its result {job.target} is an input; use --output or --suffix"
        elif target in taken:
            problem = f"its result {job.target} is also that of {taken[target]}; rename one of them"
        elif images.format_of(job.target) is None:
            known = " ".join(sorted(images.READABLE_SUFFIXES))
            problem = f"its result {job.target} has no known image suffix; use one of {known}"
        elif is_folder(job.target):
            problem = f"its result {job.target} is a folder; give another --output"
        elif config.existing == "error" and is_there(job.target):
            problem = f"{job.target} is there already; use --overwrite or --skip-existing"
        taken.setdefault(target, job.source)
        checked.append(Job(job.source, job.target, problem))
    return checked


def _without_own_results(jobs: list[Job]) -> list[Job]:
    """Leave out the inputs that an earlier run made from other inputs of this one.

    ``srcli upscale *.png --skip-existing`` finds the results beside the originals when it is
    run again, and is to go on with the originals.
    """
    made_from = {
        os.path.realpath(job.target): os.path.realpath(job.source)
        for job in jobs
        if is_there(job.target)
    }
    sources = ((job, os.path.realpath(job.source)) for job in jobs)
    return [job for job, source in sources if made_from.get(source, source) == source]


def _check_folder(target: Path) -> None:
    """Fail before the work, not after it, where the folder cannot be made."""
    for parent in target.parents:
        if is_folder(parent):
            if os.access(parent, os.W_OK | os.X_OK):
                return
            raise OutputError(
                f"cannot write {target}: no permission in {parent}; choose another --output"
            )
        if is_there(parent):
            raise OutputError(
                f"cannot write {target}: {parent} is not a folder; choose another --output"
            )


def _prepare(target: Path, config: BatchConfig) -> None:
    """Make the folder of a result, unless the result has appeared since the plan was made."""
    if config.existing == "error" and is_there(target):
        raise OutputError(f"{target} has appeared meanwhile; use --overwrite or --skip-existing")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"cannot make the folder {target.parent}: {error.strerror}; choose another --output"
        ) from error
