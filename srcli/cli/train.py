"""``srcli train``: weights out of images."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from tqdm import tqdm

from srcli.cli.console import format_duration, print_report, print_text, say, signals
from srcli.cli.options import (
    DATA,
    DEGRADATION,
    MESSAGES,
    NET,
    DataDir,
    Download,
    Threads,
    complete_dataset,
    complete_weights,
    fetch,
    option,
    use_threads,
)
from srcli.errors import Interrupted, UsageError, require_package
from srcli.ops.degradation import Degradation
from srcli.training.config import settings

if TYPE_CHECKING:
    from srcli.training.config import TrainConfig
    from srcli.training.reports import Progress, Scores, TrainReport

__all__ = ["TRAIN_EPILOG", "TRAIN_HELP", "train"]

RUN, RECIPE = "Run", "Recipe"
"""Panels of the help, beside those that other commands have."""

TRAIN_HELP = (
    "Train a net on CelebA, STL-10 or folders of images, or resume a run.\n\n"
    "[bold]srcli train --dataset celeba --dataset stl10 --download[/]  # the source paper\n\n"
    "[bold]srcli train --dataset photos --max-time 90m[/]  # for factors from 2 to 4\n\n"
    "[bold]srcli train --dataset photos --steps 9000 --recipe photo --set clip=0.1[/]\n\n"
    "[bold]srcli train --resume runs/base[/]  # from its last checkpoint\n\n"
    "[bold]srcli train --recipe runs/base/options.json -o runs/new[/]  # the same run\n\n"
    "[bold]torchrun --nproc-per-node 2 -m srcli train ...[/]  # two processes"
)

TRAIN_EPILOG = (
    "A recipe gives every value a name. --set replaces single values of it, and so do the options "
    "above; --clip 0.1 says --set clip=0.1. [bold]srcli train --set help[/] lists all names with "
    "their defaults."
)


def _recipes() -> list[str]:
    from srcli.training.recipe import recipe_names

    return recipe_names()


_value = partial(option, RECIPE, default="the recipe's")
"""Declares an option that replaces a value of the recipe."""


def train(
    *,
    dataset: Annotated[
        list[str] | None,
        option(
            DATA,
            text="celeba or stl10, either with :part (celeba:train,valid), or a folder of HR "
            "images, read recursively; repeat for a union.",
            metavar="NAME|DIR",
            completion=complete_dataset,
        ),
    ] = None,
    valid: Annotated[
        Path | None,
        option(
            DATA,
            text="Evaluate on the images of this folder.",
            metavar="DIR",
            default="one in fifty of the data sets",
        ),
    ] = None,
    data_dir: DataDir = None,
    download: Download = False,
    degradation: Annotated[
        str | None, option(DATA, text=DEGRADATION, metavar="TEXT", default="the recipe's")
    ] = None,
    recipe: Annotated[
        str | None,
        option(
            RECIPE,
            text="Where all values come from: base, fast (smaller), photo (for degraded "
            "photographs), faces, sharp, sharp-photo (for looks), paper (the source paper), a "
            ".toml file, or a run's options.json.",
            metavar="NAME|FILE",
            default="paper if every data set has a name, else base",
            completion=_recipes,
        ),
    ] = None,
    assignments: Annotated[
        list[str] | None,
        option(
            RECIPE,
            "--set",
            text="Replace a value: loss=l1, model=paper, model.widths=[64,48]; repeat for more.",
            metavar="NAME=VALUE",
            completion=lambda: ["help", *(f"{one.name}=" for one in settings())],
        ),
    ] = None,
    scale: Annotated[
        list[float] | None,
        _value(text="Factor to train for; repeat for more, or to weigh one.", metavar="F"),
    ] = None,
    batch_size: Annotated[
        int | None, _value(text="Patches per step and process.", metavar="N")
    ] = None,
    init_from: Annotated[
        str | None,
        _value(
            text="Weights to start from, whose shape the net has; none for random ones.",
            metavar="NAME|FILE",
            completion=complete_weights,
        ),
    ] = None,
    seed: Annotated[
        int | None,
        option(RECIPE, text="Seed of the weights and of every draw.", metavar="N", default="0"),
    ] = None,
    steps: Annotated[int | None, option(RUN, text="Length in steps.", metavar="N")] = None,
    epochs: Annotated[
        float | None, option(RUN, text="Length in epochs: one patch of every image.", metavar="N")
    ] = None,
    max_time: Annotated[
        str | None,
        option(
            RUN,
            text="Stop after this long: 90m, 1.5h, 600s. It is the run's length if nothing else "
            "says one.",
            metavar="TIME",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        option(
            RUN,
            "--output",
            "-o",
            text="Run directory; made if missing.",
            metavar="DIR",
            default="runs/RECIPE",
        ),
    ] = None,
    resume: Annotated[
        Path | None,
        option(RUN, text="Resume the run in this directory, with its options.", metavar="DIR"),
    ] = None,
    dry_run: Annotated[
        bool,
        option(
            RUN,
            "--dry-run",
            "-n",
            text="Print what would be done and how long it would take; write nothing.",
        ),
    ] = False,
    device: Annotated[
        str | None,
        option(
            NET,
            text="auto is CUDA if there is any.",
            metavar="auto|cpu|cuda[:N]",
            default="auto",
            completion=lambda: ["auto", "cpu", "cuda"],
        ),
    ] = None,
    dtype: Annotated[
        Literal["auto", "fp32", "bf16"] | None,
        option(
            NET, text="auto is bf16 where the hardware computes in it, else fp32.", default="auto"
        ),
    ] = None,
    threads: Threads = None,
    as_json: Annotated[
        bool, option(MESSAGES, "--json", text="Print the report as one JSON object.")
    ] = False,
    verbose: Annotated[
        bool | None,
        option(
            MESSAGES,
            "--verbose/--quiet",
            "-v/-q",
            text="A line for each evaluation; or no bar and no summary.",
        ),
    ] = None,
) -> None:
    """Train a net, or resume a run."""
    from srcli.training.recipe import from_recipe, resumed

    if assignments and "help" in assignments:
        _print_settings()
        return
    verbose = False if as_json and verbose is None else verbose
    use_threads(threads)
    given = {
        "datasets": tuple(dataset) if dataset else None,
        "valid": valid,
        "data_dir": data_dir and data_dir.absolute(),
        "output": output,
        "scales": tuple(scale) if scale else None,
        "degradation": None if degradation is None else Degradation.parse(degradation),
        "steps": steps,
        "epochs": epochs,
        "max_seconds": None if max_time is None else _seconds(max_time),
        "batch_size": batch_size,
        "seed": seed,
        "init_from": None if init_from is None else Path(init_from),
        "device": device,
        "dtype": dtype,
    }
    options: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if resume is None:
        config = from_recipe(recipe, assignments or [], **options)
    else:
        config = resumed(resume, recipe, assignments or [], **options)
    if download:
        fetch(config.datasets, config.data_dir, quiet=verbose is False)
    if dry_run:
        _dry_run(config, resume=resume is not None, as_json=as_json)
    else:
        _train(config, resume=resume is not None, as_json=as_json, verbose=verbose)


def _print_settings() -> None:
    """List what a recipe or ``--set`` may say."""
    found = settings()
    width = max(len(f"{one.name}={one.default}") for one in found)
    for one in found:
        print_text(f"{f'{one.name}={one.default}':{width}}  {one.meaning}")


def _is_main_process() -> bool:
    """Return whether this process reports what all of them do together."""
    return os.environ.get("RANK", "0") == "0"


def _dry_run(config: "TrainConfig", *, resume: bool, as_json: bool) -> None:
    """Print what a run would do and how long it would take."""
    from srcli.training import estimate

    plan = estimate.dry_run(config, resume=resume, on_message=lambda line: say(f"warning: {line}"))
    if _is_main_process():
        if as_json:
            print_report(plan)
        else:
            print_text(_plan_lines(plan))


def _train(config: "TrainConfig", *, resume: bool, as_json: bool, verbose: bool | None) -> None:
    """Train, print the report, and exit as a signal asks for."""
    from srcli.training import trainer

    require_package("matplotlib", "train", "srcli train")
    if config.tensorboard:
        require_package("tensorboard", "train", "--set tensorboard=true")
    is_main = _is_main_process()
    shown = is_main and verbose is not False and sys.stderr.isatty()
    with (
        _progress_bar(shown=shown, verbose=is_main and verbose is True) as (show, message),
        signals() as received,
    ):
        report = trainer.train(
            config,
            resume=resume,
            on_progress=show,
            on_message=lambda line: message(f"warning: {line}"),
            should_stop=lambda: bool(received),
        )
    if as_json and is_main:
        print_report(asdict(report))  # of equal pictures the PSNR is infinite
    if received or report.stopped:
        # Of several processes only another one may have had the signal.
        number = received[0] if received else int(signal.SIGTERM)
        if not is_main:
            raise typer.Exit(128 + number)
        resume_by = f"continue with: srcli train --resume {config.output}"
        raise Interrupted(f"interrupted at step {report.step}; {resume_by}", number)
    if verbose is not False and is_main:
        say(_summary(report))


def _plan_lines(plan: dict[str, Any]) -> str:
    """Return in a few lines what a run would do."""
    held = f"{plan['evaluation_images']:,} for evaluation, {plan['test_images']:,} for test"
    count, batch = plan["steps"], plan["batch"]
    steps = f"{count:,} steps, {count * batch:,} patches" if count else "until the time is over"
    where = f"{plan['dtype']} on {plan['device']}"
    where += f", {plan['processes']} processes" if plan["processes"] > 1 else ""
    return "\n".join(
        [
            f"images       {plan['train_images']:,} for training, {held}",
            f"net          {plan['parameters']:,} parameters",
            f"length       {steps}; an epoch: {plan['steps_per_epoch']:,} of {batch}",
            f"measured     {plan['patches_per_second']:.1f} patches/s in {where}",
            f"time         {format_duration(plan['seconds'])}",
        ]
    )


def _summary(report: "TrainReport") -> str:
    """Return in one line how a run ended."""
    text = f"{report.weights}: {report.step} steps, {report.patches} patches in "
    text += f"{report.seconds / 60:.1f} min"
    if report.loss is not None:  # a run that was finished before has none
        text += f", loss {report.loss:.5f}"
    if report.scores is not None:
        text += (
            f", held-out RGB PSNR {report.scores.psnr:.2f} dB "
            f"(bicubic {report.scores.baseline_psnr:.2f})"
        )
    return text


@contextmanager
def _progress_bar(*, shown: bool, verbose: bool) -> Iterator[tuple[Any, Any]]:
    """Show a bar of the share done, if shown, and a line for each evaluation, if verbose.

    Yields:
        What takes the run's progress, and what prints a message above the bar.
    """
    with tqdm(
        total=1000,
        disable=not shown,
        bar_format="{l_bar}{bar}| {elapsed}<{remaining} {postfix}",
    ) as bar:
        last = None

        def message(text: str) -> None:
            bar.clear()
            say(text)

        def show(progress: "Progress") -> None:
            nonlocal last
            scores = progress.scores
            if verbose and scores is not None and scores is not last:
                message(_evaluation_line(progress, scores))
            last = scores
            bar.n = int(progress.done * 1000)
            text = "" if scores is None else f", eval {scores.psnr:.2f} dB"
            bar.set_postfix_str(
                f"step {progress.step}, loss {progress.loss:.4f}{text}", refresh=False
            )
            bar.update(0)

        yield show, message


def _evaluation_line(progress: "Progress", scores: "Scores") -> str:
    return (
        f"step {progress.step}, epoch {progress.epoch:.2f}: loss {progress.loss:.5f}, "
        f"evaluation {scores.loss:.5f}, accuracy {scores.accuracy:.2%}, "
        f"{scores.psnr:.2f} dB (bicubic {scores.baseline_psnr:.2f})"
    )


def _seconds(text: str) -> float:
    """Parse ``90m``, ``1.5h``, ``600s`` or ``600``."""
    units = {"s": 1.0, "m": 60.0, "h": 3600.0}
    number, unit = (text[:-1], text[-1]) if text[-1:] in units else (text, "s")
    try:
        return float(number) * units[unit]
    except ValueError:
        raise UsageError(f"--max-time {text!r} is not a time: write 90m, 1.5h or 600s") from None
