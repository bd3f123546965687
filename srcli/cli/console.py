"""Messages, errors and signals: what holds for the output and the end of every command."""

import gc
import json
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from srcli.errors import Interrupted, OutputError, SrcliError, UsageError
from srcli.files import is_folder, one_line, reason, replacing, scratch
from srcli.imaging.formats import FOUND_SUFFIXES, LEFT_OUT_SUFFIXES

if TYPE_CHECKING:
    from srcli.upscaling.config import Job
    from srcli.upscaling.results import Result, Summary


__all__ = [
    "Stopper",
    "check_output",
    "format_bytes",
    "format_counts",
    "format_duration",
    "format_pixels",
    "format_scores",
    "print_json",
    "print_report",
    "print_table",
    "print_text",
    "reporting",
    "say",
    "signals",
    "terminating",
    "waiting",
    "write_output",
]


@contextmanager
def reporting(explained: Callable[[str], str]) -> Iterator[None]:
    """Turn an ``explained`` ``SrcliError`` or a signal into one line and its exit code."""
    try:
        yield
    except KeyboardInterrupt as error:
        say("interrupted")
        # Python's own is SIGINT, :class:`Stopper` names its signal.
        raise typer.Exit(128 + int(error.args[0] if error.args else signal.SIGINT)) from error
    except Interrupted as error:
        say(str(error))
        raise typer.Exit(128 + error.signal_number) from error
    except SrcliError as error:
        say(f"error: {explained(str(error))}")
        raise typer.Exit(error.exit_code) from error
    except BrokenPipeError:  # the reader of stdout is gone: Typer exits quietly
        raise
    except OSError as error:  # a path that may not be looked at, a full disk
        where = f"{error.filename}: " if error.filename else ""
        say(f"error: {where}{error.strerror or error}; check the path and its permissions")
        raise typer.Exit(1) from error


def print_json(values: dict[str, Any]) -> None:
    """Print one JSON object on one line of stdout."""
    print_text(json.dumps(values, allow_nan=False))


def print_report(values: object) -> None:
    """Print JSON over several lines of stdout; numbers that JSON does not have become null."""
    finite = json.loads(json.dumps(values), parse_constant=lambda _: None)
    print_text(json.dumps(finite, indent=2))


def print_text(text: str) -> None:
    """Print a text on stdout."""
    with _writing("to stdout", "file"):
        typer.echo(text)


def print_table(table: Table) -> None:
    """Print a table on stdout; in a file or a pipe nothing is cut or wrapped."""
    console = Console(width=None if sys.stdout.isatty() else 10_000)
    # A narrow terminal wraps the lines itself rather than have every number in several parts.
    options = console.options.update(width=80)
    console.width = max(console.width, console.measure(table, options=options).minimum)
    with _writing("to stdout", "file"):
        console.print(table)


def format_bytes(size: float) -> str:
    """Return a size in kB, MB or GB, roughly."""
    return decimal(round(size), precision=0)


def format_counts(summary: "Summary") -> str:
    """Return how many files are done, skipped and failed."""
    return f"{summary.done} done, {summary.skipped} skipped, {summary.failed} failed"


def format_scores(
    psnr: float, ssim: float, accuracy: float | None = None, added: Iterable[float] = ()
) -> str:
    """Return the scores of one image and method as a cell of a table; None: no accuracy."""
    share = [] if accuracy is None else [f"{accuracy:.2%}"]
    return " / ".join([f"{psnr:.2f}", f"{ssim:.4f}", *share, *(f"{one:z.4f}" for one in added)])


def format_duration(seconds: float) -> str:
    """Return a time in seconds, minutes or hours, whichever reads best."""
    hours, minutes = divmod(round(seconds / 60), 60)
    if seconds < 120:
        return f"{seconds:.{1 if seconds < 10 else 0}f} s"
    return f"{hours} h {minutes} min" if hours >= 2 else f"{60 * hours + minutes} min"


def format_pixels(*counts: float) -> str:
    """Return counts of pixels in the unit of the last one, which is the largest.

    Example:
        >>> format_pixels(3.7e9, 33.6e9), format_pixels(108e6)
        ('3.7 -> 33.6 gigapixels', '108 megapixels')
    """
    unit, name = (1e9, "gigapixels") if counts[-1] >= 1e9 else (1e6, "megapixels")
    return f"{' -> '.join(f'{round(one / unit, 3):.3g}' for one in counts)} {name}"


def waiting(text: str, *, shown: bool) -> AbstractContextManager[object]:
    """Show that something is going on while it is not known how long it takes."""
    return Console(stderr=True).status(text) if shown else nullcontext()


@contextmanager
def loading(*, shown: bool) -> Iterator[None]:
    """Import torch inside, which takes seconds, and a sixth less if nobody looks for garbage."""
    gc.disable()
    try:
        with waiting("loading", shown=shown):
            yield
    finally:
        gc.enable()


@contextmanager
def signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM in the list that is yielded; a second one acts as usual."""
    received: list[int] = []
    with ExitStack() as restored:

        def note(number: int, _frame: FrameType | None) -> None:
            received.append(number)
            restored.close()

        _handle([signal.SIGINT, signal.SIGTERM], note, restored)
        yield received


def _handle(numbers: Iterable[int], handler: Callable[..., None], restored: ExitStack) -> None:
    """Handle signals until a stack is closed."""
    for number in numbers:
        restored.callback(signal.signal, number, signal.signal(number, handler))


@contextmanager
def terminating() -> Iterator["Stopper"]:
    """Let SIGTERM unwind the work as Ctrl-C does, so that no unfinished file is left behind."""
    stopper = Stopper()
    caught = [signal.SIGTERM]
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else ignored
        caught.append(signal.SIGINT)
    with ExitStack() as restored:
        _handle(caught, stopper, restored)
        yield stopper


class Stopper:
    """Raises ``KeyboardInterrupt`` at a signal, a first one not while a result is reported."""

    def __init__(self) -> None:
        self.received: list[int] = []
        self._reporting = False

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        """Handle a signal."""
        self.received.append(number)
        if not self._reporting or len(self.received) > 1:
            raise KeyboardInterrupt(number)

    def holding(self, report: Callable[["Result"], None]) -> Callable[["Result"], None]:
        """Wrap what reports a result, so that it is not cut short; others may wait behind it."""

        def held(result: "Result") -> None:
            self._reporting = True
            try:
                report(result)
            finally:
                self._reporting = False

        return held

    def checking(self, advance: Callable[["Job", float], None]) -> Callable[["Job", float], None]:
        """Wrap what shows progress, so that it raises what was held back or a library swallowed."""

        def checked(job: "Job", share: float) -> None:
            if self.received:
                raise KeyboardInterrupt(self.received[0])
            advance(job, share)

        return checked


def check_output(path: Path, option: str = "--output") -> None:
    """Refuse a file that cannot be written, or would cost a picture, before anything is computed.

    ``--failed-list *.jpg`` without a name before it would replace the first of them.

    Raises:
        OutputError: If its folder is missing or may not be written to, or if it is a folder.
        UsageError: If it is stdout, or named like a picture or weights.
    """
    suffix = path.suffix.lower()
    if str(path) == "-":
        raise UsageError(f"{option} - : stdout is for results and --json; give the name of a file")
    if suffix in FOUND_SUFFIXES | LEFT_OUT_SUFFIXES | {".safetensors"}:
        what = "weights" if suffix == ".safetensors" else "an image"
        raise UsageError(f"{option} {one_line(path)} is named like {what}; give another name")
    if not is_folder(path.parent):
        raise OutputError(f"cannot write {path}: {path.parent} is no folder; make it first")
    if is_folder(path):
        raise OutputError(f"cannot write {path}: it is a folder; give the name of a file")
    with _writing(path, option), scratch(path.parent), suppress(FileNotFoundError):
        path.lstat()  # a name may be too long


def write_output(path: Path, content: str | bytes, option: str = "--output") -> None:
    """Write a text, in UTF-8, or bytes, whole or not at all.

    Raises:
        OutputError: If it cannot be written.
    """
    with _writing(path, option), replacing(path) as temporary:
        data = content.encode("utf-8") if isinstance(content, str) else content
        temporary.write_bytes(data)


@contextmanager
def _writing(where: Path | str, other: str) -> Iterator[None]:
    """Say what the system has against what is written, and what else may be chosen."""
    try:
        yield
    except BrokenPipeError:  # the reader has seen enough
        raise
    except OSError as error:
        raise OutputError(
            f"cannot write {where}: {reason(error)}; choose another {other}"
        ) from error


def say(text: str) -> None:
    """Print one line on stderr without wrapping or markup."""
    try:
        sys.stderr.write(f"{one_line(text)}\n")
        sys.stderr.flush()
    except BrokenPipeError:  # the reader is gone, which ends the run as it does for stdout
        raise
    except OSError:  # a log on a full disk or a terminal that is gone must not end a long run
        pass
