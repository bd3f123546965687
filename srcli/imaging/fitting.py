"""Pictures made to fit a format: fewer bits, no opacity. Plain NumPy."""

from dataclasses import replace
from typing import cast

import numpy as np
from numpy.typing import NDArray

from srcli.imaging.pictures import Levels, Picture

__all__ = ["eight_bits", "interleaved", "over_white", "rounded"]


def rounded(levels: Levels) -> NDArray[np.uint8]:
    """Round to the nearest of 256 levels; 65535 = 255 * 257."""
    if levels.dtype == np.uint8:
        return levels.astype(np.uint8, copy=False)
    return ((levels.astype(np.uint32) + 128) // 257).astype(np.uint8)


def eight_bits(picture: Picture) -> Picture:
    """Round a picture to 8 bits a channel."""
    alpha = None if picture.alpha is None else rounded(picture.alpha)
    return replace(picture, pixels=rounded(picture.pixels), alpha=alpha)


def over_white(picture: Picture) -> Picture:
    """Lay a picture over white paper: what it looks like where nothing is behind it."""
    if picture.alpha is None:
        return picture
    white = np.iinfo(picture.pixels.dtype).max
    opacity = picture.alpha.astype(np.uint32)
    # At most 65535 * 65535 + 32767, which 32 bits hold.
    mixed = picture.pixels * opacity + white * (white - opacity) + white // 2
    wide = (mixed // white).astype(np.uint16)
    eight = picture.pixels.dtype == np.uint8
    return replace(picture, pixels=wide.astype(np.uint8) if eight else wide, alpha=None)


def interleaved(picture: Picture) -> Levels:
    """Put the opacity behind the other channels: ``HxWx1`` to ``HxWx4``, C-contiguous."""
    if picture.alpha is None:
        return cast("Levels", np.ascontiguousarray(picture.pixels))
    return cast("Levels", np.concatenate([picture.pixels, picture.alpha], axis=2))
