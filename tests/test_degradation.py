"""The degradation that training and evaluation share: blur, reduction by a kernel, noise, JPEG."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch.nn import functional

from srcli.data import degrading
from srcli.data.degrading import DRAWS, PHASE_DRAWS, degrade, training_input
from srcli.imaging.encoding import jpeg_roundtrip
from srcli.ops.degradation import KERNELS, Degradation
from srcli.ops.resample import bicubic

EVERYTHING = Degradation.parse("blur=0..3, noise=0..20, jpeg=10..100, kernel=any")
ANY = Degradation.parse("kernel=any")

PILLOW = {"bicubic": 3, "bilinear": 2, "area": 4, "lanczos": 1}
"""The numbers of Pillow's filters."""

UNDEGRADED, KERNEL = 6, 7
"""The draws of whether a sample stays undegraded, and of its kernel."""

sides = st.integers(1, 40)


def noise(height, width, seed=0):
    """Make ``(3, H, W)`` uniform noise on 8-bit values, in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, height, width), generator=generator) / 255


def noises(count, height, width):
    """Make a batch of different noise."""
    return torch.stack([noise(height, width, seed) for seed in range(count)])


def uniform(samples, seed=0):
    """Draw the numbers that a batch is degraded by."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(samples, DRAWS, generator=generator, dtype=torch.float64)


def batch_of(picture):
    """Make ``(1, 3, H, W)`` or ``(1, 1, H, W)`` in [0, 1] of a ``uint8`` array."""
    planes = picture[None] if picture.ndim == 2 else picture.transpose(2, 0, 1)
    return torch.from_numpy(planes.copy())[None] / 255


def file_of(image):
    """Bring one picture in [0, 1] to the array ``(H, W, C)`` of its file."""
    return (image * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()


@given(
    height=sides,
    width=sides,
    scale=st.floats(1, 8),
    seed=st.integers(0, 99),
    part=st.sampled_from([Degradation(), EVERYTHING]),
)
def test_a_degraded_picture_has_8_bits(height, width, scale, seed, part):
    """Whatever happens to it, a picture of any size could be an 8-bit file."""
    image = noise(height, width, seed)[None]

    low = degrade(image, scale, part, uniform(1, seed))

    assert low.shape[-2:] == (round(height / scale + 1e-9) or 1, round(width / scale + 1e-9) or 1)
    assert torch.equal(low, torch.arange(256)[(low * 255).round().long()] / 255)


@pytest.mark.parametrize("kernel", PILLOW)
@pytest.mark.parametrize(("scale", "size"), [(2, (31, 49)), (2.5, (24, 39)), (200, (1, 1))])
def test_a_sample_is_reduced_by_the_kernel_drawn(photo, kernel, scale, size):
    """Sides are divided and rounded half up, and the pixels are Pillow's within a level."""
    expected = np.asarray(Image.fromarray(photo).resize(size[::-1], PILLOW[kernel]))
    draws = uniform(1)
    draws[:, KERNEL] = (KERNELS.index(kernel) + 0.5) / len(KERNELS)

    found = file_of(degrade(batch_of(photo)[0], scale, ANY, draws)).astype(int)

    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 1


@pytest.mark.parametrize("sigma", [0.3, 4.0])
def test_the_blur_is_a_gaussian(sigma):
    """A dense convolution in float64 with the 2-D Gaussian gives the same, edges included."""
    images = noises(2, 30, 21)
    radius = math.ceil(3 * sigma)
    line = torch.arange(-radius, radius + 1, dtype=torch.float64)
    kernel = (-(line[:, None] ** 2 + line**2) / (2 * sigma**2)).exp()
    padded = np.pad(
        images.double(), ((0, 0), (0, 0), (radius, radius), (radius, radius)), "symmetric"
    )
    channels = torch.from_numpy(padded).flatten(0, 1)[:, None]
    expected = functional.conv2d(channels, (kernel / kernel.sum())[None, None])

    deviations = torch.tensor([sigma, 0.0], dtype=torch.float64)
    found = degrading._filtered(images, (30, 21), deviations, "bicubic")

    torch.testing.assert_close(found[0], expected[:3, 0].float(), rtol=0, atol=1e-5)
    assert torch.equal(found[1], images[1])


@pytest.mark.parametrize("sigma", [1.0, 25.0])
def test_noise_has_the_deviation_asked_for(sigma):
    """Noise is white: mean 0, the deviation drawn of its range, nothing shared by pixels."""
    image, draws = torch.full((1, 3, 120, 140), 128 / 255), uniform(1)
    draws[:, 1] = 0.25

    low = degrade(image, 1, Degradation(noise=(sigma / 2, 2.5 * sigma)), draws) * 255 - 128

    count = low.numel()
    assert abs(float(low.mean())) < 4 * sigma / math.sqrt(count)
    # Rounding to whole values adds a twelfth to the variance.
    assert float(low.std()) == pytest.approx(math.sqrt(sigma**2 + 1 / 12), rel=0.02)
    for shifted in (low.roll(1, -1), low.roll(1, -2), low.roll(1, -3)):
        assert abs(float((low * shifted).mean())) / sigma**2 < 4 / math.sqrt(count)


def test_the_jpeg_file_is_written_last():
    """JPEG gets the picture with its blur and noise, at the quality and phase drawn."""
    images, draws = noises(3, 90, 75), uniform(3)
    draws[0, PHASE_DRAWS] = 0  # a whole picture, which begins at the corner of the grid
    parts = {"blur": (0.5, 2), "noise": (2, 9)}

    found = degrade(images, 3, Degradation(**parts, jpeg=(40, 80)), draws)

    before = degrade(images, 3, Degradation(**parts), draws)
    for low, picture, row in zip(found, before, draws.tolist(), strict=True):
        quality, phase = 40 + int(row[2] * 41), (int(row[3] * 16), int(row[4] * 16))
        expected = jpeg_roundtrip(file_of(picture), quality, phase)
        np.testing.assert_array_equal(file_of(low), expected)


def test_the_share_that_stays_undegraded_is_plain_bicubic():
    """A draw of its own spares a sample every part, and leaves its neighbour as it was."""
    images = torch.stack([noise(60, 60), noise(60, 60)])
    draws = torch.full((2, DRAWS), 0.5, dtype=torch.float64)
    draws[:, UNDEGRADED] = torch.tensor([0.29, 0.3])
    draws[:, KERNEL] = 0.99
    some = Degradation.parse(f"{EVERYTHING},clean=0.3")

    found = degrade(images, 2, some, draws)

    assert torch.equal(found[0], degrade(images[0], 2))
    assert torch.equal(found[1], degrade(images, 2, EVERYTHING, draws)[1])


@pytest.mark.parametrize("text", ["blur=0..3", "jpeg=20..90", str(EVERYTHING)])
def test_grey_pictures_are_degraded_too(photo, text):
    """One channel comes back as one channel; without noise it is that of the same RGB."""
    part, draws = Degradation.parse(text), uniform(1)
    grey = batch_of(photo[..., 0])

    found = degrade(grey[0], 2, part, draws)

    assert found.shape == (1, 31, 49)
    if part.noise is None:
        expected = degrade(grey.expand(-1, 3, -1, -1), 2, part, draws)[0]
        assert torch.equal(found.expand(3, -1, -1), expected)


@pytest.mark.parametrize("scale", [1.0, 3.0, 3.7])
def test_a_degraded_batch_is_each_alone(scale):
    """A sample has the same bits alone, in any batch, at any place, after any other call."""
    part = Degradation.parse(f"{EVERYTHING},clean=0.2")
    images, draws = noises(9, 72, 60), uniform(9)
    alone = torch.stack([degrade(images[i], scale, part, draws[i : i + 1]) for i in range(9)])
    torch.manual_seed(5)

    assert torch.equal(degrade(images, scale, part, draws), alone)
    order = torch.randperm(9)
    assert torch.equal(degrade(images[order], scale, part, draws[order]), alone[order])


@pytest.mark.parametrize("part", [Degradation(), EVERYTHING], ids=str)
def test_a_training_input_is_there_and_back(part):
    """Each patch of a mixed batch is degraded at its own scale, and enlarged by bicubic."""
    patches, scales, draws = noises(6, 120, 120), [3.0, 2.0, 3.0, 4.0, 2.5, 2.0], uniform(6)

    found = training_input(patches, scales, part, draws)

    for i, scale in enumerate(scales):
        low = degrade(patches[i], scale, part, draws[i : i + 1])
        assert low.shape == (3, round(120 / scale), round(120 / scale))
        assert torch.equal(found[i], bicubic(low, (120, 120)))
