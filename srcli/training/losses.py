"""What may be minimised between the net's output and the original.

Each loss takes both as ``(N, 3, H, W)`` in [0, 1] and returns a scalar, a mean over the patches.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from srcli.errors import DataError, WeightsError
from srcli.files import one_line
from srcli.model.weights import read_tensors
from srcli.ops.devices import on_device
from srcli.training.config import Loss

__all__ = ["LOSS_FUNCTIONS", "Features", "excess", "fourier", "lattice"]

_LUMA_SHARES = (0.299, 0.587, 0.114)
"""Shares of R, G and B in the luma of ITU-R BT.601."""


_CELL_SIDE = 2
"""LR pixels along a side of a cell: the net's lower level, one for two, draws lattices too."""

_LATTICE_NOISE = 0.002
"""What the mean over a patch may be off by chance; a gradient fades below it."""

_NAMES = [
    f"conv{block}_{n}" for block, count in enumerate((2, 2, 3, 3), 1) for n in range(1, count + 1)
]
_WIDTHS = (3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512)
"""The convolutions in their order, and the channels before and behind them."""

_SHARES = {"conv1_2": 0.1, "conv2_2": 0.1, "conv3_3": 1.0, "conv4_3": 1.0}
"""What is compared, and how much it counts: structure before single pixels."""

_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's RGB, which VGG16 was trained on."""


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


LOSS_FUNCTIONS: dict[Loss, Callable[[Tensor, Tensor], Tensor]] = {
    "fourier": fourier,
    "l1": functional.l1_loss,
    "mse": functional.mse_loss,
}
"""The losses by their names."""


def lattice(output: Tensor, target: Tensor, scales: Sequence[float]) -> Tensor:
    """Return how far the pixels at each place of a cell of LR are off on average, a scalar.

    A cell is two LR pixels wide and high. The mean runs over the cells of a patch; texture that is
    not that of the original, pixel by pixel, costs nothing as long as no place of the cells is
    brighter or darker for it.

    Args:
        output: ``(N, 3, 120, 120)``.
        target: The same shape.
        scales: N factors; where no whole number of pixels makes a cell that divides 120 there are
            no cells, and no loss.
    """
    error = output - target
    total = error.new_zeros(())
    for cell, rows in _cells(scales, error.shape[-1]):
        count = error.shape[-1] // cell
        cells = error[rows].reshape(len(rows), -1, count, cell, count, cell)
        means = cells.mean((2, 4))  # (n, 3, cell, cell)
        off = (means.square() + _LATTICE_NOISE**2).sqrt() - _LATTICE_NOISE
        total = total + off.mean((1, 2, 3)).sum()
    return total / len(scales)


def excess(output: Tensor, target: Tensor, scales: Sequence[float]) -> Tensor:
    """Return how far the spectrum stands out at the frequencies of the cells of LR, a scalar.

    The logarithm of the power at the side of a cell, its half, its third and so on, over that of
    the frequencies beside it, where it is larger than the original's; rows and columns alike. Dots
    that are bright here and dark there have no mean, but they do have this.

    Args:
        output: ``(N, 3, 120, 120)`` ``float32``.
        target: The same shape.
        scales: N factors, as for :func:`lattice`.
    """
    found, wanted = _spectrum(output), _spectrum(target)
    total = output.new_zeros(())
    for cell, rows in _cells(scales, output.shape[-1]):
        for place in range(output.shape[-1] // cell, found.shape[-1], output.shape[-1] // cell):
            beside = [
                near
                for near in range(place - 8, min(place + 9, found.shape[-1]))
                if abs(near - place) > 2  # the window spreads a line over its neighbours
            ]
            out, own = (
                one[:, rows, place] - one[:, rows][..., beside].mean(-1) for one in (found, wanted)
            )
            total = total + functional.relu(out - own).mean(0).sum()
    return total / len(scales)


def _spectrum(image: Tensor) -> Tensor:
    """Return the logarithm of the power by frequency along rows and columns: ``(2, N, side)``."""
    side = image.shape[-1]
    window = torch.hann_window(side, periodic=False, device=image.device)
    grey = image.mean(1)
    grey = (grey - grey.mean((1, 2), keepdim=True)) * window[:, None] * window
    power = torch.stack([torch.fft.rfft2(one).abs().square().mean(1) for one in (grey, grey.mT)])
    return (power + 1e-6).log()


def _cells(scales: Sequence[float], side: int) -> list[tuple[int, list[int]]]:
    """List the sides of the cells, in pixels, and the samples that have them."""
    return [
        (int(_CELL_SIDE * scale), [index for index, value in enumerate(scales) if value == scale])
        for scale in sorted(set(scales))
        if scale == int(scale) and side % int(_CELL_SIDE * scale) == 0
    ]


class Features(nn.Module):
    """VGG16 up to conv4_3, of a file of ``convB_P.weight`` and ``convB_P.bias``, without gradients.

    By a frozen net's features pictures are compared as Johnson et al. 2016 do ("Perceptual Losses
    for Real-Time Style Transfer and Super-Resolution"), before the ReLU, as ESRGAN (Wang et al.
    2018). The file is for training alone, made by ``benchmarks/vgg16_features.py``, never shipped.

    Raises:
        DataError: If it is missing, no safetensors file, or not of those shapes, or not finite.
    """

    def __init__(self, path: Path, device: torch.device) -> None:
        super().__init__()
        with torch.device("meta"):  # random weights would be drawn from the run's seed
            for name, (inputs, outputs) in zip(_NAMES, pairwise(_WIDTHS), strict=True):
                self.add_module(name, nn.Conv2d(inputs, outputs, 3, padding=1))
        try:
            _, tensors = read_tensors(path)
            self.load_state_dict(tensors, assign=True)
            if not all(bool(value.isfinite().all()) for value in tensors.values()):
                raise WeightsError("a value is not finite")  # noqa: TRY301 - one text for all
        except (WeightsError, RuntimeError) as error:
            raise DataError(
                f"--features {one_line(path)}: {' '.join(str(error).split()):.300}; make it by "
                "benchmarks/vgg16_features.py, or leave it out"
            ) from error
        on_device(self.float().requires_grad_(requires_grad=False), device)
        self._mean, self._deviation = (
            torch.tensor(values, device=device).view(3, 1, 1) for values in (_MEAN, _DEVIATION)
        )

    def distance(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the mean absolute difference of the features, a scalar.

        Args:
            output: ``(N, 3, H, W)`` RGB in [0, 1].
            target: The same shape; it gets no gradient.
        """
        with torch.no_grad():
            wanted = self(target)
        found = self(output)
        parts = [
            share * (found[name].float() - wanted[name].float()).abs().mean()
            for name, share in _SHARES.items()
        ]
        return torch.stack(parts).sum()

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Return what each of :data:`_SHARES` gives, before its ReLU."""
        features = (image - self._mean) / self._deviation
        kept: dict[str, Tensor] = {}
        for name, convolution in self.named_children():
            if name.endswith("_1") and name != "conv1_1":
                features = functional.max_pool2d(features, 2)
            features = convolution(features)
            if name in _SHARES:
                kept[name] = features
            features = functional.relu(features)
        return kept
