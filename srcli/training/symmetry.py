"""Weights for which it makes no difference how a picture is turned or mirrored.

A convolution commutes with the eight symmetries of the square if a symmetry that moves its taps
gives the same weights with their inputs and outputs in another order (Cohen & Welling 2016, "Group
Equivariant Convolutional Networks", the group p4m). Channels stand in groups of eight, one for each
symmetry; the pixels of a cell that space-to-depth has folded into channels change places as they
do in the picture. The net stays one of plain convolutions: only training knows of it.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from srcli.model.config import SYMMETRIES, ModelConfig

__all__ = ["Symmetry"]

_MOVES = (2, 1, 0)
"""Quarter turns; 0 is the mirror image. Each doubles the symmetries that those before it make."""


class Symmetry:
    """The average of weights, or of their gradients, over the eight symmetries of the square.

    Gradients that are averaged keep symmetric weights symmetric: Adam's and Muon's steps treat all
    places of a weight, or all rows and columns of its matrix, alike. What rounding takes away from
    that was at most 4e-6 of a parameter after the 5,307 steps of ``base``.

    Args:
        net: Whose parameters are meant, in its final place.
        config: Its shape, which is ``symmetric``.
    """

    def __init__(self, net: nn.Module, config: ModelConfig) -> None:
        self._parameters = list(net.parameters())
        # For each move, which value comes to each place.
        orders: list[list[Tensor]] = [[] for _ in _MOVES]
        start = 0
        for name, value in net.named_parameters():
            places = (torch.arange(value.numel()) + start).view(value.shape)
            start += value.numel()
            for move, order in zip(_MOVES, orders, strict=True):
                order.append(_moved(places, name, config, move).flatten())
        device = self._parameters[0].device
        self._orders = [torch.cat(order).to(device) for order in orders]

    @torch.no_grad()
    def begin(self) -> None:
        """Make random weights symmetric, as large as they were."""
        averages = self._average([value.detach() for value in self._parameters])
        for value, average in zip(self._parameters, averages, strict=True):
            # A filter's weight is the mean of eight that were drawn each on its own.
            value.copy_(average * math.sqrt(SYMMETRIES) if value.ndim == 4 else average)

    @torch.no_grad()
    def average_gradients(self) -> None:
        """Average the gradients of the parameters; one that there is not stays away."""
        gradients = [
            torch.zeros_like(value) if value.grad is None else value.grad
            for value in self._parameters
        ]
        for value, average in zip(self._parameters, self._average(gradients), strict=True):
            if value.grad is not None:
                value.grad.copy_(average)

    def _average(self, values: Sequence[Tensor]) -> list[Tensor]:
        joined = torch.cat([value.flatten() for value in values])
        for order in self._orders:
            joined = (joined + joined.index_select(0, order)).mul_(0.5)
        parts = torch.split(joined, [value.numel() for value in values])
        return [part.view(like.shape) for part, like in zip(parts, values, strict=True)]


def _moved(weight: Tensor, name: str, config: ModelConfig, move: int) -> Tensor:
    """Move a parameter as the net's features move when its picture does."""
    kind, *place = name.split(".")
    outputs = inputs = (-1, 2, 4, 1, 1)  # channels, in groups of eight
    if kind in {"stem", "stems", "head", "heads"}:
        cell = config.stem if kind in {"stem", "head"} else int(place[0])
        pixels = (3, 1, 1, cell, cell)
        outputs, inputs = (outputs, pixels) if "stem" in kind else (pixels, inputs)
    elif kind == "ups":
        outputs = (-1, 2, 4, 2, 2)
    weight = _moved_channels(weight, outputs, move)
    if weight.ndim < 4:
        return weight
    weight = _moved_channels(weight.transpose(0, 1), inputs, move).transpose(0, 1)
    return _on_grid(weight, move)


def _moved_channels(weight: Tensor, groups: tuple[int, ...], move: int) -> Tensor:
    """Move the channels of the first axis: groups by mirror image, quarter turns, rows, columns."""
    parts = _on_group(weight.reshape(*groups, *weight.shape[1:]), move)
    ahead = parts.movedim((3, 4), (-2, -1))
    return _on_grid(ahead, move).movedim((-2, -1), (3, 4)).reshape(weight.shape)


def _on_group(channels: Tensor, move: int) -> Tensor:
    """Move axes 1 and 2, by which symmetries s are numbered, as the move does by going before s."""
    if move:
        return channels.roll(move, 2)
    # A mirror image before a turn is one before the turn the other way round.
    return channels.flip((1, 2)).roll(1, 2)


def _on_grid(pixels: Tensor, move: int) -> Tensor:
    """Move the rows and columns of ``(..., H, W)``."""
    return torch.rot90(pixels, move, (-2, -1)) if move else pixels.flip(-1)
