"""``srcli eval``: scores of weights on a data set."""

import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from tqdm import tqdm

from srcli.errors import GateError, OutputError, UsageError
from srcli.files import is_folder, one_line
from srcli.ops.degradation import Degradation

if TYPE_CHECKING:
    from srcli.evaluation.report import EvalReport


from srcli.cli.console import NO_WIDTH, format_scores, reporting, say, write_text
from srcli.cli.options import (
    BatchSize,
    DataDir,
    DegradationOption,
    Device,
    Download,
    DType,
    Overlap,
    Threads,
    Tile,
    complete_weights,
    fetch,
    settings_of,
    use_threads,
)

__all__ = ["EVAL_HELP", "evaluate"]

_MOST_ROWS = 100
"""Of a larger data set the table shows the means alone; --json and --output have every image."""


EVAL_HELP = (
    "Score weights on a data set, resampling filters beside them.\n\n"
    "[bold]srcli eval set5[/]  # by the literature's protocol at x3: luma, border cut\n\n"
    "[bold]srcli eval celeba -m paper -m base[/]  # the middles of CelebA's test images\n\n"
    "[bold]srcli eval photos -m base -m mine.safetensors --json[/]  # two nets\n\n"
    "[bold]srcli eval set14 --baseline lanczos --panels panels -o set14.csv[/]  # to look at"
)


@reporting()
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
    data_dir: DataDir = None,
    download: Download = False,
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
            autocompletion=complete_weights,
            show_default="base",
        ),
    ] = None,
    baseline: Annotated[
        list[str] | None,
        typer.Option(
            help="Filter to measure the weights beside: bicubic, lanczos, bilinear, nearest or "
            "none; repeat for more.",
            metavar="NAME",
            autocompletion=lambda: ["bicubic", "lanczos", "bilinear", "nearest", "none"],
            show_default="bicubic",
        ),
    ] = None,
    scale: Annotated[float, typer.Option("--scale", "-s", help="HR pixels per LR pixel.")] = 3.0,
    degradation: DegradationOption = None,
    seed: Annotated[int, typer.Option(help="Seed of the degradation.")] = 0,
    channel: Annotated[
        Literal["y", "rgb"], typer.Option(help="y is luma, as in the literature.")
    ] = "y",
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
    tile: Tile = "auto",
    overlap: Overlap = "auto",
    batch_size: BatchSize = "auto",
    device: Device = "auto",
    dtype: DType = "auto",
    threads: Threads = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the scores as one JSON object.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")] = False,
) -> None:
    """Score weights on a data set."""
    from srcli.evaluation.config import EvalConfig
    from srcli.evaluation.evaluate import evaluate as run

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
        channel=channel,
        crop_border=crop_border,
        limit=limit,
        settings=settings_of(tile, overlap, batch_size, device, dtype),
    )
    use_threads(threads)
    if download:
        fetch((str(config.dataset),), config.data_dir, quiet=quiet)
    with tqdm(disable=quiet or not sys.stderr.isatty(), unit="image", leave=False) as bar:

        def advance(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        def tell(text: str) -> None:
            bar.clear()
            say(f"warning: {text}")

        report = run(config, advance, tell)
    text = json.dumps(report.to_dict(), indent=2, allow_nan=False)
    if as_json:
        typer.echo(text)
    else:
        _print_scores(report)
    if output is not None:
        is_csv = output.suffix.lower() == ".csv"
        write_text(output, report.to_csv() if is_csv else text + "\n")
    _check_gate(report, min_psnr)


def _baselines(given: list[str] | None) -> tuple[str, ...]:
    """Settle the filters: bicubic unless told, each once, and none by its name alone."""
    names: tuple[str, ...] = tuple(dict.fromkeys(given or ("bicubic",)))
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
        accuracy = score.accuracy if report.has_accuracy else None
        text = format_scores(score.psnr, score.ssim, accuracy)
        rows.setdefault(score.image, []).append(text)
    if len(rows) <= _MOST_ROWS:
        for image, cells in rows.items():
            table.add_row(escape(one_line(image)), *cells)
        table.add_section()
    means = (
        format_scores(
            *report.mean(method), report.accuracy(method) if report.has_accuracy else None
        )
        for method in report.methods
    )
    label = "mean" if len(rows) <= _MOST_ROWS else f"mean of {len(rows)}"
    table.add_row(label, *means, style="bold")
    # A file or a pipe has no width that numbers would have to be cut to.
    Console(width=None if sys.stdout.isatty() else NO_WIDTH).print(table)


def _check_gate(report: "EvalReport", least: float | None) -> None:
    for method in report.models:
        score = report.mean(method)[0]
        if least is not None and score < least:
            raise GateError(f"{method} has {score:.2f} dB, --min-psnr asks for {least:g}")
