"""Several processes that enlarge one list of files: which of them does which file.

``torchrun`` and Slurm start the processes and say in the environment which one each is. Every
process makes the same plan and deals it in the same way, so nothing is communicated: a process
that dies takes nothing along but its own share, which a second start with ``--skip-existing`` does.
"""

import heapq
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from srcli.errors import ImageError, UsageError
from srcli.files import is_pipe
from srcli.imaging import images
from srcli.upscaling.config import STREAM, Job

__all__ = ["Share", "deal"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Which of the processes this one is."""

    rank: int = 0
    world_size: int = 1

    local_rank: int = 0
    """Which one of those on its machine: each takes a GPU of its own."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Read what the launcher says.

        ``RANK`` and ``WORLD_SIZE`` come first (``torchrun`` sets them), then what ``srun`` sets
        for the tasks of a job step. ``SLURM_NTASKS`` alone is no reason to share: it is also set
        in a batch script, which runs once.

        Raises:
            UsageError: If the values cannot be meant.
        """
        for rank_name, size_name, local_name in (
            ("RANK", "WORLD_SIZE", "LOCAL_RANK"),
            ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"),
        ):
            if size_name in environment or (rank_name == "RANK" and rank_name in environment):
                size = _number(environment, size_name, least=1)
                rank = _number(environment, rank_name)
                if rank >= size:
                    raise UsageError(
                        f"{rank_name} must be less than {size_name} {size}, not {rank}; "
                        "count from 0"
                    )
                local = _number(environment, local_name) if local_name in environment else 0
                return cls(rank=rank, world_size=size, local_rank=local)
        return cls()


def _number(environment: Mapping[str, str], name: str, *, least: int = 0) -> int:
    text = environment.get(name)
    if text is None:
        raise UsageError(f"{name} is not set; set it as well, or neither of the two")
    if not (text.isascii() and text.isdigit()) or int(text) < least:
        raise UsageError(f"{name} must be a whole number from {least} on, not {text!r}")
    return int(text)


def deal(jobs: Sequence[Job], share: Share, *, max_pixels: int = images.MAX_PIXELS) -> list[Job]:
    """Pick the jobs that this process does.

    The largest picture goes first, each to the process that has the fewest pixels so far: the
    shares differ by less than one picture. What the headers say and the paths alone decide, so
    that every process comes to the same shares, whenever it starts and whatever is done already.
    stdin and stdout belong to rank 0. What has more than ``max_pixels`` is refused, and costs
    nothing. The jobs stay in the order of the plan.
    """
    if share.world_size == 1:
        return list(jobs)
    sizes = {job: max(1, _pixels(job, max_pixels)) for job in jobs}

    def order(job: Job) -> tuple[bool, int, str]:
        return STREAM not in (job.source, job.target), -sizes[job], str(job.source)

    loads = [(0, rank) for rank in range(share.world_size)]
    mine = set()
    for job in sorted(jobs, key=order):
        load, rank = loads[0]
        heapq.heapreplace(loads, (load + sizes[job], rank))
        if rank == share.rank:
            mine.add(job)
    return [job for job in jobs if job in mine]


def _pixels(job: Job, max_pixels: int) -> int:
    """Count the pixels of all frames; what cannot be read fails at once and counts none.

    A job's problem does not count: that its result is there already may be another's doing.
    """
    if is_pipe(job.source):
        return 0
    try:
        header = images.read_header(job.source, max_pixels=max_pixels)
    except (ImageError, OSError, MemoryError):
        return 0
    return header.width * header.height * header.frames
