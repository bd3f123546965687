"""The nets of a run: which weights a file gets, and one upscaler for each weights."""

import threading
from collections.abc import Callable

from srcli.files import AUTO
from srcli.imaging.images import Coding
from srcli.model import weights
from srcli.ops.devices import resolve_device, resolve_dtype
from srcli.upscaler import Settings, Upscaler, check_settings
from srcli.upscaling.choose import choose, general
from srcli.upscaling.config import BatchConfig

__all__ = ["Nets"]


class Nets:
    """The upscalers of a run, one for each weights; those of ``auto`` are loaded when needed.

    Args:
        config: The options.
        notice: Called with one line for what is worth knowing; the same thing only once.
        on_ready: Called with the name of weights and their upscaler, once they are loaded.

    Raises:
        WeightsError: If weights are missing or damaged.
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
        if config.model != AUTO:
            self.named(config.model)
            return
        for name in self._names:
            _check(config.settings, name)

    def choice(self, coding: Coding | None) -> tuple[str, str | None]:
        """Choose for a file: a name, and the reason unless the name was given."""
        if self._config.model != AUTO:
            return self._config.model, None
        found = choose(coding, self._names)
        return found.name, found.reason

    def named(self, name: str) -> Upscaler:
        """Return the upscaler of these weights.

        Raises:
            WeightsError: If they are missing or damaged.
        """
        with self._lock:
            if name not in self._loaded:
                made = Upscaler(name, settings=self._config.settings, notice=self._notice_once)
                self._loaded[name] = made
                self._on_ready(name, made)
            return self._loaded[name]

    def _notice_once(self, text: str) -> None:
        """Pass on what no net has reported before."""
        if text not in self._noticed:
            self._noticed.add(text)
            self._notice(text)


def _check(settings: Settings, name: str) -> None:
    """Find out without the weights' tensors what would stop an :class:`Upscaler` of them."""
    resolve_dtype(settings.dtype, resolve_device(settings.device))
    header = weights.read_header(weights.resolve(name))
    check_settings(header.config, settings)
