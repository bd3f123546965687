"""Images as one list, what is kept of each, and how the list is split."""

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from reading_files import noise
from source_files import Album, keys, planar

from srcli.data.pool import Pool, split
from srcli.ops.color import quantize
from srcli.ops.resample import bicubic
from srcli.ops.spans import PATCH

SPLITTINGS = pytest.mark.parametrize("kind", ["held-out", "paper"])


def pool_of(*arrays, seed=0):
    """Make a list of pictures."""
    return Pool([Album(arrays)], seed)


def named(names, seed=0):
    """Make a list of names."""
    return Pool([Album(names=names)], seed)


def numbered(count):
    """Make a list of ``count`` names."""
    return named([f"{number:06}.jpg" for number in range(count)])


def survey(height, width):
    """Make ``(H, W, 3)`` whose pixels say where they are: row and column, modulo and whole."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows % 256, columns % 256, rows // 256 * 16 + columns // 256], -1).astype(
        np.uint8
    )


def test_sources_are_one_list_in_the_order_given():
    """Names, labels, sizes and images run on from each source to the next; a part counts anew."""
    arrays = [noise(3, seed=number, height=120 + number, width=130 - number) for number in range(6)]
    parts = [
        Album(arrays[:2], ["a 0", "a 1"]),
        Album(arrays[2:3], ["b 0"]),
        Album(arrays[3:], ["c 0", "c 1", "c 2"]),
    ]

    pool = Pool(parts, seed=0)

    assert keys(pool) == ["a 0", "a 1", "b 0", "c 0", "c 1", "c 2"]
    assert [pool.label(place) for place in (1, 2, 5)] == ["album/a 1", "album/b 0", "album/c 2"]
    for place, array in enumerate(arrays):
        assert pool.size(place) == array.shape[:2]
        assert torch.equal(pool.read(place), planar(array))
    some = pool.only([0, 2, 3, 5])
    assert keys(some) == ["a 0", "b 0", "c 0", "c 2"]
    assert keys(some.only([1, 3])) == ["b 0", "c 2"]


SIDES = st.integers(1, 300) | st.integers(1000, 1100)


@settings(max_examples=30)
@example(height=1, width=4000, channels=3, dtype=np.uint8)
@example(height=4000, width=1, channels=1, dtype=np.uint8)
@example(height=119, width=2000, channels=3, dtype=np.uint16)
@given(
    height=SIDES,
    width=SIDES,
    channels=st.sampled_from([1, 3]),
    dtype=st.sampled_from([np.uint8, np.uint16]),
)
def test_an_image_has_the_size_reported_before(height, width, channels, dtype):
    """Read, an image is RGB of 8 bits as large as reported, within a patch and 1024 pixels."""
    pool = pool_of(noise(channels, dtype, height=height, width=width))

    image = pool.read(0)

    assert image.dtype == torch.uint8
    assert image.shape == (3, *pool.size(0))
    assert PATCH <= min(image.shape[1:]) <= max(image.shape[1:]) <= 1024
    assert image.untyped_storage().nbytes() == image.numel()
    if 120 <= min(height, width) and max(height, width) <= 1024:
        assert pool.size(0) == (height, width)
    if channels == 1:
        assert torch.equal(image, image[:1].expand(3, -1, -1))


@pytest.mark.parametrize(("size", "enlarged"), [((60, 201), (120, 402)), ((97, 61), (191, 120))])
def test_small_images_are_enlarged_to_a_patch(size, enlarged):
    """A side under 120 pixels becomes 120, bicubic, and the other follows in proportion."""
    pixels = noise(3, height=size[0], width=size[1])

    image = pool_of(pixels).read(0)

    assert torch.equal(image, quantize(bicubic(planar(pixels), enlarged)))


@pytest.mark.parametrize(
    ("size", "kept"),
    [((130, 1400), (130, 1024)), ((1100, 1300), (1024, 1024)), ((1025, 200), (1024, 200))],
    ids=str,
)
def test_huge_images_keep_a_bounded_crop(size, kept):
    """Of a side beyond 1024 pixels so many are kept, as they lie, from where the seed says."""
    pixels = survey(*size)
    crops = [pool_of(pixels, seed=seed).read(0) for seed in (0, 0, 1, 2, 3)]

    corners = []
    for crop in crops:
        row, column, whole = (int(value) for value in crop[:, 0, 0])
        top, left = row + whole // 16 * 256, column + whole % 16 * 256
        corners.append((top, left))
        assert crop.shape == (3, *kept)
        assert torch.equal(crop, planar(pixels[top : top + kept[0], left : left + kept[1]]))
    assert corners[0] == corners[1]
    assert len(set(corners)) > 1


def test_the_crop_follows_the_name_and_not_the_place():
    """An image keeps the same crop whatever else is in the list; others keep other ones."""
    picture, other = noise(3, height=130, width=3000), noise(3, height=120, width=120)
    alone = pool_of(picture, seed=4)
    among = Pool([Album([other], ["other"]), Album([picture, picture])], seed=4)

    assert torch.equal(among.read(1), alone.read(0))
    assert not torch.equal(among.read(2), alone.read(0))


def test_sixteen_bits_are_scaled():
    """To the nearest of 8, and not cut off."""
    values = np.linspace(0, 65535, 130 * 140).reshape(130, 140, 1).astype(np.uint16)

    found = pool_of(values).read(0)

    assert (found.double() - planar(values / 257.0)).abs().max() <= 0.5


@pytest.mark.parametrize(
    ("kind", "count", "train", "evaluation", "test"),
    [
        ("paper", 302_599, 86_799, 211_800, 4_000),
        *[("paper", 1, 1, 0, 0), ("paper", 2, 1, 1, 0), ("paper", 1000, 287, 700, 13)],
        *[("held-out", 1, 1, 0, 0), ("held-out", 2, 1, 1, 0), ("held-out", 99, 98, 1, 0)],
        ("held-out", 1000, 980, 20, 0),
    ],
)
def test_images_are_split_in_the_paper_s_shares(kind, count, train, evaluation, test):
    """Of any number of images, one for training at least; or a fiftieth is held out."""
    parts = split(numbered(count), 0, kind)

    found = len(parts.train), len(parts.evaluation), len(parts.test)

    assert found == (train, evaluation, test)


@SPLITTINGS
@given(count=st.integers(1, 200), seed=st.integers(0, 2**63 - 1), different=st.integers(1, 200))
def test_no_image_is_lost_or_in_two_parts(kind, count, seed, different):
    """Each image is in one part, some of one name too, each part in order, one for training."""
    pool = named([f"{number % different:06}" for number in range(count)])

    parts = split(pool, seed, kind)

    chosen = [[index for _, index in part._images] for part in parts]
    assert sorted([*chosen[0], *chosen[1], *chosen[2]]) == list(range(count))
    assert all(part == sorted(part) for part in chosen)
    assert chosen[0]


@SPLITTINGS
def test_the_split_follows_the_names_and_the_seed(kind):
    """The same names are held out however listed, and whatever the pool's seed."""
    here = numbered(200)
    reversed_ = named(keys(here)[::-1], seed=2)

    held = keys(split(here, 0, kind).evaluation)

    assert keys(split(reversed_, 0, kind).evaluation) == held[::-1]
    assert keys(split(here, 1, kind).evaluation) != held
