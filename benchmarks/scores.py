"""Score the shipped weights and put the tables into README.

    python benchmarks/scores.py DATA

DATA holds the folders ``set5`` and ``set14``, each with ``HR``, ``LRx2``, ``LRx3``, ``LRx4``, and
``celeba`` with the official files. Every number is from ``srcli.evaluation``, the code behind
``srcli eval``; the whole report goes to ``benchmarks/results/scores.json``.
"""

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

from srcli import weights
from srcli.evaluation import EvalConfig, EvalReport, evaluate

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "scores.json"
NAMES = ("base", "paper")


def main() -> None:
    """Evaluate, write the results and README's tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder with set5, set14 and celeba")
    data = parser.parse_args().data
    reports = [
        evaluate(EvalConfig(dataset=data / name, scale=scale))
        for name in ("set5", "set14")
        for scale in (2.0, 3.0, 4.0)
    ]
    faces = evaluate(EvalConfig(dataset="celeba:test", data_dir=data, models=("paper", "base")))
    record = {
        "weights": {name: checksum(name) for name in NAMES},
        "headers": {name: header(name) for name in NAMES},
        "reports": [{**report.to_dict(), "dataset": _name(report)} for report in reports],
        # Five hundred images: their means alone.
        "faces": {key: value for key, value in faces.to_dict().items() if key != "scores"}
        | {"images": len(faces.scores) // len(faces.methods)},
    }
    RESULTS.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    put("scores", table(reports))
    put("faces", face_table(faces))


def checksum(name: str) -> str:
    """SHA-256 of a shipped file."""
    return hashlib.sha256(weights.resolve(name).read_bytes()).hexdigest()


def header(name: str) -> dict[str, Any]:
    """What a shipped file says of its making."""
    return dict(weights.read_header(weights.resolve(name)).training)


def put(name: str, text: str) -> None:
    """Replace a marked block of README."""
    readme = ROOT / "README.md"
    begin, end = f"<!-- {name}:begin -->\n", f"<!-- {name}:end -->\n"
    before, rest = readme.read_text(encoding="utf-8").split(begin)
    readme.write_text(before + begin + text + end + rest.split(end)[1], encoding="utf-8")
    print(text)


def table(reports: list[EvalReport]) -> str:
    """A Markdown table of mean PSNR / SSIM."""
    lines = ["| set | scale | bicubic | base |", "|---|---|---|---|"]
    for report in reports:
        cells = (f"{psnr:.2f} / {ssim:.4f}" for psnr, ssim in map(report.mean, report.methods))
        lines.append(f"| {_name(report)} | ×{report.scale:g} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def face_table(report: EvalReport) -> str:
    """A Markdown table of the methods on CelebA, with the source paper's accuracy."""
    lines = ["| method | PSNR | SSIM | accuracy |", "|---|---|---|---|"]
    for method in report.methods:
        psnr, ssim = report.mean(method)
        lines.append(f"| {method} | {psnr:.2f} | {ssim:.4f} | {report.accuracy(method):.2%} |")
    return "\n".join(lines) + "\n"


def _name(report: EvalReport) -> str:
    return Path(report.dataset).name.capitalize()


if __name__ == "__main__":
    main()
