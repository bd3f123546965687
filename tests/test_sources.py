"""What --dataset names: folders of images, and the data sets that have a name."""

import re

import numpy as np
import pytest
from PIL import Image
from source_files import keys, refusal

from srcli.data.folders import Folder
from srcli.data.sources import DATASETS, absolute, open_source, parse
from srcli.errors import ImageError, UsageError


def save(path):
    """Write an image of noise and return its pixels."""
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return pixels


def test_a_folder_gives_its_images_by_path(tmp_path):
    """Images of any kind are found at every depth, none hidden, and are the files' pixels."""
    folder = tmp_path / ".cache" / "photos"  # the folder itself may be hidden
    written = {name: save(folder / name) for name in ("b.png", "a/z.webp", "a/c.TIFF")}
    for name in (".b.png", ".th/c.png", "a/.e/f.png"):
        save(folder / name)
    for name in ("run/curves.png", "run/samples.png"):  # what training drew is none of them
        save(folder / name)
    (folder / "run/log.csv").touch()
    (folder / "notes.txt").write_text("no image")

    source = open_source(str(folder), tmp_path, print)

    assert keys(source) == ["c.TIFF", "z.webp", "b.png"]
    assert source.label(0) == str(folder / "a" / "c.TIFF")
    assert source.size(2) == (7, 5)
    for index, name in ((0, "a/c.TIFF"), (2, "b.png")):
        assert np.array_equal(source.read(index), written[name])


def test_an_unreadable_file_of_a_folder_is_named(tmp_path):
    """A damaged file is found, since its name says image, and is an error when it is wanted."""
    (tmp_path / "a.png").write_bytes(b"this is no image")
    source = Folder(tmp_path)

    for access in (source.read, source.size):
        with pytest.raises(ImageError, match=f"^{re.escape(str(tmp_path / 'a.png'))}: "):
            access(0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("celeba", ("celeba", ())),
        ("celeba:train,train,test,train", ("celeba", ("train", "test"))),
        ("./celeba", ("./celeba", ())),
        (r"C:\photos", (r"C:\photos", ())),
    ],
)
def test_a_name_is_split_from_its_parts(text, expected, here):
    """The two known names may have parts and stay; anything else is a folder, made absolute."""
    assert parse(text) == expected
    assert absolute(text) == (text if expected[0] in DATASETS else str((here / text).absolute()))


@pytest.mark.parametrize("text", ["celeba:unlabeled", "celeba:train,"])
def test_an_unknown_part_is_refused(text):
    """A part that the data set does not have is refused before anything is opened."""
    message = refusal(lambda: parse(text), UsageError)

    assert message.startswith(f"--dataset {text}: celeba has the parts train, valid, test, not '")


def test_a_folder_called_celeba_is_given_with_its_path(here):
    """./celeba is a folder of images; celeba is the data set, which this folder does not hold."""
    save(here / "celeba" / "a.png")

    assert keys(open_source("./celeba", here, print)) == ["a.png"]
    assert refusal(lambda: open_source("celeba", here, print)).startswith("no image of celeba is ")
