"""The losses: what their names say, by hand."""

import math

import pytest
import torch

from srcli.training.losses import LOSS_FUNCTIONS


def luma(error):
    """Weigh the errors of R, G and B as luma does."""
    red, green, blue = error.unbind(1)
    return (0.299 * red + 0.587 * green + 0.114 * blue)[:, None]


def bands(error):
    """L1 of the discrete Fourier transform, by its matrix, and a sixth of that of the pixels."""
    side = torch.arange(error.shape[-1], dtype=torch.float64)
    wave = torch.exp(-2j * math.pi * side[:, None] * side / len(side)) / len(side) ** 0.5
    found = (wave @ error.to(wave.dtype) @ wave)[..., : len(side) // 2 + 1]
    return (found.real.abs().mean() + found.imag.abs().mean()) / 2 + error.abs().mean() / 6


BY_HAND = {
    "l1": lambda d: d.abs().mean(),
    "mse": lambda d: (d**2).mean(),
    "fourier": lambda d: (bands(d) + bands(luma(d))) / 2,
}


@pytest.mark.parametrize("name", BY_HAND)
def test_each_loss_is_what_its_name_says(name):
    """The measure between two batches, a scalar that has a gradient."""
    output = torch.rand(2, 3, 24, 24, requires_grad=True)
    target = torch.rand(2, 3, 24, 24)

    loss = LOSS_FUNCTIONS[name](output, target)

    by_hand = BY_HAND[name]((output.detach() - target).double())
    assert loss.item() == pytest.approx(float(by_hand), rel=1e-5)
    loss.backward()
    assert output.grad.any()


def test_a_loss_is_a_mean_over_the_patches():
    """The loss of a batch is the mean of those of its patches: threads and processes split it."""
    output, target = torch.rand(2, 3, 3, 24, 24)
    for loss in LOSS_FUNCTIONS.values():
        alone = [loss(output[i : i + 1], target[i : i + 1]) for i in range(3)]
        torch.testing.assert_close(loss(output, target), torch.stack(alone).mean())
