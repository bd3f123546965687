"""PSNR, SSIM and agreement, beside scikit-image and by hand."""

import re

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from srcli.ops.metrics import agreement, crop_border, psnr, ssim

SHAPES = [(1, 1, 11, 11), (2, 3, 31, 50)]
"""Grey and RGB, square and not, odd and even, down to a single SSIM window."""


def random_pair(shape, seed=0, noise=0.1):
    """Make an image of uniform noise in [0, 1] and a noisy copy of it that leaves [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    reference = torch.rand(shape, generator=generator, dtype=torch.float64)
    return reference + noise * torch.randn(shape, generator=generator).double(), reference


def skimage_ssim(image, reference):
    """Average scikit-image's SSIM over the channels of one ``(C, H, W)`` image.

    Its window with these arguments is Wang's: 2 * int(3.5 * 1.5 + 0.5) + 1 = 11 pixels. Its
    full map reflects the image at the edges; cut by 5 pixels it holds the windows that lie
    wholly inside, which are the ones that srcli counts.
    """
    means = []
    for channel, target in zip(image.numpy(), reference.numpy(), strict=True):
        _, full = structural_similarity(
            channel,
            target,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=1.0,
            full=True,
        )
        means.append(full[5:-5, 5:-5].mean())
    return np.mean(means)


def skimage_psnr(image, reference):
    """Measure scikit-image's decibels of one image."""
    return peak_signal_noise_ratio(reference.numpy(), image.numpy(), data_range=1.0)


@pytest.mark.parametrize(("metric", "expected"), [(psnr, skimage_psnr), (ssim, skimage_ssim)])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("noise", [1e-5, 0.5])
def test_metrics_agree_with_scikit_image(metric, expected, shape, noise):
    """It shares no code with us. Values beyond [0, 1] and far below a level count as they are."""
    image, reference = random_pair(shape, noise=noise)
    values = [expected(*pair) for pair in zip(image, reference, strict=True)]

    np.testing.assert_allclose(metric(image, reference).numpy(), values, rtol=0, atol=1e-9)


@pytest.mark.parametrize("metric", [psnr, ssim, agreement])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_metrics_of_a_batch_are_those_of_its_images_in_float64(metric, dtype):
    """Whatever the floating dtype; which image is the reference does not matter."""
    image, reference = (tensor.to(dtype) for tensor in random_pair((4, 3, 17, 14)))
    before = image.clone(), reference.clone()
    pairs = zip(image.double().split(1), reference.double().split(1), strict=True)
    alone = torch.cat([metric(*pair) for pair in pairs])
    together = metric(image, reference)

    assert together.dtype == torch.float64
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-12)
    assert torch.equal(together, metric(reference, image))
    assert torch.equal(image, before[0])
    assert torch.equal(reference, before[1])


ZEROS = torch.zeros(2, 3, 16, 16)


@pytest.mark.parametrize(
    ("metric", "image", "reference", "message"),
    [
        (psnr, ZEROS, ZEROS[:1], "not (2, 3, 16, 16) and (1, 3, 16, 16)"),
        (ssim, ZEROS, ZEROS[..., 1:], "not (2, 3, 16, 16) and (2, 3, 16, 15)"),
        (agreement, ZEROS[0], ZEROS[0], "not (3, 16, 16) and (3, 16, 16)"),
        (psnr, ZEROS.byte(), ZEROS, "not torch.uint8 and torch.float32"),
        (ssim, ZEROS[..., 6:], ZEROS[..., 6:], "at least 11 pixels, not the shape (2, 3, 16, 10)"),
        (agreement, ZEROS[:, 1:], ZEROS[:, 1:], "needs 3 channels, not the shape (2, 2, 16, 16)"),
    ],
)
def test_metrics_refuse_what_cannot_be_compared(metric, image, reference, message):
    """Nothing is broadcast, cut or converted: the error names the shapes or the types."""
    with pytest.raises(ValueError, match=re.escape(message)):
        metric(image, reference)


def test_crop_border_cuts_every_side_or_refuses():
    """What is left is the middle; where nothing would be, it is an error."""
    image = torch.arange(2 * 9 * 20).view(2, 9, 20)

    np.testing.assert_array_equal(crop_border(image, 0).numpy(), image.numpy())
    np.testing.assert_array_equal(crop_border(image, 4).numpy(), image.numpy()[:, 4:5, 4:16])
    for border in (-1, 5):
        with pytest.raises(ValueError, match=f"{border} pixels from 9x20 pixels"):
            crop_border(image, border)


def test_agreement_counts_pixels_with_the_same_largest_channel():
    """Of four pixels by hand, red-red, green-green, blue-red and grey-red, three agree."""
    pixels = [[0.9, 0.1, 0.2], [0.1, 0.5, 0.4], [0.2, 0.3, 0.4], [0.5, 0.5, 0.5]]
    targets = [[0.4, 0.3, 0.2], [0.0, 1.0, 0.9], [0.6, 0.3, 0.4], [0.7, 0.5, 0.5]]
    image, reference = (torch.tensor(rows).T.reshape(1, 3, 2, 2) for rows in (pixels, targets))

    assert agreement(image, reference).tolist() == [0.75]
    assert agreement(image, image).tolist() == [1.0]
