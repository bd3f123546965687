"""Several processes that share one list of files: who takes which, and what became of each.

``torchrun`` or whatever else sets RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT starts the
processes. They meet in one store of PyTorch's, a small table that one process keeps and all
read and write. There are no collectives, which would hang as soon as one process is gone: each
takes the next file when it is free, and one that dies costs the others nothing but that file.
"""

import json
import math
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from itertools import count as numbers
from typing import Final

from torch.distributed import (  # type: ignore[attr-defined] # documented, not in __all__
    HashStore,
    PrefixStore,
    Store,
    TCPStore,
)

from srcli.errors import Interrupted, SrcliError, UsageError
from srcli.files import one_line, reason
from srcli.training.distributed import place

__all__ = ["Crew", "CrewError", "Report", "join_crew"]

_BEAT_SECONDS: Final = 2.0
"""Between two signs of life."""

_PATIENCE_SECONDS: Final = 30.0
"""Without a sign of life a process is taken for dead; a busy or swapping one may pause."""

_MEETING_SECONDS: Final = 300.0
"""That the processes may take to come together: a cluster starts them one by one."""

_GRACE_SECONDS: Final = 5.0
"""That an interrupted process which keeps the store gives the others to leave."""

_POLL_SECONDS: Final = 0.1
"""Between two looks while waiting; short enough for Ctrl-C, which no wait inside torch hears."""

_PROBE_SECONDS: Final = 5.0
"""That a machine may take to answer before it is asked again."""

_CALL_SECONDS: Final = 30.0
"""That torch may take to connect once the port answers."""

_CHUNK_BYTES: Final = 1 << 20
"""The store refuses values above 8 MiB."""

_CHUNK_KEYS: Final = 1000
"""Values asked for at once."""

_STOPPED: Final = 1 << 40
"""Added to the number of files taken when no more are to be: beyond the end of any list."""

_HERE, _CLOSED, _GONE = b"here", b"closed", b"gone"
"""Where a process is: at work, waiting for the others, or out of the crew."""

_JOINED = numbers()
"""Numbers the crews that a process joins one after the other: each has its own store."""


class CrewError(SrcliError):
    """The processes that share the work have lost each other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What became of all files: the same in every process that is still there."""

    lines: dict[int, bytes]
    """What was recorded, by index, in the order of the list."""

    lost: dict[int, int]
    """Taken and never recorded: the index, and the RANK of the process that had it."""

    unclaimed: tuple[int, ...]
    """What nobody began, because the work was stopped."""

    dead: tuple[int, ...]
    """RANKs of the processes that did not come to the end: killed, failed or interrupted."""

    speaks: bool
    """Whether this process tells the user: one does, the first of those that are left."""


class _Pulse:
    """Shows the others that this process lives, and notices which of them have fallen silent.

    Patience is counted in looks of its own and not on a clock: processes that a scheduler
    suspended all together must not take each other for dead when they go on.
    """

    def __init__(self, rank: int, size: int, interval: float, patience: float) -> None:
        self._keys = [f"beat/{other}" for other in range(size)]
        self._own, self._interval = self._keys[rank], interval
        self._limit = math.ceil(patience / interval)
        self._seen = [b""] * size
        self._missed = [0] * size
        self._end = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def keys(self) -> list[str]:
        """Where each process leaves its signs of life."""
        return self._keys

    @property
    def silent(self) -> set[int]:
        """RANKs that have given no sign of life for too long; one that goes on is heard again."""
        return {rank for rank, missed in enumerate(self._missed) if missed >= self._limit}

    def start(self, store: Store) -> None:
        """Begin to beat, through a connection that nothing else waits on."""
        self._thread = threading.Thread(target=self._run, args=(store,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Fall silent."""
        self._end.set()
        if self._thread is not None:
            self._thread.join(_GRACE_SECONDS)

    def _run(self, store: Store) -> None:
        with suppress(RuntimeError):  # the store is gone: who works will notice by itself
            while not self._end.wait(self._interval):
                store.add(self._own, 1)
                self._look(store.multi_get(self._keys))

    def _look(self, beats: list[bytes]) -> None:
        for rank, beat in enumerate(beats):
            self._missed[rank] = self._missed[rank] + 1 if beat == self._seen[rank] else 0
            self._seen[rank] = beat


class _Table:
    """The store as one process sees it, and where the processes are: kept in the store too."""

    def __init__(self, rank: int, size: int, store: Store, pulse: _Pulse) -> None:
        self._rank, self._store, self._pulse = rank, store, pulse
        self._all = range(size)
        self.speaker: int | None = None
        """RANK of the one that tells the user, as soon as that is settled."""

    def write(self, key: str, value: bytes) -> None:
        """Write a value."""
        with _reaching():
            self._store.set(key, value)  # type: ignore[arg-type] # the stub knows text alone

    def add(self, key: str, value: int) -> int:
        """Add to a number, which begins with 0, and read the sum."""
        with _reaching():
            return self._store.add(key, value)

    def check(self, keys: list[str]) -> bool:
        """Whether all of these have been written."""
        with _reaching():
            return self._store.check(keys)

    def get(self, keys: list[str]) -> list[bytes]:
        """Read values that are known to be there; the store would wait for others."""
        with _reaching():
            return self._store.multi_get(keys)

    def write_once(self, key: str, value: str) -> None:
        """Write a value, unless another process was faster."""
        with _reaching():
            self._store.compare_set(key, "", value)

    def read(self, indices: Sequence[int]) -> dict[int, bytes]:
        """Read what is there of these files: the RANK that took it, a blank, the line.

        What is missing is little (a process died between two calls) and found by halving.
        """
        if not indices:
            return {}
        keys = [_file(index) for index in indices]
        if len(indices) <= _CHUNK_KEYS and self.check(keys):
            return dict(zip(indices, self.get(keys), strict=True))
        if len(indices) == 1:
            return {}
        middle = len(indices) // 2
        return self.read(indices[:middle]) | self.read(indices[middle:])

    def move_to(self, state: bytes) -> None:
        """Say where this process is now."""
        self.write(_state(self._rank), state)

    def meet(self, deadline: float) -> None:
        """Wait until all processes are there.

        Raises:
            UsageError: If one does not come, or if another one has this RANK.
        """
        if self.add(f"joined/{self._rank}", 1) > 1:
            raise UsageError(
                f"another process has RANK {self._rank} already; give each a RANK of its own, "
                "and a MASTER_PORT to those that are started together"
            )
        self.add(self._pulse.keys[self._rank], 1)
        self.move_to(_HERE)
        while not self.check([_state(rank) for rank in self._all]):
            if time.monotonic() > deadline:
                missing = [str(rank) for rank in self._all if not self.check([_state(rank)])]
                raise UsageError(
                    f"of the {len(self._all)} processes of WORLD_SIZE those with RANK "
                    f"{', '.join(missing)} have not come; start them all, or give a smaller "
                    "WORLD_SIZE"
                )
            time.sleep(_POLL_SECONDS)

    def absent(self) -> set[int]:
        """RANKs of those that have left or fallen silent."""
        left = {rank for rank, state in self._states().items() if state == _GONE}
        return left | self._pulse.silent

    def waiting(self) -> list[int] | None:
        """RANKs of those that have closed and still live; None while anybody is at work."""
        states, silent = self._states(), self._pulse.silent
        if any(state == _HERE for rank, state in states.items() if rank not in silent):
            return None
        return [rank for rank, state in states.items() if state == _CLOSED and rank not in silent]

    def leave(self, error: BaseException | None, *, hosts: bool) -> None:
        """Go, so that whoever speaks has spoken before, and the store outlasts its users."""
        hurried = isinstance(error, KeyboardInterrupt | Interrupted)
        if hosts and error is not None:
            self.add("next", _STOPPED)  # the others cannot go on without the store
        if self.speaker is not None and not hurried:
            self._wait_for({self.speaker} - {self._rank})
        self.move_to(_GONE)
        if hosts:
            others = set(self._all) - {self._rank}
            self._wait_for(others, _GRACE_SECONDS if hurried else math.inf)

    def _wait_for(self, ranks: set[int], seconds: float = math.inf) -> None:
        """Wait until these have left or fallen silent."""
        end = time.monotonic() + seconds
        while ranks - self.absent() and time.monotonic() < end:
            time.sleep(_POLL_SECONDS)

    def _states(self) -> dict[int, bytes]:
        return dict(enumerate(self.get([_state(rank) for rank in self._all])))


class Crew:
    """One process's view of all that share a list; alone, nothing is sent to anybody.

    Its methods are called in this order: :meth:`agree` as often as there is something to agree
    on, :meth:`claim` once with one :meth:`record` for each index, :meth:`close` once.
    """

    def __init__(self, ranks: tuple[int, int, int], table: _Table) -> None:
        """Do not call this: :func:`join_crew` does."""
        self.rank, self.local_rank, self.size = ranks
        self._table = table
        self._agreements = numbers()

    @property
    def leads(self) -> bool:
        """Whether this process makes the plan."""
        return self.rank == 0

    @property
    def stopped(self) -> bool:
        """Whether no more files are given out: somebody called :meth:`stop`, or all is over.

        Raises:
            CrewError: If the process that keeps the store is gone.
        """
        return self._table.add("next", 0) >= _STOPPED

    def agree(self, make: Callable[[], bytes]) -> bytes:
        """Let the leader make something, and give it to all.

        Args:
            make: Called by the leader alone; of any size.

        Returns:
            What it returned.

        Raises:
            CrewError: If the leader is gone before it has made it.
            SystemExit: In all but the leader, if ``make`` raised: with the same exit code, and
                without a word, as the leader says why.
        """
        name = f"agreed/{next(self._agreements)}"
        return self._announce(name, make) if self.leads else self._learn(name)

    def claim(self, count: int) -> Iterator[int]:
        """Take one index after the other, as long as there are any that nobody has taken.

        The next one is taken when it is asked for, so that a faster process takes more.

        Args:
            count: Length of the list, the same in all processes.

        Yields:
            Indices below ``count``, ascending, each in one process only.

        Raises:
            CrewError: If the process that keeps the store is gone.
        """
        while (index := self._table.add("next", 1) - 1) < count:
            # Without this a file whose process died would count as one that nobody began.
            self._table.write(_file(index), b"%d" % self.rank)
            yield index

    def record(self, index: int, line: bytes) -> None:
        """Keep what became of a file where the death of this process does not reach it.

        Any thread may call it.

        Args:
            index: One that this process has claimed.
            line: What the report is to say, below 1 MiB.

        Raises:
            CrewError: If the process that keeps the store is gone.
        """
        self._table.write(_file(index), b"%d %s" % (self.rank, line))

    def stop(self) -> None:
        """Give out no more files, in any process; those that are taken may be finished.

        Raises:
            CrewError: If the process that keeps the store is gone.
        """
        self._table.add("next", _STOPPED)

    def close(self, count: int) -> Report:
        """Wait until every other process has closed too, or is dead, and learn what became of all.

        Whoever speaks has to do so before it leaves :func:`join_crew`: until then the others
        stay, because ``torchrun`` ends all as soon as one has left with an error.

        Args:
            count: Length of the list.

        Returns:
            The report; it says for one process only that it speaks.

        Raises:
            CrewError: If the process that keeps the store is gone.
        """
        self._table.move_to(_CLOSED)
        while not self._table.check(["verdict"]):
            waiting = self._table.waiting()
            if waiting is not None and self.rank == min(waiting, default=self.rank):
                self._settle(count, waiting)
            else:
                time.sleep(_POLL_SECONDS)
        return self._report(count)

    def _announce(self, name: str, make: Callable[[], bytes]) -> bytes:
        try:
            made = make()
        except BaseException as error:
            with suppress(CrewError):
                self._table.write(name, b"failed %d" % _exit_code(error))
            raise
        chunks = [made[at : at + _CHUNK_BYTES] for at in range(0, len(made), _CHUNK_BYTES)]
        for number, chunk in enumerate(chunks):
            self._table.write(f"{name}/{number}", chunk)
        self._table.write(name, b"made %d" % len(chunks))
        return made

    def _learn(self, name: str) -> bytes:
        while True:
            absent = self._table.absent()  # before the look: the leader may speak and go in between
            if self._table.check([name]):
                break
            if 0 in absent:
                raise CrewError(
                    "the process of RANK 0 has ended before it had made the list of files; "
                    "check what it said, and run the same command again"
                )
            time.sleep(_POLL_SECONDS)
        word, number = self._table.get([name])[0].split()
        if word == b"failed":
            raise SystemExit(int(number))
        return b"".join(self._table.get([f"{name}/{part}"])[0] for part in range(int(number)))

    def _settle(self, count: int, waiting: list[int]) -> None:
        """Write down what all go by from now on, whatever one taken for dead may yet record."""
        # A process that comes back from the dead is to take no more.
        taken = min(self._table.add("next", _STOPPED) % _STOPPED, count)
        entries = self._table.read(range(taken))
        verdict = {
            "speaker": self.rank,
            "dead": [rank for rank in range(self.size) if rank not in waiting],
            "lost": [(index, int(entry)) for index, entry in entries.items() if b" " not in entry],
            "unclaimed": [index for index in range(count) if index not in entries],
        }
        # Two that each take the other for dead may both come here.
        self._table.write_once("verdict", json.dumps(verdict))

    def _report(self, count: int) -> Report:
        verdict = json.loads(self._table.get(["verdict"])[0])
        self._table.speaker = verdict["speaker"]
        lost, unclaimed = dict(verdict["lost"]), verdict["unclaimed"]
        entries = self._table.read(sorted(set(range(count)) - lost.keys() - set(unclaimed)))
        return Report(
            lines={index: entry.partition(b" ")[2] for index, entry in entries.items()},
            lost=lost,
            unclaimed=tuple(unclaimed),
            dead=tuple(verdict["dead"]),
            speaks=verdict["speaker"] == self.rank,
        )


@contextmanager
def join_crew(
    *,
    interval: float = _BEAT_SECONDS,
    patience: float = _PATIENCE_SECONDS,
    meeting: float = _MEETING_SECONDS,
) -> Iterator[Crew]:
    """Join the processes that share one list of files; begin when all are there.

    An error that several of them meet is told by the first. Where RANK 0 keeps the store, it
    leaves last, and if it fails the others finish what they have begun and take no more.

    Args:
        interval: Seconds between two signs of life.
        patience: Seconds without one after which a process is taken for dead.
        meeting: Seconds that all may take to come together.

    Yields:
        The crew; that of one, which touches no network, if WORLD_SIZE is 1 or not set.

    Raises:
        UsageError: If the variables make no sense, or if the processes do not come together.
        CrewError: If the process that keeps the store is gone.
        SystemExit: If another one has said the same already.
    """
    ranks = rank, _, size = place()
    pulse = _Pulse(rank, size, interval, patience)
    deadline = time.monotonic() + meeting
    if size == 1:
        table = _Table(rank, size, HashStore(), pulse)
        table.meet(deadline)
        yield Crew(ranks, table)
        return
    hosts = rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != str(True)
    connect = _connector(deadline, hosts=hosts)
    table = _Table(rank, size, connect(hosts), pulse)
    with _pulsing(pulse):
        with _one_voice(table):
            table.meet(deadline)
            pulse.start(connect(False))
        with _leaving(table, hosts=hosts), _one_voice(table):
            yield Crew(ranks, table)


def _connector(deadline: float, *, hosts: bool) -> Callable[[bool], Store]:
    """Return what makes connections to the store: the first one of the host makes the store too."""
    generation = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    prefix = f"srcli/crew/{generation}/{next(_JOINED)}"
    address, port = _address()
    if hosts:  # whatever name the others know this machine by
        address = "localhost"

    def connect(keeps: bool) -> Store:  # noqa: FBT001 - one of two
        return PrefixStore(prefix, _connect(address, port, deadline, keeps=keeps))

    return connect


def _address() -> tuple[str, int]:
    """Read where the store is.

    Raises:
        UsageError: If that is not said, or is no port.
    """
    address, port = (os.environ.get(name, "") for name in ("MASTER_ADDR", "MASTER_PORT"))
    if not (address and port):
        raise UsageError(
            "WORLD_SIZE needs MASTER_ADDR and MASTER_PORT, by which the processes find each "
            "other: use torchrun, or give them"
        )
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 1 << 16):
        raise UsageError(f"MASTER_PORT must lie in 1..65535, not {one_line(port)}: choose one")
    return address, int(port)


def _connect(address: str, port: int, deadline: float, *, keeps: bool) -> Store:
    """Open a connection to the store, or the store itself.

    Raises:
        UsageError: If nothing answers, or the port is not free.
    """
    if not keeps:
        _await_port(address, port, deadline)
    found: list[Store | Exception] = []

    def call() -> None:
        try:
            found.append(
                TCPStore(
                    address,
                    port,
                    is_master=keeps,
                    wait_for_workers=False,
                    multi_tenant=keeps,
                    use_libuv=sys.platform != "win32",
                    timeout=timedelta(seconds=_CALL_SECONDS),
                )
            )
        except (RuntimeError, ValueError) as error:
            found.append(error)

    # In a thread, as torch would wait for ever, and deaf to Ctrl-C, for a service that is no store.
    caller = threading.Thread(target=call, daemon=True)
    caller.start()
    caller.join(2 * _CALL_SECONDS)
    result = found[0] if found else TimeoutError("it does not answer as a store")
    if isinstance(result, Exception):
        problem = "cannot be used" if keeps else f"of MASTER_ADDR {one_line(address)} does not fit"
        words = one_line(str(result).splitlines()[0])
        raise UsageError(f"MASTER_PORT {port} {problem} ({words}); choose another") from result
    return result


def _await_port(address: str, port: int, deadline: float) -> None:
    """Wait until a port answers: RANK 0 may be the last to be started.

    Raises:
        UsageError: If it does not.
    """
    while True:
        try:
            socket.create_connection((address, port), _PROBE_SECONDS).close()
        except (OSError, UnicodeError) as error:  # a name that is none is a UnicodeError
            if time.monotonic() > deadline:
                raise UsageError(
                    f"the process of RANK 0 does not answer at MASTER_ADDR {one_line(address)}, "
                    f"MASTER_PORT {port} ({reason(error)}); start it, or check both"
                ) from error
            time.sleep(_POLL_SECONDS)
        else:
            return


@contextmanager
def _pulsing(pulse: _Pulse) -> Iterator[None]:
    """Beat until the block has ended; it is the block that starts to."""
    try:
        yield
    finally:
        pulse.stop()


@contextmanager
def _leaving(table: _Table, *, hosts: bool) -> Iterator[None]:
    """Leave the crew when the block ends, however it does."""
    try:
        yield
    except BaseException as error:
        with suppress(CrewError):
            table.leave(error, hosts=hosts)
        raise
    with suppress(CrewError):
        table.leave(None, hosts=hosts)


@contextmanager
def _one_voice(table: _Table) -> Iterator[None]:
    """Let one process alone raise an error that several meet, and the others end."""
    try:
        yield
    except SrcliError as error:
        if not _is_first(table, str(error)):
            raise SystemExit(_exit_code(error)) from error
        raise


def _is_first(table: _Table, text: str) -> bool:
    """Whether no other process has said this before."""
    try:
        return table.add(f"told/{sha256(text.encode()).hexdigest()}", 1) == 1
    except CrewError:  # nobody is left to ask
        return True


@contextmanager
def _reaching() -> Iterator[None]:
    """Tell that the store is gone where torch says it in its own words."""
    try:
        yield
    except RuntimeError as error:
        raise CrewError(
            "the process that keeps the list of files has ended; the files that are done are "
            "kept; run the same command with --skip-existing"
        ) from error


def _exit_code(error: BaseException) -> int:
    """Say which exit code a program that this error ends will have."""
    match error:
        case Interrupted():
            return 128 + error.signal_number
        case SrcliError():
            return error.exit_code
        case KeyboardInterrupt(args=(int(number), *_)):  # what the command line makes of SIGTERM
            return 128 + number
        case KeyboardInterrupt():
            return 130
        case SystemExit(code=int(code)):
            return code
        case _:
            return 1


def _file(index: int) -> str:
    return f"file/{index}"


def _state(rank: int) -> str:
    return f"state/{rank}"
