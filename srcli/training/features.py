"""Features of a frozen net, by which pictures are compared: VGG16's convolutions up to conv4_3.

Johnson et al. 2016, "Perceptual Losses for Real-Time Style Transfer and Super-Resolution"; before
the ReLU, as ESRGAN (Wang et al. 2018) has it. The file is an option of training alone: it is made
by ``benchmarks/vgg16_features.py`` and never shipped.
"""

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from srcli.errors import DataError, WeightsError
from srcli.model.weights import read_tensors

__all__ = ["Features"]

_SHAPES = {
    f"conv{block}_{place}": (width, width if place > 1 else before, 3, 3)
    for block, (before, width, count) in enumerate(
        [(3, 64, 2), (64, 128, 2), (128, 256, 3), (256, 512, 3)], start=1
    )
    for place in range(1, count + 1)
}
"""The convolutions in their order, ``(outputs, inputs, 3, 3)``."""

_SHARES = {"conv1_2": 0.1, "conv2_2": 0.1, "conv3_3": 1.0, "conv4_3": 1.0}
"""What is compared, and how much it counts: structure before single pixels."""

_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's RGB, which VGG16 was trained on."""


class Features:
    """VGG16 up to conv4_3, of a file of ``convB_P.weight`` and ``convB_P.bias``, without gradients.

    Raises:
        DataError: If it is missing, no safetensors file, or not of those shapes, or not finite.
    """

    def __init__(self, path: Path, device: torch.device) -> None:
        tensors = _read(path)
        self._convolutions = [
            (
                name,
                tensors[f"{name}.weight"].to(device, memory_format=torch.channels_last),
                tensors[f"{name}.bias"].to(device),
            )
            for name in _SHAPES
        ]
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
            wanted = self._compute(target)
        found = self._compute(output)
        parts = [
            share * (found[name].float() - wanted[name].float()).abs().mean()
            for name, share in _SHARES.items()
        ]
        return torch.stack(parts).sum()

    def _compute(self, image: Tensor) -> dict[str, Tensor]:
        """Return what each of :data:`_SHARES` gives, before its ReLU."""
        features = (image - self._mean) / self._deviation
        kept: dict[str, Tensor] = {}
        for name, weight, bias in self._convolutions:
            if name.endswith("_1") and name != "conv1_1":
                features = functional.max_pool2d(features, 2)
            features = functional.conv2d(features, weight, bias, padding=1)
            if name in _SHARES:
                kept[name] = features
            features = functional.relu(features)
        return kept


def _read(path: Path) -> dict[str, Tensor]:
    """Read and check a file of features."""
    advice = "make it by benchmarks/vgg16_features.py, or leave it out"
    try:
        _, tensors = read_tensors(path)
    except WeightsError as error:
        raise DataError(f"--features {path}: {error}; {advice}") from error
    for name, shape in _SHAPES.items():
        for part, expected in (("weight", shape), ("bias", shape[:1])):
            found = tensors.get(f"{name}.{part}")
            if found is None or found.shape != expected or found.dtype != torch.float32:
                kind = "missing" if found is None else f"{found.dtype} {tuple(found.shape)}"
                raise DataError(
                    f"--features {path}: {name}.{part} is {kind}, not float32 {expected}; {advice}"
                )
            if not bool(found.isfinite().all()):
                raise DataError(f"--features {path}: {name}.{part} is not finite; {advice}")
    return tensors
