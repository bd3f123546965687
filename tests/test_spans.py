"""Sizes, and patches along one axis: what each promises, for any picture."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from run_files import refusal

from srcli.errors import UsageError
from srcli.ops.spans import TargetSize, output_length, plan_axis


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
def test_blocks_cover_the_axis_once_with_context_in_phase(axis):
    """Each continues the last; its window has the overlap and keeps the phase of the net."""
    overlap, stride = axis["overlap"], axis["stride"]
    blocks = plan_axis(**axis)
    keeps = [block.keep for block in blocks]

    assert (keeps[0].start, keeps[-1].stop) == (0, axis["length"])
    assert [left.stop for left in keeps[:-1]] == [right.start for right in keeps[1:]]
    for block in blocks:
        assert overlap <= block.keep.start - block.window.start <= overlap + stride - 1
        assert overlap <= block.window.stop - block.keep.stop <= overlap + 2 * (stride - 1)
        assert (block.window.start % stride, block.window.stop % stride) == (0, 0)
        positions = range(block.window.start, block.window.stop)
        kept = positions[block.inner.start : block.inner.stop]
        assert kept == range(block.keep.start, block.keep.stop)


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


@pytest.mark.parametrize(
    ("length", "scale", "expected"),
    [(5, 1.5, 8), (5, 1.49, 7), (3, 0.125, 1), (40_000, 16, 640_000)],
)
def test_output_length_rounds_half_up(length, scale, expected):
    """An enlarged or reduced side is the nearest whole number, the upper of two, at least 1."""
    assert output_length(length, scale) == expected


LIMITS = st.one_of(st.none(), st.integers(1, 1_000_000))
SIDES = st.integers(1, 40_000)


@st.composite
def target_sizes(draw):
    """Draw a size with at least one side."""
    width, height = draw(st.tuples(LIMITS, LIMITS).filter(any))
    return TargetSize(width=width, height=height, cover=draw(st.booleans()))


@pytest.mark.parametrize(
    ("text", "width", "height", "cover"),
    [
        ("x1080", None, 1080, False),
        (">=1920x", 1920, None, True),
        (" 1920X1080\t", 1920, 1080, False),
        (" >= 0001x1000000 ", 1, 1_000_000, True),
    ],
)
def test_a_size_is_understood(text, width, height, cover):
    """One side or both, as the most that a result has or, after ``>=``, as the least."""
    assert TargetSize.parse(text) == TargetSize(width=width, height=height, cover=cover)


UNKNOWN = (
    "is not understood: use 1920x (width), x1080 (height), 1920x1080 (fit inside) or "
    "'>=3840x2160' (cover)"
)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        *((text, f" {UNKNOWN}") for text in ("", ">=x", "1920", "1920 x1080", "3.5x", "1_000x")),
        *((text, f" {UNKNOWN}") for text in ("1920x1080x3", "\u0663x", "1920x\n1080", "3x4\udcff")),
        *((text, ": choose sides of 1 to 1000000 pixels") for text in ("0x", "5x00", "1000001x")),
    ],
)
def test_what_is_no_size_is_refused(text, problem):
    """Anything else, or a side beyond a million, is refused in one printable line."""
    assert refusal(lambda: TargetSize.parse(text), UsageError) == f"--size {text!r}{problem}"


@given(size=target_sizes(), width=SIDES, height=SIDES)
def test_a_result_has_the_size_asked_for(size, width, height):
    """One side is exact, the other within its limit, the aspect kept; or nothing is changed."""
    assert TargetSize.parse(str(size)) == size
    after = size.of(width, height)
    limits = zip((size.width, size.height), (width, height), after, strict=True)
    asked = [(limit, side, result) for limit, side, result in limits if limit is not None]

    if after == (width, height):
        enough = [side >= limit for limit, side, _ in asked]
        assert all(enough) if size.cover else any(enough)
    else:
        assert any(result == limit for limit, _, result in asked)
        beyond = [limit - result for limit, _, result in asked]
        assert max(beyond) <= 0 if size.cover else min(beyond) >= 0
        assert (after[0] >= width, after[1] >= height) == (True, True)
    factor = size.factor(width, height)
    assert factor >= 1
    assert after == pytest.approx((float(width * factor), float(height * factor)), abs=0.5 + 1e-6)
