"""Measure the seam error of the shipped weights by margin, on a real photograph.

    python benchmarks/seams.py

The seam error is the largest difference, in 8-bit levels, between the tiled result and the
untiled one that has the full receptive field around it. Also told: the share of values that
differ at all. Results go to ``benchmarks/results/seams.md``.
"""

import platform
from pathlib import Path

import torch
from torch import Tensor

from srcli import images, weights
from srcli.color import quantize
from srcli.config import BASE, PATCH
from srcli.model import ResidualAutoencoder
from srcli.upscaling import Settings, Upscaler

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"


def main() -> None:
    """Print and write the table."""
    net, _ = weights.load(weights.resolve("base"))
    full = BASE.receptive_margin
    lines = [
        (
            f"torch {torch.__version__}, {platform.machine()} CPU; two photos and a corner of "
            "their originals, x3; largest difference in levels (share of values that differ)"
        ),
        "",
        "| margin | fp32, patches | fp32, fused | bf16, patches | bf16, fused |",
        "|---|---|---|---|---|",
    ]
    untiled = {dtype: results(net, full, 6 * 200, dtype) for dtype in ("fp32", "bf16")}
    for margin in (0, 6, 12, 18, 24, 30, 36, full):
        cells = [
            differences(untiled[dtype], results(net, margin, tile, dtype))
            for dtype in ("fp32", "bf16")
            for tile in (PATCH, None)
        ]
        lines.append(f"| {margin} | {' | '.join(cells)} |")
    between = differences(untiled["fp32"], untiled["bf16"])
    lines += ["", f"bf16 against fp32, both untiled: {between}", ""]
    text = "\n".join(lines)
    print(text)
    (ROOT / "benchmarks" / "results" / "seams.md").write_text(text, encoding="utf-8")


def results(net: ResidualAutoencoder, margin: int, tile: int | None, dtype: str) -> list[Tensor]:
    """Enlarge the example photos by three, quantised."""
    settings = Settings(device="cpu", dtype=dtype, tile=tile, overlap=margin)
    upscaler = Upscaler(net, settings=settings)
    done = []
    for path in sorted(EXAMPLES.glob("[op]*/*.png")):  # the LR photos and their originals
        if path.parent.name == "panels":
            continue
        pixels = images.read(path).pixels[:170, :256].copy()
        image = torch.from_numpy(pixels).permute(2, 0, 1)
        size = 3 * image.shape[1], 3 * image.shape[2]
        done.append(quantize(torch.cat([band for _, band in upscaler.enlarge(image, size)], 1)))
    return done


def differences(one: list[Tensor], other: list[Tensor]) -> str:
    """The largest difference in levels, and the share of values that differ."""
    apart = torch.cat(
        [(a.int() - b.int()).abs().flatten() for a, b in zip(one, other, strict=True)]
    )
    return f"{int(apart.max())} ({float((apart > 0).float().mean()):.2%})"


if __name__ == "__main__":
    main()
