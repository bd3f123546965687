"""The filters that reduce: other implementations of each, what is drawn, and batches of several."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch.nn import functional

from srcli.data.degrading import degrade, training_input
from srcli.ops.color import dequantize, quantize
from srcli.ops.degradation import KERNELS, Degradation
from srcli.ops.degrade import DRAWS
from srcli.ops.resample import axis_weights, bicubic
from srcli.ops.spans import Span
from srcli.training.config import TrainConfig

PILLOW = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "area": Image.Resampling.BOX,
    "lanczos": Image.Resampling.LANCZOS,
}
"""What Pillow calls the kernels that it has."""

KERNEL = 7
"""The draw of a sample's kernel."""

ANY = Degradation.parse("kernel=any")

reductions = st.integers(1, 150).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n)))
"""The length of an axis and one that it can be reduced to."""


def noise(height, width, seed=0):
    """Make ``(3, H, W)`` uniform noise on 8-bit levels, in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, height, width), generator=generator) / 255


def uniform(samples, seed=0):
    """Draw the numbers that a batch is degraded by."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(samples, DRAWS, generator=generator, dtype=torch.float64)


def drawing(*kernels):
    """Draw the given kernels, one a sample, from all there are."""
    draws = uniform(len(kernels))
    places = [KERNELS.index(kernel) for kernel in kernels]
    draws[:, KERNEL] = (torch.tensor(places, dtype=torch.float64) + 0.5) / len(KERNELS)
    return draws


def resampled(image, size, kernel):
    """Resample ``(..., H, W)`` by a kernel, not rounded."""
    down = axis_weights(image.shape[-2], size[0], Span(0, size[0]), kernel)
    across = axis_weights(image.shape[-1], size[1], Span(0, size[1]), kernel)
    tall = down.apply(image[..., down.first : down.stop, across.first : across.stop])
    return across.apply(tall.mT).mT


@pytest.mark.parametrize("kernel", sorted(PILLOW))
@given(rows=reductions, columns=reductions)
def test_a_kernel_is_pillows_filter(kernel, rows, columns):
    """Pillow, in floating point, reduces to the same values from any size to any other."""
    image = noise(rows[0], columns[0])[0]
    expected = Image.fromarray(image.numpy()).resize((columns[1], rows[1]), PILLOW[kernel])

    found = resampled(image, (rows[1], columns[1]), kernel)

    np.testing.assert_allclose(found, np.array(expected), rtol=0, atol=1e-5)


@given(length=st.integers(12, 200), scale=st.floats(1, 8))
def test_cubic_is_torchs_filter_without_antialiasing(length, scale):
    """PyTorch's plain bicubic, OpenCV's, gives the same where no tap leaves the picture."""
    image = noise(5, length).double()  # torch's own coordinates round in float32
    size = max(int(length / scale), 1)
    (expected,) = functional.interpolate(
        image[None], (5, size), mode="bicubic", antialias=False, align_corners=False
    )
    center = (torch.arange(size) + 0.5) * length / size
    inside = (center >= 2) & (center <= length - 2)

    found = resampled(image, (5, size), "cubic")

    torch.testing.assert_close(found[..., inside], expected[..., inside], rtol=0, atol=1e-5)


def test_cubic_aliases_and_the_others_do_not():
    """Stripes finer than the result can hold become coarse stripes, or almost grey."""
    stripes = torch.zeros(3, 96, 96)
    stripes[..., ::2] = 1

    left = {kernel: float(resampled(stripes, (24, 21), kernel).std()) for kernel in KERNELS}

    assert left.pop("cubic") > 0.2
    assert max(left.values()) < 0.1


@pytest.mark.parametrize("kernel", KERNELS)
@given(sizes=reductions)
def test_the_weights_of_a_pixel_sum_to_one(kernel, sizes):
    """Whatever is reduced to whatever, every pixel of the result is a weighted mean."""
    weights = axis_weights(*sizes, Span(0, sizes[1]), kernel).weight

    torch.testing.assert_close(weights.sum(0), torch.ones(sizes[1], 1))


@pytest.mark.parametrize("kernel", KERNELS)
@given(rows=reductions, columns=reductions, value=st.integers(0, 255))
def test_a_flat_picture_stays_flat(kernel, rows, columns, value):
    """A constant is a constant after any kernel."""
    image = torch.full((1, rows[0], columns[0]), value / 255)

    found = resampled(image, (rows[1], columns[1]), kernel)

    torch.testing.assert_close(found, torch.full((1, rows[1], columns[1]), value / 255))


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_same_size_is_the_same_picture(kernel):
    """Nothing is filtered when nothing changes size."""
    image = noise(23, 37)

    torch.testing.assert_close(resampled(image, (23, 37), kernel), image, rtol=0, atol=1e-7)


@pytest.mark.parametrize("kernel", KERNELS)
@given(sizes=reductions, edges=st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted))
def test_a_window_has_the_weights_of_the_whole(kernel, sizes, edges):
    """A window of the result is weighted as it is in the whole, whichever kernel."""
    length, size = sizes
    start, stop = int(edges[0] * (size - 1)), int(edges[1] * (size - 1)) + 1
    row = noise(length, 1)
    whole = axis_weights(length, size, Span(0, size), kernel)
    window = axis_weights(length, size, Span(start, stop), kernel)

    found = window.apply(row[:, window.first : window.stop])

    assert torch.equal(found, whole.apply(row[:, whole.first : whole.stop])[:, start:stop])


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("scale", [2, 3, 2.5, 7])
def test_a_sample_is_reduced_by_the_kernel_drawn(kernel, scale):
    """The result is that kernel's reduction on 8-bit levels, and nothing else."""
    image = noise(60, 75)

    found = degrade(image, scale, ANY, drawing(kernel))

    assert torch.equal(found, degrade(image, scale, Degradation(kernel=(kernel,)), uniform(1)))
    size = tuple(found.shape[-2:])
    assert (found - dequantize(quantize(resampled(image, size, kernel)))).abs().max() < 1.01 / 255
    others = [degrade(image, scale, ANY, drawing(other)) for other in KERNELS if other != kernel]
    assert not any(torch.equal(found, other) for other in others)


def test_a_mixed_batch_is_each_sample_alone():
    """Samples of one kernel are reduced together, and none knows of its neighbours."""
    images = torch.stack([noise(72, 60, seed) for seed in range(12)])
    degradation = Degradation.parse("blur=0..3,noise=0..9,jpeg=40..90,kernel=any,clean=0.2")
    draws = uniform(12)

    found = degrade(images, 3, degradation, draws)

    alone = [degrade(images[i], 3, degradation, draws[i : i + 1]) for i in range(12)]
    assert torch.equal(found, torch.stack(alone))
    order = torch.randperm(12)
    assert torch.equal(degrade(images[order], 3, degradation, draws[order]), found[order])


def test_each_of_the_kernels_named_is_as_likely():
    """Each kernel takes the same share of the draws, up to the last below one, in their order."""
    kernels = ("lanczos", "bilinear", "area")
    image = noise(6, 6)
    known = {name: degrade(image, 3, Degradation(kernel=(name,)), uniform(1)) for name in kernels}
    draws = torch.zeros(300, DRAWS, dtype=torch.float64)
    draws[:, KERNEL] = (torch.arange(300) + 0.5) / 300
    draws[-1, KERNEL] = math.nextafter(1, 0)

    found = degrade(image.expand(300, -1, -1, -1), 3, Degradation(kernel=kernels), draws)

    for place, kernel in enumerate(kernels):
        part = found[100 * place : 100 * (place + 1)]
        assert torch.equal(part, known[kernel].expand(100, -1, -1, -1))


def test_draws_of_a_kernel_are_uniform():
    """Over many samples of a random batch every kernel comes about as often as the others."""
    image = noise(6, 6)
    draws = uniform(1000, seed=3)

    found = degrade(image.expand(1000, -1, -1, -1), 3, ANY, draws)

    results, counts = torch.unique(found, dim=0, return_counts=True)
    assert len(results) == len(KERNELS)
    # Five standard deviations of a count of 1000 draws with a chance of one fifth.
    assert (counts - 200).abs().max() < 5 * math.sqrt(1000 * 0.2 * 0.8)


def test_a_clean_sample_is_reduced_by_bicubic():
    """What is spared the degradation is plain bicubic, whichever kernel it would have drawn."""
    images = torch.stack([noise(36, 36, seed) for seed in range(2)])
    draws = drawing("cubic", "cubic")
    draws[:, KERNEL - 1] = torch.tensor([0.1, 0.9])

    found = degrade(images, 2, Degradation(kernel=("cubic",), clean=0.5), draws)

    assert torch.equal(found[0], degrade(images[0], 2))
    assert torch.equal(found[1], degrade(images[1], 2, ANY, draws[1:]))


@pytest.mark.parametrize("text", ["blur=0..3", "noise=0..9", "jpeg=50", "blur=1,noise=4,jpeg=80"])
def test_the_bicubic_kernel_changes_no_bit(text):
    """Naming the kernel that is there anyway is the same degradation."""
    images = torch.stack([noise(48, 48, seed) for seed in range(3)])
    draws, other = uniform(3), uniform(3)
    other[:, KERNEL] = 0.123

    found = degrade(images, 2, Degradation.parse(f"{text},kernel=bicubic"), draws)

    assert torch.equal(found, degrade(images, 2, Degradation.parse(text), other))


def test_the_net_sees_a_bicubic_enlargement():
    """Whatever reduced a patch, it is enlarged by Keys' cubic: what the net will be given."""
    patches = torch.stack([noise(120, 120, seed) for seed in range(len(KERNELS))])
    draws = drawing(*KERNELS)

    found = training_input(patches, [3.0] * len(KERNELS), ANY, draws)

    for i in range(len(KERNELS)):
        low = degrade(patches[i], 3, ANY, draws[i : i + 1])
        assert torch.equal(found[i], bicubic(low, (120, 120)))


def test_kernels_survive_a_runs_options():
    """A training configuration as JSON and back has the same kernels in the same order."""
    degradation = Degradation.parse("kernel=lanczos+area,clean=0.25")
    config = TrainConfig(output=Path("run"), datasets=("photos",), degradation=degradation, steps=9)

    assert TrainConfig.from_json(config.to_json()).degradation == degradation
