"""The losses: what their names say, by hand; and the optimisers: what a step changes."""

import copy
import math

import pytest
import torch
from torch import nn
from upscaler_nets import correcting

from srcli.ops.devices import on_device
from srcli.training.losses import LOSS_FUNCTIONS
from srcli.training.optimizers import Optimizer

CPU = torch.device("cpu")

ENDS = ("stem", "head")
"""How the convolutions begin that Muon does not train."""


@pytest.fixture
def net(tiny_config):
    """A small net with random weights, laid out as training has it."""
    # Its heads are zero at first: no gradient comes through.
    return on_device(correcting(tiny_config, std=0.1), CPU)


def stepped(net, optimizer, *, seed, lr=1e-3):
    """Take one step down a random slope."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(2, 3, 24, 24, generator=generator)
    net.zero_grad()
    (net(image, [2, 3]) - image.flip(3)).abs().mean().backward()
    optimizer.step(lr)


def matrix_of(filters):
    """Copy ``(O, I, H, W)`` as the matrix that Muon takes it for, ``(O, H * W * I)``."""
    return filters.detach().permute(0, 2, 3, 1).flatten(1).clone()


@pytest.mark.parametrize("name", ["adam", "muon"])
def test_steps_are_torch_s_own(net, name):
    """Muon's to the precision of its bf16, for the inner convolutions; for all else Adam's."""
    other = copy.deepcopy(net)
    optimizer = Optimizer(net, name, 0.1)
    inner = [
        key
        for key, value in net.named_parameters()
        if name == "muon" and value.ndim == 4 and not key.startswith(ENDS)
    ]
    matrices = {key: nn.Parameter(matrix_of(other.get_parameter(key))) for key in inner}
    rest = {key: value for key, value in other.named_parameters() if key not in matrices}
    parts = [torch.optim.Adam(rest.values(), lr=1e-3, fused=True)]
    if matrices:
        settings = {"weight_decay": 0.1, "momentum": 0.95, "adjust_lr_fn": "match_rms_adamw"}
        parts.append(torch.optim.Muon(matrices.values(), lr=2e-3, **settings))
    before = {key: matrix.detach().clone() for key, matrix in matrices.items()}
    for seed in range(3):
        stepped(net, optimizer, seed=seed)
        for key, value in net.named_parameters():
            if value.grad is not None:
                place = matrices if key in matrices else rest
                place[key].grad = matrix_of(value.grad) if key in matrices else value.grad.clone()
        for part in parts:
            part.step()
    for key, value in rest.items():
        assert torch.equal(net.get_parameter(key), value), key
    for key, matrix in matrices.items():
        went = torch.linalg.norm(matrix - before[key])
        assert went > 0, key
        away = torch.linalg.norm(matrix_of(net.get_parameter(key)) - matrix)
        assert away < 0.05 * went, key


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
