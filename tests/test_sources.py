"""What --dataset names: folders of images, and the data sets that have a name."""

import re

import numpy as np
import pytest
from PIL import Image

from srcli.data.sources import DATASETS, Folder, absolute, open_source, parse
from srcli.errors import DataError, ImageError, UsageError


def save(path, height=5, width=7):
    """Write an image of noise and return its pixels."""
    pixels = np.random.default_rng(height + width).integers(0, 256, (height, width, 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return pixels


def refusal(text, folder, kind=DataError):
    """Return the message that a data set is refused with."""
    with pytest.raises(kind) as error:
        open_source(text, folder, print)
    return str(error.value)


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
    (folder / "folder.png").mkdir()

    source = open_source(str(folder), tmp_path, print)

    assert isinstance(source, Folder)
    assert [source.key(index) for index in range(len(source))] == ["c.TIFF", "z.webp", "b.png"]
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


def test_what_is_no_folder_of_images_is_named(tmp_path):
    """A missing path and a file are refused; the way out is named."""
    path = tmp_path / "photo.png"
    way_out = "; give a folder of images, or one of celeba, stl10"
    assert refusal(str(path), tmp_path) == f"--dataset {path} does not exist{way_out}"
    save(path)
    assert refusal(str(path), tmp_path) == f"--dataset {path} is a file{way_out}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("celeba", ("celeba", ())),
        ("celeba:train,train,test,train", ("celeba", ("train", "test"))),
        ("./celeba", ("./celeba", ())),
        ("photos:train", ("photos:train", ())),
        (r"C:\photos", (r"C:\photos", ())),
    ],
)
def test_a_name_is_split_from_its_parts(text, expected, here):
    """The two known names may have parts and stay; anything else is a folder, made absolute."""
    assert parse(text) == expected
    assert absolute(text) == (text if expected[0] in DATASETS else str((here / text).absolute()))


@pytest.mark.parametrize("text", ["celeba:unlabeled", "celeba:train,"])
def test_an_unknown_part_is_refused(text, tmp_path):
    """A part that the data set does not have is refused before anything is opened."""
    name = text.split(":")[0]
    known = ", ".join(DATASETS[name])

    message = refusal(text, tmp_path, UsageError)

    assert re.match(rf"--dataset {text}: {name} has the parts {known}, not '.*'; choose", message)


def test_a_folder_called_celeba_is_given_with_its_path(here):
    """./celeba is a folder of images; celeba is the data set, which this folder does not hold."""
    save(here / "celeba" / "a.png")

    assert open_source("./celeba", here, print).key(0) == "a.png"
    assert refusal("celeba", here).startswith("no image of celeba is in ")
