"""The quantisation tables of JPEG: what training degrades by, and what tells a file's quality."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["libjpeg_steps"]

_LUMA: Final = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
"""ITU-T T.81, table K.1: quantisation steps of luma, rows down, at quality 50."""

_CHROMA: Final = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *[(99,) * 8] * 4,
)
"""ITU-T T.81, table K.2: quantisation steps of chroma."""


def libjpeg_steps(quality: NDArray[np.int64]) -> NDArray[np.int64]:
    """Scale the tables of luma and chroma by quality as libjpeg does.

    That is by ``50 / Q`` below quality 50 and by ``2 - Q / 50`` from there on, rounded (its
    ``jpeg_quality_scaling`` and ``jpeg_add_quant_table``).

    Args:
        quality: ``(N,)`` whole numbers 1..100.

    Returns:
        ``(2, 8, 8, N)`` steps within 1..255: luma, then chroma, rows down.

    Example:
        >>> libjpeg_steps(np.array([50, 100]))[0, 0, 0].tolist()
        [16, 1]
    """
    percent = np.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    steps: NDArray[np.int64] = (np.array([_LUMA, _CHROMA])[..., np.newaxis] * percent + 50) // 100
    return steps.clip(1, 255)
