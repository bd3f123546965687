import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.color import rgb2ycbcr

from srcli.ops.color import dequantize, luma, quantize

DEPTHS = [(8, torch.uint8), (16, torch.uint16)]


def every_level(bits):
    """List every integer level of ``bits`` bits."""
    return torch.arange(2**bits)


@pytest.mark.parametrize("shape", [(3, 1, 1), (3, 23, 37), (2, 3, 8, 5)], ids=str)
def test_luma_agrees_with_scikit_image(shape):
    """scikit-image, which shares no code with us, computes the same BT.601 luma."""
    image = torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = rgb2ycbcr(image.numpy(), channel_axis=-3)[..., :1, :, :]

    np.testing.assert_allclose(luma(image).numpy() * 255, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("rgb", "expected"),
    [
        ((0, 0, 0), 16.0),
        ((1, 1, 1), 235.0),
        ((1, 0, 0), 81.481),
        ((0, 1, 0), 144.553),
        ((0, 0, 1), 40.966),
    ],
)
def test_luma_of_pure_colours(rgb, expected):
    """Black is 16, white 235, and each primary adds its BT.601 weight."""
    image = torch.tensor(rgb, dtype=torch.float64).view(3, 1, 1)

    assert float(luma(image)) * 255 == pytest.approx(expected, abs=1e-9)


def test_luma_counts_grey_as_equal_channels():
    """One channel measures what three copies of it measure."""
    grey = torch.linspace(0, 1, 20, dtype=torch.float64).view(1, 1, 4, 5)

    torch.testing.assert_close(luma(grey), luma(grey.expand(-1, 3, -1, -1)), rtol=0, atol=1e-15)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_luma_keeps_dtype_and_is_not_rounded(dtype):
    """The result has the input's dtype and falls between the 8-bit levels."""
    result = luma(torch.full((3, 2, 2), 0.3, dtype=dtype))

    assert result.dtype == dtype
    assert float(result[0, 0, 0]) * 255 == pytest.approx(16 + 0.3 * 219, abs=1e-4)


@pytest.mark.parametrize(("bits", "dtype"), DEPTHS)
def test_every_level_survives_the_round_trip(bits, dtype):
    """Integers to [0, 1] and back are the same integers, all of them."""
    levels = every_level(bits).to(dtype)
    unit = dequantize(levels)
    result = quantize(unit, bits)

    assert unit.dtype == torch.float32
    assert (float(unit.min()), float(unit.max())) == (0.0, 1.0)
    assert result.dtype == dtype
    assert result.tolist() == levels.tolist()


@pytest.mark.parametrize(("bits", "dtype"), DEPTHS)
def test_quantize_rounds_every_half_up(bits, dtype):
    """A value midway between two levels becomes the upper one, after even levels too."""
    top = 2**bits - 1
    middle = every_level(bits)[:-1] + 0.5
    result = quantize(middle / top, bits)

    assert result.dtype == dtype
    assert result.tolist() == (middle + 0.5).tolist()


@settings(deadline=None)
@given(value=st.floats(0, 1, width=32), depth=st.sampled_from(DEPTHS))
def test_quantize_takes_the_nearest_level(value, depth):
    """No value moves by more than half a level, nor does it on the way back."""
    bits, _ = depth
    top = 2**bits - 1
    level = quantize(torch.tensor([value]), bits)

    assert abs(int(level) - value * top) <= 0.5 + top * 2**-23
    assert float(dequantize(level)) == pytest.approx(value, abs=0.5 / top + 2**-22)


@pytest.mark.parametrize(("bits", "dtype"), DEPTHS)
def test_quantize_clamps_what_lies_outside(bits, dtype):
    """Overshoot ends at the last level and never wraps round."""
    top = 2**bits - 1
    result = quantize(torch.tensor([-torch.inf, -3.0, -1e-3, 1.001, 300.0, torch.inf]), bits)

    assert result.dtype == dtype
    assert result.tolist() == [0, 0, 0, top, top, top]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_quantize_takes_any_floating_dtype(dtype):
    """Half precision is widened before it is scaled, so no level above 2048 is lost."""
    image = torch.tensor([0.0, 0.25, 0.75, 1.0], dtype=dtype)

    assert quantize(image).tolist() == [0, 64, 191, 255]
    assert quantize(image, 16).tolist() == [0, 16384, 49151, 65535]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dequantize_passes_floating_point_unchanged(dtype):
    """What is already floating point is handed back as it is."""
    image = torch.tensor([-0.5, 0.25, 2.0], dtype=dtype)

    assert dequantize(image) is image


def test_quantizing_leaves_the_input_alone():
    """Neither direction writes into its argument."""
    image, levels = torch.tensor([0.2, 1.5]), torch.tensor([7, 200], dtype=torch.uint8)
    quantize(image)
    dequantize(levels)

    assert image.tolist() == torch.tensor([0.2, 1.5]).tolist()
    assert levels.tolist() == [7, 200]
