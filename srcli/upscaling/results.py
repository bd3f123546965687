"""What became of each file, or would, and of all of them: the lines of ``--json``."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Self

from srcli.errors import DeviceError, ImageError, OutputError, SrcliError
from srcli.files import is_there, one_line, reason
from srcli.imaging.images import Header, read_header
from srcli.ops.engines import Compute
from srcli.upscaling.config import BatchConfig, Job
from srcli.upscaling.disk import Disks, estimated_size

__all__ = ["Result", "Summary", "begun", "failure", "look"]


@dataclass(slots=True, kw_only=True)
class Result:
    """What became of one input file, or in a dry run, what would; filled in on the way."""

    job: Job
    status: Literal["planned", "done", "skipped", "failed"]
    message: str = ""
    """The reason, for what failed or was skipped: one line."""

    before: tuple[int, int] | None = None
    """Width and height of the input's first picture, pixels."""

    after: tuple[int, int] | None = None
    """Width and height of the output's, pixels."""

    pictures: int = 1
    """Frames or pages that are enlarged."""

    notes: tuple[str, ...] = ()
    """What could not be kept as it was: one line each."""

    seconds: float = 0.0
    """From reading to the renamed result, without the time spent waiting for others; in a dry run
    an estimate of the net's time, from a measure of this machine."""

    model: str | None = None
    """The weights used, as they were given or chosen; None where it did not come to a choice."""

    model_reason: str | None = None
    """Why these were chosen; None where they were given."""

    sharpness: float | None = None
    """How far they were mixed with their sharp sibling, 0 to 1; None: not at all."""

    compute: Compute | None = None
    """What computed the net; None where nothing did."""

    exit_code: int = 0
    """The exit code of a run that fails for this reason alone."""

    patches: int | None = None
    """In a dry run: patches of 120x120 (or of --tile) that the net computes, over all pictures and
    steps."""

    memory: int | None = None
    """In a dry run: an estimate of the peak of the process while it is at this file, bytes."""

    disk: int | None = None
    """In a dry run: an estimate of the bytes of the result."""

    @property
    def pixels(self) -> int:
        """Pixels of all pictures of the output; 0 where there is none."""
        width, height = self.after or (0, 0)
        return self.pictures * width * height

    def to_dict(self) -> dict[str, Any]:
        """Return the fields of one line of ``--json``."""
        before, after = self.before or (None, None), self.after or (None, None)
        compute = self.compute
        return {
            "input": str(self.job.source),
            "output": str(self.job.target),
            "entry": self.job.entry,
            "status": self.status,
            "message": self.message,
            "width": before[0],
            "height": before[1],
            "output_width": after[0],
            "output_height": after[1],
            "pictures": self.pictures,
            "exit_code": self.exit_code,
            "model": self.model,
            "model_reason": self.model_reason,
            "sharpness": self.sharpness,
            "engine": compute and compute.engine,
            "device": compute and compute.place,
            "dtype": compute and compute.format,
            "notes": list(self.notes),
            "seconds": round(self.seconds, 3),
            "patches": self.patches,
            "memory": self.memory,
            "disk": self.disk,
        }


def begun(job: Job, config: BatchConfig) -> Result:
    """Return what is known of a job without its file: planned, or that it cannot be or is done."""
    result = Result(job=job, status="planned", model=config.given_model)
    if job.problem is not None:
        result.status, result.exit_code = "failed", 1
        result.message = f"{one_line(job.source)}: {job.problem}"
    elif config.existing == "skip" and is_there(job.target):
        result.status, result.message = "skipped", f"{one_line(job.target)} is there already"
    return result


def look(result: Result, config: BatchConfig, data: bytes | None = None) -> tuple[Header, bool]:
    """Note of a result what its input's header says, and return that and whether it is copied.

    Raises:
        SrcliError: If it cannot be read or enlarged.
        OSError: If it has gone.
    """
    source, target = result.job.source, result.job.target
    header = read_header(source, data, max_pixels=config.max_pixels)
    result.before, result.pictures = (header.width, header.height), header.frames
    result.after = config.result_size(*result.before)
    copied = config.copies(target, header.coding, [result.before], [result.after])
    if copied:
        result.disk = len(data) if data is not None else source.stat().st_size
    else:
        result.disk = estimated_size(header, result.pixels, target, config)
    return header, copied


def failure(known: Result, error: Exception) -> Result:
    """Say in one line why a file failed; nothing that one file does may end the run."""
    name = one_line(known.job.source)
    code = error.exit_code if isinstance(error, SrcliError) else 1
    if isinstance(error, ImageError | OutputError):
        message = str(error)
    elif isinstance(error, SrcliError):
        message = f"{name}: {error}"
    elif isinstance(error, MemoryError):
        message = f"{name}: the result does not fit into memory; use a smaller --scale or --tile"
        code = DeviceError.exit_code
    elif isinstance(error, OSError):  # a folder that vanished or may not be searched
        message = f"{name}: {reason(error)}; check the path and its permissions"
    else:
        what = f"{type(error).__name__}: {reason(error)}"
        message = f"{name}: unexpected {what}; please report it with the file"
    return replace(known, status="failed", message=message, exit_code=code, after=None, disk=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What became of all files of this process, or in a dry run, what would."""

    planned: int = 0
    """In a dry run: files that would be done."""

    done: int = 0
    skipped: int = 0
    failed: int = 0

    unfinished: int = 0
    """Files that were not begun, or not finished."""

    pixels: int = 0
    """Of all results."""

    seconds: float = 0.0
    """Of the whole run; in a dry run the sum of the estimates."""

    patches: int | None = None
    """In a dry run: the sum."""

    memory: int | None = None
    """In a dry run: the largest estimate, bytes."""

    disk: int | None = None
    """In a dry run: the sum of the estimates, bytes."""

    disk_free: int | None = None
    """In a dry run: bytes that are free where the results would go."""

    failed_inputs: tuple[str, ...] = ()
    """The inputs that failed, as a list names them, in order."""

    again: tuple[str, ...] = ()
    """Those of them that a list of failures names; see :attr:`Job.again`."""

    exit_code: int = 0

    @classmethod
    def of(cls, results: Sequence[Result], total: int, seconds: float | None) -> Self:
        """Sum up what became of some of ``total`` files; a dry run takes no ``seconds``."""
        counts, disks = Counter(one.status for one in results), Disks()
        failed = [one for one in results if one.status == "failed"]
        summary = cls(
            planned=counts["planned"],
            done=counts["done"],
            skipped=counts["skipped"],
            failed=counts["failed"],
            unfinished=total - len(results),
            pixels=sum(one.pixels for one in results),
            seconds=seconds or 0.0,
            failed_inputs=tuple(one.job.entry for one in failed),
            again=tuple(one.job.entry for one in failed if one.job.again),
            # A reason of its own counts only as long as it is the only one.
            exit_code=min((one.exit_code for one in failed), default=0),
        )
        if seconds is not None:
            return summary
        for one in results:
            if one.disk is not None:
                disks.add(one.job.target, one.disk)
        space = disks.tightest()
        return replace(
            summary,
            seconds=sum(one.seconds for one in results),
            patches=sum(one.patches or 0 for one in results),
            memory=max((one.memory or 0 for one in results), default=0),
            disk=sum(one.disk or 0 for one in results),
            disk_free=None if space is None else space.free,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the fields of the last line of ``--json``."""
        values = asdict(self)
        del values["again"]
        values["megapixels"] = round(values.pop("pixels") / 1e6, 3)
        values["seconds"] = round(self.seconds, 3)
        return {"summary": True} | values
