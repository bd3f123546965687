"""How a picture loses resolution, and the bicubic filter that both ways share.

One definition of bicubic for the whole project: Keys' cubic with a = -0.5, widened by the
reduction factor when reducing (antialiasing), weights normalised at the border. It is the
filter of Pillow, of MATLAB's ``imresize`` and of ``interpolate(mode="bicubic",
antialias=True)``; written here as weights so that any window of the output can be had on its
own, with the very values that the whole would have.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from srcli.color import dequantize, quantize
from srcli.geometry import Span, output_length

__all__ = ["AxisWeights", "axis_weights", "bicubic", "degrade", "training_input"]

_KEYS_A = -0.5
"""Keys 1981, "Cubic convolution interpolation": the value that reproduces quadratics."""

_SUPPORT = 2.0
"""Radius of the cubic in input pixels (in output pixels when reducing)."""


def bicubic(
    image: Tensor, size: tuple[int, int], window: tuple[Span, Span] | None = None
) -> Tensor:
    """Resample to ``size``, or only a window of that result.

    Args:
        image: ``(..., H, W)``; integers are taken as levels and brought to [0, 1].
        size: Height and width of the whole result, output pixels.
        window: Rows and columns wanted, output pixels; None for all. Where it reaches outside
            the result, the result is continued by reflection about its edge.

    Returns:
        ``(..., h, w)`` floating point, not clamped: cubics overshoot.
    """
    rows, columns = window or (Span(0, size[0]), Span(0, size[1]))
    down = axis_weights(image.shape[-2], size[0], rows)
    across = axis_weights(image.shape[-1], size[1], columns)
    part = image[..., down.first : down.stop, across.first : across.stop]
    tall = down.apply(dequantize(part))
    # Rows are gathered several times faster than columns.
    return across.apply(tall.mT.contiguous()).mT.contiguous()


def degrade(image: Tensor, scale: float) -> Tensor:
    """Reduce a picture as the paper's simple model does: S is a bicubic reduction.

    Args:
        image: ``(..., H, W)`` floating point in [0, 1].
        scale: HR pixels per LR pixel, at least 1.

    Returns:
        ``(..., h, w)`` with sides divided by ``scale`` and rounded, in [0, 1], on 8-bit levels:
        an LR picture is a file, and files have integers.
    """
    size = _reduced(image.shape[-2], scale), _reduced(image.shape[-1], scale)
    return dequantize(quantize(bicubic(image, size)))


def training_input(image: Tensor, scales: Sequence[float]) -> Tensor:
    """Degrade each HR patch by its own scale and enlarge it back: Y of the paper.

    Args:
        image: ``(N, 3, H, W)`` HR patches in [0, 1].
        scales: N scale factors.

    Returns:
        ``(N, 3, H, W)`` network inputs.
    """
    result = torch.empty_like(image)
    for scale in sorted(set(scales)):
        chosen = [index for index, value in enumerate(scales) if value == scale]
        low = degrade(image[chosen], scale)
        result[chosen] = bicubic(low, (image.shape[-2], image.shape[-1])).to(result.dtype)
    return result


@dataclass(frozen=True, slots=True)
class AxisWeights:
    """Weights of a span of output pixels on the input pixels of one axis."""

    first: int
    """The first input pixel that is needed."""

    stop: int
    """One behind the last."""

    index: Tensor
    """``(taps, n)`` input pixels of each output pixel, counted from ``first``."""

    weight: Tensor
    """``(taps, n, 1)`` ``float32``; each output pixel's sum to one."""

    def apply(self, image: Tensor) -> Tensor:
        """Resample the rows ``first`` to ``stop`` of a picture, ``(..., stop - first, W)``.

        The products are added tap by tap, each operation rounded for itself, so that a pixel
        is bit for bit the same whatever window it is computed in; a matrix product's order of
        summation, and so its last bit, changes with the shape.

        Returns:
            ``(..., n, W)``.
        """
        index, weight = self.index.to(image.device), self.weight.to(image.device, image.dtype)
        total = image.index_select(-2, index[0]).mul_(weight[0])
        for tap in range(1, len(index)):
            total.add_(image.index_select(-2, index[tap]).mul_(weight[tap]))
        return total


@lru_cache(maxsize=256)
def axis_weights(length: int, size: int, span: Span) -> AxisWeights:
    """Weigh the input pixels of one axis for a span of output pixels.

    Args:
        length: Input pixels along the axis.
        size: Output pixels along the axis.
        span: Output pixels wanted; outside 0..size they are reflected about the edge.

    Returns:
        The weights, shared between calls: not to be written to.
    """
    wanted = _reflect(torch.arange(span.start, span.stop), size).to(torch.float64)
    ratio = length / size
    widen = max(ratio, 1.0)
    center = (wanted + 0.5) * ratio
    # Pillow's rounding of the support's ends (Resample.c, precompute_coeffs).
    first = (center - _SUPPORT * widen + 0.5).floor().clamp(min=0)
    last = (center + _SUPPORT * widen + 0.5).floor().clamp(max=length)
    taps = torch.arange(int((last - first).max()))[:, None]
    inputs = first + taps
    weights = _cubic((inputs + 0.5 - center) / widen)
    weights = torch.where(inputs < last, weights, 0.0)
    weights = (weights / weights.sum(0)).to(torch.float32)
    # A tap beyond the edge has no weight; it may as well read the edge.
    index = inputs.clamp(max=length - 1).long()
    origin = int(index.min())
    return AxisWeights(origin, int(index.max()) + 1, index - origin, weights[..., None])


def _reduced(length: int, scale: float) -> int:
    return output_length(length, 1.0 / scale)


def _cubic(distance: Tensor) -> Tensor:
    """Keys' cubic convolution kernel with a = -0.5."""
    x = distance.abs()
    near = ((_KEYS_A + 2) * x - (_KEYS_A + 3)) * x * x + 1
    far = ((x - 5) * x + 8) * x * _KEYS_A - 4 * _KEYS_A
    return torch.where(x < 1, near, torch.where(x < _SUPPORT, far, 0.0))


def _reflect(index: Tensor, length: int) -> Tensor:
    """Fold indices into 0..length-1, the edge pixel repeated: ... 1 0 | 0 1 ... n-1 | n-1 ...."""
    folded = index.remainder(2 * length)
    return torch.minimum(folded, 2 * length - 1 - folded)
