"""The residual autoencoder: one module for the paper's net and for srcli's own.

An encoder of levels, each half the resolution of the one above, a decoder that mirrors it,
additive skips between mirrored levels. Input and output are the same size: the input is the
bicubic enlargement, so the net serves any scale factor.
"""

import copy
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import assert_never

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from srcli.errors import UsageError
from srcli.model.config import ModelConfig, ScalePath
from srcli.ops.spans import PATCH

__all__ = [
    "ConvolutionUnit",
    "GatedUnit",
    "ResidualAutoencoder",
    "ResidualUnit",
    "in_dtype",
    "multiply_adds",
    "parameter_count",
]


_WHISPER = 0.1
"""What a level that begins anew has for a say in a net that knows nothing of it."""


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
        return self._correction(features).add_(features)

    def _correction(self, features: Tensor) -> Tensor:
        # In place: on the CPU writing another tensor costs more than the arithmetic.
        corrected: Tensor = self.contract(functional.relu(self.expand(features), inplace=True))
        return corrected


class GatedUnit(ResidualUnit):
    """A residual unit whose correction is weighed, pixel by pixel, by what it sees there.

    ``x + c * (1 + g)`` with c the correction and g a 1x1 convolution of x that begins at zero: the
    first product of two features in the net, for a twentieth more multiply-adds.
    """

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.gate = _closed(nn.Conv2d(width, width, 1))

    def forward(self, features: Tensor) -> Tensor:
        """Refine ``(N, C, H, W)`` features; same shape out."""
        correction = self._correction(features)
        return torch.addcmul(correction, correction, self.gate(features)).add_(features)


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
        ends = {str(path.scale): 3 * path.scale**2 for path in config.paths}
        self.stems = nn.ModuleDict({name: _convolution(n, widths[0]) for name, n in ends.items()})
        self.heads = nn.ModuleDict({name: _convolution(widths[0], n) for name, n in ends.items()})
        if self.head.weight.is_meta:
            return
        if config.output == "correction":
            for head in (self.head, *self.heads.values()):
                # Training starts at the bicubic enlargement.
                nn.init.zeros_(head.get_parameter("weight"))
        else:
            # A ReLU passes no gradient where its sum is negative: a colour that begins there on
            # every pixel never comes back. So training starts near mid-grey.
            with torch.no_grad():
                self.head.weight.mul_(0.1)
                _bias(self.head).fill_(0.5)

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
        places = [
            [index for index, other in enumerate(paths) if other is path]
            for path in (None, *self.config.paths)
            if path in paths
        ]
        # No number comes back from a GPU here: it would have to come to a rest first.
        groups = [
            self.restore(
                image.index_select(
                    0, torch.tensor(place).to(image.device, non_blocking=True)
                ).contiguous(memory_format=torch.channels_last),
                paths[place[0]],
            )
            for place in places
        ]
        back = torch.tensor([index for place in places for index in place]).argsort()
        return torch.cat(groups).index_select(0, back.to(image.device, non_blocking=True))

    def restore(self, image: Tensor, path: ScalePath | None) -> Tensor:
        """Run pictures through the net that all go the same way: by a path, or by that of most."""
        config = self.config.at(path.scale) if path else self.config
        name = str(config.stem)
        stem, head = (self.stems[name], self.heads[name]) if path else (self.stem, self.head)
        correction = config.output == "correction"
        # Zero padding means grey instead of black where the net only corrects its input.
        features = image - 0.5 if correction else image
        if config.stem > 1:
            features = functional.pixel_unshuffle(features, config.stem)
        inner = head.get_parameter("weight").dtype
        first = next((weight.dtype for weight in stem.parameters()), inner)
        features = stem(features.to(first)).to(inner)
        shallow = features
        skips: list[Tensor] = []
        for level, (encoder, down) in enumerate(zip(self.encoders, self.downs, strict=True)):
            features = _chain(list(encoder.children())[: config.encoder[level]], features)
            skips.append(features)
            features = down(features)
        features = self.bottom(features)
        for level in reversed(range(len(skips))):
            units = list(self.decoders[level].children())[-config.decoder[level] :]
            features = self._decode(units, self.ups[level](features), skips[level])
        if not correction:
            return functional.relu(_to_pixels(head, features, config.stem)).to(image.dtype)
        return image + _to_pixels(head, features + shallow, config.stem).to(image.dtype)

    def _decode(self, units: list[nn.Module], features: Tensor, skip: Tensor) -> Tensor:
        """Run one decoder level, adding its skip where the configuration says."""
        match self.config.join:
            case "before":
                return _chain(units, features + skip)
            case "first":
                return _chain(units[1:], units[0](features) + skip)
            case "last":
                return _chain(units, features) + skip
            case unknown:
                assert_never(unknown)

    @torch.no_grad()
    def begin_paths(self) -> None:
        """Let every path begin with the first and last convolution that the others share.

        Their pixels are those of another grid in the same cell, so the weights are interpolated
        linearly from one grid to the other: after that, without any training, the ``base`` that had
        no paths lost 0.04 dB at x4 to what it had by way of the grid of x3.
        """
        own = self.config.stem
        weight, bias = self.head.weight, _bias(self.head)
        first, width = self.stem.state_dict(), self.config.widths[0]
        for path in self.config.paths:
            # Matrices from this path's pixels of a cell to those of the others, and back.
            inner, outer = _regridded(path.scale, own), _regridded(own, path.scale)
            taps = first["weight"].reshape(width, 3, own**2, 3, 3)
            taps = torch.einsum("ocpyx,pq->ocqyx", taps, inner).reshape(width, -1, 3, 3)
            stem = {"weight": taps, "bias": first["bias"]}
            taps = weight.reshape(3, own**2, width, 3, 3)
            taps = torch.einsum("qp,cpiyx->cqiyx", outer, taps).reshape(-1, width, 3, 3)
            head = {"weight": taps, "bias": (bias.reshape(3, -1) @ outer.T).flatten()}
            self.stems[str(path.scale)].load_state_dict(stem)
            self.heads[str(path.scale)].load_state_dict(head)

    @torch.no_grad()
    def grow_from(self, other: "ResidualAutoencoder") -> None:
        """Take what fits of a net of other depth, or of other widths below its highest level.

        An encoder's first units are the other's first, a decoder's last its last, as on a path;
        one that the other has not begins by changing nothing (Chen et al. 2016, "Net2Net"), and so
        does a gate. A level of another width begins anew, its say in the one above at a tenth.

        Raises:
            UsageError: If there is more between them than that, this net is to be symmetric and
                the other is not, or the other is gated and this one is not.
        """
        own, others = self.config, other.config
        unfit = own.unit != "residual" or _ends(own) != _ends(others)
        if unfit or (others.gated > own.gated) or (own.symmetric > others.symmetric):
            raise UsageError("its net has another shape")
        for name in ("stem", "stems", "head", "heads"):
            getattr(self, name).load_state_dict(getattr(other, name).state_dict())
        widths = zip(self.config.widths, other.config.widths, strict=True)
        same = [width == before for width, before in widths]
        if same[-1]:
            _take_units(self.bottom.children(), other.bottom.children())
        for level, (upper, lower) in enumerate(pairwise(same)):
            if upper:
                _take_units(self.encoders[level].children(), other.encoders[level].children())
                last = [*self.decoders[level].children()]
                _take_units(reversed(last), reversed([*other.decoders[level].children()]))
            if upper and lower:
                self.downs[level].load_state_dict(other.downs[level].state_dict())
                self.ups[level].load_state_dict(other.ups[level].state_dict())
            if not lower:
                for weight in self.ups[level].parameters():
                    weight.mul_(_WHISPER)


def _ends(config: ModelConfig) -> tuple[object, ...]:
    """All of a shape but its levels below the highest, and how many units any of them has."""
    scales = [path.scale for path in config.paths]
    kinds = config.unit, config.down, config.up, config.join, config.output
    return config.stem, config.widths[0], len(config.widths), *kinds, scales


def _take_units(units: Iterable[nn.Module], others: Iterable[nn.Module]) -> None:
    """Copy units one by one; those that are left over change nothing from now on."""
    before = [*others]
    for place, unit in enumerate(units):
        if place < len(before):
            if isinstance(unit, GatedUnit):
                _closed(unit.gate)
            # A gate that the other has not stays closed.
            unit.load_state_dict({**unit.state_dict(), **before[place].state_dict()})
        else:
            for weight in unit.get_submodule("contract").parameters():
                weight.zero_()


def _to_pixels(head: nn.Module, features: Tensor, stem: int) -> Tensor:
    pixels: Tensor = head(features)
    return functional.pixel_shuffle(pixels, stem) if stem > 1 else pixels


def _regridded(before: int, after: int) -> Tensor:
    """Weights ``(after**2, before**2)`` that take a cell's pixels from one grid to another."""
    points = torch.eye(before**2).reshape(1, before**2, before, before)
    grid = functional.interpolate(points, size=(after, after), mode="bilinear", align_corners=False)
    return grid.flatten(2)[0].T


def in_dtype(net: ResidualAutoencoder, dtype: torch.dtype) -> ResidualAutoencoder:
    """Copy a net into the format that it is to compute in.

    The first convolution stays as it is: in bf16 its input alone, with eight bits for each pixel,
    moved single pixels of a result by two levels where now none moved by 0.8 (``base`` as it was
    then), at no cost that can be measured. ``benchmarks/seams.py`` tells what is left.

    Args:
        net: In ``float32``.
        dtype: Of all other weights in the copy.

    Returns:
        The copy, in evaluation mode if ``net`` is.
    """
    copied = copy.deepcopy(net).to(dtype)
    copied.stem, copied.stems = copy.deepcopy(net.stem), copy.deepcopy(net.stems)
    return copied


def parameter_count(config: ModelConfig) -> int:
    """Count the parameters of a configuration, without allocating them."""
    with torch.device("meta"):
        net = ResidualAutoencoder(config)
    return sum(parameter.numel() for parameter in net.parameters())


def multiply_adds(config: ModelConfig, side: int = PATCH) -> int:
    """Count the multiply-adds of one forward pass with torch's own counter.

    Args:
        config: The net's shape; of one with paths, ``config.at(scale)``, or all go one way.
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


def _closed(gate: nn.Conv2d) -> nn.Conv2d:
    """Let a gate begin at zero: it changes nothing."""
    for values in gate.parameters():
        nn.init.zeros_(values)
    return gate


def _bias(convolution: nn.Conv2d) -> Tensor:
    assert convolution.bias is not None
    return convolution.bias


def _units(config: ModelConfig, inputs: int, width: int, count: int) -> nn.Sequential:
    if config.unit == "residual":
        kind = GatedUnit if config.gated else ResidualUnit
        return nn.Sequential(*(kind(width) for _ in range(count)))
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
