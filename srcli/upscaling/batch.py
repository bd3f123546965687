"""``srcli upscale``: files in, larger files out, each for itself.

While the net is at one file, threads read the next ones and write the last ones. What is in
memory at a time is bounded, whatever the number of files.
"""

import ctypes
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from queue import Full, Queue
from typing import Any, Literal

from srcli.errors import DeviceError, ImageError, OutputError, SrcliError, UsageError
from srcli.files import AUTO, is_folder, is_there, one_line, reason, sweep
from srcli.imaging import images
from srcli.imaging.images import Album, Levels, Metadata, Picture, Scan
from srcli.model import weights
from srcli.ops.devices import all_alike, resolve_device, resolve_dtype
from srcli.ops.spans import MAX_SCALE, output_length
from srcli.upscaler import Settings, Upscaler, check_settings
from srcli.upscaling.choose import choose, general
from srcli.upscaling.selection import STREAM, Job, Selection

__all__ = ["BatchConfig", "Forecast", "Result", "Summary", "finish", "forecast", "run"]

_MOST_WAITING = 512 * 2**20
"""Bytes of finished pictures that wait for their encoders, or of read ones for the net, before
the next picture is begun: what bounds the memory of a folder of very large files."""

_MOST_KEPT = 64 * 2**20
"""Bytes of results after which freed memory is given back: in fp32 small photos of many sizes
otherwise leave the process a little larger each. More often, and the net pays for it: each time
its memory comes back page by page, which made a folder a tenth slower at 4 MiB."""

_STREAMED = 4_000_000
"""Pixels of a result from which its rows are encoded while the net is still at those below: then
no file of this size or larger is held whole, and its encoder is done when the net is."""

_SCANNED = 32_000_000
"""Pixels of an input from which it is decoded as its rows are needed, where its kind allows it."""

_SCANNED_FORMATS = {"JPEG", "PNG", "PPM", "TIFF"}

_LEAST_PACKED = 2**20
"""Bytes of a file below which nobody looks whether it has so many pixels."""

_POLL_SECONDS = 0.1
"""Between two looks whether a writer is still there."""

_PATIENCE_SECONDS = 10.0
"""That a writer may take to remove its unfinished file."""

_BANDS_WAITING = 1
"""Finished bands of rows that wait for an encoder."""

_BANDS_HELD = _BANDS_WAITING + 2
"""Bands beside the one that is computed: one is handed on, one is encoded."""

_LEAST_KEPT = 2**19
"""What a file counts at least: every 128 small ones the same is done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchConfig:
    """What to enlarge, how far, and where the results go.

    Raises:
        UsageError: If a value is out of range.
    """

    selection: Selection
    """Which files, how large, and under which names."""

    model: str = AUTO
    """Shipped name or weights file; ``auto`` chooses for each file."""

    quality: int = 95
    """JPEG, WebP and AVIF quality, 1 to 100."""

    lossless: bool = False
    """Lossless WebP, and AVIF at its best."""

    metadata: Literal["keep", "strip"] = "keep"
    """Whether EXIF, XMP, profile, resolution and texts travel along."""

    max_pixels: int = images.MAX_PIXELS
    """Pixels of an input beyond which it is refused as a decompression bomb."""

    fail_fast: bool = False
    """Whether the first failure ends the run."""

    jobs: int | None = None
    """Threads that read and write around the net; None chooses."""

    settings: Settings = field(default_factory=Settings)
    """How the net computes."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not 1 <= self.quality <= 100:
            raise UsageError(f"--quality must lie in 1..100, not {self.quality}")
        if self.max_pixels < 1:
            raise UsageError(f"--max-pixels must be at least 1, not {self.max_pixels}")
        if self.jobs is not None and not 1 <= self.jobs <= 256:
            raise UsageError(f"--jobs must lie in 1..256, not {self.jobs}")

    @property
    def threads(self) -> int:
        """Threads that read and write; a few keep even a GPU supplied."""
        return self.jobs or min(8, os.cpu_count() or 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of one input file."""

    job: Job
    status: Literal["done", "skipped", "failed"]
    message: str = ""
    """The reason, for what failed or was skipped: one line."""

    before: tuple[int, int] | None = None
    """Width and height of the input's first picture, pixels."""

    after: tuple[int, int] | None = None
    """Width and height of the output's, pixels."""

    pictures: int = 1
    """Frames or pages that were enlarged."""

    notes: tuple[str, ...] = ()
    """What could not be kept as it was: one line each."""

    seconds: float = 0.0
    """From reading to the renamed result, without the time spent waiting for others."""

    model: str | None = None
    """The weights used, as they were given or chosen; None where it did not come to a choice."""

    model_reason: str | None = None
    """Why these were chosen; None where they were given."""

    exit_code: int = 0
    """What a run that fails for this reason alone ends with."""

    def to_dict(self) -> dict[str, Any]:
        """The fields of one line of ``--json``."""
        return _told(self) | {"notes": list(self.notes), "seconds": round(self.seconds, 3)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What would be done with one input file, as far as its header tells."""

    job: Job
    status: Literal["planned", "skipped", "failed"]
    message: str = ""
    before: tuple[int, int] | None = None
    after: tuple[int, int] | None = None
    pictures: int = 1
    model: str | None = None
    model_reason: str | None = None
    exit_code: int = 0

    patches: int = 0
    """Patches of 120x120 (or of --tile) that the net computes, over all pictures and steps."""

    memory: int = 0
    """Estimated peak of the process, bytes, while this file is in its hands."""

    seconds: float = 0.0
    """Estimated time of the net, from a measure of this machine; files are read and written
    meanwhile."""

    def to_dict(self) -> dict[str, Any]:
        """The fields of one line of ``--json --dry-run``."""
        told = {"patches": self.patches, "memory": self.memory, "seconds": round(self.seconds, 3)}
        return _told(self) | told


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What became of all files of this process."""

    done: int = 0
    skipped: int = 0
    failed: int = 0

    unfinished: int = 0
    """Files that were not begun, or not finished."""

    pixels: int = 0
    """Of all results, first pictures alone."""

    failures: tuple[str, ...] = ()
    """The inputs that failed, as a list names them, in order."""

    again: tuple[str, ...] = ()
    """Those of them that can be given back in a list; see :attr:`Job.again`."""

    exit_code: int = 0

    def with_result(self, result: Result) -> "Summary":
        """Count one more file."""
        failed = (result.job.entry,) if result.status == "failed" else ()
        width, height = result.after or (0, 0)
        # A reason of its own counts only as long as it is the only one.
        codes = {self.exit_code, result.exit_code} - {0}
        return replace(
            self,
            **{result.status: getattr(self, result.status) + 1},
            pixels=self.pixels + width * height,
            failures=self.failures + failed,
            again=self.again + (failed if result.job.again else ()),
            exit_code=min(codes, default=0),
        )

    def to_dict(self) -> dict[str, Any]:
        """The fields of the last line of ``--json``."""
        return {
            "summary": True,
            "done": self.done,
            "skipped": self.skipped,
            "failed": self.failed,
            "unfinished": self.unfinished,
            "megapixels": round(self.pixels / 1e6, 3),
            "failed_inputs": list(self.failures),
            "exit_code": self.exit_code,
        }


def _told(one: Result | Forecast) -> dict[str, Any]:
    before, after = one.before or (None, None), one.after or (None, None)
    return {
        "input": str(one.job.source),
        "output": str(one.job.target),
        "entry": one.job.entry,
        "status": one.status,
        "message": one.message,
        "width": before[0],
        "height": before[1],
        "output_width": after[0],
        "output_height": after[1],
        "pictures": one.pictures,
        "exit_code": one.exit_code,
        "model": one.model,
        "model_reason": one.model_reason,
    }


# ---- running ------------------------------------------------------------------------------


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
        jobs: What :func:`srcli.upscaling.plan.plan` gave; taken one by one, a few ahead of the net.
        on_ready: Called with the name of weights and what enlarges by them, once they are loaded:
            before the first job, or with ``auto`` when the first file needs them.
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
    nets = _Nets(config, notice, on_ready)
    lanes = len(all_alike(resolve_device(config.settings.device)))
    with _pool(config.threads, "srcli-files") as pool, _pool(lanes, "srcli-nets") as lane_pool:
        line = _Line(config, nets, on_progress, notice)
        if lanes > 1:
            line.lanes, line.width = lane_pool, lanes
        yield from line.results(jobs, pool)


def finish(results: Generator[Result, None, None], on_result: Callable[[Result], None]) -> None:
    """Take the results of :func:`run` to their end, those that an interrupt left as well.

    Args:
        results: What :func:`run` gave.
        on_result: Called with each of them.

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


@contextmanager
def _pool(threads: int, name: str) -> Iterator[ThreadPoolExecutor]:
    """Threads that are waited for, but not after an interrupt: one may wait for stdin."""
    pool = ThreadPoolExecutor(threads, name)
    stopped = False
    try:
        yield pool
    except KeyboardInterrupt:
        stopped = True
        raise
    finally:
        pool.shutdown(wait=not stopped, cancel_futures=stopped)


_Chosen = tuple[str | None, str | None]
"""Weights of a file, and why these; None as in :class:`Result`."""


class _Nets:
    """The upscalers of a run, one for each weights; those of ``auto`` are made when needed."""

    def __init__(
        self,
        config: BatchConfig,
        notice: Callable[[str], None],
        on_ready: Callable[[str, Upscaler], None] = lambda _name, _upscaler: None,
    ) -> None:
        self._config, self._notice, self._on_ready = config, notice, on_ready
        self._said: set[str] = set()
        self._made: dict[str, Upscaler] = {}
        self._lock = threading.Lock()
        self._names = general()
        if config.model != AUTO:
            self.named(config.model)
            return
        for name in self._names:
            _check_settings(config.settings, name)

    def choice(self, coding: images.Coding | None) -> tuple[str, str | None]:
        """Choose for a file: a name, and the reason unless the name was given."""
        if self._config.model != AUTO:
            return self._config.model, None
        found = choose(coding, self._names)
        return found.name, found.reason

    def named(self, name: str) -> Upscaler:
        """Give what enlarges by these weights.

        Raises:
            WeightsError: If they are missing or damaged.
        """
        with self._lock:
            if name not in self._made:
                made = Upscaler(name, settings=self._config.settings, notice=self._once)
                self._made[name] = made
                self._on_ready(name, made)
            return self._made[name]

    def _once(self, text: str) -> None:
        """Pass on what no net has said before."""
        if text not in self._said:
            self._said.add(text)
            self._notice(text)


def _check_settings(settings: Settings, name: str) -> None:
    """Find out without the weights' tensors what would stop an :class:`Upscaler` of them."""
    resolve_dtype(settings.dtype, resolve_device(settings.device))
    header = weights.read_header(weights.resolve(name))
    check_settings(header.config, settings)


@dataclass(slots=True)
class _Work:
    """A file on its way: what is known of it so far."""

    job: Job
    chosen: _Chosen
    result: Result | None = None
    album: Future[Album | Scan] | None = None
    open: ExitStack = field(default_factory=ExitStack)
    """What is to be closed when the file has been read."""

    computed: Future[None] | None = None
    """Where several GPUs compute, each a file; None where this thread does."""

    written: Future[tuple[str, ...]] | None = None
    begun: float = 0.0
    waited: float = 0.0
    bytes: int = 0
    notes: tuple[str, ...] = ()
    before: tuple[int, int] | None = None
    after: tuple[int, int] | None = None
    pictures: int = 1
    seconds: float = 0.0


@dataclass(slots=True)
class _Line:
    """The assembly line: threads read, this thread runs the net, threads write."""

    config: BatchConfig
    nets: _Nets
    on_progress: Callable[[Job, float], None]
    notice: Callable[[str], None]
    lanes: ThreadPoolExecutor | None = None
    """Threads that compute a file each, as many as there are GPUs; None: this thread does."""

    width: int = 1
    """Files that are computed at a time."""

    stopping: threading.Event = field(default_factory=threading.Event)
    swept: set[Path] = field(default_factory=set)
    said: set[str] = field(default_factory=set)
    kept: int = 0

    def results(
        self, jobs: Iterable[Job], pool: ThreadPoolExecutor
    ) -> Generator[Result, None, None]:
        """Move the files along and yield what became of them, in order."""
        source = iter(jobs)
        coming: deque[_Work] = deque()
        going: deque[_Work] = deque()
        try:
            while True:
                self._fetch(source, coming, pool)
                if not coming:
                    break
                work = coming.popleft()
                going.append(work)
                self._begin(work, pool)
                while going and (self._crowded(going) or _is_finished(going[0])):
                    result = self._next(going)
                    yield result
                    if result.status == "failed" and self.config.fail_fast:
                        coming.clear()
                        source = iter(())
            while going:
                yield self._next(going)
        except KeyboardInterrupt:
            for work in coming:
                if work.album is not None:
                    work.album.cancel()
            self._halt(going)
            # What is being written is finished: the work is done, and only the last step left.
            begun = deque(work for work in going if work.result or work.written)
            while begun:
                yield self._next(begun)
            raise

    def _begin(self, work: _Work, pool: ThreadPoolExecutor) -> None:
        """Compute a file, or have a lane do it."""
        if self.lanes is None:
            self._compute(work, pool)
        else:
            work.computed = self.lanes.submit(self._compute, work, pool)

    def _halt(self, going: deque[_Work]) -> None:
        """Have the lanes leave what they are at, and wait until they have."""
        self.stopping.set()
        waiting = [work.computed for work in going if work.computed is not None]
        for computed in waiting:
            computed.cancel()
        wait(waiting, _PATIENCE_SECONDS)

    def _told(self, work: _Work, share: float) -> None:
        """Pass on how far a file is, unless it is to be left."""
        if self.stopping.is_set():
            raise _AbandonedError
        self.on_progress(work.job, share)

    def _fetch(self, source: Iterator[Job], coming: deque[_Work], pool: ThreadPoolExecutor) -> None:
        """Take jobs from the list until enough are being read."""
        while len(coming) <= self.config.threads and not _is_full(coming):
            job = next(source, None)
            if job is None:
                return
            work = _Work(job, _unread(self.config), self._known(job))
            if work.result is None:
                self._sweep(job)
                work.album = pool.submit(self._read, work)
            coming.append(work)

    def _known(self, job: Job) -> Result | None:
        """What can be said of a job without its file."""
        if job.problem is not None:
            message = f"{one_line(str(job.source))}: {job.problem}"
            return Result(job=job, status="failed", message=message, exit_code=1)
        if self.config.selection.existing == "skip" and is_there(job.target):
            message = f"{one_line(str(job.target))} is there already"
            return Result(job=job, status="skipped", message=message)
        return None

    def _sweep(self, job: Job) -> None:
        """Remove what a killed run has left in the folder of a result."""
        if job.target != STREAM and job.target.parent not in self.swept:
            self.swept.add(job.target.parent)
            sweep(job.target.parent)

    def _read(self, work: _Work) -> Album | Scan:
        begun = time.perf_counter()
        scanned = self._scanned(work)
        if scanned is not None:
            work.seconds += time.perf_counter() - begun
            return scanned
        data = sys.stdin.buffer.read() if work.job.source == STREAM else None
        album = images.read_album(work.job.source, data, max_pixels=self.config.max_pixels)
        if self.config.metadata == "strip":
            album = images.stripped(album)
        work.bytes = sum(_bytes_of(picture) for picture in album.pictures)
        work.seconds += time.perf_counter() - begun
        return album

    def _scanned(self, work: _Work) -> Scan | None:
        """Open a file so that it is decoded as its rows are needed, if it is large enough."""
        source, most = work.job.source, self.config.max_pixels
        if source == STREAM or not _is_large(source):
            return None
        header = images.read_header(source, max_pixels=most)
        if header.width * header.height < _SCANNED:
            return None
        scan = work.open.enter_context(images.scan(source, max_pixels=most))
        if scan is None or self.config.metadata == "keep":
            return scan
        rows = (_bare(levels, scan.metadata) for levels in scan.rows)
        return replace(scan, rows=rows, metadata=Metadata())

    def _compute(self, work: _Work, pool: ThreadPoolExecutor) -> None:
        """Run the net on a file that has been read, and have its result written."""
        if work.album is None:
            return
        try:
            album = work.album.result()
            work.album = None  # the memory of the input goes with this frame
            name, _ = work.chosen = self.nets.choice(album.coding)
            net = self.nets.named(name)
            begun = time.perf_counter()
            self._told(work, 0.0)
            work.notes = album.notes if isinstance(album, Album) else ()
            still = self._still(work, album)
            if still is None:
                larger = self._enlarged(work, album, net)
                work.bytes = sum(_bytes_of(picture) for picture in larger.pictures)
                work.written = pool.submit(self._write, work, larger)
            else:
                self._stream(work, still, net, pool)
            work.seconds += time.perf_counter() - begun
        except _AbandonedError:  # it is as if it had not been begun
            work.album = None
        except Exception as error:  # noqa: BLE001 - sorted there; what is a bug goes on
            work.album = None
            work.result = _failure(work.job, error)
        finally:
            work.open.close()

    def _still(self, work: _Work, album: Album | Scan) -> Picture | Scan | None:
        """Give the one picture of a file if its result is to be written as its rows come."""
        if work.job.target == STREAM or (isinstance(album, Album) and len(album.pictures) > 1):
            return None
        still = album if isinstance(album, Scan) else album.pictures[0]
        width, height = _size_for(self.config.selection, still.width, still.height)
        return still if width * height >= _STREAMED else None

    def _stream(
        self, work: _Work, picture: Picture | Scan, net: Upscaler, pool: ThreadPoolExecutor
    ) -> None:
        """Run the net on a picture while a thread writes the rows that are finished."""
        width, height = self._measured(work, [(picture.width, picture.height)])[0]
        channel = _Channel()
        written = pool.submit(self._write_rows, work, channel, height)
        told = partial(self._told, work)
        try:
            for band in net.bands(picture, (height, width), told):
                if not channel.put(band, written):
                    break  # the writer has failed, and says why
            channel.put(None, written)
        except BaseException:
            written.cancel()
            channel.put(_AbandonedError(), written)
            wait([written], _PATIENCE_SECONDS)
            raise
        work.written = written

    def _write_rows(self, work: _Work, channel: "_Channel", height: int) -> tuple[str, ...]:
        bands = iter(channel)
        first = next(bands)
        # Not before there is something to write: a failed input leaves no empty folder.
        _prepare(work.job.target, self.config.selection)
        notes = images.write_rows(
            chain([first], bands),
            work.job.target,
            height=height,
            quality=self.config.quality,
            lossless=self.config.lossless,
        )
        work.seconds += time.perf_counter() - channel.ended
        return notes

    def _measured(self, work: _Work, pictures: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        """Settle the sizes of a file's results, and whether they can be written there."""
        sizes = [_size_for(self.config.selection, *one) for one in pictures]
        _check_folder(work.job.target)
        if work.job.target != STREAM:
            for width, height in sizes:
                images.check_size(work.job.target, width, height)
        work.before, work.after, work.pictures = pictures[0], sizes[0], len(pictures)
        return sizes

    def _enlarged(self, work: _Work, album: Album | Scan, net: Upscaler) -> Album:
        given: Sequence[Picture | Scan]
        given = [album] if isinstance(album, Scan) else album.pictures
        sizes = self._measured(work, [(one.width, one.height) for one in given])
        larger: list[Picture] = []
        for index, (picture, (width, height)) in enumerate(zip(given, sizes, strict=True)):

            def told(share: float, index: int = index) -> None:
                self._told(work, (index + share) / len(given))

            larger.append(net.upscale(picture, (height, width), told))
        if isinstance(album, Scan):
            return Album(pictures=tuple(larger), format=album.format, coding=album.coding)
        return replace(album, pictures=tuple(larger))

    def _write(self, work: _Work, album: Album) -> tuple[str, ...]:
        begun, config, target = time.perf_counter(), self.config, work.job.target
        quality, lossless = config.quality, config.lossless
        if target == STREAM:
            name = images.format_of(Path(f"a.{config.selection.format}")) or album.format or "PNG"
            stream = sys.stdout.buffer
            notes = images.write_stream(
                album, stream, format=name, quality=quality, lossless=lossless
            )
        else:
            # Not before there is something to write: a failed input leaves no empty folder.
            _prepare(target, config.selection)
            notes = images.write_album(album, target, quality=quality, lossless=lossless)
        work.seconds += time.perf_counter() - begun
        return notes

    def _next(self, going: deque[_Work]) -> Result:
        """Wait for the first; one that an interrupt finds here is still among the others."""
        result = self._finished(going[0])
        model, reason = going[0].chosen
        result = replace(result, model=model, model_reason=reason)
        for note in result.notes:
            if note not in self.said:
                self.said.add(note)
                self.notice(f"{one_line(str(result.job.source))}: {note}")
        self.kept += max(_LEAST_KEPT, going.popleft().bytes)
        if self.kept > _MOST_KEPT:
            self.kept = 0
            _give_back()
        return result

    def _crowded(self, going: deque[_Work]) -> bool:
        return len(going) >= self.config.threads + self.width or _is_full(going)

    def _finished(self, work: _Work) -> Result:
        """Wait until a file is written; say what became of it."""
        if work.computed is not None:
            work.computed.result()
        if work.result is not None:
            return work.result
        assert work.written is not None
        try:
            notes = work.written.result()
        except Exception as error:  # noqa: BLE001 - as above
            return _failure(work.job, error)
        return Result(
            job=work.job,
            status="done",
            before=work.before,
            after=work.after,
            pictures=work.pictures,
            notes=(*work.notes, *notes),
            seconds=work.seconds,
        )


class _AbandonedError(Exception):
    """Says to a writer that there will be no more rows."""


class _Channel:
    """Bands on their way from the net to a writer in another thread."""

    def __init__(self) -> None:
        self.ended = 0.0
        """When the last band was put in."""

        self._waiting: Queue[Picture | Exception | None] = Queue(_BANDS_WAITING)

    def put(self, item: Picture | Exception | None, reader: "Future[Any]") -> bool:
        """Hand on a band, the end (None), or why there is none; False if nobody reads on."""
        self.ended = time.perf_counter()
        while not reader.done():
            with suppress(Full):
                self._waiting.put(item, timeout=_POLL_SECONDS)
                return True
        return False

    def __iter__(self) -> Iterator[Picture]:
        while (item := self._waiting.get()) is not None:
            if isinstance(item, Exception):
                raise item
            yield item


def _is_large(path: Path) -> bool:
    """Whether a file has enough bytes for a large picture."""
    try:
        return path.stat().st_size >= _LEAST_PACKED
    except OSError:  # reading it says what is the matter
        return False


def _bare(levels: Levels, metadata: Metadata) -> Levels:
    """Take from some rows what their metadata say of their colours."""
    band = Album(pictures=(Picture(pixels=levels, metadata=metadata),))
    return images.stripped(band).pictures[0].pixels


def _failure(job: Job, error: Exception) -> Result:
    """Say in one line why a file failed; nothing that one file does may end the run."""
    name = one_line(str(job.source))
    code = error.exit_code if isinstance(error, SrcliError) else 1
    if isinstance(error, ImageError | OutputError):
        message = str(error)
    elif isinstance(error, SrcliError):
        message = f"{name}: {error}"
    elif isinstance(error, MemoryError):
        message = f"{name}: the result does not fit into memory; use a smaller --scale or --tile"
        code = DeviceError.exit_code
    elif isinstance(error, OSError):  # a folder that vanished or may not be searched
        message = f"{name}: {reason(error)}; check the path and its permissions"
    else:
        what = f"{type(error).__name__}: {reason(error)}"
        message = f"{name}: unexpected {what}; please report it with the file"
    return Result(job=job, status="failed", message=message, exit_code=code)


def _unread(config: BatchConfig) -> _Chosen:
    """What is known of a file's weights before it is read: those that were given, if any."""
    return None if config.model == AUTO else config.model, None


def _give_back() -> None:
    """Let glibc return what is free; other systems' allocators do so by themselves."""
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def _bytes_of(picture: images.Picture) -> int:
    return picture.pixels.nbytes + (0 if picture.alpha is None else picture.alpha.nbytes)


def _is_full(works: Iterable[_Work]) -> bool:
    return sum(work.bytes for work in works) > _MOST_WAITING


def _is_finished(work: _Work) -> bool:
    return all(one is None or one.done() for one in (work.computed, work.written))


def _size_for(selection: Selection, width: int, height: int) -> tuple[int, int]:
    """Width and height of the result.

    Raises:
        UsageError: If that is more than the largest factor.
    """
    if selection.size is None:
        return output_length(width, selection.scale), output_length(height, selection.scale)
    factor = selection.size.factor(width, height)
    if factor > MAX_SCALE:
        raise UsageError(
            f"--size {selection.size} is {factor:.4g} times its {width}x{height}; "
            f"choose at most {MAX_SCALE:g} times"
        )
    return selection.size.of(width, height)


def _check_folder(target: Path) -> None:
    """Fail before the work, not after it, where the folder cannot be made."""
    for parent in target.parents:
        # In this order: another thread may be making it at this very moment.
        if not is_there(parent):
            continue
        if not is_folder(parent):
            raise OutputError(
                f"cannot write {one_line(str(target))}: {one_line(str(parent))} is not a folder; "
                "choose another --output"
            )
        if os.access(parent, os.W_OK | os.X_OK):
            return
        raise OutputError(
            f"cannot write {one_line(str(target))}: no permission in "
            f"{one_line(str(parent))}; choose another --output"
        )


def _prepare(target: Path, selection: Selection) -> None:
    """Make the folder of a result, unless the result has appeared since the plan was made."""
    if selection.existing == "error" and is_there(target):
        raise OutputError(
            f"{one_line(str(target))} has appeared meanwhile; use --overwrite or --skip-existing"
        )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"cannot make the folder {one_line(str(target.parent))}: {error.strerror}; "
            "choose another --output"
        ) from error


# ---- foretelling --------------------------------------------------------------------------


def forecast(
    config: BatchConfig, jobs: Iterable[Job], *, notice: Callable[[str], None] = lambda _: None
) -> Iterator[Forecast]:
    """Tell what :func:`run` would do, from the headers of the files; nothing is written.

    The net is run on a few blocks of noise, to know how fast it is here.

    Args:
        config: The options.
        jobs: What :func:`srcli.upscaling.plan.plan` gave.
        notice: Called with one line for what is worth knowing.

    Yields:
        One forecast for each job, in order.

    Raises:
        WeightsError: If the weights are missing or damaged.
        DeviceError: If the device is not there.
    """
    nets = _Nets(config, notice)
    given, _ = _unread(config)
    for job in jobs:
        if job.problem is not None:
            message = f"{one_line(str(job.source))}: {job.problem}"
            yield Forecast(job=job, status="failed", message=message, model=given, exit_code=1)
        elif config.selection.existing == "skip" and is_there(job.target):
            message = f"{one_line(str(job.target))} is there already"
            yield Forecast(job=job, status="skipped", message=message, model=given)
        else:
            yield _foretold(config, nets, job)


_PROGRAM = 290 * 10**6
"""Bytes of the program before the first picture, measured on Linux with the CPU's torch 2.13."""


_SCANNING = 60 * 10**6
"""Bytes that decoding by rows takes: libvips, and the rows that it has at a time."""


def _memory(header: images.Header, target: Path, size: tuple[int, int], upscaler: Upscaler) -> int:
    """Estimate the peak of the process, bytes, while a file is in its hands."""
    planes = (header.channels + header.alpha) * header.bits // 8
    source = header.height, header.width
    before, after = source[0] * source[1], size[0] * size[1]
    # Pillow keeps colours in four bytes a pixel.
    copy = planes if header.channels == 1 else max(4, planes)
    decoding, given = (copy + planes) * before, planes * before
    if before >= _SCANNED and _may_be_scanned(header):
        decoding = given = _SCANNING
    work = upscaler.memory(source, size, planes)
    name = images.format_of(target)
    streams = name is not None and images.streams(name, size[1], size[0])
    if header.frames == 1 and after >= _STREAMED and streams:
        band = planes * upscaler.band_rows(size) * size[1]
        return _PROGRAM + max(decoding, given + work + _BANDS_HELD * band)
    held = (given + planes * after) * header.frames
    return _PROGRAM + max(decoding, held + max(work, copy * after))


def _may_be_scanned(header: images.Header) -> bool:
    """Whether files of such a header can be decoded by rows, as far as it tells."""
    return header.frames == 1 and not header.alpha and header.format in _SCANNED_FORMATS


def _foretold(config: BatchConfig, nets: _Nets, job: Job) -> Forecast:
    model, model_reason = _unread(config)
    try:
        data = sys.stdin.buffer.read() if job.source == STREAM else None
        header = images.read_header(job.source, data, max_pixels=config.max_pixels)
        width, height = _size_for(config.selection, header.width, header.height)
        _check_folder(job.target)
        if job.target != STREAM:
            images.check_size(job.target, width, height)
        model, model_reason = nets.choice(header.coding)
        upscaler = nets.named(model)
        source, size = (header.height, header.width), (height, width)
        seconds = header.frames * upscaler.seconds(source, size)
    except (SrcliError, OSError, MemoryError) as error:
        failure = _failure(job, error)
        return Forecast(
            job=job,
            status="failed",
            message=failure.message,
            model=model,
            model_reason=model_reason,
            exit_code=failure.exit_code,
        )
    return Forecast(
        job=job,
        status="planned",
        before=(header.width, header.height),
        after=(width, height),
        pictures=header.frames,
        model=model,
        model_reason=model_reason,
        patches=header.frames * upscaler.patches(source, size),
        memory=_memory(header, job.target, size, upscaler),
        seconds=seconds,
    )
