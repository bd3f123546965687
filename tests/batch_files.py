"""What the tests of plans and batches share: options, inputs, lists, results, a run."""

from pathlib import Path

import numpy as np
from PIL import Image

from srcli.upscaler import Settings
from srcli.upscaling import batch
from srcli.upscaling.config import BatchConfig
from srcli.upscaling.plan import plan
from srcli.upscaling.search import joined_list

EXACT = Settings(device="cpu", dtype="fp32")


def configured(*inputs, **options):
    """Options of a plan, and of a batch in fp32 on the CPU; an output may be text."""
    if isinstance(options.get("output"), str):
        options = options | {"output": Path(options["output"])}
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


def touch(*names):
    """Make empty files, with their folders: a plan opens none."""
    for name in names:
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def targets(*inputs, **options):
    """Plan and give the results by the entries of their inputs."""
    return {job.entry: str(job.target) for job in plan(configured(*inputs, **options))}


def names(jobs):
    """Sources and targets of jobs, as text."""
    return [(str(job.source), str(job.target)) for job in jobs]


def problems(config):
    """What stands in the way of each planned job."""
    return [job.problem for job in plan(config)]


def listed(*entries, name="list.txt"):
    """Write a list and give the input that stands for it."""
    Path(name).write_bytes(joined_list(entries))
    return f"@{name}"
