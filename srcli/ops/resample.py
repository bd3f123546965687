"""Resampling by the bicubic filter and its relatives: a window has the bits of the whole."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import NamedTuple

import torch
from torch import Tensor

from srcli.ops.color import dequantize
from srcli.ops.spans import Span

__all__ = ["AxisWeights", "axis_weights", "bicubic", "reflect", "resampled"]

_KEYS_A = -0.5
"""Keys 1981, "Cubic convolution interpolation": the value that reproduces quadratics."""

_ALIASING_A = -0.75
"""The value of OpenCV's ``INTER_CUBIC`` (``resize.cpp``), and of ``interpolate`` of PyTorch."""


def bicubic(
    image: Tensor, size: tuple[int, int], window: tuple[Span, Span] | None = None
) -> Tensor:
    """Resample to ``size``, or only a window of that result.

    Args:
        image: ``(..., H, W)``; integers are pixel values and brought to [0, 1].
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
    return resampled(part, down, across)


def resampled(part: Tensor, down: "AxisWeights", across: "AxisWeights") -> Tensor:
    """Resample a part of a picture along both axes.

    Args:
        part: ``(..., h, w)``: the rows and columns that the weights need, and no others.
        down: Weights of rows.
        across: Weights of columns.

    Returns:
        Floating point, not clamped; integers are pixel values and brought to [0, 1].
    """
    tall = down.apply(dequantize(part))
    # Rows are gathered several times faster than columns.
    return across.apply(tall.mT.contiguous()).mT.contiguous()


@dataclass(frozen=True, slots=True, eq=False)
class AxisWeights:
    """Weights of a span of output pixels on the input pixels of one axis.

    Two are equal only if they are the same object, so that one can be the key of a cache.
    """

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
        index, weight = _moved(self, image.device, image.dtype)
        total = image.index_select(-2, index[0]).mul_(weight[0])
        for tap in range(1, len(index)):
            total.add_(image.index_select(-2, index[tap]).mul_(weight[tap]))
        return total


class _Kernel(NamedTuple):
    """A filter that a picture is resampled by."""

    radius: float
    """Half its width in input pixels, in output pixels where it is widened."""

    weight: Callable[[Tensor], Tensor]
    """From the distance to the filter's centre, in the unit of the radius."""

    widens: bool = True
    """Whether reducing widens it, so that every input pixel counts; without, it aliases."""


@lru_cache(maxsize=256)
def axis_weights(length: int, size: int, span: Span, kernel: str = "bicubic") -> AxisWeights:
    """Weigh the input pixels of one axis for a span of output pixels.

    Args:
        length: Input pixels along the axis.
        size: Output pixels along the axis.
        span: Output pixels wanted; outside 0..size they are reflected about the edge.
        kernel: One of :data:`srcli.ops.degradation.KERNELS`: Pillow's BICUBIC, BILINEAR, BOX,
            LANCZOS (``area`` is BOX), or ``cubic``, OpenCV's INTER_CUBIC, which is not widened.

    Returns:
        The weights, shared between calls: not to be written to.
    """
    radius, weigh, widens = _KERNELS[kernel]
    wanted = reflect(torch.arange(span.start, span.stop), size).to(torch.float64)
    ratio = length / size
    widen = max(ratio, 1.0) if widens else 1.0
    center = (wanted + 0.5) * ratio
    # Pillow's rounding of the support's ends (Resample.c, precompute_coeffs).
    first = (center - radius * widen + 0.5).floor().clamp(min=0)
    last = (center + radius * widen + 0.5).floor().clamp(max=length)
    taps = torch.arange(int((last - first).max()))[:, None]
    inputs = first + taps
    weights = weigh((inputs + 0.5 - center) / widen)
    weights = torch.where(inputs < last, weights, 0.0)
    weights = (weights / weights.sum(0)).to(torch.float32)
    # A tap beyond the edge has no weight; it may as well read the edge.
    index = inputs.clamp(max=length - 1).long()
    origin = int(index.min())
    return AxisWeights(origin, int(index.max()) + 1, index - origin, weights[..., None])


@lru_cache(maxsize=256)
def _moved(weights: AxisWeights, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Index and weight on a device, kept there: copying them anew would stop a GPU each time."""
    return weights.index.to(device), weights.weight.to(device, dtype)


def _cubic(distance: Tensor, a: float) -> Tensor:
    """Keys' cubic convolution kernel."""
    x = distance.abs()
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((x - 5) * x + 8) * x * a - 4 * a
    return torch.where(x < 1, near, torch.where(x < 2, far, 0.0))


def _box(distance: Tensor) -> Tensor:
    return ((distance > -0.5) & (distance <= 0.5)).double()


def _triangle(distance: Tensor) -> Tensor:
    return (1.0 - distance.abs()).clamp(min=0.0)


def _lanczos(distance: Tensor) -> Tensor:
    """Lanczos' window of three lobes on the ideal filter (Duchon 1979)."""
    weights = torch.sinc(distance) * torch.sinc(distance / 3)
    return torch.where(distance.abs() < 3, weights, 0.0)


_KERNELS = {
    "bicubic": _Kernel(2.0, partial(_cubic, a=_KEYS_A)),
    "bilinear": _Kernel(1.0, _triangle),
    "area": _Kernel(0.5, _box),
    "lanczos": _Kernel(3.0, _lanczos),
    "cubic": _Kernel(2.0, partial(_cubic, a=_ALIASING_A), widens=False),
}
"""By the names of :data:`srcli.ops.degradation.KERNELS`."""


def reflect(index: Tensor, length: int | Tensor) -> Tensor:
    """Fold indices into 0..length-1, the edge pixel repeated: ... 1 0 | 0 1 ... n-1 | n-1 ...."""
    folded = index.remainder(2 * length)
    return torch.minimum(folded, 2 * length - 1 - folded)
