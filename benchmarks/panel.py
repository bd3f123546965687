"""A strip of one crop by several methods with its figures, as README shows.

    python benchmarks/panel.py OUT/looks.json CASE STEM LEFT TOP METHOD... -o FILE.png

``OUT`` is a folder of ``benchmarks/looks.py``. The figures are PSNR (luma) and LPIPS of the whole
picture.
"""

import argparse
import json
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

SIDE, ZOOM, GAP, TEXT = 140, 2, 6, 46

NAMES = {"base": "faithful (base)", "photo": "faithful (photo)", "HR": "original"}


def main() -> None:
    """Draw the strip."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("looks", type=Path)
    parser.add_argument("case")
    parser.add_argument("stem")
    parser.add_argument("left", type=int)
    parser.add_argument("top", type=int)
    parser.add_argument("methods", nargs="+")
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    found = json.loads(args.looks.read_text(encoding="utf-8"))[args.case]
    side = SIDE * ZOOM
    width = len(args.methods) * (side + GAP) - GAP
    page = Image.new("RGB", (width, side + TEXT), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(15)
    for place, method in enumerate(args.methods):
        picture = Image.open(args.looks.parent / args.case / method / f"{args.stem}.png")
        box = args.left, args.top, args.left + SIDE, args.top + SIDE
        x = place * (side + GAP)
        crop = picture.convert("RGB").crop(box)
        page.paste(crop.resize((side, side), Image.Resampling.NEAREST), (x, TEXT))
        draw.text((x + 2, 2), NAMES.get(method, method), fill="black", font=font)
        if method in found:
            figures = found[method]["files"][args.stem]
            text = f"{figures['psnr_y']:.2f} dB, LPIPS {figures['lpips']:.3f}"
            draw.text((x + 2, 22), text, fill="#555555", font=font)
    page.save(args.output, optimize=True)


if __name__ == "__main__":
    main()
