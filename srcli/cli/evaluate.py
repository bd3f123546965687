"""``srcli eval``: scores of weights on a data set."""

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.markup import escape
from rich.table import Table
from tqdm import tqdm

from srcli.cli.console import (
    check_output,
    format_scores,
    print_table,
    print_text,
    say,
    terminating,
    write_output,
)
from srcli.cli.options import (
    DATA,
    MESSAGES,
    OUTPUT,
    BatchSize,
    DataDir,
    DegradationOption,
    Device,
    DType,
    Engine,
    Overlap,
    Threads,
    Tile,
    complete_dataset,
    complete_weights,
    fetch,
    option,
    settings_of,
    use_threads,
)
from srcli.errors import GateError, UsageError, require_package
from srcli.files import one_line
from srcli.ops.degradation import Degradation

if TYPE_CHECKING:
    from srcli.evaluation.config import EvalConfig
    from srcli.evaluation.report import EvalReport

__all__ = ["EVAL_HELP", "evaluate"]

_MAX_ROWS = 100
"""Of a larger data set the table shows the means alone; --json and --output have every image."""

_SCORES = "Scores"
"""Panel of the help: methods and protocol."""

EVAL_HELP = (
    "Score weights on a data set, resampling filters beside them.\n\n"
    "[bold]srcli eval set5[/]  # a folder with HR and LRx3: luma, border cut\n\n"
    "[bold]srcli eval celeba -m paper -m base[/]  # the centers of CelebA's test images\n\n"
    "[bold]srcli eval photos -m base -m mine.safetensors --json[/]  # two nets\n\n"
    "[bold]srcli eval photos --sharpness 0 --sharpness 0.5 --sharpness 1[/]  # how crisp\n\n"
    "[bold]srcli eval set14 --baseline lanczos --panels panels -o set14.csv[/]  # to look at"
)


def evaluate(
    dataset: Annotated[
        str,
        typer.Argument(
            help="Folder of HR images, or one with the folders HR and LRx2, LRx3, ...; or "
            "celeba or stl10: their test images, or those of another :part.",
            metavar="DATASET|HR_DIR",
            autocompletion=complete_dataset,
            show_default=False,
        ),
    ],
    *,
    lr: Annotated[
        Path | None,
        option(
            DATA,
            text="Folder of LR images.",
            metavar="DIR",
            default="the set's own, else made by bicubic",
        ),
    ] = None,
    degradation: DegradationOption = None,
    seed: Annotated[int, option(DATA, text="Seed of the degradation.", metavar="N")] = 0,
    limit: Annotated[int | None, option(DATA, text="Score at most N images.", metavar="N")] = None,
    data_dir: DataDir = None,
    download: Annotated[
        bool,
        option(
            DATA,
            "--download",
            text="Fetch celeba and stl10 into --data-dir first, and the nets of --metric.",
        ),
    ] = False,
    model: Annotated[
        list[str] | None,
        option(
            _SCORES,
            "--model",
            "-m",
            text="Shipped weights by name, or a .safetensors file; repeat to compare.",
            metavar="NAME|FILE",
            default="base",
            completion=complete_weights,
        ),
    ] = None,
    sharpness: Annotated[
        list[float] | None,
        option(
            _SCORES,
            text="Mix each model with its sharp sibling: 0 (faithful) to 1 (crisp); repeat to "
            "compare.",
            metavar="S",
            default="weights as they are",
        ),
    ] = None,
    baseline: Annotated[
        list[str] | None,
        option(
            _SCORES,
            text="Filter to compare the weights with: bicubic, lanczos, bilinear, nearest or "
            "none; repeat for more.",
            metavar="NAME",
            default="bicubic",
            # Typer has no list of literals; EvalConfig refuses other names.
            completion=lambda: ["bicubic", "lanczos", "bilinear", "nearest", "none"],
        ),
    ] = None,
    metric: Annotated[
        list[str] | None,
        option(
            _SCORES,
            text="Metric beside PSNR and SSIM: lpips, lpips-vgg, dists, ms-ssim or vif; repeat for "
            "more. They need the extra metrics.",
            metavar="NAME",
            default="psnr, ssim",
            # As above: EvalConfig refuses other names.
            completion=lambda: ["lpips", "lpips-vgg", "dists", "ms-ssim", "vif"],
        ),
    ] = None,
    scale: Annotated[
        list[float] | None,
        option(_SCORES, "--scale", "-s", text="HR pixels per LR pixel.", metavar="F", default="3"),
    ] = None,
    channel: Annotated[
        Literal["y", "rgb"], option(_SCORES, text="y is luma, as in the literature.")
    ] = "y",
    crop_border: Annotated[
        int | None,
        option(_SCORES, text="Border pixels cut from each side.", metavar="N", default="the scale"),
    ] = None,
    min_psnr: Annotated[
        float | None,
        option(_SCORES, text="Exit with 6 if a model's mean PSNR is below, in dB.", metavar="F"),
    ] = None,
    output: Annotated[
        Path | None,
        option(
            OUTPUT,
            "--output",
            "-o",
            text="Write the scores to this file: CSV if it is called .csv, else JSON.",
            metavar="FILE",
        ),
    ] = None,
    panels: Annotated[
        Path | None,
        option(
            OUTPUT,
            text="Draw a picture for each image into this folder (made if missing): the detail "
            "where the first baseline differs most, as LR, each method and HR show it.",
            metavar="DIR",
        ),
    ] = None,
    tile: Tile = "auto",
    overlap: Overlap = "auto",
    batch_size: BatchSize = "auto",
    device: Device = "auto",
    dtype: DType = "auto",
    engine: Engine = "torch",
    threads: Threads = None,
    as_json: Annotated[
        bool, option(MESSAGES, "--json", text="Print the scores as one JSON object.")
    ] = False,
    quiet: Annotated[
        bool, option(MESSAGES, "--quiet", "-q", text="Errors alone: no table, no bar, no warning.")
    ] = False,
) -> None:
    """Score weights on a data set."""
    from srcli.evaluation import perceptual
    from srcli.evaluation.config import EvalConfig

    if min_psnr is not None and math.isnan(min_psnr):
        raise UsageError("--min-psnr must be a number of dB, not nan")
    quiet = quiet or as_json
    if output is not None:
        check_output(output)
    config = EvalConfig(
        dataset=dataset,
        data_dir=data_dir or Path("data"),
        degradation=Degradation.parse(degradation or "bicubic"),
        seed=seed,
        lr=lr,
        models=tuple(dict.fromkeys(model or ("base",))),
        sharpness=tuple(sharpness or ()),
        baselines=tuple(name for name in dict.fromkeys(baseline or ["bicubic"]) if name != "none"),
        metrics=_metrics(metric or ()),
        panels=panels,
        scale=_only_scale(scale or [3.0]),
        channel=channel,
        crop_border=crop_border,
        limit=limit,
        settings=settings_of(tile, overlap, batch_size, device=device, dtype=dtype, engine=engine),
    )
    if panels is not None:
        require_package("matplotlib", "train", "--panels")
    use_threads(threads)
    if download:
        fetch((str(config.dataset),), config.data_dir, quiet=quiet)
        perceptual.fetch(config.metrics, quiet=quiet or not sys.stderr.isatty())
    report = _evaluate(config, quiet=quiet)
    text = json.dumps(report.to_dict(), indent=2, allow_nan=False)
    if as_json:
        print_text(text)
    elif not quiet:
        _print_scores(report)
    if output is not None:
        is_csv = output.suffix.lower() == ".csv"
        write_output(output, report.to_csv() if is_csv else text + "\n")
    _check_gate(report, min_psnr)


def _only_scale(given: list[float]) -> float:
    if len(given) > 1:
        factors = ", ".join(f"{scale:g}" for scale in given)
        raise UsageError(
            f"--scale is given {len(given)} times ({factors}); run srcli eval for each"
        )
    return given[0]


def _evaluate(config: "EvalConfig", *, quiet: bool) -> "EvalReport":
    from srcli.evaluation.evaluate import evaluate as run

    with (
        terminating(),
        tqdm(disable=quiet or not sys.stderr.isatty(), unit="image", leave=False) as bar,
    ):

        def advance(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        def warn(text: str) -> None:
            if not quiet:
                bar.clear()
                say(f"warning: {text}")

        return run(config, advance, warn)


def _metrics(given: Sequence[str]) -> tuple[str, ...]:
    """Return the metrics to add, each once; a comma separates names as well."""
    names = [name.strip() for text in given for name in text.split(",")]
    return tuple(dict.fromkeys(name for name in names if name not in {"psnr", "ssim"}))


def _print_scores(report: "EvalReport") -> None:
    from srcli.evaluation.report import short_labels

    table = Table(
        title=escape(one_line(str(report.config.dataset))),
        caption=escape(report.protocol),
        caption_justify="left",
    )
    table.add_column("image", overflow="fold")
    for label in short_labels(report.methods).values():
        heading = f"{escape(one_line(label))}\n{report.heading}".strip()
        table.add_column(heading, justify="right", overflow="fold")

    _add_rows(table, report)
    print_table(table)


def _add_rows(table: Table, report: "EvalReport") -> None:
    """Add a row for each image, unless there are many, and the means."""

    def cell(values: dict[str, float]) -> str:
        psnr, ssim, accuracy, *added = values.values()
        return format_scores(psnr, ssim, accuracy if report.config.is_named else None, added)

    rows: dict[str, list[str]] = {}
    for score in report.scores:
        rows.setdefault(score.image, []).append(cell(score.values))
    if len(rows) <= _MAX_ROWS:
        for image, cells in rows.items():
            table.add_row(escape(one_line(image)), *cells)
        table.add_section()
    means = (cell(report.mean(method)) for method in report.methods)
    label = "mean" if len(rows) <= _MAX_ROWS else f"mean of {len(rows)}"
    table.add_row(label, *means, style="bold")


def _check_gate(report: "EvalReport", min_psnr: float | None) -> None:
    for method in report.models:
        psnr = report.mean(method)["psnr"]
        if min_psnr is not None and psnr < min_psnr:
            raise GateError(f"{method} has {psnr:.2f} dB, --min-psnr asks for {min_psnr:g}")
