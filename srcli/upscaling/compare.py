"""The page of ``--compare``: a slider between the bicubic enlargement and the result."""

import base64
import io
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from html import escape
from pathlib import Path
from string import Template
from typing import Final, cast

import numpy as np
import torch

from srcli.errors import OutputError, SrcliError, UsageError
from srcli.files import is_pipe, one_line, reason, replacing
from srcli.imaging import images
from srcli.imaging.images import Album, Levels, Picture
from srcli.imaging.pictures import over_white
from srcli.ops.color import quantize
from srcli.ops.resample import axis_weights, resampled
from srcli.ops.spans import Span
from srcli.upscaling.config import Job
from srcli.upscaling.results import Result
from srcli.upscaling.search import is_list

__all__ = ["MOST_PICTURES", "check_page", "write_page"]

MOST_PICTURES: Final = 100
"""Pictures that a page shows, the first ones of a run: so it stays one that a browser can open."""

_WIDTH: Final = 960
_HEIGHT: Final = 640
"""Pixels of the middle of a result that are shown, each as one pixel."""

_QUALITY: Final = 90
"""Of the JPEGs in the page."""

_ANY_SIZE: Final = 1 << 40
"""Pixels of what is read by bands of rows, and so never whole."""

_TEMPLATE: Final = Path(__file__).with_name("compare.html")


def check_page(page: Path | None, jobs: Sequence[Job], inputs: Iterable[str]) -> None:
    """Refuse a page that cannot be made, or would replace what is not one.

    Raises:
        UsageError: If it is an input, a result or a list of the run, or these are streams, which
            cannot be read again.
    """
    if page is None:
        return
    paths = {path for job in jobs for path in (job.source, job.target)}
    if any(map(is_pipe, paths)):
        raise UsageError("--compare reads files again, which no pipe can be; give files")
    paths |= {Path(text[1:]) for text in inputs if is_list(text)}
    if os.path.realpath(page) in map(os.path.realpath, paths):
        shown = one_line(page)
        raise UsageError(f"--compare {shown} is an input or a result of this run; choose another")


def write_page(page: Path, results: Sequence[Result], max_pixels: int) -> bool:
    """Write a page that shows pictures before and after, whole or not at all.

    It needs no other file and no network. Inputs and results are read again, by bands of rows
    where their kind allows it. Of several frames the first is shown.

    Args:
        page: Where; an existing file is replaced.
        results: What became of the files of a run. Those that were not enlarged are counted.
        max_pixels: Pixels beyond which what cannot be read by bands is not shown.

    Returns:
        Whether there was a picture to show; else nothing is written.

    Raises:
        OutputError: If the page cannot be written.
    """
    # What is copied has no weights, and no difference to be seen.
    enlarged = [one for one in results if one.status == "done" and one.model is not None]
    if not enlarged:
        return False
    parts = _TEMPLATE.read_text(encoding="utf-8").split("<!-- section -->\n")
    head, section, tail = map(Template, parts)
    try:
        with replacing(page) as temporary, temporary.open("w", encoding="utf-8") as out:
            out.write(head.substitute(_heading(enlarged, results)))
            for result in enlarged[:MOST_PICTURES]:
                out.write(_section(section, result, max_pixels))
            out.write(tail.template)
    except OSError as error:
        raise OutputError(
            f"cannot write {one_line(page)}: {reason(error)}; choose another --compare"
        ) from error
    return True


def _heading(enlarged: Sequence[Result], results: Sequence[Result]) -> dict[str, str]:
    count = len(enlarged)
    title = "1 picture" if count == 1 else f"{count} pictures"
    ends = Counter(one.status for one in results)
    notes = [f"{ends[end]} {end}" for end in ("skipped", "failed") if ends[end]]
    copied = ends["done"] - count
    notes += [f"{copied} copied as they are"] if copied else []
    if count > MOST_PICTURES:
        notes.append(f"the first {MOST_PICTURES} of {count} are shown")
    return {"title": f"{title} enlarged by srcli", "note": ", ".join(notes)}


def _section(section: Template, result: Result, max_pixels: int) -> str:
    assert result.after is not None
    width, height = result.after
    name = escape(one_line(result.job.source.name))
    rows, columns = _middle(height, _HEIGHT), _middle(width, _WIDTH)
    try:
        bicubic, enlarged = _pair(result, rows, columns, max_pixels)
    except (SrcliError, OSError, MemoryError) as error:  # it has gone, or changed meanwhile
        return f"<h2>{name}</h2>\n<p>not shown: {escape(reason(error))}</p>\n"
    facts = _facts(result)
    if (len(rows), len(columns)) != (height, width):
        facts.append(f"its middle of {len(columns)}x{len(rows)} is shown")
    return section.substitute(
        name=name,
        facts=escape(", ".join(facts)),
        weights=escape(one_line(Path(result.model or "").name)),
        width=len(columns),
        height=len(rows),
        bicubic=_data_url(bicubic),
        result=_data_url(enlarged),
    )


def _facts(result: Result) -> list[str]:
    """List sizes, factor, weights and sharpness."""
    assert result.before is not None
    assert result.after is not None
    before, after = ("x".join(map(str, size)) for size in (result.before, result.after))
    facts = [f"{before} → {after}", f"×{result.after[0] / result.before[0]:.3g}"]
    facts.append(f"weights {one_line(result.model or '')}")
    if result.sharpness is not None:
        facts.append(f"sharpness {result.sharpness:g}")
    return facts


def _middle(length: int, most: int) -> Span:
    """Pick what is shown of an axis, output pixels."""
    start = max(0, length - most) // 2
    return Span(start, min(length, start + most))


def _pair(result: Result, rows: Span, columns: Span, max_pixels: int) -> tuple[Picture, Picture]:
    assert result.before is not None
    assert result.after is not None
    down = axis_weights(result.before[1], result.after[1], rows)
    across = axis_weights(result.before[0], result.after[0], columns)
    source = Span(down.first, down.stop), Span(across.first, across.stop)
    small = _window(result.job.source, *source, max_pixels)
    levels = torch.from_numpy(small.pixels).permute(2, 0, 1)
    larger = quantize(resampled(levels, down, across)).permute(1, 2, 0).numpy()
    return Picture(pixels=larger), _window(result.job.target, rows, columns, max_pixels)


def _window(path: Path, rows: Span, columns: Span, max_pixels: int) -> Picture:
    """Read a part of a picture as it looks: on white, in sRGB, without metadata."""
    with images.scan(path, max_pixels=_ANY_SIZE) as scan:
        if scan is not None:
            part = Picture(pixels=_rows(scan.rows, rows, columns), metadata=scan.metadata)
        else:
            whole = images.read(path, max_pixels=max_pixels)
            window = slice(rows.start, rows.stop), slice(columns.start, columns.stop)
            alpha = None if whole.alpha is None else whole.alpha[window]
            part = replace(whole, pixels=whole.pixels[window], alpha=alpha)
    return images.stripped(over_white(part))


def _rows(bands: Iterable[Levels], rows: Span, columns: Span) -> Levels:
    """Pick a window from bands that come from top to bottom; those below it are not decoded."""
    found: list[Levels] = []
    top = 0
    for band in bands:
        part = band[max(0, rows.start - top) : max(0, rows.stop - top)]
        found.append(part[:, columns.start : columns.stop].copy())
        top += len(band)
        if top >= rows.stop:
            break
    return cast("Levels", np.concatenate(found))


def _data_url(picture: Picture) -> str:
    stream = io.BytesIO()
    images.write_stream(Album(pictures=(picture,)), stream, format="JPEG", quality=_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getbuffer()).decode()}"
