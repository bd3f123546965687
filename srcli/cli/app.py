"""The program: its commands and its entry point."""

import gc
import io
import os
import signal
import sys
import threading
from contextlib import suppress
from typing import Annotated

import typer

from srcli import __version__, files
from srcli.cli import evaluate, export, models, train, upscale
from srcli.cli.console import say
from srcli.cli.usage import Command, Program, WithFields

__all__ = ["app", "main", "root"]

app = typer.Typer(
    cls=Program,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    help="Enlarge real photographs with one residual convolutional autoencoder.",
)


def main() -> None:
    """Run the command line, for ``srcli.__main__``, which has the console script's entry."""
    _open_streams()
    try:
        app()
    except OSError as error:  # the help, for a stdout that takes nothing
        say(f"error: cannot write to stdout: {files.reason(error)}; choose another file")
        sys.exit(1)
    except SystemExit as end:
        if end.code in {130, 143} and _is_waited_for():
            os._exit(int(end.code))
        raise
    finally:
        try:
            sys.stdout.flush()
        except OSError:  # which has been said; Python would try again, and end with 120
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        gc.freeze()  # the search for garbage at the end takes half a second of what torch made
        # All is done and reported: what torch does at the end may be cut short.
        with suppress(ValueError):  # not the main thread
            signal.signal(signal.SIGINT, signal.SIG_DFL)


def _open_streams() -> None:
    """Open closed streams, as of some daemons: a picture might be opened as what torch prints to.

    Nothing comes from stdin, stderr is lost, and stdout takes nothing: a result would be lost.
    """
    raw = getattr(sys.stdout, "buffer", None)
    if sys.stdout is not None and isinstance(raw, io.RawIOBase):  # PYTHONUNBUFFERED
        # It would write what a full disk or a pipe takes, and drop the rest without a word.
        whole = io.BufferedWriter(raw)
        sys.stdout = io.TextIOWrapper(
            whole, sys.stdout.encoding, sys.stdout.errors, write_through=True
        )
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            number = os.open(os.devnull, os.O_RDWR if name == "stderr" else os.O_RDONLY)
            stream = io.FileIO(number, mode)
            stream.name = f"<{name}>"
            setattr(sys, name, io.TextIOWrapper(stream, "utf-8", write_through=True))


def _is_waited_for() -> bool:
    """Return whether a thread is left that Python would wait for at exit, deaf to Ctrl-C.

    It may wait for a stdin that does not end, or be one of a library's that a signal has cut off
    while it was started. Its unfinished files are removed.
    """
    alive = any(not one.daemon for one in set(threading.enumerate()) - {threading.main_thread()})
    if alive:
        files.abandon()
    return alive


def _version(value: bool) -> None:  # noqa: FBT001 - as Typer calls it
    if value:
        typer.echo(f"srcli {__version__}")
        raise typer.Exit


@app.callback()
def root(
    *,
    _version_flag: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_version,
            is_eager=True,
            help="Print the version.",
        ),
    ] = False,
) -> None:
    """Enlarge real photographs with one residual convolutional autoencoder."""


app.command(cls=Command, help=upscale.UPSCALE_HELP)(upscale.upscale)
app.command("eval", cls=Command, help=evaluate.EVAL_HELP)(evaluate.evaluate)
app.command(cls=Command)(models.models)
app.command(cls=Command)(export.export)
app.command(cls=WithFields, help=train.TRAIN_HELP, epilog=train.TRAIN_EPILOG)(train.train)
