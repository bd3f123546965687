"""Patches per second of ``srcli train``, side by side in one run, and of what feeds it.

    python benchmarks/training.py [--dataset celeba:train --data-dir DATA] [--threads N] [-o FILE]

Each way is `srcli train --dry-run`'s own measured burst, the ways interleaved, the median of
several rounds; ratios compare within the run. On a machine with a GPU the table is the
GPU's, with its larger batches; on a CPU each format is also measured with threads as torch has
them, on one that does not multiply bf16 fp32 alone. Results go to
``benchmarks/results/training.md``; the hours are those of the source paper's whole schedule, ten
epochs of 86,799 patches.
"""

import argparse
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from itertools import islice
from pathlib import Path
from statistics import median
from unittest.mock import patch

import torch

from srcli.data.loading import Loader
from srcli.data.pool import open_pool
from srcli.data.sampling import Sampler
from srcli.model.config import CONFIGS
from srcli.ops.devices import resolve_dtype
from srcli.training.config import TrainConfig
from srcli.training.estimate import dry_run
from srcli.training.recipe import load

ROOT = Path(__file__).parents[1]
ROUNDS = 3
TORCHS = " torch's"
"""How a way's name ends that leaves threads to torch."""

SCHEDULE = 10 * 86_799
"""Patches of the paper's ten epochs."""


def main() -> None:
    """Print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default=str(ROOT / "examples" / "originals"))
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "-o", "--output", type=Path, default=ROOT / "benchmarks" / "results" / "training.md"
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    cuda = torch.cuda.is_available()
    ways = on_gpu(options) if cuda else on_cpu(options)
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, config in ways.items():
            with torch_alone() if name.endswith(TORCHS) else nullcontext():
                rates[name].append(dry_run(config)["patches_per_second"])
    first = median(next(iter(rates.values())))
    device = torch.cuda.get_device_name() if cuda else f"{platform.machine()} CPU"
    lines = [
        (
            f"torch {torch.__version__}, {device}, {torch.get_num_threads()} threads; "
            f"{options.dataset.rpartition('/')[2]}, median of {ROUNDS}"
        ),
        "",
        "| net, format, patches a step | patches/s | ratio | the paper's schedule |",
        "|---|---|---|---|",
    ]
    for name, found in rates.items():
        rate = median(found)
        hours = f"{SCHEDULE / rate / 3600:.2f} h"
        lines.append(f"| {name} | {rate:.1f} | {rate / first:.2f} | {hours} |")
    lines += ["", reading(options), ""]
    text = "\n".join(lines)
    print(text)
    options.output.write_text(text, encoding="utf-8")


@contextmanager
def torch_alone() -> Iterator[None]:
    """Share each layer among all threads."""
    with patch("srcli.training.compute.BatchThreads", lambda *_: None):
        yield


def on_cpu(options: argparse.Namespace) -> dict[str, TrainConfig]:
    """What is compared on a CPU."""
    if resolve_dtype("auto", torch.device("cpu")) != torch.bfloat16:
        ways = {f"{name}, fp32, 8": a_run(options, name, "fp32", 8) for name in ("base", "paper")}
        return {
            f"{name}{ending}": config
            for name, config in ways.items()
            for ending in (f", threads{TORCHS}", "")
        }
    paper, base = (a_run(options, *way) for way in (("paper", "bf16", 8), ("base", "bf16", 16)))
    small, exact = replace(base, batch_size=8), replace(base, dtype="fp32")
    return {
        "paper, bf16, 8": paper,
        "paper, bf16, 16": replace(paper, batch_size=16),
        "paper, fp32, 8": replace(paper, dtype="fp32"),
        f"base, bf16, 8, threads{TORCHS}": small,
        "base, bf16, 8": small,
        f"base, bf16, 16, threads{TORCHS}": base,
        "base, bf16, 16": base,
        f"base, fp32, 16, threads{TORCHS}": exact,
        "base, fp32, 16": exact,
    }


def on_gpu(options: argparse.Namespace) -> dict[str, TrainConfig]:
    """What is compared on a GPU."""
    return {
        f"{name}, {dtype}, {size}": a_run(options, name, dtype, size)
        for name in ("paper", "base")
        for dtype, size in (("bf16", 64), ("bf16", 256), ("fp32", 64))
    }


def a_run(options: argparse.Namespace, name: str, dtype: str, size: int) -> TrainConfig:
    """Options of a run of a recipe, scheduled long enough for a burst."""
    recipe = {key: value for key, value in load(name).items() if key != "epochs"}
    return TrainConfig(
        **{
            **recipe,
            "model": CONFIGS[name],
            "recipe": name,
            "output": Path("unused"),
            "datasets": (options.dataset,),
            "data_dir": options.data_dir,
            "batch_size": size,
            "steps": 1000,
            "split": "held-out",
            "eval_images": 1,
            "dtype": dtype,
        }
    )


def reading(options: argparse.Namespace) -> str:
    """Patches per second that the loader alone delivers: what training can never exceed."""
    pool = open_pool([options.dataset], options.data_dir, seed=0)
    device, rows = torch.device("cpu"), []
    for resident in (True, False):
        loader = Loader(pool, device, workers=options.threads, resident=resident)
        sampler = Sampler(len(pool), 0, scales=(3.0,), augment="turn")
        batches = loader.batches(sampler, 0, 16)
        next(batches)
        begun = time.perf_counter()
        count = sum(len(batch.patches) for batch in islice(batches, 60))
        rows.append(count / (time.perf_counter() - begun))
        batches.close()
    return (
        f"Reading alone: {rows[0]:,.0f} patches/s out of memory, {rows[1]:,.0f} decoded as they "
        f"are needed by {options.threads} threads."
    )


if __name__ == "__main__":
    main()
