"""How results look, beside those of other people's nets: folders of results, figures and panels.

    python benchmarks/looks.py HR_DIR --judge looks.py --peers DIR -o OUT [--x4plus DIR] [--only x4]

Makes LR of every picture by the degradations of :data:`CASES`, enlarges them by bicubic, by the
weights, by mixtures of the weights (``sharp@0.5``) and by the nets of ``--peers`` (ncnn, whole
picture, fp32, the processor), and measures every folder by ``--judge``: a Python file with
``Looks`` and ``measure`` and ``summary``. Writes ``OUT/looks.json`` and ``OUT/looks.md``. Needs the
package ncnn where peers are asked for. ``benchmarks/results/looks.md`` has what came of it.
"""

import argparse
import importlib.util
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from computers import PEERS as NCNN_PEERS
from computers import Ncnn
from numpy.typing import NDArray
from PIL import Image

from srcli import Settings, Upscaler
from srcli.data.degrading import PHASE_DRAWS, degrade
from srcli.data.loading import named_draws
from srcli.ops.color import dequantize, quantize
from srcli.ops.degradation import Degradation

CASES = {
    "x4": (4, "bicubic"),
    "x3": (3, "bicubic"),
    "x2": (2, "bicubic"),
    "x4_damaged": (4, "blur=0.4..1.6,noise=0..6,jpeg=60..85"),
    "x4_mild": (4, "blur=0..0.6,noise=0..2,jpeg=85..95"),
}
"""Factor and degradation of each case."""

PEERS = {
    "general-x4v3": NCNN_PEERS["general-x4v3"],
    "LSDIRCompactC3": NCNN_PEERS["4xLSDIRCompactC3"],
    "x4plus": ("realesrgan-x4plus", "data", "output", 4),
}
"""Files of other people's nets at x4."""

X4PLUS = (
    "nat_graduates",
    "nat_portrait",
    "nat_canal",
    "nat_brick_wall_interior",
    "nat_street_front",
    "nat_church",
    "kodim08",
    "kodim23",
)
"""Pictures for x4plus, which takes half a minute a megapixel."""

FIGURES = (
    "psnr_y",
    "ssim_y",
    "lpips",
    "dists",
    "niqe",
    "consistency",
    "lattice2",
    "lattice3",
    "lattice4",
    "grain",
)

Pixels = NDArray[np.uint8]
Run = Callable[[Pixels], Pixels]


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("hr", type=Path)
    parser.add_argument("--judge", type=Path, required=True)
    parser.add_argument("--peers", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--methods", nargs="+", default=["bicubic", "base", "sharp"])
    parser.add_argument("--quick", action="store_true", help="without DISTS and NIQE")
    args = parser.parse_args()
    judge = _module(args.judge)
    looks = judge.Looks(dists=not args.quick, niqe=not args.quick)
    found: dict[str, dict[str, Any]] = {}
    for case in args.only:
        folder = args.output / case
        make_lr(args.hr, folder, case)
        for method in args.methods:
            seconds = enlarge(folder, method, CASES[case][0], args.peers)
            truth = few(folder) if method == "x4plus" else folder / "HR"
            rows = judge.measure(looks, str(truth), str(folder / method), str(folder / "LR"))
            total = judge.summary(list(rows.values()))
            part = judge.summary([row for stem, row in rows.items() if stem in X4PLUS])
            found.setdefault(case, {})[method] = {
                "all": total,
                "of_x4plus": part,
                "files": rows,
                "seconds": seconds,
            }
            print(case, method, total, flush=True)
            (args.output / "looks.json").write_text(json.dumps(found, indent=1) + "\n")
            (args.output / "looks.md").write_text(table(found))


def make_lr(source: Path, folder: Path, case: str) -> None:
    """Write HR, cut to a multiple of the factor, and LR of every picture of a folder."""
    scale, text = CASES[case]
    for name in ("HR", "LR"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for path in sorted(source.iterdir()):
        if (
            path.suffix.lower() not in {".png", ".jpg"}
            or (folder / "LR" / f"{path.stem}.png").exists()
        ):
            continue
        for name, pixels in zip(("HR", "LR"), pair(path, scale, text), strict=True):
            _save(pixels, folder / name / f"{path.stem}.png")


def pair(path: Path, scale: int, degradation: str) -> tuple[Pixels, Pixels]:
    """Return HR of a picture, cut to a multiple of the factor, and LR made of it."""
    pixels = np.asarray(Image.open(path).convert("RGB"))
    height, width = (side // scale * scale for side in pixels.shape[:2])
    high = pixels[:height, :width].copy()
    draws = named_draws(0, path.stem)[None]
    draws[:, PHASE_DRAWS] = 0.0
    image = dequantize(torch.from_numpy(high).permute(2, 0, 1))[None]
    low = degrade(image, scale, Degradation.parse(degradation), draws)[0]
    return high, quantize(low).permute(1, 2, 0).numpy()


def few(folder: Path) -> Path:
    """Return a folder of the originals that x4plus enlarges."""
    part = folder / "HR_x4plus"
    part.mkdir(exist_ok=True)
    for stem in X4PLUS:
        if (folder / "HR" / f"{stem}.png").exists():
            shutil.copy(folder / "HR" / f"{stem}.png", part)
    return part


def enlarge(folder: Path, method: str, scale: int, peers: Path | None) -> float:
    """Write a method's results, and return the seconds that a megapixel of them took."""
    (folder / method).mkdir(exist_ok=True)
    if method in PEERS:
        assert peers is not None
        run: Run = Ncnn(PEERS[method], peers)
    elif method == "bicubic":
        run = _bicubic(scale)
    else:
        name, _, sharpness = method.partition("@")
        upscaler = Upscaler(name, settings=_settings(sharpness))

        def run(low: Pixels) -> Pixels:
            return np.asarray(upscaler(Image.fromarray(low), scale=scale))

    seconds = pixels = 0.0
    for path in sorted((folder / "LR").iterdir()):
        target = folder / method / path.name
        if target.exists() or (method == "x4plus" and path.stem not in X4PLUS):
            continue
        low = np.asarray(Image.open(path))
        begun = time.process_time()
        result = run(low)
        seconds += time.process_time() - begun
        pixels += result.shape[0] * result.shape[1] / 1e6
        _save(result, target)
    return seconds / pixels if pixels else 0.0


def table(found: dict[str, dict[str, Any]]) -> str:
    """Lay the figures out as Markdown, a table a case."""
    lines = []
    for case, methods in found.items():
        scale, degradation = CASES[case]
        parts = {"all": "all pictures"}
        if "x4plus" in methods:
            parts["of_x4plus"] = "those that x4plus enlarged"
        for part, words in parts.items():
            lines += [f"x{scale}, {degradation}, {words}:", "", f"| | {' | '.join(FIGURES)} |"]
            lines.append("|" + "---|" * (len(FIGURES) + 1))
            for method, result in methods.items():
                cells = (result[part].get(name) for name in FIGURES)
                row = " | ".join("" if cell is None else f"{cell:.3f}" for cell in cells)
                lines.append(f"| {method} | {row} |")
            lines.append("")
    return "\n".join(lines)


def _settings(sharpness: str) -> Settings:
    return Settings(sharpness=float(sharpness)) if sharpness else Settings()


def _bicubic(scale: int) -> Run:
    def run(low: Pixels) -> Pixels:
        image = Image.fromarray(low)
        size = image.width * scale, image.height * scale
        return np.asarray(image.resize(size, Image.Resampling.BICUBIC))

    return run


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("judge", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _save(pixels: Pixels, path: Path) -> None:
    Image.fromarray(pixels).save(path)


if __name__ == "__main__":
    main()
