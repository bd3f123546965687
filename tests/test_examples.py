"""The examples run, and show what README says they show."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from srcli.color import dequantize, quantize
from srcli.degradation import degrade

EXAMPLES = Path(__file__).parents[1] / "examples"
NAMES = ["houses.png", "parrots.png"]


@pytest.mark.parametrize("name", NAMES)
def test_a_photo_is_its_original_reduced_by_three(name):
    """What README calls the original really is the HR of the LR photo, by our degradation."""
    high = torch.from_numpy(np.array(Image.open(EXAMPLES / "originals" / name))).permute(2, 0, 1)
    low = np.array(Image.open(EXAMPLES / "photos" / name))

    expected = quantize(degrade(dequantize(high), 3)).permute(1, 2, 0).numpy()

    assert np.array_equal(expected, low)


def test_compare_draws_the_panels_that_readme_shows(tmp_path):
    """The script makes a panel for each photo, of the size and content of the committed ones."""
    finished = subprocess.run(
        [sys.executable, EXAMPLES / "compare.py", tmp_path],
        capture_output=True,
        text=True,
        check=True,
    )

    assert [str(tmp_path / name) for name in NAMES] == finished.stdout.splitlines()
    for name in NAMES:
        made = np.array(Image.open(tmp_path / name)).astype(int)
        committed = np.array(Image.open(EXAMPLES / "panels" / name)).astype(int)
        assert committed.shape == made.shape
        # Pictures only: another machine's number format may move a level, a label a digit.
        assert np.abs(committed - made)[:240].max() <= 2
