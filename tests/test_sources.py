"""What --dataset names: folders of images, and the data sets that have a name."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from srcli.data.folders import Folder, image_files
from srcli.data.sources import DATASETS, absolute, open_source, parse
from srcli.errors import DataError, ImageError, UsageError
from srcli.imaging.images import READABLE_SUFFIXES


def save(path, pixels):
    """Write ``(H, W)`` or ``(H, W, 3)`` pixel values as an image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def noise(height, width, seed=0):
    """Make ``(H, W, 3)`` noise."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def keys(source):
    """List the names of all images."""
    return [source.key(index) for index in range(len(source))]


def test_a_folder_gives_its_images_by_path(tmp_path):
    """A folder's images are named by file, labelled by path, and are the files' pixels."""
    for number, name in enumerate(("b.png", "a/z.png", "a/c.tiff")):
        save(tmp_path / "photos" / name, noise(5, 7 + number, number))

    source = open_source(str(tmp_path / "photos"), Path("unused"))

    assert isinstance(source, Folder)
    assert source.name == "photos"
    assert keys(source) == ["c.tiff", "z.png", "b.png"]
    assert source.label(0) == str(tmp_path / "photos" / "a" / "c.tiff")
    for index, number in enumerate((2, 1, 0)):
        assert np.array_equal(source.read(index), noise(5, 7 + number, number))
        assert source.size(index) == (7 + number, 5)


def test_an_unreadable_file_of_a_folder_is_named(tmp_path):
    """A damaged file is found, since its name says image, and is an error when it is wanted."""
    (tmp_path / "a.png").write_bytes(b"this is no image")
    source = Folder(tmp_path)

    for access in (source.read, source.size):
        with pytest.raises(ImageError, match=f"^{re.escape(str(tmp_path / 'a.png'))}: "):
            access(0)


def test_images_are_found_below_the_folder(tmp_path):
    """Images of any known kind are found at every depth, by path; nothing hidden is."""
    folder = tmp_path / ".cache" / "set"  # the folder itself may be hidden
    for name in ("b.png", "a/c.JPG", "a/d/e.webp", "z.tiff", ".b.png", ".th/c.png", "d/.e/f.png"):
        save(folder / name, noise(4, 4))
    (folder / "notes.txt").write_text("no image")
    (folder / "folder.png").mkdir()

    found = [path.relative_to(folder).as_posix() for path in image_files(folder)]

    assert found == ["a/c.JPG", "a/d/e.webp", "b.png", "z.tiff"]


@pytest.mark.parametrize(("is_file", "found"), [(True, "is a file"), (False, "does not exist")])
def test_what_is_no_folder_is_named(is_file, found, tmp_path):
    """A path that is missing or a file is refused; the way out names the known data sets."""
    path = tmp_path / "photo.png"
    if is_file:
        save(path, noise(4, 4))

    with pytest.raises(DataError) as error:
        image_files(path)

    assert str(error.value) == (
        f"--dataset {path} {found}; give a folder of images, or one of celeba, stl10"
    )
    assert error.value.exit_code == 4


def test_a_folder_without_images_is_named(tmp_path):
    """An empty data set is refused, and the text lists what would count as an image."""
    (tmp_path / "notes.txt").write_text("no image")

    with pytest.raises(DataError) as error:
        open_source(str(tmp_path), tmp_path)

    kinds = ", ".join(sorted(READABLE_SUFFIXES))
    assert str(error.value) == (
        f"--dataset {tmp_path} holds no image ({kinds}); give another folder"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("celeba", ("celeba", ())),
        ("celeba:valid, train", ("celeba", ("valid", "train"))),
        ("celeba:train,train,test,train", ("celeba", ("train", "test"))),
        ("stl10:unlabeled,train", ("stl10", ("unlabeled", "train"))),
        ("./celeba", ("./celeba", ())),
        ("CelebA", ("CelebA", ())),
        ("celeba/", ("celeba/", ())),
        ("photos:train", ("photos:train", ())),
        (r"C:\photos", (r"C:\photos", ())),
    ],
)
def test_a_name_is_split_from_its_parts(text, expected):
    """The two known names may have parts, each counted once; anything else is a folder."""
    assert parse(text) == expected


@pytest.mark.parametrize("text", ["celeba:unlabeled", "celeba:", "celeba:train,", "stl10:valid"])
def test_an_unknown_part_is_refused(text, tmp_path):
    """A part that the data set does not have is refused before anything is opened."""
    name = text.split(":")[0]
    known = ", ".join(DATASETS[name])

    for call in (parse, absolute, lambda text: open_source(text, tmp_path)):
        with pytest.raises(
            UsageError,
            match=rf"^--dataset {re.escape(text)}: {name} has the parts {known}, not .*; choose",
        ):
            call(text)


def test_names_stay_and_folders_become_absolute(here):
    """A data set's name means the same anywhere; a folder is tied to where it is now."""
    assert absolute("celeba:train") == "celeba:train"
    assert absolute("stl10") == "stl10"
    assert absolute("photos") == str(here / "photos")
    assert absolute("./celeba") == str(here / "celeba")
    assert absolute(str(here)) == str(here)


def test_a_folder_called_celeba_is_given_with_its_path(here):
    """./celeba is a folder of images; celeba is the data set, which this folder does not hold."""
    save(here / "celeba" / "a.png", noise(4, 4))

    assert keys(open_source("./celeba", here)) == ["a.png"]
    assert keys(open_source(absolute("./celeba"), here)) == ["a.png"]
    with pytest.raises(DataError, match=r"^celeba is not in .*, which holds a\.png; expected"):
        open_source("celeba", here)
