"""Patches out of images: the same ones however they are read, by whom, and from which step on."""

import threading
from contextlib import closing
from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from source_files import Album, planar

from srcli.data import loading
from srcli.data.loading import Centers, Loader, named_draws
from srcli.data.pool import Pool
from srcli.data.sampling import Cut, Resident, Sampler, center_patch, cut_patch
from srcli.errors import DataError
from srcli.ops.spans import PATCH

CPU = torch.device("cpu")

COUNT = 120
"""Images of a list that may have one that cannot be read, and not two."""

RESIDENT = pytest.mark.parametrize("resident", [False, True], ids=["streamed", "resident"])


def survey(height, width, number):
    """Make ``(H, W, 3)`` whose pixels say where they are: row, column, number of the image."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows, columns, np.full_like(rows, number)], -1).astype(np.uint8)


ALBUM = [survey(PATCH + number % 7, PATCH + number % 11, number) for number in range(COUNT)]
"""Images of odd sizes, each known by its last channel."""


def pool_of(images=ALBUM, **options):
    """Make a list of the album's images."""
    return Pool([Album(images, **options)], seed=0)


def by_epoch(count=COUNT, **options):
    """Make a sampler that takes every image once an epoch."""
    known = {"scales": [2.0, 3.0, 4.0], "augment": "turn"}
    return Sampler(count, 1, **{**known, **options})


def take(loader, sampler, count, size=16, rows=slice(None)):
    """Read some batches and close the rest."""
    with closing(loader.batches(sampler, 0, size, rows)) as batches:
        return list(islice(batches, count))


def require_same(first, second):
    """Check that two lists of batches are the same to the bit."""
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one.patches.cpu(), other.patches)
        assert one.scales == other.scales
        assert torch.equal(one.draws, other.draws)


def test_a_patch_is_what_was_drawn():
    """Each patch is the part of the image that the draw says, in the turn that it says."""
    sampler = by_epoch()
    loader = Loader(pool_of(), CPU, workers=2, resident=False)

    for step, batch in enumerate(take(loader, sampler, 4, size=30)):
        draw = sampler.draw(step, 30)
        assert batch.patches.dtype == torch.uint8
        assert batch.scales == draw.scales
        assert torch.equal(batch.draws, draw.degradation)
        for patch, cut in zip(batch.patches, draw.cuts, strict=True):
            image = ALBUM[cut.image]
            top = int(cut.top * (image.shape[0] - PATCH + 1))
            left = int(cut.left * (image.shape[1] - PATCH + 1))
            crop = np.rot90(image[top : top + PATCH, left : left + PATCH], cut.turn % 4)
            assert torch.equal(patch, planar(crop[:, ::-1] if cut.turn >= 4 else crop))
    assert loader.failures == {}


@given(
    cuts=st.lists(
        st.builds(
            Cut,
            image=st.sampled_from([0, 1, 3, 4]),
            top=st.floats(0, 1, exclude_max=True),
            left=st.floats(0, 1, exclude_max=True),
            turn=st.integers(0, 7),
            grid=st.sampled_from([1, 2, 3, 4]),
        ),
        min_size=1,
        max_size=9,
    )
)
def test_one_indexing_cuts_the_same_patches(cuts):
    """What a GPU gathers at once is what is sliced out one by one."""
    sizes = ((120, 120), (131, 257), None, (123, 121), (127, 139))
    images = [size and planar(survey(*size, number)) for number, size in enumerate(sizes)]
    resident = Resident(images, CPU)

    expected = torch.stack([cut_patch(images[cut.image], cut) for cut in cuts])
    assert torch.equal(resident.cut(cuts), expected)


@pytest.mark.parametrize("sampling", ["epoch", "area"])
@pytest.mark.parametrize("damage", ["none", "damaged", "headless"])
def test_where_images_are_kept_changes_nothing(damage, sampling):
    """Streamed by one thread or three, resident, or as on a GPU: the same batches to the bit."""
    options = {} if damage == "none" else {damage: [77]}
    loaders = [
        Loader(pool_of(**options), CPU, workers=workers, resident=resident)
        for workers, resident in ((1, False), (3, False), (2, True))
    ]
    as_on_a_gpu = Loader(pool_of(**options), CPU, workers=2, resident=True)
    as_on_a_gpu._on_gpu = Resident(as_on_a_gpu._kept, CPU)
    loaders.append(as_on_a_gpu)

    taken = []
    for loader in loaders:
        areas = None if sampling == "epoch" else loader.areas()
        taken.append(take(loader, by_epoch(areas=areas), 25))

    for batches in taken[1:]:
        require_same(taken[0], batches)
    numbers = {int(patch[2, 0, 0]) for batch in taken[0] for patch in batch.patches}
    assert (77 in numbers) == (damage == "none")
    for loader in loaders:
        assert set(loader.failures) == set(*options.values())


@RESIDENT
@pytest.mark.parametrize(("bad", "stand_in"), [((10, 11), 12), ((199,), 0)])
def test_the_next_image_stands_in_for_an_unreadable_one(resident, bad, stand_in):
    """One in a hundred may be bad: the next readable image, after the last the first, is taken."""
    pool = pool_of(images=[survey(PATCH, PATCH, number) for number in range(200)], damaged=bad)
    loader = Loader(pool, CPU, workers=2, resident=resident)

    (batch,) = take(loader, by_epoch(200, augment="none"), 1, size=200)

    numbers = sorted(batch.patches[:, 2, 0, 0].tolist())
    assert numbers == sorted([*({*range(200)} - {*bad}), *[stand_in] * len(bad)])
    assert loader.failures == {place: f"{place}.png: damaged" for place in bad}


@pytest.mark.parametrize("kind", ["damaged", "headless"])
@pytest.mark.parametrize("resident", [None, False, True])
@pytest.mark.parametrize(("count", "bad"), [(1, [0]), (COUNT, [40, 90]), (COUNT, range(COUNT))])
def test_more_than_one_in_a_hundred_is_too_many(kind, resident, count, bad):
    """Kept or streamed, the run ends with one line that names one; it never searches for ever."""
    pool = pool_of(images=ALBUM[:count], **{kind: bad})
    text = rf"^\d+ of {count} images cannot be read, more than 1%: .*; the first: \d+\.png: "

    with pytest.raises(DataError, match=f"{text}damaged$"):
        take(Loader(pool, CPU, workers=2, resident=resident), by_epoch(count), 8)
    if kind == "headless":  # found before training, with the sizes
        with pytest.raises(DataError, match=f"{text}no header$"):
            Loader(pool, CPU, workers=2, resident=False).areas()


@RESIDENT
def test_closing_the_batches_ends_the_threads(resident):
    """When the batches are not wanted any more, or reading fails for good, no thread is left."""

    def own():
        # Without those in which a library's thread called Python.
        return {one for one in threading.enumerate() if not one.name.startswith("Dummy-")}

    before = own()
    batches = Loader(pool_of(), CPU, workers=3, resident=resident).batches(by_epoch(), 0, 16)
    next(batches)
    assert own() > before
    batches.close()
    assert own() == before

    broken = Loader(pool_of(damaged=range(60)), CPU, workers=3, resident=False)
    with pytest.raises(DataError):
        take(broken, by_epoch(), 8)
    assert own() == before


@pytest.mark.parametrize("rows", [slice(None), slice(0, 6)], ids=str)
def test_streaming_reads_its_rows_and_little_ahead(rows):
    """Each thread holds an image or two and reads two batches ahead, no rows of others."""
    album = Album(ALBUM)
    loader = Loader(Pool([album], seed=0), CPU, workers=3, resident=False)

    take(loader, by_epoch(), 5, size=24, rows=rows)

    size = len(range(24)[rows])
    assert 5 * size <= album.reads <= (5 + 2 * 3) * size
    assert album.most <= 2 * 3


def test_what_fits_into_memory_stays_there(monkeypatch):
    """Images are kept if they fit into the room, by the estimate of some hundred headers."""
    asked = []
    size = Album.size
    monkeypatch.setattr(Album, "size", lambda self, at: asked.append(at) or size(self, at))

    for count, spare in ((5, 0), (5, -1), (2000, -1)):
        monkeypatch.setattr(loading, "_RESIDENT_BYTES", count * ALBUM[0].size + spare)
        loader = Loader(pool_of(images=[ALBUM[0]] * count), CPU, workers=2)
        assert loader.resident == (spare == 0)

    assert 200 <= len(asked) <= 400
    assert max(asked) > 1900


def centers_of(places, **options):
    """Make the centers of some images, and the source that they are read from."""
    album = Album(ALBUM, **options)
    return Centers(Pool([album], seed=0), places, CPU, workers=2, size=4), album


def test_centers_come_in_the_order_of_their_places():
    """Each place gives its image's middle, with the factor of its place and its own draws."""
    places = [3, 9, 10, 41, 99, 118]
    centers, _ = centers_of(places)

    batches = list(centers.batches([2.0, 3.0, 4.0], seed=5))

    assert centers.count == 6
    assert [len(batch.patches) for batch in batches] == [4, 2]
    patches = torch.cat([batch.patches for batch in batches])
    assert torch.equal(patches, torch.stack([center_patch(planar(ALBUM[i])) for i in places]))
    assert patches[1, :, 0, 0].tolist() == [1, 4, 9]  # (122, 129) pixels: half above, half left
    scales = [scale for batch in batches for scale in batch.scales]
    assert scales == [2.0, 2.0, 3.0, 4.0, 2.0, 3.0]
    draws = torch.cat([batch.draws for batch in batches])
    assert torch.equal(draws, torch.stack([named_draws(5, f"{i}.png") for i in places]))


@pytest.mark.parametrize("cached", [True, False])
def test_centers_are_the_same_each_time(cached, monkeypatch):
    """Small enough, the patches are read once, else anew; factors and draws are those asked for."""
    room = 2 * 10 * 3 * PATCH**2
    monkeypatch.setattr(loading, "_RESIDENT_BYTES", room if cached else room - 1)
    centers, album = centers_of(range(20, 30))
    fresh, _ = centers_of(range(20, 30))

    first = list(centers.batches([3.0, 2.0], seed=0))

    require_same(first, list(centers.batches([3.0, 2.0], seed=0)))
    assert album.reads == (10 if cached else 20)
    require_same(list(centers.batches([2.0, 4.0], seed=1)), list(fresh.batches([2.0, 4.0], seed=1)))


def test_unreadable_centers_are_left_out():
    """One is missing, named once, and shifts nothing of the others; two are too many."""
    whole, _ = centers_of(range(25, 40))
    centers, _ = centers_of(range(25, 40), damaged=[33])
    expected = list(whole.batches([2.0, 3.0], seed=0))
    keep = torch.arange(25, 40) != 33

    for _ in range(2):
        found = list(centers.batches([2.0, 3.0], seed=0))
        for name in ("patches", "draws"):
            parts = [torch.cat([getattr(b, name) for b in group]) for group in (expected, found)]
            assert torch.equal(parts[0][keep], parts[1])
        scales = [scale for batch in found for scale in batch.scales]
        assert scales == [(2.0, 3.0)[place % 2] for place in range(25, 40) if place != 33]
    assert centers.failures == {33: "33.png: damaged"}
    part = Pool([Album(ALBUM, damaged=[33])], seed=0).only(range(25, 40))  # of all one in a hundred
    (few,) = Centers(part, range(15), CPU, workers=2, size=15).batches([3.0], seed=0)
    assert len(few.scales) == 14
    poor, _ = centers_of(range(55, 75), damaged=[60, 70])
    with pytest.raises(DataError, match=r"^2 of 120 images .*; the first: [67]0\.png: damaged$"):
        list(poor.batches([3.0], seed=0))
