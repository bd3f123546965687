"""What ``srcli upscale`` reports: a line and a JSON object for each file, a bar, a summary."""

import os
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from srcli.cli.console import (
    format_bytes,
    format_counts,
    format_duration,
    format_pixels,
    print_json,
    say,
    write_output,
)
from srcli.cli.progress import LONG_SECONDS, RunProgress
from srcli.upscaler import Upscaler
from srcli.upscaling.config import Job
from srcli.upscaling.left_out import LeftOut, listed
from srcli.upscaling.results import Result, Summary
from srcli.upscaling.search import is_list, joined_list
from srcli.upscaling.share import Share

__all__ = ["Reporter", "Verbosity", "write_failures"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verbosity:
    """What is reported, and how."""

    as_json: bool = False
    verbose: bool = False
    quiet: bool = False

    bar: bool = False
    """Whether there may be a progress bar."""


class Reporter:
    """Reports to a person, or to a script, how a batch of ``total`` files proceeds."""

    def __init__(
        self,
        verbosity: Verbosity,
        share: Share,
        total: int,
        left_out: LeftOut,
        *,
        dry_run: bool = False,
        progress: RunProgress | None = None,
    ) -> None:
        self.results: list[Result] = []
        """What became of each file so far."""

        self._verbosity, self._share, self._total = verbosity, share, total
        self._begun = time.perf_counter()
        self._noticed: set[str] = set()
        self._dry_run, self._left_out, self._progress = dry_run, left_out, progress

    def summary(self) -> Summary:
        """Return what is known of all files so far."""
        seconds = None if self._dry_run else time.perf_counter() - self._begun
        return Summary.of(self.results, self._total, seconds)

    def running(self) -> AbstractContextManager[None]:
        """Look ahead and show the bar, where they are wanted."""
        return nullcontext() if self._progress is None else self._progress.running()

    def progress(self, job: Job, share: float) -> None:
        """Report how far a file has come."""
        if self._progress is not None:
            self._progress.advance(job, share)
            for text in self._progress.news():
                self.notice(text)

    def notice(self, text: str) -> None:
        """Report what is worth knowing, once."""
        if text not in self._noticed:
            self._noticed.add(text)
            self._print(text, wanted=not self._verbosity.quiet)

    def loaded(self, name: str, upscaler: Upscaler) -> None:
        """Report what computes."""
        text = f"{name}{_mixed(upscaler.settings.sharpness)} on {upscaler.compute}"
        self._print(text, wanted=self._verbosity.verbose)

    def result(self, result: Result) -> None:
        """Report what became of a file."""
        self.results.append(result)
        if self._progress is not None:
            self._progress.end(result.job, failed=result.status == "failed")
        line = _line(result, verbose=self._verbosity.verbose)
        self._print(line, wanted=result.status == "failed" or not self._verbosity.quiet)
        if self._verbosity.as_json:
            print_json(result.to_dict())

    def print_json_summary(self, summary: Summary) -> None:
        """Report on all files as JSON, if that is wanted."""
        if self._verbosity.as_json:
            ranks = {"rank": self._share.rank, "world_size": self._share.world_size}
            found = self._left_out
            left_out = {"left_out": found.kinds(), "earlier_results": len(found.results)}
            print_json(summary.to_dict() | left_out | ranks)

    def print_summary(self, summary: Summary) -> None:
        """Report what was left out, and on all files if that says more than the lines before."""
        self.print_json_summary(summary)
        for line in self._left_out.lines():
            self.notice(line)
        text = _estimates(summary) if self._dry_run else _counts(summary)
        if self._dry_run or self._total > 1 or summary.seconds >= LONG_SECONDS:
            self._print(text, wanted=not self._verbosity.quiet)

    def _print(self, text: str, *, wanted: bool) -> None:
        if wanted and not (self._progress is not None and self._progress.printed(text)):
            say(text)


def write_failures(path: Path | None, summary: Summary, inputs: tuple[str, ...]) -> None:
    """Write the list of what failed, unless that would replace an input ``@LIST`` not yet done.

    Raises:
        OutputError: If it cannot be written.
    """
    if path is None:
        return
    lists = {os.path.realpath(text[1:]) for text in inputs if is_list(text)}
    if not (summary.unfinished and os.path.realpath(path) in lists):
        write_output(path, joined_list(summary.again), "--failed-list")


def _line(result: Result, *, verbose: bool) -> str:
    if result.status == "failed":
        return f"error: {result.message}"
    if result.status == "skipped":
        return f"skipped: {result.message}"
    assert result.before is not None
    assert result.after is not None
    before, after = (f"{width}x{height}" for width, height in (result.before, result.after))
    pictures = f"  {result.pictures} pictures" if result.pictures > 1 else ""
    reason = _weights(result) if verbose or result.status == "planned" else ""
    source, target = result.job.source, result.job.target
    if result.memory is not None:
        return (
            f"{source} {before} -> {target} {after}{pictures}  {result.patches} patches, "
            f"about {result.memory / 1e9:.1f} GB of memory, "
            f"{format_bytes(result.disk or 0)} on disk, {format_duration(result.seconds)}{reason}"
        )
    line = f"{target}  {after}{pictures}"
    if verbose:
        rate = result.seconds / (result.pixels / 1e6)
        line += f"  from {source} {before} in {result.seconds:.2f} s ({rate:.2f} s/MP){reason}"
    return line


def _weights(result: Result) -> str:
    """Say which weights were chosen or mixed; those that were given say nothing new."""
    if result.model_reason is None and result.sharpness is None:
        return ""
    return f"  ({result.model_reason or result.model}{_mixed(result.sharpness)})"


def _mixed(sharpness: float | None) -> str:
    return "" if sharpness is None else f" with sharpness {sharpness:g}"


def _counts(summary: Summary) -> str:
    text = format_counts(summary)
    if summary.pixels:
        took = format_duration(summary.seconds)
        text = f"{format_pixels(summary.pixels)} in {took}: {text}"
    if summary.unfinished:
        text += f", {summary.unfinished} not begun"
    if summary.failed_inputs:
        text += f": {listed(summary.failed_inputs)}"
    return text


def _estimates(summary: Summary) -> str:
    free = "" if summary.disk_free is None else f" ({format_bytes(summary.disk_free)} free)"
    return (
        f"{summary.planned} to do, {summary.skipped} skipped, {summary.failed} failing: "
        f"{format_pixels(summary.pixels)}, {summary.patches} patches, "
        f"about {(summary.memory or 0) / 1e9:.1f} GB of memory, "
        f"{format_bytes(summary.disk or 0)} on disk{free} and {format_duration(summary.seconds)}"
    )
