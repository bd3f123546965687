"""Curves and sheets of images, read back from the files that were written."""

import errno
import os
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import torch
from PIL import Image
from reading_files import noise

from srcli.errors import OutputError
from srcli.model import weights
from srcli.ops.color import dequantize
from srcli.training import curves
from srcli.training.curves import Cell, sheet
from srcli.training.distributed import ProcessGroup
from srcli.training.images import TrainingImages


def pixels(path):
    """Read a PNG file as RGB."""
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB"))


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


def draw_log(path):
    """Write the curves of a log in which some columns are empty."""
    first = {"epoch": 1, "loss": 3.0, "accuracy": 0.5, "discriminator": 1.0}
    second = {"epoch": 2, "loss": 2.0, "accuracy": 0.6, "eval_loss": 2.5, "baseline_psnr": 20.0}
    curves.draw_curves(path, [first, second, second | {"epoch": 3, "loss": 1.0}], "mse")


def draw_sheet(path):
    """Write some sheet."""
    sheet(path, [[Cell(image=noise(3) // 2, title="LR", caption="27.31 dB")]])


def test_every_panel_shows_its_curves(tmp_path):
    """Panels stand left to right, each with its own curves in the colours of their places."""
    draw_log(tmp_path / "curves.png")

    below_the_legend = pixels(tmp_path / "curves.png")[200:]
    for color, shown in (
        ((0x00, 0x44, 0x88), [True, True, False, False]),
        ((0xBB, 0x55, 0x66), [True, False, True, False]),
    ):
        marks = (below_the_legend == np.array(color, np.uint8)).all(-1)
        assert [part.sum() > 200 for part in np.split(marks, 4, 1)] == shown


def test_every_pixel_is_a_square_of_its_color(tmp_path):
    """Grey or colour, each image stands there once, enlarged by a whole factor, below its title."""
    # Darker than their surroundings, which are white.
    images = [noise(channels, height=33, width=7) // 2 for channels in (3, 1)]
    cells = [Cell(image=image, title="a $\\frac{$", caption="") for image in images]
    sheet(tmp_path / "sheet.png", [cells])

    picture = pixels(tmp_path / "sheet.png")
    (top, left), (other_top, other_left) = (find(picture, image, 8) for image in images)
    assert top == other_top
    assert other_left - left >= 240
    assert (picture[:top] != 255).any()
    assert (picture[top + 33 * 8 :] == 255).all()


@pytest.mark.parametrize("draw", [draw_log, draw_sheet])
def test_the_same_input_makes_the_same_bytes(tmp_path, draw):
    """No time and no version in them, whatever a user's settings of matplotlib are."""
    draw(tmp_path / "usual.png")
    odd = {"font.size": 40, "savefig.dpi": 50, "savefig.bbox": "tight", "axes.facecolor": "k"}
    with mpl.rc_context(odd | {"savefig.facecolor": "r", "lines.marker": "x"}):
        before = dict(mpl.rcParams)
        draw(tmp_path / "odd.png")
        assert dict(mpl.rcParams) == before
    content = (tmp_path / "usual.png").read_bytes()

    assert (tmp_path / "odd.png").read_bytes() == content
    assert b"oftware" not in content
    assert b"tEXt" not in content


def test_a_picture_that_cannot_be_written_is_an_output_error(tmp_path, monkeypatch):
    """One line names the file, the reason and the way out; an old picture stays whole."""
    path, old = tmp_path / "no\nwhere" / "picture.png", tmp_path / "old.png"
    old.write_bytes(b"old")

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OutputError) as error:
        draw_log(path)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"old\.png: No space left on device; give another"):
        draw_sheet(old)

    shown = str(path).replace("\n", "\\n")
    assert str(error.value) == (
        f"cannot write {shown}: No such file or directory; give another --output"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["old.png"]
    assert old.read_bytes() == b"old"


def test_the_sample_is_what_the_captions_say(finished, monkeypatch):
    """A sample is LR, output and HR of an image not trained on, with its own two scores."""
    sheets = []
    monkeypatch.setattr(curves, "sheet", lambda *sheet: sheets.append(sheet))
    images = TrainingImages(finished.config, ProcessGroup(torch.device("cpu")), print)
    net, _ = weights.load(Path(finished.report.weights))

    curves.draw_samples(Path("samples.png"), images, finished.config.degradation, net)

    ((path, (cells,)),) = sheets
    (batch,) = images.evaluation_batches()
    target, scores = dequantize(batch.patches), finished.report.scores
    assert path == Path("samples.png")
    assert [cell.title for cell in cells] == ["LR", "output", "HR"]
    low, output, high = (cell.image for cell in cells)
    assert (low.shape, output.shape, high.shape) == ((40, 40, 3), (120, 120, 3), (120, 120, 3))
    assert torch.equal(torch.from_numpy(high), (target[0] * 255).round().byte().permute(1, 2, 0))
    assert [cell.caption for cell in cells] == [
        *(f"bicubic {scores.baseline_psnr:.2f} dB", f"{scores.psnr:.2f} dB", "")
    ]
