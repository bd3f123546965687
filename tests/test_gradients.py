"""Gradients by matrix products: those that torch's own backward pass gives."""

import copy

import pytest
import torch
from torch import nn

from srcli.model.config import BASE
from srcli.model.network import ResidualAutoencoder
from srcli.training.gradients import multiply_gradients, products_are_faster


def convolution(inputs, outputs, **options):
    """Make a 3x3 convolution in double precision, and one with gradients by products."""
    plain = nn.Conv2d(inputs, outputs, 3, **{"padding": 1, **options}).double()
    other = nn.Sequential(copy.deepcopy(plain))
    multiply_gradients(other)
    return plain, other[0]


def gradients(module, image):
    """Weigh what comes out at random, and tell the gradients of input and parameters."""
    image = image.clone().requires_grad_()
    out = module(image)
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out)
    (out * weights).sum().backward()
    return [image.grad, *(value.grad for value in module.parameters())]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("shape", "outputs"),
    [
        ((2, 27, 5, 7), 30),
        ((1, 32, 1, 1), 27),
        ((3, 28, 1, 40), 28),
        ((2, 27, 90, 25), 27),  # more than one block of rows, the last one smaller
        ((1, 27, 123, 25), 27),  # three, the middle one with rows of both others
        ((1, 27, 3, 1500), 27),  # rows longer than a block
    ],
)
def test_the_gradients_are_torch_s(shape, outputs, bias):
    """Of any shape, to the last few bits of a double; and what is computed is the same."""
    plain, other = convolution(shape[1], outputs, bias=bias)
    image = torch.randn(shape, dtype=torch.float64)
    assert type(other) is not type(plain)
    assert torch.equal(other(image), plain(image))
    for found, expected in zip(gradients(other, image), gradients(plain, image), strict=True):
        assert torch.allclose(found, expected, rtol=1e-10, atol=1e-10)


def test_an_input_without_gradient_gets_none():
    """The first convolution of a net needs those of its parameters alone."""
    plain, other = convolution(27, 27)
    image = torch.randn(1, 27, 8, 8, dtype=torch.float64)
    for module in (plain, other):
        module(image).square().sum().backward()
    assert torch.allclose(other.weight.grad, plain.weight.grad, rtol=1e-10, atol=1e-10)
    assert torch.allclose(other.bias.grad, plain.bias.grad, rtol=1e-10, atol=1e-10)


def test_gradients_lie_as_their_weights_do():
    """Channels last, so that no optimiser has to lay them out anew."""
    _, other = convolution(32, 48)
    other.to(memory_format=torch.channels_last)
    other(torch.randn(1, 32, 8, 8, dtype=torch.float64)).sum().backward()
    assert other.weight.grad.stride() == other.weight.stride()


@pytest.mark.parametrize(
    "options",
    [{"padding": 0}, {"stride": 2}, {"dilation": 2}, {"groups": 2}],
    ids=lambda options: next(iter(options)),
)
def test_other_convolutions_stay_as_they_are(options):
    """What the products would be wrong for is left alone, and so are few channels."""
    plain, other = convolution(32, 32, **options)
    assert type(other) is type(plain)
    plain, other = convolution(32, 12)
    assert type(other) is type(plain)


def test_the_gradients_of_a_whole_net():
    """All parameters of base get the gradients that they had, to the precision of fp32."""
    net = ResidualAutoencoder(BASE)
    for head in (net.head, *net.heads.values()):
        nn.init.normal_(head.weight, 0, 0.1)  # zero at first: no gradient comes through
    other = copy.deepcopy(net)
    multiply_gradients(other)
    image = torch.rand(3, 3, 120, 120)
    for one in (net, other):
        one(image, [2, 3, 4]).square().mean().backward()
    for (name, value), (_, plain) in zip(
        other.named_parameters(), net.named_parameters(), strict=True
    ):
        distance = torch.linalg.norm(value.grad - plain.grad) / torch.linalg.norm(plain.grad)
        assert distance < 1e-4, name


@pytest.mark.parametrize(
    ("device", "dtype", "features", "faster"),
    [
        ("cpu", torch.float32, {"avx2": True, "avx512_f": False}, True),
        ("cpu", torch.float32, {"avx2": True, "avx512_f": True}, False),
        ("cpu", torch.float32, {"neon": True}, False),
        ("cpu", torch.bfloat16, {"avx2": True}, False),
        ("cuda", torch.float32, {"avx2": True}, False),
    ],
)
def test_only_processors_with_avx2_alone_multiply(monkeypatch, device, dtype, features, faster):
    """Where oneDNN has better, or nothing was measured, it computes the gradients."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: features, raising=False)
    assert products_are_faster(torch.device(device), dtype) is faster
