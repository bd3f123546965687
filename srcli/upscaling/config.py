"""The options of a batch."""

import os
from dataclasses import dataclass, field
from typing import Literal

from srcli.errors import UsageError
from srcli.files import AUTO
from srcli.imaging import images
from srcli.upscaler import Settings
from srcli.upscaling.selection import Selection

__all__ = ["BatchConfig"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchConfig:
    """What to enlarge, how far, and where the results go.

    Raises:
        UsageError: If a value is out of range.
    """

    selection: Selection
    """Which files, how large, and under which names."""

    model: str = AUTO
    """Shipped name or weights file; ``auto`` chooses for each file."""

    quality: int = 95
    """JPEG, WebP and AVIF quality, 1 to 100."""

    lossless: bool = False
    """Lossless WebP, and AVIF at its best."""

    metadata: Literal["keep", "no-location", "strip"] = "keep"
    """Whether EXIF, XMP, profile, resolution and texts are kept."""

    max_pixels: int = images.MAX_PIXELS
    """Pixels of an input beyond which it is refused as a decompression bomb."""

    fail_fast: bool = False
    """Whether the first failure ends the run."""

    jobs: int | None = None
    """Threads that read and write around the net; None chooses."""

    settings: Settings = field(default_factory=Settings)
    """How the net computes."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not 1 <= self.quality <= 100:
            raise UsageError(f"--quality must lie in 1..100, not {self.quality}")
        if self.max_pixels < 1:
            raise UsageError(f"--max-pixels must be at least 1, not {self.max_pixels}")
        if self.jobs is not None and not 1 <= self.jobs <= 256:
            raise UsageError(f"--jobs must lie in 1..256, not {self.jobs}")

    @property
    def threads(self) -> int:
        """Threads that read and write; a few keep even a GPU supplied."""
        return self.jobs or min(8, os.cpu_count() or 1)

    @property
    def given_model(self) -> str | None:
        """The weights that were given; None where they are chosen for each file."""
        return None if self.model == AUTO else self.model
