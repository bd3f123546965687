"""Pictures drawn by matplotlib: curves of a run's log, and sheets of images with words around.

All are PNG files, the same bytes for the same input. matplotlib is imported only when
something is drawn: who trains without pictures does not wait for it.
"""

import logging
import textwrap
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from srcli.data.degrading import degrade
from srcli.errors import OutputError
from srcli.files import one_line, replacing
from srcli.ops.color import dequantize, quantize
from srcli.ops.degradation import Degradation
from srcli.ops.metrics import psnr
from srcli.training.images import TrainingImages, input_and_target

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Cell", "draw_curves", "draw_samples", "sheet"]

_DPI = 128
"""Pixels per inch. A power of two, so that pixels / dpi * dpi is exact and no side loses one."""

_FONT, _TITLE_FONT = 11.5, 14.0
"""Size of all text, and of the title of the curves, in points: 20 and 25 pixels."""

_STYLE = {
    "axes.axisbelow": True,
    "axes.edgecolor": "#444444",
    "axes.formatter.useoffset": False,
    "axes.grid": True,
    # The "high-contrast" scheme of Paul Tol, Colour Schemes (SRON/EPS/TN/09-002, 2021):
    # distinct for colour-blind readers, and as greys.
    "axes.prop_cycle": "cycler(color=['#004488', '#bb5566', '#ddaa33', 'k'], "
    "linestyle=['-', '--', '-.', ':'], marker=['o', 's', '^', 'D'])",
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": _FONT,
    "grid.color": "#dddddd",
    "legend.frameon": False,
    "legend.handlelength": 3.0,  # room for the dashes
    "lines.linewidth": 2.0,
    "text.parse_math": False,  # a dollar sign in a title is a dollar sign
}
"""What differs from matplotlib's default style."""

_LOG_FACTOR = 5.0
"""A loss whose values span more than this factor is drawn on a logarithmic axis."""

_PANEL_WIDTH, _PANEL_HEIGHT = 640, 576
"""Pixels of one panel of curves."""

_MAX_MARKERS = 25
"""With more points than these only some carry a marker, or the markers would hide the line."""

_IMAGE_SIDE, _CELL_WIDTH = 280, 240
"""The longer side of a sheet's images, near which a whole zoom comes, and the least width of a
cell: pixels."""

_GAP = 12
"""White pixels between the cells of a sheet and around them."""

_LETTER_WIDTH, _LINE = 0.6 * _FONT * _DPI / 72, 1.3 * _FONT * _DPI / 72
"""Average width of a letter and height of a line, pixels: the words of a sheet are wrapped so."""


class Cell(NamedTuple):
    """One image of a sheet, and the words around it."""

    image: NDArray[np.uint8]
    """``(H, W, 3)`` RGB or ``(H, W, 1)`` grey."""

    title: str = ""
    """Words above it."""

    caption: str = ""
    """Words below it."""


def draw_curves(path: Path, rows: Sequence[Mapping[str, float]], loss: str) -> None:
    """Draw the log's loss (of that name), accuracy and PSNR against the epoch, as PNG.

    Raises:
        OutputError: If the file cannot be written; what was there stays.
    """
    training, evaluation = "training", "evaluation"
    panels = {
        f"loss ({loss})": {training: "loss", evaluation: "eval_loss"},
        "accuracy": {training: "accuracy", evaluation: "eval_accuracy"},
        "PSNR, dB": {evaluation: "eval_psnr", "bicubic": "baseline_psnr"},
    }
    if any("discriminator" in row for row in rows):
        parts = "features", "adversarial", "discriminator"
        panels["parts of the loss"] = dict(zip(parts, parts, strict=True))
    width = _PANEL_WIDTH * len(panels)
    # A letter is at most a font size wide: no title leaves the figure.
    title = textwrap.fill(one_line(path.parent.name), int(width / (_TITLE_FONT * _DPI / 72)))
    with _figure(path, "--output") as figure:
        figure.set_size_inches(width / _DPI, _PANEL_HEIGHT / _DPI)
        figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.08)
        figure.suptitle(title, fontsize=_TITLE_FONT)
        for axes, (name, columns) in zip(
            figure.subplots(1, len(panels)), panels.items(), strict=True
        ):
            axes.set(xlabel="epoch", ylabel=name)
            _draw_lines(axes, rows, columns)


def _draw_lines(
    axes: "Axes", rows: Sequence[Mapping[str, float]], columns: Mapping[str, str]
) -> None:
    """Draw columns of the log by their labels, or the words that there are none.

    A loss gets a logarithmic axis where it is positive and spans more than a factor of 5.
    """
    values: list[float] = []
    for label, column in columns.items():
        own = [row for row in rows if column in row]
        y = [row[column] for row in own]
        # A curve without values is drawn too, unseen, so that the next one keeps its colour.
        axes.plot(
            [row["epoch"] for row in own],
            y,
            label=label if own else "_",
            markevery=-(-len(own) // _MAX_MARKERS) or 1,
        )
        values += y
    if not values:
        axes.set(xticks=[], yticks=[])
        axes.text(0.5, 0.5, "no values yet", ha="center", va="center", transform=axes.transAxes)
        return
    axes.locator_params(axis="x", integer=True, min_n_ticks=1)
    low, high = min(values), max(values)
    if "loss" in axes.get_ylabel() and 0 < low < high / _LOG_FACTOR:
        axes.set_yscale("log", subs=[2, 5])
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("{x:g}")
        axes.grid(visible=True, which="both")
    # Above the axes, where no curve can run behind it.
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)


@torch.no_grad()
def draw_samples(
    path: Path,
    images: TrainingImages,
    degradation: Degradation,
    restore: Callable[[Tensor, Sequence[float]], Tensor],
) -> None:
    """Draw LR, output and HR of a few images that the net was not trained on, if there are any.

    ``restore`` takes enlarged patches and their scales and returns what the net makes of them.

    Raises:
        OutputError: If the file cannot be written.
    """
    rows: list[list[Cell]] = []
    for batch in images.samples():
        image, target = input_and_target(batch, degradation)
        output = restore(image, batch.scales).clamp(0, 1)
        low = degrade(target, batch.scales[0], degradation, batch.draws)
        if batch.lows:
            low = dequantize(batch.lows[0])[None]
        before, after = (float(psnr(one.clamp(0, 1), target)) for one in (image, output))
        captions = (f"bicubic {before:.2f} dB", f"{after:.2f} dB", "")
        titles = ("", "", "") if rows else ("LR", "output", "HR")  # above the first row alone
        pixels = [quantize(one[0]).permute(1, 2, 0).cpu().numpy() for one in (low, output, target)]
        rows.append([Cell(*cell) for cell in zip(pixels, titles, captions, strict=True)])
    if rows:
        sheet(path, rows)


def sheet(path: Path, rows: Sequence[Sequence[Cell]], *, option: str = "--output") -> None:
    """Draw images in rows into a PNG file, words above and below each; the last may be shorter.

    A cell is as large as the largest image, enlarged by a whole factor that brings its longer side
    near 280 pixels: each pixel is a square. Words wider than their cell are wrapped.

    Raises:
        OutputError: If the file cannot be written, naming the option; what was there stays.
    """
    cells = [cell for row in rows for cell in row]
    height, width = (max(cell.image.shape[axis] for cell in cells) for axis in (0, 1))
    zoom = max(1, round(_IMAGE_SIDE / max(height, width)))
    height, width = height * zoom, max(width * zoom, _CELL_WIDTH)
    texts = [_wrapped(text, width) for cell in cells for text in (cell.title, cell.caption)]
    words = _GAP + int(_LINE * max(text.count("\n") + 1 for text in texts))
    whole = _GAP + (width + _GAP) * len(rows[0]), (height + 2 * words) * len(rows)
    with _figure(path, option) as figure:
        figure.set_size_inches(whole[0] / _DPI, whole[1] / _DPI)
        for number, cell in enumerate(cells):
            row, column = divmod(number, len(rows[0]))
            left = _GAP + (width + _GAP) * column
            bottom = whole[1] - (height + 2 * words) * row - words - height
            axes = figure.add_axes(
                (left / whole[0], bottom / whole[1], width / whole[0], height / whole[1])
            )
            axes.set_axis_off()
            colors = np.broadcast_to(cell.image, (*cell.image.shape[:2], 3))  # grey has one channel
            axes.imshow(colors, interpolation="nearest")
            axes.set_title(_wrapped(cell.title, width), fontsize=_FONT)
            caption = _wrapped(cell.caption, width)
            axes.text(0.5, -0.02, caption, ha="center", va="top", transform=axes.transAxes)


def _wrapped(text: str, width: int) -> str:
    """Break words to a width in pixels."""
    return textwrap.fill(one_line(text), int(width / _LETTER_WIDTH))


@contextmanager
def _figure(path: Path, option: str) -> Iterator["Figure"]:
    """Give a figure to draw on, on no screen and in no global list, and write it.

    matplotlib is silenced, and draws the same whatever a user's matplotlibrc says: it logs that
    it builds its font cache and warns of letters that its font does not have, nothing that the
    user of a training run can act on.
    """
    logger = logging.getLogger("matplotlib")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    content = BytesIO()
    try:
        from matplotlib import style  # noqa: PLC0415 - see the module
        from matplotlib.figure import Figure  # noqa: PLC0415 - see the module

        with style.context(["default", _STYLE]), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
            figure = Figure(dpi=_DPI, facecolor="white")
            yield figure
            # Without the version of matplotlib: the same bytes from any.
            figure.savefig(content, format="png", metadata={"Software": None})
    finally:
        logger.setLevel(level)
    try:
        with replacing(path) as temporary:
            temporary.write_bytes(content.getvalue())
    except OSError as error:
        raise OutputError(
            f"cannot write {one_line(str(path))}: {error.strerror or error}; give another {option}"
        ) from error
