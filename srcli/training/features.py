"""Features of a frozen net, by which pictures are compared: VGG16's convolutions up to conv4_3.

Johnson et al. 2016, "Perceptual Losses for Real-Time Style Transfer and Super-Resolution"; before
the ReLU, as ESRGAN (Wang et al. 2018) has it. The file is an option of training alone: it is made
by ``benchmarks/vgg16_features.py`` and never shipped.
"""

from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from srcli.errors import DataError, WeightsError
from srcli.files import one_line
from srcli.model.weights import read_tensors
from srcli.ops.devices import on_device

__all__ = ["Features"]

_NAMES = [
    f"conv{block}_{n}" for block, count in enumerate((2, 2, 3, 3), 1) for n in range(1, count + 1)
]
_WIDTHS = (3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512)
"""The convolutions in their order, and the channels before and behind them."""

_SHARES = {"conv1_2": 0.1, "conv2_2": 0.1, "conv3_3": 1.0, "conv4_3": 1.0}
"""What is compared, and how much it counts: structure before single pixels."""

_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's RGB, which VGG16 was trained on."""


class Features(nn.Module):
    """VGG16 up to conv4_3, of a file of ``convB_P.weight`` and ``convB_P.bias``, without gradients.

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
