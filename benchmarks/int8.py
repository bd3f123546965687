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
from looks import CASES, Pixels, pair
from PIL import Image
from torch import Tensor

from srcli import Settings, Upscaler
from srcli.model.graph import has_wide_sums
from srcli.ops.color import dequantize, luma
from srcli.ops.metrics import crop_border, psnr

LEVELS = 2
"""By how much a channel of a pixel may change."""


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
    _, degradation = CASES["x4_damaged" if args.damaged else "x4"]
    for name in args.weights:
        exact, fast = (upscaler(name, dtype) for dtype in ("fp32", "int8"))
        for folder in args.folders:
            for scale in args.scales:
                row = compare(exact, fast, folder, scale, degradation)
                title = folder.parent.name if folder.name == "HR" else folder.name
                print(f"| {name} | {title} x{scale} | {row} |", flush=True)


def upscaler(name: str, dtype: str) -> Upscaler:
    """Make one that computes by OpenVINO."""
    weights, _, sharpness = name.partition("@")
    mixed = float(sharpness) if sharpness else None
    return Upscaler(weights, settings=Settings(engine="openvino", dtype=dtype, sharpness=mixed))


def compare(exact: Upscaler, fast: Upscaler, folder: Path, scale: int, degradation: str) -> str:
    """Compare the results of all pictures of a folder; return the cells of a row."""
    lost, changes = [], []
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in {".png", ".jpg", ".bmp"}:
            continue
        high, low = pair(path, scale, degradation)
        one, other = (_enlarged(each, low, scale) for each in (exact, fast))
        lost.append(_psnr(one, _tensor(high), scale) - _psnr(other, _tensor(high), scale))
        changes.append((one.int() - other.int()).abs().amax(1).flatten())
    change = torch.cat(changes)
    beyond = float((change > LEVELS).double().mean())
    return (
        f"{sum(lost) / len(lost):.3f} | {max(lost):.3f} | {beyond:.4%} | {int(change.max())} "
        f"| {float(change.double().mean()):.2f}"
    )


def _enlarged(upscaler: Upscaler, low: Pixels, scale: int) -> Tensor:
    return _tensor(np.asarray(upscaler(Image.fromarray(low), scale=scale)))


def _tensor(pixels: Pixels) -> Tensor:
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None]


def _psnr(result: Tensor, high: Tensor, border: int) -> float:
    images = (luma(crop_border(dequantize(one), border)) for one in (result, high))
    return float(psnr(*images))


if __name__ == "__main__":
    main()
