"""Curves and sheets of images, read back from the files that were written."""

import errno
import logging
import math
import os
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.axes import Axes
from PIL import Image

from srcli.errors import OutputError
from srcli.training.curves import Cell, Curve, curves, sheet

ROOT = Path(__file__).parents[1]

BLUE, RED = (0x00, 0x44, 0x88), (0xBB, 0x55, 0x66)
"""The colours of the first and the second curve of a panel."""


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


def plotted(picture, color):
    """Mark what has a colour below the title and the legend of a figure, ``(H, W)``."""
    marks = (picture == np.array(color, np.uint8)).all(-1)
    marks[: picture.shape[0] // 5] = False
    return marks


def noise(height, width, channels=3, seed=0):
    """Make an image of noise without white, which its surroundings have."""
    random = np.random.default_rng([seed, height, width, channels])
    return random.integers(0, 255, (height, width, channels), np.uint8)


def find(picture, image, factor):
    """Return the only place, (top, left), of an image whose pixels are squares of a side."""
    rgb = np.broadcast_to(image, (*image.shape[:2], 3)).repeat(factor, 0).repeat(factor, 1)
    height, width = rgb.shape[:2]
    (place,) = [
        (top, left)
        for top, left in np.argwhere((picture == rgb[0, 0]).all(-1)).tolist()
        if np.array_equal(picture[top : top + height, left : left + width], rgb)
    ]
    return place


def sheet_of(path, images, titles=None, captions=None, columns=6):
    """Draw a sheet and read it back, ``(H, W, 3)``."""
    blank = [""] * len(images)
    cells = [
        Cell(image=image, title=title, caption=caption)
        for image, title, caption in zip(images, titles or blank, captions or blank, strict=True)
    ]
    sheet(path, [cells[start : start + columns] for start in range(0, len(cells), columns)])
    return pixels(path)


def names_in(folder):
    """List everything in a folder, hidden files included."""
    return sorted(path.name for path in folder.iterdir())


def draw_curves(path, panels=None):
    """Write some picture of curves."""
    curves(path, panels or {"loss": [curve([1.0, 0.5])]}, title="a run")


def draw_sheet(path):
    """Write some sheet."""
    sheet_of(path, [noise(4, 4), noise(12, 12)], ["LR", "HR"], ["", "27.31 dB"])


# ---- curves -------------------------------------------------------------------------------


def test_every_panel_shows_its_curves_in_order(tmp_path):
    """Panels stand left to right, each with its own curves, on white; grey tells them apart."""
    both = [curve([3.0, 2.0, 1.0]), curve([3.5, 2.5, 1.5], "evaluation")]
    panels = {"loss": both, "accuracy": both[:1], "PSNR, dB": [curve([]), both[1]]}
    picture = drawn(tmp_path / "curves.png", panels)
    thirds = np.split(picture, 3, axis=1)

    assert picture.shape[1] == 1920
    assert [plotted(third, BLUE).sum() > 200 for third in thirds] == [True, True, False]
    assert [plotted(third, RED).sum() > 200 for third in thirds] == [True, False, True]
    solid, dashed = (plotted(thirds[0], color).any(0) for color in (BLUE, RED))
    assert np.diff(np.flatnonzero(solid)).max() == 1
    assert np.diff(np.flatnonzero(dashed)).max() > 1
    greys = [np.dot(color, (0.299, 0.587, 0.114)) for color in (BLUE, RED)]
    assert abs(greys[0] - greys[1]) > 50


@pytest.mark.parametrize(
    ("name", "lowest", "expected"),
    [
        ("loss", 0.19, True),
        ("loss", 0.21, False),
        ("loss", 0.0, False),
        ("PSNR, dB", 0.01, False),
    ],
)
def test_a_loss_over_more_than_a_factor_of_five_is_logarithmic(
    tmp_path, monkeypatch, name, lowest, expected
):
    """Only a loss, only positive values, only a span of more than 5."""
    scales = []
    monkeypatch.setattr(Axes, "set_yscale", lambda _, scale, **__: scales.append(scale))

    draw_curves(tmp_path / "curves.png", {name: [curve([1.0, lowest])]})

    assert scales == ["log"] * expected


def test_values_that_are_not_finite_are_left_out(tmp_path):
    """A curve is drawn without such an epoch; a panel of no other values says that it has none."""
    lost = {"accuracy": [curve([math.nan, math.inf]), curve([])]}
    holed = {"loss": [curve([4.0, math.nan, 2.0, 9.0], epochs=[1, 2, 3, -math.inf])]}
    picture = drawn(tmp_path / "a.png", lost | holed)
    without = drawn(
        tmp_path / "b.png", {"accuracy": []} | {"loss": [curve([4.0, 2.0], epochs=[1, 3])]}
    )
    left, right = np.split(picture, 2, axis=1)
    height, width = left.shape[:2]
    middle = ink(left)[height // 3 : -height // 3, width // 4 : -width // 4]

    np.testing.assert_array_equal(picture, without)
    assert not plotted(left, BLUE).any()
    assert 200 < middle.sum() < 0.05 * middle.size
    assert plotted(right, BLUE).any()


# ---- sheets -------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "factor"), [((33, 7), 8), ((400, 9), 1)], ids=str)
def test_every_pixel_is_a_square_of_its_color(tmp_path, size, factor):
    """Grey or colour, each image stands there once, enlarged by one whole factor, in one row."""
    images = [noise(*size, channels=channels) for channels in (3, 1, 3)]
    images[2] = 254 - images[2]
    for image in images:
        image.setflags(write=False)
    picture = sheet_of(tmp_path / "sheet.png", images)

    tops, lefts = zip(*(find(picture, image, factor) for image in images), strict=True)
    assert len(set(tops)) == 1
    assert lefts[1] - lefts[0] == lefts[2] - lefts[1] >= max(size[1] * factor, 240)
    assert ink(picture).sum() == 3 * size[0] * size[1] * factor**2


def test_words_stand_above_and_below_their_image(tmp_path):
    """Other words change a strip of their own cell alone; long ones are wrapped in it."""
    images = [noise(120, 120, seed=seed) for seed in range(6)]
    titles, captions = ["a name"] * 6, ["runs/an-experiment-with-a-long-name/model.safetensors"] * 6
    plain = sheet_of(tmp_path / "a.png", images, titles, captions, columns=3)
    titles[1], captions[2] = "emas", "$\\frac{$ 27.31 dB"

    changed = (sheet_of(tmp_path / "b.png", images, titles, captions, columns=3) != plain).any(-1)

    places = [find(plain, image, 2) for image in images]
    title = changed[: places[1][0], places[1][1] : places[1][1] + 240]
    caption = changed[places[2][0] + 240 : places[4][0], places[2][1] : places[2][1] + 240]
    assert title.any()
    assert caption.any()
    assert title.sum() + caption.sum() == changed.sum()


# ---- files --------------------------------------------------------------------------------


@pytest.mark.parametrize("draw", [draw_curves, draw_sheet])
def test_the_same_input_makes_the_same_bytes(tmp_path, draw):
    """No time and no version in them, whatever a user's settings of matplotlib are.

    The settings and the logging of a program that uses matplotlib itself stay as they were.
    """
    draw(tmp_path / "usual.png")
    odd = {"font.size": 40, "savefig.dpi": 50, "savefig.bbox": "tight", "axes.facecolor": "k"}
    level = logging.getLogger("matplotlib").level
    with mpl.rc_context(odd | {"savefig.facecolor": "r", "lines.marker": "x"}):
        before = dict(mpl.rcParams)
        draw(tmp_path / "odd.png")
        assert dict(mpl.rcParams) == before
    content = (tmp_path / "usual.png").read_bytes()

    assert (tmp_path / "odd.png").read_bytes() == content
    assert b"oftware" not in content
    assert b"tEXt" not in content
    assert logging.getLogger("matplotlib").level == level
    assert names_in(tmp_path) == ["odd.png", "usual.png"]


def test_a_picture_that_cannot_be_written_is_an_output_error(tmp_path, monkeypatch):
    """One line names the file, the reason and the way out; an old picture stays whole."""
    path, old = tmp_path / "no\nwhere" / "picture.png", tmp_path / "old.png"
    old.write_bytes(b"old")

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OutputError) as error:
        draw_curves(path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OutputError, match=r"old\.png: No space left on device; give another"):
            draw_sheet(old)

    shown = str(path).replace("\n", "\\n")
    assert str(error.value) == (
        f"cannot write {shown}: No such file or directory; give another --output"
    )
    assert old.read_bytes() == b"old"
    assert names_in(tmp_path) == ["old.png"]
    draw_sheet(old)
    assert ink(pixels(old)).any()
