"""Sheets of crops without names and in random order, to look at before knowing whose they are.

    python benchmarks/blind.py LOOKS_DIR CROPS.csv -o OUT METHOD...

``LOOKS_DIR`` is a case's folder of ``benchmarks/looks.py``; a line of ``CROPS.csv`` is a kind, a
picture's stem, and the left and top of a crop of 128 pixels. Each sheet has the crop, its pixels
twice as large, by every method that has the picture. ``OUT/key.json`` says which is which: write
down the order of preference before opening it.
"""

import argparse
import csv
import json
import random
from pathlib import Path

from PIL import Image, ImageDraw

SIDE, ZOOM, GAP = 128, 2, 22


def main() -> None:
    """Draw the sheets."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("crops", type=Path)
    parser.add_argument("methods", nargs="+")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    order = random.Random(args.seed)  # noqa: S311 - no secret
    key = {}
    with args.crops.open(encoding="utf-8") as file:
        for number, (kind, stem, left, top) in enumerate(csv.reader(file)):
            found = [name for name in args.methods if (args.folder / name / f"{stem}.png").exists()]
            order.shuffle(found)
            name = f"{number:02}_{kind}_{stem}"
            key[name] = dict(zip("ABCDEFGHIJ", found, strict=False))
            box = int(left), int(top), int(left) + SIDE, int(top) + SIDE
            crops = [Image.open(args.folder / one / f"{stem}.png").crop(box) for one in found]
            sheet(crops).save(args.output / f"{name}.png")
    (args.output / "key.json").write_text(json.dumps(key, indent=1) + "\n", encoding="utf-8")


def sheet(crops: list[Image.Image]) -> Image.Image:
    """Lay crops out in rows of four, a letter above each."""
    side = SIDE * ZOOM
    columns = min(4, len(crops))
    rows = -(-len(crops) // columns)
    page = Image.new("RGB", (columns * (side + 8), rows * (side + GAP)), "white")
    draw = ImageDraw.Draw(page)
    for place, crop in enumerate(crops):
        x, y = place % columns * (side + 8), place // columns * (side + GAP)
        draw.text((x + 4, y + 4), "ABCDEFGHIJ"[place], fill="black")
        page.paste(crop.resize((side, side), Image.Resampling.NEAREST), (x, y + GAP))
    return page


if __name__ == "__main__":
    main()
