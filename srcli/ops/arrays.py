"""Pixels in memory, NumPy arrays and torch tensors, as planes and back."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Planes", "interleaved", "planes", "planes_of"]

_BITS = {torch.uint8: 8, torch.uint16: 16, torch.float32: None}

_KINDS = "uint8, uint16, or float32 in [0, 1]"


class Planes(NamedTuple):
    """A picture as the net takes it, and how to give it back."""

    color: Tensor
    """``(1, H, W)`` (grey) or ``(3, H, W)`` (RGB), integers or ``float32`` in [0, 1]."""

    alpha: Tensor | None
    """Opacity, ``(1, H, W)`` of the same dtype, not multiplied into the colour; or ``None``."""

    bits: int | None
    """Of the integers; ``None``: ``float32``."""

    packed: Callable[[Tensor], Any]
    """Turns a result ``(C, H, W)``, alpha behind the colour, into the kind that was given."""


def planes(pixels: NDArray[Any]) -> Tensor:
    """View an array ``HxWxC`` as ``(C, H, W)``."""
    return torch.from_numpy(pixels).permute(2, 0, 1)


def interleaved(tensor: Tensor) -> NDArray[Any]:
    """Lay ``(C, H, W)`` out as an array ``HxWxC``."""
    return np.ascontiguousarray(tensor.permute(1, 2, 0).numpy())


def planes_of(image: object) -> Planes:
    """Take apart what an upscaler was called with.

    Args:
        image: An array, ``HxW``, ``HxWx3`` or ``HxWx4``, or a tensor, ``(C, H, W)``.

    Raises:
        TypeError: If it is nothing of the kind; says what to do.
    """
    if isinstance(image, np.ndarray):
        return _planes_of_array(image)
    if isinstance(image, Tensor):
        shape = tuple(image.shape)
        if image.ndim != 3 or shape[0] not in {1, 3, 4} or 0 in shape:
            raise TypeError(
                f"a tensor must be (C, H, W) with C 1, 3 or 4, not {shape}: permute it, or call "
                "for one picture of a batch at a time"
            )
        device = image.device
        return _planes(image.detach().cpu(), lambda result: result.to(device))
    raise TypeError(
        "an upscaler takes a path, a Pillow image, a NumPy array or a torch tensor, not "
        f"{type(image).__name__}: open a file or bytes with PIL.Image.open, convert others with "
        "numpy.asarray"
    )


def _planes_of_array(image: NDArray[Any]) -> Planes:
    if (
        image.ndim not in {2, 3}
        or image.shape[2:] not in {(), (1,), (3,), (4,)}
        or 0 in image.shape
    ):
        raise TypeError(
            f"an array must be HxW, HxWx3 or HxWx4, not {image.shape}: index or transpose it"
        )
    if str(image.dtype) not in {"uint8", "uint16", "float32"}:
        raise TypeError(
            f"an array must be {_KINDS}, not {image.dtype}: convert it with astype, and a float "
            "array of 0..255 by dividing it by 255"
        )
    flat = image.ndim == 2
    # A view of a Pillow image is read-only, which torch would warn of.
    writable = np.require(image[..., None] if flat else image, None, ["C", "W"])

    def packed(result: Tensor) -> NDArray[Any]:
        pixels = interleaved(result)
        return pixels[..., 0] if flat else pixels

    return _planes(planes(writable), packed)


def _planes(tensor: Tensor, packed: Callable[[Tensor], Any]) -> Planes:
    if tensor.dtype not in _BITS:
        raise TypeError(f"a tensor must be {_KINDS}, not {tensor.dtype}: convert it with .to()")
    # A range is true of no NaN.
    if tensor.is_floating_point() and not bool(((tensor >= 0) & (tensor <= 1)).all()):
        raise TypeError(
            f"float pixels must lie in [0, 1], not {float(tensor.min()):g} to "
            f"{float(tensor.max()):g}: divide or clip them"
        )
    color, alpha = (tensor[:3], tensor[3:]) if len(tensor) == 4 else (tensor, None)
    return Planes(color, alpha, _BITS[tensor.dtype], packed)
