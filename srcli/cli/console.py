"""What every command says and how it ends: messages, errors, signals."""

import json
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import typer

from srcli.errors import Interrupted, OutputError, SrcliError
from srcli.files import one_line, reason, replacing

if TYPE_CHECKING:
    from srcli.upscaling.batch import Result, Summary
    from srcli.upscaling.plan import Job


__all__ = [
    "NO_WIDTH",
    "Stopper",
    "cell",
    "counted",
    "duration",
    "number_of",
    "print_json",
    "reporting",
    "say",
    "signals",
    "terminating",
    "write_text",
]

NO_WIDTH = 10_000


@contextmanager
def reporting() -> Iterator[None]:
    """Turn a ``SrcliError`` or a signal into one line on stderr and its exit code."""
    try:
        yield
    except KeyboardInterrupt as error:
        say("interrupted")
        raise typer.Exit(128 + number_of(error)) from error
    except Interrupted as error:
        say(str(error))
        raise typer.Exit(128 + error.signal_number) from error
    except SrcliError as error:
        say(f"error: {error}")
        raise typer.Exit(error.exit_code) from error
    except BrokenPipeError:  # the reader of stdout went away: Typer ends quietly
        raise
    except OSError as error:  # a path that may not be looked at, a full disk
        where = f"{error.filename}: " if error.filename else ""
        say(f"error: {where}{error.strerror or error}; check the path and its permissions")
        raise typer.Exit(1) from error


def number_of(stop: KeyboardInterrupt) -> int:
    """Tell which signal it was: Python's own is SIGINT, that of terminating says so."""
    return int(stop.args[0]) if stop.args else int(signal.SIGINT)


def print_json(values: dict[str, Any]) -> None:
    """Print one JSON object on one line of stdout."""
    try:
        sys.stdout.write(json.dumps(values, allow_nan=False) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has seen enough
        raise
    except OSError as error:
        raise OutputError(
            f"cannot write to stdout: {reason(error)}; choose another file"
        ) from error


def counted(summary: "Summary") -> str:
    """Write how many files came to which end."""
    return f"{summary.done} done, {summary.skipped} skipped, {summary.failed} failed"


def cell(psnr: float, ssim: float, share: float, *, accuracy: bool) -> str:
    """Write the scores of one image and method as a table has them."""
    return f"{psnr:.2f} / {ssim:.4f}" + (f" / {share:.2%}" if accuracy else "")


def duration(seconds: float) -> str:
    """Write a time in the unit that suits it."""
    minutes = seconds / 60
    return (
        f"{seconds:.{1 if seconds < 10 else 0}f} s"
        if minutes < 2
        else (f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h")
    )


@contextmanager
def signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM instead of dying of them; a second one kills as usual."""
    received: list[int] = []
    previous: dict[int, Any] = {}

    def note(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        for caught, handler in previous.items():
            signal.signal(caught, handler)

    for caught in (signal.SIGINT, signal.SIGTERM):
        previous[caught] = signal.signal(caught, note)
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def terminating() -> Iterator["Stopper"]:
    """Let SIGTERM unwind the work as Ctrl-C does, so that nothing half-written stays."""
    stopper = Stopper()
    caught = [signal.SIGTERM]
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is to be ignored
        caught.append(signal.SIGINT)
    previous = {number: signal.signal(number, stopper) for number in caught}
    try:
        yield stopper
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class Stopper:
    """Ends the work at a signal, wherever that comes."""

    def __init__(self) -> None:
        self.received: list[int] = []
        self._holds = False

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        """Raise ``KeyboardInterrupt``: at once, but for the first one while a result is told."""
        self.received.append(number)
        if not self._holds or len(self.received) > 1:
            raise KeyboardInterrupt(number)

    def holding(self, tell: Callable[["Result"], None]) -> Callable[["Result"], None]:
        """Let what is told be told to its end: results that wait behind it are still to come."""

        def held(result: "Result") -> None:
            self._holds = True
            try:
                tell(result)
            finally:
                self._holds = False

        return held

    def checking(self, advance: Callable[["Job", float], None]) -> Callable[["Job", float], None]:
        """Raise what was held back, or what a library swallowed: some make errors of their own."""

        def checked(job: "Job", share: float) -> None:
            if self.received:
                raise KeyboardInterrupt(self.received[0])
            advance(job, share)

        return checked


def write_text(path: Path, text: str) -> None:
    """Write a report whole or not at all."""
    try:
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror}; choose another --output"
        ) from error


def say(text: str) -> None:
    """Print one line on stderr, whole: no wrapping, no markup."""
    try:
        sys.stderr.write(f"{one_line(text)}\n")
        sys.stderr.flush()
    except BrokenPipeError:  # the reader went away, which ends the run as it does for stdout
        raise
    except OSError:  # a log on a full disk, a terminal that is gone: no reason to lose a night
        pass
