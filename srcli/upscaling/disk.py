"""How much room results take on the disk, and whether it is there."""

import math
import shutil
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from srcli.files import is_folder
from srcli.imaging import images
from srcli.upscaling.config import STREAM, BatchConfig

__all__ = ["Disks", "Space", "estimated_size"]

_LOSSLESS: Final = {"PNG": 1.1, "TIFF": 1.2, "GIF": 0.6}
_LOSSY: Final = {"JPEG": 0.27, "WEBP": 0.13, "AVIF": 0.18}
"""Bytes for each pixel of an RGB photograph that ``base`` has enlarged by 3, at ``--quality 95``:
means of nine photographs, sharp, as JPEGs of quality 80, and soft. Two thirds of 63 results at x2,
x3 and x4 lie within a factor of 1.4 in PNG, TIFF and JPEG, of 18 in WebP and AVIF within 1.8."""

_QUALITIES: Final = (1, 50, 75, 85, 95, 100)
_FACTORS: Final = (0.05, 0.29, 0.4, 0.54, 1.0, 2.7)
"""How large a JPEG is by its quality, compared with 95."""

_GREY: Final = 0.7
"""How large a lossy file without colours is, compared with one that has some."""

_UNLOSSY: Final = 4.0
"""What ``--lossless`` costs."""


def estimated_size(header: images.Header, pixels: int, target: Path, config: BatchConfig) -> int:
    """Estimate the bytes of a result of so many pixels in all its pictures.

    For a photograph that is within a factor of two as a rule.
    """
    named = images.format_of(target) or config.wanted_format  # of stdout
    name, planes = named or header.format, header.channels + header.alpha
    if name not in _LOSSLESS | _LOSSY:
        return round(pixels * planes * header.bits / 8)
    # Of a smaller enlargement each pixel says more: at x2, x3 and x4 a JPEG has 0.39, 0.32 and
    # 0.27 bytes for it.
    before = header.frames * header.width * header.height
    weight = pixels * math.pow(9 * before / pixels, 0.25)
    if name in _LOSSLESS:  # the lower of two bytes is as good as noise
        return round(weight * planes * (_LOSSLESS[name] / 3 + header.bits // 8 - 1))
    factor = float(np.interp(config.quality, _QUALITIES, _FACTORS))
    factor *= _UNLOSSY if config.lossless and name != "JPEG" else 1.0
    return round(weight * _LOSSY[name] * factor * (_GREY if header.channels == 1 else 1.0))


@dataclass(frozen=True, slots=True)
class Space:
    """What results take on a disk, and what is free there, bytes."""

    folder: Path
    needed: int
    free: int


class Disks:
    """Adds up what results take, by the folders that they go to."""

    def __init__(self) -> None:
        self._sizes: Counter[Path] = Counter()

    def add(self, target: Path, size: int) -> None:
        """Count a result of so many bytes."""
        if target != STREAM:
            self._sizes[target.parent] += size

    @property
    def size(self) -> int:
        """Bytes of all results."""
        return self._sizes.total()

    def tightest(self) -> Space | None:
        """Return the disk on which the least would be left over; None where there is none."""
        disks: dict[int, Space] = {}
        for folder, size in self._sizes.items():
            with suppress(OSError):  # a folder that may not be looked at costs its files
                there = next(one for one in (folder, *folder.absolute().parents) if is_folder(one))
                device = there.stat().st_dev
                disk = disks.get(device) or Space(folder, 0, shutil.disk_usage(there).free)
                disks[device] = replace(disk, needed=disk.needed + size)
        return min(disks.values(), key=lambda one: one.free - one.needed, default=None)
