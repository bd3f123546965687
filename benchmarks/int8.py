"""What int8 changes: PSNR lost, and the pixels that differ from fp32 by more than two levels.

    python benchmarks/int8.py HR_DIR [HR_DIR...] --weights base [base@0.5 ...] [--scales 2 3 4]

Every picture is reduced as the literature does (and, for weights trained on degraded pictures,
blurred, with noise and JPEG), enlarged by OpenVINO in fp32 and in int8, and compared, both rounded
to eight bits. ``ONEDNN_MAX_CPU_ISA=AVX2`` limits the instructions to what processors without VNNI
have. ``base@0.5`` is a mixture. Tables go to standard output.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from srcli import Settings, Upscaler
from srcli.data.degrading import degrade
from srcli.data.loading import named_draws
from srcli.model.graph import has_wide_sums
from srcli.ops.color import dequantize, luma, quantize
from srcli.ops.degradation import Degradation
from srcli.ops.degrade import PHASE_DRAWS
from srcli.ops.metrics import crop_border, psnr

LEVELS = 2
"""By how much a channel of a pixel may change."""

DAMAGE = "blur=0.4..1.6,noise=0..6,jpeg=60..85"


def main() -> None:
    """Print a row for each net, folder and factor."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--weights", nargs="+", default=["base"])
    parser.add_argument("--scales", nargs="+", type=int, default=[2, 3, 4])
    parser.add_argument("--damaged", action="store_true")
    args = parser.parse_args()
    print(f"sums of {32 if has_wide_sums() else 16} bits\n")
    print("| weights | pictures | dB lost | worst | more than two levels | largest | mean |")
    print("|---|---|---|---|---|---|---|")
    text = DAMAGE if args.damaged else "bicubic"
    for name in args.weights:
        exact, fast = (upscaler(name, dtype) for dtype in ("fp32", "int8"))
        for folder in args.folders:
            for scale in args.scales:
                row = compare(exact, fast, folder, scale, Degradation.parse(text))
                title = folder.parent.name if folder.name == "HR" else folder.name
                print(f"| {name} | {title} x{scale} | {row} |", flush=True)


def upscaler(name: str, dtype: str) -> Upscaler:
    """Make one that computes by OpenVINO."""
    weights, _, sharpness = name.partition("@")
    mixed = float(sharpness) if sharpness else None
    return Upscaler(weights, settings=Settings(engine="openvino", dtype=dtype, sharpness=mixed))


def compare(
    exact: Upscaler, fast: Upscaler, folder: Path, scale: int, degradation: Degradation
) -> str:
    """Compare the results of all pictures of a folder; return the cells of a row."""
    lost, changes = [], []
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in {".png", ".jpg", ".bmp"}:
            continue
        pixels = np.asarray(Image.open(path).convert("RGB"))
        height, width = (side // scale * scale for side in pixels.shape[:2])
        high = dequantize(torch.from_numpy(pixels[:height, :width].copy()).permute(2, 0, 1))[None]
        draws = named_draws(0, path.stem)[None]
        draws[:, PHASE_DRAWS] = 0.0
        low = quantize(degrade(high, scale, degradation, draws))[0].permute(1, 2, 0).numpy()
        one, other = (_enlarged(each, low, scale) for each in (exact, fast))
        lost.append(_psnr(one, high, scale) - _psnr(other, high, scale))
        changes.append((one.int() - other.int()).abs().amax(1).flatten())
    change = torch.cat(changes)
    beyond = float((change > LEVELS).double().mean())
    return (
        f"{sum(lost) / len(lost):.3f} | {max(lost):.3f} | {beyond:.4%} | {int(change.max())} "
        f"| {float(change.double().mean()):.2f}"
    )


def _enlarged(upscaler: Upscaler, low: np.ndarray, scale: int) -> Tensor:
    result = np.asarray(upscaler(Image.fromarray(low), scale=scale))
    return torch.from_numpy(result.copy()).permute(2, 0, 1)[None]


def _psnr(result: Tensor, high: Tensor, border: int) -> float:
    images = (luma(crop_border(one, border)) for one in (dequantize(result), high))
    return float(psnr(*images))


if __name__ == "__main__":
    main()
