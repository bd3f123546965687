"""Measure the seam error of the shipped weights by margin, on a real photograph.

    python benchmarks/seams.py [NAME...]

The seam error is the largest difference, in 8-bit levels, between the tiled result and the
untiled one that has the full receptive field around it. Also reported: the share of values that
differ at all. Results go to ``benchmarks/results/seams.md``.
"""

import platform
import sys
from pathlib import Path

import torch
from torch import Tensor

from srcli.imaging import images
from srcli.model import weights
from srcli.model.network import ResidualAutoencoder
from srcli.ops.color import quantize
from srcli.ops.devices import resolve_dtype
from srcli.ops.spans import PATCH
from srcli.upscaler import Settings, Upscaler

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"

_STEP = 12
"""Pixels between two margins that are measured, at least."""


def main() -> None:
    """Print and write the tables, of ``base`` unless other weights are named."""
    text = (
        f"torch {torch.__version__}, {platform.machine()} CPU; two photos and a corner of "
        "their originals; largest difference in levels (share of values that differ)\n"
    )
    for name in sys.argv[1:] or ["base"]:
        net, header = weights.load(weights.resolve(name))
        for scale in map(int, header.scales):
            text += f"\n## {name}, x{scale}\n\n" + "\n".join(table(net, scale)) + "\n"
    print(text)
    (ROOT / "benchmarks" / "results" / "seams.md").write_text(text, encoding="utf-8")


def table(net: ResidualAutoencoder, scale: int) -> list[str]:
    """Compare margins at one scale, a line each."""
    config = net.config.at(scale)
    full, stride = config.receptive_margin, config.stride
    # A CPU without bf16 takes minutes for what it takes another seconds.
    native = resolve_dtype("auto", torch.device("cpu")) == torch.bfloat16
    dtypes = ("fp32", "bf16") if native else ("fp32",)
    ways = [(dtype, tile) for dtype in dtypes for tile in (PATCH, None)]
    heads = [f"{dtype}, {'patches' if tile else 'fused'}" for dtype, tile in ways]
    lines = [f"| {' | '.join(['margin', *heads])} |", "|---" * (len(heads) + 1) + "|"]
    # A multiple of every stride, and more than the largest of the pictures.
    untiled = {dtype: results(net, scale, full, 1200, dtype) for dtype in dtypes}
    step = -(-_STEP // stride) * stride
    for margin in sorted({*range(0, full, step), config.usual_margin, full}):
        cells = [
            differences(untiled[dtype], results(net, scale, margin, tile, dtype))
            for dtype, tile in ways
        ]
        lines.append(f"| {margin} | {' | '.join(cells)} |")
    if native:
        between = differences(untiled["fp32"], untiled["bf16"])
        lines += ["", f"bf16 against fp32, both untiled: {between}"]
    return lines


def results(
    net: ResidualAutoencoder, scale: int, margin: int, tile: int | None, dtype: str
) -> list[Tensor]:
    """Enlarge the example photos, quantised."""
    settings = Settings(device="cpu", dtype=dtype, tile=tile, overlap=margin)
    upscaler = Upscaler(net, scales=(float(scale),), settings=settings)
    done = []
    for path in sorted(EXAMPLES.glob("[op]*/*.png")):  # the LR photos and their originals
        if path.parent.name == "panels":
            continue
        pixels = images.read(path).pixels[:170, :256].copy()
        image = torch.from_numpy(pixels).permute(2, 0, 1)
        size = scale * image.shape[1], scale * image.shape[2]
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
