"""The examples run, and show what README says they show."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from srcli.data.degrading import degrade
from srcli.ops.color import dequantize, quantize

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


@pytest.fixture
def night(tmp_path):
    """A folder with two photos, one of them below it, and a picture that was cut off."""
    (tmp_path / "my photos/sub").mkdir(parents=True)
    Image.new("RGB", (20, 10), "navy").save(tmp_path / "my photos/a.png")
    Image.new("RGB", (9, 7), "red").save(tmp_path / "my photos/sub/b.jpg")
    whole = (tmp_path / "my photos/a.png").read_bytes()
    (tmp_path / "my photos/sub/c.png").write_bytes(whole[:-30])
    return tmp_path


def run_script(folder, *arguments):
    """Run the shell script as a user would, with this very srcli."""
    return subprocess.run(
        ["sh", EXAMPLES / "upscale_folder.sh", *arguments],
        cwd=folder,
        env={**os.environ, "SRCLI": f"{sys.executable} -m srcli", "PYTHONPATH": EXAMPLES.parent},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.skipif(shutil.which("sh") is None, reason="needs a POSIX shell")
def test_the_script_enlarges_a_folder_and_lists_what_failed_twice(night):
    """The good are done, the bad one is tried again and listed; mended, the next run is clean."""
    first = run_script(night, "my photos", "out", "-s", "2")

    assert first.returncode == 1
    assert "1 failed; trying again" in first.stderr
    assert first.stderr.count("error: my photos/sub/c.png: truncated") == 2
    assert (night / "out.failed.txt").read_text() == "my photos/./sub/c.png\n"
    assert sorted(path.name for path in (night / "out").rglob("*.*")) == ["a.png", "b.jpg"]

    shutil.copy(night / "my photos/a.png", night / "my photos/sub/c.png")
    second = run_script(night, "my photos", "out", "-s", "2")

    assert second.returncode == 0
    assert second.stdout == "all of my photos is in out\n"
    assert not (night / "out.failed.txt").exists()
    with Image.open(night / "out/sub/c.png") as image:
        assert image.size == (40, 20)


@pytest.mark.skipif(shutil.which("sh") is None, reason="needs a POSIX shell")
@pytest.mark.parametrize(
    ("arguments", "code"), [(("gone", "out"), 1), (("my photos", "out", "-s", "99"), 2), ((), 2)]
)
def test_the_script_stops_on_real_errors(night, arguments, code):
    """What cannot work is not tried again, and the exit code is srcli's."""
    finished = run_script(night, *arguments)

    assert finished.returncode == code
    assert code == 1 or "trying again" not in finished.stderr


def test_the_program_enlarges_pictures_in_threads(tmp_path):
    """The example of the Python interface writes each picture beside its original."""
    for name in NAMES:
        with Image.open(EXAMPLES / "photos" / name) as image:
            image.resize((60, 40)).save(tmp_path / name)

    finished = subprocess.run(
        [sys.executable, EXAMPLES / "enlarge.py", *(tmp_path / n for n in NAMES), "--width", "150"],
        env={**os.environ, "PYTHONPATH": EXAMPLES.parent},
        capture_output=True,
        text=True,
        check=True,
    )

    expected = [tmp_path / f"{Path(name).stem}_150.png" for name in NAMES]
    assert finished.stdout.splitlines() == [str(path) for path in expected]
    for path in expected:
        with Image.open(path) as image:
            assert image.size == (150, 100)
