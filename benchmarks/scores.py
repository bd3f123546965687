"""Score the shipped weights and put the tables into the documents that have their markers.

    python benchmarks/scores.py DATA [--only NAME] [--record]

DATA holds the folders ``set5`` and ``set14``, each with ``HR``, ``LRx2``, ``LRx3``, ``LRx4``;
``celeba`` with the official files; ``valid_natural``, lossless photographs that no net was trained
on. Every number is from ``srcli.evaluation.evaluate``, the code behind ``srcli eval``; all go
to ``benchmarks/results/scores.json``, which names the files and the nets they belong to.
``--only`` remakes some tables and leaves the others, ``--record`` writes the scores on Set5 and
Set14 into the headers of the weights.
"""

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from srcli import files
from srcli.evaluation.config import BASELINE, EvalConfig
from srcli.evaluation.evaluate import evaluate
from srcli.model import weights
from srcli.ops.degradation import Degradation
from srcli.upscaler import Settings

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "scores.json"

NAMES = ("base", "fast", "photo", "sharp", "sharp-photo", "paper", "faces")
"""What may be shipped; what is not is left out."""

FACES = ("base", "photo", "paper", "faces")
"""What is scored on faces."""

UNSYMMETRIC = "paper"
"""Whose self-ensemble is measured too: symmetric nets are one by themselves, and ``faces`` knows
which way is up."""

ENSEMBLE = f"{UNSYMMETRIC} --tta"
"""What that is called among the methods."""

FACTORS = (1.5, 2.0, 2.5, 3.0, 4.0, 6.0, 8.0, 16.0)

STRENGTHS = {
    "clean": "bicubic",
    "light": "blur=0..0.6,noise=0..2,jpeg=85..95,kernel=any",
    "medium": "blur=0.4..1.2,noise=2..5,jpeg=60..85,kernel=any",
    "strong": "blur=1..2,noise=5..8,jpeg=30..60,kernel=any",
}
"""Degradations by name; each image draws its own from them, by its name and seed 0."""

Row = dict[str, Any]
"""An evaluation as JSON values: what ``EvalReport.to_dict`` gives, and the number of images."""


def main() -> None:
    """Evaluate, write the results and the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder with set5, set14, celeba, valid_natural")
    parser.add_argument("--only", action="append", choices=BLOCKS, help="remake this table alone")
    parser.add_argument("--record", action="store_true", help="write scores into the weights")
    arguments = parser.parse_args()
    blocks = json.loads(RESULTS.read_text("utf-8")).get("blocks", {}) if RESULTS.exists() else {}
    for name in arguments.only or BLOCKS:
        started = time.perf_counter()
        blocks[name] = {"nets": nets(name), "rows": BLOCKS[name].measure(arguments.data)}
        write(blocks)
        put(name, BLOCKS[name].table(blocks[name]["rows"]))
        print(f"{name}: {time.perf_counter() - started:.0f} s", file=sys.stderr)
    if arguments.record:
        record(blocks)
        write(blocks)


def shipped(names: Iterable[str] = NAMES) -> tuple[str, ...]:
    """Those of the names that are shipped, in their order."""
    found = files.shipped()
    return tuple(name for name in names if name in found)


def nets(block: str) -> dict[str, str]:
    """Name the very nets that a block is made with."""
    return {name: digest(weights.resolve(name)) for name in shipped(BLOCKS[block].models)}


def digest(path: Path) -> str:
    """SHA-256 of the tensors alone: a note in the header changes the file, but not the net."""
    found = hashlib.sha256()
    for name, tensor in sorted(weights.read_tensors(path)[1].items()):
        found.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        found.update(tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def write(blocks: dict[str, Any]) -> None:
    """Write all that was measured, with the checksums of the files as they are now."""
    paths = {name: weights.resolve(name) for name in shipped()}
    results = {
        "torch": torch.__version__,
        "weights": {n: hashlib.sha256(path.read_bytes()).hexdigest() for n, path in paths.items()},
        "headers": {n: dict(weights.read_header(path).training) for n, path in paths.items()},
        "blocks": {name: blocks[name] for name in BLOCKS if name in blocks},
    }
    with files.replacing(RESULTS) as temporary:
        temporary.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def put(name: str, text: str) -> None:
    """Replace the block between a table's markers, in README or wherever in ``docs/`` it is."""
    path = page_of(name)
    begin, end = f"<!-- {name}:begin -->\n", f"<!-- {name}:end -->\n"
    before, rest = path.read_text(encoding="utf-8").split(begin)
    path.write_text(before + begin + text + end + rest.split(end)[1], encoding="utf-8")
    print(text)


def page_of(name: str) -> Path:
    """Find the document that has a table's markers."""
    pages = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
    found = [path for path in pages if f"<!-- {name}:begin -->" in path.read_text("utf-8")]
    if len(found) != 1:
        sys.exit(
            f"{len(found)} documents have the markers of {name}; give it one, in README or docs/"
        )
    return found[0]


def record(blocks: dict[str, Any]) -> None:
    """Write the scores on Set5 and Set14 into the headers of the shipped files."""
    if blocks.get("scores", {}).get("nets") != nets("scores"):
        sys.exit("the scores are not of the shipped weights; give --only scores too")
    for name in shipped():
        found = lines(name, blocks["scores"]["rows"])
        weights.record(weights.resolve(name), "scores", found)


def lines(name: str, rows: list[Row]) -> list[Row]:
    """What a file's header says of its scores."""
    return [
        {key: row[key] for key in ("dataset", "scale", "lr", "channel", "images")}
        | {key: row["mean"][name][key] for key in ("psnr", "ssim")}
        for row in rows
        if name in row["mean"]
    ]


def measured(dataset: str, config: EvalConfig) -> Row:
    """Evaluate, under the data set's own name instead of its folder's."""
    report = evaluate(config)
    images = len(report.scores) // len(report.methods)
    return report.to_dict() | {"dataset": dataset, "images": images}


def measure_scores(data: Path) -> list[Row]:
    """Set5 and Set14 with their own LR, every net at the factors that it was trained for."""
    return [
        benchmark(name, data / name.lower(), scale)
        for name in ("Set5", "Set14")
        for scale in (2.0, 3.0, 4.0)
    ]


def benchmark(name: str, folder: Path, scale: float) -> Row:
    """A benchmark set at one factor."""
    fitting = tuple(model for model in shipped() if fits(model, scale))
    return measured(name, EvalConfig(dataset=folder, scale=scale, models=fitting))


def fits(name: str, scale: float) -> bool:
    """Whether a net was trained for a factor."""
    scales = weights.read_header(weights.resolve(name)).scales
    return scales[0] <= scale <= scales[-1]


def measure_faces(data: Path) -> list[Row]:
    """The faces of CelebA's test partition; five hundred, so their means alone."""
    config = EvalConfig(
        dataset="celeba:test", data_dir=data, models=shipped(BLOCKS["faces"].models)
    )
    row = measured("CelebA", config)
    if UNSYMMETRIC in config.models:
        alone = replace(config, models=(UNSYMMETRIC,), baselines=())
        add(row, ENSEMBLE, replace(alone, settings=Settings(tta=True)))
    return [{key: value for key, value in row.items() if key != "scores"}]


def measure_factors(data: Path) -> list[Row]:
    """Set14 at many factors, its LR made here."""
    folder = data / "set14" / "HR"
    return [measured("Set14", EvalConfig(dataset=folder, scale=one)) for one in FACTORS]


def add(row: Row, method: str, config: EvalConfig) -> None:
    """Add the means of a model that computes another way, under a name of their own."""
    (model,) = config.models
    row["methods"] = [*row["methods"], method]
    row["mean"][method] = evaluate(config).to_dict()["mean"][model]


def measure_strengths(data: Path) -> list[Row]:
    """Photographs reduced by three, undegraded and more and more degraded."""
    models = shipped(BLOCKS["strengths"].models)
    return [
        measured(
            "valid_natural",
            EvalConfig(
                dataset=data / "valid_natural",
                models=models,
                degradation=Degradation.parse(text),
            ),
        )
        | {"strength": name}
        for name, text in STRENGTHS.items()
    ]


def markdown(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    rule = "|" + "---|" * len(head)
    cells = [f"| {' | '.join(row)} |" for row in (head, *body)]
    return "\n".join([cells[0], rule, *cells[1:], ""])


def methods(rows: list[Row], wanted: Sequence[str]) -> list[str]:
    """Those of the methods that the first row has."""
    return [name for name in wanted if name in rows[0]["mean"]]


def called(method: str) -> str:
    """A method as the tables name it: with options, as one types it."""
    return f"`{method}`" if " --" in method else method


def both(row: Row, method: str) -> str:
    """PSNR and SSIM, rounded."""
    mean = row["mean"][method]
    return f"{mean['psnr']:.2f} / {mean['ssim']:.4f}"


def score_table(rows: list[Row]) -> str:
    """PSNR / SSIM by set and factor."""
    shown = methods(rows, (BASELINE, "base", "photo", "fast"))
    return markdown(
        ["set", "scale", *shown],
        (
            [row["dataset"], f"×{row['scale']:g}", *(both(row, name) for name in shown)]
            for row in rows
        ),
    )


def face_table(rows: list[Row]) -> str:
    """The methods on CelebA, with the source paper's accuracy."""
    (row,) = rows
    body = [
        [
            called(name),
            *both(row, name).split(" / "),
            f"{row['mean'][name]['accuracy']:.2%}",
        ]
        for name in methods(rows, (BASELINE, "paper", ENSEMBLE, "base", "photo", "faces"))
    ]
    return markdown(["method", "PSNR", "SSIM", "accuracy"], body)


def factor_table(rows: list[Row]) -> str:
    """PSNR by method and factor."""
    body = [
        [called(name), *(f"{row['mean'][name]['psnr']:.2f}" for row in rows)]
        for name in methods(rows, (BASELINE, "base"))
    ]
    return markdown(["Set14", *(f"×{row['scale']:g}" for row in rows)], body)


def strength_table(rows: list[Row]) -> str:
    """PSNR / SSIM by degradation."""
    shown = methods(rows, (BASELINE, "base", "photo"))
    body = [[strength(row), *(both(row, name) for name in shown)] for row in rows]
    return markdown(["LR", *shown], body)


def strength(row: Row) -> str:
    """The name of a degradation and, but for the undegraded one, its ranges."""
    ranges = STRENGTHS[row["strength"]].partition(",kernel")[0]
    return row["strength"] if ranges == "bicubic" else f"{row['strength']}: `{ranges}`"


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A table between markers in a document."""

    models: tuple[str, ...]
    """Whose numbers these are, as far as they are shipped."""

    measure: Callable[[Path], list[Row]]
    table: Callable[[list[Row]], str]


BLOCKS = {
    "scores": Block(models=NAMES, measure=measure_scores, table=score_table),
    "faces": Block(models=FACES, measure=measure_faces, table=face_table),
    "factors": Block(models=("base",), measure=measure_factors, table=factor_table),
    "strengths": Block(models=("base", "photo"), measure=measure_strengths, table=strength_table),
}


if __name__ == "__main__":
    main()
