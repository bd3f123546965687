"""What may be minimised between the net's output and the original.

Each loss takes both as ``(N, 3, H, W)`` in [0, 1] and returns a scalar, a mean over the patches.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from srcli.training.config import Loss

__all__ = ["LOSS_FUNCTIONS", "LossFunction", "fourier"]

LossFunction = Callable[[Tensor, Tensor], Tensor]

_LUMA_SHARES = (0.299, 0.587, 0.114)
"""Shares of R, G and B in the luma of ITU-R BT.601."""


def fourier(output: Tensor, target: Tensor) -> Tensor:
    """Return the mean absolute error of colours and luma, most of it that of their frequencies.

    The shares are those of SAFMN (Sun et al. 2023): L1 plus 0.05 times that of the transform, which
    is not normalised there; at 120x120 that is six times L1 of the orthonormal one. Half of the
    whole is about luma, by which pictures are judged.
    """
    error = output - target
    # The shares as numbers: a tensor of them would be copied, and a GPU wait for it, each step.
    red, green, blue = (
        share * error[:, channel : channel + 1] for channel, share in enumerate(_LUMA_SHARES)
    )
    return 0.5 * (_of_frequencies(error) + _of_frequencies(red + green + blue))


def _of_frequencies(error: Tensor) -> Tensor:
    frequencies = torch.view_as_real(torch.fft.rfft2(error, norm="ortho"))
    return frequencies.abs().mean() + error.abs().mean() / 6


LOSS_FUNCTIONS: dict[Loss, LossFunction] = {
    "fourier": fourier,
    "l1": functional.l1_loss,
    "mse": functional.mse_loss,
}
"""The losses by their names."""
