"""Show what srcli does to a photograph whose original is known, as one picture.

For each photo in a folder, a detail four times side by side: the LR photo (its pixels shown as
squares), the bicubic enlargement, srcli's, and the original, with luma PSNR against the
original under each. The panels in README were made by

    python examples/compare.py examples/panels
"""

import argparse
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont

from srcli.imaging import images
from srcli.ops.color import dequantize, luma, quantize
from srcli.ops.metrics import crop_border, psnr
from srcli.ops.resample import bicubic
from srcli.upscaler import Upscaler

HERE = Path(__file__).parent
SCALE = 3
DETAIL = 120
"""Side of the detail, HR pixels: one patch."""

ZOOM = 2
"""Screen pixels per HR pixel."""

CORNERS = {"houses": (342, 405), "parrots": (175, 125)}
"""Top and left corner of the detail in the original, HR pixels; elsewhere the middle."""


def main() -> None:
    """Write one panel for each photo."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path, help="folder for the panels, made if missing")
    parser.add_argument("-m", "--model", default="base", help="shipped weights or a file")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    upscaler = Upscaler(options.model)
    for original in sorted((HERE / "originals").glob("*.png")):
        target = options.output / original.name
        panel(upscaler, HERE / "photos" / original.name, original).save(target)
        print(target)


def panel(upscaler: Upscaler, photo: Path, original: Path) -> Image.Image:
    """Draw LR | bicubic | srcli | original, with the scores of the whole picture."""
    low, high = images.read(photo), images.read(original)
    size = high.height, high.width
    levels = torch.from_numpy(low.pixels).permute(2, 0, 1)
    truth = torch.from_numpy(high.pixels).permute(2, 0, 1)
    larger = torch.from_numpy(upscaler.upscale(low, size).pixels).permute(2, 0, 1)
    squares = levels.repeat_interleave(SCALE, 1).repeat_interleave(SCALE, 2)
    filtered = quantize(bicubic(levels, size))
    views = [
        (f"LR {low.width}x{low.height}", squares),
        (f"bicubic {score(filtered, truth):.2f} dB", filtered),
        (f"srcli {score(larger, truth):.2f} dB", larger),
        ("original", truth),
    ]
    side, gap, line = DETAIL * ZOOM, 6, 22
    sheet = Image.new("RGB", (len(views) * (side + gap) - gap, side + line), "white")
    middle = (high.height - DETAIL) // 2, (high.width - DETAIL) // 2
    top, left = CORNERS.get(original.stem, middle)
    for index, (label, view) in enumerate(views):
        part = view[:, top : top + DETAIL, left : left + DETAIL].permute(1, 2, 0).contiguous()
        detail = Image.fromarray(part.numpy()).resize((side, side), Image.Resampling.NEAREST)
        sheet.paste(detail, (index * (side + gap), 0))
        draw = ImageDraw.Draw(sheet)
        draw.text((index * (side + gap) + 4, side + 3), label, "black", ImageFont.load_default(14))
    return sheet


def score(result: torch.Tensor, truth: torch.Tensor) -> float:
    """Luma PSNR in dB, ``SCALE`` pixels of border cut: the protocol of ``srcli eval``."""
    pair = (crop_border(luma(dequantize(image)), SCALE)[None] for image in (result, truth))
    return float(psnr(*pair))


if __name__ == "__main__":
    main()
