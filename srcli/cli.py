"""The command line: the only module that knows a terminal.

Torch is imported inside the command bodies alone, so that ``--help`` answers at once.
"""

import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from tqdm import tqdm

from srcli import __version__
from srcli.config import CONFIGS, ModelConfig
from srcli.errors import Interrupted, SrcliError, UsageError

if TYPE_CHECKING:
    from srcli.training import Progress, TrainReport

__all__ = ["app", "main"]

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    help="Enlarge real photographs with one residual convolutional autoencoder.",
)


def main() -> None:
    """Run the command line: the console script's entry."""
    app()


@contextmanager
def reporting() -> Iterator[None]:
    """Turn a ``SrcliError`` into one line on stderr and its exit code."""
    try:
        yield
    except Interrupted as error:
        _say(str(error))
        raise typer.Exit(128 + error.signal_number) from error
    except SrcliError as error:
        _say(f"error: {error}")
        raise typer.Exit(error.exit_code) from error


def _version(*, value: bool) -> None:
    if value:
        typer.echo(f"srcli {__version__}")
        raise typer.Exit


@app.callback()
def root(
    *,
    _version_flag: Annotated[
        bool,
        typer.Option("--version", callback=lambda value: _version(value=value), is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Enlarge real photographs with one residual convolutional autoencoder."""


@app.command()
@reporting()
def train(
    dataset: Annotated[
        list[Path] | None,
        typer.Option(help="Folder of HR images, read recursively; repeat for more.", metavar="DIR"),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Run directory; made if missing.")
    ] = Path("runs/base"),
    config: Annotated[
        str, typer.Option(help="Shape of the net: base, paper, or a JSON file.")
    ] = "base",
    scale: Annotated[
        list[float] | None,
        typer.Option(help="Scale factor to train for; repeat for more, or to weigh one.  [default: 3]"),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Length of the run in steps.")] = None,
    epochs: Annotated[
        float | None, typer.Option(help="Length of the run in epochs: one patch of every image.")
    ] = None,
    max_time: Annotated[
        str | None,
        typer.Option(
            help="Stop after this long (90m, 1.5h, 600s). Without --steps and --epochs the "
            "learning rate is scheduled over it."
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Patches per step.")] = 16,
    lr: Annotated[float, typer.Option(help="Adam's peak learning rate.")] = 1e-3,
    warmup: Annotated[int, typer.Option(help="Steps in which it rises.")] = 200,
    loss: Annotated[str, typer.Option(help="l1, mse or charbonnier.")] = "l1",
    ema: Annotated[float, typer.Option(help="Decay of the weights' moving average.")] = 0.999,
    seed: Annotated[int, typer.Option(help="Seed of the weights and of every draw.")] = 0,
    limit: Annotated[int | None, typer.Option(help="Use at most so many images.")] = None,
    init_from: Annotated[
        str | None, typer.Option(help="Weights to start from: a name or a file.")
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(help="Continue the run in this directory, with its own options.", metavar="RUN_DIR"),
    ] = None,
    eval_every: Annotated[int, typer.Option(help="Steps between evaluations.")] = 500,
    save_every: Annotated[int, typer.Option(help="Steps between checkpoints.")] = 500,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, fp32, bf16 or fp16.")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads of the net.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No bar, no summary.")] = False,
) -> None:
    """Train a net on a folder of images, or continue a run."""
    from srcli.training import TrainConfig, load_options
    from srcli.training import train as run
    from srcli.weights import resolve

    _use_threads(threads)
    if resume is not None:
        settings = load_options(resume)
    else:
        settings = TrainConfig(
            output=output,
            datasets=tuple(dataset or ()),
            model=_model_config(config),
            scales=tuple(scale or (3.0,)),
            batch_size=batch_size,
            lr=lr,
            warmup=warmup,
            loss=_choice("--loss", loss, ("l1", "mse", "charbonnier")),
            ema=ema,
            steps=steps,
            epochs=epochs,
            max_seconds=_seconds(max_time) if max_time is not None else None,
            seed=seed,
            eval_every=eval_every,
            save_every=save_every,
            init_from=resolve(init_from) if init_from is not None else None,
            limit=limit,
            device=device,
            dtype=dtype,
        )
    with _training_bar(quiet=quiet) as bar, _signals() as received:
        report = run(
            settings,
            resume=resume is not None,
            on_progress=bar,
            on_message=lambda line: _say(f"warning: {line}"),
            should_stop=lambda: bool(received),
        )
    if received:
        raise Interrupted(
            f"interrupted at step {report.step}; continue with: srcli train --resume {settings.output}",
            received[0],
        )
    if not quiet:
        _say(_training_summary(report))


def _training_summary(report: "TrainReport") -> str:
    text = f"{report.weights}: {report.step} steps, {report.patches} patches in "
    text += f"{report.seconds / 60:.1f} min, loss {report.loss:.5f}"
    if report.eval_psnr is not None and report.baseline_psnr is not None:
        text += (
            f", held-out RGB PSNR {report.eval_psnr:.2f} dB (bicubic {report.baseline_psnr:.2f})"
        )
    return text


@contextmanager
def _training_bar(*, quiet: bool) -> "Iterator[Any]":
    """A bar over a run's share done; silent where stderr is no terminal."""
    with tqdm(
        total=1000,
        disable=quiet or not sys.stderr.isatty(),
        bar_format="{l_bar}{bar}| {elapsed}<{remaining} {postfix}",
    ) as bar:

        def show(progress: "Progress") -> None:
            bar.n = int(progress.done * 1000)
            score = "" if progress.eval_psnr is None else f", eval {progress.eval_psnr:.2f} dB"
            bar.set_postfix_str(
                f"step {progress.step}, loss {progress.loss:.4f}{score}", refresh=False
            )
            bar.update(0)

        yield show


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM instead of dying of them; a second one kills as usual."""
    received: list[int] = []
    previous: dict[int, Any] = {}

    def note(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        for caught, handler in previous.items():
            signal.signal(caught, handler)

    for number in (signal.SIGINT, signal.SIGTERM):
        previous[number] = signal.signal(number, note)
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _model_config(name: str) -> ModelConfig:
    if name in CONFIGS:
        return CONFIGS[name]
    path = Path(name)
    if not path.is_file():
        known = ", ".join(sorted(CONFIGS))
        raise UsageError(f"--config {name} is neither a name ({known}) nor a file")
    try:
        return ModelConfig.from_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, UsageError) as error:
        raise UsageError(f"--config {name}: {error}") from error


def _seconds(text: str) -> float:
    """Read ``90m``, ``1.5h``, ``600s`` or ``600``."""
    units = {"s": 1.0, "m": 60.0, "h": 3600.0}
    number, unit = (text[:-1], text[-1]) if text[-1:] in units else (text, "s")
    try:
        return float(number) * units[unit]
    except ValueError:
        raise UsageError(f"--max-time {text!r} is not a time: write 90m, 1.5h or 600s") from None


def _choice(option: str, value: str, allowed: tuple[str, ...]) -> Any:  # noqa: ANN401 - one of the literals
    if value not in allowed:
        raise UsageError(f"{option} must be one of {', '.join(allowed)}, not {value!r}")
    return value


def _use_threads(count: int | None) -> None:
    if count is not None:
        import torch

        torch.set_num_threads(count)


def _say(text: str) -> None:
    """Print one line on stderr, whole: no wrapping, no markup."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
