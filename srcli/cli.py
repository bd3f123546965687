"""The command line: the only module that knows a terminal.

Torch is imported inside the command bodies alone, so that ``--help`` answers at once.
"""

import glob
import json
import math
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from tqdm import tqdm

from srcli import __version__, files
from srcli.config import BASE, CONFIGS, JOINS, Degradation, ModelConfig
from srcli.errors import GateError, Interrupted, OutputError, SrcliError, UsageError
from srcli.files import is_folder, one_line, reason, replacing
from srcli.formats import READABLE_SUFFIXES
from srcli.geometry import TargetSize
from srcli.recipes import (
    AUGMENTATIONS,
    CHANGEABLE,
    LENGTHS,
    LOSSES,
    OPTIMIZERS,
    PLATEAU,
    RECIPES,
    SCHEDULES,
    SPLITS,
    TrainConfig,
)

if TYPE_CHECKING:
    from srcli.batch import BatchConfig, Forecast, Result, Summary
    from srcli.evaluation import EvalReport
    from srcli.planning import Job
    from srcli.sharing import Crew
    from srcli.training import Plan, Progress, TrainReport
    from srcli.upscaling import Settings, Upscaler

__all__ = ["app", "main"]

_NO_WIDTH = 10_000

_MOST_ROWS = 100
"""Of a larger data set the table shows the means alone; --json and --output have every image."""

# Paragraphs are one line each: the help's renderer wraps them and keeps every line break.
_UPSCALE_HELP = (
    "Enlarge images.\n\n"
    "A result appears whole under its final name, or not at all. An input is never overwritten. "
    "A file that fails does not stop the others: each has its line, and the exit code is 1.\n\n"
    "[bold]srcli upscale photo.jpg[/]  # photo_x3.jpg, three times as wide and high\n\n"
    "[bold]srcli upscale photo.jpg -s 2 -o large.png[/]  # twice as large, as PNG\n\n"
    "[bold]srcli upscale *.jpg --size 3840x2160 -o big[/]  # as large as fits into it\n\n"
    "[bold]srcli upscale holiday -r --skip-existing[/]  # the tree holiday_x3; goes on\n\n"
    "[bold]srcli upscale holiday -r --failed-list failed.txt[/]  # list what fails ...\n\n"
    "[bold]srcli upscale @failed.txt[/]  # ... and try that again\n\n"
    "[bold]srcli upscale - -f png < photo.jpg > large.png[/]  # stdin to stdout\n\n"
    "[bold]torchrun --nproc-per-node 4 -m srcli upscale holiday -r[/]  # four share it\n\n"
    "Exit codes: 0 all done or skipped, 1 a file failed, 2 wrong usage, 3 no image found, "
    "4 no such weights, 5 no such device or out of memory, 130 and 143 stopped by a signal."
)
_EVAL_HELP = (
    "Score weights on a data set, resampling filters beside them.\n\n"
    "[bold]srcli eval set5[/]  # by the literature's protocol at x3: luma, border cut\n\n"
    "[bold]srcli eval celeba -m paper -m base[/]  # the middles of CelebA's test images\n\n"
    "[bold]srcli eval photos -m base -m mine.safetensors --json[/]  # two nets\n\n"
    "[bold]srcli eval set14 --baseline lanczos --panels panels -o set14.csv[/]  # to look at"
)
_TRAIN_HELP = (
    "Train a net on CelebA, STL-10 or folders of images, or continue a run.\n\n"
    "[bold]srcli train --dataset celeba --dataset stl10 --download[/]  # the source paper\n\n"
    "[bold]srcli train --dataset photos --scale 2 --scale 3 --scale 3 --scale 4 --max-time 90m[/]  "
    "# one net for three factors, x3 most often\n\n"
    "[bold]torchrun --standalone --nproc-per-node 2 -m srcli train ...[/]  # two processes\n\n"
    "[bold]srcli train --resume runs/base[/]  # goes on where the last checkpoint left it"
)


def _complete(*values: str) -> Callable[[str], list[str]]:
    """Complete an option's value to one of these."""

    def chosen(incomplete: str) -> list[str]:
        return [value for value in values if value.startswith(incomplete)]

    return chosen


def _complete_model(incomplete: str) -> list[str]:
    """Complete to auto, the shipped weights, or a file."""
    names = [name for name in ("auto", *files.shipped()) if name.startswith(incomplete)]
    return names + sorted(glob.glob(f"{glob.escape(incomplete)}*.safetensors"))  # noqa: PTH207


def _complete_weights(incomplete: str) -> list[str]:
    """Complete to shipped weights or a file: what is measured has a name."""
    return [name for name in _complete_model(incomplete) if name != "auto"]


def _recipe_default(name: str) -> str:
    """Show an option's default, and where the paper's recipe has another one."""
    base = next(field.default for field in fields(TrainConfig) if field.name == name)
    paper = RECIPES["paper"].get(name, base)
    return f"{base}" if paper == base else f"{base}; {paper} for paper"


_FILES, _OUTPUT, _NET, _TALK = "Files", "Results", "Network", "Messages"
"""Panels of the help."""

# What more than one command asks for.
_Tile = Annotated[
    str,
    typer.Option(
        "--tile",
        "-t",
        help="Patch size in output pixels, a multiple of the net's stride; auto is 120, "
        "neighbouring patches fused.",
        metavar="N|auto",
        rich_help_panel=_NET,
    ),
]
_Overlap = Annotated[
    str,
    typer.Option(
        help="Context around a patch in output pixels; auto keeps seams within one level of 255.",
        metavar="N|auto",
        rich_help_panel=_NET,
    ),
]
_Via = Annotated[
    float | None,
    typer.Option(
        help="Use this one of the net's trained factors and reduce what is too large: -s 2 --via 3 "
        "is better than -s 2, for twice the work.",
        show_default="what leads there with the least work",
        rich_help_panel=_NET,
    ),
]
_BatchSize = Annotated[
    str,
    typer.Option(help="Patches per forward pass.", metavar="N|auto", rich_help_panel=_NET),
]
_Device = Annotated[
    str,
    typer.Option(
        help="auto is CUDA if there is any; cuda is all GPUs of the machine.",
        metavar="auto|cpu|cuda[:N]",
        autocompletion=_complete("auto", "cpu", "cuda"),
        rich_help_panel=_NET,
    ),
]
_DType = Annotated[
    str,
    typer.Option(
        help="auto is bf16 where the hardware computes in it, else fp32.",
        metavar="auto|fp32|bf16|fp16",
        autocompletion=_complete("auto", "fp32", "bf16", "fp16"),
        rich_help_panel=_NET,
    ),
]
_DataDir = Annotated[
    Path | None,
    typer.Option(
        help="Where celeba and stl10 lie: their own folder or the one above.", show_default="data"
    ),
]
_Download = Annotated[
    bool, typer.Option("--download", help="Fetch celeba and stl10 into --data-dir first.")
]
_DegradationOption = Annotated[
    str | None,
    typer.Option(
        help="How LR is made of HR: bicubic, or ranges such as blur=0.2..1.5,noise=0..10,"
        "jpeg=30..95 around it; kernel=bicubic+bilinear+area+lanczos+cubic (or any) draws the "
        "filter that reduces; clean=0.2 spares that share of the samples.",
        show_default="bicubic",
    ),
]
_Threads = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=1024,
        help="CPU threads of the net.",
        metavar="N",
        show_default="every core",
        rich_help_panel=_NET,
    ),
]

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    help="Enlarge real photographs with one residual convolutional autoencoder.",
)


def main() -> None:
    """Run the command line: the console script's entry."""
    _occupy_closed()
    if sys.stderr is None:  # started with it closed, as some daemons do
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - for good
    try:
        app()
    except KeyboardInterrupt:  # before a command has begun
        _say("interrupted")
        sys.exit(130)
    except SystemExit as end:
        if end.code in {130, 143} and _is_reading():
            os._exit(int(end.code))
        raise
    finally:
        # All is done and told: what torch does at the end may be cut short without a word.
        with suppress(ValueError):  # not the main thread
            signal.signal(signal.SIGINT, signal.SIG_DFL)


def _occupy_closed() -> None:
    """Let no picture be opened as what torch or a codec takes for stdout."""
    for number in range(3):
        with suppress(OSError):  # a full table of files is told later
            try:
                os.fstat(number)
            except OSError:
                os.open(os.devnull, os.O_RDWR)


def _is_reading() -> bool:
    """Whether a thread still waits for a file, or for a stdin that does not end.

    Python would wait for it at the end, deaf to Ctrl-C. What it has begun to write is removed.
    """
    alive = any(thread.name.startswith("srcli-files") for thread in threading.enumerate())
    if alive:
        files.abandon()
    return alive


@contextmanager
def _reporting() -> Iterator[None]:
    """Turn a ``SrcliError`` or a signal into one line on stderr and its exit code."""
    try:
        yield
    except KeyboardInterrupt as error:
        _say("interrupted")
        raise typer.Exit(128 + _number_of(error)) from error
    except Interrupted as error:
        _say(str(error))
        raise typer.Exit(128 + error.signal_number) from error
    except SrcliError as error:
        _say(f"error: {error}")
        raise typer.Exit(error.exit_code) from error
    except BrokenPipeError:  # the reader of stdout went away: Typer ends quietly
        raise
    except OSError as error:  # a path that may not be looked at, a full disk
        where = f"{error.filename}: " if error.filename else ""
        _say(f"error: {where}{error.strerror or error}; check the path and its permissions")
        raise typer.Exit(1) from error


def _version(*, value: bool) -> None:
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
            callback=lambda value: _version(value=value),
            is_eager=True,
            help="Print the version.",
        ),
    ] = False,
) -> None:
    """Enlarge real photographs with one residual convolutional autoencoder."""


@app.command(help=_UPSCALE_HELP)
@_reporting()
def upscale(
    inputs: Annotated[
        list[str],
        typer.Argument(
            help="Image files, folders, glob patterns, - for stdin, @LIST for a list of paths.",
            metavar="INPUT",
            show_default=False,
        ),
    ],
    *,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="A file for one file, else a folder (made if missing); - is stdout.",
            show_default="photo_x3.jpg beside photo.jpg, folder photos_x3 beside photos",
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    scale: Annotated[
        float | None,
        typer.Option(
            "--scale",
            "-s",
            help="Any factor from 1 to 16.",
            metavar="F",
            show_default="3",
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            help="Instead of a scale: 1920x, x1080, 1920x1080 (fit inside) or '>=3840x2160' "
            "(cover). What is that large already keeps its size.",
            metavar="SPEC",
            show_default=False,
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            "--model",
            "-m",
            help="Shipped weights by name, or a .safetensors file; auto chooses for each file: "
            "photo for a JPEG of middling quality, base for what is clean.",
            metavar="auto|NAME|FILE",
            autocompletion=_complete_model,
            rich_help_panel=_NET,
        ),
    ] = "auto",
    recursive: Annotated[
        bool,
        typer.Option(
            "--recursive",
            "-r",
            help="Search folders to the bottom; keep the tree.",
            rich_help_panel=_FILES,
        ),
    ] = False,
    include: Annotated[
        list[str] | None,
        typer.Option(
            help="Of folders and patterns only such files ('*.jpg', '2019/**'); repeat for more.",
            rich_help_panel=_FILES,
            show_default=False,
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            help="Of folders and patterns no such files or folders; repeat for more.",
            rich_help_panel=_FILES,
            show_default=False,
        ),
    ] = None,
    skip_existing: Annotated[
        bool,
        typer.Option(
            "--skip-existing", help="Leave outputs that are there.", rich_help_panel=_FILES
        ),
    ] = False,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace outputs that are there.", rich_help_panel=_FILES),
    ] = False,
    fail_fast: Annotated[
        bool,
        typer.Option("--fail-fast", help="Stop at the first failure.", rich_help_panel=_FILES),
    ] = False,
    failed_list: Annotated[
        Path | None,
        typer.Option(
            help="Write the inputs that failed to this file, to be given back as @FILE; empty if "
            "none did.",
            metavar="FILE",
            rich_help_panel=_FILES,
            show_default=False,
        ),
    ] = None,
    max_pixels: Annotated[
        int | None,
        typer.Option(
            help="Refuse inputs of more pixels than this as decompression bombs.",
            show_default="178956970",
            rich_help_panel=_FILES,
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            "-n",
            help="Say what would be done: sizes, patches, memory, time. Nothing is written.",
            rich_help_panel=_FILES,
        ),
    ] = False,
    file_format: Annotated[
        str,
        typer.Option(
            "--format",
            "-f",
            help="auto is the input's; png, jpg, webp, avif, tiff, gif, bmp, ppm.",
            metavar="NAME",
            autocompletion=_complete("auto", "png", "jpg", "webp", "avif", "tiff", "gif", "bmp"),
            rich_help_panel=_OUTPUT,
        ),
    ] = "auto",
    quality: Annotated[
        int,
        typer.Option(
            help="JPEG, WebP and AVIF quality; JPEG is written as 4:4:4.", rich_help_panel=_OUTPUT
        ),
    ] = 95,
    lossless: Annotated[
        bool,
        typer.Option(
            "--lossless", help="Lossless WebP; AVIF at its best.", rich_help_panel=_OUTPUT
        ),
    ] = False,
    metadata: Annotated[
        str,
        typer.Option(
            help="EXIF, XMP, ICC profile, resolution and texts; stripped, the colours are "
            "converted to sRGB.",
            metavar="keep|strip",
            autocompletion=_complete("keep", "strip"),
            rich_help_panel=_OUTPUT,
        ),
    ] = "keep",
    suffix: Annotated[
        str | None,
        typer.Option(
            help="Added to the name; {scale} is the factor.",
            show_default="_x{scale} beside the input, none in a folder",
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    tta: Annotated[
        bool,
        typer.Option(
            "--tta",
            "-x",
            help="Average over the eight ways to turn a patch: a bit better, eight times slower; "
            "symmetric weights do without.",
            rich_help_panel=_NET,
        ),
    ] = False,
    via: _Via = None,
    tile: _Tile = "auto",
    overlap: _Overlap = "auto",
    batch_size: _BatchSize = "auto",
    device: _Device = "auto",
    dtype: _DType = "auto",
    threads: _Threads = None,
    jobs: Annotated[
        str,
        typer.Option(
            "--jobs",
            "-j",
            help="Threads that read and write files around the net.",
            metavar="N|auto",
            rich_help_panel=_NET,
        ),
    ] = "auto",
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="One JSON object a file on stdout, then one summary.",
            rich_help_panel=_TALK,
        ),
    ] = False,
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose", "-v", help="Say what is computed on what.", rich_help_panel=_TALK
        ),
    ] = False,
    quiet: Annotated[
        bool,
        typer.Option(
            "--quiet",
            "-q",
            help="Only errors: no bar, no line for what is done.",
            rich_help_panel=_TALK,
        ),
    ] = False,
    no_progress: Annotated[
        bool, typer.Option("--no-progress", help="No progress bar.", rich_help_panel=_TALK)
    ] = False,
) -> None:
    """Enlarge images."""
    from srcli import batch, images
    from srcli.planning import STREAM, Selection

    if skip_existing and overwrite:
        raise UsageError("--skip-existing and --overwrite exclude each other")
    if scale is not None and size is not None:
        raise UsageError("--scale and --size exclude each other; give one")
    if as_json and output == STREAM:
        raise UsageError("--json and --output - both want stdout; give one")
    _check_failed_list(failed_list)
    if as_json and sys.stdout is None:
        raise UsageError("--json needs a stdout, and it is closed; give one")
    ending = file_format.lower().removeprefix(".")
    config = batch.BatchConfig(
        selection=Selection(
            inputs=tuple(inputs),
            output=output,
            scale=3.0 if scale is None else scale,
            size=None if size is None else TargetSize.parse(size.strip()),
            suffix=suffix,
            format=None if ending == "auto" else ending,
            recursive=recursive,
            include=tuple(include or ()),
            exclude=tuple(exclude or ()),
            existing="skip" if skip_existing else "overwrite" if overwrite else "error",
        ),
        model=model,
        quality=quality,
        lossless=lossless,
        metadata=_choice("--metadata", metadata, ("keep", "strip")),
        max_pixels=images.MAX_PIXELS if max_pixels is None else max_pixels,
        fail_fast=fail_fast,
        jobs=_whole("--jobs", jobs),
        settings=_settings(tile, overlap, batch_size, device, dtype, via=via, tta=tta),
    )
    _use_threads(threads)
    told = _Told(
        as_json=as_json,
        verbose=verbose,
        quiet=quiet,
        bar=not quiet and not no_progress and sys.stderr.isatty(),
    )
    if dry_run:
        _foretell(config, told)
    else:
        _upscale(config, told, failed_list)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Told:
    """What of a run is told, and how."""

    as_json: bool
    verbose: bool
    quiet: bool
    bar: bool


class _Voice:
    """Tells a person, or a script, how a batch goes on."""

    def __init__(self, config: "BatchConfig", told: _Told, total: int, *, bar: bool) -> None:
        from srcli.batch import Summary

        self._config, self._told, self._total = config, told, total
        self._begun = time.perf_counter()
        self.summary = Summary()
        self.bar = tqdm(
            total=total,
            disable=not bar,
            leave=False,
            bar_format="{desc} {percentage:3.0f}%|{bar}| {elapsed}<{remaining}",
        )

    @property
    def finished(self) -> int:
        """Files of which the end is known."""
        return self.summary.done + self.summary.skipped + self.summary.failed

    def advance(self, job: "Job", share: float) -> None:
        """Move the bar on."""
        if self.bar.disable:
            return
        finished = self.finished
        count = f"{finished + 1}/{self._total} " if self._total > 1 else ""
        self.bar.set_description_str(f"{count}{one_line(job.source.name)}", refresh=False)
        self.bar.n = finished + share
        self.bar.refresh()

    def notice(self, text: str) -> None:
        """Say what is worth knowing."""
        self._tell(text, wanted=not self._told.quiet)

    def introduce(self, name: str, upscaler: "Upscaler") -> None:
        """Say what computes, if that is wanted."""
        dtype = str(upscaler.dtype).removeprefix("torch.")
        text = f"{name} on {upscaler.device} in {dtype}"
        self._tell(text, wanted=self._told.verbose)

    def show(self, result: "Result") -> None:
        """Say what became of a file."""
        failed = result.status == "failed"
        self.summary = self.summary.with_result(result.to_dict(), again=result.job.again)
        line = _result_line(result, verbose=self._told.verbose)
        self._tell(line, wanted=failed or not self._told.quiet)
        if self._told.as_json:
            _print_json(result.to_dict())

    def end(self, summary: "Summary", failed_list: Path | None) -> None:
        """Leave what a script goes by, the summary and the list of failures."""
        from srcli.planning import write_list

        if failed_list is not None and not (summary.unfinished and self._is_input(failed_list)):
            write_list(failed_list, summary.again)
        if self._told.as_json:  # last, as its reader may be gone
            seconds = round(time.perf_counter() - self._begun, 3)
            _print_json(summary.to_dict() | {"seconds": seconds})

    def _is_input(self, failed_list: Path) -> bool:
        """Whether what is to be replaced still names files that this run has not come to."""
        lists = [text[1:] for text in self._config.selection.inputs if text.startswith("@")]
        return any(os.path.realpath(failed_list) == os.path.realpath(path) for path in lists)

    def _tell(self, text: str, *, wanted: bool) -> None:
        if wanted:
            self.bar.clear()
            _say(text)


def _upscale(config: "BatchConfig", told: _Told, failed_list: Path | None) -> None:
    """Do the jobs, tell what became of each, and exit with 1 if one failed."""
    from srcli import batch
    from srcli.sharing import join_crew

    with join_crew() as crew, _terminating() as stopper:
        config = _placed(config, crew)
        jobs = batch.plan(config.selection, crew)
        _check_streams(jobs)
        voice = _Voice(config, told, len(jobs), bar=told.bar and crew.size == 1)
        with voice.bar, _stopping(voice, stopper, len(jobs), failed_list):
            summary, speaks = batch.work(
                config,
                jobs,
                crew,
                on_result=stopper.holding(voice.show),
                on_ready=voice.introduce,
                on_progress=stopper.checking(voice.advance),
                notice=voice.notice,
            )
        if speaks:
            voice.end(summary, failed_list)
            if len(jobs) > 1 and not told.quiet:
                _say(_summary_line(summary))
    if summary.exit_code:
        raise typer.Exit(summary.exit_code)


@contextmanager
def _stopping(
    voice: _Voice, stopper: "_Stopper", total: int, failed_list: Path | None
) -> Iterator[None]:
    """Let a signal end the run with what is known so far."""
    try:
        yield
    except (KeyboardInterrupt, Exception) as stop:
        if not (isinstance(stop, KeyboardInterrupt) or stopper.received):
            raise
        number, left = (*stopper.received, signal.SIGINT)[0], total - voice.finished
        voice.bar.close()
        try:
            voice.end(replace(voice.summary, unfinished=left, exit_code=128 + number), failed_list)
        except BrokenPipeError:  # Ctrl-C has ended the reader of stdout as well
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise Interrupted(
            f"interrupted: {_counted(voice.summary)}, {left} not begun or unfinished; the same "
            "command with --skip-existing goes on",
            number,
        ) from None


def _number_of(stop: KeyboardInterrupt) -> int:
    """Tell which signal it was: Python's own is SIGINT, that of _terminating says so."""
    return int(stop.args[0]) if stop.args else int(signal.SIGINT)


def _check_failed_list(path: Path | None) -> None:
    """Refuse what would only fail after the night, or cost a photo.

    ``--failed-list *.jpg`` without a name before it would replace the first of them.
    """
    if path is None:
        return
    if is_folder(path) or not os.access(path.parent, os.W_OK):
        problem = "it is a folder" if is_folder(path) else f"{path.parent} is no writable folder"
        raise OutputError(f"cannot write {path}: {problem}; give another --failed-list")
    if path.suffix.lower() in READABLE_SUFFIXES:
        raise UsageError(f"--failed-list {path} is named like an image; give a name such as a.txt")


def _check_streams(jobs: "list[Job]") -> None:
    """Refuse to pour a picture into a terminal, or to read or write where nothing is open."""
    from srcli.planning import STREAM

    if any(job.source == STREAM for job in jobs) and sys.stdin is None:
        raise UsageError("- reads stdin, and it is closed; give a file")
    if any(job.target == STREAM for job in jobs):
        if sys.stdout is None:
            raise UsageError("stdout is closed; redirect it or give --output")
        if sys.stdout.isatty():
            raise UsageError("stdout is a terminal; redirect it or give --output")


def _placed(config: "BatchConfig", crew: "Crew") -> "BatchConfig":
    """Give each process of a machine a GPU of its own, as long as there are some."""
    if crew.size == 1 or config.settings.device not in {"auto", "cuda"}:
        return config
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not count:
        return config
    device = f"cuda:{crew.local_rank % count}"
    return replace(config, settings=replace(config.settings, device=device))


def _print_json(values: dict[str, Any]) -> None:
    try:
        sys.stdout.write(json.dumps(values, allow_nan=False) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has seen enough
        raise
    except OSError as error:
        raise OutputError(
            f"cannot write to stdout: {reason(error)}; choose another file"
        ) from error


def _result_line(result: "Result", *, verbose: bool) -> str:
    if result.status == "failed":
        return f"error: {result.message}"
    if result.status == "skipped":
        return f"skipped: {result.message}"
    assert result.before is not None
    assert result.after is not None
    line = f"{result.job.target}  {result.after[0]}x{result.after[1]}"
    if result.pictures > 1:
        line += f"  {result.pictures} pictures"
    if verbose:
        megapixels = result.pictures * result.after[0] * result.after[1] / 1e6
        line += (
            f"  from {result.job.source} {result.before[0]}x{result.before[1]} in "
            f"{result.seconds:.2f} s ({result.seconds / megapixels:.2f} s/MP){_why(result)}"
        )
    return line


def _counted(summary: "Summary") -> str:
    return f"{summary.done} done, {summary.skipped} skipped, {summary.failed} failed"


_NAMED_FAILURES = 10
"""Failures that the summary names; each has had its line, and --failed-list has them all."""


def _summary_line(summary: "Summary") -> str:
    """Say how many files came to what, and which ones failed."""
    text = _counted(summary)
    if summary.unfinished:
        text += f", {summary.unfinished} not begun"
    if summary.failures:
        text += f": {', '.join(summary.failures[:_NAMED_FAILURES])}"
        more = len(summary.failures) - _NAMED_FAILURES
        text += f" and {more} more" if more > 0 else ""
    return text


def _foretell(config: "BatchConfig", told: _Told) -> None:
    """Say what would be done with each file, and exit with 1 if one is known to fail."""
    from srcli import batch, planning
    from srcli.distributed import place

    if place()[0]:  # of several processes one speaks: there is nothing to share
        return
    jobs = planning.plan(config.selection)
    found = []
    for one in batch.forecast(config, jobs, notice=_say):
        found.append(one)
        if told.as_json:
            _print_json(one.to_dict())
        elif one.status == "failed" or not told.quiet:
            _say(_forecast_line(one, verbose=told.verbose))
    planned = [one for one in found if one.status == "planned"]
    failed = [one for one in found if one.status == "failed"]
    totals = {
        "summary": True,
        "planned": len(planned),
        "skipped": len(found) - len(planned) - len(failed),
        "failed": len(failed),
        "megapixels": round(sum(_pixels(one) for one in planned) / 1e6, 3),
        "patches": sum(one.patches for one in planned),
        "memory": max((one.memory for one in planned), default=0),
        "seconds": round(sum(one.seconds for one in planned), 3),
        "exit_code": 1 if failed else 0,
    }
    if told.as_json:
        _print_json(totals)
    elif not told.quiet:
        _say(
            f"{totals['planned']} to do, {totals['skipped']} skipped, {totals['failed']} failing: "
            f"{totals['megapixels']:g} megapixels, {totals['patches']} patches, "
            f"about {totals['memory'] / 1e9:.1f} GB of memory and {_duration(totals['seconds'])}"
        )
    if failed:
        raise typer.Exit(1)


def _pixels(one: "Forecast") -> int:
    assert one.after is not None
    return one.pictures * one.after[0] * one.after[1]


def _forecast_line(one: "Forecast", *, verbose: bool) -> str:
    if one.status != "planned":
        return f"{'error' if one.status == 'failed' else 'skipped'}: {one.message}"
    assert one.before is not None
    assert one.after is not None
    pictures = f"  {one.pictures} pictures" if one.pictures > 1 else ""
    return (
        f"{one.job.source} {one.before[0]}x{one.before[1]} -> {one.job.target} "
        f"{one.after[0]}x{one.after[1]}{pictures}  {one.patches} patches, "
        f"about {one.memory / 1e9:.1f} GB, {_duration(one.seconds)}{_why(one) if verbose else ''}"
    )


def _why(one: "Result | Forecast") -> str:
    """Say which weights were chosen for a file, where they were not given."""
    return "" if one.model_reason is None else f"  ({one.model_reason})"


@app.command("eval", help=_EVAL_HELP)
@_reporting()
def evaluate(
    dataset: Annotated[
        str | None,
        typer.Argument(
            help="Folder of HR images, or a set with the folders HR and LRx2, LRx3, ...; or "
            "celeba (its test partition) or stl10, either with :part.",
            metavar="DATASET|HR_DIR",
            show_default=False,
        ),
    ] = None,
    *,
    dataset_option: Annotated[
        str | None,
        typer.Option("--dataset", help="The same, as srcli train has it.", show_default=False),
    ] = None,
    data_dir: _DataDir = None,
    download: _Download = False,
    lr: Annotated[
        Path | None,
        typer.Option(
            help="Folder of LR images.", show_default="the set's own, else made by bicubic"
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            help="Shipped weights by name, or a .safetensors file; repeat to compare.",
            metavar="NAME|FILE",
            autocompletion=_complete_weights,
            show_default="base",
        ),
    ] = None,
    baseline: Annotated[
        list[str] | None,
        typer.Option(
            help="Filter to measure the weights beside: bicubic, lanczos, bilinear, nearest or "
            "none; repeat for more.",
            metavar="NAME",
            autocompletion=_complete("bicubic", "lanczos", "bilinear", "nearest", "none"),
            show_default="bicubic",
        ),
    ] = None,
    scale: Annotated[float, typer.Option("--scale", "-s", help="HR pixels per LR pixel.")] = 3.0,
    degradation: _DegradationOption = None,
    seed: Annotated[int, typer.Option(help="Seed of the degradation.")] = 0,
    channel: Annotated[str, typer.Option(help="y (luma, as the literature) or rgb.")] = "y",
    crop_border: Annotated[
        int | None, typer.Option(help="Border pixels cut.", show_default="the scale")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Score at most so many images.")] = None,
    panels: Annotated[
        Path | None,
        typer.Option(
            help="For each image write a picture into this folder (made if missing): the detail "
            "where the first baseline is furthest off, as LR, each method and HR show it.",
            metavar="DIR",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Write the scores to this file: as CSV if it is called .csv, else as JSON.",
            metavar="FILE",
            show_default=False,
        ),
    ] = None,
    min_psnr: Annotated[
        float | None,
        typer.Option(help="Exit with 6 if a model's mean PSNR is below, in dB."),
    ] = None,
    via: _Via = None,
    tile: _Tile = "auto",
    overlap: _Overlap = "auto",
    batch_size: _BatchSize = "auto",
    device: _Device = "auto",
    dtype: _DType = "auto",
    threads: _Threads = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the scores as one JSON object.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")] = False,
) -> None:
    """Score weights on a data set."""
    from srcli.evaluation import EvalConfig
    from srcli.evaluation import evaluate as run

    if min_psnr is not None and math.isnan(min_psnr):
        raise UsageError("--min-psnr must be a number of dB, not nan")
    if output is not None and not is_folder(output.parent):
        raise OutputError(f"cannot write {output}: {output.parent} is no folder; make it first")
    if output is not None and is_folder(output):
        raise OutputError(f"cannot write {output}: it is a folder; give the name of a file")
    if (dataset is None) == (dataset_option is None):
        raise UsageError("give one data set to score: celeba, stl10 or a folder of HR images")
    config = EvalConfig(
        dataset=dataset or dataset_option or "",
        data_dir=data_dir or Path("data"),
        degradation=Degradation.parse(degradation or "bicubic"),
        seed=seed,
        lr=lr,
        models=tuple(dict.fromkeys(model or ("base",))),
        baselines=_baselines(baseline),
        panels=panels,
        scale=scale,
        channel=_choice("--channel", channel, ("y", "rgb")),
        crop_border=crop_border,
        limit=limit,
        settings=_settings(tile, overlap, batch_size, device, dtype, via=via),
    )
    _use_threads(threads)
    if download:
        _fetch((str(config.dataset),), config.data_dir, quiet=quiet)
    with tqdm(disable=quiet or not sys.stderr.isatty(), unit="image", leave=False) as bar:

        def advance(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        def tell(text: str) -> None:
            bar.clear()
            _say(f"warning: {text}")

        report = run(config, advance, tell)
    text = json.dumps(report.to_dict(), indent=2, allow_nan=False)
    if as_json:
        typer.echo(text)
    else:
        _print_scores(report)
    if output is not None:
        is_csv = output.suffix.lower() == ".csv"
        _write_text(output, report.to_csv() if is_csv else text + "\n")
    _check_gate(report, min_psnr)


def _baselines(given: list[str] | None) -> tuple[str, ...]:
    """Settle the filters: bicubic unless told, each once, and none by its name alone."""
    names = tuple(dict.fromkeys(given or ("bicubic",)))
    if names == ("none",):
        return ()
    if "none" in names:
        raise UsageError(
            f"--baseline none goes with no other, not with {', '.join(names)}; leave one out"
        )
    return names


def _print_scores(report: "EvalReport") -> None:
    table = Table(
        title=escape(one_line(report.dataset)),
        caption=escape(report.protocol),
        caption_justify="left",
    )
    table.add_column("image", overflow="fold")
    for label in report.labels.values():
        table.add_column(escape(one_line(label)), justify="right", overflow="fold")
    rows: dict[str, list[str]] = {}
    for score in report.scores:
        values = score.psnr, score.ssim, score.accuracy
        rows.setdefault(score.image, []).append(_cell(*values, accuracy=report.has_accuracy))
    if len(rows) <= _MOST_ROWS:
        for image, cells in rows.items():
            table.add_row(escape(one_line(image)), *cells)
        table.add_section()
    means = (
        _cell(*report.mean(method), report.accuracy(method), accuracy=report.has_accuracy)
        for method in report.methods
    )
    label = "mean" if len(rows) <= _MOST_ROWS else f"mean of {len(rows)}"
    table.add_row(label, *means, style="bold")
    # A file or a pipe has no width that numbers would have to be cut to.
    Console(width=None if sys.stdout.isatty() else _NO_WIDTH).print(table)


def _cell(psnr: float, ssim: float, share: float, *, accuracy: bool) -> str:
    return f"{psnr:.2f} / {ssim:.4f}" + (f" / {share:.2%}" if accuracy else "")


def _check_gate(report: "EvalReport", least: float | None) -> None:
    for method in report.models:
        score = report.mean(method)[0]
        if least is not None and score < least:
            raise GateError(f"{method} has {score:.2f} dB, --min-psnr asks for {least:g}")


@app.command()
@_reporting()
def models(
    model: Annotated[
        str | None,
        typer.Argument(
            help="Shipped weights by name, or a .safetensors file: that alone, with the whole "
            "record of its training.",
            metavar="NAME|FILE",
            autocompletion=_complete_weights,
            show_default="all that are shipped",
        ),
    ] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print them as one JSON array.")] = False,
) -> None:
    """List the shipped weights: what each is and scores, from its own header."""
    from srcli.weights import resolve

    chosen = files.shipped() if model is None else {Path(model).name: resolve(model)}
    rows, faults = _described(chosen)
    if model is not None and faults:
        raise faults[0]
    if as_json:
        typer.echo(json.dumps(_without_nan(rows), indent=2, allow_nan=False))
    else:
        # A file or a pipe has no width that numbers would have to be cut to.
        console = Console(width=None if sys.stdout.isatty() else _NO_WIDTH)
        for table in _model_tables(rows, record=model is not None):
            console.print(table)
    for fault in faults:
        _say(f"error: {fault}")
    if faults:
        raise typer.Exit(faults[0].exit_code)


def _described(chosen: dict[str, Path]) -> tuple[list[dict[str, Any]], list[SrcliError]]:
    """Describe weights files by their headers; what cannot be read is told beside."""
    rows: list[dict[str, Any]] = []
    faults: list[SrcliError] = []
    for name, path in chosen.items():
        try:
            rows.append(_model_row(name, path))
        except SrcliError as error:
            faults.append(error)
    return rows, faults


def _model_row(name: str, path: Path) -> dict[str, Any]:
    from srcli.model import multiply_adds, parameter_count
    from srcli.weights import read_header

    header = read_header(path)
    gmac = {
        f"{scale:g}": round(multiply_adds(header.config.at(scale)) / 1e9, 3)
        for scale in header.scales
    }
    return {
        "name": name,
        "parameters": parameter_count(header.config),
        "gmac_per_patch": max(gmac.values()),
        "gmac_by_scale": gmac,
        "scales": sorted(set(header.training.get("scales", []))),
        "degradation": header.training.get("degradation", ""),
        "path": str(path),
        "scores": [asdict(line) for line in header.scores],
        "training": dict(header.training),
    }


def _model_tables(rows: list[dict[str, Any]], *, record: bool) -> Iterator[Table]:
    """Say what weights are, what they score, and, of one file, all of its training record."""
    table = Table()
    for column in ("name", "parameters", "GMAC per patch", "scales", "degradation"):
        left = column in {"name", "degradation"}
        table.add_column(column, justify="left" if left else "right", overflow="fold")
    for row in rows:
        table.add_row(
            escape(one_line(row["name"])),
            f"{row['parameters']:,}",
            " ".join(dict.fromkeys(f"{gmac:.2f}" for gmac in row["gmac_by_scale"].values())),
            " ".join(f"x{scale:g}" for scale in row["scales"]),
            _value(row["degradation"]) if row["degradation"] else "",
        )
    yield table
    if any(row["scores"] for row in rows):
        yield _score_table(rows)
    if record:
        yield from _record_tables({"file": rows[0]["path"], **rows[0]["training"]})


def _score_table(rows: list[dict[str, Any]]) -> Table:
    """A line for each data set and scale, a column for each of the weights."""
    table = Table(title="PSNR in dB / SSIM", title_justify="left")
    for column in ("data set", "scale", "LR", *(row["name"] for row in rows)):
        left = column in {"data set", "LR"}
        justify: Literal["left", "right"] = "left" if left else "right"
        table.add_column(escape(one_line(column)), justify=justify, overflow="fold")
    cells: dict[tuple[str, float, str, str], list[str]] = {}
    for index, row in enumerate(rows):
        for line in row["scores"]:
            key = line["dataset"], line["scale"], line["lr"], line["channel"]
            found = cells.setdefault(key, [""] * len(rows))
            found[index] = _cell(line["psnr"], line["ssim"], 0, accuracy=False)
    for (dataset, scale, lr, channel), found in cells.items():
        name = dataset if channel == "y" else f"{dataset} (RGB)"
        table.add_row(escape(one_line(name)), f"x{scale:g}", _value(lr), *found)
    return table


def _record_tables(record: dict[str, Any], title: str = "training") -> Iterator[Table]:
    """Everything that a file's header says of its making, and of the weights it began with."""
    table = Table(title=title, title_justify="left", show_header=False)
    table.add_column()
    table.add_column(overflow="fold")
    origin = record.get("origin")
    for name, value in record.items():
        if name != "origin" or not isinstance(origin, dict):
            table.add_row(escape(one_line(name.replace("_", " "))), _value(value))
    yield table
    if isinstance(origin, dict):
        yield from _record_tables(origin, "before that")


def _value(value: object) -> str:
    """Show a value of a header's JSON: numbers in groups, lists without brackets."""
    match value:
        case None | "":
            text = "none"
        case bool():
            text = "yes" if value else "no"
        case int():
            text = f"{value:,}"
        case list():
            return ", ".join(_value(item) for item in value)
        case str():
            # A degradation's parts can then stand in several lines.
            text = re.sub(r",(?=[a-z]+=)", ", ", value)
        case _:
            text = json.dumps(value)
    return escape(one_line(text))


def _without_nan(value: Any) -> Any:  # noqa: ANN401 - any JSON
    """Put null where a header has a number that JSON knows no word for."""
    match value:
        case dict():
            return {name: _without_nan(item) for name, item in value.items()}
        case list():
            return [_without_nan(item) for item in value]
        case float() if not math.isfinite(value):
            return None
        case _:
            return value


@app.command(help=_TRAIN_HELP)
@_reporting()
def train(
    *,
    dataset: Annotated[
        list[str] | None,
        typer.Option(
            help="celeba, stl10, either with :part (celeba:train,valid; stl10:test), or a folder "
            "of HR images, read recursively; repeat for a union.",
            metavar="NAME|DIR",
            show_default=False,
        ),
    ] = None,
    data_dir: _DataDir = None,
    download: _Download = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Run directory; made if missing.", show_default="runs/RECIPE"
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="Where the defaults below come from: base, photo (base on degraded images), or "
            "paper (the source paper's).",
            show_default="paper if every data set has a name, else base",
        ),
    ] = None,
    config: Annotated[
        str | None,
        typer.Option(help="Shape of the net: base, paper, or a JSON file.", show_default="recipe"),
    ] = None,
    join: Annotated[
        str | None,
        typer.Option(
            help="Where skips join: before, first or last unit of a decoder level.",
            show_default="the configuration's",
        ),
    ] = None,
    scale: Annotated[
        list[float] | None,
        typer.Option(
            help="Scale factor to train for; repeat for more, or to weigh one.",
            show_default="2, 3, 3, 4; 3 for paper",
        ),
    ] = None,
    degradation: _DegradationOption = None,
    steps: Annotated[int | None, typer.Option(help="Length of the run in steps.")] = None,
    epochs: Annotated[
        float | None,
        typer.Option(
            help="Length of the run in epochs: one patch of every image.",
            show_default="10 for paper",
        ),
    ] = None,
    max_time: Annotated[
        str | None,
        typer.Option(
            help="Stop after this long (90m, 1.5h, 600s). Without --steps and --epochs the "
            "learning rate is scheduled over it."
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            help="Patches per step and process.", show_default=_recipe_default("batch_size")
        ),
    ] = None,
    optimizer: Annotated[
        str | None,
        typer.Option(
            help="muon (for the inner convolutions, Adam for the rest) or adam.",
            show_default=_recipe_default("optimizer"),
        ),
    ] = None,
    lr: Annotated[
        float | None,
        typer.Option(
            help="Adam's peak learning rate; Muon's is twice that.",
            show_default=_recipe_default("lr"),
        ),
    ] = None,
    weight_decay: Annotated[
        float | None,
        typer.Option(
            help="Share of Muon's weights that a step takes away, per unit of its rate.",
            show_default=_recipe_default("weight_decay"),
        ),
    ] = None,
    warmup: Annotated[
        int | None,
        typer.Option(help="Steps in which it rises.", show_default=_recipe_default("warmup")),
    ] = None,
    schedule: Annotated[
        str | None,
        typer.Option(
            help="How it goes on: cosine (to zero), trapezoid or constant.",
            show_default=_recipe_default("schedule"),
        ),
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option(help="l1, mse, charbonnier or fourier.", show_default=_recipe_default("loss")),
    ] = None,
    clip: Annotated[
        float | None,
        typer.Option(
            help="Largest gradient norm; 0 for no bound.", show_default=_recipe_default("clip")
        ),
    ] = None,
    ema: Annotated[
        float | None,
        typer.Option(
            help="Decay of the weights' moving average; 0 for none.",
            show_default=_recipe_default("ema"),
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of the weights and of every draw.", show_default="0")
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="held-out: one image in fifty for evaluation. paper: 4,000 test, 86,799 "
            "training, 211,800 evaluation, or the same shares.",
            show_default=_recipe_default("split"),
        ),
    ] = None,
    augment: Annotated[
        str | None,
        typer.Option(
            help="Flips and quarter turns of patches: turn (all eight), mirror (left and right "
            "alone, for what stands upright, as faces) or none.",
            show_default=_recipe_default("augment"),
        ),
    ] = None,
    candidates: Annotated[
        int | None,
        typer.Option(
            help="Patches drawn for each one that is kept: the one with the most detail.",
            show_default=_recipe_default("candidates"),
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Use at most so many images.")] = None,
    init_from: Annotated[
        str | None,
        typer.Option(
            help="Weights to start from, a name or a file; the net has their shape, or grows to "
            "--config's."
        ),
    ] = None,
    teacher: Annotated[
        list[str] | None,
        typer.Option(
            help="Weights, a name or a file, whose output is a goal beside HR; several take turns."
        ),
    ] = None,
    teacher_share: Annotated[
        float | None,
        typer.Option(
            help="Share of the loss that is towards the teachers' output, at most 1.",
            show_default=_recipe_default("teacher_share"),
        ),
    ] = None,
    teacher_scale: Annotated[
        float | None,
        typer.Option(
            help="Factor by which they enlarge LR of smaller ones; the result is reduced.",
            show_default="each by its own",
        ),
    ] = None,
    mean_with: Annotated[
        list[str] | None,
        typer.Option(
            help="Weights, a name or a file, whose mean with the run's own is what it leaves at "
            "its end; repeat for more."
        ),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            help="Continue the run in this directory, with its own options.", metavar="RUN_DIR"
        ),
    ] = None,
    eval_images: Annotated[
        int | None,
        typer.Option(help="Evaluate on at most so many images.", show_default="64; all for paper"),
    ] = None,
    eval_every: Annotated[
        int | None,
        typer.Option(help="Steps between evaluations.", show_default="500; an epoch for paper"),
    ] = None,
    save_every: Annotated[
        int | None,
        typer.Option(help="Steps between checkpoints.", show_default=_recipe_default("save_every")),
    ] = None,
    keep_last: Annotated[
        int | None,
        typer.Option(help="Checkpoints that are kept.", show_default=_recipe_default("keep_last")),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(help="Threads that decode images.", show_default="one for each core"),
    ] = None,
    compile_: Annotated[
        bool,
        typer.Option("--compile", help="Compile the net by torch.compile first."),
    ] = False,
    device: Annotated[
        str | None, typer.Option(help="auto, cpu, cuda or cuda:N.", show_default="auto")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="auto, fp32 or bf16.", show_default="auto")
    ] = None,
    threads: _Threads = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            "-n",
            help="Print what would be done and how long it would take; write nothing.",
        ),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the report as one JSON object.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="A line for each evaluation.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No bar, no summary.")] = False,
) -> None:
    """Train a net, or continue a run."""
    from srcli import training
    from srcli.weights import resolve

    _use_threads(threads)
    given = _given(
        {
            "datasets": tuple(dataset) if dataset else None,
            "data_dir": data_dir and data_dir.absolute(),
            "output": output,
            "recipe": _choice("--recipe", recipe, tuple(RECIPES)),
            "model": _model_config(config),
            "join": _choice("--join", join, JOINS),
            "scales": tuple(scale) if scale else None,
            "degradation": None if degradation is None else Degradation.parse(degradation),
            "steps": steps,
            "epochs": epochs,
            "max_seconds": None if max_time is None else _seconds(max_time),
            "batch_size": batch_size,
            "optimizer": _choice("--optimizer", optimizer, OPTIMIZERS),
            "lr": lr,
            "warmup": warmup,
            "weight_decay": weight_decay,
            "schedule": _choice("--schedule", schedule, SCHEDULES),
            "loss": _choice("--loss", loss, LOSSES),
            "clip": clip,
            "ema": ema,
            "seed": seed,
            "split": _choice("--split", split, SPLITS),
            "augment": _choice("--augment", augment, AUGMENTATIONS),
            "candidates": candidates,
            "limit": limit,
            "init_from": None if init_from is None else resolve(init_from).absolute(),
            "teachers": _weights_files(teacher),
            "teacher_share": teacher_share,
            "teacher_scale": teacher_scale,
            "mean_with": _weights_files(mean_with),
            "eval_images": eval_images,
            "eval_every": eval_every,
            "save_every": save_every,
            "keep_last": keep_last,
            "workers": workers,
            "compile": compile_ or None,
            "device": device,
            "dtype": dtype,
        }
    )
    settings = _settled(resume, given)
    if download:
        _fetch(settings.datasets, settings.data_dir, quiet=quiet)
    leads = os.environ.get("RANK", "0") == "0"
    if dry_run:
        plan = training.dry_run(
            settings,
            resume=resume is not None,
            on_message=lambda line: _say(f"warning: {line}"),
        )
        if leads:
            typer.echo(json.dumps(asdict(plan), indent=2) if as_json else _plan_lines(plan))
        return
    shown = leads and not quiet and sys.stderr.isatty()
    with (
        _training_bar(shown=shown, verbose=verbose and leads) as (show, tell),
        _signals() as received,
    ):
        report = training.train(
            settings,
            resume=resume is not None,
            on_progress=show,
            on_message=lambda line: tell(f"warning: {line}"),
            should_stop=lambda: bool(received),
        )
    if as_json and leads:
        typer.echo(json.dumps(asdict(report), indent=2, allow_nan=False))
    if received or report.stopped:
        # Of several processes only another one may have had the signal.
        number = received[0] if received else int(signal.SIGTERM)
        if not leads:
            raise typer.Exit(128 + number)
        raise Interrupted(
            f"interrupted at step {report.step}; continue with: "
            f"srcli train --resume {settings.output}",
            number,
        )
    if not quiet and leads:
        _say(_training_summary(report))


def _weights_files(names: list[str] | None) -> tuple[Path, ...] | None:
    """Find the files of weights; None where no option was given."""
    from srcli.weights import resolve

    return tuple(resolve(name).absolute() for name in names) if names else None


def _given(options: dict[str, Any]) -> dict[str, Any]:
    """Keep the options that were given."""
    return {name: value for name, value in options.items() if value is not None}


def _settled(resume: Path | None, given: dict[str, Any]) -> TrainConfig:
    """Settle a new run's options by its recipe, or a resumed run's by its own."""
    from srcli.runs import load_options
    from srcli.sources import DATASETS, absolute, parse
    from srcli.weights import read_header

    if resume is not None:
        if "datasets" in given:
            given["datasets"] = tuple(map(absolute, given["datasets"]))
        return _unchanged(load_options(resume), resume, {"output": resume, **given})
    names = [parse(name)[0] for name in given.get("datasets", ())]
    known = bool(names) and all(name in DATASETS for name in names)
    recipe = given.get("recipe", "paper" if known else "base")
    defaults = {"datasets": (), "output": Path("runs") / recipe, **RECIPES[recipe]}
    if "init_from" in given and "model" not in given:
        own = read_header(given["init_from"]).config
        # Weights without paths are given them.
        if own != defaults.get("model", BASE).at(None):
            given["model"] = own
    if "steps" in given:
        defaults.pop("epochs", None)
    join = given.pop("join", None)
    config = TrainConfig(**{**defaults, **given, "recipe": recipe})
    return config if join is None else replace(config, model=replace(config.model, join=join))


def _unchanged(config: TrainConfig, resume: Path, given: dict[str, Any]) -> TrainConfig:
    """Let a resumed run have otherwise what does not change it, and refuse the rest."""
    if given["output"].absolute() != resume.absolute():
        raise UsageError(
            f"--output {given['output']} is not the run directory {resume}: give --resume without "
            "it; the directory may be moved before"
        )
    for name, value in given.items():
        before = config.model.join if name == "join" else getattr(config, name)
        if name in LENGTHS and value != before and _may_be(value, config, resume, name):
            continue
        if name not in CHANGEABLE and value != before:
            option = _OPTION_OF.get(name, f"--{name.replace('_', '-')}")
            raise UsageError(
                f"{option} would change the run in {resume}, which was begun with "
                f"{_shown(before)}: give --resume without it, or start another run"
            )
    kept = (CHANGEABLE | LENGTHS) & given.keys()
    return replace(config, **{name: given[name] for name in kept})


def _may_be(length: float, config: TrainConfig, resume: Path, name: str) -> bool:
    """Whether a run may take so long instead of what it was begun with.

    It may where that changes nothing of what is done: up to now its learning rate does not depend
    on its end, on neither of them.
    """
    from srcli.runs import RunDirectory

    before = getattr(config, name)
    if before is None or config.schedule not in PLATEAU:
        return False
    run = RunDirectory(resume)
    progress, _ = run.load(lambda _: None)
    rows = run.rows()
    reached = {
        "steps": progress["step"],
        "max_seconds": progress["seconds"],
        "epochs": progress["step"] * rows[-1].epoch / rows[-1].step if rows else 0.0,
    }[name]
    return bool(reached / min(before, length) <= PLATEAU[config.schedule])


_OPTION_OF = {
    "datasets": "--dataset",
    "model": "--config",
    "scales": "--scale",
    "max_seconds": "--max-time",
    "teachers": "--teacher",
}
"""How the fields are called whose option has another name."""


def _shown(value: object) -> str:
    match value:
        case None | ():
            return "no such option"
        case tuple():
            return ", ".join(str(item) for item in value)
        case ModelConfig():
            names = [name for name, known in CONFIGS.items() if known == value]
            return names[0] if names else "another net"
        case _:
            return str(value)


def _fetch(datasets: tuple[str, ...], data_dir: Path, *, quiet: bool) -> None:
    """Download the data sets that have a name; of several processes one of a machine does."""
    from srcli import downloads
    from srcli.sources import DATASETS, parse

    if os.environ.get("LOCAL_RANK", "0") != "0":
        return
    for name in dict.fromkeys(parse(text)[0] for text in datasets):
        if name in DATASETS:
            downloads.download(
                name,
                data_dir / name,
                quiet=quiet or not sys.stderr.isatty(),
                notice=lambda line: _say(line) if not quiet else None,
            )


def _plan_lines(plan: "Plan") -> str:
    """Say in a few lines what a run would do."""
    patches = "" if plan.patches is None else f", {plan.patches:,} patches"
    steps = "until the time is over" if plan.steps is None else f"{plan.steps:,} steps{patches}"
    held = f"{plan.evaluation_images:,} of {plan.held_images:,}"
    kept = "kept decoded in memory" if plan.resident else "decoded as they are needed"
    memory = "" if plan.memory is None else f", {plan.memory / 2**30:.2f} GiB in use at most"
    where = f"{plan.dtype} on {plan.device}"
    where += f", {plan.processes} processes" if plan.processes > 1 else ""
    return "\n".join(
        [
            f"images       {plan.train_images:,} for training, {kept}",
            f"             {held} for evaluation, {plan.test_images:,} for test",
            f"net          {plan.parameters:,} parameters, {plan.gmac_per_patch:.2f} GMAC a patch",
            f"length       {steps}; {plan.steps_per_epoch:,} steps of {plan.batch} an epoch",
            f"measured     {plan.patches_per_second:.1f} patches/s in {where}{memory}",
            f"time         {_duration(plan.seconds)}",
        ]
    )


def _duration(seconds: float) -> str:
    minutes = seconds / 60
    return (
        f"{seconds:.{1 if seconds < 10 else 0}f} s"
        if minutes < 2
        else (f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h")
    )


def _training_summary(report: "TrainReport") -> str:
    text = f"{report.weights}: {report.step} steps, {report.patches} patches in "
    text += f"{report.seconds / 60:.1f} min"
    if report.loss is not None:  # a run that was finished before has none
        text += f" ({report.waited:.1%} of it waiting for images), loss {report.loss:.5f}"
    if report.scores is not None:
        text += (
            f", held-out RGB PSNR {report.scores.psnr:.2f} dB "
            f"(bicubic {report.scores.baseline_psnr:.2f})"
        )
    return text


@contextmanager
def _training_bar(*, shown: bool, verbose: bool) -> "Iterator[tuple[Any, Any]]":
    """A bar over a run's share done, if shown; a line for each evaluation, if verbose.

    Yields:
        What takes the run's progress, and what prints a line above the bar.
    """
    with tqdm(
        total=1000,
        disable=not shown,
        bar_format="{l_bar}{bar}| {elapsed}<{remaining} {postfix}",
    ) as bar:
        last = None

        def tell(text: str) -> None:
            bar.clear()
            _say(text)

        def show(progress: "Progress") -> None:
            nonlocal last
            scores = progress.scores
            if verbose and scores is not None and scores is not last:
                tell(
                    f"step {progress.step}, epoch {progress.epoch:.2f}: loss {progress.loss:.5f}, "
                    f"evaluation {scores.loss:.5f}, accuracy {scores.accuracy:.2%}, "
                    f"{scores.psnr:.2f} dB (bicubic {scores.baseline_psnr:.2f})"
                )
            last = scores
            bar.n = int(progress.done * 1000)
            text = "" if scores is None else f", eval {scores.psnr:.2f} dB"
            bar.set_postfix_str(
                f"step {progress.step}, loss {progress.loss:.4f}{text}", refresh=False
            )
            bar.update(0)

        yield show, tell


@contextmanager
def _signals() -> Iterator[list[int]]:
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


def _model_config(name: str | None) -> ModelConfig | None:
    if name is None:
        return None
    if name in CONFIGS:
        return CONFIGS[name]
    path = Path(name)
    if not path.is_file():
        known = ", ".join(sorted(CONFIGS))
        raise UsageError(f"--config {name} is neither a name ({known}) nor a file")
    try:
        return ModelConfig.from_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, UsageError) as error:
        raise UsageError(f"--config {name}: {error}; give base, paper or a JSON file") from error


def _seconds(text: str) -> float:
    """Read ``90m``, ``1.5h``, ``600s`` or ``600``."""
    units = {"s": 1.0, "m": 60.0, "h": 3600.0}
    number, unit = (text[:-1], text[-1]) if text[-1:] in units else (text, "s")
    try:
        return float(number) * units[unit]
    except ValueError:
        raise UsageError(f"--max-time {text!r} is not a time: write 90m, 1.5h or 600s") from None


def _choice(option: str, value: str | None, allowed: tuple[str, ...]) -> Any:  # noqa: ANN401 - one of the literals
    if value is not None and value not in allowed:
        raise UsageError(f"{option} must be one of {', '.join(allowed)}, not {value!r}")
    return value


def _settings(
    tile: str,
    overlap: str,
    batch_size: str,
    device: str,
    dtype: str,
    *,
    via: float | None,
    tta: bool = False,
) -> "Settings":
    from srcli.upscaling import Settings

    return Settings(
        tta=tta,
        via=via,
        device=device,
        dtype=dtype,
        tile=_whole("--tile", tile),
        overlap=_whole("--overlap", overlap),
        batch_size=_whole("--batch-size", batch_size),
    )


def _whole(option: str, text: str) -> int | None:
    """Read a whole number, or ``auto`` as None."""
    if text == "auto":
        return None
    try:
        return int(text)
    except ValueError:
        raise UsageError(f"{option} must be a whole number or auto, not {text!r}") from None


@contextmanager
def _terminating() -> Iterator["_Stopper"]:
    """Let SIGTERM unwind the work as Ctrl-C does, so that nothing half-written stays."""
    stopper = _Stopper()
    caught = [signal.SIGTERM]
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is to be ignored
        caught.append(signal.SIGINT)
    previous = {number: signal.signal(number, stopper) for number in caught}
    try:
        yield stopper
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class _Stopper:
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


def _write_text(path: Path, text: str) -> None:
    try:
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror}; choose another --output"
        ) from error


def _use_threads(count: int | None) -> None:
    if count is not None:
        import torch

        torch.set_num_threads(count)


def _say(text: str) -> None:
    """Print one line on stderr, whole: no wrapping, no markup."""
    try:
        sys.stderr.write(f"{one_line(text)}\n")
        sys.stderr.flush()
    except BrokenPipeError:  # the reader went away, which ends the run as it does for stdout
        raise
    except OSError:  # a log on a full disk, a terminal that is gone: no reason to lose a night
        pass
