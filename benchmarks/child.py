"""Run one ``srcli`` command in this process and report where its time and memory went.

    python benchmarks/child.py REPORT INPUT OUTPUT [--cores N] -- upscale ...

``performance.py`` starts it. REPORT is the JSON file to write; the clock of ``inside`` runs from
the first time that INPUT, or a file below it, is opened to the last time that OUTPUT, or a file
below it, gets its name.
"""

import argparse
import functools
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

__all__ = ["NetClock", "covered", "watched"]


def main() -> None:
    """Run the command and write the report."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("report", type=Path)
    parser.add_argument("input", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--cores", type=int, help="of those that the system gives, the first")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    if options.cores:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cores])
    files = FileClock(options.input, options.output)
    sys.addaudithook(files.hear)
    code, net = run(options.command)
    report = {"exit": code, "inside": files.seconds, **net.totals(), "memory": peak_memory()}
    options.report.write_text(json.dumps(report), encoding="utf-8")
    sys.exit(code)


def run(command: list[str]) -> tuple[int, "NetClock"]:
    """Run a command line, the net under a clock."""
    from srcli.cli.app import main as srcli  # noqa: PLC0415 - as late as ``python -m srcli`` does

    os.environ.setdefault("SRCLI_UPSCALE_ENGINE", "torch")  # on every machine the same
    sys.argv = ["srcli", *command]
    net = NetClock()
    try:
        with watched(net.around, runs=True):
            srcli()
    except SystemExit as end:
        return int(end.code or 0), net
    return 0, net


class watched:  # noqa: N801 - used as a context manager, as contextlib's are
    """Put something around every pass through the net, on whatever thread.

    Args:
        around: Called with the pass, the net and its inputs; returns what the pass does.
        runs: Whether what is watched is the engine, whichever it is, instead of torch's net.
    """

    def __init__(self, around: Callable[..., Any], *, runs: bool = False) -> None:
        from srcli.model.network import ResidualAutoencoder  # noqa: PLC0415 - imports torch
        from srcli.model.runner import NetRunner  # noqa: PLC0415 - as above

        self._kind: Any = NetRunner if runs else ResidualAutoencoder
        self._name = "run" if runs else "forward"
        self._plain = getattr(self._kind, self._name)
        self._around = around

    def __enter__(self) -> None:
        """Replace the pass by the watched one."""
        around, plain = self._around, self._plain

        @functools.wraps(plain)
        def watching(*inputs: Any, **named: Any) -> Any:  # noqa: ANN401 - torch is not here yet
            return around(plain, *inputs, **named)

        setattr(self._kind, self._name, watching)

    def __exit__(self, *_: object) -> None:
        """Put the plain pass back."""
        setattr(self._kind, self._name, self._plain)


class NetClock:
    """The seconds in which at least one pass through the net was running."""

    def __init__(self) -> None:
        self._passes: list[tuple[float, float]] = []
        self._lock = threading.Lock()

    def around(self, plain: Callable[..., Any], *inputs: Any, **named: Any) -> Any:  # noqa: ANN401
        """Time one pass; on a GPU too, as the runner waits for its result to look at it."""
        begun = time.perf_counter()
        try:
            return plain(*inputs, **named)
        finally:
            with self._lock:
                self._passes.append((begun, time.perf_counter()))

    def totals(self) -> dict[str, Any]:
        """The totals: ``net`` in seconds, ``passes``, ``device_memory`` in bytes."""
        import torch  # noqa: PLC0415 - it is there by now

        memory = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None
        return {"net": covered(self._passes), "passes": len(self._passes), "device_memory": memory}


class FileClock:
    """The time from opening what goes in to naming what comes out."""

    def __init__(self, source: Path, target: Path) -> None:
        self._source, self._target = (os.path.abspath(path) for path in (source, target))  # noqa: PTH100
        self._begun: float | None = None
        self._ended: float | None = None

    def hear(self, event: str, details: tuple[Any, ...]) -> None:
        """Listen to what Python is about to do; see :func:`sys.addaudithook`."""
        if event == "open" and self._begun is None and _is_at(details[0], self._source):
            self._begun = time.perf_counter()
        elif event == "os.rename" and _is_at(details[1], self._target):
            self._ended = time.perf_counter()

    @property
    def seconds(self) -> float | None:
        """Between the two; None where one of them never happened."""
        if self._begun is None or self._ended is None:
            return None
        return self._ended - self._begun


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """Add up spans of time, counting once what several of them cover."""
    total, reached = 0.0, float("-inf")
    for begin, end in sorted(spans):
        total += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return total


def peak_memory() -> int:
    """Bytes that were resident at the most.

    Linux knows it for this very program; the value of ``getrusage`` begins with the peak of whoever
    started it.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource  # noqa: PLC0415 - where there is no /proc

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _is_at(path: object, where: str) -> bool:
    if not isinstance(path, str | bytes | os.PathLike):
        return False
    name = os.path.abspath(os.fsdecode(path))  # noqa: PTH100 - a path is not to be followed
    return name == where or name.startswith(where + os.sep)


if __name__ == "__main__":
    main()
