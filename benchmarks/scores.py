"""Score the shipped weights on the benchmark sets and put the table into README.

    python benchmarks/scores.py DATA

DATA holds the folders ``set5`` and ``set14``, each with ``HR``, ``LRx2``, ``LRx3``, ``LRx4``.
Every number is from ``srcli.evaluation``, the code behind ``srcli eval``; the whole report goes
to ``benchmarks/results/scores.json``.
"""

import argparse
import hashlib
import json
from pathlib import Path

from srcli import weights
from srcli.evaluation import EvalConfig, EvalReport, evaluate

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "scores.json"
BEGIN, END = "<!-- scores:begin -->\n", "<!-- scores:end -->\n"


def main() -> None:
    """Evaluate, write the results and README's table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder with set5 and set14")
    data = parser.parse_args().data
    file = weights.resolve("base")
    reports = [
        evaluate(EvalConfig(dataset=data / name, scale=scale))
        for name in ("set5", "set14")
        for scale in (2.0, 3.0, 4.0)
    ]
    record = {
        "weights": {"name": "base", "sha256": hashlib.sha256(file.read_bytes()).hexdigest()},
        "header": dict(weights.read_header(file).training),
        "reports": [{**report.to_dict(), "dataset": _name(report)} for report in reports],
    }
    RESULTS.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    readme = ROOT / "README.md"
    before, rest = readme.read_text(encoding="utf-8").split(BEGIN)
    after = rest.split(END)[1]
    readme.write_text(before + BEGIN + table(reports) + END + after, encoding="utf-8")
    print(table(reports))


def table(reports: list[EvalReport]) -> str:
    """A Markdown table of mean PSNR / SSIM."""
    lines = ["| set | scale | bicubic | base |", "|---|---|---|---|"]
    for report in reports:
        cells = (f"{psnr:.2f} / {ssim:.4f}" for psnr, ssim in map(report.mean, report.methods))
        lines.append(f"| {_name(report)} | ×{report.scale:g} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _name(report: EvalReport) -> str:
    return Path(report.dataset).name.capitalize()


if __name__ == "__main__":
    main()
