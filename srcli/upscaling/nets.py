"""The nets that a run's files ask for."""

from collections.abc import Callable
from dataclasses import replace

from srcli.files import DEFAULT_SHARPNESS
from srcli.imaging import images
from srcli.model import weights
from srcli.upscaler import Upscaler, check_settings
from srcli.upscaling.choose import GENERAL, choose
from srcli.upscaling.config import BatchConfig

__all__ = ["Nets"]


class Nets:
    """The upscalers of a run, one for each weights; those of ``auto`` are loaded when needed.

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
        self._loaded: dict[str, Upscaler] = {}
        if config.given_model is not None:
            self.named(config.given_model)
            return
        for name in GENERAL:  # what would stop an Upscaler, without the weights' tensors
            check_settings(weights.read_header(weights.resolve(name)), config.settings)

    def choice(self, coding: images.Coding | None) -> tuple[str, str | None]:
        """Choose for a file: a name, and the reason unless the name was given."""
        if self._config.given_model is not None:
            return self._config.given_model, None
        found = choose(coding)
        return found.name, found.reason

    def named(self, name: str) -> Upscaler:
        """Return the upscaler of these weights; WeightsError if they are missing or damaged."""
        if name not in self._loaded:
            settings = self._config.settings
            if settings.sharpness is None and name in GENERAL:
                settings = replace(settings, sharpness=DEFAULT_SHARPNESS)
            self._loaded[name] = Upscaler(name, settings=settings, notice=self._notice)
            self._on_ready(name, self._loaded[name])
        return self._loaded[name]
