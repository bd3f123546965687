"""What the tests of the upscaler share: a small net, a photograph, a whole result."""

import dataclasses
from pathlib import Path

import torch

from srcli.imaging.images import read
from srcli.model.config import BASE, ScalePath
from srcli.model.network import ResidualAutoencoder
from srcli.upscaler import Settings, Upscaler

EXAMPLE = Path(__file__).parents[1] / "examples" / "originals" / "houses.png"

SMALL = dataclasses.replace(
    BASE,
    widths=(8, 8),
    encoder=(2,),
    bottom=1,
    decoder=(2,),
    paths=tuple(ScalePath(scale=scale, encoder=(1,), decoder=(1,)) for scale in (2, 4)),
    symmetric=False,
)
"""A small net of the kind of ``base``."""


def upscaler(model="base", notice=lambda _: None, **options):
    """An upscaler in fp32."""
    return Upscaler(model, settings=Settings(**{"dtype": "fp32", **options}), notice=notice)


def correcting(config=SMALL, std=0.02):
    """A net that changes its input at random."""
    torch.manual_seed(2)
    net = ResidualAutoencoder(config)
    for head in (net.head, *net.heads.values()):
        torch.nn.init.normal_(head.weight, std=std)
    return net


def photograph(height, width):
    """The middle of the example photograph, ``(3, H, W)`` 8-bit pixels."""
    pixels = read(EXAMPLE).pixels
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    part = pixels[top : top + height, left : left + width].copy()
    return torch.from_numpy(part).permute(2, 0, 1)


def whole(model, image, size):
    """All rows of an enlargement, ``(C, h, w)``."""
    return torch.cat([band for _, band in model.enlarge(image, size)], 1)
