"""Files in, larger files out: what ``srcli upscale`` does with the jobs of a plan.

:mod:`srcli.upscaling.steps` has what is done with one file, :mod:`srcli.upscaling.pipeline` how
many of them overlap.
"""

from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from srcli.ops.devices import all_alike, resolve_device
from srcli.upscaler import Upscaler
from srcli.upscaling.config import BatchConfig
from srcli.upscaling.nets import Nets
from srcli.upscaling.pipeline import Pipeline
from srcli.upscaling.results import Result
from srcli.upscaling.selection import Job
from srcli.upscaling.steps import Steps

__all__ = ["BatchConfig", "finish", "run"]


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
    width = len(all_alike(resolve_device(config.settings.device)))
    with _pool(config.threads, "srcli-files") as files, _pool(width, "srcli-nets") as workers:
        steps = Steps(config, nets, on_progress, files)
        pipeline = Pipeline(config, steps, files, notice)
        if width > 1:
            pipeline.workers, pipeline.width = workers, width
        yield from pipeline.results(jobs)


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
