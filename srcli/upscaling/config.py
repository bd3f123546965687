"""The options of a batch, and the nets that they ask for."""

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from srcli.errors import UsageError
from srcli.files import AUTO, DEFAULT_SHARPNESS
from srcli.imaging import images
from srcli.imaging.formats import FORMATS
from srcli.model import weights
from srcli.model.sharpness import has_sibling, siblings
from srcli.upscaler import Settings, Upscaler, check_settings
from srcli.upscaling.choose import choose, general
from srcli.upscaling.selection import STREAM, Selection

__all__ = ["BatchConfig", "Nets"]


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

    keep_times: bool = False
    """Whether a result has the time at which its input was changed."""

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

    def copies(
        self,
        target: Path,
        coding: images.Coding | None,
        before: list[tuple[int, int]],
        after: list[tuple[int, int]],
    ) -> bool:
        """Whether a file is what ``size`` asks for already: its size, format and metadata."""
        selection = self.selection
        if selection.size is None or self.metadata != "keep" or before != after or coding is None:
            return False
        if target != STREAM:
            return coding.format == images.format_of(target)
        if selection.format is None:
            return coding.format in FORMATS
        return coding.format == images.format_of(Path(f"a.{selection.format}"))

    @property
    def given_model(self) -> str | None:
        """The weights that were given; None where they are chosen for each file."""
        return None if self.model == AUTO else self.model


class Nets:
    """The upscalers of a run, one for each weights; those of ``auto`` are loaded when needed.

    Args:
        config: The options.
        notice: Called with one line for what is worth knowing; the same thing only once.
        on_ready: Called with the name of weights and their upscaler, once they are loaded.

    Raises:
        WeightsError: If weights are missing or damaged, or have no sharp sibling that is asked for.
        DeviceError: If the device is not there.
        UsageError: If the tile does not fit a net's stride.
    """

    def __init__(
        self,
        config: BatchConfig,
        notice: Callable[[str], None],
        on_ready: Callable[[str, Upscaler], None] = lambda _name, _upscaler: None,
    ) -> None:
        self._config, self._notice, self._on_ready = config, notice, on_ready
        self._noticed: set[str] = set()
        self._loaded: dict[str, Upscaler] = {}
        self._lock = threading.Lock()
        self._names = general()
        if config.given_model is not None:
            self.device = self.named(config.given_model).device
            return
        for name in self._names:  # what would stop an Upscaler, without the weights' tensors
            header = weights.read_header(weights.resolve(name))
            self.device = check_settings(header, config.settings).device
        if config.settings.sharpness is not None:
            siblings(weights.resolve(self._names[0]))  # what photo lacks is no error for others

    def choice(self, coding: images.Coding | None) -> tuple[str, str | None]:
        """Choose for a file: a name, and the reason unless the name was given."""
        if self._config.given_model is not None:
            return self._config.given_model, None
        found = choose(coding, self._names)
        return found.name, found.reason

    def named(self, name: str) -> Upscaler:
        """Return the upscaler of these weights.

        Raises:
            WeightsError: If they are missing or damaged.
        """
        with self._lock:
            if name not in self._loaded:
                settings = replace(self._config.settings, sharpness=self._sharpness(name))
                made = Upscaler(name, settings=settings, notice=self._notice_once)
                self._loaded[name] = made
                self._on_ready(name, made)
            return self._loaded[name]

    def _sharpness(self, name: str) -> float | None:
        """Return how far weights are mixed with their sharp sibling; None: they are not."""
        given = self._config.settings.sharpness
        if given is not None and self._config.given_model is not None:
            return given
        if name not in self._names:
            return None
        wanted = DEFAULT_SHARPNESS if given is None else given
        if has_sibling(weights.resolve(name)):
            return wanted
        if given:
            self._notice_once(f"{name} has no sharp sibling: it is taken as it is")
        return None

    def _notice_once(self, text: str) -> None:
        if text not in self._noticed:
            self._noticed.add(text)
            self._notice(text)
