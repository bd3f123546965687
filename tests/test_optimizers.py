"""The optimisers: what a step changes, and what the next one depends on."""

import copy

import pytest
import torch
from torch import nn

from srcli.model.network import ResidualAutoencoder
from srcli.ops.devices import on_device
from srcli.training.optimizers import Optimizer

CPU = torch.device("cpu")

ENDS = ("stem", "head")
"""How the convolutions begin that Muon does not train."""


@pytest.fixture
def net(tiny_config):
    """A small net with random weights, laid out as training has it."""
    torch.manual_seed(0)
    net = ResidualAutoencoder(tiny_config)
    for head in (net.head, *net.heads.values()):
        torch.nn.init.normal_(head.weight, 0, 0.1)  # zero at first: no gradient comes through
    return on_device(net, CPU)


def stepped(net, optimizer, *, seed, lr=1e-3):
    """Take one step down a random slope."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(2, 3, 24, 24, generator=generator)
    optimizer.zero_grad()
    (net(image, [2, 3]) - image.flip(3)).abs().mean().backward()
    optimizer.step(lr)


def test_adam_is_torch_s_adam(net):
    """With adam every parameter goes where torch's own Adam would have taken it."""
    other = copy.deepcopy(net)
    own = Optimizer(net, "adam")
    plain = torch.optim.Adam(other.parameters(), lr=1e-3, fused=True)
    for seed in range(3):
        stepped(net, own, seed=seed)
        image = torch.rand(2, 3, 24, 24, generator=torch.Generator().manual_seed(seed))
        plain.zero_grad()
        (other(image, [2, 3]) - image.flip(3)).abs().mean().backward()
        plain.step()
    for value, expected in zip(net.parameters(), other.parameters(), strict=True):
        assert torch.equal(value, expected)


def matrix_of(filters):
    """Copy ``(O, I, H, W)`` as the matrix that Muon takes it for, ``(O, H * W * I)``."""
    return filters.detach().permute(0, 2, 3, 1).flatten(1).clone()


def test_muon_is_torch_s_muon(net):
    """Inner convolutions go where torch's own Muon takes them, to the precision of its bf16."""
    other = copy.deepcopy(net)
    optimizer = Optimizer(net, "muon", 0.1)
    names = [n for n, v in net.named_parameters() if v.ndim == 4 and not n.startswith(ENDS)]
    matrices = [nn.Parameter(matrix_of(other.get_parameter(name))) for name in names]
    plain = torch.optim.Muon(
        matrices, lr=2e-3, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw"
    )
    for seed in range(3):
        stepped(net, optimizer, seed=seed)
        for matrix, name in zip(matrices, names, strict=True):
            grad = net.get_parameter(name).grad
            matrix.grad = None if grad is None else matrix_of(grad)
        plain.step()
    for matrix, name in zip(matrices, names, strict=True):
        went = torch.linalg.norm(matrix - matrix_of(other.get_parameter(name)))
        assert went > 0, name
        away = torch.linalg.norm(matrix_of(net.get_parameter(name)) - matrix)
        assert away < 0.05 * went, name


def test_muon_leaves_biases_and_the_ends_to_adam(net):
    """Biases and the convolutions from and to pixels take Adam's step."""
    other = copy.deepcopy(net)
    stepped(net, Optimizer(net, "muon"), seed=0)
    stepped(other, Optimizer(other, "adam"), seed=0)
    expected = dict(other.named_parameters())
    for name, value in net.named_parameters():
        adam = value.ndim == 1 or name.startswith(ENDS)
        assert torch.equal(value, expected[name]) == adam, name
