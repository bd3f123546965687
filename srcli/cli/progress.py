"""How far a run has come and how long it still takes: the line before it, and the bar."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.table import Column
from rich.text import Text

from srcli.cli.console import format_bytes, format_duration, format_pixels
from srcli.files import one_line
from srcli.upscaling.config import Job
from srcli.upscaling.survey import Survey

__all__ = ["LONG_SECONDS", "RunProgress"]

LONG_SECONDS = 60.0
"""A run that takes longer is announced, and its end reported."""

_ENOUGH_SECONDS = 1.0
"""How long the net has been at work, two batches at least, when a run is announced."""

_WINDOW_SECONDS = 60.0
"""The speed is that of the last minute: other programs come and go."""

_DRAWN_PER_SECOND = 2
_NARROW = 60
"""Columns of a terminal below which the bar has no pixels."""


class RunProgress:
    """Announces a run that will be long, and shows at the bottom of the terminal how it proceeds.

    The ``console`` is by default that of stderr; ``clock`` returns seconds.
    """

    def __init__(
        self,
        survey: Survey,
        *,
        shown: bool,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._survey, self._clock = survey, clock
        self._shares: dict[Job, float] = {}
        self._finished = self._batches = 0
        self._ended = self._lost = self._noted = 0.0
        self.console = console or Console(stderr=True)
        self._bar = self._made(shown=shown and self.console.is_interactive)
        self._task = self._bar.add_task("starting", start=False, total=None)
        self._unsaid = {"room", "time"}

    def _made(self, *, shown: bool) -> Progress:
        """Make the bar: what is at work, how far it is, and figures."""
        name = Column(ratio=1, no_wrap=True, overflow="ellipsis")
        return Progress(
            TextColumn("{task.description}", markup=False, table_column=name),
            BarColumn(None, table_column=Column(ratio=1)),
            _Figures(self),
            console=self.console,
            refresh_per_second=_DRAWN_PER_SECOND,
            speed_estimate_period=_WINDOW_SECONDS,
            get_time=self._clock,
            transient=True,
            expand=True,
            redirect_stdout=False,
            redirect_stderr=False,
            disable=not shown,
        )

    @property
    def total(self) -> float | None:
        """Pixels of all results; None until all headers have been read."""
        known = self._survey.after or self._survey.files
        return known - self._lost if self._survey.complete.is_set() else None

    @property
    def spent(self) -> float:
        """Seconds since the net began."""
        return self._bar.tasks[0].elapsed or 0.0

    def left(self) -> float | None:
        """Estimate the seconds that the rest takes; None as long as that is unknown."""
        task, since = self._bar.tasks[0], self._clock() - self._noted
        if self.total is None or not task.completed or self.spent <= since:
            return None
        speed = task.speed or task.completed / (self.spent - since)
        return max(0.0, (self.total - task.completed) / speed - since)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Look ahead, and show the bar."""
        with self._survey:
            self._bar.start()
            try:
                yield
            finally:
                with suppress(OSError):  # the terminal is gone
                    self._bar.stop()

    def printed(self, text: str) -> bool:
        """Print a line above the bar; False if there is none."""
        shown = self._bar.live.is_started
        if shown:
            with suppress(OSError):  # as above
                self.console.print(
                    one_line(text), markup=False, highlight=False, emoji=False, soft_wrap=True
                )
        return shown

    def advance(self, job: Job, share: float) -> None:
        """Note which share of a job is done."""
        self._batches += share > 0
        self._shares[job] = share
        files = self._survey.files
        count = f"{self._finished + 1}/{files} " if files > 1 else ""
        self._note(count + one_line(job.source.name))

    def end(self, job: Job, *, failed: bool) -> None:
        """Note that a job is over; what is left of a failed one is work no more."""
        share, pixels = self._shares.pop(job, 0.0), self._pixels(job)
        self._lost += pixels * (1 - share) * failed
        self._ended += pixels * (share if failed else 1)
        self._finished += 1
        self._note()

    def _note(self, description: str | None = None) -> None:
        self._noted = self._clock()
        self._bar.start_task(self._task)
        done = self._ended + sum(self._pixels(job) * one for job, one in self._shares.items())
        self._bar.update(self._task, completed=done, total=self.total, description=description)

    def _pixels(self, job: Job) -> int:
        # Of stdin nothing is known before it has been read, and copies are no work: each counts 1.
        return self._survey.pixels(job) if self._survey.after else 1

    def news(self) -> Iterator[str]:
        """Say what is worth knowing before a run, each line once, as soon as it is known."""
        if not self._survey.complete.is_set():
            return
        if "room" in self._unsaid:
            self._unsaid.remove("room")
            space = self._survey.disks.tightest()
            if space is not None and space.needed > space.free:
                yield (
                    f"warning: the disk of {one_line(space.folder)} has {format_bytes(space.free)} "
                    f"free, the results take about {format_bytes(space.needed)}; free some space, "
                    "or choose another --output or --format"
                )
        left, spent = self.left(), self.spent
        if left is None or spent < _ENOUGH_SECONDS or self._batches < 2:
            return
        if "time" in self._unsaid and spent + left >= LONG_SECONDS:
            yield self._announcement(spent + left)
        self._unsaid.discard("time")

    def _announcement(self, seconds: float) -> str:
        survey, disk = self._survey, self._survey.disks.size
        parts = [
            f"{survey.pictures} pictures" if survey.pictures > 1 else "",
            format_pixels(survey.before, survey.after) if survey.after else "",
            f"about {format_duration(seconds)}",
            f"about {format_bytes(disk)}" if disk else "",
        ]
        return ", ".join(filter(None, parts)) + (
            "; -n lists them" if self._survey.files > 1 else ""
        )


class _Figures(ProgressColumn):
    """Share, pixels and time left, as they are when the line is drawn."""

    def __init__(self, progress: RunProgress) -> None:
        super().__init__()
        self._progress = progress

    def render(self, task: Task) -> Text:
        """Return the end of the line."""
        done, total, left = task.completed, self._progress.total, self._progress.left()
        if not total:
            return Text("counting pixels")
        parts = [f"{int(100 * done / total):3}%"]
        if total > 1 and self._progress.console.width >= _NARROW:
            unit, name = (1e9, "GP") if total >= 1e9 else (1e6, "MP")
            whole = f"{total / unit:.1f}"
            parts.append(f"{done / unit:{len(whole)}.1f}/{whole} {name}")
        if done >= total:
            parts.append("writing")
        elif left is not None:
            clock = str(timedelta(seconds=max(1, round(left))))
            parts.append(f"{clock.removeprefix('0:')} left")
        return Text("  ".join(parts), no_wrap=True)
