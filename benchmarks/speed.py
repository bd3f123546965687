"""Time one photograph, side by side in one run: srcli's formats, the paper's net, Pillow.

    python benchmarks/speed.py [--threads N]

A 510x340 photo is enlarged by three in memory (1.56 megapixels out), methods interleaved, the
median of several rounds; ratios compare within the run. Then ``srcli upscale`` end to end as a
process. Results go to ``benchmarks/results/speed.md``.
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image

from srcli import images, weights
from srcli.config import PAPER, PATCH
from srcli.model import ResidualAutoencoder
from srcli.upscaling import Settings, Upscaler

ROOT = Path(__file__).parents[1]
SIZE = (1020, 1530)
ROUNDS = 5


def main() -> None:
    """Print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    torch.set_num_threads(parser.parse_args().threads)
    original = images.read(ROOT / "examples" / "originals" / "houses.png")
    photo = images.Picture(pixels=original.pixels[:340, :510].copy())
    ways = methods(photo)
    times: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        way()
    for _ in range(ROUNDS):
        for name, way in ways.items():
            begun = time.perf_counter()
            way()
            times[name].append(time.perf_counter() - begun)
    first = median(next(iter(times.values())))
    megapixels = SIZE[0] * SIZE[1] / 1e6
    lines = [
        (
            f"torch {torch.__version__}, {platform.machine()} CPU, "
            f"{torch.get_num_threads()} threads; 510x340 enlarged x3, median of {ROUNDS}"
        ),
        "",
        "| method | seconds | s/MP out | ratio |",
        "|---|---|---|---|",
    ]
    for name, found in times.items():
        middle = median(found)
        lines.append(
            f"| {name} | {middle:.3f} | {middle / megapixels:.3f} | {middle / first:.2f} |"
        )
    lines += ["", end_to_end(photo), ""]
    text = "\n".join(lines)
    print(text)
    (ROOT / "benchmarks" / "results" / "speed.md").write_text(text, encoding="utf-8")


def methods(photo: images.Picture) -> dict[str, Callable[[], object]]:
    """What is compared, from a picture in memory to a picture in memory."""
    net, _ = weights.load(weights.resolve("base"))
    paper = ResidualAutoencoder(PAPER)

    def enlarger(model: ResidualAutoencoder, dtype: str, tile: int | None) -> Upscaler:
        return Upscaler(model, settings=Settings(device="cpu", dtype=dtype, tile=tile))

    upscalers = {
        "base, auto": enlarger(net, "auto", None),
        "base, bf16, single patches": enlarger(net, "bf16", PATCH),
        "base, fp32": enlarger(net, "fp32", None),
        "the paper's net, bf16 (random weights)": enlarger(paper, "bf16", None),
        "the paper's net, fp32 (random weights)": enlarger(paper, "fp32", None),
    }
    ways: dict[str, Callable[[], object]] = {
        name: (lambda model=model: model.upscale(photo, SIZE))  # type: ignore[misc]
        for name, model in upscalers.items()
    }
    pillow = Image.fromarray(np.asarray(photo.pixels, np.uint8))
    ways["Pillow's bicubic"] = lambda: pillow.resize((SIZE[1], SIZE[0]), Image.Resampling.BICUBIC)
    return ways


def end_to_end(photo: images.Picture) -> str:
    """Seconds of a whole ``srcli upscale`` process, start-up and PNG files included."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "photo.png")
        images.write(photo, path)
        found = []
        for _ in range(3):
            begun = time.perf_counter()
            subprocess.run(
                [sys.executable, "-m", "srcli", "upscale", path, "-q", "--overwrite"],
                env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
                check=True,
            )
            found.append(time.perf_counter() - begun)
    return f"`srcli upscale` as a process, PNG to PNG: {median(found):.2f} s"


if __name__ == "__main__":
    main()
