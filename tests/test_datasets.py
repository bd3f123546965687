"""Folders of images: what is read, and which patches a step draws from it."""

import collections
import shutil
import warnings
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image

from srcli.color import quantize
from srcli.config import PATCH
from srcli.datasets import FolderDataset, image_files, load_folder, split
from srcli.degradation import bicubic
from srcli.errors import DataError
from srcli.images import READABLE_SUFFIXES

ORIENTATIONS = [
    lambda a: a,
    lambda a: a[::-1],
    lambda a: a[:, ::-1],
    lambda a: a[::-1, ::-1],
    lambda a: a.swapaxes(0, 1),
    lambda a: a.swapaxes(0, 1)[::-1],
    lambda a: a.swapaxes(0, 1)[:, ::-1],
    lambda a: a.swapaxes(0, 1)[::-1, ::-1],
]
"""The eight flips and quarter turns of ``(H, W, C)``, from reversals and the transpose alone."""


def survey(height, width, number=0):
    """Make ``(3, H, W)`` whose pixels say where they are: row, column, number of the image."""
    rows, columns = np.mgrid[:height, :width]
    pixels = np.stack([rows, columns, np.full_like(rows, number)]).astype(np.uint8)
    return torch.from_numpy(pixels)


def save(path, pixels, **options):
    """Write ``(H, W)`` or ``(H, W, 3)`` levels as an image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def noise(height, width, seed=0):
    """Make ``(H, W, 3)`` noise."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def planar(pixels):
    """Turn ``(H, W, C)`` into a tensor ``(C, H, W)``."""
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def test_images_are_decoded_once_and_kept_as_levels(image_folder, tmp_path):
    """After loading, batches need no file, and the images are the files' very levels."""
    folder = shutil.copytree(image_folder, tmp_path / "images")
    files = image_files(folder)
    expected = [np.array(Image.open(path)) for path in files]

    data = load_folder(files, seed=0)
    shutil.rmtree(folder)
    batch = data.batch(0, 8, [3.0])

    assert len(data) == 6
    for image, pixels in zip(data.images, expected, strict=True):
        assert image.dtype == torch.uint8
        assert torch.equal(image, planar(pixels))
    assert batch.patches.dtype == torch.uint8
    assert batch.patches.shape == (8, 3, PATCH, PATCH)


def test_a_step_is_always_the_same_batch(image_folder):
    """What a step draws follows from the seed and its number, not from what was drawn before."""
    files = image_files(image_folder)
    first, again = load_folder(files, seed=3), load_folder(files, seed=3)
    expected = [first.batch(step, 4, [2.0, 3.0]) for step in range(4)]

    for step in (3, 0, 2, 1):
        found = again.batch(step, 4, [2.0, 3.0])
        assert torch.equal(found.patches, expected[step].patches)
        assert found.scales == expected[step].scales


def test_other_steps_and_seeds_are_other_batches(image_folder):
    """No two of the first steps of two seeds draw the same patches."""
    files = image_files(image_folder)
    batches = {
        load_folder(files, seed).batch(step, 4, [3.0]).patches.numpy().tobytes()
        for seed in (0, 1)
        for step in range(20)
    }

    assert len(batches) == 40


def test_a_patch_is_a_crop_in_one_of_eight_orientations():
    """Every patch lies in one image, whole and undistorted, only flipped or turned."""
    images = [survey(121, 250, 0), survey(200, 133, 1), survey(120, 120, 2)]
    seen = collections.Counter()
    for patch in FolderDataset(images, seed=0).batch(0, 200, [3.0]).patches:
        number, top, left = patch[2].max(), patch[0].min(), patch[1].min()
        crop = images[number][:, top : top + PATCH, left : left + PATCH]
        turned = [turn(crop.permute(1, 2, 0).numpy()) for turn in ORIENTATIONS]
        matches = [i for i, pixels in enumerate(turned) if torch.equal(patch, planar(pixels))]
        seen.update(matches)
        assert len(matches) == 1

    assert sum(seen.values()) == 200


def test_all_orientations_are_as_likely():
    """Over many draws each of the eight flips and turns comes up an eighth of the time."""
    pixels = noise(PATCH, PATCH)
    turned = [planar(turn(pixels)).numpy().tobytes() for turn in ORIENTATIONS]
    patches = FolderDataset([planar(pixels)], seed=0).batch(0, 800, [3.0]).patches

    seen = collections.Counter(turned.index(patch.numpy().tobytes()) for patch in patches)

    assert sorted(seen) == list(range(8))
    assert 70 <= min(seen.values()) <= max(seen.values()) <= 130


def test_every_position_of_a_crop_occurs():
    """Crops start anywhere from the first to the last row and column that leave room."""
    patches = FolderDataset([survey(122, 123)], seed=0).batch(0, 300, [3.0]).patches

    corners = {(int(patch[0].min()), int(patch[1].min())) for patch in patches}

    assert corners == {(row, column) for row in range(3) for column in range(4)}


def test_images_are_drawn_by_their_area():
    """An image with three times the pixels gives three times the patches."""
    data = FolderDataset([survey(120, 120, 0), survey(180, 240, 1)], seed=0)

    numbers = [int(patch[2].max()) for patch in data.batch(0, 800, [3.0]).patches]

    assert sum(numbers) / 800 == pytest.approx(0.75, abs=0.04)


def test_scales_come_as_often_as_they_are_listed():
    """Each entry of the list is as likely; one that stands twice comes twice as often."""
    data = FolderDataset([survey(120, 120)], seed=0)

    seen = collections.Counter(data.batch(0, 1000, [2.0, 3.0, 3.0, 4.0]).scales)

    assert sorted(seen) == [2.0, 3.0, 4.0]
    assert seen[2.0] / 1000 == pytest.approx(0.25, abs=0.04)
    assert seen[3.0] / 1000 == pytest.approx(0.5, abs=0.04)


def test_centres_are_cut_from_the_middle():
    """The evaluation set is the middle of each image, unturned, always the same."""
    data = FolderDataset([survey(121, 250, 0), survey(200, 133, 1)], seed=0)

    expected = [survey(121, 250, 0)[:, :120, 65:185], survey(200, 133, 1)[:, 40:160, 6:126]]

    assert torch.equal(data.centers(5), torch.stack(expected))


@pytest.mark.parametrize(("images", "count"), [(10, 3), (5, 4), (100, 64)])
def test_centres_are_spread_evenly(images, count):
    """Fewer centres than images come from all over the list, up to its last part."""
    data = FolderDataset([survey(120, 120, number) for number in range(images)], seed=0)

    numbers = [int(center[2].max()) for center in data.centers(count)]

    assert len(set(numbers)) == count
    assert numbers == sorted(numbers)
    gaps = [after - before for before, after in pairwise([*numbers, images])]
    assert max(gaps) - min(gaps) <= 1


@pytest.mark.parametrize(
    ("size", "enlarged"),
    [((96, 96), (120, 120)), ((60, 201), (120, 402)), ((97, 61), (191, 120)), ((1, 1), (120, 120))],
)
def test_small_images_are_enlarged_to_a_patch(size, enlarged, tmp_path):
    """A side under 120 pixels becomes 120, bicubic, and the other follows in proportion."""
    pixels = noise(*size)
    path = save(tmp_path / "small.png", pixels)

    (image,) = load_folder([path], seed=0).images

    expected = quantize(bicubic(planar(pixels), enlarged))
    assert torch.equal(image, expected)


def test_huge_images_keep_a_bounded_crop(tmp_path):
    """Of an image beyond 1024 pixels one crop is kept, the same one for the same seed."""
    pixels = noise(130, 1400)
    path = save(tmp_path / "wide.png", pixels)
    crops = [load_folder([path], seed).images[0] for seed in (0, 0, 1, 2, 3)]

    for crop in crops:
        assert crop.shape == (3, 130, 1024)
        starts = [
            left
            for left in range(1400 - 1024 + 1)
            if torch.equal(crop[:, 0, :9], planar(pixels)[:, 0, left : left + 9])
        ]
        assert len(starts) == 1
        assert torch.equal(crop, planar(pixels)[:, :, starts[0] : starts[0] + 1024])
    assert torch.equal(crops[0], crops[1])
    assert len({crop.numpy().tobytes() for crop in crops}) > 1


def test_a_sliver_keeps_no_more_than_a_crop(tmp_path):
    """An image of two rows becomes a patch high, and only a crop of its great width stays."""
    path = save(tmp_path / "sliver.png", noise(2, 300))

    (image,) = load_folder([path], seed=0).images

    # 17 columns are kept, and enlarged by 60.
    assert image.shape == (3, 120, 1020)
    assert image.untyped_storage().nbytes() == 3 * 120 * 1020


def test_images_are_found_below_the_folder(tmp_path):
    """Images of any known kind are found at every depth, by path, and nothing else is."""
    for name in ("b.png", "a/c.JPG", "a/d/e.webp", "z.tiff", "f.bmp", "g.ppm"):
        save(tmp_path / name, noise(4, 4))
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "folder.png").mkdir()

    found = [path.relative_to(tmp_path).as_posix() for path in image_files(tmp_path)]

    assert found == ["a/c.JPG", "a/d/e.webp", "b.png", "f.bmp", "g.ppm", "z.tiff"]


def test_hidden_files_and_folders_are_skipped(tmp_path):
    """What starts with a dot is left alone, but the folder itself may be hidden."""
    folder = tmp_path / ".cache" / "set"
    for name in ("a.png", ".b.png", ".thumbs/c.png", "d/.e/f.png"):
        save(folder / name, noise(4, 4))

    assert image_files(folder) == [folder / "a.png"]


def test_a_missing_folder_is_named(tmp_path):
    """A data set that is not there is refused with its path and the way out."""
    with pytest.raises(DataError) as caught:
        image_files(tmp_path / "nowhere")

    expected = f"--dataset {tmp_path / 'nowhere'} does not exist; give a folder of images"
    assert str(caught.value) == expected
    assert caught.value.exit_code == 4


def test_a_file_instead_of_a_folder_is_named(tmp_path):
    """A single image is no data set, and the text says that it is a file."""
    path = save(tmp_path / "a.png", noise(4, 4))

    with pytest.raises(DataError) as caught:
        image_files(path)

    assert str(caught.value) == f"--dataset {path} is a file; give a folder of images"


def test_a_folder_without_images_is_named(tmp_path):
    """An empty data set is refused, and the text lists what would count as an image."""
    (tmp_path / "notes.txt").write_text("no image")

    with pytest.raises(DataError) as caught:
        image_files(tmp_path)

    kinds = ", ".join(sorted(READABLE_SUFFIXES))
    assert str(caught.value) == (
        f"--dataset {tmp_path} holds no image ({kinds}); give another folder"
    )


def test_an_unreadable_image_is_told_and_left_out(tmp_path):
    """A damaged file costs one line that names it; the others are loaded."""
    good = save(tmp_path / "good.png", noise(130, 140))
    garbage = tmp_path / "garbage.png"
    garbage.write_bytes(b"this is no image")
    cut = tmp_path / "cut.png"
    cut.write_bytes(good.read_bytes()[:2000])
    empty = tmp_path / "empty.jpg"
    empty.touch()
    told = []

    data = load_folder([good, garbage, cut, empty], 0, told.append)

    assert len(data) == 1
    assert len(told) == 3
    for path, line in zip((garbage, cut, empty), told, strict=True):
        assert line.startswith(f"{path}: ")
        assert line.endswith("; it is left out")
        assert "\n" not in line


def test_nothing_readable_is_an_error(tmp_path):
    """When not one image can be decoded there is nothing to train on."""
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "b.png").write_bytes(b"x")

    with pytest.raises(DataError) as caught:
        load_folder(image_files(tmp_path), seed=0)

    assert str(caught.value) == "none of the 2 images could be decoded; give other images"


def test_the_orientation_of_a_camera_is_applied(tmp_path):
    """A picture that its EXIF says to turn is trained on upright."""
    pixels = noise(130, 151)
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save(tmp_path / "turned.png", pixels, exif=exif)

    (image,) = load_folder([path], seed=0).images

    assert torch.equal(image, planar(np.rot90(pixels, -1)))


def test_sixteen_bits_become_eight(tmp_path):
    """A 16-bit grey picture is scaled to 8 bits, not cut off at white."""
    levels = np.linspace(0, 65535, 130 * 140).reshape(130, 140).astype(np.uint16)
    path = save(tmp_path / "deep.png", levels)

    (image,) = load_folder([path], seed=0).images

    expected = torch.from_numpy(levels / 257.0)
    assert (image.double() - expected).abs().max() <= 1


def test_a_transparent_palette_is_silent(tmp_path):
    """A palette image with transparency is read without a warning on the terminal."""
    grey = np.arange(130 * 140, dtype=np.uint32).reshape(130, 140) % 251
    path = tmp_path / "palette.png"
    palette = Image.fromarray(grey.astype(np.uint8)).convert("P")
    palette.save(path, transparency=b"\x00\x80")

    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        data = load_folder([path], seed=0)

    assert [str(warning.message) for warning in heard] == []
    assert torch.equal(data.images[0], torch.from_numpy(grey.astype(np.uint8)).expand(3, -1, -1))


@pytest.mark.parametrize(
    ("count", "held"), [(1, 0), (2, 1), (49, 1), (50, 1), (99, 1), (100, 2), (1000, 20)]
)
def test_one_image_in_fifty_is_held_out(tmp_path, count, held):
    """A fiftieth is held out, at least one if there are two; none is lost or in both parts."""
    files = [tmp_path / f"{index:04}.png" for index in range(count)]

    kept, out = split(files, seed=0)

    assert len(out) == held
    assert sorted(kept + out) == files
    assert kept == sorted(kept)
    assert out == sorted(out)


def test_the_split_follows_the_names_and_the_seed(tmp_path):
    """The same names are held out wherever they lie and however listed; a seed changes them."""
    here = [tmp_path / "here" / f"{index}.png" for index in range(200)]
    there = [tmp_path / "there" / path.name for path in reversed(here)]

    names = [path.name for path in split(here, seed=0)[1]]

    assert sorted(path.name for path in split(there, seed=0)[1]) == sorted(names)
    assert [path.name for path in split(here, seed=1)[1]] != names
