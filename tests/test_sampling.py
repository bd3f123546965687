"""Which patches a step draws: from which images, where, turned how, reduced by which factor."""

import hashlib

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from srcli.data.degrading import DRAWS
from srcli.data.sampling import Sampler, derive_seed


def sampler(count=20, seed=3, **options):
    """Make a sampler by epochs, or as the options have it."""
    return Sampler(count, seed, **{"scales": [2.0, 3.0], "augment": "turn", **options})


def same(first, second):
    """Whether two draws are the same in every entry."""
    return first[:2] == second[:2] and torch.equal(first.degradation, second.degradation)


def test_the_draws_of_a_seed_stay_what_they_are():
    """A run that was started by an older version is resumed: these draws must never change."""
    by_epoch = sampler(count=10, seed=7).draw(4, 4)
    area = sampler(count=4, seed=7, areas=[1, 2, 3, 4]).draw(4, 4)

    assert derive_seed(7, 4) == int.from_bytes(hashlib.blake2b(b"7/4", digest_size=8).digest()) // 2
    generator = torch.Generator().manual_seed(derive_seed(7, 4))
    numbers = torch.rand(4, 5, generator=generator, dtype=torch.float64)
    degradation = torch.rand(4, DRAWS, generator=generator, dtype=torch.float64)
    for draw in (by_epoch, area):
        assert [cut.top for cut in draw.cuts] == numbers[:, 1].tolist()
        assert [cut.left for cut in draw.cuts] == numbers[:, 2].tolist()
        assert [cut.turn for cut in draw.cuts] == (8 * numbers[:, 3]).long().tolist()
        assert draw.scales == ([2.0, 3.0] * 3)[int(2 * numbers[0, 4]) :][:4]
        assert torch.equal(draw.degradation, degradation)
    edges = [0.1, 0.3, 0.6]
    assert [cut.image for cut in area.cuts] == [
        sum(n >= edge for edge in edges) for n in numbers[:, 0].tolist()
    ]
    # Ten images are three steps of four: step 4 is the second of the second epoch.
    order = torch.randperm(10, generator=torch.Generator().manual_seed(derive_seed(7, "epoch 1")))
    assert [cut.image for cut in by_epoch.cuts] == order[4:8].tolist()


@given(count=st.integers(1, 50), size=st.integers(1, 60), epoch=st.integers(0, 5))
def test_an_epoch_has_every_image_once(count, size, epoch):
    """The steps of an epoch go once through the images, then fill up from the same order."""
    draws = sampler(count)
    steps = draws.steps_per_epoch(size)

    images = [
        image
        for step in range(epoch * steps, (epoch + 1) * steps)
        for image, *_ in draws.draw(step, size).cuts
    ]

    assert steps == (count + size - 1) // size
    assert sorted(images[:count]) == list(range(count))
    assert images[count:] == (images[:count] * size)[: steps * size - count]


def test_scales_take_turns():
    """Each factor has its share in every step, in whole batches to the patch."""
    scales = [2.0, 3.0, 3.0, 4.0]
    first = set()
    for step in range(40):
        draw = sampler(scales=scales).draw(step, 16)
        for part in (slice(0, 4), slice(8, 12)):  # of each process as well
            assert sorted(draw.scales[part]) == scales
        first.add(draw.scales[0])
    assert first == {2.0, 3.0, 4.0}


@pytest.mark.parametrize(
    ("augment", "turns"), [("turn", set(range(8))), ("mirror", {0, 4}), ("none", {0})]
)
def test_augmentation_is_what_turns_patches(augment, turns):
    """Flips and turns are those that were asked for; everything else is drawn alike."""
    draw, other = sampler(augment=augment).draw(0, 1000), sampler().draw(0, 1000)

    assert {cut.turn for cut in draw.cuts} == turns
    assert same(draw._replace(cuts=other.cuts), other)
    unturned = [[cut._replace(turn=0) for cut in one.cuts] for one in (draw, other)]
    assert unturned[0] == unturned[1]
