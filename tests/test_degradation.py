"""Bicubic against other implementations, its windows, and the two-way degradation."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch.nn import functional

from srcli.color import quantize
from srcli.degradation import bicubic, degrade, training_input
from srcli.geometry import Span

SIZES = [
    (61, 97),
    (122, 194),
    (183, 291),
    (92, 145),
    (200, 97),
    (61, 300),
    (31, 49),
    (20, 32),
    (7, 11),
    (1, 1),
    (150, 40),
]
"""Enlarged, reduced, one way each, to odd and even: height and width from 61 x 97."""

sides = st.integers(1, 40)


@st.composite
def windows(draw):
    """Draw a picture, the size to bring it to, and a window inside the result."""
    size = draw(st.integers(1, 90)), draw(st.integers(1, 90))
    edges = [
        sorted(draw(st.lists(st.integers(0, n), min_size=2, max_size=2, unique=True))) for n in size
    ]
    picture = noise(draw(sides), draw(sides), seed=draw(st.integers(0, 99)))
    return picture, size, (Span(*edges[0]), Span(*edges[1]))


def noise(height, width, seed=0):
    """Make ``(3, H, W)`` uniform noise on 8-bit levels, ``uint8``."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)


def crop(image, window):
    """Cut a window out of ``(..., H, W)``."""
    rows, columns = window
    return image[..., rows.start : rows.stop, columns.start : columns.stop]


@given(height=sides, width=sides, size=st.tuples(st.integers(1, 90), st.integers(1, 90)))
def test_bicubic_is_torchs_antialiased_filter(height, width, size):
    """PyTorch's own antialiased bicubic gives the same values, overshoot included."""
    image = noise(height, width) / 255
    (expected,) = functional.interpolate(
        image[None], size, mode="bicubic", antialias=True, align_corners=False
    )

    torch.testing.assert_close(bicubic(image, size), expected, rtol=0, atol=1e-5)


@given(height=sides, width=sides, size=st.tuples(st.integers(1, 90), st.integers(1, 90)))
def test_bicubic_is_pillows_filter(height, width, size):
    """Pillow gives the same values where it too computes in floating point."""
    image = noise(height, width) / 255
    expected = [
        np.array(Image.fromarray(channel).resize(size[::-1], Image.Resampling.BICUBIC))
        for channel in image.numpy()
    ]

    np.testing.assert_allclose(bicubic(image, size), np.stack(expected), rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_bicubic_is_pillows_filter_on_files(photo, size):
    """Pillow, in whole numbers, is never more than one level away on a photo."""
    expected = np.asarray(Image.fromarray(photo).resize(size[::-1], Image.Resampling.BICUBIC))

    found = quantize(bicubic(torch.from_numpy(photo).permute(2, 0, 1), size))

    assert np.abs(found.permute(1, 2, 0).numpy().astype(int) - expected).max() <= 1


@pytest.mark.parametrize("scale", [2, 3, 2.5])
def test_bicubic_reproduces_quadratics(scale):
    """Away from the border a parabola is enlarged to itself: Keys' a is -0.5, not -0.75."""
    side = 16
    final = int(side * scale)
    inputs = (torch.arange(side, dtype=torch.float64) + 0.5) / side
    outputs = (torch.arange(final, dtype=torch.float64) + 0.5) / final
    inner = slice(int(3 * scale), -int(3 * scale))

    enlarged = bicubic((inputs**2).expand(1, 4, side), (4, final))[0, 0]

    torch.testing.assert_close(enlarged[inner], outputs[inner] ** 2, rtol=0, atol=1e-6)


@given(case=windows(), scaled=st.booleans())
def test_a_window_is_the_crop_of_the_whole(case, scaled):
    """Any window computed alone has the very bits that it has in the whole picture."""
    picture, size, window = case
    image = picture / 255 if scaled else picture

    assert torch.equal(bicubic(image, size, window), crop(bicubic(image, size), window))


@given(
    height=sides,
    width=sides,
    size=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    pads=st.tuples(*[st.integers(0, 70)] * 4),
)
def test_a_window_outside_reflects_the_result(height, width, size, pads):
    """Beyond its edges the result continues as its mirror image, as far as one may ask."""
    image = noise(height, width)
    top, bottom, left, right = pads
    window = Span(-top, size[0] + bottom), Span(-left, size[1] + right)
    whole = bicubic(image, size).numpy()

    expected = np.pad(whole, ((0, 0), (top, bottom), (left, right)), mode="symmetric")

    torch.testing.assert_close(
        bicubic(image, size, window), torch.from_numpy(expected), rtol=0, atol=1e-6
    )


@given(height=sides, width=sides, size=st.tuples(st.integers(1, 90), st.integers(1, 90)))
def test_a_flat_picture_stays_flat(height, width, size):
    """A constant is a constant at every size: the weights of a pixel sum to one."""
    image = torch.full((1, height, width), 0.3)

    torch.testing.assert_close(bicubic(image, size), torch.full((1, *size), 0.3))


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (23, 37)], ids=str)
def test_the_same_size_is_the_same_picture(shape):
    """Nothing is filtered when nothing changes size."""
    picture = noise(*shape)

    assert torch.equal(bicubic(picture, shape), picture / 255)


def test_integers_are_levels():
    """8-bit and 16-bit pictures are brought to [0, 1] before they are filtered."""
    picture = noise(9, 7)
    expected = bicubic(picture / 255, (20, 30))

    assert torch.equal(bicubic(picture, (20, 30)), expected)
    wide = (picture.to(torch.int32) * 257).to(torch.uint16)
    torch.testing.assert_close(bicubic(wide, (20, 30)), expected, rtol=0, atol=1e-6)


def test_bicubic_overshoots():
    """The filter's result is not clamped: next to an edge it leaves [0, 1]."""
    step = torch.zeros(1, 8, 8)
    step[..., 4:] = 1

    enlarged = bicubic(step, (24, 24))

    assert enlarged.min() < -0.05
    assert enlarged.max() > 1.05


@given(height=sides, width=sides, scale=st.floats(1, 8))
def test_a_degraded_picture_lies_on_levels(height, width, scale):
    """What is reduced could be an 8-bit file: every value is a whole level in [0, 1]."""
    low = degrade(noise(height, width) / 255, scale)

    assert torch.equal(low, torch.arange(256)[(low * 255).round().long()] / 255)


@pytest.mark.parametrize(
    ("scale", "size"),
    [(1, (61, 97)), (2, (31, 49)), (3, (20, 32)), (4, (15, 24)), (2.5, (24, 39)), (200, (1, 1))],
)
def test_a_degraded_picture_is_pillows_reduction(photo, scale, size):
    """Sides are divided and rounded half up, and the pixels are Pillow's within a level."""
    expected = np.asarray(Image.fromarray(photo).resize(size[::-1], Image.Resampling.BICUBIC))

    low = degrade(torch.from_numpy(photo).permute(2, 0, 1) / 255, scale)

    found = (low.permute(1, 2, 0).numpy() * 255).round().astype(int)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 1


def test_a_training_input_is_there_and_back():
    """The input is the patch reduced, put on 8-bit levels, and enlarged again, for its scale."""
    patches = torch.stack([noise(120, 120, seed) for seed in range(4)]) / 255
    scales = [2.0, 3.0, 4.0, 2.5]

    found = training_input(patches, scales)

    for patch, scale, result in zip(patches, scales, found, strict=True):
        low = bicubic(patch, (round(120 / scale),) * 2)
        levels = (low * 255 + 0.5).floor().clamp(0, 255) / 255
        torch.testing.assert_close(result, bicubic(levels, (120, 120)), rtol=0, atol=1e-6)


def test_a_batch_of_scales_is_each_alone():
    """Patches of a batch do not know of one another, whichever scales they come with."""
    patches = torch.stack([noise(120, 120, seed) for seed in range(6)]) / 255
    scales = [3.0, 2.0, 3.0, 4.0, 2.5, 2.0]

    alone = [training_input(patches[i : i + 1], scales[i : i + 1]) for i in range(6)]

    assert torch.equal(training_input(patches, scales), torch.cat(alone))


def test_larger_scales_lose_more():
    """The input lies further from the patch the larger its scale is."""
    patches = noise(120, 120)[None] / 255
    errors = [
        float((training_input(patches, [scale]) - patches).square().mean())
        for scale in (1.0, 2.0, 3.0, 4.0)
    ]

    assert errors[0] == 0
    assert errors == sorted(set(errors))
