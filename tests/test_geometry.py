"""Patches along one axis: what the plan promises, for any size."""

import math
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srcli.errors import UsageError
from srcli.geometry import Block, Span, output_length, plan_axis, step_lengths


@st.composite
def axes(draw):
    """Draw an axis and how to cover it."""
    stride = draw(st.integers(1, 12))
    return {
        "length": draw(st.integers(1, 1500)),
        "patch": stride * draw(st.integers(1, 30)),
        "overlap": draw(st.integers(0, 100)),
        "stride": stride,
        "fuse": draw(st.integers(1, 8)),
    }


@given(axis=axes())
def test_blocks_cover_the_axis_once_and_in_order(axis):
    """What is kept starts at 0, ends at the length, and every block continues the last."""
    keeps = [block.keep for block in plan_axis(**axis)]

    assert keeps[0].start == 0
    assert keeps[-1].stop == axis["length"]
    assert [left.stop for left in keeps[:-1]] == [right.start for right in keeps[1:]]


@given(axis=axes())
def test_windows_hold_the_context_that_was_asked_for(axis):
    """A window reaches the overlap beyond what is kept, plus what whole strides need."""
    overlap, stride = axis["overlap"], axis["stride"]
    for block in plan_axis(**axis):
        before = block.keep.start - block.window.start
        after = block.window.stop - block.keep.stop
        assert overlap <= before <= overlap + stride - 1
        assert overlap <= after <= overlap + 2 * (stride - 1)


@given(axis=axes())
def test_windows_keep_the_phase_of_the_net(axis):
    """Windows start and end at multiples of the stride, so pooling falls as in the whole."""
    edges = [(b.window.start, b.window.stop) for b in plan_axis(**axis)]

    assert [(a % axis["stride"], b % axis["stride"]) for a, b in edges] == [(0, 0)] * len(edges)


@given(axis=axes())
def test_blocks_are_whole_patches_shared_evenly(axis):
    """Blocks start on the grid, hold at most ``fuse`` patches, and differ by one at most."""
    patch, fuse = axis["patch"], axis["fuse"]
    blocks = plan_axis(**axis)
    cells = [math.ceil(len(block.keep) / patch) for block in blocks]

    assert [block.keep.start % patch for block in blocks] == [0] * len(blocks)
    assert sum(cells) == math.ceil(axis["length"] / patch)
    assert max(cells) <= fuse
    assert max(cells) - min(cells) <= 1
    assert len(blocks) == math.ceil(sum(cells) / fuse)


def test_a_plan_in_numbers():
    """250 pixels in patches of 120 with 20 of context, for a net of stride 6."""
    assert plan_axis(250, patch=120, overlap=20, stride=6) == [
        Block(keep=Span(0, 120), window=Span(-24, 144)),
        Block(keep=Span(120, 240), window=Span(96, 264)),
        Block(keep=Span(240, 250), window=Span(216, 276)),
    ]


def test_fused_patches_in_numbers():
    """Five patches in blocks of up to four become two and three, not four and one."""
    blocks = plan_axis(600, patch=120, overlap=0, stride=6, fuse=4)

    assert [block.keep for block in blocks] == [Span(0, 240), Span(240, 600)]


@given(axis=axes())
def test_inner_is_what_is_kept_within_the_window(axis):
    """``inner`` counts ``keep`` from the start of the window, inside it."""
    for block in plan_axis(**axis):
        positions = range(block.window.start, block.window.stop)
        kept = positions[block.inner.start : block.inner.stop]
        assert kept == range(block.keep.start, block.keep.stop)


@pytest.mark.parametrize("patch", [0, -6, 3, 7, 121])
def test_a_patch_that_breaks_the_stride_is_refused(patch):
    """A patch size that is no positive multiple of the stride is refused with both numbers."""
    with pytest.raises(UsageError) as caught:
        plan_axis(100, patch=patch, overlap=0, stride=6)

    assert str(caught.value) == (f"--tile must be a multiple of the net's stride 6, not {patch}")


def test_a_negative_overlap_is_refused():
    """Context cannot be negative, and the text says what it was."""
    with pytest.raises(UsageError) as caught:
        plan_axis(100, patch=120, overlap=-1, stride=6)

    assert str(caught.value) == "the overlap must not be negative, it is -1"


@pytest.mark.parametrize(("start", "stop"), [(0, 0), (5, 5), (3, 2), (-1, -4)])
def test_a_span_is_never_empty(start, stop):
    """A span that holds nothing or runs backward is a bug of the caller."""
    with pytest.raises(ValueError, match=f"^a span runs forward, not {start} to {stop}$"):
        Span(start, stop)


@given(start=st.integers(-500, 500), length=st.integers(1, 500))
def test_a_span_has_its_length(start, length):
    """The length of a span is the number of its pixels, wherever it lies."""
    assert len(Span(start, start + length)) == length


@given(length=st.integers(1, 40_000), eighths=st.integers(1, 128))
def test_output_length_rounds_half_up(length, eighths):
    """An enlarged or reduced side is the nearest whole number, the upper of two, at least 1."""
    exact = Fraction(length * eighths, 8)

    assert output_length(length, eighths / 8) == max(1, math.floor(exact + Fraction(1, 2)))


@given(length=st.integers(1, 40_000), scale=st.integers(1, 16))
def test_output_length_undoes_itself(length, scale):
    """Reducing by a whole factor what was enlarged by it gives the side back."""
    assert output_length(output_length(length, scale), 1 / scale) == length


@given(
    length=st.integers(1, 2000),
    scale=st.floats(1, 16),
    steps=st.integers(1, 4),
)
def test_steps_end_at_the_final_length(length, scale, steps):
    """There are as many lengths as steps, none shrinks, and the last is the final one."""
    final = output_length(length, scale)
    lengths = step_lengths(length, final, steps=steps)

    assert len(lengths) == steps
    assert lengths[-1] == final
    assert sorted([length, *lengths]) == [length, *lengths]


@given(length=st.integers(50, 2000), scale=st.floats(1, 16), steps=st.integers(1, 4))
def test_steps_share_the_factor_equally(length, scale, steps):
    """Every step enlarges by the same factor, as far as whole pixels allow."""
    final = output_length(length, scale)
    lengths = [length, *step_lengths(length, final, steps=steps)]
    factor = (final / length) ** (1 / steps)

    for before, after in pairwise(lengths):
        assert after / before == pytest.approx(factor, abs=2 * factor / length)
