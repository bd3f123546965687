"""What a run has before it, from the headers of its files: pictures, pixels, room on the disk."""

import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Self

from srcli.errors import SrcliError
from srcli.files import is_pipe
from srcli.upscaling.config import BatchConfig, Job
from srcli.upscaling.disk import Disks
from srcli.upscaling.results import Result, begun, look

__all__ = ["Survey"]

_PATIENCE_SECONDS = 1.0
"""How long the end of a run waits for a header that is being read."""


class Survey:
    """Reads the headers of a run's files in a thread, while the run has begun.

    A header takes a millisecond, which is much for 20,000 files and nothing beside their work. What
    cannot be read, is copied, or is done already, counts nothing.
    """

    def __init__(self, config: BatchConfig, jobs: Sequence[Job]) -> None:
        self.files = len(jobs)
        self.pictures = 0
        self.before = self.after = 0
        """Pixels of inputs and results."""

        self.disks = Disks()
        self.complete = threading.Event()
        self._config, self._jobs = config, jobs
        self._pixels: dict[Job, int] = {}
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="srcli-headers", daemon=True)

    def __enter__(self) -> Self:
        """Begin to read."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave what has not been read."""
        self._stopped = True
        self._thread.join(_PATIENCE_SECONDS)

    def pixels(self, job: Job) -> int:
        """Return the pixels of a job's results; 0 where they are not known."""
        return self._pixels.get(job, 0)

    def _run(self) -> None:
        for job in self._jobs:
            if self._stopped:
                return
            result = begun(job, self._config)
            if result.status == "planned" and not is_pipe(job.source):
                with suppress(SrcliError, OSError, MemoryError):  # the run says what is the matter
                    self._add(result)
        self.complete.set()

    def _add(self, result: Result) -> None:
        header, copied = look(result, self._config)
        self.disks.add(result.job.target, result.disk or 0)
        if not copied:
            self._pixels[result.job] = result.pixels
            self.pictures += header.frames
            self.before += header.frames * header.width * header.height
            self.after += result.pixels
