"""The residual autoencoder: one module for the paper's net and for srcli's own.

An encoder of levels, each half the resolution of the one above, a decoder that mirrors it,
additive skips between mirrored levels. Input and output are the same size: the input is the
bicubic enlargement, so the net serves any scale factor.
"""

import copy
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from srcli.model.config import ModelConfig, ScalePath
from srcli.ops.spans import PATCH

__all__ = [
    "ConvolutionUnit",
    "ResidualAutoencoder",
    "ResidualUnit",
    "in_dtype",
    "multiply_adds",
    "parameter_count",
]


class ResidualUnit(nn.Module):
    """Two 3x3 convolutions with a ReLU between, added to their input.

    No batch normalisation: it costs super-resolution nets quality (EDSR, Lim et al. 2017).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.expand = _convolution(width, width)
        self.contract = _convolution(width, width)
        # A stack of N units starts close to the identity, so that a high learning rate holds
        # from the first step (as Fixup, Zhang et al. 2019, but not wholly zero).
        with torch.no_grad():
            self.contract.weight.mul_(0.1)

    def forward(self, features: Tensor) -> Tensor:
        """Refine ``(N, C, H, W)`` features; same shape out."""
        # In place: on the CPU writing another tensor costs more than the arithmetic.
        correction: Tensor = self.contract(functional.relu(self.expand(features), inplace=True))
        return correction.add_(features)


class ConvolutionUnit(nn.Module):
    """A 3x3 convolution and its ReLU: the paper's layer."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.convolution = _convolution(inputs, outputs)

    def forward(self, features: Tensor) -> Tensor:
        """Map ``(N, inputs, H, W)`` to ``(N, outputs, H, W)``, not negative."""
        return functional.relu(self.convolution(features))


class ResidualAutoencoder(nn.Module):
    """The network that every command trains, scores and runs.

    Args:
        config: Its shape; see :class:`srcli.model.config.ModelConfig`.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        residual, widths = config.is_residual, config.widths
        pixels = 3 * config.stem**2
        entries = widths if residual else (pixels, *widths)
        self.stem = _convolution(pixels, widths[0]) if residual else nn.Identity()
        self.encoders = nn.ModuleList(
            _units(config, entries[level], widths[level], count)
            for level, count in enumerate(config.encoder)
        )
        self.downs = nn.ModuleList(
            nn.Conv2d(upper, lower, 2, stride=2) if residual else nn.MaxPool2d(2)
            for upper, lower in pairwise(widths)
        )
        self.bottom = _units(config, entries[len(widths) - 1], widths[-1], config.bottom)
        self.ups = nn.ModuleList(
            nn.Sequential(nn.Conv2d(lower, 4 * upper, 1), nn.PixelShuffle(2))
            if residual
            else nn.Upsample(scale_factor=2, mode="nearest")
            for upper, lower in pairwise(widths)
        )
        self.decoders = nn.ModuleList(
            _units(config, widths[level if residual else level + 1], widths[level], count)
            for level, count in enumerate(config.decoder)
        )
        self.head = _convolution(widths[0], pixels)
        ends = {str(path.scale): 3 * path.scale**2 for path in config.paths}
        self.stems = nn.ModuleDict({name: _convolution(n, widths[0]) for name, n in ends.items()})
        self.heads = nn.ModuleDict({name: _convolution(widths[0], n) for name, n in ends.items()})
        if self.head.weight.is_meta:
            return
        if residual:
            for head in (self.head, *self.heads.values()):
                # Training starts at the bicubic enlargement.
                nn.init.zeros_(head.get_parameter("weight"))
        else:
            # A ReLU passes no gradient where its sum is negative: a colour that starts there on
            # every pixel never recovers. So training starts near mid-grey.
            with torch.no_grad():
                self.head.weight.mul_(0.1)
            nn.init.constant_(self.head.get_parameter("bias"), 0.5)

    def forward(self, image: Tensor, scales: Sequence[float] = ()) -> Tensor:
        """Restore enlarged pictures.

        Args:
            image: ``(N, 3, H, W)`` RGB in [0, 1]; H and W multiples of the stride of each
                picture's ``config.at(scale)``. It may have a wider dtype than the weights; the sum
                with the input keeps it.
            scales: The N factors by which the pictures were enlarged; empty where none of them has
                a path of its own.

        Returns:
            ``(N, 3, H, W)``, nominally [0, 1], not clamped, in the dtype of ``image``.
        """
        paths = [self.config.path(scale) for scale in scales] or [None]
        if all(path is paths[0] for path in paths):
            return self.restore(image, paths[0])
        return self._restore_each(image, paths)

    def _restore_each(self, image: Tensor, paths: Sequence[ScalePath | None]) -> Tensor:
        """Restore pictures of several paths, in one batch for each."""
        result = torch.empty_like(image)
        for path in dict.fromkeys(paths):
            rows = torch.tensor([index for index, other in enumerate(paths) if other is path])
            # Reading a number back from a GPU would wait for it; copying indices to it does not.
            where = rows.to(image.device, non_blocking=True)
            some = image.index_select(0, where).contiguous(memory_format=torch.channels_last)
            result.index_copy_(0, where, self.restore(some, path))  # each row once
        return result

    def restore(self, image: Tensor, path: ScalePath | None) -> Tensor:
        """Restore pictures that all take one path; None is the common one."""
        config = self.config.at(path.scale) if path else self.config
        name, residual = str(config.stem), config.is_residual
        stem, head = (self.stems[name], self.heads[name]) if path else (self.stem, self.head)
        dtype = head.get_parameter("weight").dtype
        # Zero padding means grey instead of black where the net only corrects its input.
        features = functional.pixel_unshuffle(image - 0.5 if residual else image, config.stem)
        # The first convolution may have a wider dtype than the others.
        features = features.to(stem.get_parameter("weight").dtype if residual else dtype)
        features = shallow = stem(features).to(dtype)
        skips: list[Tensor] = []
        for level, (encoder, down) in enumerate(zip(self.encoders, self.downs, strict=True)):
            features = _chain(list(encoder.children())[: config.encoder[level]], features)
            skips.append(features)
            features = down(features)
        features = self.bottom(features)
        for level in reversed(range(len(skips))):
            units = list(self.decoders[level].children())[-config.decoder[level] :]
            joined = {"before": 0, "first": 1, "last": len(units)}[config.join]
            features = _chain(units[:joined], self.ups[level](features)) + skips[level]
            features = _chain(units[joined:], features)
        pixels = head(features + shallow if residual else features)
        correction = functional.pixel_shuffle(pixels, config.stem)
        if residual:
            return image + correction.to(image.dtype)
        return functional.relu(correction).to(image.dtype)


def in_dtype(net: ResidualAutoencoder, dtype: torch.dtype) -> ResidualAutoencoder:
    """Copy a net into a number format.

    The first convolution stays in ``float32``, at no cost that can be measured: in bf16 its input
    alone, with eight bits for each pixel, changed single pixels of a result by two levels, where
    otherwise none changed by 0.8. ``benchmarks/seams.py`` measures the difference.
    """
    copied = copy.deepcopy(net).to(dtype)
    copied.stem, copied.stems = copy.deepcopy(net.stem), copy.deepcopy(net.stems)
    return copied


def parameter_count(config: ModelConfig) -> int:
    """Count the parameters of a configuration, without allocating them."""
    with torch.device("meta"):
        net = ResidualAutoencoder(config)
    return sum(parameter.numel() for parameter in net.parameters())


def multiply_adds(config: ModelConfig) -> int:
    """Count the multiply-adds of one patch, half of torch's count of operations.

    For one path of several the shape is ``config.at(scale)``.
    """
    with torch.device("meta"):
        net = ResidualAutoencoder(config)
        image = torch.empty(1, 3, PATCH, PATCH)
    with FlopCounterMode(display=False) as counter:
        net(image)
    return int(counter.get_total_flops()) // 2


def _convolution(inputs: int, outputs: int) -> nn.Conv2d:
    convolution = nn.Conv2d(inputs, outputs, 3, padding=1)
    # Without memory there is nothing to fill; torch would import its compiler for it, a second.
    if convolution.weight.is_meta:
        return convolution
    nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
    nn.init.zeros_(convolution.get_parameter("bias"))
    return convolution


def _units(config: ModelConfig, inputs: int, width: int, count: int) -> nn.Sequential:
    if config.is_residual:
        return nn.Sequential(*(ResidualUnit(width) for _ in range(count)))
    first = ConvolutionUnit(inputs, width)
    return nn.Sequential(first, *(ConvolutionUnit(width, width) for _ in range(count - 1)))


def _chain(units: list[nn.Module], features: Tensor) -> Tensor:
    for unit in units:
        features = unit(features)
    return features
