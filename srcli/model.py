"""The residual autoencoder: one module for the paper's net and for srcli's own.

An encoder of levels, each half the resolution of the one above, a decoder that mirrors it,
additive skips between mirrored levels. Input and output are the same size: the input is the
bicubic enlargement, so the net serves any scale factor.
"""

import copy
from itertools import pairwise
from typing import assert_never

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from srcli.config import PATCH, ModelConfig

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
        refined: Tensor = self.contract(functional.relu(self.expand(features), inplace=True))
        return refined.add_(features)


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
        config: Its shape; see :class:`srcli.config.ModelConfig`.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        widths = config.widths
        pixels = 3 * config.stem**2
        residual = config.unit == "residual"
        self.stem = _convolution(pixels, widths[0]) if residual else nn.Identity()
        entries = widths if residual else (pixels, *widths)
        self.encoders = nn.ModuleList(
            _units(config, entries[level], width, count)
            for level, (width, count) in enumerate(zip(widths[:-1], config.encoder, strict=True))
        )
        self.downs = nn.ModuleList(_down(config, a, b) for a, b in pairwise(widths))
        self.bottom = _units(config, entries[len(widths) - 1], widths[-1], config.bottom)
        self.ups = nn.ModuleList(_up(config, b, a) for a, b in pairwise(widths))
        self.decoders = nn.ModuleList(
            _units(config, wide if residual else narrow, wide, count)
            for (wide, narrow), count in zip(pairwise(widths), config.decoder, strict=True)
        )
        self.head = _convolution(widths[0], pixels)
        if self.head.weight.is_meta:
            return
        if config.output == "correction":
            nn.init.zeros_(self.head.weight)  # training starts at the bicubic enlargement
        else:
            # A ReLU passes no gradient where its sum is negative: a colour that begins there on
            # every pixel never comes back. So training starts near mid-grey.
            with torch.no_grad():
                self.head.weight.mul_(0.1)
                _bias(self.head).fill_(0.5)

    def forward(self, image: Tensor) -> Tensor:
        """Restore an enlarged picture.

        Args:
            image: ``(N, 3, H, W)`` RGB in [0, 1]; H and W multiples of ``config.stride``. It
                may have a wider dtype than the weights; the sum with the input keeps it.

        Returns:
            ``(N, 3, H, W)``, nominally [0, 1], not clamped, in the dtype of ``image``.
        """
        config = self.config
        correction = config.output == "correction"
        # Zero padding means grey instead of black where the net only corrects its input.
        features = image - 0.5 if correction else image
        if config.stem > 1:
            features = functional.pixel_unshuffle(features, config.stem)
        first = getattr(self.stem, "weight", self.head.weight)
        features = self.stem(features.to(first.dtype)).to(self.head.weight.dtype)
        shallow = features
        skips: list[Tensor] = []
        for encoder, down in zip(self.encoders, self.downs, strict=True):
            features = encoder(features)
            skips.append(features)
            features = down(features)
        features = self.bottom(features)
        for level in reversed(range(len(skips))):
            features = self._decode(level, self.ups[level](features), skips[level])
        if not correction:
            return functional.relu(self._to_pixels(features)).to(image.dtype)
        return image + self._to_pixels(features + shallow).to(image.dtype)

    def _decode(self, level: int, features: Tensor, skip: Tensor) -> Tensor:
        """Run one decoder level, adding its skip where the configuration says."""
        units = list(self.decoders[level].children())
        match self.config.join:
            case "before":
                return _chain(units, features + skip)
            case "first":
                return _chain(units[1:], units[0](features) + skip)
            case "last":
                return _chain(units, features) + skip
            case unknown:
                assert_never(unknown)

    def _to_pixels(self, features: Tensor) -> Tensor:
        pixels: Tensor = self.head(features)
        return (
            functional.pixel_shuffle(pixels, self.config.stem) if self.config.stem > 1 else pixels
        )


def in_dtype(net: ResidualAutoencoder, dtype: torch.dtype) -> ResidualAutoencoder:
    """Copy a net into the format that it is to compute in.

    The first convolution stays as it is: in bf16 its input alone, with eight bits for each pixel,
    moves single pixels of a result by two levels. With the first one in fp32 ``base`` stays within
    0.8 levels of what it gives in fp32 throughout, at no cost that can be measured.

    Args:
        net: In ``float32``.
        dtype: Of all other weights in the copy.

    Returns:
        The copy, in evaluation mode if ``net`` is.
    """
    copied = copy.deepcopy(net).to(dtype)
    copied.stem = copy.deepcopy(net.stem)
    return copied


def parameter_count(config: ModelConfig) -> int:
    """Count the parameters of a configuration, without allocating them."""
    with torch.device("meta"):
        net = ResidualAutoencoder(config)
    return sum(parameter.numel() for parameter in net.parameters())


def multiply_adds(config: ModelConfig, side: int = PATCH) -> int:
    """Count the multiply-adds of one forward pass with torch's own counter.

    Args:
        config: The net's shape.
        side: Height and width of the picture, a multiple of the stride.

    Returns:
        Multiply-adds (half of the counted floating-point operations).
    """
    with torch.device("meta"):
        net = ResidualAutoencoder(config)
        image = torch.empty(1, 3, side, side)
    with FlopCounterMode(display=False) as counter:
        net(image)
    return int(counter.get_total_flops()) // 2


def _convolution(inputs: int, outputs: int) -> nn.Conv2d:
    convolution = nn.Conv2d(inputs, outputs, 3, padding=1)
    # Without memory there is nothing to fill; torch would import its compiler for it, a second.
    if convolution.weight.is_meta:
        return convolution
    nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
    nn.init.zeros_(_bias(convolution))
    return convolution


def _bias(convolution: nn.Conv2d) -> Tensor:
    assert convolution.bias is not None
    return convolution.bias


def _units(config: ModelConfig, inputs: int, width: int, count: int) -> nn.Sequential:
    if config.unit == "residual":
        return nn.Sequential(*(ResidualUnit(width) for _ in range(count)))
    first = ConvolutionUnit(inputs, width)
    return nn.Sequential(first, *(ConvolutionUnit(width, width) for _ in range(count - 1)))


def _down(config: ModelConfig, upper: int, lower: int) -> nn.Module:
    if config.down == "max-pool":
        return nn.MaxPool2d(2)
    return nn.Conv2d(upper, lower, 2, stride=2)


def _up(config: ModelConfig, lower: int, upper: int) -> nn.Module:
    if config.up == "nearest":
        return nn.Upsample(scale_factor=2, mode="nearest")
    return nn.Sequential(nn.Conv2d(lower, 4 * upper, 1), nn.PixelShuffle(2))


def _chain(units: list[nn.Module], features: Tensor) -> Tensor:
    for unit in units:
        features = unit(features)
    return features
