"""Blocks through a net: every pixel once, in place, from the right context."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from srcli.degradation import bicubic
from srcli.geometry import plan_axis
from srcli.tiling import enlarge_rows

sides = st.integers(1, 90)


def run(image, size, net, *, patch, overlap, fuse, batch_size, stride=6):
    """Enlarge in blocks and join the rows, checking that they come in the plan's order."""
    rows, columns = (
        plan_axis(length, patch=patch, overlap=overlap, stride=stride, fuse=fuse) for length in size
    )
    spans, bands = zip(*enlarge_rows(image, rows, columns, net, batch_size), strict=True)
    assert [(s.start, s.stop) for s in spans] == [(b.keep.start, b.keep.stop) for b in rows]
    return torch.cat(bands, 1)


plans = st.fixed_dictionaries(
    {
        "patch": st.sampled_from([6, 12, 36, 120]),
        "overlap": st.integers(0, 30),
        "fuse": st.integers(1, 3),
        "batch_size": st.integers(1, 5),
    }
)


@settings(max_examples=60, deadline=None)
@given(
    height=sides,
    width=sides,
    scale=st.floats(1, 4),
    channels=st.sampled_from([1, 3]),
    plan=plans,
)
def test_a_pointwise_net_is_stitched_exactly(height, width, scale, channels, plan):
    """Whatever the plan, tiling a pointwise net gives bit for bit the untiled result."""
    image = torch.rand(channels, height, width, generator=torch.Generator().manual_seed(height))
    size = int(height * scale), int(width * scale)

    def net(windows):
        return windows * 0.5 + 0.25

    expected = net(bicubic(image, size))
    actual = run(image, size, net, **plan)

    assert torch.equal(expected, actual)


@settings(max_examples=30, deadline=None)
@given(height=st.integers(4, 60), width=st.integers(4, 60), fuse=st.integers(1, 3))
def test_the_nets_phase_is_the_same_in_every_block(height, width, fuse):
    """A net that pools cells of one stride sees the same cells in a block as in the whole."""
    image = torch.rand(3, height, width, generator=torch.Generator().manual_seed(width))
    size = 3 * height, 3 * width

    def net(windows):
        pooled = functional.avg_pool2d(windows, 6)
        return functional.interpolate(pooled, scale_factor=6, mode="nearest")

    whole = run(image, size, net, patch=600, overlap=6, fuse=1, batch_size=1)
    tiled = run(image, size, net, patch=12, overlap=0, fuse=fuse, batch_size=4)

    # The last cell of an axis may reach over the edge: both continue by reflection.
    assert float((whole - tiled).abs().max()) < 1e-5


def test_a_net_that_looks_sideways_needs_its_margin():
    """With a margin of its radius a blur is stitched exactly, with none it is not."""
    image = torch.rand(3, 40, 50, generator=torch.Generator().manual_seed(1))
    size = 120, 150

    def net(windows):
        return functional.avg_pool2d(windows, 7, stride=1, padding=3)

    whole = run(image, size, net, patch=600, overlap=6, fuse=1, batch_size=1)
    enough = run(image, size, net, patch=30, overlap=6, fuse=1, batch_size=1)
    none = run(image, size, net, patch=30, overlap=0, fuse=1, batch_size=1)

    assert float((whole - enough).abs().max()) < 1e-6
    assert float((whole - none).abs().max()) > 0.05
