"""Patches out of images: the same ones however they are read, by whom, and from which step on."""

import threading
import weakref
from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from srcli.data import loading
from srcli.data.loading import Centers, Loader, named_draws
from srcli.data.patches import Cut, Resident, center_patch
from srcli.data.pool import Pool
from srcli.data.sampling import Sampler
from srcli.errors import DataError, ImageError
from srcli.ops.spans import PATCH

CPU = torch.device("cpu")

COUNT = 120
"""Images of a list that may have one that cannot be read, and not two."""


def turned(pixels, turn):
    """Turn ``(H, W, C)`` by quarters, then mirror it from the fourth turn on, as NumPy does."""
    quarters = np.rot90(pixels, turn % 4)
    return quarters[:, ::-1] if turn >= 4 else quarters


def own_threads():
    """List the threads that Python began, without those in which a library's thread called it."""
    return {one for one in threading.enumerate() if not one.name.startswith("Dummy-")}


RESIDENT = pytest.mark.parametrize("resident", [False, True], ids=["streamed", "resident"])


def survey(height, width, number):
    """Make ``(H, W, 3)`` whose pixels say where they are: row, column, number of the image."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows, columns, np.full_like(rows, number)], -1).astype(np.uint8)


ALBUM = [survey(PATCH + number % 7, PATCH + number % 11, number) for number in range(COUNT)]
"""Images of odd sizes, each known by its last channel."""


class Album:
    """A source in memory whose images may be damaged, and which counts those read and those alive.

    Args:
        images: ``(H, W, 3)`` arrays.
        damaged: Those that cannot be decoded.
        headless: Those whose size cannot be read either.
    """

    def __init__(self, images=ALBUM, damaged=(), headless=()):
        self.images, self.damaged, self.headless = images, {*damaged, *headless}, set(headless)
        self.reads = self.most = 0
        self.living = []
        self.lock = threading.Lock()

    def __len__(self):
        return len(self.images)

    def key(self, index):
        """Name an image."""
        return f"{index}.png"

    label = key

    def read(self, index):
        """Copy an image."""
        if index in self.damaged:
            raise ImageError(f"{index}.png: damaged")
        pixels = self.images[index].copy()
        with self.lock:
            self.reads += 1
            self.living = [one for one in self.living if one() is not None]
            self.living.append(weakref.ref(pixels))
            self.most = max(self.most, len(self.living))
        return pixels

    def size(self, index):
        """Return width and height."""
        if index in self.headless:
            raise ImageError(f"{index}.png: no header")
        height, width, _ = self.images[index].shape
        return width, height


def pool_of(**options):
    """Make a list of the album's images."""
    return Pool([Album(**options)], seed=0)


def by_epoch(count=COUNT, **options):
    """Make a sampler that takes every image once an epoch."""
    known = {"scales": [2.0, 3.0, 4.0], "augment": "turn"}
    return Sampler(count, 1, **{**known, **options})


def by_area(loader, seed=1):
    """Make a sampler by area for a loader's images."""
    areas = loader.areas()
    return Sampler(len(areas), seed, scales=[2.0, 3.0], augment="turn", areas=areas)


def take(loader, sampler, count, *, start=0, size=16, rows=slice(None)):
    """Read some batches and close the rest."""
    batches = loader.batches(sampler, start, size, rows)
    taken = list(islice(batches, count))
    batches.close()
    return taken


def require_same(first, second):
    """Check that two lists of batches are the same to the bit."""
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one.patches, other.patches)
        assert one.scales == other.scales
        assert torch.equal(one.draws, other.draws)


def planar(pixels):
    """Turn ``(H, W, C)`` into a tensor ``(C, H, W)``."""
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


# ---- batches ------------------------------------------------------------------------------


@RESIDENT
def test_a_patch_is_what_was_drawn(resident):
    """Each patch is the part of the image that the draw says, in the turn that it says."""
    sampler = by_epoch()
    loader = Loader(pool_of(), CPU, workers=2, resident=resident)

    for step, batch in enumerate(take(loader, sampler, 4, size=30)):
        draw = sampler.draw(step, 30)
        assert batch.patches.shape == (30, 3, PATCH, PATCH)
        assert batch.patches.dtype == torch.uint8
        assert batch.scales == draw.scales
        assert torch.equal(batch.draws, draw.degradation)
        for patch, cut in zip(batch.patches, draw.cuts, strict=True):
            image = ALBUM[cut.image]
            top = int(cut.top * (image.shape[0] - PATCH + 1))
            left = int(cut.left * (image.shape[1] - PATCH + 1))
            crop = image[top : top + PATCH, left : left + PATCH]
            assert torch.equal(patch, planar(turned(crop, cut.turn)))
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

    assert torch.equal(resident.gather(cuts), resident.cut(cuts))


@pytest.mark.parametrize("sampling", ["epoch", "area"])
@pytest.mark.parametrize("damage", ["none", "damaged", "headless"])
def test_where_images_are_kept_changes_nothing(damage, sampling):
    """Streamed by one thread or three and resident, the batches are the same to the bit."""
    options = {} if damage == "none" else {damage: [77]}
    loaders = [
        Loader(pool_of(**options), CPU, workers=workers, resident=resident)
        for workers, resident in ((1, False), (3, False), (2, True))
    ]
    assert [loader.resident for loader in loaders] == [False, False, True]

    taken = []
    for loader in loaders:
        sampler = by_epoch() if sampling == "epoch" else by_area(loader)
        taken.append(take(loader, sampler, 25))

    require_same(taken[0], taken[1])
    require_same(taken[0], taken[2])
    numbers = {int(patch[2, 0, 0]) for batch in taken[0] for patch in batch.patches}
    assert (77 in numbers) == (damage == "none")
    for loader in loaders:
        assert set(loader.failures) == set(*options.values())


# ---- what cannot be read ------------------------------------------------------------------


@RESIDENT
@pytest.mark.parametrize(("bad", "stand_in"), [((10, 11), 12), ((199,), 0)])
def test_the_next_image_stands_in_for_an_unreadable_one(resident, bad, stand_in):
    """One in a hundred may be bad: the next readable image, after the last the first, is taken."""
    images = [survey(PATCH, PATCH, number) for number in range(200)]
    loader = Loader(pool_of(images=images, damaged=bad), CPU, workers=2, resident=resident)

    (batch,) = take(loader, by_epoch(200, augment="none"), 1, size=200)

    numbers = sorted(batch.patches[:, 2, 0, 0].tolist())
    assert numbers == sorted([*({*range(200)} - {*bad}), *[stand_in] * len(bad)])
    assert loader.failures == {place: f"{place}.png: damaged" for place in bad}


@pytest.mark.parametrize("kind", ["damaged", "headless"])
def test_more_than_one_in_a_hundred_is_too_many(kind):
    """Two of 120 images end the run, kept or streamed; the error names one and the share."""
    pool = pool_of(**{kind: [40, 90]})
    text = r"^2 of 120 images cannot be read, more than 1%: remove or replace them; the first: "

    with pytest.raises(DataError, match=text + r"40\.png: damaged$"):
        Loader(pool, CPU, workers=1, resident=True)
    loader = Loader(pool, CPU, workers=1, resident=False)
    with pytest.raises(DataError, match=text + r"[49]0\.png: damaged$"):
        take(loader, by_epoch(), 8)
    if kind == "headless":  # found before training, with the sizes
        with pytest.raises(DataError, match=text + r"[49]0\.png: no header$"):
            Loader(pool, CPU, workers=2, resident=False).areas()


@pytest.mark.parametrize("resident", [None, False, True])
@pytest.mark.parametrize("count", [1, COUNT])
def test_nothing_readable_is_an_error(count, resident):
    """A set of which nothing can be read ends with one line, not with an endless search."""
    pool = pool_of(images=ALBUM[:count], headless=range(count))

    with pytest.raises(DataError, match=rf" of {count} images cannot be read, more than 1%: "):
        take(Loader(pool, CPU, workers=2, resident=resident), by_epoch(count), 1)


# ---- threads and memory -------------------------------------------------------------------


@RESIDENT
def test_closing_the_batches_ends_the_threads(resident):
    """When the batches are not wanted any more, or reading fails for good, no thread is left."""
    before = own_threads()
    loader = Loader(pool_of(), CPU, workers=3, resident=resident)
    loader.areas()

    batches = loader.batches(by_epoch(), 0, 16)
    next(batches)
    assert own_threads() > before
    batches.close()
    assert own_threads() == before

    broken = Loader(pool_of(damaged=range(60)), CPU, workers=3, resident=False)
    with pytest.raises(DataError):
        take(broken, by_epoch(), 8)
    assert own_threads() == before


@pytest.mark.parametrize("rows", [slice(None), slice(0, 6)], ids=str)
def test_streaming_reads_its_rows_and_little_ahead(rows):
    """Each thread holds an image or two and reads two batches ahead, no rows of others."""
    album = Album()
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
        album = Album([ALBUM[0]] * count)
        loader = Loader(Pool([album], seed=0), CPU, workers=2)
        assert loader.resident == (spare == 0)
        assert album.reads == (5 if loader.resident else 0)

    assert 200 <= len(asked) <= 400
    assert max(asked) > 1900


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@RESIDENT
def test_a_gpu_gets_the_same_batches(resident):
    """On a GPU the patches are there, and they are those of the CPU."""
    device = torch.device("cuda")
    pool = pool_of(damaged=[77])
    expected = take(Loader(pool, CPU, workers=2, resident=False), by_epoch(), 10)

    found = take(Loader(pool, device, workers=2, resident=resident), by_epoch(), 10)

    for batch, other in zip(found, expected, strict=True):
        assert batch.patches.device.type == "cuda"
        assert torch.equal(batch.patches.cpu(), other.patches)
        assert batch.scales == other.scales


# ---- centers ------------------------------------------------------------------------------


def centers_of(places, size=4, workers=2, **options):
    """Make the centers of some images, and the source that they are read from."""
    album = Album(**options)
    pool = Pool([album], seed=0)
    return Centers(pool, places, CPU, workers=workers, size=size), album


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
    """An image that cannot be read is missing, named once, and shifts nothing of the others."""
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
    assert centers.failures == ["33.png: damaged"]


def test_too_many_unreadable_centers_are_an_error():
    """More than one in a hundred of the set's images, unreadable, is an error here too."""
    centers, _ = centers_of(range(55, 75), damaged=[60, 70])

    with pytest.raises(DataError, match=r"^2 of 120 images .*; the first: [67]0\.png: damaged$"):
        list(centers.batches([3.0], seed=0))
