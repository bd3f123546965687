"""Colour arithmetic on tensors: luma, rounding to integers and back, colour under alpha.

Tensors are ``(..., C, H, W)``; colour is RGB in [0, 1] unless a docstring says otherwise.
"""

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["bleed", "dequantize", "luma", "quantize"]

_LUMA_BT601 = (65.481, 128.553, 24.966)
"""ITU-R BT.601 weights of R, G, B for studio-range luma on the 0..255 scale.

They are what MATLAB's ``rgb2ycbcr`` uses and therefore what the literature reports."""

_LUMA_OFFSET = 16.0
"""Studio-range black on the 0..255 scale: luma lies in [16, 235]."""


def luma(image: Tensor) -> Tensor:
    """Compute BT.601 studio-range luma, unrounded.

    Args:
        image: ``(..., 3, H, W)`` RGB or ``(..., 1, H, W)`` grey (counted as R = G = B),
            floating point, in [0, 1].

    Returns:
        ``(..., 1, H, W)`` of the same dtype, on the 0..1 scale: [16/255, 235/255].

    Example:
        >>> white = torch.ones(3, 1, 1, dtype=torch.float64)
        >>> round(float(luma(white)) * 255, 6)
        235.0
    """
    weights = torch.tensor(_LUMA_BT601, dtype=image.dtype, device=image.device) / 255.0
    if image.shape[-3] == 1:
        return image * weights.sum() + _LUMA_OFFSET / 255.0
    return (image * weights.view(3, 1, 1)).sum(-3, keepdim=True) + _LUMA_OFFSET / 255.0


def quantize(image: Tensor, bits: int = 8) -> Tensor:
    """Round [0, 1] to integers of ``bits`` bits, to nearest, clamping what lies outside.

    Args:
        image: Any shape, floating point.
        bits: 8 or 16.

    Returns:
        The same shape, ``uint8`` or ``uint16``.

    Example:
        >>> quantize(torch.tensor([-0.1, 0.5, 1.2])).tolist()
        [0, 128, 255]
    """
    top = 2**bits - 1
    # Half up rather than torch.round's half to even: 0.5 is then always the upper integer.
    values = image.float().mul(top).add_(0.5).floor_().clamp_(0, top)
    return values.to(torch.uint8) if bits == 8 else values.to(torch.int32).to(torch.uint16)


def dequantize(image: Tensor) -> Tensor:
    """Convert integers to ``float32`` in [0, 1]; floating point is returned unchanged.

    Args:
        image: Any shape, ``uint8``, ``uint16`` or floating point.

    Returns:
        The same shape, ``float32`` for integers.
    """
    if image.is_floating_point():
        return image
    top = 255.0 if image.dtype == torch.uint8 else 65535.0
    return image.to(torch.float32).div_(top)


def bleed(image: Tensor, alpha: Tensor) -> Tensor:
    """Give wholly transparent pixels the colour of what is visible around them.

    What lies under transparency is arbitrary (often black) and would darken the edges of what
    is visible when a filter mixes the two. A pyramid of alpha-weighted means fills it: near an
    edge with the edge's colour, far away with wider means (pull-push, Gortler et al. 1996).

    Args:
        image: ``(C, H, W)`` floating point in [0, 1].
        alpha: ``(1, H, W)`` floating point in [0, 1].

    Returns:
        ``(C, H, W)``: ``image`` wherever ``alpha`` is above zero. All zero where nothing is.
    """
    pyramid = [(image * alpha, alpha)]
    while max(pyramid[-1][0].shape[-2:]) > 1:
        color, weight = pyramid[-1]
        pyramid.append(
            (
                functional.avg_pool2d(color, 2, ceil_mode=True, count_include_pad=False),
                functional.avg_pool2d(weight, 2, ceil_mode=True, count_include_pad=False),
            )
        )
    filled = torch.zeros_like(pyramid[-1][0])
    for color, weight in reversed(pyramid):
        height, width = color.shape[-2:]
        wide = filled.repeat_interleave(2, -2).repeat_interleave(2, -1)[..., :height, :width]
        filled = torch.where(weight > 0, color / weight.clamp(min=1e-12), wide)
    return torch.where(alpha > 0, image, filled)
