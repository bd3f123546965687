"""Several processes that train one net: the process group, and the little that they exchange.

``torchrun`` starts the processes and sets RANK, LOCAL_RANK and WORLD_SIZE of each. Gradients are
PyTorch's own business (DistributedDataParallel); here are the sums of a score, the agreement on
when to stop, and which process reports an error.
"""

import gc
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from traceback import clear_frames

import torch
from torch import Tensor, distributed
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from srcli.errors import SrcliError, TrainingError, UsageError
from srcli.ops.devices import resolve_device
from srcli.training.config import TrainConfig

__all__ = ["ProcessGroup", "join_process_group", "share_batch", "torchrun_ranks"]

_JOINED = count()
"""Numbers the groups that a process joins one after the other: each has its own store."""


@dataclass(frozen=True, slots=True)
class ProcessGroup:
    """One process's view of all of them; a single process sends nothing to anybody."""

    device: torch.device
    """What this process computes on."""

    rank: int = 0
    size: int = 1
    store: Store | None = None
    """Text that the processes share; None for a single one."""

    @property
    def is_main_process(self) -> bool:
        """Whether this process writes the files and talks."""
        return self.rank == 0

    def agree(self, *, stop: bool, seconds: float) -> tuple[bool, float]:
        """Settle whether any process wants to stop, and the main process's clock as everybody's.

        Without it processes would stop at different steps, and wait for each other for ever.
        """
        clock = seconds if self.is_main_process else 0.0
        stops, common = self.sum(torch.tensor([stop, clock], dtype=torch.float64)).tolist()
        return stops > 0, common

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum of ``values``, a CPU tensor, over all processes."""
        if self.size > 1:
            distributed.all_reduce(values)
        return values

    def mean(self, values: Tensor) -> Tensor:
        """Return the average of ``values`` over all processes, of one those very values."""
        if self.size == 1:
            return values
        return (self.sum(values.double().cpu()) / self.size).to(values.device)

    def gather(self, lines: Sequence[str]) -> list[str]:
        """Return the lines of all processes, each once, sorted; to be called once in a run."""
        if self.store is None:
            return sorted(set(lines))
        self.store.set(f"lines/{self.rank}", "\n".join(lines))
        texts = [self.store.get(f"lines/{rank}").decode() for rank in range(self.size)]
        return sorted({line for text in texts for line in text.split("\n")} - {""})

    def wait(self) -> None:
        """Return when all processes have come here."""
        if self.size > 1:
            distributed.barrier()


@contextmanager
def join_process_group(device_name: str) -> Iterator[ProcessGroup]:
    """Join the processes that ``torchrun`` started, or yield a group of one where it did not.

    The first process to fail reports why; the others, which meet the same error or find the first
    one gone, end silently. What holds a net under DistributedDataParallel has to be gone when the
    block ends: let a function do the work.

    Args:
        device_name: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; of several processes on GPUs each
            takes one of its own.

    Raises:
        UsageError: If the processes cannot find each other, or there is no device of that name.
        DeviceError: If the device is not on this machine.
        TrainingError: If another process ended and did not report why.
        SystemExit: If another process reported why.
    """
    rank, local_rank, size = torchrun_ranks()
    if size == 1:
        yield ProcessGroup(resolve_device(device_name))
        return
    store = _shared_store(size)
    try:
        with _one_report(store):
            device = resolve_device(device_name)
            if device.type == "cuda":
                device = resolve_device(f"cuda:{local_rank}")
                torch.cuda.set_device(device)
            # Votes and sums are CPU tensors and go through gloo wherever the net is: asking the
            # GPU each step would make it wait for the CPU.
            backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
            distributed.init_process_group(backend, store=store, rank=rank, world_size=size)
            yield ProcessGroup(device, rank, size, store)
    except BaseException as error:
        _clear(error)
        raise
    finally:  # only when it is settled who reports: the others notice that this one is gone
        if distributed.is_initialized():
            gc.collect()
            distributed.destroy_process_group()


def torchrun_ranks() -> tuple[int, int, int]:
    """Read RANK, LOCAL_RANK and WORLD_SIZE; 0, 0 and 1 where they are not set.

    Raises:
        UsageError: If they are not what ``torchrun`` would set.
    """
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE")
    texts = [os.environ.get(name, default) for name, default in zip(names, "001", strict=True)]
    if not all(text.isdecimal() for text in texts) or int(texts[0]) >= int(texts[2]):
        raise UsageError(f"{', '.join(names)} cannot be {', '.join(texts)}: use torchrun")
    rank, local_rank, size = map(int, texts)
    return rank, local_rank, size


def share_batch(config: TrainConfig, size: int) -> TrainConfig:
    """Let ``size`` processes share the batch of a run that others may have begun.

    Raises:
        UsageError: If they cannot share it evenly.
    """
    if config.batch % size:
        raise UsageError(
            f"the run's batch of {config.batch} patches cannot be shared by {size} processes; use "
            "a number of processes that divides it"
        )
    return replace(config, batch_size=config.batch // size, processes=size)


def _shared_store(size: int) -> Store:
    """Find the store that all processes share."""
    try:
        store, _, _ = next(rendezvous("env://"))
    except (ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(
            f"the {size} processes of WORLD_SIZE cannot find each other: {reason}; use torchrun"
        ) from error
    return PrefixStore(f"srcli/{next(_JOINED)}", store)


@contextmanager
def _one_report(store: Store) -> Iterator[None]:
    """Let one process alone raise what went wrong, and the others end."""
    try:
        yield
    except (SrcliError, RuntimeError) as error:
        # What gloo and NCCL say when another process is gone.
        lost = isinstance(error, distributed.DistError) or "gloo" in str(error)
        if not (lost or isinstance(error, SrcliError)):
            raise
        if not _is_first(store):
            raise SystemExit(getattr(error, "exit_code", TrainingError.exit_code)) from error
        if isinstance(error, SrcliError):
            raise
        raise TrainingError(
            "another process of this run has ended (killed, or out of memory): use --resume to "
            "continue from the last checkpoint"
        ) from error


def _is_first(store: Store) -> bool:
    """Whether no other process has failed before."""
    try:
        return bool(store.add("failed", 1) == 1)
    except RuntimeError:  # the process that kept the store is gone, and has reported why
        return False


def _clear(error: BaseException | None) -> None:
    """Let go of what was at work when an error was raised, its causes' included.

    A reducer of gradients that outlives its group may wait for ever when it is freed at last:
    it ends the group's threads under Python's lock, and one of them may be waiting for that.
    """
    while error is not None:
        clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
