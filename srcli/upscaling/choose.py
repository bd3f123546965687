"""Which weights suit a file: ``-m auto``. No torch, and no pixel is decoded for it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from srcli.imaging.images import Coding, read_header

__all__ = ["BEST_CLEANED", "GENERAL", "Choice", "choose", "choose_weights"]

BEST_CLEANED: Final = 84
"""The best quality of a JPEG, on libjpeg's scale, that ``photo`` is chosen for.

Up to it ``photo`` is closer to the original than ``base``, above it ``base`` is: the mean of what
``benchmarks/choice.py`` measured at x3 and x2 (``benchmarks/results/choice.md``).
"""

GENERAL: Final = ("base", "photo")
"""The shipped weights that are chosen among."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Weights, and why these."""

    name: str
    """Of shipped weights."""

    reason: str
    """For a person: what the file is, and what is chosen for it."""


def choose(coding: Coding | None) -> Choice:
    """Choose weights for a picture by how it was stored.

    That is ``photo`` for a JPEG of a quality of at most :data:`BEST_CLEANED`, else ``base``: for
    what is better, lossless, of another format or not known.

    Example:
        >>> choose(Coding(format="JPEG", quality=60)).reason
        'JPEG of quality 60: photo'
    """
    quality = None if coding is None else coding.quality
    name = "photo" if quality is not None and quality <= BEST_CLEANED else "base"
    kind = "unknown" if coding is None else coding.format
    if kind == "JPEG":
        kind += " of unknown quality" if quality is None else f" of quality {quality}"
    return Choice(name=name, reason=f"{kind}: {name}")


def choose_weights(path: str | Path) -> Choice:
    """Choose weights for an image file as ``srcli upscale`` does, for :class:`srcli.Upscaler`.

    Args:
        path: The file; only its header is read.

    Returns:
        The name of shipped weights, and the reason.

    Raises:
        ImageError: If the file is missing, unreadable, too large or no image.
    """
    return choose(read_header(Path(path)).coding)
