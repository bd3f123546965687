"""Curves and sample sheets, read back from the files that were written."""

import errno
import logging
import math
import os
import subprocess
import sys
from dataclasses import FrozenInstanceError
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from srcli.errors import OutputError
from srcli.training.plots import Cell, Curve, _is_logarithmic, curves, panel, samples

ROOT = Path(__file__).parents[1]

BLUE, RED = (0x00, 0x44, 0x88), (0xBB, 0x55, 0x66)
"""The colours of the first and the second curve of a panel."""

EPOCHS = range(1, 11)

DRAW = """
import sys, threading
from pathlib import Path

class Now:
    def __init__(self, seconds, say):
        self.start, self.cancel = say, lambda: None

threading.Timer = Now  # who would say something after a while says it at once
import numpy as np
from srcli.training.plots import Curve, curves, samples

curves(Path(sys.argv[1]), {"loss": [Curve(label="a", x=[1, 2], y=[1.0, 0.1])]}, title="t")
samples(Path(sys.argv[2]), ["LR"], [[np.zeros((9, 9, 3), np.uint8)]], [["27.31 dB"]])
assert "matplotlib.figure" in sys.modules
assert "matplotlib.pyplot" not in sys.modules
"""
"""Draws one picture of either kind in a process of its own."""


def curve(values, label="training", epochs=None):
    """Make a curve over the epochs from 1 on."""
    return Curve(label=label, x=epochs or range(1, len(values) + 1), y=values)


def drawn(path, panels, title="a run"):
    """Draw curves and read them back, ``(H, W, 3)``."""
    curves(path, panels, title=title)
    return pixels(path)


def pixels(path):
    """Read a PNG file as RGB."""
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB"))


def ink(picture):
    """Mark what is not white, ``(H, W)``."""
    return (picture != 255).any(-1)


def colored(picture, color):
    """Mark what has a colour, ``(H, W)``."""
    return (picture == np.array(color, np.uint8)).all(-1)


def plotted(picture, color):
    """Mark what has a colour below the title and the legend of a figure, ``(H, W)``."""
    marks = colored(picture, color)
    marks[: picture.shape[0] // 5] = False
    return marks


def straight(marks):
    """Whether a curve's middle lies on the line through its ends."""
    columns = np.flatnonzero(marks.any(0))
    ends = columns[0] + 8, columns[-1] - 8
    first, middle, last = (
        np.flatnonzero(marks[:, column]).mean() for column in (ends[0], sum(ends) // 2, ends[1])
    )
    return abs(first + last - 2 * middle) < 0.05 * abs(first - last)


def noise(height, width, channels=3, seed=0):
    """Make an image of noise without white, which its surroundings have."""
    random = np.random.default_rng([seed, height, width, channels])
    return random.integers(0, 255, (height, width, channels), np.uint8)


def squares(image, factor):
    """Make every pixel a square of its colour."""
    rgb = np.broadcast_to(image, (*image.shape[:2], 3))
    return rgb.repeat(factor, 0).repeat(factor, 1)


def find(sheet, image):
    """List every place, (top, left), where a sheet holds exactly these pixels."""
    height, width = image.shape[:2]
    corners = np.argwhere((sheet == image[0, 0]).all(-1)).tolist()
    return [
        (top, left)
        for top, left in corners
        if np.array_equal(sheet[top : top + height, left : left + width], image)
    ]


def sheet_of(path, columns, rows, captions=None):
    """Draw a sheet and read it back, ``(H, W, 3)``."""
    samples(path, columns, rows, captions)
    return pixels(path)


def names_in(folder):
    """List everything in a folder, hidden files included."""
    return sorted(path.name for path in folder.iterdir())


def run_python(code, *arguments, **environment):
    """Run code in a fresh process, whose output is returned."""
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {name: str(value) for name, value in environment.items()},
        capture_output=True,
        text=True,
        check=True,
    )


def draw_curves(path):
    """Write some picture of curves."""
    curves(path, {"loss": [curve([1.0, 0.5])]}, title="a run")


def draw_samples(path):
    """Write some sheet."""
    samples(path, ["LR", "HR"], [[noise(4, 4), noise(12, 12)]], [["", "27.31 dB"]])


BOTH = pytest.mark.parametrize("draw", [draw_curves, draw_samples])


@pytest.mark.parametrize(("panels", "width"), [(1, 1024), (2, 1280), (3, 1920)])
def test_curves_are_a_wide_png_on_white(tmp_path, panels, width):
    """A figure is at least 1000 pixels wide, grows with its panels and is white at its edges."""
    names = ["loss", "accuracy", "PSNR, dB"][:panels]
    picture = drawn(tmp_path / "curves.png", {name: [curve([3.0, 2.0, 1.0])] for name in names})

    assert picture.shape[1] == width >= 1000
    for edge in (picture[0], picture[-1], picture[:, 0], picture[:, -1]):
        assert (edge == 255).all()


def test_every_panel_shows_its_curves_in_order(tmp_path):
    """Panels stand left to right, each with the curves that it was given."""
    both = [curve([3.0, 2.0, 1.0]), curve([3.5, 2.5, 1.5], "evaluation")]
    panels = {"loss": both, "accuracy": both[:1], "PSNR, dB": [curve([]), both[1]]}
    picture = drawn(tmp_path / "curves.png", panels)
    thirds = np.split(picture, 3, axis=1)

    assert [plotted(third, BLUE).sum() > 200 for third in thirds] == [True, True, False]
    assert [plotted(third, RED).sum() > 200 for third in thirds] == [True, False, True]


def test_two_curves_differ_in_more_than_colour(tmp_path):
    """In grey print the second curve is another grey, and dashed where the first is solid."""
    level = drawn(tmp_path / "curves.png", {"a": [curve([1.0] * 3), curve([2.0] * 3, "other")]})
    solid, dashed = (plotted(level, color).any(0) for color in (BLUE, RED))
    greys = [np.dot(color, (0.299, 0.587, 0.114)) for color in (BLUE, RED)]

    assert np.diff(np.flatnonzero(solid)).max() == 1
    assert np.diff(np.flatnonzero(dashed)).max() > 1
    assert abs(greys[0] - greys[1]) > 50


@pytest.mark.parametrize("name", ["loss", "PSNR, dB"])
def test_a_single_point_is_a_marker(tmp_path, name):
    """After its first epoch a run has one point, which is a spot and not an invisible line."""
    spot = plotted(drawn(tmp_path / "curves.png", {name: [curve([0.25])]}), BLUE)
    rows, columns = np.nonzero(spot)

    assert 8 <= np.ptp(rows) <= 20
    assert 8 <= np.ptp(columns) <= 20


def test_a_long_curve_is_not_hidden_by_its_markers(tmp_path):
    """With 400 points the line shows between the markers, and the last of it is drawn."""
    values = np.linspace(1.0, 2.0, 400)
    marks = plotted(drawn(tmp_path / "curves.png", {"a": [curve(values)]}), BLUE)
    thickness = marks.sum(0)[marks.any(0)]

    assert np.median(thickness) < 8 < thickness.max()
    assert np.ptp(np.flatnonzero(marks.any(0))) > 700


@pytest.mark.parametrize(
    "lines", [[], [curve([])], [curve([math.nan, math.inf]), curve([])]], ids=["none", "0", "nan"]
)
def test_a_panel_without_values_says_so(tmp_path, lines):
    """Nothing is plotted, words stand in the middle instead, and other panels are as usual."""
    filled = [curve([2.0, 1.0])]
    picture = drawn(tmp_path / "curves.png", {"loss": lines, "accuracy": filled})
    left, right = np.split(picture, 2, axis=1)
    height, width = left.shape[:2]
    middle = ink(left)[height // 3 : -height // 3, width // 4 : -width // 4]

    assert not colored(left, BLUE).any()
    assert 200 < middle.sum() < 0.05 * middle.size
    assert plotted(right, BLUE).any()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_are_left_out(tmp_path, bad):
    """A curve with such a value is the curve without that epoch."""
    bad_value = curve([4.0, bad, 2.0, 1.0])
    bad_epoch = curve([4.0, 9.0, 2.0, 1.0], epochs=[1, bad, 3, 4])
    without = drawn(tmp_path / "a.png", {"loss": [curve([4.0, 2.0, 1.0], epochs=[1, 3, 4])]})

    for index, line in enumerate([bad_value, bad_epoch]):
        np.testing.assert_array_equal(drawn(tmp_path / f"{index}.png", {"loss": [line]}), without)


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("loss", [1.0, 0.19], True),
        ("loss", [1.0, 0.21], False),
        ("loss", [5.0, 1.0], False),
        ("Training loss", [0.01, 10.0], True),
        ("loss", [1.0, 0.0], False),
        ("loss", [1.0, -0.1], False),
        ("loss", [0.3], False),
        ("PSNR, dB", [1.0, 30.0], False),
    ],
)
def test_a_loss_over_more_than_a_factor_of_five_is_logarithmic(name, values, expected):
    """Only a loss, only positive values, only a span of more than 5."""
    assert _is_logarithmic(name, np.array(values)) is expected


def test_a_logarithmic_axis_makes_decay_a_straight_line(tmp_path):
    """What halves every epoch is straight as a loss and bent as anything else."""
    halving = [curve([2.0**-epoch for epoch in EPOCHS])]

    assert straight(plotted(drawn(tmp_path / "log.png", {"loss": halving}), BLUE))
    assert not straight(plotted(drawn(tmp_path / "linear.png", {"error": halving}), BLUE))


@pytest.mark.parametrize("name", ["loss", "accuracy"])
def test_a_light_grid_runs_both_ways(tmp_path, name):
    """On a logarithmic axis as on a linear one, lines of light grey cross the panel."""
    picture = drawn(tmp_path / "curves.png", {name: [curve([1.0, 0.1, 0.01])]})
    grid = colored(picture, (0xDD, 0xDD, 0xDD))

    assert (grid.sum(0) > 300).sum() >= 2
    assert (grid.sum(1) > 500).sum() >= 2


def test_a_loss_of_many_decades_can_be_drawn(tmp_path):
    """A loss that explodes from 1e-6 to 1e9 is drawn from end to end."""
    values = np.logspace(-6, 9, 10)
    marks = plotted(drawn(tmp_path / "curves.png", {"loss": [curve(values)]}), BLUE)

    assert straight(marks)
    assert np.ptp(np.flatnonzero(marks.any(1))) > 300


def test_the_title_stands_above_everything(tmp_path):
    """Another title changes the uppermost tenth alone."""
    panels = {"loss": [curve([2.0, 1.0])]}
    first = drawn(tmp_path / "first.png", panels, title="run 1")
    other = drawn(tmp_path / "other.png", panels, title="run 2")
    changed = np.flatnonzero((first != other).any((1, 2)))

    assert 0 < changed.min() < changed.max() < 0.1 * len(first)


@pytest.mark.parametrize(
    "title",
    ["a name of many words " * 20, "x" * 300, "$5 in \\frac{ $", "two\nlines", "写真 \udcff", ""],
    ids=["long", "unbroken", "mathematics", "newline", "letters", "empty"],
)
def test_any_title_fits(tmp_path, title):
    """No title leaves the figure, is taken for a formula, or warns of missing letters."""
    picture = drawn(tmp_path / "curves.png", {"loss": [curve([2.0, 1.0])]}, title=title)

    assert not ink(picture)[:, [0, -1]].any()
    assert not ink(picture)[0].any()
    assert plotted(picture, BLUE).any()


def test_curves_refuse_no_panels(tmp_path):
    """A figure of nothing is a mistake of the caller."""
    with pytest.raises(ValueError, match="at least one panel"):
        curves(tmp_path / "curves.png", {}, title="a run")

    assert names_in(tmp_path) == []


def test_a_curve_has_a_value_for_every_epoch():
    """A curve of three values for two epochs is refused by name, and no curve can be changed."""
    with pytest.raises(ValueError, match="'training' has 3 values for 2 epochs"):
        Curve(label="training", x=[1, 2], y=[1.0, 2.0, 3.0])

    with pytest.raises(FrozenInstanceError):
        curve([1.0]).label = "other"


@pytest.mark.parametrize(
    ("side", "factor"), [(7, 35), (96, 3), (119, 3), (120, 2), (121, 2), (240, 1), (250, 1)]
)
def test_pixels_of_the_largest_images_are_squares(tmp_path, side, factor):
    """Every pixel is a square of its exact colour, and a cell at least 240 pixels wide."""
    image = noise(side, side)
    sheet = sheet_of(tmp_path / "sheet.png", ["HR"], [[image]])

    assert side * factor >= 240
    assert len(find(sheet, squares(image, factor))) == 1


@pytest.mark.parametrize("captioned", [False, True])
def test_cells_stand_in_rows_and_columns_at_one_size(tmp_path, captioned):
    """An LR image of 40 pixels is as large as the HR image of 120 beside it, and exact."""
    rows = [[noise(40, 40, seed=i), noise(120, 120, seed=i)] for i in range(3)]
    captions = [["", "27.31 dB"]] * 3 if captioned else None
    sheet = sheet_of(tmp_path / "sheet.png", ["LR", "HR"], rows, captions)
    places = [[find(sheet, squares(image, 240 // len(image))) for image in row] for row in rows]

    assert [[len(found) for found in row] for row in places] == [[1, 1]] * 3
    tops = np.array(places)[:, :, 0, 0]
    lefts = np.array(places)[:, :, 0, 1]
    assert (tops == tops[:, :1]).all()
    assert (lefts == lefts[:1]).all()
    assert all(240 < step <= 290 for step in [*np.diff(tops[:, 0]), *np.diff(lefts[0])])


def test_grey_images_are_shown_grey(tmp_path):
    """One channel stands for all three."""
    grey, rgb = noise(30, 30, channels=1), noise(30, 30)
    sheet = sheet_of(tmp_path / "sheet.png", ["grey", "RGB"], [[grey, rgb]])

    assert len(find(sheet, squares(grey, 8))) == 1
    assert len(find(sheet, squares(rgb, 8))) == 1


@pytest.mark.parametrize(
    ("low", "high"), [((41, 41), (122, 122)), ((40, 27), (120, 80)), ((27, 41), (80, 122))], ids=str
)
def test_an_uneven_factor_repeats_the_nearest_pixel(tmp_path, low, high):
    """Sides that do not divide fill the cell all the same, as Pillow's nearest does it."""
    small, large = noise(*low), noise(*high)
    sheet = sheet_of(tmp_path / "sheet.png", ["LR", "HR"], [[small, large]])
    factor = -(-240 // high[1])
    size = (high[1] * factor, high[0] * factor)
    nearest = Image.fromarray(small).resize(size, Image.Resampling.NEAREST)

    assert len(find(sheet, squares(large, factor))) == 1
    assert len(find(sheet, np.asarray(nearest))) == 1


def test_an_image_of_another_shape_keeps_it(tmp_path):
    """A landscape between squares is not stretched: squares of its pixels, centred on white."""
    square, landscape = noise(120, 120), noise(50, 110)
    sheet = sheet_of(tmp_path / "sheet.png", ["a", "b"], [[square, landscape]])
    ((top, left),) = find(sheet, squares(square, 2))
    ((inner_top, inner_left),) = find(sheet, squares(landscape, 2))
    cell = sheet[top : top + 240, left + 252 : left + 252 + 240].copy()
    cell[inner_top - top :][:100, inner_left - left - 252 :][:, :220] = 255

    assert inner_top - top == (240 - 100) // 2
    assert inner_left - left - 252 == (240 - 220) // 2
    assert (cell == 255).all()


def test_captions_add_a_strip_below_each_cell_and_change_nothing_else(tmp_path):
    """Without the strips the two sheets are the same; in a strip there is ink where words are."""
    rows = [[noise(40, 40, seed=i), noise(120, 120, seed=i)] for i in range(2)]
    bare = sheet_of(tmp_path / "bare.png", ["LR", "HR"], rows)
    sheet = sheet_of(tmp_path / "sheet.png", ["LR", "HR"], rows, [["", "27.31 dB"], ["a", ""]])
    strip = (len(sheet) - len(bare)) // 2
    places = [find(sheet, squares(row[1], 2))[0] for row in rows]
    strips = [np.arange(top + 240, top + 240 + strip) for top, _ in places]
    inked = [ink(sheet)[lines] for lines in strips]
    left = places[0][1]

    assert bare.shape[1] == sheet.shape[1]
    np.testing.assert_array_equal(np.delete(sheet, np.concatenate(strips), 0), bare)
    assert [lines[:, left:].any() for lines in inked] == [True, False]
    assert [lines[:, : left - 1].any() for lines in inked] == [False, True]
    assert not inked[0][[0, -1]].any()


def test_titles_stand_above_their_columns(tmp_path):
    """Another title changes what is above its column alone."""
    rows = [[noise(40, 40), noise(120, 120)]]
    first = sheet_of(tmp_path / "first.png", ["LR", "HR"], rows)
    other = sheet_of(tmp_path / "other.png", ["LR", "output"], rows)
    ((top, left),) = find(first, squares(rows[0][1], 2))
    changed_rows, changed_columns = np.nonzero((first != other).any(-1))

    assert 0 < changed_rows.min() < changed_rows.max() < top
    assert left <= changed_columns.min() < changed_columns.max() < left + 240
    assert ink(first)[:top, :left].any()


def test_long_words_shrink_to_their_cell(tmp_path):
    """A caption and a title of many words are no wider than the cell that they belong to."""
    words = "a title that is much wider than the cell below it"
    image = noise(120, 120)
    sheet = sheet_of(tmp_path / "sheet.png", ["", words, ""], [[image] * 3], [["", words, ""]])
    (top, _), (_, left), _ = find(sheet, squares(image, 2))

    for strip in (ink(sheet)[:top], ink(sheet)[top + 240 :]):
        columns = np.flatnonzero(strip.any(0))
        assert left <= columns.min() < columns.max() < left + 240
        assert np.ptp(columns) > 200


def test_words_cannot_be_formulas_or_more_than_a_line(tmp_path):
    """Dollars, line breaks and letters that the font lacks are shown without a complaint."""
    words = ["$\\frac{$", "two\nlines", "写真"]
    sheet = sheet_of(tmp_path / "sheet.png", words, [[noise(120, 120)] * 3], [words])

    assert not ink(sheet)[[0, -1]].any()


@BOTH
def test_the_same_input_makes_the_same_bytes(tmp_path, draw):
    """Two files of one input are equal: no time, no version in them."""
    draw(tmp_path / "first.png")
    draw(tmp_path / "second.png")
    content = (tmp_path / "first.png").read_bytes()

    assert content == (tmp_path / "second.png").read_bytes()
    assert b"oftware" not in content
    assert b"tEXt" not in content
    assert names_in(tmp_path) == ["first.png", "second.png"]


@BOTH
def test_drawing_leaves_matplotlib_as_it_was(tmp_path, draw, caplog):
    """The settings and the logging of a program that uses matplotlib itself are put back."""
    caplog.set_level(logging.INFO, "matplotlib")
    with mpl.rc_context({"font.size": 33.0}):
        before = dict(mpl.rcParams)
        draw(tmp_path / "picture.png")

        assert dict(mpl.rcParams) == before
        assert logging.getLogger("matplotlib").level == logging.INFO


@BOTH
def test_the_settings_of_a_user_do_not_matter(tmp_path, draw):
    """With odd defaults of matplotlib the picture is the same, byte for byte."""
    draw(tmp_path / "usual.png")
    odd = {"font.size": 40, "savefig.dpi": 50, "savefig.bbox": "tight", "axes.facecolor": "k"}
    with mpl.rc_context(odd | {"savefig.facecolor": "r", "lines.marker": "x"}):
        draw(tmp_path / "odd.png")

    assert (tmp_path / "odd.png").read_bytes() == (tmp_path / "usual.png").read_bytes()


def test_importing_the_module_does_not_import_matplotlib():
    """Who draws nothing does not wait for matplotlib, nor for torch."""
    done = run_python(
        "import sys, srcli.training.plots\n"
        "print(*sorted({'matplotlib', 'torch', 'PIL'} & set(sys.modules)))"
    )

    assert done.stdout.strip() == ""


@pytest.mark.parametrize("home", ["fresh", "unwritable", "misspelt"])
def test_a_fresh_process_draws_in_silence(tmp_path, home):
    """No word of a font cache, of a folder for it or of a bad setting; and no pyplot."""
    folder = tmp_path / home
    if home == "unwritable":
        folder.write_text("a file is in the way")
    else:
        folder.mkdir()
    if home == "misspelt":
        (folder / "matplotlibrc").write_text("no.such.setting: 1\n")
    pictures = tmp_path / "curves.png", tmp_path / "samples.png"
    done = run_python(DRAW, *pictures, MPLCONFIGDIR=folder, TMPDIR=tmp_path)

    assert (done.stdout, done.stderr) == ("", "")
    assert all(ink(pixels(path)).any() for path in pictures)


@BOTH
def test_a_missing_folder_is_an_output_error(tmp_path, draw):
    """One line names the file, the reason and the way out."""
    path = tmp_path / "no\nwhere" / "picture.png"

    with pytest.raises(OutputError) as error:
        draw(path)

    shown = str(path).replace("\n", "\\n")
    assert str(error.value) == (
        f"cannot write {shown}: No such file or directory; give another --output"
    )


@BOTH
def test_a_folder_in_the_way_is_an_output_error(tmp_path, draw):
    """A folder is not replaced by a picture."""
    (tmp_path / "picture.png").mkdir()

    with pytest.raises(OutputError, match=r"cannot write .*picture\.png: .*; give another"):
        draw(tmp_path / "picture.png")

    assert names_in(tmp_path) == ["picture.png"]


@BOTH
def test_an_old_picture_stays_when_the_disk_is_full(tmp_path, draw, monkeypatch):
    """A failure halfway leaves the old file and nothing beside it."""
    path = tmp_path / "picture.png"
    path.write_bytes(b"old")

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"picture\.png: No space left on device; give"):
        draw(path)

    assert path.read_bytes() == b"old"
    assert names_in(tmp_path) == ["picture.png"]


@BOTH
def test_an_old_picture_is_replaced(tmp_path, draw):
    """A new epoch's picture takes the place of the last one's."""
    path = tmp_path / "picture.png"
    path.write_bytes(b"old")
    draw(path)

    assert ink(pixels(path)).any()
    assert names_in(tmp_path) == ["picture.png"]


@pytest.mark.parametrize(
    ("columns", "rows", "captions", "message"),
    [
        ([], [], None, "a sheet needs cells, not 0 rows of 0 columns"),
        (["a"], [], None, "a sheet needs cells, not 0 rows of 1 columns"),
        ([], [[]], None, "a sheet needs cells, not 1 rows of 0 columns"),
        (["a", "b"], [[0, 0], [0]], None, r"2 rows of 2 columns need as many images, not \[2, 1\]"),
        (["a"], [[0, 0]], None, r"1 rows of 1 columns need as many images, not \[2\]"),
        (["a"], [[0]], [], r"1 rows of 1 columns need as many captions, not \[\]"),
        (["a"], [[0]], [["x", "y"]], r"1 rows of 1 columns need as many captions, not \[2\]"),
        (["a"], [[0]], [["x"], ["y"]], r"1 rows of 1 columns need as many captions, not \[1, 1\]"),
    ],
)
def test_a_sheet_refuses_what_is_no_table(tmp_path, columns, rows, captions, message):
    """Rows, columns and captions must agree; the error tells what was there."""
    images = [[noise(8, 8) for _ in row] for row in rows]

    with pytest.raises(ValueError, match=message):
        samples(tmp_path / "sheet.png", columns, images, captions)

    assert names_in(tmp_path) == []


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((8, 8, 3), np.float32),
        ((8, 8, 3), np.uint16),
        ((8, 8), np.uint8),
        ((8, 8, 4), np.uint8),
        ((3, 8, 8), np.uint8),
        ((0, 8, 3), np.uint8),
        ((1, 8, 8, 3), np.uint8),
    ],
    ids=str,
)
def test_a_sheet_refuses_what_is_no_8_bit_image(tmp_path, shape, dtype):
    """The error names the dtype and the shape of the image that does not fit."""
    rows = [[noise(8, 8), np.zeros(shape, dtype)]]

    with pytest.raises(ValueError, match=r"must be uint8 of the shape \(H, W, 3\)") as error:
        samples(tmp_path / "sheet.png", ["a", "b"], rows)

    assert str(error.value).endswith(f"not {np.dtype(dtype)} of the shape {shape}")
    assert names_in(tmp_path) == []


def test_drawing_leaves_its_input_alone(tmp_path):
    """Images that may not be written to can be drawn, and stay as they are."""
    image = noise(40, 40)
    before = image.copy()
    image.setflags(write=False)
    samples(tmp_path / "sheet.png", ["a"], [[image]])

    np.testing.assert_array_equal(image, before)


# ---- panels -------------------------------------------------------------------------------


def panel_of(path, images, titles=None, captions=None):
    """Draw a panel and read it back, ``(H, W, 3)``."""
    texts = titles or [""] * len(images), captions or [""] * len(images)
    cells = [
        Cell(title=title, image=image, caption=caption)
        for image, title, caption in zip(images, *texts, strict=True)
    ]
    panel(path, cells)
    return pixels(path)


@pytest.mark.parametrize(
    ("size", "factor"),
    [((160, 160), 2), ((160, 90), 2), ((120, 120), 2), ((33, 7), 9), ((11, 40), 8), ((400, 9), 1)],
)
def test_a_panel_shows_every_pixel_as_a_square(tmp_path, size, factor):
    """Grey or colour, each image stands there once, enlarged by one whole factor, in one row."""
    images = [noise(*size, channels=channels) for channels in (3, 1, 3)]
    images[2] = 254 - images[2]
    sheet = panel_of(tmp_path / "panel.png", images)

    places = [find(sheet, squares(image, factor)) for image in images]

    assert [len(found) for found in places] == [1, 1, 1]
    tops, lefts = zip(*(found[0] for found in places), strict=True)
    assert len(set(tops)) == 1
    assert lefts[1] - lefts[0] == lefts[2] - lefts[1] >= max(size[1] * factor, 240)
    assert not ink(sheet)[: tops[0]].any()


@pytest.mark.parametrize(("count", "rows"), [(1, [1]), (6, [6]), (7, [4, 3]), (13, [5, 5, 3])])
def test_many_cells_stand_in_several_rows(tmp_path, count, rows):
    """More than six go on below, in rows of about one length."""
    images = [noise(160, 160, seed=seed) for seed in range(count)]
    sheet = panel_of(tmp_path / "panel.png", images, ["title"] * count, ["caption"] * count)

    places = [find(sheet, squares(image, 2))[0] for image in images]

    tops = sorted({top for top, _ in places})
    assert [sum(top == row for top, _ in places) for row in tops] == rows
    assert places == sorted(places)
    assert len({left for _, left in places}) == max(rows)


def test_words_stand_above_and_below_their_image(tmp_path):
    """Another title or caption changes a strip of its own cell and nothing else."""
    images = [noise(120, 120, seed=seed) for seed in range(8)]
    plain = panel_of(tmp_path / "a.png", images, ["same"] * 8, ["same"] * 8)
    titles, captions = ["same"] * 8, ["same"] * 8
    titles[5], captions[2] = "other", "other"

    changed = panel_of(tmp_path / "b.png", images, titles, captions) != plain

    tops, lefts = zip(*(find(plain, squares(image, 2))[0] for image in images), strict=True)
    rows, columns = np.nonzero(changed.any(-1))
    above, below = rows > tops[4] - 32, rows < tops[4] - 32
    assert (lefts[5] <= columns[above]).all()
    assert (columns[above] < lefts[5] + 240).all()
    assert (rows[above] < tops[5]).all()
    assert (lefts[2] <= columns[below]).all()
    assert (columns[below] < lefts[2] + 240).all()
    assert (rows[below] >= tops[2] + 240).all()
    assert above.any()
    assert below.any()


@pytest.mark.parametrize(
    "word",
    ["runs/an-experiment-with-a-long-name/model.safetensors", "w" * 80, "W i" * 30, "/" * 70],
)
def test_long_words_go_on_in_the_next_line(tmp_path, word):
    """What is wider than its cell is broken, at one size of letters, and touches nothing."""
    image = noise(120, 120)
    sheet = panel_of(tmp_path / "panel.png", [image] * 3, ["", word, ""], ["", word, ""])
    (top, _), (_, left), _ = find(sheet, squares(image, 2))

    assert top > 2 * 32
    for strip in (ink(sheet)[:top], ink(sheet)[top + 240 :]):
        lines = strip.any(1)
        assert np.count_nonzero(lines[1:] & ~lines[:-1]) >= 2
        assert not lines[[0, -1]].any()
        columns = np.flatnonzero(strip.any(0))
        assert left <= columns.min() < columns.max() < left + 240


@pytest.mark.parametrize("sizes", [[], [(40, 40), (40, 41)]], ids=["none", "two sizes"])
def test_a_panel_refuses_what_is_no_row(tmp_path, sizes):
    """There is at least one image, and all have one size."""
    with pytest.raises(ValueError, match="a panel needs images of one size, not "):
        panel_of(tmp_path / "panel.png", [noise(*size) for size in sizes])

    assert names_in(tmp_path) == []


def test_a_panel_that_cannot_be_written_is_told(tmp_path):
    """The line names the option that chose the place."""
    (tmp_path / "panel.png").mkdir()

    with pytest.raises(OutputError, match=r"cannot write .*panel\.png: .*; give another --panels"):
        panel_of(tmp_path / "panel.png", [noise(40, 40)])

    assert names_in(tmp_path) == ["panel.png"]


def test_the_same_panel_has_the_same_bytes(tmp_path):
    """Two files of one input are equal, and the input is left alone."""
    image = noise(30, 30)
    before = image.copy()
    for name in "ab":
        panel_of(tmp_path / name, [image, image], ["LR", "HR"], ["$x$", "写真\n"])

    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert np.array_equal(image, before)
