"""Cutting patches, one by one and many at once."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from srcli.data.patches import Resident, center_patch

CPU = torch.device("cpu")

CUTS = st.lists(
    st.tuples(
        st.sampled_from([0, 1, 3, 4]),
        st.floats(0, 1, exclude_max=True),
        st.floats(0, 1, exclude_max=True),
        st.integers(0, 7),
    ),
    min_size=1,
    max_size=9,
)


@pytest.fixture(scope="module")
def resident_images():
    """Noise of odd sizes in memory, with a place that is empty."""
    generator = torch.Generator().manual_seed(0)
    images = [
        size and torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8)
        for size in ((120, 120), (131, 257), None, (203, 121), (127, 139))
    ]
    return Resident(images, CPU)


@given(cuts=CUTS)
def test_one_indexing_cuts_the_same_patches(resident_images, cuts):
    """What a GPU gathers at once is what is sliced out one by one."""
    gathered, sliced = resident_images.gather(cuts), resident_images.cut(cuts)

    assert gathered.dtype == sliced.dtype == torch.uint8
    assert torch.equal(gathered, sliced)


def test_the_middle_is_cut():
    """Of an odd rest the smaller half is above and to the left."""
    rows, columns = torch.from_numpy(np.mgrid[:121, :250])

    found = center_patch(torch.stack([rows, columns]))

    assert found[:, 0, 0].tolist() == [0, 65]
    assert found[:, -1, -1].tolist() == [119, 184]
