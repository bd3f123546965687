"""The pictures that are drawn: curves over the epochs, sheets of sample images, panels of details.

All are PNG files, the same bytes for the same input. matplotlib is imported only when
something is drawn: who trains without pictures does not wait for it.
"""

import logging
import re
import textwrap
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from srcli.errors import OutputError
from srcli.files import one_line, replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Cell", "Curve", "curves", "panel", "samples"]

_DPI = 128
"""Pixels per inch. A power of two, so that pixels / dpi * dpi is exact and no side loses one."""

_FONT, _TITLE_FONT = 11.5, 14.0
"""Size of all text, and of the title of the curves, in points: 20 and 25 pixels."""

_STYLE = {
    "axes.axisbelow": True,
    "axes.edgecolor": "#444444",
    "axes.formatter.useoffset": False,
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": _FONT,
    "grid.color": "#dddddd",
    "legend.frameon": False,
    "legend.handlelength": 3.0,  # room for the dashes
    "lines.linewidth": 2.0,
    "lines.markersize": 6.0,
    "text.parse_math": False,  # a dollar sign in a title is a dollar sign
}
"""What differs from matplotlib's default style."""

_LINES = (("#004488", "-", "o"), ("#bb5566", "--", "s"), ("#ddaa33", "-.", "^"), ("k", ":", "D"))
"""Colour, line and marker of a panel's curves in their order.

The colours are the "high-contrast" scheme of Paul Tol, Colour Schemes (SRON/EPS/TN/09-002,
2021): distinct for colour-blind readers, and as greys."""

_LOG_FACTOR = 5.0
"""A loss whose values span more than this factor is drawn on a logarithmic axis."""

_PANEL_WIDTH, _PANEL_HEIGHT, _LEAST_WIDTH = 640, 576, 1024
"""Pixels of one panel, and the least of a figure of any number of panels."""

_LABELLED_DECADES = 4
"""A logarithmic axis over more than these has labels at the powers of ten alone."""

_MOST_MARKERS = 25
"""With more points than these only some carry a marker, or the markers would hide the line."""

_CELL_WIDTH = 240
"""The least width of a cell of a sheet, in pixels."""

_MARGIN, _GAP, _TEXT_STRIP = 16, 12, 32
"""White pixels of a sheet: around it, between cells, and the height of a line of text."""

_BASELINE = 23
"""Where letters stand in their strip, in pixels from its upper edge."""

_MOST_COLUMNS = 6
"""More cells of a panel than these go on in another row: a screen has about that much width."""

_DETAIL_SIDE = 320
"""The longer side of a panel's images, in pixels, as far as whole factors come near it."""

_LETTER = 0.6
"""Width of a letter in font sizes, on average: where a panel's words go on in the next line."""

_WHITE = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """One line of a panel.

    Raises:
        ValueError: If ``x`` and ``y`` differ in length.
    """

    label: str
    """What the legend calls it."""

    x: Sequence[float]
    """Epochs."""

    y: Sequence[float]
    """One value per epoch; what is not finite is left out."""

    def __post_init__(self) -> None:
        """Check that every epoch has its value."""
        if len(self.x) != len(self.y):
            raise ValueError(
                f"curve {self.label!r} has {len(self.y)} values for {len(self.x)} epochs"
            )


# Not compared by value: arrays have no single truth value.
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cell:
    """One image of a panel."""

    title: str
    """What stands above it."""

    image: NDArray[np.uint8]
    """``(H, W, 3)`` RGB or ``(H, W, 1)`` grey, ``uint8``."""

    caption: str = ""
    """What stands below it."""


def curves(path: Path, panels: Mapping[str, Sequence[Curve]], *, title: str) -> None:
    """Draw curves over the epochs, one panel beside the other.

    A panel whose name holds the word "loss" gets a logarithmic axis where its values are
    positive and span more than a factor of 5. A panel without a single value says so.

    Args:
        path: The PNG file to write or replace; its folder must exist.
        panels: What each panel shows, by the name of its vertical axis, left to right.
        title: What stands above all panels.

    Raises:
        OutputError: If the file cannot be written; what was there stays.
        ValueError: If there are no panels.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> evaluation = Curve(label="evaluation", x=[1, 2], y=[27.1, 28.4])
        >>> with TemporaryDirectory() as folder:
        ...     curves(Path(folder, "curves.png"), {"PSNR, dB": [evaluation]}, title="a run")
    """
    if not panels:
        raise ValueError("curves need at least one panel")
    width = max(_LEAST_WIDTH, _PANEL_WIDTH * len(panels))
    with _drawing():
        figure = _figure(width, _PANEL_HEIGHT)
        figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.08)
        figure.suptitle(_wrapped(title, width), fontsize=_TITLE_FONT)
        row = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, (name, lines) in zip(row, panels.items(), strict=True):
            _draw_panel(axes, name, lines)
        content = _png(figure)
    _write(path, content)


def samples(
    path: Path,
    columns: Sequence[str],
    rows: Sequence[Sequence[NDArray[np.uint8]]],
    captions: Sequence[Sequence[str]] | None = None,
) -> None:
    """Draw a sheet of images, pixel for pixel.

    All cells are shown at one size: that of the largest image, times the smallest whole factor
    that makes it at least 240 pixels wide. A pixel of an image of the largest size is a square
    of its exact colour; smaller images are repeated without interpolation until they fill the
    cell. An image of another shape than the cell keeps its shape, on white.

    Args:
        path: The PNG file to write or replace; its folder must exist.
        columns: What stands above each column.
        rows: One image per column, ``(H, W, 3)`` RGB or ``(H, W, 1)`` grey, ``uint8``.
        captions: What stands below each cell, by row and column; None leaves no room for it.

    Raises:
        OutputError: If the file cannot be written; what was there stays.
        ValueError: If a row has more or fewer images or captions than there are columns, if
            there are no cells, or if an image is of another layout.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> low, high = np.zeros((40, 40, 3), np.uint8), np.zeros((120, 120, 3), np.uint8)
        >>> with TemporaryDirectory() as folder:
        ...     samples(Path(folder, "samples.png"), ["LR", "HR"], [[low, high]])
    """
    _require_table(columns, rows, captions)
    _require_images(rows)
    sheet = _sheet(rows, captioned=captions is not None)
    with _drawing():
        figure = _figure(sheet.width, sheet.height)
        figure.figimage(_composed(sheet, rows), origin="upper")
        for index, column in enumerate(columns):
            _write_under(figure, sheet, column, sheet.left(index), _MARGIN)
        for row, texts in enumerate(captions or ()):
            for index, text in enumerate(texts):
                below = sheet.top(row) + sheet.cell_height
                _write_under(figure, sheet, text, sheet.left(index), below)
        content = _png(figure)
    _write(path, content)


def panel(path: Path, cells: Sequence[Cell]) -> None:
    """Draw one detail as several methods show it, side by side.

    Every pixel becomes a square of its exact colour, the factor such that the longer side comes
    near 320 pixels. More than six cells stand in several rows of about the same number.
    Long words go on in the next line.

    Args:
        path: The PNG file to write or replace; its folder must exist.
        cells: Left to right and down, at least one; images of one height and width.

    Raises:
        OutputError: If the file cannot be written; what was there stays.
        ValueError: If there are no cells, or if an image is of another size or layout.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> detail = Cell(title="HR", image=np.zeros((40, 40, 3), np.uint8), caption="40x40")
        >>> with TemporaryDirectory() as folder:
        ...     panel(Path(folder, "panel.png"), [detail, detail])
    """
    images = [cell.image for cell in cells]
    _require_images([images])
    if len({image.shape[:2] for image in images}) != 1:  # none at all, too
        raise ValueError(f"a panel needs images of one size, not {[x.shape for x in images]}")
    sheet = _panel_sheet(cells)
    places = [divmod(index, sheet.columns) for index in range(len(cells))]
    with _drawing():
        figure = _figure(sheet.width, sheet.height)
        whole = np.full((sheet.height, sheet.width, 3), _WHITE, np.uint8)
        for image, (row, column) in zip(images, places, strict=True):
            _put(whole, _repeated(image), sheet, row, column)
        figure.figimage(whole, origin="upper")
        for cell, (row, column) in zip(cells, places, strict=True):
            left, below = sheet.left(column), sheet.top(row) + sheet.cell_height
            title = _lines(cell.title, sheet.cell_width)
            above = sheet.top(row) - len(title) * _TEXT_STRIP  # the last line beside the image
            _write_lines(figure, sheet, title, left, above)
            _write_lines(figure, sheet, _lines(cell.caption, sheet.cell_width), left, below)
        content = _png(figure)
    _write(path, content, "--panels")


@contextmanager
def _drawing() -> Iterator[None]:
    """Make matplotlib silent, and the same whatever a user's matplotlibrc says.

    It logs that it builds its font cache, or that it has nowhere to keep it, and warns of
    letters that its font does not have: nothing that the user of a training run can act on.
    """
    logger = logging.getLogger("matplotlib")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        from matplotlib import style  # noqa: PLC0415 - see the module

        with style.context(["default", _STYLE]), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
            yield
    finally:
        logger.setLevel(level)


def _figure(width: int, height: int) -> "Figure":
    """Make an empty figure of so many pixels, on no screen and in no global list."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - see the module

    return Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI, facecolor="white")


def _png(figure: "Figure") -> bytes:
    """Draw a figure, without saying by which version of what."""
    content = BytesIO()
    figure.savefig(content, format="png", metadata={"Software": None})
    return content.getvalue()


def _write(path: Path, content: bytes, option: str = "--output") -> None:
    try:
        with replacing(path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise OutputError(
            f"cannot write {one_line(str(path))}: {error.strerror or error}; give another {option}"
        ) from error


def _wrapped(title: str, width: int) -> str:
    """Break a title where it would leave the figure: a letter is at most a font size wide."""
    return textwrap.fill(one_line(title), int(width / (_TITLE_FONT * _DPI / 72)))


def _draw_panel(axes: "Axes", name: str, lines: Sequence[Curve]) -> None:
    """Draw the curves of one panel, or the words that there are none."""
    axes.set_xlabel("epoch")
    axes.set_ylabel(name)
    points = [_finite(curve) for curve in lines]
    if not any(len(x) for x, _ in points):
        axes.set(xticks=[], yticks=[])
        axes.text(0.5, 0.5, "no values yet", ha="center", va="center", transform=axes.transAxes)
        return
    for index, (curve, (x, y)) in enumerate(zip(lines, points, strict=True)):
        if len(x):
            _draw_line(axes, index, curve.label, x, y)
    _scale_axes(axes, name, np.concatenate([y for _, y in points]))
    # Above the axes, where no curve can run behind it.
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)


def _draw_line(
    axes: "Axes", index: int, label: str, x: NDArray[np.float64], y: NDArray[np.float64]
) -> None:
    color, line, marker = _LINES[index % len(_LINES)]
    every = -(-len(x) // _MOST_MARKERS)
    axes.plot(x, y, label=label, color=color, linestyle=line, marker=marker, markevery=every)


def _scale_axes(axes: "Axes", name: str, values: NDArray[np.float64]) -> None:
    """Put whole epochs below, and plain decimals beside."""
    axes.locator_params(axis="x", integer=True, min_n_ticks=1)
    if _is_logarithmic(name, values):
        few = values.max() < values.min() * 10**_LABELLED_DECADES
        axes.set_yscale("log", subs=[2, 5] if few else [])
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("{x:g}")
        axes.grid(visible=True, which="both")


def _is_logarithmic(name: str, values: NDArray[np.float64]) -> bool:
    """Whether a panel of these finite values is a loss that needs a logarithmic axis."""
    low, high = values.min(), values.max()
    return bool("loss" in name.casefold() and low > 0 and high > _LOG_FACTOR * low)


def _finite(curve: Curve) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Leave out the points that cannot be drawn."""
    x, y = np.asarray(curve.x, np.float64), np.asarray(curve.y, np.float64)
    kept = np.isfinite(x) & np.isfinite(y)
    return x[kept], y[kept]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sheet:
    """Where the cells of a sheet lie, in pixels from its upper left corner."""

    rows: int
    columns: int
    cell_height: int
    cell_width: int
    caption_strip: int
    title_strip: int = 0
    """Above every row; the titles of a table stand above its first row alone."""

    header_strip: int = _TEXT_STRIP

    @property
    def height(self) -> int:
        return self.top(self.rows) - self.title_strip - _GAP + _MARGIN

    @property
    def width(self) -> int:
        return self.left(self.columns) - _GAP + _MARGIN

    def top(self, row: int) -> int:
        pitch = self.title_strip + self.cell_height + self.caption_strip + _GAP
        return _MARGIN + self.header_strip + self.title_strip + row * pitch

    def left(self, column: int) -> int:
        return _MARGIN + column * (self.cell_width + _GAP)


def _sheet(rows: Sequence[Sequence[NDArray[np.uint8]]], *, captioned: bool) -> _Sheet:
    """Give every cell the size of the largest image, enlarged by a whole factor."""
    height, width = (max(image.shape[axis] for row in rows for image in row) for axis in (0, 1))
    factor = -(-_CELL_WIDTH // width)
    return _Sheet(
        rows=len(rows),
        columns=len(rows[0]),
        cell_height=height * factor,
        cell_width=width * factor,
        caption_strip=_TEXT_STRIP if captioned else 0,
    )


def _composed(sheet: _Sheet, rows: Sequence[Sequence[NDArray[np.uint8]]]) -> NDArray[np.uint8]:
    """Put every image into its cell: ``(H, W, 3)``, white elsewhere."""
    whole = np.full((sheet.height, sheet.width, 3), _WHITE, np.uint8)
    for row, column in product(range(sheet.rows), range(sheet.columns)):
        image = _enlarged(rows[row][column], sheet.cell_height, sheet.cell_width)
        _put(whole, image, sheet, row, column)
    return whole


def _put(
    whole: NDArray[np.uint8], image: NDArray[np.uint8], sheet: _Sheet, row: int, column: int
) -> None:
    """Paste an image into the middle of its cell."""
    top = sheet.top(row) + (sheet.cell_height - image.shape[0]) // 2
    left = sheet.left(column) + (sheet.cell_width - image.shape[1]) // 2
    whole[top : top + image.shape[0], left : left + image.shape[1]] = image


def _panel_sheet(cells: Sequence[Cell]) -> _Sheet:
    """Give every cell the room of its image and of its words, in rows of about one length."""
    height, width = _repeated(cells[0].image).shape[:2]
    rows = -(-len(cells) // _MOST_COLUMNS)
    cell_width = max(width, _CELL_WIDTH)
    title, caption = (
        max(len(_lines(text, cell_width)) for text in texts) * _TEXT_STRIP
        for texts in ([cell.title for cell in cells], [cell.caption for cell in cells])
    )
    return _Sheet(
        rows=rows,
        columns=-(-len(cells) // rows),
        cell_height=height,
        cell_width=cell_width,
        title_strip=title,
        caption_strip=caption,
        header_strip=0,
    )


def _repeated(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Enlarge a panel's image by a whole factor, each pixel a square."""
    factor = max(1, _DETAIL_SIDE // max(image.shape[:2]))
    return image.repeat(factor, 0).repeat(factor, 1)


def _lines(text: str, width: int) -> list[str]:
    """Break words where they would leave a cell: behind separators as paths have, else anywhere."""
    letters = int(width / (_LETTER * _FONT * _DPI / 72))
    part = rf"[^/\s_-]{{0,{letters - 1}}}[/\s_-]|[^/\s_-]{{1,{letters}}}"
    lines: list[str] = []
    for word in re.findall(part, one_line(text)):
        if lines and len(lines[-1]) + len(word.rstrip()) <= letters:
            lines[-1] += word
        else:
            lines.append(word)
    return [line.rstrip() for line in lines]


def _write_lines(
    figure: "Figure", sheet: _Sheet, lines: Sequence[str], left: int, top: int
) -> None:
    for index, line in enumerate(lines):
        _write_under(figure, sheet, line, left, top + index * _TEXT_STRIP)


def _enlarged(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Repeat pixels until an image fills a cell, or all of it that the image's shape allows.

    Where the factor is whole, each pixel becomes a square of that side.
    """
    rows, columns = image.shape[:2]
    # Sides rounded to whole pixels make a shape differ a little from the one that they stand for.
    if abs(rows * width - columns * height) > max(height, width):
        factor = min(height // rows, width // columns)
        height, width = rows * factor, columns * factor
    filled: NDArray[np.uint8] = image[_nearest(rows, height)[:, None], _nearest(columns, width)]
    return filled


def _nearest(pixels: int, side: int) -> NDArray[np.intp]:
    """Tell which of so many pixels lies at the centre of each pixel of a longer side."""
    return (2 * np.arange(side) + 1) * pixels // (2 * side)


def _write_under(figure: "Figure", sheet: _Sheet, text: str, left: int, top: int) -> None:
    """Write one line, centred below a point on the left edge of a cell and no wider than it."""
    baseline = top + _BASELINE
    middle = left + sheet.cell_width / 2
    written = figure.text(
        middle / sheet.width, 1 - baseline / sheet.height, one_line(text), ha="center"
    )
    # A little less than the cell: the width of letters does not shrink quite as their size does.
    width, room = written.get_window_extent().width, sheet.cell_width - _GAP
    if width > room:
        written.set_fontsize(_FONT * room / width)


def _require_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    captions: Sequence[Sequence[str]] | None,
) -> None:
    """Raise ``ValueError`` unless every column has its image, and caption, in every row."""
    if not (columns and rows):
        raise ValueError(f"a sheet needs cells, not {len(rows)} rows of {len(columns)} columns")
    for name, table in (("images", rows), ("captions", captions)):
        lengths = [len(columns)] * len(rows) if table is None else [len(row) for row in table]
        if lengths != [len(columns)] * len(rows):
            raise ValueError(
                f"{len(rows)} rows of {len(columns)} columns need as many {name}, not {lengths}"
            )


def _require_images(rows: Sequence[Sequence[NDArray[np.uint8]]]) -> None:
    """Raise ``ValueError`` unless every cell is an 8-bit image."""
    for image in (image for row in rows for image in row):
        layout = image.ndim == 3 and image.shape[2] in {1, 3} and image.size > 0
        if not layout or image.dtype != np.uint8:
            raise ValueError(
                "images must be uint8 of the shape (H, W, 3) or (H, W, 1), "
                f"not {image.dtype} of the shape {image.shape}"
            )
