"""One file: read, enlarge, write.

Small results are made whole and written while the net is at the next file. Of large ones the rows
are set aside on disk as they are finished, and of very large inputs they are decoded meanwhile:
then neither is ever whole in memory.
"""

import shutil
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from io import BytesIO
from pathlib import Path
from queue import Full, Queue
from typing import Any, Final

from srcli.errors import OutputError
from srcli.files import claimed, is_pipe, is_there, one_line, reason, replacing
from srcli.imaging import images
from srcli.imaging.images import Album, Levels, Metadata, Picture, Scan
from srcli.upscaler import Upscaler
from srcli.upscaling.config import STREAM, BatchConfig, Job
from srcli.upscaling.nets import Nets
from srcli.upscaling.results import Result, failure

__all__ = ["BANDS_HELD", "SCANNED_PIXELS", "STREAMED_PIXELS", "Steps", "Work"]

STREAMED_PIXELS: Final = 4_000_000
"""Pixels of a result from which its rows are handed on while the net is still at those below: then
no result of this size or larger is held whole."""

SCANNED_PIXELS: Final = 32_000_000
"""Pixels of an input from which it is decoded as its rows are needed, where its kind allows it."""

_BANDS_WAITING: Final = 1
"""Finished bands of rows that wait for an encoder."""

BANDS_HELD: Final = _BANDS_WAITING + 4
"""Bands beside the one that is computed: one is handed on, one is encoded, which takes a copy, and
what is freed of another one is not used again. Peaks of 12 to 400 megapixels were 0.91 to 1.06 of
estimates with it."""

_POLL_SECONDS: Final = 0.1
"""Between two looks whether a writer is still there."""

_PATIENCE_SECONDS: Final = 10.0
"""How long a writer may take to remove its unfinished file."""


class _Abandoned(Exception):  # noqa: N818 - it ends a file, but nothing went wrong
    """Says to a writer that there will be no more rows."""


@dataclass(slots=True)
class Work:
    """A file on its way."""

    result: Result
    """What is known of it so far: as long as it is planned, that is not how it ends."""

    data: bytes | None = None
    """What stdin or a pipe held, where it may be copied."""

    read: Future[Album | Scan] | None = None
    open: ExitStack = field(default_factory=ExitStack)
    """What is to be closed when the file has been read."""

    claim: ExitStack = field(default_factory=ExitStack)
    """Holds other runs off its result."""

    written: Future[tuple[str, ...]] | None = None
    since: float = 0.0
    """When its writer had all that it waited for."""

    bytes: int = 0

    @property
    def job(self) -> Job:
        """The job."""
        return self.result.job


@dataclass(slots=True)
class Steps:
    """What is done with each file; threads read and write others meanwhile."""

    config: BatchConfig
    nets: Nets
    on_progress: Callable[[Job, float], None]
    pool: ThreadPoolExecutor
    """Threads that read and write."""

    # ---- read ---------------------------------------------------------------------------------

    def read(self, work: Work) -> Album | Scan:
        """Decode a file, or open it so that it is decoded as its rows are needed.

        Raises:
            ImageError: If it cannot be read.
        """
        begun, path = time.perf_counter(), work.job.source
        source: Album | Scan | None = self._scan(work)
        if source is None:
            data = None
            if is_pipe(path):
                data = sys.stdin.buffer.read() if path == STREAM else path.read_bytes()
            work.data = None if self.config.size is None else data
            source = images.read_album(path, data, max_pixels=self.config.max_pixels)
            if self.config.metadata != "keep":
                change = images.stripped if self.config.metadata == "strip" else _without_location
                source = replace(source, pictures=tuple(map(change, source.pictures)))
            work.bytes = _bytes_of(source)
        if self.config.keep_times and path != STREAM:
            source = _dated(source, path.stat().st_mtime_ns)
        work.result.seconds += time.perf_counter() - begun
        return source

    def _scan(self, work: Work) -> Scan | None:
        """Open a file to be decoded as its rows are needed, if it is large enough."""
        path, most = work.job.source, self.config.max_pixels
        if is_pipe(path):
            return None
        header = images.read_header(path, max_pixels=most)
        if header.width * header.height < SCANNED_PIXELS:
            return None
        scan = work.open.enter_context(images.scan(path, max_pixels=most))
        if scan is None or self.config.metadata == "keep":
            return scan
        if self.config.metadata == "no-location":
            return replace(scan, metadata=images.without_location(scan.metadata))
        rows = (_without_metadata(levels, scan.metadata) for levels in scan.rows)
        return replace(scan, rows=rows, metadata=images.bare_metadata(scan.metadata))

    # ---- enlarge ------------------------------------------------------------------------------

    def compute(self, work: Work) -> None:
        """Run the net on a file that has been read, and have its result written.

        Nothing is raised: what goes wrong is the file's result.
        """
        if work.read is None:
            return
        try:
            source = work.read.result()
            work.read = None  # the memory of the input goes with this frame
            pictures: Sequence[Picture | Scan]
            pictures = [source] if isinstance(source, Scan) else source.pictures
            before = [(one.width, one.height) for one in pictures]
            sizes = [self.config.result_size(*one) for one in before]
            if not self._claims(work, sizes):
                return
            result = work.result
            result.before, result.after, result.pictures = before[0], sizes[0], len(before)
            if self.config.copies(work.job.target, source.coding, before, sizes):
                result.model = None
                if isinstance(source, Scan):
                    deque(source.rows, 0)  # damage behind the header is found
                work.written = self._writing(work, self._copy, pictures[0].metadata.modified)
            else:
                self._begin(work, source, pictures, sizes)
        except Exception as error:  # noqa: BLE001 - sorted there, unexpected ones as well
            work.read = None
            work.result = failure(work.result, error)
        finally:
            work.open.close()
            if work.written is None:
                work.claim.close()

    def _begin(
        self,
        work: Work,
        source: Album | Scan,
        pictures: Sequence[Picture | Scan],
        sizes: list[tuple[int, int]],
    ) -> None:
        """Enlarge, and have what there is written: each band, or all that is finished."""
        result = work.result
        result.model, result.model_reason = self.nets.choice(source.coding)
        net = self.nets.named(result.model)
        result.sharpness, result.compute = net.settings.sharpness, net.compute
        begun = time.perf_counter()
        self.on_progress(work.job, 0.0)
        width, height = sizes[0]
        name = images.format_of(work.job.target)  # None: the standard output
        large = len(pictures) == 1 and width * height >= STREAMED_PIXELS
        result.notes = source.notes
        if large and name is not None and images.streams(name):
            work.written = self._stream(work, pictures[0], (height, width), net)
        else:
            larger = self._enlarge(work, pictures, sizes, net)
            album = Album(pictures=larger, format=source.format, coding=source.coding)
            if isinstance(source, Album):
                album = replace(source, pictures=larger)
            work.bytes = _bytes_of(album)
            work.written = self._writing(work, self._write, album)
        result.seconds += time.perf_counter() - begun

    def _claims(self, work: Work, sizes: list[tuple[int, int]]) -> bool:
        target, result = work.job.target, work.result
        if target == STREAM:
            return True
        for size in sizes:
            images.check_size(target, *size)
        try:
            ours = work.claim.enter_context(claimed(target))
        except OSError as error:
            raise OutputError(
                f"cannot write {one_line(target)}: {reason(error)}; choose another --output"
            ) from error
        if not ours:
            result.status, result.message = "skipped", f"{one_line(target)}: another run is at it"
        elif self.config.existing == "skip" and is_there(target):
            result.status, result.message = "skipped", f"{one_line(target)} is there already"
        else:
            self._check_absent(target)
        return result.status == "planned"

    def _check_absent(self, target: Path) -> None:
        if self.config.existing == "error" and target != STREAM and is_there(target):
            raise OutputError(
                f"{one_line(target)} has appeared meanwhile; use --overwrite or --skip-existing"
            )

    def _enlarge(
        self,
        work: Work,
        pictures: Sequence[Picture | Scan],
        sizes: list[tuple[int, int]],
        net: Upscaler,
    ) -> tuple[Picture, ...]:
        larger: list[Picture] = []
        for index, (picture, (width, height)) in enumerate(zip(pictures, sizes, strict=True)):

            def progress(share: float, index: int = index) -> None:
                self.on_progress(work.job, (index + share) / len(pictures))

            larger.append(net.upscale(picture, (height, width), progress))
        return tuple(larger)

    def _stream(
        self, work: Work, picture: Picture | Scan, size: tuple[int, int], net: Upscaler
    ) -> Future[tuple[str, ...]]:
        """Run the net on a picture while a thread writes the rows that are finished."""
        bands: Queue[Picture | Exception | None] = Queue(_BANDS_WAITING)
        written = self._writing(work, self._write_rows, bands, size[0])
        try:
            for band in net.bands(picture, size, partial(self.on_progress, work.job)):
                if not _put(bands, band, written):
                    break  # the writer has failed, and says why
            _put(bands, None, written)
        except BaseException:
            written.cancel()
            _put(bands, _Abandoned(), written)
            wait([written], _PATIENCE_SECONDS)
            raise
        return written

    # ---- write --------------------------------------------------------------------------------

    def _writing(
        self, work: Work, write: Callable[..., tuple[str, ...]], *arguments: object
    ) -> Future[tuple[str, ...]]:

        def run() -> tuple[str, ...]:
            with work.claim:
                self._check_absent(work.job.target)
                work.since = time.perf_counter()
                notes = write(work, *arguments)
                work.result.seconds += time.perf_counter() - work.since
                return notes

        written = self.pool.submit(run)
        # If it is cancelled it does not run.
        written.add_done_callback(lambda _: work.claim.close())
        return written

    def _write_rows(
        self, work: Work, bands: "Queue[Picture | Exception | None]", height: int
    ) -> tuple[str, ...]:
        """Write rows as they come; return what the format could not keep."""

        def taken() -> Iterator[Picture]:
            while (item := bands.get()) is not None:
                if isinstance(item, Exception):
                    raise item
                work.since = time.perf_counter()
                yield item

        return images.write_rows(
            taken(),
            work.job.target,
            height=height,
            quality=self.config.quality,
            lossless=self.config.lossless,
        )

    def _copy(self, work: Work, modified: int | None) -> tuple[str, ...]:
        target = work.job.target
        with work.job.source.open("rb") if work.data is None else BytesIO(work.data) as data:
            if target == STREAM:
                shutil.copyfileobj(data, sys.stdout.buffer)
                sys.stdout.buffer.flush()
            else:
                with replacing(target, modified) as temporary, temporary.open("wb") as copy:
                    shutil.copyfileobj(data, copy)
        return ("as large as asked for already: copied as it is",)

    def _write(self, work: Work, album: Album) -> tuple[str, ...]:
        config, target = self.config, work.job.target
        quality, lossless = config.quality, config.lossless
        if target == STREAM:
            name = config.wanted_format or album.format or "PNG"
            out = sys.stdout.buffer
            return images.write_stream(album, out, format=name, quality=quality, lossless=lossless)
        return images.write_album(album, target, quality=quality, lossless=lossless)

    def result(self, work: Work) -> Result:
        """Wait until a file is written, and return what became of it."""
        if work.written is not None:
            try:
                work.result.notes += work.written.result()
                work.result.status = "done"
            except Exception as error:  # noqa: BLE001 - as above
                work.result = failure(work.result, error)
        return work.result


def _dated(source: Album | Scan, modified: int) -> Album | Scan:
    if isinstance(source, Scan):
        return replace(source, metadata=replace(source.metadata, modified=modified))
    first, *others = source.pictures
    first = replace(first, metadata=replace(first.metadata, modified=modified))
    return replace(source, pictures=(first, *others))


def _put(
    bands: "Queue[Picture | Exception | None]",
    item: Picture | Exception | None,
    writer: Future[Any],
) -> bool:
    """Hand on a band, the end (None), or why there is none; False if the writer is gone."""
    while not writer.done():
        with suppress(Full):
            bands.put(item, timeout=_POLL_SECONDS)
            return True
    return False


def _without_metadata(levels: Levels, metadata: Metadata) -> Levels:
    """Convert some rows so that they need no metadata to show their colours."""
    return images.stripped(Picture(pixels=levels, metadata=metadata)).pixels


def _without_location(picture: Picture) -> Picture:
    return replace(picture, metadata=images.without_location(picture.metadata))


def _bytes_of(album: Album) -> int:
    planes = (plane for one in album.pictures for plane in (one.pixels, one.alpha))
    return sum(plane.nbytes for plane in planes if plane is not None)
