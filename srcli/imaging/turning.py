"""Pictures turned upright, as an EXIF orientation says how they are stored."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["turned", "upright"]


def upright(stored: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Turn an array upright, as an EXIF orientation says how it is stored."""
    return np.ascontiguousarray(turned(stored, orientation))


def turned(stored: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Return a view of an array with the side up that an orientation, 1 to 8, says."""
    if orientation >= 5:
        stored = stored.transpose(1, 0, 2)
    down = -1 if orientation in {3, 4, 7, 8} else 1
    across = -1 if orientation in {2, 3, 6, 7} else 1
    return stored[::down, ::across]
