"""Gradients of 3x3 convolutions' weights by matrix products, for processors that have AVX2 alone.

There oneDNN's own reach half the speed of its other two passes, and hardly more on two cores than
on one.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from srcli.ops.devices import cpu_features

__all__ = ["multiply_gradients", "products_are_faster"]

_POSITIONS = 1024
"""Rows of a product, about: one core of a Zen 3 had 43 to 62 GFLOP/s with 256, 49 to 60 with 1,024
(oneDNN 31 to 55; 64 and 96 channels, two to eight pictures of 20 to 60 pixels a side)."""

_CHANNELS = 27
"""A convolution with fewer on either side is left to oneDNN."""


def products_are_faster(device: torch.device, dtype: torch.dtype) -> bool:
    """Tell whether training is faster by :func:`multiply_gradients`: x86 without AVX-512, fp32."""
    features = cpu_features()
    return (
        device.type == "cpu"
        and dtype == torch.float32
        and bool(features.get("avx2"))
        and not features.get("avx512_f")
    )


def multiply_gradients(net: nn.Module) -> None:
    """Let a net's 3x3 convolutions compute the gradients of their weights by matrix products.

    All else stays as it is: what they compute, their other gradients, their parameters.
    """
    for module in net.modules():
        if (
            isinstance(module, nn.Conv2d)
            and module.kernel_size == (3, 3)
            and module.stride == module.padding == module.dilation == (1, 1)
            and module.groups == 1
            and min(module.in_channels, module.out_channels) >= _CHANNELS
        ):
            module.__class__ = _Convolution


class _Convolution(nn.Conv2d):
    """A 3x3 convolution of stride and padding 1 whose weight's gradient is found by products."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name that torch's has
        """Convolve ``(N, C, H, W)``."""
        convolved: Tensor = _Convolve.apply(input, self.weight, self.bias)  # type: ignore[no-untyped-call]
        return convolved


class _Convolve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(features, weight)
        return functional.conv2d(features, weight, bias, padding=1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor, Tensor | None]:  # noqa: ANN401
        features, weight = ctx.saved_tensors
        of_features, _, of_bias = ctx.needs_input_grad
        gradient = gradients[0].contiguous(memory_format=torch.channels_last)
        back: Tensor | None = None
        if of_features:
            back = torch.ops.aten.convolution_backward(
                gradient,
                features,
                weight,
                None,
                (1, 1),
                (1, 1),
                (1, 1),
                False,
                (0, 0),
                1,
                (True, False, False),
            )[0]
        of_weight = _weight_gradient(features, gradient)
        return back, of_weight, gradient.sum((0, 2, 3)) if of_bias else None


def _weight_gradient(features: Tensor, gradient: Tensor) -> Tensor:
    """Sum each output's gradient times what lay under each tap of its filter.

    A few rows at a time, so that all stays in the cache: three pixels that lie side by side are
    laid out as one row of a matrix, and the three rows of a filter take the same matrix, a line of
    pixels further down.

    Args:
        features: ``(N, I, H, W)``, what was convolved.
        gradient: ``(N, O, H, W)``, channels last.

    Returns:
        ``(O, I, 3, 3)``, channels last.
    """
    count, inputs, height, width = features.shape
    outputs = gradient.shape[1]
    features, gradient = features.permute(0, 2, 3, 1), gradient.permute(0, 2, 3, 1)
    rows = min(height, max(1, round(_POSITIONS / width)))
    # What lies beyond the left and right edge is zero, and stays so.
    laid = features.new_zeros(rows + 2, width, 3, inputs)
    total = features.new_zeros(3, outputs, 3 * inputs)
    for picture in range(count):
        for top in range(0, height, rows):
            bottom = min(top + rows, height)
            lines = features[picture, max(0, top - 1) : bottom + 1]
            part = laid[: bottom - top + 2]
            if top == 0:
                part[0].zero_()
            if bottom == height:
                part[-1].zero_()
            inside = part[int(top == 0) :][: len(lines)]
            inside[:, 1:, 0] = lines[:, :-1]
            inside[:, :, 1] = lines
            inside[:, :-1, 2] = lines[:, 1:]
            pixels = part.view(-1, 3 * inputs)
            errors = gradient[picture, top:bottom].reshape(-1, outputs).T
            for tap in range(3):
                total[tap].addmm_(errors, pixels[tap * width :][: len(errors.T)])
    # Its memory lies as that of the weight does: outputs, rows, columns, inputs.
    return total.view(3, outputs, 3, inputs).transpose(0, 1).contiguous().permute(0, 3, 1, 2)
