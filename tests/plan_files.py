"""What the tests of a plan share: inputs, lists and results, of empty files."""

from pathlib import Path

from srcli.upscaling.config import BatchConfig
from srcli.upscaling.plan import plan
from srcli.upscaling.search import joined_list


def selected(*inputs, **options):
    """Select files with some options; an output may be text."""
    if isinstance(options.get("output"), str):
        options = options | {"output": Path(options["output"])}
    return BatchConfig(inputs=inputs, **options)


def touch(*names):
    """Make empty files, with their folders: a plan opens none."""
    for name in names:
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def targets(*inputs, **options):
    """Plan and give the results by the entries of their inputs."""
    return {job.entry: str(job.target) for job in plan(selected(*inputs, **options))}


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
