"""``srcli upscale``: files in, larger files out."""

import os
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from srcli.cli.console import check_output, loading
from srcli.cli.options import (
    FILES,
    MESSAGES,
    NET,
    OUTPUT,
    BatchSize,
    Device,
    DType,
    Engine,
    Overlap,
    Threads,
    Tile,
    complete_model,
    option,
    settings_of,
    use_threads,
    whole_number,
)
from srcli.errors import UsageError
from srcli.files import DEFAULT_SHARPNESS, one_line
from srcli.ops.spans import TargetSize

__all__ = ["UPSCALE_HELP", "upscale"]

_SLASHES = ("/", os.sep)

# Paragraphs are one line each: the help's renderer wraps them and keeps every line break.
UPSCALE_HELP = (
    "Enlarge images.\n\n"
    "A result appears whole under its final name, or not at all. An input is never overwritten. "
    "A file that fails does not stop the others: each has its line, and the exit code is 1.\n\n"
    "[bold]srcli upscale photo.jpg[/]  # photo_x3.jpg, three times as wide and high\n\n"
    "[bold]srcli upscale photo.jpg -s 2 -o large.png[/]  # twice as large, as PNG\n\n"
    "[bold]srcli upscale *.jpg --size 3840x2160 -o big[/]  # as large as fits into it\n\n"
    "[bold]srcli upscale holiday -r --skip-existing[/]  # the tree holiday_x3; resumes\n\n"
    "[bold]srcli upscale holiday -r --failed-list failed.txt[/]  # list what fails ...\n\n"
    "[bold]srcli upscale @failed.txt[/]  # ... and try that again\n\n"
    "[bold]srcli upscale - -f png < photo.jpg > large.png[/]  # stdin to stdout\n\n"
    "[bold]torchrun --nproc-per-node 4 -m srcli upscale holiday -r[/]  # split by four\n\n"
    "Exit codes: 0 all done or skipped, 1 a file failed, 2 wrong usage, 3 no image found, "
    "4 no such weights, 5 no such device or out of memory, 130 and 143 stopped by a signal."
)

Inputs = Annotated[
    list[str],
    typer.Argument(
        help="Image files, folders, glob patterns, - for stdin, @LIST for a list of paths.",
        metavar="INPUT",
        show_default=False,
    ),
]

# ---- files ------------------------------------------------------------------------------------

Recursive = Annotated[
    bool, option(FILES, "--recursive", "-r", text="Search folders recursively; the tree is kept.")
]
Include = Annotated[
    list[str] | None,
    option(
        FILES,
        text="Take only such files of folders and patterns ('*.jpg', '2019/**'); repeatable.",
        metavar="PATTERN",
    ),
]
Exclude = Annotated[
    list[str] | None,
    option(FILES, text="Leave out such files and folders; repeatable.", metavar="PATTERN"),
]
SkipExisting = Annotated[
    bool, option(FILES, "--skip-existing", text="Leave outputs that are there already.")
]
Overwrite = Annotated[
    bool, option(FILES, "--overwrite", text="Replace outputs that are there already.")
]
FailFast = Annotated[bool, option(FILES, "--fail-fast", text="Stop at the first failure.")]
FailedList = Annotated[
    Path | None,
    option(
        FILES,
        text="Write the inputs that failed to this file, to be given back as @FILE; it is empty "
        "if none did.",
        metavar="FILE",
    ),
]
MaxPixels = Annotated[
    int | None,
    option(
        FILES,
        text="Refuse inputs of more pixels as decompression bombs.",
        metavar="N",
        default="178956970",
        min=1,
    ),
]
DryRun = Annotated[
    bool,
    option(
        FILES,
        "--dry-run",
        "-n",
        text="Report what would be done, with estimates of memory, disk space and time; write "
        "nothing.",
    ),
]

# ---- results ----------------------------------------------------------------------------------

Output = Annotated[
    str | None,
    option(
        OUTPUT,
        "--output",
        "-o",
        text="A file for one file, else a folder (made if missing; a name with a slash at its end "
        "is one); - is stdout.",
        metavar="PATH",
        default="photo_x3.jpg beside photo.jpg, folder photos_x3 beside photos",
    ),
]
Scale = Annotated[
    float | None,
    option(OUTPUT, "--scale", "-s", text="Any factor from 1 to 16.", metavar="F", default="3"),
]
Size = Annotated[
    str | None,
    option(
        OUTPUT,
        text="Instead of a scale: 1920x, x1080, 1920x1080 (fit inside) or '>=3840x2160' (cover). "
        "Images already that large are copied as they are.",
        metavar="SPEC",
    ),
]
Format = Annotated[
    Literal["auto", "png", "jpg", "jpeg", "webp", "avif", "tiff", "tif", "gif", "bmp", "ppm"],
    option(
        OUTPUT,
        "--format",
        "-f",
        text="auto is the input's; png, jpg, webp, avif, tiff, gif, bmp, ppm.",
        metavar="FORMAT",
        case_sensitive=False,
    ),
]
Quality = Annotated[
    int,
    option(
        OUTPUT,
        text="JPEG, WebP and AVIF quality, 1 to 100; JPEG is written as 4:4:4.",
        metavar="N",
        min=1,
        max=100,
    ),
]
Lossless = Annotated[bool, option(OUTPUT, "--lossless", text="Lossless WebP; AVIF at its best.")]
MetadataChoice = Annotated[
    Literal["keep", "no-location", "strip"],
    option(
        OUTPUT,
        text="EXIF, XMP, ICC profile, resolution and texts. no-location drops the place alone; "
        "strip converts the colours to sRGB.",
    ),
]
KeepTimes = Annotated[
    bool,
    option(OUTPUT, "--keep-times", text="Give each result the modification time of its input."),
]
Suffix = Annotated[
    str | None,
    option(
        OUTPUT,
        text="Added to the name; {scale} is the factor.",
        metavar="TEXT",
        default="_x{scale} beside the input, none in a folder",
    ),
]
Name = Annotated[
    str | None,
    option(
        OUTPUT,
        text="Instead of a suffix the whole name without its ending, such as "
        "'{stem}_{model}_x{scale}'.",
        metavar="TEXT",
    ),
]
Compare = Annotated[
    Path | None,
    option(
        OUTPUT,
        text="Write a page for the browser: a slider between the bicubic enlargement and the "
        "result of each picture.",
        metavar="FILE.html",
    ),
]

# ---- network ----------------------------------------------------------------------------------

Model = Annotated[
    str,
    option(
        NET,
        "--model",
        "-m",
        text="Shipped weights by name, or a .safetensors file. auto chooses for each file: photo "
        "for a JPEG of quality 84 or less, else base.",
        metavar="auto|NAME|FILE",
        completion=complete_model,
    ),
]
Sharpness = Annotated[
    float | None,
    option(
        NET,
        text="0 (faithful) to 1 (crisp; it invents texture): the weights are mixed with their "
        "sharp sibling, base with sharp. It takes no more time.",
        metavar="S",
        default=f"{DEFAULT_SHARPNESS:g}; weights such as sharp as they are",
    ),
]
Ensemble = Annotated[
    bool,
    option(
        NET,
        "--tta",
        "-x",
        text="Average over the eight flips and turns of a patch: slightly better, eight times "
        "slower. Symmetric weights do not need it.",
    ),
]
Jobs = Annotated[
    str,
    option(
        NET,
        "--jobs",
        "-j",
        text="Threads that read and write files around the net.",
        metavar="N|auto",
    ),
]

# ---- messages ---------------------------------------------------------------------------------

Json = Annotated[
    bool,
    option(
        MESSAGES, "--json", text="Print one JSON object for each file on stdout, then a summary."
    ),
]
Verbose = Annotated[
    bool,
    option(
        MESSAGES, "--verbose", "-v", text="Print the device, and the weights and time of each file."
    ),
]
Quiet = Annotated[bool, option(MESSAGES, "--quiet", "-q", text="Print only errors.")]
NoProgress = Annotated[bool, option(MESSAGES, "--no-progress", text="No progress bar.")]


def upscale(
    inputs: Inputs,
    *,
    recursive: Recursive = False,
    include: Include = None,
    exclude: Exclude = None,
    skip_existing: SkipExisting = False,
    overwrite: Overwrite = False,
    fail_fast: FailFast = False,
    failed_list: FailedList = None,
    max_pixels: MaxPixels = None,
    dry_run: DryRun = False,
    output: Output = None,
    scale: Scale = None,
    size: Size = None,
    file_format: Format = "auto",
    quality: Quality = 95,
    lossless: Lossless = False,
    metadata: MetadataChoice = "keep",
    keep_times: KeepTimes = False,
    suffix: Suffix = None,
    name: Name = None,
    compare: Compare = None,
    model: Model = "auto",
    sharpness: Sharpness = None,
    tta: Ensemble = False,
    tile: Tile = "auto",
    overlap: Overlap = "auto",
    batch_size: BatchSize = "auto",
    device: Device = "auto",
    dtype: DType = "auto",
    engine: Engine = "auto",
    threads: Threads = None,
    jobs: Jobs = "auto",
    as_json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
    no_progress: NoProgress = False,
) -> None:
    """Enlarge images."""
    bar = not (quiet or no_progress or as_json) and sys.stderr.isatty()
    with loading(shown=bar):
        from srcli.cli import enlarging
        from srcli.cli.reporter import Verbosity
        from srcli.imaging import images
        from srcli.upscaling.config import STREAM, BatchConfig

    if skip_existing and overwrite:
        raise UsageError("--skip-existing and --overwrite exclude each other; give one")
    if quiet and verbose:
        raise UsageError("--quiet and --verbose exclude each other; give one")
    if scale is not None and size is not None:
        raise UsageError("--scale and --size exclude each other; give one")
    config = BatchConfig(
        inputs=tuple(inputs),
        output=None if output is None else Path(output),
        into_folder=output is not None and output.endswith(_SLASHES),
        scale=3.0 if scale is None else scale,
        size=None if size is None else TargetSize.parse(size.strip()),
        suffix=suffix,
        name=name,
        model=model,
        format=None if file_format == "auto" else file_format,
        recursive=recursive,
        include=tuple(include or ()),
        exclude=tuple(exclude or ()),
        existing="skip" if skip_existing else "overwrite" if overwrite else "error",
        quality=quality,
        lossless=lossless,
        metadata=metadata,
        keep_times=keep_times,
        max_pixels=images.MAX_PIXELS if max_pixels is None else max_pixels,
        fail_fast=fail_fast,
        jobs=whole_number("--jobs", jobs),
        settings=settings_of(
            tile,
            overlap,
            batch_size,
            device=device,
            dtype=dtype,
            engine=engine,
            tta=tta,
            sharpness=sharpness,
        ),
    )
    _check_reports(failed_list, compare)
    if as_json and config.output == STREAM:
        raise UsageError("--json and --output - both want stdout; give one")
    use_threads(threads)
    quiet = quiet or (as_json and not verbose)
    verbosity = Verbosity(as_json=as_json, verbose=verbose, quiet=quiet, bar=bar)
    if dry_run:
        enlarging.estimate(config, verbosity)
    else:
        enlarging.enlarge(config, verbosity, failed_list, compare)


def _check_reports(failed_list: Path | None, page: Path | None) -> None:
    if failed_list is not None:
        check_output(failed_list, "--failed-list")
    if page is not None:
        if page.suffix.lower() not in {".html", ".htm"}:
            what = f"--compare {one_line(page)} must end in .html"
            raise UsageError(f"{what}; give a name such as page.html")
        check_output(page, "--compare")
