"""Which numbers the residual convolutions are rounded to in int8, in every engine alike.

The input of a convolution has 256 steps over the range that was measured for it, its weights at
most 255 for each output channel, and what is added to its result is in fp32. Nothing is clipped in
pictures like those that the ranges were measured on.

Where that is too coarse, the convolution runs a second time on what the steps left of its input,
with 256 steps over one of the first: as if the input had sixteen bits. That still takes less time
than fp32 with VNNI, and more without.

Processors without VNNI add the products of two neighbouring input channels in 16 bits. The two
weights may then add up to 127 steps of either sign at most, or sums would be cut off, and the steps
are a third larger.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from srcli.model.config import ScalePath
from srcli.model.network import ResidualAutoencoder, ResidualUnit

__all__ = ["aligned", "convolutions", "input_ranges", "weight_steps"]


def convolutions(
    net: ResidualAutoencoder, path: ScalePath | None
) -> Iterator[tuple[str, nn.Conv2d]]:
    """Yield the residual convolutions of a net, by the names that ranges on a path have."""
    prefix = f"x{path.scale}" if path else "other"
    for name, unit in net.named_modules():
        if isinstance(unit, ResidualUnit):
            yield f"{prefix}.{name}.expand", unit.expand
            yield f"{prefix}.{name}.contract", unit.contract


def aligned(limits: Sequence[float]) -> tuple[float, float]:
    """Move a range so that zero, which padding consists of, is one of its 256 steps."""
    step = (limits[1] - limits[0]) / 255
    zero = round(-limits[0] / step)
    return -zero * step, (255 - zero) * step


def input_ranges(limits: Sequence[float], count: int) -> Iterator[tuple[float, float]]:
    """Yield the range that each of up to two passes rounds: of the input, and of what is left."""
    low, high = aligned(limits)
    yield low, high
    if count == 2:
        step = (high - low) / 255
        yield aligned((-step / 2, step / 2))


def weight_steps(weight: Tensor, *, wide: bool) -> Tensor:
    """Return the step of each output channel's weights: ``(C, 1, 1, 1)`` for ``(C, n, 3, 3)``.

    Args:
        weight: Of a convolution.
        wide: Whether sums have 32 bits.
    """
    most = weight.detach().abs().amax((1, 2, 3))
    if not wide:
        even = functional.pad(weight.detach(), (0, 0, 0, 0, 0, weight.shape[1] % 2))
        pairs = even.reshape(len(even), -1, 2, *even.shape[2:])
        sums = torch.maximum(pairs.clamp_min(0).sum(2), (-pairs).clamp_min(0).sum(2))
        most = torch.maximum(most, sums.amax((1, 2, 3)))
    # 127, as rounding may add half a step to each of two.
    return (most / 127).clamp_min(1e-12)[:, None, None, None]
