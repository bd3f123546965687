"""Symmetric nets: a picture's result turns with it, before, in and after training."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from srcli.errors import UsageError
from srcli.model import weights
from srcli.model.network import ResidualAutoencoder
from srcli.training.symmetry import Symmetry
from srcli.training.trainer import train

TURNS = range(8)
SCALES = [2.0, 3.0, 4.0]


@pytest.fixture
def symmetric_config(tiny_config):
    """The tiny net with channels in groups of eight."""
    return replace(tiny_config, widths=(8, 16), symmetric=True)


def drawn(config, *, symmetric=True):
    """Make a net in double precision that corrects at random, biases and all."""
    torch.manual_seed(3)
    net = ResidualAutoencoder(config).double().to(memory_format=torch.channels_last)
    for value in net.parameters():
        if value.ndim == 1 or not value.any():
            nn.init.normal_(value, std=0.05)
    if symmetric:
        Symmetry(net, config).begin()
    return net


def turned(image, turn):
    """Turn ``(..., H, W)`` by quarters, then mirror it."""
    image = torch.rot90(image, turn % 4, (-2, -1))
    return image.flip(-1) if turn >= 4 else image


@pytest.mark.parametrize("scale", SCALES)
def test_a_symmetric_net_turns_with_its_picture(symmetric_config, scale):
    """By a path or without one; a net that is not symmetric does not."""
    image = torch.rand(1, 3, 24, 36, dtype=torch.float64)
    for symmetric in (True, False):
        net = drawn(symmetric_config, symmetric=symmetric)
        with torch.no_grad():
            straight = net(image, [scale])
            off = max(
                float((net(turned(image, turn), [scale]) - turned(straight, turn)).abs().max())
                for turn in TURNS
            )
        assert float((straight - image).abs().mean()) > 1e-3
        assert off < 1e-12 if symmetric else off > 1e-3


def test_weights_begin_as_large_as_without_symmetry(symmetric_config):
    """The mean of eight numbers is smaller than each; the net begins with the spread it needs."""
    config = replace(symmetric_config, widths=(64, 96))
    net = drawn(config, symmetric=False)
    before = {name: value.detach().std().item() for name, value in net.named_parameters()}
    Symmetry(net, config).begin()
    for name, value in net.named_parameters():
        if value.ndim == 4:
            assert value.detach().std().item() == pytest.approx(before[name], rel=0.1), name


@pytest.mark.parametrize("scale", SCALES)
def test_averaged_gradients_are_those_of_all_eight_pictures(symmetric_config, scale):
    """One picture teaches a symmetric net what its eight turned ones together would."""
    net = drawn(symmetric_config)
    image, target = torch.rand(2, 1, 3, 24, 24, dtype=torch.float64)

    def descend(turns):
        net.zero_grad()
        for turn in turns:
            output = net(turned(image, turn), [scale])
            (output - turned(target, turn)).square().mean().div(len(turns)).backward()
        return [value.grad for value in net.parameters()]

    expected = [copy.deepcopy(gradient) for gradient in descend(TURNS)]
    alone = [copy.deepcopy(gradient) for gradient in descend([0])]
    Symmetry(net, symmetric_config).average_gradients()
    found = [value.grad for value in net.parameters()]
    differ = 0
    for one, mean, single in zip(found, expected, alone, strict=True):
        if mean is None:  # the ends of another path
            assert one is None
            continue
        assert torch.allclose(one, mean, rtol=1e-9, atol=1e-14)
        differ += not torch.allclose(single, mean, rtol=1e-3)
    assert differ > 10  # so that averaging did something


@pytest.mark.usefixtures("undrawn")
def test_training_keeps_a_net_symmetric_or_leaves_it(options, symmetric_config, tmp_path):
    """With either optimizer; a run that is not symmetric leaves it at once or after a share."""
    start = tmp_path / "start.safetensors"
    weights.save(start, drawn(symmetric_config).float().state_dict(), symmetric_config, {})
    free = replace(symmetric_config, symmetric=False)
    image = torch.rand(1, 3, 24, 24)
    for model, share, optimizer, init_from, kept in (
        (symmetric_config, 0.0, "muon", None, True),
        (symmetric_config, 0.0, "adam", start, True),
        (free, 1.0, "muon", start, True),
        (free, 0.5, "muon", start, False),
        (free, 0.0, "muon", start, False),
    ):
        changes = {"optimizer": optimizer, "lr": 1e-2, "symmetric_share": share, "ema": 0.0}
        name = f"{share} {optimizer} {kept}"
        config = options(name, model=model, init_from=init_from, **changes)
        train(config)
        net, header = weights.load(config.output / "model.safetensors")
        assert header.config == model
        with torch.no_grad():
            off = net(turned(image, 1)) - turned(net(image), 1)
        assert (float(off.abs().max()) < 2e-5) == kept
    # The other way round their symmetry would have to be invented.
    moved = config.output / "model.safetensors"
    with pytest.raises(UsageError, match="another shape"):
        train(options("back", model=symmetric_config, init_from=moved))
