"""How a picture loses resolution, and the bicubic filter that both ways share.

One definition of bicubic for the whole project: Keys' cubic with a = -0.5, widened by the
reduction factor when reducing (antialiasing), weights normalised at the border. It is the
filter of Pillow, of MATLAB's ``imresize`` and of ``interpolate(mode="bicubic",
antialias=True)``; written here as weights so that any window of the output can be had on its
own, with the very values that the whole would have.
"""

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from srcli.color import dequantize, quantize
from srcli.geometry import Span, output_length

__all__ = ["axis_weights", "bicubic", "degrade", "training_input"]

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
    down, from_row = axis_weights(image.shape[-2], size[0], rows)
    across, from_column = axis_weights(image.shape[-1], size[1], columns)
    part = dequantize(
        image[
            ...,
            from_row : from_row + down.shape[1],
            from_column : from_column + across.shape[1],
        ]
    )
    down = down.to(part.device, part.dtype)
    across = across.to(part.device, part.dtype)
    return torch.matmul(torch.matmul(down, part), across.mT)


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


@lru_cache(maxsize=256)
def axis_weights(length: int, size: int, span: Span) -> tuple[Tensor, int]:
    """Weigh the input pixels of one axis for a span of output pixels.

    Args:
        length: Input pixels along the axis.
        size: Output pixels along the axis.
        span: Output pixels wanted; outside 0..size they are reflected about the edge.

    Returns:
        A dense ``(len(span), n)`` ``float32`` matrix and the input pixel of its first column.
        Shared between calls: not to be written to.
    """
    wanted = _reflect(torch.arange(span.start, span.stop), size).to(torch.float64)
    ratio = length / size
    widen = max(ratio, 1.0)
    center = (wanted + 0.5) * ratio
    # Pillow's rounding of the support's ends (Resample.c, precompute_coeffs).
    first = (center - _SUPPORT * widen + 0.5).floor().clamp(min=0)
    last = (center + _SUPPORT * widen + 0.5).floor().clamp(max=length)
    origin, end = int(first.min()), int(last.max())
    inputs = torch.arange(origin, end, dtype=torch.float64)
    weights = _cubic((inputs + 0.5 - center[:, None]) / widen)
    inside = (inputs >= first[:, None]) & (inputs < last[:, None])
    weights = torch.where(inside, weights, 0.0)
    return (weights / weights.sum(1, keepdim=True)).to(torch.float32), origin


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
