"""``srcli models``: the shipped weights, or any file's."""

import json
import re
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from srcli import files
from srcli.cli.console import format_scores, print_table, say
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
        # Numbers that JSON does not have become null.
        finite = json.loads(json.dumps(rows), parse_constant=lambda _: None)
        typer.echo(json.dumps(finite, indent=2))
    else:
        for table in _model_tables(rows, record=model is not None):
            print_table(table)
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
        "scores": [asdict(line) for line in header.scores],
        "training": dict(header.training),
    }


def _model_tables(rows: list[dict[str, Any]], *, record: bool) -> Iterator[Table]:
    """Make the tables: the weights, their scores, and the training record of a single file."""
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
            _value(row["degradation"]) if row["degradation"] else "",
        )
    yield table
    if any(row["scores"] for row in rows):
        yield _score_table(rows)
    if record:
        yield from _record_tables({"file": rows[0]["path"], **rows[0]["training"]})


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
        heading = f"{escape(one_line(name))} x{scale:g} {_value(lr)}"
        table.add_column(heading, justify="right", overflow="fold")
    for row, *found in zip(rows, *cells.values(), strict=True):
        table.add_row(escape(one_line(row["name"])), *found)
    return table


def _record_tables(record: dict[str, Any], title: str = "training") -> Iterator[Table]:
    """Make a table of a header's training record, and one of the weights it started from."""
    table = Table(title=title, title_justify="left", show_header=False)
    table.add_column()
    table.add_column(overflow="fold")
    origin = record.get("origin")
    for name, value in record.items():
        if name != "origin" or not isinstance(origin, dict):
            table.add_row(escape(one_line(name.replace("_", " "))), _value(value))
    yield table
    if isinstance(origin, dict):
        yield from _record_tables(origin, "started from")


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
            text = re.sub(r",(?=[a-z]+=)", ", ", value.replace(_ANY_KERNEL, "kernel=any"))
        case _:
            text = json.dumps(value)
    return escape(one_line(text))
