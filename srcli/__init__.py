"""Enlarge real photographs with one residual convolutional autoencoder.

>>> from PIL import Image
>>> from srcli import Upscaler
>>> Upscaler("base")(Image.new("RGB", (40, 30)), scale=3).size
(120, 90)
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from srcli.upscaling import Settings, Upscaler

__all__ = ["Settings", "Upscaler", "__version__"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:  # noqa: ANN401 - what a module holds
    """Import what needs torch when it is asked for: ``srcli --help`` is not to wait for it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from srcli import upscaling  # noqa: PLC0415 - torch takes two seconds

    return getattr(upscaling, name)
