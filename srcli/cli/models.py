"""``srcli models``: the shipped weights, or any file's."""

import json
import re
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from srcli import files
from srcli.cli.console import format_scores, print_report, print_table, print_text, say
from srcli.cli.options import complete_weights
from srcli.errors import SrcliError
from srcli.files import one_line

__all__ = ["models"]

_ANY_KERNEL = "kernel=bicubic+bilinear+area+lanczos+cubic"
"""What a header has for a degradation of ``kernel=any``."""

_PURPOSES = {
    "base": "clean photographs, faithful",
    "fast": "old machines, previews: a quarter of the work",
    "photo": "JPEG, blur, noise",
    "sharp": "clean photographs, crisp: base mixed by --sharpness",
    "sharp-photo": "JPEG, blur, noise, crisp: photo mixed by --sharpness",
    "faces": "upright portraits",
    "paper": "the source paper's net, for comparison",
}
"""What the shipped weights are for."""


def models(
    model: Annotated[
        str | None,
        typer.Argument(
            help="Shipped weights by name, or a .safetensors file: that one alone, with the whole "
            "record of its training.",
            metavar="NAME|FILE",
            autocompletion=complete_weights,
            show_default="all that are shipped",
        ),
    ] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print them as one JSON array.")] = False,
) -> None:
    """List the shipped weights: purpose, size and scores, from the header of each."""
    from srcli.model.weights import resolve

    chosen = files.shipped() if model is None else {Path(model).name: resolve(model)}
    rows: list[dict[str, Any]] = []
    faults: list[SrcliError] = []
    for name, path in chosen.items():
        try:
            rows.append(_model_row(name, path))
        except SrcliError as error:
            if model is not None:
                raise
            faults.append(error)
    if as_json:
        print_report(rows)
    else:
        print_table(_model_table(rows))
        if any(row["scores"] for row in rows):
            print_table(_score_table(rows))
        if model is not None:
            print_text(json.dumps(rows[0]["training"], indent=2))
    for fault in faults:
        say(f"error: {fault}")
    if faults:
        raise typer.Exit(faults[0].exit_code)


def _model_row(name: str, path: Path) -> dict[str, Any]:
    from srcli.model.network import multiply_adds, parameter_count
    from srcli.model.weights import read_header

    header = read_header(path)
    gmac = {
        f"{scale:g}": round(multiply_adds(header.config.at(scale)) / 1e9, 3)
        for scale in header.scales
    }
    return {
        "name": name,
        "purpose": _PURPOSES.get(name, "") if files.shipped().get(name) == path else "",
        "parameters": parameter_count(header.config),
        "gmac_per_patch": max(gmac.values()),
        "gmac_by_scale": gmac,
        "scales": sorted(set(header.training.get("scales", []))),
        "degradation": header.training.get("degradation", ""),
        "path": str(path),
        "scores": list(header.scores),
        "training": dict(header.training),
    }


def _model_table(rows: list[dict[str, Any]]) -> Table:
    table = Table()
    for column in ("name", "for", "parameters", "GMAC per patch", "scales", "degradation"):
        left = column in {"name", "for", "degradation"}
        table.add_column(column, justify="left" if left else "right", overflow="fold")
    for row in rows:
        table.add_row(
            escape(one_line(row["name"])),
            escape(one_line(row["purpose"])),
            f"{row['parameters']:,}",
            " ".join(dict.fromkeys(f"{gmac:.2f}" for gmac in row["gmac_by_scale"].values())),
            " ".join(f"x{scale:g}" for scale in row["scales"]),
            _shown(str(row["degradation"])),
        )
    return table


def _score_table(rows: list[dict[str, Any]]) -> Table:
    """A line for each of the weights, a column for each data set, scale and kind of LR."""
    table = Table(title="PSNR in dB / SSIM", title_justify="left")
    table.add_column("name", overflow="fold", no_wrap=True)
    cells: dict[tuple[str, float, str, str], list[str]] = {}
    for index, row in enumerate(rows):
        for line in row["scores"]:
            key = line["dataset"], line["scale"], line["lr"], line["channel"]
            found = cells.setdefault(key, [""] * len(rows))
            found[index] = format_scores(line["psnr"], line["ssim"])
    for dataset, scale, lr, channel in cells:
        name = dataset if channel == "y" else f"{dataset} (RGB)"
        heading = f"{escape(one_line(name))} x{scale:g} {_shown(lr)}"
        table.add_column(heading, justify="right", overflow="fold")
    for row, *found in zip(rows, *cells.values(), strict=True):
        table.add_row(escape(one_line(row["name"])), *found)
    return table


def _shown(degradation: str) -> str:
    """Return a degradation whose parts can stand in several lines."""
    text = re.sub(r",(?=[a-z]+=)", ", ", degradation.replace(_ANY_KERNEL, "kernel=any"))
    return escape(one_line(text))
