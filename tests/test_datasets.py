"""Images as one list, how it is parted, and which patches a step draws from it."""

import collections
import dataclasses
import hashlib
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from srcli.data.folders import Folder
from srcli.data.pool import Pool, open_pool, split
from srcli.data.sampling import Sampler, derive_seed
from srcli.errors import DataError, ImageError, UsageError
from srcli.ops.color import quantize
from srcli.ops.degrade import DRAWS
from srcli.ops.resample import bicubic
from srcli.ops.spans import PATCH

SPLITTINGS = pytest.mark.parametrize("kind", ["held-out", "paper"])


class Names:
    """A source of names alone: what is not asked for pixels needs none."""

    def __init__(self, names):
        self.names = names
        self.name = "names"

    def __len__(self):
        return len(self.names)

    def key(self, index):
        """Name an image."""
        return self.names[index]

    def label(self, index):
        """Say where an image is."""
        return f"{self.name}/{self.names[index]}"


class Pictures(Names):
    """A source of ``(H, W, C)`` arrays."""

    def __init__(self, arrays, prefix="picture"):
        super().__init__([f"{prefix} {number}" for number in range(len(arrays))])
        self.arrays = arrays

    def read(self, index):
        """Give a copy of an image."""
        return self.arrays[index].copy()

    def size(self, index):
        """Tell width and height."""
        height, width, _ = self.arrays[index].shape
        return width, height


def numbered(count):
    """Make a list of ``count`` names."""
    return Pool([Names([f"{number:06}.jpg" for number in range(count)])], seed=0)


def names(pool):
    """List the names of a pool's images."""
    return [pool.key(place) for place in range(len(pool))]


def noise(height, width, channels=3, dtype=np.uint8, seed=0):
    """Make ``(H, W, C)`` noise over the whole range of a dtype."""
    top = np.iinfo(dtype).max
    shape = (height, width, channels)
    return np.random.default_rng(seed).integers(0, top, shape, dtype=dtype, endpoint=True)


def survey(height, width):
    """Make ``(H, W, 3)`` whose pixels say where they are: row and column, modulo and whole."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows % 256, columns % 256, rows // 256 * 16 + columns // 256], -1).astype(
        np.uint8
    )


def planar(pixels):
    """Turn ``(H, W, C)`` into a tensor ``(C, H, W)``."""
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def save(path, pixels, **options):
    """Write ``(H, W)`` or ``(H, W, 3)`` levels as an image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


# ---- the list -----------------------------------------------------------------------------


def test_sources_are_one_list_in_the_order_given():
    """Names, labels, sizes and images run on from each source to the next."""
    arrays = [noise(120 + number, 130 - number, seed=number) for number in range(6)]
    parts = [Pictures(arrays[:2], "a"), Pictures(arrays[2:3], "b"), Pictures(arrays[3:], "c")]

    pool = Pool(parts, seed=0)

    assert names(pool) == ["a 0", "a 1", "b 0", "c 0", "c 1", "c 2"]
    assert [pool.label(place) for place in (1, 2, 5)] == ["names/a 1", "names/b 0", "names/c 2"]
    for place, array in enumerate(arrays):
        assert pool.size(place) == array.shape[:2]
        assert torch.equal(pool.read(place), planar(array))


def test_a_list_is_narrowed_again_and_again():
    """A narrowed list counts from zero anew, and can be narrowed in turn."""
    pool = Pool([Names(["a", "b"]), Names(["c", "d", "e"])], seed=0)

    some = pool.only(np.array([0, 2, 3, 4]))

    assert names(some) == ["a", "c", "d", "e"]
    assert names(some.only(np.array([1, 3]))) == ["c", "e"]
    assert names(pool) == ["a", "b", "c", "d", "e"]


@given(count=st.integers(1, 60), limit=st.integers(1, 80), seed=st.integers(0, 2**63 - 1))
def test_a_limit_keeps_some_images_in_their_order(count, limit, seed):
    """At most so many images are left, none twice, in the list's order, the same each time."""
    pool = Pool([Names([f"{number:02}" for number in range(count)])], seed)

    found = names(pool.limited(limit))

    assert len(found) == min(count, limit)
    assert found == sorted(set(found))
    assert found == names(pool.limited(limit))


def test_a_limit_is_drawn_by_seed_from_all_over_the_list():
    """Which images are kept depends on the seed, and is not the beginning of the list."""
    source = Names([f"{number:03}" for number in range(200)])

    kept = {tuple(names(Pool([source], seed).limited(20))) for seed in range(5)}

    assert len(kept) == 5
    for chosen in kept:
        assert int(chosen[0]) < 50
        assert int(chosen[-1]) > 150


def test_no_limit_keeps_all():
    """Without a limit, or with a larger one, every image stays."""
    assert len(numbered(7).limited(None)) == 7
    assert len(numbered(7).limited(7)) == 7
    assert len(numbered(7).limited(8)) == 7


SIDES = st.one_of(st.integers(1, 119), st.integers(120, 300), st.integers(1000, 1300))


@settings(max_examples=50)
@given(
    height=SIDES,
    width=SIDES,
    channels=st.sampled_from([1, 3]),
    dtype=st.sampled_from([np.uint8, np.uint16]),
)
def test_an_image_has_the_size_that_was_told(height, width, channels, dtype):
    """Read, an image is RGB of 8 bits as large as told before, within a patch and 1024 pixels."""
    pool = Pool([Pictures([noise(height, width, channels, dtype)])], seed=0)

    image = pool.read(0)

    assert image.dtype == torch.uint8
    assert image.shape == (3, *pool.size(0))
    assert min(image.shape[1:]) >= PATCH
    assert max(image.shape[1:]) <= 1024
    assert image.is_contiguous()
    assert image.untyped_storage().nbytes() == image.numel()
    if 120 <= min(height, width) and max(height, width) <= 1024:
        assert pool.size(0) == (height, width)
    if channels == 1:
        assert torch.equal(image, image[:1].expand(3, -1, -1))


@pytest.mark.parametrize("size", [(1, 5000), (5000, 1), (1, 1), (119, 4000), (120, 4000)], ids=str)
def test_slivers_have_the_size_that_was_told(size):
    """However long and thin, an image is within bounds and as large as told."""
    pool = Pool([Pictures([noise(*size)])], seed=0)

    assert pool.read(0).shape == (3, *pool.size(0))
    assert PATCH == min(pool.size(0)) <= max(pool.size(0)) <= 1024


@pytest.mark.parametrize(
    ("size", "enlarged"),
    [((96, 96), (120, 120)), ((60, 201), (120, 402)), ((97, 61), (191, 120)), ((1, 1), (120, 120))],
)
def test_small_images_are_enlarged_to_a_patch(size, enlarged):
    """A side under 120 pixels becomes 120, bicubic, and the other follows in proportion."""
    pixels = noise(*size)

    image = Pool([Pictures([pixels])], seed=0).read(0)

    assert torch.equal(image, quantize(bicubic(planar(pixels), enlarged)))


def test_a_sliver_keeps_no_more_than_a_crop():
    """An image of two rows becomes a patch high, and only a crop of its great width stays."""
    pixels = noise(2, 300)

    image = Pool([Pictures([pixels])], seed=0).read(0)

    # 17 columns are kept, and enlarged by 60.
    windows = [pixels[:, left : left + 17] for left in range(300 - 17 + 1)]
    enlarged = [quantize(bicubic(planar(window), (120, 1020))) for window in windows]
    assert sum(torch.equal(image, candidate) for candidate in enlarged) == 1


@pytest.mark.parametrize(
    ("size", "kept"),
    [((130, 1400), (130, 1024)), ((1100, 1300), (1024, 1024)), ((1025, 200), (1024, 200))],
    ids=str,
)
def test_huge_images_keep_a_bounded_crop(size, kept):
    """Of a side beyond 1024 pixels so many are kept, as they lie, from where the seed says."""
    pixels = survey(*size)
    crops = [Pool([Pictures([pixels])], seed).read(0) for seed in (0, 0, 1, 2, 3)]

    corners = []
    for crop in crops:
        row, column, whole = (int(level) for level in crop[:, 0, 0])
        top, left = row + whole // 16 * 256, column + whole % 16 * 256
        corners.append((top, left))
        assert crop.shape == (3, *kept)
        expected = pixels[top : top + kept[0], left : left + kept[1]]
        assert torch.equal(crop, planar(expected))
    assert corners[0] == corners[1]
    assert len(set(corners)) > 1


def test_the_crop_follows_the_name_and_not_the_place():
    """An image keeps the same crop whatever else is in the list; others keep other ones."""
    picture = noise(130, 3000)
    alone = Pool([Pictures([picture])], seed=4)
    among = Pool([Pictures([noise(120, 120)], "other"), Pictures([picture, picture])], seed=4)

    assert torch.equal(among.read(1), alone.read(0))
    assert not torch.equal(among.read(2), alone.read(0))


def test_the_orientation_of_a_camera_is_applied(tmp_path):
    """A picture that its EXIF says to turn is upright, and so is the size told before."""
    pixels = noise(130, 151)
    exif = Image.Exif()
    exif[0x0112] = 6
    save(tmp_path / "turned.png", pixels, exif=exif)

    pool = open_pool([str(tmp_path)], tmp_path, seed=0)

    assert pool.size(0) == (151, 130)
    assert torch.equal(pool.read(0), planar(np.rot90(pixels, -1)))


def test_sixteen_bits_become_eight(tmp_path):
    """A 16-bit grey picture is scaled to 8 bits, not cut off at white."""
    levels = np.linspace(0, 65535, 130 * 140).reshape(130, 140).astype(np.uint16)
    save(tmp_path / "deep.png", levels)

    pool = Pool([Folder(tmp_path)], seed=0)

    image = pool.read(0)
    assert pool.size(0) == (130, 140)
    assert (image.double() - torch.from_numpy(levels / 257.0)).abs().max() <= 0.5


def test_a_transparent_palette_is_silent(tmp_path):
    """A palette image with transparency is read without a warning on the terminal."""
    grey = (np.arange(130 * 140, dtype=np.uint32).reshape(130, 140) % 251).astype(np.uint8)
    palette = Image.fromarray(grey).convert("P")
    palette.save(tmp_path / "palette.png", transparency=b"\x00\x80")

    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        image = Pool([Folder(tmp_path)], seed=0).read(0)

    assert [str(warning.message) for warning in heard] == []
    assert torch.equal(image, torch.from_numpy(grey).expand(3, -1, -1))


def test_a_damaged_image_is_an_error_of_its_own(tmp_path):
    """An unreadable file says so when it is asked for, and harms no other."""
    save(tmp_path / "a.png", noise(120, 120))
    (tmp_path / "b.png").write_bytes(b"this is no image")
    pool = Pool([Folder(tmp_path)], seed=0)

    for access in (pool.read, pool.size):
        with pytest.raises(ImageError, match=r"b\.png: "):
            access(1)
    assert pool.read(0).shape == (3, 120, 120)


def test_data_sets_are_opened_as_one_union(tmp_path):
    """Folders, and what has a name, are opened in the order given; notices are passed on."""
    save(tmp_path / "photos" / "p.png", noise(4, 4))
    save(tmp_path / "celeba" / "img_align_celeba" / "000001.jpg", noise(218, 178))
    told = []

    pool = open_pool(["celeba", str(tmp_path / "photos")], tmp_path, 0, told.append)

    assert names(pool) == ["000001.jpg", "p.png"]
    assert len(told) == 1
    assert told[0].startswith("celeba: 1 of the 202,599 images")


def test_a_data_set_that_is_not_there_is_an_error(tmp_path):
    """One missing or misspelt member of a union is an error that names it."""
    save(tmp_path / "photos" / "p.png", noise(4, 4))

    with pytest.raises(DataError, match="nowhere does not exist"):
        open_pool([str(tmp_path / "photos"), str(tmp_path / "nowhere")], tmp_path, 0)
    with pytest.raises(UsageError, match="stl10 has the parts"):
        open_pool([str(tmp_path / "photos"), "stl10:valid"], tmp_path, 0)


# ---- training, evaluation, test -----------------------------------------------------------


def test_the_whole_union_is_parted_as_the_paper_has_it():
    """Of CelebA and STL-10 together 4,000 are for test, 86,799 for training, 211,800 between."""
    celeba = Names([f"{number:06}.jpg" for number in range(1, 202_600)])
    stl10 = Names([f"stl10/unlabeled/{number}" for number in range(100_000)])

    parts = split(Pool([celeba, stl10], seed=0), 0, "paper")

    assert len(parts.test) == 4_000
    assert len(parts.train) == 86_799
    assert len(parts.evaluation) == 211_800
    chosen = [part._chosen for part in (parts.test, parts.train, parts.evaluation)]
    assert np.array_equal(np.sort(np.concatenate(chosen)), np.arange(302_599))
    # Both data sets are in each part in proportion, to five standard deviations and more.
    for places in chosen:
        assert (places < 202_599).mean() == pytest.approx(202_599 / 302_599, abs=0.04)


@pytest.mark.parametrize(
    ("count", "train", "evaluation", "test"),
    [(1, 1, 0, 0), (2, 1, 1, 0), (10, 3, 7, 0), (100, 29, 70, 1), (1000, 287, 700, 13)],
)
def test_fewer_images_are_parted_in_the_same_shares(count, train, evaluation, test):
    """The paper's shares hold for any number, rounded, with one for training at least."""
    parts = split(numbered(count), 0, "paper")

    found = len(parts.train), len(parts.evaluation), len(parts.test)

    assert found == (train, evaluation, test)


@pytest.mark.parametrize(
    ("count", "held"), [(1, 0), (2, 1), (49, 1), (50, 1), (99, 1), (100, 2), (1000, 20)]
)
def test_one_image_in_fifty_is_held_out(count, held):
    """A fiftieth is held out for evaluation, at least one if there are two; none for test."""
    parts = split(numbered(count), 0, "held-out")

    found = len(parts.train), len(parts.evaluation), len(parts.test)

    assert found == (count - held, held, 0)


@given(
    count=st.integers(1, 300),
    seed=st.integers(0, 2**63 - 1),
    kind=st.sampled_from(["held-out", "paper"]),
)
def test_no_image_is_lost_or_in_two_parts(count, seed, kind):
    """Each image is in one part, each part is in the list's order, and one is for training."""
    pool = numbered(count)

    parts = split(pool, seed, kind)

    found = [names(part) for part in (parts.train, parts.evaluation, parts.test)]
    assert sorted([*found[0], *found[1], *found[2]]) == names(pool)
    assert all(part == sorted(part) for part in found)
    assert found[0]


@SPLITTINGS
def test_the_split_follows_the_names_and_the_seed(kind, tmp_path):
    """The same names are held out wherever they lie and however listed; a seed changes them."""
    for folder in ("here", "there/below"):
        (tmp_path / folder).mkdir(parents=True)
        for number in range(200):
            (tmp_path / folder / f"{number}.png").touch()
    here = Pool([Folder(tmp_path / "here")], seed=0)
    there = Pool([Folder(tmp_path / "there")], seed=1)
    shuffled = Pool([Names(names(here)[::-1])], seed=2)

    held = names(split(here, 0, kind).evaluation)

    assert names(split(there, 0, kind).evaluation) == held
    assert names(split(shuffled, 0, kind).evaluation) == held[::-1]
    assert names(split(here, 1, kind).evaluation) != held


@SPLITTINGS
def test_images_of_one_name_are_all_there(kind):
    """Images in different folders may have one name: each still is in exactly one part."""
    pool = Pool([Names(["same"] * 120)], seed=0)

    parts = split(pool, 0, kind)

    chosen = [part._chosen for part in (parts.train, parts.evaluation, parts.test)]
    assert np.array_equal(np.sort(np.concatenate(chosen)), np.arange(120))


# ---- draws --------------------------------------------------------------------------------


def sampler(count=20, seed=3, **options):
    """Make a sampler by epochs, or as the options have it."""
    known = {"scales": [2.0, 3.0], "augment": "turn"}
    return Sampler(count, seed, **{**known, **options})


def by_area(areas, **options):
    """Make a sampler by area."""
    return sampler(len(areas), areas=areas, **options)


SAMPLERS = pytest.mark.parametrize("make", [sampler, lambda: by_area([5, 1, 7, 0, 2])])


def same(first, second):
    """Whether two draws are the same in every entry."""
    fields = ("images", "top", "left", "turn", "scales")
    return all(getattr(first, name) == getattr(second, name) for name in fields) and torch.equal(
        first.degradation, second.degradation
    )


@SAMPLERS
def test_a_step_is_always_the_same_draw(make):
    """What a step draws follows from the seed and its number, not from what was drawn before."""
    first = make()
    expected = [first.draw(step, 6) for step in range(9)]

    for step in (8, 3, 0, 5):
        assert same(make().draw(step, 6), expected[step])
        assert same(first.draw(step, 6), expected[step])


@SAMPLERS
def test_a_draw_has_an_entry_for_each_patch(make):
    """All lists are as long as the batch, and every number is in its range."""
    draw = make().draw(0, 7)

    lists = draw.images, draw.top, draw.left, draw.turn, draw.scales
    assert [len(entries) for entries in lists] == [7] * 5
    assert draw.degradation.shape == (7, DRAWS)
    assert draw.degradation.dtype == torch.float64
    assert all(0 <= value < 1 for value in [*draw.top, *draw.left])
    assert 0 <= draw.degradation.min() <= draw.degradation.max() < 1
    assert set(draw.turn) <= set(range(8))
    assert set(draw.scales) <= {2.0, 3.0}


def test_other_steps_and_seeds_are_other_draws():
    """No two of the first steps of two seeds draw the same."""
    draws = [sampler(seed=seed).draw(step, 4) for seed in (0, 1) for step in range(20)]

    assert len({tuple(draw.top) for draw in draws}) == 40
    assert len({tuple(draw.degradation.flatten().tolist()) for draw in draws}) == 40


def test_the_draws_of_a_seed_stay_what_they_are():
    """A run that was started by an older version goes on: these draws must never change."""
    by_epoch = sampler(count=10, seed=7).draw(4, 4)
    area = by_area([1, 2, 3, 4], seed=7).draw(4, 4)

    assert derive_seed(7, 4) == int.from_bytes(hashlib.blake2b(b"7/4", digest_size=8).digest()) // 2
    generator = torch.Generator().manual_seed(derive_seed(7, 4))
    numbers = torch.rand(4, 5, generator=generator, dtype=torch.float64)
    degradation = torch.rand(4, DRAWS, generator=generator, dtype=torch.float64)
    for draw in (by_epoch, area):
        assert draw.top == numbers[:, 1].tolist()
        assert draw.left == numbers[:, 2].tolist()
        assert draw.turn == [int(8 * number) for number in numbers[:, 3].tolist()]
        assert draw.scales == [2.0 if number < 0.5 else 3.0 for number in numbers[:, 4].tolist()]
        assert torch.equal(draw.degradation, degradation)
    edges = [0.1, 0.3, 0.6]
    assert area.images == [sum(n >= edge for edge in edges) for n in numbers[:, 0].tolist()]
    # Ten images are three steps of four: step 4 is the second of the second epoch.
    order = torch.randperm(10, generator=torch.Generator().manual_seed(derive_seed(7, "epoch 1")))
    assert by_epoch.images == order[4:8].tolist()


@given(count=st.integers(1, 50), size=st.integers(1, 60), epoch=st.integers(0, 5))
def test_an_epoch_has_every_image_once(count, size, epoch):
    """The steps of an epoch go once through the images, then fill up from the same order."""
    draws = sampler(count)
    steps = draws.steps_per_epoch(size)

    images = [
        image
        for step in range(epoch * steps, (epoch + 1) * steps)
        for image in draws.draw(step, size).images
    ]

    assert steps == (count + size - 1) // size
    assert sorted(images[:count]) == list(range(count))
    assert images[count:] == (images[:count] * size)[: steps * size - count]


def test_each_epoch_has_an_order_of_its_own():
    """The images come in another order in each epoch, and with another seed."""
    orders = {
        tuple(image for step in range(5) for image in draws.draw(5 * epoch + step, 4).images)
        for draws in (sampler(seed=0), sampler(seed=1))
        for epoch in range(6)
    }

    assert len(orders) == 12


def test_images_are_drawn_by_their_area():
    """Images come in proportion to their pixels; one of no pixels never comes."""
    areas = [0, 14400, 2 * 14400, 0, 3 * 14400, 4 * 14400, 0]
    draws = by_area(areas, seed=0)

    seen = collections.Counter(
        image for step in range(50) for image in draws.draw(step, 100).images
    )

    expected = {place: 5000 * area / sum(areas) for place, area in enumerate(areas) if area}
    assert set(seen) == set(expected)
    statistic = sum((seen[place] - count) ** 2 / count for place, count in expected.items())
    assert statistic < 16.3  # the 99.9th percentile of chi-square with three degrees of freedom
    edges = torch.tensor([0.0, 0.1, 0.3, 0.6, 1 - 2**-53], dtype=torch.float64)
    assert draws._images(edges, 0, 5) == [1, 2, 4, 5, 5]


def test_all_turns_places_and_scales_are_as_likely():
    """Turns and scales come as often as listed, and positions are spread over their range."""
    drawn = [sampler(seed=0, scales=[2.0, 3.0, 3.0, 4.0]).draw(step, 100) for step in range(40)]

    turns = collections.Counter(turn for draw in drawn for turn in draw.turn)
    scales = collections.Counter(scale for draw in drawn for scale in draw.scales)
    assert sum((turns[turn] - 500) ** 2 / 500 for turn in range(8)) < 24.3  # 99.9 %, 7 degrees
    expected = {2.0: 1000, 3.0: 2000, 4.0: 1000}
    assert sum((scales[s] - count) ** 2 / count for s, count in expected.items()) < 13.8
    for values in ([v for draw in drawn for v in draw.top], [v for d in drawn for v in d.left]):
        counts = np.histogram(values, bins=10, range=(0, 1))[0]
        assert ((counts - 400) ** 2 / 400).sum() < 27.9  # 99.9 %, 9 degrees


def test_balanced_scales_take_turns():
    """Each factor has its share in every step, in whole batches to the patch; all else stays."""
    scales = [2.0, 3.0, 3.0, 4.0]
    balanced, drawn = (sampler(scales=scales, balanced=balanced) for balanced in (True, False))
    first = set()
    for step in range(40):
        draw, other = balanced.draw(step, 16), drawn.draw(step, 16)
        assert collections.Counter(draw.scales) == {2.0: 4, 3.0: 8, 4.0: 4}
        assert draw.scales[0] == other.scales[0]
        assert same(dataclasses.replace(draw, scales=other.scales), other)
        for part in (slice(0, 4), slice(8, 12)):  # of each process as well
            assert sorted(draw.scales[part]) == scales
        first.add(draw.scales[0])
    assert first == {2.0, 3.0, 4.0}


def test_balanced_scales_of_small_batches_are_as_likely():
    """A batch that has no room for all of them begins anywhere among them."""
    small = sampler(seed=0, scales=[2.0, 3.0, 3.0, 4.0], balanced=True)
    scales = collections.Counter(s for step in range(2000) for s in small.draw(step, 2).scales)

    expected = {2.0: 1000, 3.0: 2000, 4.0: 1000}
    # Two of a step exclude each other, so that the counts vary less than if each were drawn.
    assert sum((scales[s] - count) ** 2 / count for s, count in expected.items()) < 13.8


@pytest.mark.parametrize(
    ("augment", "turns"), [("turn", set(range(8))), ("mirror", {0, 4}), ("none", {0})]
)
def test_augmentation_is_what_turns_patches(augment, turns):
    """Flips and turns are those that were asked for; everything else is drawn alike."""
    draw, other = sampler(augment=augment).draw(0, 50), sampler().draw(0, 50)

    assert set(draw.turn) == turns
    assert same(dataclasses.replace(draw, turn=other.turn), other)


def test_mirrored_patches_are_half_of_them():
    """Left and right are as likely as they are the other way round."""
    draws = [sampler(augment="mirror").draw(step, 100).turn for step in range(10)]

    mirrored = sum(turn == 4 for draw in draws for turn in draw)
    assert abs(mirrored - 500) < 65  # four standard deviations


def test_mixing_gives_unrelated_seeds():
    """Steps and names are hashed with the seed into numbers that torch takes, none alike."""
    mixed = {
        derive_seed(seed, value) for seed in range(50) for value in (*range(50), "0.png", "epoch 1")
    }

    assert len(mixed) == 50 * 52
    assert all(0 <= number < 2**63 for number in mixed)
