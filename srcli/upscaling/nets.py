"""The nets that a run's files ask for."""

from collections.abc import Callable
from dataclasses import replace

from srcli.files import DEFAULT_SHARPNESS
from srcli.imaging import images
from srcli.model import weights
from srcli.model.sharpness import has_sibling, siblings
from srcli.upscaler import Upscaler, check_settings
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
        self._names = general()
        if config.given_model is not None:
            self.named(config.given_model)
            return
        for name in self._names:  # what would stop an Upscaler, without the weights' tensors
            check_settings(weights.read_header(weights.resolve(name)), config.settings)
        if config.settings.sharpness is not None:
            siblings(weights.resolve(self._names[0]))  # what photo lacks is no error for others

    def choice(self, coding: images.Coding | None) -> tuple[str, str | None]:
        """Choose for a file: a name, and the reason unless the name was given."""
        if self._config.given_model is not None:
            return self._config.given_model, None
        found = choose(coding, self._names)
        return found.name, found.reason

    def named(self, name: str) -> Upscaler:
        """Return the upscaler of these weights; WeightsError if they are missing or damaged."""
        if name not in self._loaded:
            settings = replace(self._config.settings, sharpness=self._sharpness(name))
            self._loaded[name] = Upscaler(name, settings=settings, notice=self._notice_once)
            self._on_ready(name, self._loaded[name])
        return self._loaded[name]

    def _sharpness(self, name: str) -> float | None:
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
