"""Every error a user can meet, and the exit code it ends the program with.

::

    SrcliError                      1   something failed; the base of all
    ├── ImageError                  1   a file cannot be read as a picture
    ├── OutputError                 1   a result cannot be written where it was asked for
    ├── TrainingError               1   a training run failed (a loss that is not finite)
    ├── UsageError                  2   options that contradict each other or the data
    ├── NothingToDoError            3   no readable image matched
    ├── WeightsError                4   weights missing, foreign or damaged
    ├── DataError                   4   a data set missing, empty or of the wrong layout
    ├── DeviceError                 5   the device is not there, or too small
    ├── GateError                   6   a score is below the one asked for
    └── Interrupted               130   stopped by a signal (143 for SIGTERM)

The text of an error is the whole message to the user: what, the value, the way out, on one
line. Anything that is not a ``SrcliError`` is a bug and shows its traceback.
"""

import difflib
from collections.abc import Iterable
from importlib.util import find_spec
from typing import ClassVar

__all__ = [
    "DataError",
    "DeviceError",
    "GateError",
    "ImageError",
    "Interrupted",
    "NothingToDoError",
    "OutputError",
    "SrcliError",
    "TrainingError",
    "UsageError",
    "WeightsError",
    "is_installed",
    "require_at_least",
    "require_package",
    "suggestion",
]


class SrcliError(Exception):
    """The base of every error that is reported in one line."""

    exit_code: ClassVar[int] = 1


class ImageError(SrcliError):
    """A file cannot be read as a picture."""


class OutputError(SrcliError):
    """A result cannot be written where it was asked for."""


class TrainingError(SrcliError):
    """A training run cannot go on."""


class UsageError(SrcliError):
    """Options contradict each other or what they are applied to."""

    exit_code: ClassVar[int] = 2


class NothingToDoError(SrcliError):
    """No readable image matched the inputs."""

    exit_code: ClassVar[int] = 3


class WeightsError(SrcliError):
    """Weights are missing, not ours, or damaged."""

    exit_code: ClassVar[int] = 4


class DataError(SrcliError):
    """A data set is missing, empty, or not laid out as expected."""

    exit_code: ClassVar[int] = 4


class DeviceError(SrcliError):
    """The requested device is not available, or out of memory at the smallest patch."""

    exit_code: ClassVar[int] = 5


class GateError(SrcliError):
    """A score lies below the one that was asked for."""

    exit_code: ClassVar[int] = 6


class Interrupted(SrcliError):  # noqa: N818 - it ends a run, but nothing went wrong
    """A signal asked the program to stop; what was finished is kept."""

    exit_code: ClassVar[int] = 130

    def __init__(self, message: str, signal_number: int = 2) -> None:
        """Keep the signal, whose number decides the exit code (128 + number)."""
        super().__init__(message)
        self.signal_number = signal_number


def is_installed(name: str) -> bool:
    """Whether a package is there; a folder of its name beside a program, as of models, is none."""
    spec = find_spec(name)
    return spec is not None and spec.origin is not None


def require_package(name: str, extra: str, what: str) -> None:
    """Refuse ``what``, a command or an option, without the package that an extra of srcli brings.

    Raises:
        UsageError: Saying what to install.
    """
    if not is_installed(name):
        raise UsageError(
            f"{what} needs the package {name}, which is not installed; install it with: "
            f"pip install 'srcli[{extra}]'"
        )


def require_at_least(low: int, **options: float | None) -> None:
    """Refuse an option below its smallest value or not finite; None is not set.

    Raises:
        UsageError: Naming the first such option.
    """
    for name, value in options.items():
        if value is not None and not low <= value < 2**63:
            option = f"--{name.replace('_', '-')}"
            bound = "below 2**63" if value > low else f"at least {low}"
            raise UsageError(f"{option} must be {bound}, not {value!s:.40}")


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return which known name a wrong one may be meant for, to stand behind it in a message.

    Example:
        >>> suggestion("lrr", ["lr", "loss"]), suggestion("x", ["lr", "loss"])
        (' (do you mean lr?)', '')
    """
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" (do you mean {near[0]}?)" if near else ""
