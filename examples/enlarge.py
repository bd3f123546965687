"""Enlarge pictures from a Python program: several threads, one net.

    python examples/enlarge.py examples/photos/*.png --width 1000

Each picture is handed over as a Pillow image and comes back as one.
"""

import argparse
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from srcli import Upscaler


def main() -> None:
    """Write a larger PNG of each picture beside it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pictures", type=Path, nargs="+")
    parser.add_argument("--width", type=int, default=1000, help="of the results, pixels")
    options = parser.parse_args()
    upscaler = Upscaler("base")

    def enlarge(path: Path) -> Path:
        with Image.open(path) as image:
            height = round(image.height * options.width / image.width)
            larger = upscaler(image, size=(options.width, height))
        target = path.with_name(f"{path.stem}_{options.width}.png")
        larger.save(target)
        return target

    # The net uses every core by itself; the threads overlap it with decoding and encoding.
    with ThreadPoolExecutor(2) as pool:
        for target in pool.map(enlarge, options.pictures):
            print(target)


if __name__ == "__main__":
    main()
