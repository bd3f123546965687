"""Doing what ``srcli upscale`` was asked: plan, run or estimate, report, stop."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import typer

from srcli.cli.console import Stopper, format_counts, terminating, waiting
from srcli.cli.progress import RunProgress
from srcli.cli.reporter import Reporter, Verbosity, write_failures
from srcli.errors import Interrupted, OutputError, UsageError
from srcli.files import one_line
from srcli.upscaling import batch
from srcli.upscaling import estimate as estimates
from srcli.upscaling.compare import check_page, write_page
from srcli.upscaling.config import STREAM, BatchConfig, Job
from srcli.upscaling.left_out import LeftOut
from srcli.upscaling.plan import plan
from srcli.upscaling.share import Share, deal
from srcli.upscaling.survey import Survey

__all__ = ["enlarge", "estimate"]


def enlarge(
    config: BatchConfig, verbosity: Verbosity, failed_list: Path | None, page: Path | None
) -> None:
    """Do this process's share of the jobs, report on each, and write list and page of the run.

    Raises:
        typer.Exit: If a file failed.
        Interrupted: At a signal, after what is known has been reported.
        SrcliError: If nothing can be begun.
    """
    share = Share.from_environment()
    if failed_list is not None and share.world_size > 1:
        failed_list = failed_list.with_name(f"{failed_list.name}.{share.rank}")
    if page is not None and share.world_size > 1:
        page = page.with_suffix(f".{share.rank}{page.suffix}")
    with terminating() as stopper:
        with waiting("looking for images", shown=verbosity.bar):
            jobs, left_out = _own_jobs(config, share)
        if any(job.target == STREAM for job in jobs) and sys.stdout.isatty():
            raise UsageError("stdout is a terminal; redirect it or give --output")
        check_page(page, jobs, config.inputs)
        progress = None
        if not verbosity.quiet:
            bar = verbosity.bar and share.world_size == 1
            progress = RunProgress(Survey(config, jobs), shown=bar)
        reporter = Reporter(verbosity, share, len(jobs), left_out, progress=progress)
        if jobs:
            with reporter.running(), _stopping(config, reporter, stopper, failed_list):
                results = batch.run(
                    _on_own_device(config, share),
                    jobs,
                    on_ready=reporter.loaded,
                    on_progress=stopper.checking(reporter.progress),
                    notice=reporter.notice,
                )
                batch.finish(results, stopper.holding(reporter.result))
        summary = reporter.summary()
        write_failures(failed_list, summary, config.inputs)
        reporter.print_summary(summary)
        if page is not None:
            with waiting(f"writing {one_line(page)}", shown=verbosity.bar):
                written = write_page(page, reporter.results, config.max_pixels)
            if not written:
                reporter.notice(f"no picture was enlarged: {one_line(page)} is not written")
    if summary.exit_code:
        raise typer.Exit(summary.exit_code)


def estimate(config: BatchConfig, verbosity: Verbosity) -> None:
    """Report what would be done with this process's share of the jobs.

    Raises:
        typer.Exit: If a file is known to fail.
        SrcliError: If nothing could be begun.
    """
    share = Share.from_environment()
    jobs, left_out = _own_jobs(config, share)
    reporter = Reporter(replace(verbosity, bar=False), share, len(jobs), left_out, dry_run=True)
    if jobs:
        own = _on_own_device(config, share)
        for result in estimates.estimate(own, jobs, notice=reporter.notice):
            reporter.result(result)
    summary = reporter.summary()
    reporter.print_summary(summary)
    if summary.exit_code:
        raise typer.Exit(summary.exit_code)


@contextmanager
def _stopping(
    config: BatchConfig, reporter: Reporter, stopper: Stopper, failed_list: Path | None
) -> Iterator[None]:
    try:
        yield
    except (KeyboardInterrupt, Exception) as stop:
        is_signal = isinstance(stop, KeyboardInterrupt) or stopper.received
        if not (is_signal or isinstance(stop, BrokenPipeError)):
            raise
        number = (*stopper.received, signal.SIGINT)[0]
        summary = replace(reporter.summary(), exit_code=128 + number if is_signal else 1)
        write_failures(failed_list, summary, config.inputs)
        with suppress(BrokenPipeError):  # Ctrl-C may have ended the reader of stdout as well
            reporter.print_json_summary(summary)
        text = (
            f"{format_counts(summary)}, {summary.unfinished} not begun or unfinished; "
            "the same command with --skip-existing resumes"
        )
        if is_signal:
            raise Interrupted(f"interrupted: {text}", number) from None
        raise OutputError(f"nobody reads stdout any more: {text}") from None


def _own_jobs(config: BatchConfig, share: Share) -> tuple[list[Job], LeftOut]:
    """Plan, and pick what this process does of it; the first reports what was left out."""
    if share.world_size > 1 and "@-" in config.inputs:
        raise UsageError("@- reads stdin, which several processes cannot share; give @LIST")
    left_out = LeftOut()
    jobs = deal(plan(config, left_out), share, max_pixels=config.max_pixels)
    return jobs, left_out if share.rank == 0 else LeftOut()


def _on_own_device(config: BatchConfig, share: Share) -> BatchConfig:
    """Give each process of a machine a GPU of its own, as long as there are some."""
    if share.world_size == 1 or config.settings.device not in {"auto", "cuda"}:
        return config
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not count:
        return config
    device = f"cuda:{share.local_rank % count}"
    return replace(config, settings=replace(config.settings, device=device))
