"""The filters that resample: other implementations of each, and windows of the result."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch.nn import functional

from srcli.ops.resample import axis_weights, bicubic
from srcli.ops.spans import Span

PILLOW = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "area": Image.Resampling.BOX,
    "lanczos": Image.Resampling.LANCZOS,
}
"""What Pillow calls the kernels that it has."""

sides = st.integers(1, 40)
sizes = st.tuples(st.integers(1, 90), st.integers(1, 90))


def noise(height, width, seed=0):
    """Make ``(3, H, W)`` uniform noise, ``uint8``."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)


def resampled(image, size, kernel):
    """Resample ``(..., H, W)`` by a kernel, not rounded."""
    down = axis_weights(image.shape[-2], size[0], Span(0, size[0]), kernel)
    across = axis_weights(image.shape[-1], size[1], Span(0, size[1]), kernel)
    tall = down.apply(image[..., down.first : down.stop, across.first : across.stop])
    return across.apply(tall.mT).mT


@pytest.mark.parametrize("kernel", PILLOW)
@given(height=sides, width=sides, size=sizes)
def test_a_kernel_is_pillows_filter(kernel, height, width, size):
    """Pillow, in floating point, gives the same values, from any size to any other."""
    levels = noise(height, width)[0]
    image = levels / 255
    expected = Image.fromarray(image.numpy()).resize(size[::-1], PILLOW[kernel])

    found = bicubic(levels, size) if kernel == "bicubic" else resampled(image, size, kernel)

    np.testing.assert_allclose(found, np.array(expected), rtol=0, atol=1e-5)


@given(length=st.integers(12, 200), scale=st.floats(1, 8))
def test_cubic_is_torchs_filter_without_antialiasing(length, scale):
    """PyTorch's plain bicubic, OpenCV's, gives the same where no tap leaves the picture."""
    image = (noise(5, length) / 255).double()  # torch's own coordinates round in float32
    size = max(int(length / scale), 1)
    (expected,) = functional.interpolate(
        image[None], (5, size), mode="bicubic", antialias=False, align_corners=False
    )
    center = (torch.arange(size) + 0.5) * length / size
    inside = (center >= 2) & (center <= length - 2)

    found = resampled(image, (5, size), "cubic")

    torch.testing.assert_close(found[..., inside], expected[..., inside], rtol=0, atol=1e-5)


@given(
    height=sides,
    width=sides,
    size=sizes,
    edges=st.tuples(*[st.floats(0, 1)] * 4),
    integers=st.booleans(),
)
def test_a_window_is_the_crop_of_the_whole(height, width, size, edges, integers):
    """Any window computed alone has the very bits that it has in the whole picture."""
    image = noise(height, width) if integers else noise(height, width) / 255
    rows, columns = (
        Span(int(min(pair) * (side - 1)), int(max(pair) * (side - 1)) + 1)
        for pair, side in zip((edges[:2], edges[2:]), size, strict=True)
    )

    whole = bicubic(image, size)

    expected = whole[..., rows.start : rows.stop, columns.start : columns.stop]
    assert torch.equal(bicubic(image, size, (rows, columns)), expected)


@given(height=sides, width=sides, size=sizes, pads=st.tuples(*[st.integers(0, 70)] * 4))
def test_a_window_outside_reflects_the_result(height, width, size, pads):
    """Beyond its edges the result continues as its mirror image, as far as one may ask."""
    image = noise(height, width)
    top, bottom, left, right = pads
    window = Span(-top, size[0] + bottom), Span(-left, size[1] + right)

    expected = np.pad(
        bicubic(image, size).numpy(), ((0, 0), (top, bottom), (left, right)), mode="symmetric"
    )

    torch.testing.assert_close(
        bicubic(image, size, window), torch.from_numpy(expected), rtol=0, atol=1e-6
    )
