"""Several processes that train one net: who is who, and the little that they tell each other.

``torchrun`` starts the processes and says in RANK, LOCAL_RANK and WORLD_SIZE which one each is.
Gradients are PyTorch's own business (DistributedDataParallel); here are the sums of a score,
the agreement on when to stop, and who says what went wrong.
"""

import gc
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from traceback import clear_frames

import torch
from torch import Tensor, distributed
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from srcli.errors import SrcliError, TrainingError, UsageError

__all__ = ["Team", "join_team", "place"]

_JOINED = count()
"""Numbers the teams that a process joins one after the other: each has its own store."""


@dataclass(frozen=True, slots=True)
class Team:
    """One process's view of all of them; alone, nothing is sent to anybody."""

    device: torch.device
    """What this process computes on."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes the files and talks."""
        return self.rank == 0

    def rows(self, size: int) -> slice:
        """Say which rows of a batch of ``size`` patches are this process's."""
        own = size // self.size
        return slice(self.rank * own, (self.rank + 1) * own)

    def agree(self, *, stop: bool, seconds: float) -> tuple[bool, float]:
        """Settle whether anybody wants to stop, and the leader's clock as everybody's.

        Without it processes would stop at different steps, and wait for each other for ever.

        Returns:
            Whether to stop, and the seconds since the run began.
        """
        if self.size == 1:
            return stop, seconds
        votes = torch.tensor([float(stop), seconds if self.leads else 0.0], dtype=torch.float64)
        distributed.all_reduce(votes, distributed.ReduceOp.MAX)
        return bool(votes[0]), float(votes[1])

    def sum(self, values: Tensor) -> Tensor:
        """Add up ``values``, a CPU tensor, over all processes."""
        if self.size > 1:
            distributed.all_reduce(values, distributed.ReduceOp.SUM)
        return values

    def mean(self, values: Tensor) -> Tensor:
        """Average ``values`` over all processes, in ``float64``; alone they stay as they are."""
        if self.size == 1:
            return values
        return (self.sum(values.double().cpu()) / self.size).to(values.device)

    def gather(self, lines: Sequence[str]) -> list[str]:
        """Bring together what all processes have to tell: each line once, sorted."""
        if self.size == 1:
            return sorted(set(lines))
        own = "".join(f"{line}\n" for line in lines).encode()
        longest = torch.tensor(len(own))
        distributed.all_reduce(longest, distributed.ReduceOp.MAX)
        text = torch.full((int(longest) + 1,), ord("\n"), dtype=torch.uint8)
        text[: len(own)] = torch.tensor(list(own), dtype=torch.uint8)
        texts = [torch.empty_like(text) for _ in range(self.size)]
        distributed.all_gather(texts, text)
        whole = bytes(torch.cat(texts).tolist()).decode()
        return sorted(set(whole.split("\n")) - {""})

    def wait(self) -> None:
        """Go on when all processes have come here."""
        if self.size > 1:
            distributed.barrier()


def place() -> tuple[int, int, int]:
    """Read rank, local rank and number of processes from what ``torchrun`` sets.

    Returns:
        RANK, LOCAL_RANK and WORLD_SIZE; 0, 0 and 1 where they are not set.

    Raises:
        UsageError: If the variables are no whole numbers in range.
    """
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE")
    texts = (os.environ.get(name, default) for name, default in zip(names, "001", strict=True))
    try:
        rank, local, size = (int(text) for text in texts)
    except ValueError as error:
        raise UsageError(f"{', '.join(names)} must be whole numbers: use torchrun") from error
    if not (0 <= rank < size and local >= 0):
        raise UsageError(f"RANK {rank} is not below WORLD_SIZE {size}: use torchrun")
    return rank, local, size


@contextmanager
def join_team(pick: Callable[[int, int], torch.device]) -> Iterator[Team]:
    """Join the processes that ``torchrun`` started: gloo on CPU, NCCL on CUDA.

    The first process to fail says why; the others, which meet the same error or find the first
    one gone, end without a word. What holds a net under DistributedDataParallel has to be gone
    when the block ends: let a function do the work.

    Args:
        pick: Called with the place of this process on its machine and with the number of all
            of them; says what it trains on.

    Yields:
        The team; that of one if there is no ``torchrun``.

    Raises:
        UsageError: If the processes cannot find each other.
        TrainingError: If another one ended and did not say why.
        SystemExit: If another one said why.
    """
    rank, local, size = place()
    if size == 1:
        yield Team(pick(local, size))
        return
    store = _meet(size)
    try:
        with _one_voice(store):
            device = pick(local, size)
            # Votes and sums are CPU tensors and go through gloo wherever the net is: asking the
            # GPU each step would make it wait for the CPU.
            backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
            distributed.init_process_group(backend, store=store, rank=rank, world_size=size)
            yield Team(device, rank, size)
    except BaseException as error:
        _clear(error)
        raise
    finally:  # not before it is settled who speaks: the others notice that this one is gone
        if distributed.is_initialized():
            gc.collect()
            distributed.destroy_process_group()


def _clear(error: BaseException | None) -> None:
    """Let go of what was at work when an error was raised, its causes' included.

    A reducer of gradients that outlives its group may wait for ever when it is freed at last:
    it ends the group's threads under Python's lock, and one of them may be waiting for that.
    """
    while error is not None:
        clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _meet(size: int) -> Store:
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
def _one_voice(store: Store) -> Iterator[None]:
    """Let one process alone raise what went wrong, and the others end."""
    try:
        yield
    except SrcliError as error:
        if not _is_first(store):
            raise SystemExit(error.exit_code) from error
        raise
    except RuntimeError as error:
        # What gloo and NCCL say when another process is gone.
        if "gloo" not in str(error) and not isinstance(error, distributed.DistError):
            raise
        if not _is_first(store):
            raise SystemExit(TrainingError.exit_code) from error
        raise TrainingError(
            "another process of this run has ended (killed, or out of memory): use --resume to "
            "continue from the last checkpoint"
        ) from error


def _is_first(store: Store) -> bool:
    """Whether no other process has failed before."""
    try:
        return bool(store.add("failed", 1) == 1)
    except RuntimeError:  # who kept the store is gone, and has said why
        return False
