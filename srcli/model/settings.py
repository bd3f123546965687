"""How a net computes: what a person may set, whatever the picture."""

from dataclasses import dataclass

import torch

from srcli.errors import UsageError, require_at_least
from srcli.model.patches import Layout
from srcli.model.weights import Weights
from srcli.ops.engines import Compute, resolve
from srcli.ops.spans import PATCH

__all__ = ["Settings", "check_settings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How an :class:`srcli.Upscaler` computes; sharpness alone changes what a picture looks like.

    Raises:
        UsageError: If a number is out of range.
    """

    device: str | torch.device = "auto"
    dtype: str = "auto"
    engine: str = "auto"
    """What computes: ``torch``, ``openvino``, or what is measured to be faster."""

    tile: int | None = None
    """Patch size in output pixels, a multiple of the net's common stride; None: 120, fused."""

    overlap: int | None = None
    """Context around a patch in output pixels, rounded up to a multiple of the stride; None: as
    much as leaves a seam of one 8-bit level at most, 32, 48 and 64 at x2, x3 and x4 in ``base``."""

    batch_size: int | None = None
    """Patches per forward pass; None chooses."""

    tta: bool = False
    """Average the results of the eight ways to turn and mirror a patch, in ``float32``: a little
    better and eight times slower (geometric self-ensemble: Timofte et al. 2016, "Seven ways to
    improve example-based single image super resolution"). With weights that are symmetric all eight
    are alike: one is computed."""

    sharpness: float | None = None
    """Weights that have a sharp sibling are mixed with it: 0 (faithful) to 1 (crisp). None: they
    are taken as they are."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.sharpness is not None and not 0 <= self.sharpness <= 1:
            raise UsageError(f"--sharpness must lie in 0..1, not {self.sharpness:g}")
        require_at_least(1, tile=self.tile, batch_size=self.batch_size)
        require_at_least(0, overlap=self.overlap)


def check_settings(header: Weights, settings: Settings) -> tuple[Layout, Compute]:
    """Return the steps and patches of weights with some settings, and what computes them.

    Nothing but the header is needed: what cannot run is found before there is a picture.

    Raises:
        UsageError: If the patch size does not fit every path through the net, or engine, device
            and number format do not go together.
        DeviceError: If the device is not there.
    """
    layout = Layout(
        config=header.config,
        scales=header.scales,
        patch=settings.tile or PATCH,
        overlap=settings.overlap,
    )
    device, has_ranges = str(settings.device), bool(header.ranges)  # which may be torch's
    return layout, resolve(settings.engine, device, settings.dtype, has_ranges=has_ranges)
