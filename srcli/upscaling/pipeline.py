"""Many files at a time: threads read the next ones and write the last ones around the net.

What is in memory at a time is bounded, whatever the number of files.
"""

import ctypes
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from srcli.files import one_line, sweep
from srcli.upscaling.config import BatchConfig
from srcli.upscaling.results import Result, result_without_reading
from srcli.upscaling.selection import STREAM, Job
from srcli.upscaling.steps import PATIENCE_SECONDS, Steps, Work

__all__ = ["Pipeline"]

_MOST_WAITING: Final = 512 * 2**20
"""Bytes of finished pictures that wait for their encoders, or of read ones for the net, before
the next picture is begun: what bounds the memory of a folder of very large files."""

_MOST_KEPT: Final = 64 * 2**20
"""Bytes of results after which freed memory is given back: in fp32 small photos of many sizes
otherwise leave the process a little larger each. More often, and the net pays for it: each time
its memory comes back page by page, which made a folder a tenth slower at 4 MiB."""

_LEAST_KEPT: Final = 2**19
"""What a file counts at least: every 128 small ones the same is done."""


@dataclass(slots=True)
class Pipeline:
    """Prefetch, the net, pending writes: results come in the order of the jobs."""

    config: BatchConfig
    steps: Steps
    readers: ThreadPoolExecutor
    notice: Callable[[str], None]
    workers: ThreadPoolExecutor | None = None
    """Threads that compute a file each, one for each GPU; None: the calling thread computes."""

    width: int = 1
    """Files that are computed at a time."""

    _prefetch: deque[Work] = field(default_factory=deque)
    _pending: deque[Work] = field(default_factory=deque)
    """Files that are computed or written."""

    _swept: set[Path] = field(default_factory=set)
    _noticed: set[str] = field(default_factory=set)
    _kept: int = 0

    def results(self, jobs: Iterable[Job]) -> Generator[Result, None, None]:
        """Do the jobs and yield what became of them, in order."""
        source = iter(jobs)
        try:
            while True:
                self._fetch(source)
                if not self._prefetch:
                    break
                self._begin(self._prefetch.popleft())
                while self._pending and (self._is_crowded() or self._pending[0].is_finished):
                    result = self._next(self._pending)
                    yield result
                    if result.status == "failed" and self.config.fail_fast:
                        self._prefetch.clear()
                        source = iter(())
            while self._pending:
                yield self._next(self._pending)
        except KeyboardInterrupt:
            yield from self._interrupted()
            raise

    def _fetch(self, source: Iterator[Job]) -> None:
        """Take jobs from the list until enough are being read."""
        while len(self._prefetch) <= self.config.threads and not _is_full(self._prefetch):
            job = next(source, None)
            if job is None:
                return
            work = Work(job, self.config.given_model)
            work.result = result_without_reading(job, self.config.selection)
            if work.result is None:
                self._sweep(job)
                work.read = self.readers.submit(self.steps.read, work)
            self._prefetch.append(work)

    def _sweep(self, job: Job) -> None:
        """Remove what a killed run has left in the folder of a result."""
        if job.target != STREAM and job.target.parent not in self._swept:
            self._swept.add(job.target.parent)
            sweep(job.target.parent)

    def _begin(self, work: Work) -> None:
        """Compute a file, or have a worker do it."""
        self._pending.append(work)
        if self.workers is None:
            self.steps.compute(work)
        else:
            work.computed = self.workers.submit(self.steps.compute, work)

    def _is_crowded(self) -> bool:
        return len(self._pending) >= self.config.threads + self.width or _is_full(self._pending)

    def _next(self, works: deque[Work]) -> Result:
        """Wait for the first; one that an interrupt finds here is still among the others."""
        result = self.steps.result(works[0])
        for note in result.notes:
            if note not in self._noticed:
                self._noticed.add(note)
                self.notice(f"{one_line(str(result.job.source))}: {note}")
        self._kept += max(_LEAST_KEPT, works.popleft().bytes)
        if self._kept > _MOST_KEPT:
            self._kept = 0
            _give_back()
        return result

    def _interrupted(self) -> Iterator[Result]:
        """Leave what is read or computed, and finish what is being written: its work is done."""
        for work in self._prefetch:
            if work.read is not None:
                work.read.cancel()
        self.steps.stopping.set()
        computing = [work.computed for work in self._pending if work.computed is not None]
        for computed in computing:
            computed.cancel()
        wait(computing, PATIENCE_SECONDS)
        writing = deque(work for work in self._pending if work.result or work.written)
        while writing:
            yield self._next(writing)


def _is_full(works: Iterable[Work]) -> bool:
    return sum(work.bytes for work in works) > _MOST_WAITING


def _give_back() -> None:
    """Let glibc return what is free; other systems' allocators do so by themselves."""
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
