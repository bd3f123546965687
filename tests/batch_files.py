"""What the tests of a batch share: its options, its pictures, its run."""

from pathlib import Path

import numpy as np
from PIL import Image

from srcli.upscaler import Settings
from srcli.upscaling import batch
from srcli.upscaling.config import BatchConfig
from srcli.upscaling.plan import plan

EXACT = Settings(device="cpu", dtype="fp32")


def configured(*inputs, **options):
    """Options of a batch that computes in fp32 on the CPU."""
    return BatchConfig(inputs=inputs, **{"settings": EXACT, **options})


def listing(folder="."):
    """Every file and folder below a folder."""
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*"))


def enlarge(*inputs, model="auto", **options):
    """Plan and run a batch."""
    config = configured(*inputs, model=str(model), **options)
    return list(batch.run(config, plan(config)))


def picture(width, height, mode="RGB"):
    """Draw noise: no two pixels are expected to be alike."""
    channels = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}[mode]
    levels = np.random.default_rng(5).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return Image.fromarray(levels[..., 0] if channels == 1 else levels)
