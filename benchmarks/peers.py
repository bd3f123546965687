"""Nets of the shapes of other people's, with random weights: how long they take, not what they can.

Written here from their papers; the parameters of each are counted and must be the published
number (:func:`build`), so what is timed is the shape that the published pictures come from. All
map ``(N, 3, H, W)`` RGB in [0, 1] to ``(N, 3, 3H, 3W)``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from srcli.ops.color import luma

__all__ = ["PEERS", "Peer", "build", "parameter_count"]

SCALE = 3


class Residual(nn.Module):
    """A stack that is added to its input; ``after`` is applied to the sum."""

    def __init__(self, *layers: nn.Module, after: nn.Module | None = None) -> None:
        super().__init__()
        self.body = nn.Sequential(*layers)
        self.after = after or nn.Identity()

    def forward(self, features: Tensor) -> Tensor:
        """Map ``(N, C, H, W)`` to the same shape."""
        result: Tensor = self.after(features + self.body(features))
        return result


class Edsr(nn.Sequential):
    """EDSR-baseline (Lim et al. 2017): 16 residual blocks of 64 channels, no normalisation."""

    def __init__(self) -> None:
        blocks = (Residual(_conv(64, 64), nn.ReLU(inplace=True), _conv(64, 64)) for _ in range(16))
        super().__init__(
            _conv(3, 64),
            Residual(*blocks, _conv(64, 64)),
            _conv(64, 64 * SCALE**2),
            nn.PixelShuffle(SCALE),
            _conv(64, 3),
        )


class Contrast(nn.Module):
    """IMDN's attention: channels weighted by their contrast and mean."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weigh = nn.Sequential(
            _conv(width, width // 16, 1),
            nn.ReLU(inplace=True),
            _conv(width // 16, width, 1),
            nn.Sigmoid(),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Weigh ``(N, C, H, W)``; same shape out."""
        deviation, mean = torch.std_mean(features, (2, 3), correction=0, keepdim=True)
        result: Tensor = features * self.weigh(deviation + mean)
        return result


class Distillation(nn.Module):
    """IMDN's block: of three convolutions a quarter of the channels is set aside each."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.kept = width // 4
        entries = (width, width - self.kept, width - self.kept)
        self.steps = nn.ModuleList(_conv(entry, width) for entry in entries)
        self.last = _conv(width - self.kept, self.kept)
        self.fuse = nn.Sequential(Contrast(width), _conv(width, width, 1))

    def forward(self, features: Tensor) -> Tensor:
        """Refine ``(N, C, H, W)`` features; same shape out."""
        aside, left = [], features
        for step in self.steps:
            made = functional.leaky_relu(step(left), 0.05, inplace=True)
            kept, left = made.tensor_split((self.kept,), 1)
            aside.append(kept)
        result: Tensor = features + self.fuse(torch.cat([*aside, self.last(left)], 1))
        return result


class Imdn(nn.Module):
    """IMDN (Hui et al. 2019): six blocks of 64 channels, all of them fused at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.entry = _conv(3, 64)
        self.blocks = nn.ModuleList(Distillation(64) for _ in range(6))
        self.fuse = nn.Sequential(
            _conv(6 * 64, 64, 1), nn.LeakyReLU(0.05, inplace=True), _conv(64, 64)
        )
        self.exit = nn.Sequential(_conv(64, 3 * SCALE**2), nn.PixelShuffle(SCALE))

    def forward(self, image: Tensor) -> Tensor:
        """Enlarge ``(N, 3, H, W)``."""
        shallow = features = self.entry(image)
        found = []
        for block in self.blocks:
            features = block(features)
            found.append(features)
        result: Tensor = self.exit(self.fuse(torch.cat(found, 1)) + shallow)
        return result


class Cascade(nn.Module):
    """CARN's pattern: each step sees the results of all before it, by a 1x1 convolution."""

    def __init__(self, steps: list[nn.Module]) -> None:
        super().__init__()
        self.steps = nn.ModuleList(steps)
        self.fuse = nn.ModuleList(
            nn.Sequential(_conv(64 * (count + 2), 64, 1), nn.ReLU(inplace=True))
            for count in range(len(steps))
        )

    def forward(self, features: Tensor) -> Tensor:
        """Refine ``(N, 64, H, W)`` features; same shape out."""
        found = features
        for step, fuse in zip(self.steps, self.fuse, strict=True):
            found = torch.cat([found, step(features)], 1)
            features = fuse(found)
        return features


class Carn(nn.Module):
    """CARN-M (Ahn et al. 2018): grouped convolutions, the same three times inside a block.

    The branches of x2 and x4 lie idle here, but are in the published number.
    """

    def __init__(self) -> None:
        super().__init__()
        # Taking the mean colour away and adding it back are layers there, and counted.
        self.center, self.entry = _conv(3, 3, 1), _conv(3, 64)
        self.body = Cascade([Cascade([block] * 3) for block in (_grouped() for _ in range(3))])
        self.larger = _enlarging(SCALE)
        self.idle = nn.ModuleList((_enlarging(2), nn.Sequential(_enlarging(2), _enlarging(2))))
        self.exit, self.restore = _conv(64, 3), _conv(3, 3, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Enlarge ``(N, 3, H, W)``."""
        features = self.body(self.entry(self.center(image)))
        result: Tensor = self.restore(self.exit(self.larger(features)))
        return result


class Vdsr(nn.Module):
    """VDSR (Kim et al. 2016): twenty convolutions on the enlarged luma, added to it."""

    def __init__(self) -> None:
        super().__init__()
        widths = (1, *(64,) * 19)
        layers = (
            layer
            for before, after in pairwise(widths)
            for layer in (_conv(before, after, bias=False), nn.ReLU(inplace=True))
        )
        self.body = nn.Sequential(*layers, _conv(64, 1, bias=False))

    def forward(self, image: Tensor) -> Tensor:
        """Enlarge ``(N, 3, H, W)``; what luma gains, all three colours gain."""
        large = functional.interpolate(image, scale_factor=SCALE, mode="bicubic")
        correction: Tensor = self.body(luma(large).to(image.dtype))
        return large + correction


class Modulation(nn.Module):
    """SMFANet's aggregation: coarse structure weighs one half, details come from the other."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.split, self.fuse = _conv(width, 2 * width, 1), _conv(width, width, 1)
        self.coarse, self.weigh = _conv(width, width, groups=width), _conv(width, width, 1)
        self.details = nn.Sequential(
            _conv(width, 2 * width, groups=width),
            _conv(2 * width, 2 * width, 1),
            nn.GELU(),
            _conv(2 * width, width, 1),
        )
        self.gain = nn.Parameter(torch.ones(1, width, 1, 1))
        self.variance = nn.Parameter(torch.zeros(1, width, 1, 1))

    def forward(self, features: Tensor) -> Tensor:
        """Refine normalised ``(N, C, H, W)`` features; same shape out."""
        height, width = features.shape[-2:]
        fine, other = self.split(features).chunk(2, 1)
        pooled = functional.adaptive_max_pool2d(other, (height // 8, width // 8))
        spread = torch.var(other, (-2, -1), keepdim=True)
        weights = functional.gelu(
            self.weigh(self.coarse(pooled) * self.gain + spread * self.variance)
        )
        scaled = other * functional.interpolate(weights, size=(height, width), mode="nearest")
        result: Tensor = self.fuse(scaled + self.details(fine))
        return result


class PartialMixing(nn.Module):
    """SMFANet's feed-forward part: a quarter of the hidden channels sees its neighbours."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.part = width // 2
        self.widen, self.narrow = _conv(width, 2 * width, 1), _conv(2 * width, width, 1)
        self.near = _conv(self.part, self.part)

    def forward(self, features: Tensor) -> Tensor:
        """Refine normalised ``(N, C, H, W)`` features; same shape out."""
        hidden = functional.gelu(self.widen(features))
        hidden[:, : self.part] = functional.gelu(self.near(hidden[:, : self.part]))
        result: Tensor = self.narrow(hidden)
        return result


class Normalised(nn.Module):
    """A part that sees its input with channels of length one."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, features: Tensor) -> Tensor:
        """Map ``(N, C, H, W)`` to the same shape."""
        result: Tensor = self.part(functional.normalize(features))
        return result


class Smfanet(nn.Sequential):
    """SMFANet+ (Zheng et al. 2024): twelve blocks of 48 channels."""

    def __init__(self) -> None:
        parts = (
            Residual(Normalised(part(48)))
            for _ in range(12)
            for part in (Modulation, PartialMixing)
        )
        super().__init__(
            _conv(3, 48), Residual(*parts), _conv(48, 3 * SCALE**2), nn.PixelShuffle(SCALE)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A net of somebody else's shape."""

    make: Callable[[], nn.Module]

    parameters: int
    """Of the published x3 weights."""

    psnr: float
    """On the luma of Set5 at x3, dB, as its authors have it (SMFANet+: trained on DF2K)."""


PEERS = {
    "IMDN": Peer(make=Imdn, parameters=703_059, psnr=34.36),
    "EDSR-baseline": Peer(make=Edsr, parameters=1_554_499, psnr=34.37),
    "CARN-M": Peer(make=Carn, parameters=414_811, psnr=33.99),
    "VDSR": Peer(make=Vdsr, parameters=664_704, psnr=33.66),
    "SMFANet+": Peer(make=Smfanet, parameters=486_795, psnr=34.66),
}


def build(name: str) -> nn.Module:
    """Make a peer's net for timing: random weights, no gradients.

    Args:
        name: One of :data:`PEERS`.
    """
    peer = PEERS[name]
    net = peer.make().eval().requires_grad_(requires_grad=False)
    assert parameter_count(net) == peer.parameters, (name, parameter_count(net))
    return net


def parameter_count(net: nn.Module) -> int:
    """Count the parameters of a net; shared ones once."""
    return sum(parameter.numel() for parameter in net.parameters())


def _conv(
    inputs: int, outputs: int, side: int = 3, *, groups: int = 1, bias: bool = True
) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, side, padding=side // 2, groups=groups, bias=bias)


def _grouped() -> nn.Module:
    """CARN-M's residual block: two convolutions in four groups, then all channels by 1x1."""
    layers = (layer for _ in range(2) for layer in (_conv(64, 64, groups=4), nn.ReLU(inplace=True)))
    return Residual(*layers, _conv(64, 64, 1), after=nn.ReLU(inplace=True))


def _enlarging(factor: int) -> nn.Sequential:
    return nn.Sequential(
        _conv(64, 64 * factor**2, groups=4), nn.ReLU(inplace=True), nn.PixelShuffle(factor)
    )
