"""Blocks through a net, and rows that arrive one band at a time."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from srcli.model.patches import Grid, enlarge_rows
from srcli.model.rows import Rows
from srcli.ops.resample import bicubic
from srcli.ops.spans import plan_axis


@settings(max_examples=60)
@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    scale=st.floats(1, 4),
    channels=st.sampled_from([1, 3]),
    plan=st.fixed_dictionaries(
        {
            "patch": st.sampled_from([6, 12, 36, 120]),
            "overlap": st.integers(0, 30),
            "fuse": st.integers(1, 3),
            "batch_size": st.integers(1, 5),
        }
    ),
)
def test_a_pointwise_net_is_stitched_exactly(height, width, scale, channels, plan):
    """Whatever the plan, tiling a pointwise net gives bit for bit the untiled result, in order."""
    image, size = torch.rand(channels, height, width), (int(height * scale), int(width * scale))
    batch_size = plan.pop("batch_size")
    grid = Grid(*(plan_axis(length, stride=6, **plan) for length in size))

    def pointwise(windows):
        return windows * 0.5 + 0.25

    cpu, finish = torch.device("cpu"), torch.clone
    found = enlarge_rows(Rows.of(image), grid, pointwise, cpu, batch_size=batch_size, finish=finish)
    spans, bands = zip(*found, strict=True)

    assert list(spans) == [block.keep for block in grid.rows]
    assert torch.equal(pointwise(bicubic(image, size)), torch.cat(bands, 1))


# ---- rows ---------------------------------------------------------------------------------


def cut(image, sizes):
    """Cut a picture into bands of rows of these sizes, over and over."""
    top = 0
    while top < image.shape[1]:
        for rows in sizes:
            if top < image.shape[1]:
                yield image[:, top : top + rows].clone()
                top += rows


@settings(max_examples=60)
@given(
    height=st.integers(1, 60),
    sizes=st.lists(st.integers(1, 25), min_size=1, max_size=4),
    wanted=st.lists(st.tuples(st.integers(0, 20), st.integers(1, 30)), max_size=8),
    dtype=st.sampled_from([torch.uint8, torch.uint16, torch.float32]),
)
def test_rows_are_those_of_the_whole_however_they_arrive(height, sizes, wanted, dtype):
    """Parts that go down the picture, overlapping or not, are cut out of it exactly."""
    image = torch.arange(2 * height * 3).reshape(2, height, 3).to(dtype)
    rows = Rows(cut(image, sizes), (2, height, 3))
    first = 0
    for step, count in wanted:
        first = min(first + step, height - 1)
        stop = min(first + count, height)
        assert torch.equal(rows.part(first, stop), image[:, first:stop])

    assert (rows.channels, rows.size) == (2, [height, 3])


def test_no_more_rows_are_held_than_are_needed():
    """Of a thousand rows only the bands of the part asked for are taken and kept."""
    taken = []
    bands = (taken.append(number) or torch.full((1, 10, 4), float(number)) for number in range(100))
    rows = Rows(bands, (1, 1000, 4))
    for first in range(0, 960, 16):
        part = rows.part(first, first + 40)

        assert part.shape == (1, 40, 4)
        assert len(taken) == -(-(first + 40) // 10)
        assert part.untyped_storage().nbytes() <= 4 * 4 * (40 + 16 + 2 * 10)


def test_rows_that_are_released_or_never_arrive_are_refused():
    """Neither a released row nor one below the last; a failure stays the error that it was."""
    rows = Rows(cut(torch.zeros(1, 30, 2), [10]), (1, 50, 2))
    rows.part(12, 20)

    with pytest.raises(ValueError, match="row 11 has been released: the first one held is 12"):
        rows.part(11, 20)
    with pytest.raises(ValueError, match="the picture ends after 30 rows"):
        rows.part(12, 40)

    def failing():
        yield torch.zeros(1, 5, 2)
        raise MemoryError("no room")

    rows = Rows(failing(), (1, 50, 2))
    for _ in range(2):
        with pytest.raises(MemoryError, match="no room"):
            rows.part(0, 20)
