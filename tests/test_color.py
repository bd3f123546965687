"""Luma, rounding to integers and back."""

import numpy as np
import pytest
import torch
from skimage.color import rgb2ycbcr

from srcli.ops.color import dequantize, luma, quantize

every_depth = pytest.mark.parametrize(("bits", "dtype"), [(8, torch.uint8), (16, torch.uint16)])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(3, 1, 1), (3, 23, 37), (2, 3, 8, 5)], ids=str)
def test_luma_agrees_with_scikit_image(shape, dtype):
    """It shares no code with us: the same luma, unrounded; one channel counts as three."""
    image = torch.rand(shape, dtype=dtype)
    grey = image[..., :1, :, :]
    for picture, colours in ((image, image), (grey, grey.expand(shape))):
        expected = rgb2ycbcr(colours.double().numpy(), channel_axis=-3)[..., :1, :, :]

        assert luma(picture).dtype == dtype
        tolerance = 1e-10 if dtype == torch.float64 else 1e-4
        np.testing.assert_allclose(luma(picture).numpy() * 255, expected, rtol=0, atol=tolerance)


@every_depth
def test_every_integer_survives_the_round_trip(bits, dtype):
    """Integers to [0, 1] and back are the same integers, all of them."""
    values = torch.arange(2**bits).to(dtype)
    unit = dequantize(values)
    result = quantize(unit, bits)

    assert unit.dtype == torch.float32
    assert (float(unit.min()), float(unit.max())) == (0.0, 1.0)
    assert result.dtype == dtype
    assert result.tolist() == values.tolist()


@every_depth
def test_quantize_rounds_half_up_and_clamps(bits, dtype):
    """A value midway between two integers becomes the upper one; overshoot never wraps round."""
    top = 2**bits - 1
    middle = torch.arange(top) + 0.5
    outside = torch.tensor([-torch.inf, -3.0, -1e-3, 1.001, 300.0, torch.inf])

    assert quantize(middle / top, bits).tolist() == (middle + 0.5).tolist()
    assert quantize(outside, bits).tolist() == [0, 0, 0, top, top, top]
    assert quantize(outside, bits).dtype == dtype


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_any_floating_dtype(dtype):
    """Half precision is widened before it is scaled; floating point is not dequantised."""
    image = torch.tensor([0.0, 0.25, 0.75, 1.0], dtype=dtype)

    assert quantize(image).tolist() == [0, 64, 191, 255]
    assert quantize(image, 16).tolist() == [0, 16384, 49151, 65535]
    assert dequantize(image) is image
    assert image.tolist() == [0.0, 0.25, 0.75, 1.0]
