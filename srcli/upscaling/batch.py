"""Files in, larger files out: what ``srcli upscale`` does with the jobs of a plan.

Threads read the next files and write the last ones around the net
(:mod:`srcli.upscaling.steps` has what is done with one). What is in memory at a time is bounded,
whatever the number of files.
"""

import ctypes
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from srcli.files import one_line, sweep
from srcli.upscaler import Upscaler
from srcli.upscaling.config import STREAM, BatchConfig, Job
from srcli.upscaling.nets import Nets
from srcli.upscaling.results import Result, begun
from srcli.upscaling.steps import Steps, Work

__all__ = ["BatchConfig", "finish", "run"]

_MOST_WAITING: Final = 512 * 2**20
"""Bytes of finished pictures that wait for their encoders, or of read ones for the net, before
the next picture is begun: what bounds the memory of a folder of very large files."""

_MOST_KEPT: Final = 64 * 2**20
"""Bytes of results after which freed memory is given back: in fp32 small photos of many sizes
otherwise leave the process a little larger each. More often, and the net pays for it: each time
its memory comes back page by page, which made a folder a tenth slower at 4 MiB."""

_LEAST_KEPT: Final = 2**19
"""What a file counts at least: every 128 small ones the same is done."""


def run(
    config: BatchConfig,
    jobs: Iterable[Job],
    *,
    on_ready: Callable[[str, Upscaler], None] = lambda _name, _upscaler: None,
    on_progress: Callable[[Job, float], None] = lambda _job, _share: None,
    notice: Callable[[str], None] = lambda _: None,
) -> Generator[Result, None, None]:
    """Do the jobs; a failing one costs only itself.

    Args:
        config: The options.
        jobs: Those of a plan; taken one by one, a few ahead of the net.
        on_ready: Called with the name of weights and their upscaler, once they are loaded: before
            the first job, or with ``auto`` when the first file needs them.
        on_progress: Called with a job and the share of it that is done, 0 to 1.
        notice: Called with one line for what is worth knowing; the same thing only once.

    Yields:
        One result for each job, in order; after an interrupt those of the finished files first.

    Raises:
        WeightsError: If the weights are missing or damaged: before the first job. (With ``auto``
            damage behind the header costs the files that need them.)
        DeviceError: If the device is not there.
        UsageError: If the tile does not fit the net's stride.
        KeyboardInterrupt: When one arrives; no unfinished file is left.
    """
    nets = Nets(config, notice, on_ready)
    files, stopped = ThreadPoolExecutor(config.threads, "srcli-files"), False
    try:
        steps = Steps(config, nets, on_progress, files)
        yield from _Pipeline(config, steps, notice).results(iter(jobs))
    except KeyboardInterrupt:
        stopped = True
        raise
    finally:  # after an interrupt a thread may wait for stdin
        files.shutdown(wait=not stopped, cancel_futures=stopped)


def finish(results: Generator[Result, None, None], on_result: Callable[[Result], None]) -> None:
    """Take the results of :func:`run` to their end, those that an interrupt left as well.

    Raises:
        KeyboardInterrupt: When one arrives, after the files that were finished.
    """
    try:
        for result in results:
            on_result(result)
    except KeyboardInterrupt as stop:
        # If it came from the run this raises it again; else what is being written is to come.
        on_result(results.throw(stop))
        for result in results:
            on_result(result)
        raise


@dataclass(slots=True)
class _Pipeline:
    """Prefetch, the net, pending writes: results come in the order of the jobs."""

    config: BatchConfig
    steps: Steps
    notice: Callable[[str], None]
    prefetch: deque[Work] = field(default_factory=deque)
    pending: deque[Work] = field(default_factory=deque)
    """Files that are written."""

    swept: set[Path] = field(default_factory=set)
    noticed: set[str] = field(default_factory=set)
    kept: int = 0

    def results(self, jobs: Iterator[Job]) -> Generator[Result, None, None]:
        """Do the jobs and yield what became of them, in order."""
        try:
            while self.fetch(jobs):
                self.pending.append(self.prefetch.popleft())
                self.steps.compute(self.pending[-1])
                while self.pending:
                    written = self.pending[0].written
                    if not (self.is_crowded() or written is None or written.done()):
                        break
                    result = self.next(self.pending)
                    yield result
                    if result.status == "failed" and self.config.fail_fast:
                        self.prefetch.clear()
                        jobs = iter(())
            while self.pending:
                yield self.next(self.pending)
        except KeyboardInterrupt:
            yield from self.interrupted()
            raise

    def fetch(self, jobs: Iterator[Job]) -> bool:
        """Take jobs from the list until enough are being read; False if there are no more."""
        while len(self.prefetch) <= self.config.threads and not _is_full(self.prefetch):
            job = next(jobs, None)
            if job is None:
                break
            work = Work(begun(job, self.config))
            if work.result.status != "failed":  # a run may have been killed behind its last result
                self.sweep(job.target)
            if work.result.status == "planned":
                work.read = self.steps.pool.submit(self.steps.read, work)
            self.prefetch.append(work)
        return bool(self.prefetch)

    def sweep(self, target: Path) -> None:
        """Remove what a killed run has left in the folder of a result."""
        if target != STREAM and target.parent not in self.swept:
            self.swept.add(target.parent)
            sweep(target.parent)

    def is_crowded(self) -> bool:
        """Whether one has to be finished before the next is begun."""
        return len(self.pending) > self.config.threads or _is_full(self.pending)

    def next(self, works: deque[Work]) -> Result:
        """Wait for the first; one that an interrupt finds here is still among the others."""
        result = self.steps.result(works[0])
        for note in result.notes:
            if note not in self.noticed:
                self.noticed.add(note)
                self.notice(f"{one_line(str(result.job.source))}: {note}")
        self.kept += max(_LEAST_KEPT, works.popleft().bytes)
        if self.kept > _MOST_KEPT:
            self.kept = 0
            _give_back()
        return result

    def interrupted(self) -> Iterator[Result]:
        """Leave what is read or computed, and finish what is being written: its work is done."""
        for work in self.prefetch:
            if work.read is not None:
                work.read.cancel()
        writing = deque(
            work for work in self.pending if work.written or work.result.status != "planned"
        )
        while writing:
            yield self.next(writing)


def _is_full(works: Iterable[Work]) -> bool:
    return sum(work.bytes for work in works) > _MOST_WAITING


def _give_back() -> None:
    """Let glibc return what is free; other systems' allocators do so by themselves."""
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
