"""The options of ``srcli upscale``, and the jobs that a plan makes of them."""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from srcli.errors import UsageError
from srcli.files import AUTO
from srcli.imaging import images
from srcli.imaging.formats import FORMATS, READABLE_SUFFIXES
from srcli.ops.spans import MAX_SCALE, TargetSize, output_length
from srcli.upscaler import Settings

__all__ = ["FIELDS", "STREAM", "BatchConfig", "Job"]

FIELDS: Final = re.compile(r"\{(stem|model|scale|width|height)\}")
"""What stands in the name of a result for something else."""

STREAM: Final = Path("-")
"""Stands for stdin as a source, and for stdout as a target."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchConfig:
    """What to enlarge, how far, and where the results go: see the help of each option.

    Raises:
        UsageError: If a value is out of range.
    """

    inputs: tuple[str, ...]
    """Files, folders, glob patterns, ``-`` and ``@LIST``."""

    output: Path | None = None
    """A file for one input file, else a folder; ``STREAM`` is stdout; None: beside each input.

    One file from a list counts as one of several: ``output`` is a folder, unless a file of that
    name exists or its name is that of an image. So the one failure of many lands in their folder,
    and the one failure of one under its name.
    """

    into_folder: bool = False
    """Whether ``output`` is a folder even where it is not there, and named like a file."""

    scale: float = 3.0
    """Output pixels per input pixel along each axis, 1 to 16; ``size`` comes first."""

    size: TargetSize | None = None
    """The size of every result instead of a scale."""

    suffix: str | None = None
    """What is added to a name, with fields as in ``name``.

    None: ``_x3`` or ``_1920x1080`` beside the input, nothing in a folder.
    """

    name: str | None = None
    """What a result is called without its ending, instead of a suffix: ``{stem}`` is its input's
    name, ``{model}`` that of the weights, ``{scale}`` is 3 or, of a size, 1920x1080; ``{width}``
    and ``{height}`` are the result's pixels."""

    format: str | None = None
    """File suffix of the results without the dot; None keeps the input's."""

    recursive: bool = False

    include: tuple[str, ...] = ()
    """Patterns of which a file that a folder or a pattern gave must match one; none: all match.

    As in a ``.gitignore``: without a slash they are about the file's name, with one about its path
    below the folder, in which ``**`` is any number of folders; with one at the end, about the
    folders it is in. Upper and lower case and the Unicode form do not count: cameras write .JPG.
    """

    exclude: tuple[str, ...] = ()
    """Patterns of files that are left out; a folder that matches one is left out as a whole."""

    existing: Literal["error", "skip", "overwrite"] = "error"
    model: str = AUTO
    quality: int = 95
    lossless: bool = False
    metadata: Literal["keep", "no-location", "strip"] = "keep"
    keep_times: bool = False
    fail_fast: bool = False
    settings: Settings = field(default_factory=Settings)

    max_pixels: int = images.MAX_PIXELS
    """Pixels of an input beyond which it is refused as a decompression bomb."""

    jobs: int | None = None
    """Threads that read and write around the net; None chooses."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not 1 <= self.scale <= MAX_SCALE:  # also refuses NaN
            raise UsageError(f"--scale must lie in 1..16, not {self.scale:g}")
        if self.suffix is not None and self.name is not None:
            raise UsageError("--suffix and --name exclude each other; give one")
        _check_template("--suffix", self.suffix or "")
        if self.name is not None:
            _check_template("--name", self.name)
            if not self.name or Path(self.name).suffix.lower() in READABLE_SUFFIXES:
                problem = "has an ending, which is --format's" if self.name else "is empty"
                raise UsageError(
                    f"--name {self.name!r} {problem}; give a name such as '{{stem}}_x{{scale}}'"
                )
        for option, patterns in (("--include", self.include), ("--exclude", self.exclude)):
            if not all(pattern.strip("/\\.") for pattern in patterns):
                raise UsageError(f"{option} is empty; give a pattern such as *.jpg")
        if self.jobs is not None and not 1 <= self.jobs <= 256:
            raise UsageError(f"--jobs must lie in 1..256, not {self.jobs}")

    @property
    def label(self) -> str:
        """The scale or the size as names have it: ``x3``, ``1920x1080``."""
        return f"x{self.scale:g}" if self.size is None else str(self.size).removeprefix(">=")

    @property
    def model_name(self) -> str:
        """What ``{model}`` stands for."""
        return Path(self.model).name.removesuffix(".safetensors")

    def template(self, *, beside: bool) -> str:
        """Return what a name is made of, beside the input or in a folder of results."""
        if self.name is not None:
            return self.name
        default = f"_{self.label}" if beside else ""
        return "{stem}" + (default if self.suffix is None else self.suffix)

    def result_name(self, stem: str, size: Callable[[], tuple[int, int]], *, beside: bool) -> str:
        """Name the result of an input without its ending; its size is asked for if it matters."""
        scale = f"{self.scale:g}" if self.size is None else self.label
        values = {"stem": stem, "model": self.model_name, "scale": scale}
        template = self.template(beside=beside)
        if {"width", "height"} & {*FIELDS.findall(template)}:
            values |= zip(("width", "height"), map(str, size()), strict=True)
        return FIELDS.sub(lambda field: values[field[1]], template)

    def result_size(self, width: int, height: int) -> tuple[int, int]:
        """Return width and height of the result of a picture of this size, pixels.

        Raises:
            UsageError: If that is more than the largest factor.
        """
        if self.size is None:
            return output_length(width, self.scale), output_length(height, self.scale)
        factor = self.size.factor(width, height)
        if factor > MAX_SCALE:
            raise UsageError(
                f"--size {self.size} is {float(factor):.4g} times its {width}x{height}; "
                f"choose at most {MAX_SCALE:g} times"
            )
        return self.size.of(width, height)

    @property
    def threads(self) -> int:
        """Threads that read and write; a few keep even a GPU supplied."""
        return self.jobs or min(8, os.cpu_count() or 1)

    def copies(
        self,
        target: Path,
        coding: images.Coding | None,
        before: list[tuple[int, int]],
        after: list[tuple[int, int]],
    ) -> bool:
        """Whether a file is what ``size`` asks for already: its size, format and metadata."""
        if self.size is None or self.metadata != "keep" or before != after or coding is None:
            return False
        if target != STREAM:
            return coding.format == images.format_of(target)
        if self.format is None:
            return coding.format in FORMATS
        return coding.format == self.wanted_format

    @property
    def wanted_format(self) -> str | None:
        """The format that ``format`` asks for; None where it keeps the input's."""
        return images.format_of(Path(f"a.{self.format}"))

    @property
    def given_model(self) -> str | None:
        """The weights that were given; None where they are chosen for each file."""
        return None if self.model == AUTO else self.model


def _check_template(option: str, text: str) -> None:
    if "/" in text or "\\" in text:
        raise UsageError(f"{option} {text!r} must not contain a path separator")
    if set("{}") & set(FIELDS.sub("", text)):
        raise UsageError(
            f"{option} {text!r}: what stands in braces must be {{stem}}, {{model}}, {{scale}}, "
            "{width} or {height}"
        )


@dataclass(frozen=True, slots=True)
class Job:
    """One input file and where its result goes."""

    source: Path
    """The file; ``STREAM`` is stdin."""

    target: Path
    """The result; ``STREAM`` is stdout."""

    entry: str
    """The input as a list names it: the same command with ``@LIST`` gives the same target."""

    problem: str | None = None
    """Why it cannot be done, if that is known before reading it. A folder that cannot be read
    is a job with a problem too: nothing is left out silently."""

    again: bool = True
    """Whether a list of failures names it: not where its result is an input. Given back without
    that one, it would replace it."""
