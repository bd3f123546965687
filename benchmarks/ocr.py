"""How well writing can be read after it was enlarged: tesseract on pages drawn here.

    python benchmarks/ocr.py METHOD...

Pages of text in several sizes, black on white, white on grey and on a photograph, are reduced by
the bicubic filter and enlarged again by each method: ``HR``, ``bicubic``, weights, or a mixture
(``base@0.5``). Printed is the share of characters that tesseract reads as they were written
(``difflib``'s ratio). Needs the program tesseract.
"""

import subprocess
import sys
import tempfile
from difflib import SequenceMatcher
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from srcli import Settings, Upscaler
from srcli.data.degrading import degrade
from srcli.ops.color import dequantize, quantize

ROOT = Path(__file__).parents[1]

TEXT = (
    "The quick brown fox jumps over",
    "the lazy dog, 48 kilometres from",
    "Zwolle. Invoice 2024-0917: 1,386.50",
    "euro, due within thirty days. Please",
    "quote the number on every letter.",
)

SIZES = (26, 32, 40, 52)
"""Heights of the letters' em in HR pixels."""


def page(size: int, kind: str) -> Image.Image:
    """Draw the text."""
    font = ImageFont.load_default(size)
    height, width = int(1.5 * size * len(TEXT)) + 40, 22 * size
    if kind == "photo":
        photo = Image.open(next((ROOT / "examples" / "originals").glob("*.png"))).convert("RGB")
        image = Image.blend(photo.resize((width, height)), Image.new("RGB", (width, height)), 0.6)
    else:
        image = Image.new("RGB", (width, height), "white" if kind == "white" else "#606468")
    draw = ImageDraw.Draw(image)
    for row, line in enumerate(TEXT):
        color = "#101010" if kind == "white" else "#f4f4f0"
        draw.text((24, 20 + int(1.5 * size * row)), line, fill=color, font=font)
    return image.crop((0, 0, width // 12 * 12, height // 12 * 12))


def read(image: Image.Image) -> str:
    """Return what tesseract reads."""
    with tempfile.NamedTemporaryFile(suffix=".png") as file:
        image.save(file.name)
        command = ["tesseract", file.name, "-", "--psm", "6"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    return " ".join(done.stdout.split())


def main() -> None:
    """Print a table."""
    torch.set_num_threads(1)
    print("| method | x2 | x3 | x4 | x4 by size " + str(SIZES) + " |")
    wanted = " ".join(TEXT)
    for method in sys.argv[1:]:
        name, _, sharpness = method.partition("@")
        settings = Settings(sharpness=float(sharpness)) if sharpness else Settings()
        upscaler = None if name in {"HR", "bicubic"} else Upscaler(name, settings=settings)
        scores: dict[tuple[int, int], list[float]] = {}
        for scale in (2, 3, 4):
            for size in SIZES:
                for kind in ("white", "grey", "photo"):
                    high = page(size, kind)
                    pixels = torch.from_numpy(np.asarray(high).copy()).permute(2, 0, 1)
                    low = quantize(degrade(dequantize(pixels), scale)).permute(1, 2, 0).numpy()
                    if name == "HR":
                        result = high
                    elif upscaler is None:
                        result = Image.fromarray(low).resize(high.size, Image.Resampling.BICUBIC)
                    else:
                        result = upscaler(Image.fromarray(low), scale)
                    ratio = SequenceMatcher(None, wanted, read(result), autojunk=False).ratio()
                    scores.setdefault((scale, size), []).append(ratio)
        means = [
            fmean(r for (s, _), rs in scores.items() if s == scale for r in rs)
            for scale in (2, 3, 4)
        ]
        sizes = [fmean(scores[4, size]) for size in SIZES]
        cells = [*(f"{one:.3f}" for one in means), " ".join(f"{one:.2f}" for one in sizes)]
        print(f"| {method} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
