"""The dry run: what a run would do, and the memory, room on the disk and time it would take."""

import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from srcli.errors import SrcliError
from srcli.imaging import images
from srcli.upscaler import Upscaler
from srcli.upscaling.config import STREAM, BatchConfig, Job
from srcli.upscaling.nets import Nets
from srcli.upscaling.results import Result, begun, failure, look
from srcli.upscaling.steps import BANDS_HELD, SCANNED_PIXELS, STREAMED_PIXELS

__all__ = ["estimate"]

_PROGRAM: Final = 290 * 10**6
"""Bytes of the program before the first picture, measured on Linux with the CPU's torch 2.13."""

_OPENVINO: Final = 70 * 10**6
"""Bytes that OpenVINO takes beside it."""

_SCANNING: Final = 60 * 10**6
"""Bytes that decoding by rows takes: libvips, and the rows that it has at a time."""

_SCANNED_FORMATS: Final = {"JPEG", "PNG", "TIFF"}


def estimate(
    config: BatchConfig, jobs: Iterable[Job], *, notice: Callable[[str], None] = lambda _: None
) -> Iterator[Result]:
    """Say what :func:`srcli.upscaling.batch.run` would do, from the headers; nothing is written.

    The net is run on a few blocks of noise, to know how fast it is here.

    Yields:
        One result for each job, in order: planned, skipped or failed.

    Raises:
        WeightsError: If the weights are missing or damaged.
        DeviceError: If the device is not there.
    """
    nets = Nets(config, notice)
    for job in jobs:
        result = begun(job, config)
        try:
            if result.status == "planned":
                _estimate(config, nets, result)
        except (SrcliError, OSError, MemoryError) as error:
            result = failure(result, error)
        yield result


def _estimate(config: BatchConfig, nets: Nets, result: Result) -> None:
    job = result.job
    data = sys.stdin.buffer.read() if job.source == STREAM else None
    header, copied = look(result, config, data)
    assert result.after is not None
    if job.target != STREAM:
        images.check_size(job.target, *result.after)
    if copied:
        result.model, result.patches = None, 0
        result.memory = _PROGRAM + _decoding(header)
        return
    result.model, result.model_reason = nets.choice(header.coding)
    upscaler = nets.named(result.model)
    source, size = (header.height, header.width), result.after[::-1]
    result.seconds = header.frames * upscaler.seconds(source, size)
    result.sharpness, result.compute = upscaler.settings.sharpness, upscaler.compute
    result.patches = header.frames * upscaler.patches(source, size)
    result.memory = _memory(header, job.target, size, upscaler)


def _memory(header: images.Header, target: Path, size: tuple[int, int], upscaler: Upscaler) -> int:
    """Estimate the peak of the process, bytes, while it is at a file."""
    planes, copy = _planes(header)
    source = header.height, header.width
    before, after = source[0] * source[1], size[0] * size[1]
    decoding = _decoding(header)
    given = _SCANNING if decoding == _SCANNING else planes * before
    work = upscaler.memory(source, size, planes)
    work += _OPENVINO * (upscaler.compute.engine == "openvino")
    name = images.format_of(target)
    streams = name is not None and images.streams(name)
    if header.frames == 1 and after >= STREAMED_PIXELS and streams:
        band = planes * upscaler.band_rows(size) * size[1]
        return _PROGRAM + max(decoding, given + work + BANDS_HELD * band)
    held = (given + planes * after) * header.frames
    return _PROGRAM + max(decoding, held + max(work, copy * after))


def _planes(header: images.Header) -> tuple[int, int]:
    """Return bytes a pixel as pictures have them, and as Pillow, which keeps colours in four."""
    planes = (header.channels + header.alpha) * header.bits // 8
    return planes, planes if header.channels == 1 else max(4, planes)


def _decoding(header: images.Header) -> int:
    pixels = header.width * header.height
    is_plain = header.frames == 1 and not header.alpha
    if pixels >= SCANNED_PIXELS and is_plain and header.format in _SCANNED_FORMATS:
        return _SCANNING
    return sum(_planes(header)) * pixels
