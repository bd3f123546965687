"""Enlarge real photographs with one residual convolutional autoencoder.

>>> from PIL import Image
>>> from srcli import Upscaler
>>> Upscaler("base")(Image.new("RGB", (40, 30)), scale=3).size
(120, 90)
"""

import importlib
from typing import TYPE_CHECKING, Any, Final

from srcli.errors import (
    DataError,
    DeviceError,
    GateError,
    ImageError,
    Interrupted,
    NothingToDoError,
    OutputError,
    SrcliError,
    TrainingError,
    UsageError,
    WeightsError,
)

if TYPE_CHECKING:
    from srcli.upscaler import Settings, Upscaler
    from srcli.upscaling.choose import Choice, choose_weights

__all__ = [
    "Choice",
    "DataError",
    "DeviceError",
    "GateError",
    "ImageError",
    "Interrupted",
    "NothingToDoError",
    "OutputError",
    "Settings",
    "SrcliError",
    "TrainingError",
    "Upscaler",
    "UsageError",
    "WeightsError",
    "__version__",
    "choose_weights",
]

__version__ = "0.1.0"

_MODULE_OF: Final = {
    "Choice": "upscaling.choose",
    "Settings": "upscaler",
    "Upscaler": "upscaler",
    "choose_weights": "upscaling.choose",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - what a module holds
    """Import a name when it is first used: ``srcli --help`` must not wait two seconds for torch."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"srcli.{_MODULE_OF[name]}"), name)
