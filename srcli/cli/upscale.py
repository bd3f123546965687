"""``srcli upscale``: files in, larger files out."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from tqdm import tqdm

from srcli.errors import Interrupted, OutputError, UsageError
from srcli.files import is_folder, one_line
from srcli.imaging.formats import READABLE_SUFFIXES
from srcli.ops.spans import TargetSize

if TYPE_CHECKING:
    from srcli.upscaler import Upscaler
    from srcli.upscaling.batch import BatchConfig, Forecast, Result, Summary
    from srcli.upscaling.selection import Job
    from srcli.upscaling.share import Share


from srcli.cli.console import (
    Stopper,
    format_counts,
    format_duration,
    print_json,
    reporting,
    say,
    terminating,
)
from srcli.cli.options import (
    FILES,
    MESSAGES,
    NET,
    OUTPUT,
    BatchSize,
    Device,
    DType,
    Overlap,
    Threads,
    Tile,
    complete_model,
    settings_of,
    use_threads,
    whole_number,
)

__all__ = ["UPSCALE_HELP", "upscale"]

# Paragraphs are one line each: the help's renderer wraps them and keeps every line break.
UPSCALE_HELP = (
    "Enlarge images.\n\n"
    "A result appears whole under its final name, or not at all. An input is never overwritten. "
    "A file that fails does not stop the others: each has its line, and the exit code is 1.\n\n"
    "[bold]srcli upscale photo.jpg[/]  # photo_x3.jpg, three times as wide and high\n\n"
    "[bold]srcli upscale photo.jpg -s 2 -o large.png[/]  # twice as large, as PNG\n\n"
    "[bold]srcli upscale *.jpg --size 3840x2160 -o big[/]  # as large as fits into it\n\n"
    "[bold]srcli upscale holiday -r --skip-existing[/]  # the tree holiday_x3; goes on\n\n"
    "[bold]srcli upscale holiday -r --failed-list failed.txt[/]  # list what fails ...\n\n"
    "[bold]srcli upscale @failed.txt[/]  # ... and try that again\n\n"
    "[bold]srcli upscale - -f png < photo.jpg > large.png[/]  # stdin to stdout\n\n"
    "[bold]torchrun --nproc-per-node 4 -m srcli upscale holiday -r[/]  # split by four\n\n"
    "Exit codes: 0 all done or skipped, 1 a file failed, 2 wrong usage, 3 no image found, "
    "4 no such weights, 5 no such device or out of memory, 130 and 143 stopped by a signal."
)


@reporting()
def upscale(
    inputs: Annotated[
        list[str],
        typer.Argument(
            help="Image files, folders, glob patterns, - for stdin, @LIST for a list of paths.",
            metavar="INPUT",
            show_default=False,
        ),
    ],
    *,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="A file for one file, else a folder (made if missing); - is stdout.",
            show_default="photo_x3.jpg beside photo.jpg, folder photos_x3 beside photos",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    scale: Annotated[
        float | None,
        typer.Option(
            "--scale",
            "-s",
            help="Any factor from 1 to 16.",
            metavar="F",
            show_default="3",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            help="Instead of a scale: 1920x, x1080, 1920x1080 (fit inside) or '>=3840x2160' "
            "(cover). What is that large already keeps its size.",
            metavar="SPEC",
            show_default=False,
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            "--model",
            "-m",
            help="Shipped weights by name, or a .safetensors file; auto chooses for each file: "
            "photo for a JPEG of middling quality, base for what is clean.",
            metavar="auto|NAME|FILE",
            autocompletion=complete_model,
            rich_help_panel=NET,
        ),
    ] = "auto",
    recursive: Annotated[
        bool,
        typer.Option(
            "--recursive",
            "-r",
            help="Search folders to the bottom; keep the tree.",
            rich_help_panel=FILES,
        ),
    ] = False,
    include: Annotated[
        list[str] | None,
        typer.Option(
            help="Of folders and patterns only such files ('*.jpg', '2019/**'); repeat for more.",
            rich_help_panel=FILES,
            show_default=False,
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            help="Of folders and patterns no such files or folders; repeat for more.",
            rich_help_panel=FILES,
            show_default=False,
        ),
    ] = None,
    skip_existing: Annotated[
        bool,
        typer.Option(
            "--skip-existing", help="Leave outputs that are there.", rich_help_panel=FILES
        ),
    ] = False,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace outputs that are there.", rich_help_panel=FILES),
    ] = False,
    fail_fast: Annotated[
        bool,
        typer.Option("--fail-fast", help="Stop at the first failure.", rich_help_panel=FILES),
    ] = False,
    failed_list: Annotated[
        Path | None,
        typer.Option(
            help="Write the inputs that failed to this file, to be given back as @FILE; empty if "
            "none did.",
            metavar="FILE",
            rich_help_panel=FILES,
            show_default=False,
        ),
    ] = None,
    max_pixels: Annotated[
        int | None,
        typer.Option(
            help="Refuse inputs of more pixels than this as decompression bombs.",
            show_default="178956970",
            rich_help_panel=FILES,
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            "-n",
            help="Say what would be done: sizes, patches, memory, time. Nothing is written.",
            rich_help_panel=FILES,
        ),
    ] = False,
    file_format: Annotated[
        str,
        typer.Option(
            "--format",
            "-f",
            help="auto is the input's; png, jpg, webp, avif, tiff, gif, bmp, ppm.",
            metavar="NAME",
            autocompletion=lambda: ["auto", "png", "jpg", "webp", "avif", "tiff", "gif", "bmp"],
            rich_help_panel=OUTPUT,
        ),
    ] = "auto",
    quality: Annotated[
        int,
        typer.Option(
            help="JPEG, WebP and AVIF quality; JPEG is written as 4:4:4.", rich_help_panel=OUTPUT
        ),
    ] = 95,
    lossless: Annotated[
        bool,
        typer.Option("--lossless", help="Lossless WebP; AVIF at its best.", rich_help_panel=OUTPUT),
    ] = False,
    metadata: Annotated[
        Literal["keep", "strip"],
        typer.Option(
            help="EXIF, XMP, ICC profile, resolution and texts; stripped, the colours are "
            "converted to sRGB.",
            rich_help_panel=OUTPUT,
        ),
    ] = "keep",
    suffix: Annotated[
        str | None,
        typer.Option(
            help="Added to the name; {scale} is the factor.",
            show_default="_x{scale} beside the input, none in a folder",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    tta: Annotated[
        bool,
        typer.Option(
            "--tta",
            "-x",
            help="Average over the eight ways to turn a patch: a bit better, eight times slower; "
            "symmetric weights do without.",
            rich_help_panel=NET,
        ),
    ] = False,
    tile: Tile = "auto",
    overlap: Overlap = "auto",
    batch_size: BatchSize = "auto",
    device: Device = "auto",
    dtype: DType = "auto",
    threads: Threads = None,
    jobs: Annotated[
        str,
        typer.Option(
            "--jobs",
            "-j",
            help="Threads that read and write files around the net.",
            metavar="N|auto",
            rich_help_panel=NET,
        ),
    ] = "auto",
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="One JSON object a file on stdout, then one summary.",
            rich_help_panel=MESSAGES,
        ),
    ] = False,
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose", "-v", help="Say what is computed on what.", rich_help_panel=MESSAGES
        ),
    ] = False,
    quiet: Annotated[
        bool,
        typer.Option(
            "--quiet",
            "-q",
            help="Only errors: no bar, no line for what is done.",
            rich_help_panel=MESSAGES,
        ),
    ] = False,
    no_progress: Annotated[
        bool, typer.Option("--no-progress", help="No progress bar.", rich_help_panel=MESSAGES)
    ] = False,
) -> None:
    """Enlarge images."""
    from srcli.imaging import images
    from srcli.upscaling import batch
    from srcli.upscaling.selection import STREAM, Selection

    if skip_existing and overwrite:
        raise UsageError("--skip-existing and --overwrite exclude each other")
    if scale is not None and size is not None:
        raise UsageError("--scale and --size exclude each other; give one")
    if as_json and output == STREAM:
        raise UsageError("--json and --output - both want stdout; give one")
    _check_failed_list(failed_list)
    if as_json and sys.stdout is None:
        raise UsageError("--json needs a stdout, and it is closed; give one")
    ending = file_format.lower().removeprefix(".")
    config = batch.BatchConfig(
        selection=Selection(
            inputs=tuple(inputs),
            output=output,
            scale=3.0 if scale is None else scale,
            size=None if size is None else TargetSize.parse(size.strip()),
            suffix=suffix,
            format=None if ending == "auto" else ending,
            recursive=recursive,
            include=tuple(include or ()),
            exclude=tuple(exclude or ()),
            existing="skip" if skip_existing else "overwrite" if overwrite else "error",
        ),
        model=model,
        quality=quality,
        lossless=lossless,
        metadata=metadata,
        max_pixels=images.MAX_PIXELS if max_pixels is None else max_pixels,
        fail_fast=fail_fast,
        jobs=whole_number("--jobs", jobs),
        settings=settings_of(tile, overlap, batch_size, device, dtype, tta=tta),
    )
    use_threads(threads)
    told = _Told(
        as_json=as_json,
        verbose=verbose,
        quiet=quiet,
        bar=not quiet and not no_progress and sys.stderr.isatty(),
    )
    if dry_run:
        _foretell(config, told)
    else:
        _upscale(config, told, failed_list)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Told:
    """What of a run is told, and how."""

    as_json: bool
    verbose: bool
    quiet: bool
    bar: bool


class _Voice:
    """Tells a person, or a script, how a batch goes on."""

    def __init__(self, config: "BatchConfig", told: _Told, share: "Share", total: int) -> None:
        from srcli.upscaling.batch import Summary

        self._config, self._told, self._share, self.total = config, told, share, total
        self._begun = time.perf_counter()
        self.summary = Summary()
        self.bar = tqdm(
            total=total,
            disable=not (told.bar and share.world_size == 1),
            leave=False,
            bar_format="{desc} {percentage:3.0f}%|{bar}| {elapsed}<{remaining}",
        )

    @property
    def finished(self) -> int:
        """Files of which the end is known."""
        return self.summary.done + self.summary.skipped + self.summary.failed

    def advance(self, job: "Job", share: float) -> None:
        """Move the bar on."""
        if self.bar.disable:
            return
        finished = self.finished
        count = f"{finished + 1}/{self.total} " if self.total > 1 else ""
        self.bar.set_description_str(f"{count}{one_line(job.source.name)}", refresh=False)
        self.bar.n = finished + share
        self.bar.refresh()

    def notice(self, text: str) -> None:
        """Say what is worth knowing."""
        self._tell(text, wanted=not self._told.quiet)

    def introduce(self, name: str, upscaler: "Upscaler") -> None:
        """Say what computes, if that is wanted."""
        dtype = str(upscaler.dtype).removeprefix("torch.")
        text = f"{name} on {upscaler.device} in {dtype}"
        self._tell(text, wanted=self._told.verbose)

    def show(self, result: "Result") -> None:
        """Say what became of a file."""
        failed = result.status == "failed"
        self.summary = self.summary.with_result(result)
        line = _result_line(result, verbose=self._told.verbose)
        self._tell(line, wanted=failed or not self._told.quiet)
        if self._told.as_json:
            print_json(result.to_dict())

    def end(self, failed_list: Path | None, exit_code: int | None = None) -> "Summary":
        """Leave what a script goes by, the summary and the list of failures."""
        from srcli.upscaling.lists import write_list

        summary = replace(self.summary, unfinished=self.total - self.finished)
        if exit_code is not None:
            summary = replace(summary, exit_code=exit_code)
        if failed_list is not None and not (summary.unfinished and self._is_input(failed_list)):
            write_list(failed_list, summary.again)
        if self._told.as_json:  # last, as its reader may be gone
            seconds = {"seconds": round(time.perf_counter() - self._begun, 3)}
            print_json(summary.to_dict() | seconds | _ranks(self._share))
        return summary

    def _is_input(self, failed_list: Path) -> bool:
        """Whether what is to be replaced still names files that this run has not come to."""
        lists = [text[1:] for text in self._config.selection.inputs if text.startswith("@")]
        return any(os.path.realpath(failed_list) == os.path.realpath(path) for path in lists)

    def _tell(self, text: str, *, wanted: bool) -> None:
        if wanted:
            self.bar.clear()
            say(text)


def _upscale(config: "BatchConfig", told: _Told, failed_list: Path | None) -> None:
    """Do the jobs, tell what became of each, and exit with 1 if one failed."""
    from srcli.upscaling import batch
    from srcli.upscaling.share import Share

    share = Share.from_environment()
    if failed_list is not None and share.world_size > 1:
        failed_list = failed_list.with_name(f"{failed_list.name}.{share.rank}")
    with terminating() as stopper:
        jobs = _own_jobs(config, share)
        _check_streams(jobs)
        voice = _Voice(config, told, share, len(jobs))
        if jobs:
            with voice.bar, _stopping(voice, stopper, failed_list):
                results = batch.run(
                    _on_own_device(config, share),
                    jobs,
                    on_ready=voice.introduce,
                    on_progress=stopper.checking(voice.advance),
                    notice=voice.notice,
                )
                batch.finish(results, stopper.holding(voice.show))
        summary = voice.end(failed_list)
        if len(jobs) > 1 and not told.quiet:
            say(_summary_line(summary))
    if summary.exit_code:
        raise typer.Exit(summary.exit_code)


def _own_jobs(config: "BatchConfig", share: "Share") -> "list[Job]":
    """Plan, and pick what this process does of it."""
    from srcli.upscaling.plan import plan
    from srcli.upscaling.share import deal

    if share.world_size > 1 and "@-" in config.selection.inputs:
        raise UsageError("@- reads stdin, which several processes cannot share; give @LIST")
    return deal(plan(config.selection), share, max_pixels=config.max_pixels)


def _ranks(share: "Share") -> dict[str, int]:
    return {"rank": share.rank, "world_size": share.world_size}


@contextmanager
def _stopping(voice: _Voice, stopper: "Stopper", failed_list: Path | None) -> Iterator[None]:
    """Let a signal end the run with what is known so far."""
    try:
        yield
    except (KeyboardInterrupt, Exception) as stop:
        if not (isinstance(stop, KeyboardInterrupt) or stopper.received):
            raise
        number = (*stopper.received, signal.SIGINT)[0]
        voice.bar.close()
        try:
            unfinished = voice.end(failed_list, 128 + number).unfinished
        except BrokenPipeError:  # Ctrl-C has ended the reader of stdout as well
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            unfinished = voice.total - voice.finished
        raise Interrupted(
            f"interrupted: {format_counts(voice.summary)}, {unfinished} not begun or unfinished; "
            "the same command with --skip-existing resumes",
            number,
        ) from None


def _check_failed_list(path: Path | None) -> None:
    """Refuse what would only fail after the night, or cost a photo.

    ``--failed-list *.jpg`` without a name before it would replace the first of them.
    """
    if path is None:
        return
    if is_folder(path) or not os.access(path.parent, os.W_OK):
        problem = "it is a folder" if is_folder(path) else f"{path.parent} is no writable folder"
        raise OutputError(f"cannot write {path}: {problem}; give another --failed-list")
    if path.suffix.lower() in READABLE_SUFFIXES:
        raise UsageError(f"--failed-list {path} is named like an image; give a name such as a.txt")


def _check_streams(jobs: "list[Job]") -> None:
    """Refuse to pour a picture into a terminal, or to read or write where nothing is open."""
    from srcli.upscaling.selection import STREAM

    if any(job.source == STREAM for job in jobs) and sys.stdin is None:
        raise UsageError("- reads stdin, and it is closed; give a file")
    if any(job.target == STREAM for job in jobs):
        if sys.stdout is None:
            raise UsageError("stdout is closed; redirect it or give --output")
        if sys.stdout.isatty():
            raise UsageError("stdout is a terminal; redirect it or give --output")


def _on_own_device(config: "BatchConfig", share: "Share") -> "BatchConfig":
    """Give each process of a machine a GPU of its own, as long as there are some."""
    if share.world_size == 1 or config.settings.device not in {"auto", "cuda"}:
        return config
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not count:
        return config
    device = f"cuda:{share.local_rank % count}"
    return replace(config, settings=replace(config.settings, device=device))


def _result_line(result: "Result", *, verbose: bool) -> str:
    if result.status == "failed":
        return f"error: {result.message}"
    if result.status == "skipped":
        return f"skipped: {result.message}"
    assert result.before is not None
    assert result.after is not None
    line = f"{result.job.target}  {result.after[0]}x{result.after[1]}"
    if result.pictures > 1:
        line += f"  {result.pictures} pictures"
    if verbose:
        megapixels = result.pictures * result.after[0] * result.after[1] / 1e6
        line += (
            f"  from {result.job.source} {result.before[0]}x{result.before[1]} in "
            f"{result.seconds:.2f} s ({result.seconds / megapixels:.2f} s/MP){_why(result)}"
        )
    return line


_NAMED_FAILURES = 10
"""Failures that the summary names; each has had its line, and --failed-list has them all."""


def _summary_line(summary: "Summary") -> str:
    """Say how many files came to what, and which ones failed."""
    text = format_counts(summary)
    if summary.unfinished:
        text += f", {summary.unfinished} not begun"
    if summary.failures:
        text += f": {', '.join(summary.failures[:_NAMED_FAILURES])}"
        more = len(summary.failures) - _NAMED_FAILURES
        text += f" and {more} more" if more > 0 else ""
    return text


def _foretell(config: "BatchConfig", told: _Told) -> None:
    """Say what would be done with each file, and exit with 1 if one is known to fail."""
    from srcli.upscaling import batch
    from srcli.upscaling.share import Share

    share = Share.from_environment()
    config = _on_own_device(config, share)
    jobs = _own_jobs(config, share)
    found = []
    for one in batch.forecast(config, jobs, notice=say):
        found.append(one)
        if told.as_json:
            print_json(one.to_dict())
        elif one.status == "failed" or not told.quiet:
            say(_forecast_line(one, verbose=told.verbose))
    planned = [one for one in found if one.status == "planned"]
    failed = [one for one in found if one.status == "failed"]
    totals = {
        "summary": True,
        "planned": len(planned),
        "skipped": len(found) - len(planned) - len(failed),
        "failed": len(failed),
        "megapixels": round(sum(_pixels(one) for one in planned) / 1e6, 3),
        "patches": sum(one.patches for one in planned),
        "memory": max((one.memory for one in planned), default=0),
        "seconds": round(sum(one.seconds for one in planned), 3),
        "exit_code": 1 if failed else 0,
    } | _ranks(share)
    if told.as_json:
        print_json(totals)
    elif not told.quiet:
        say(
            f"{totals['planned']} to do, {totals['skipped']} skipped, {totals['failed']} failing: "
            f"{totals['megapixels']:g} megapixels, {totals['patches']} patches, "
            f"about {totals['memory'] / 1e9:.1f} GB of memory and "
            f"{format_duration(totals['seconds'])}"
        )
    if failed:
        raise typer.Exit(1)


def _pixels(one: "Forecast") -> int:
    assert one.after is not None
    return one.pictures * one.after[0] * one.after[1]


def _forecast_line(one: "Forecast", *, verbose: bool) -> str:
    if one.status != "planned":
        return f"{'error' if one.status == 'failed' else 'skipped'}: {one.message}"
    assert one.before is not None
    assert one.after is not None
    pictures = f"  {one.pictures} pictures" if one.pictures > 1 else ""
    return (
        f"{one.job.source} {one.before[0]}x{one.before[1]} -> {one.job.target} "
        f"{one.after[0]}x{one.after[1]}{pictures}  {one.patches} patches, "
        f"about {one.memory / 1e9:.1f} GB, {format_duration(one.seconds)}"
        f"{_why(one) if verbose else ''}"
    )


def _why(one: "Result | Forecast") -> str:
    """Say which weights were chosen for a file, where they were not given."""
    return "" if one.model_reason is None else f"  ({one.model_reason})"
