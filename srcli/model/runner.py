"""How a net computes: what a person may set, and the net in that number format.

Where a format is not enough, it is fp32.
"""

import copy
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import product

import torch
from torch import Tensor

from srcli.errors import UsageError, WeightsError, require_at_least
from srcli.model.config import SYMMETRIES
from srcli.model.network import ResidualAutoencoder, in_dtype
from srcli.model.patches import Layout
from srcli.model.weights import Ranges, Weights
from srcli.ops.devices import on_device
from srcli.ops.engines import Compute, resolve
from srcli.ops.spans import PATCH

__all__ = ["NetRunner", "Settings", "check_settings"]

_Run = Callable[[Tensor, Sequence[float]], Tensor]
"""Windows in, windows out: what an engine makes of a net."""


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


class NetRunner:
    """Runs one net on windows of pictures; may be used from several threads at the same time.

    Args:
        net: In ``float32``, on the CPU; it is copied.
        compute: What computes it.
        ranges: Of the inputs of its convolutions, for int8.
        ensemble: Whether the results of all eight orientations of a window are averaged.
        notice: Called with a line when something is first computed again in fp32.
    """

    def __init__(
        self,
        net: ResidualAutoencoder,
        compute: Compute,
        ranges: Ranges,
        *,
        ensemble: bool,
        notice: Callable[[str], None],
    ) -> None:
        self.compute, self._ranges = compute, ranges
        self.ensemble = ensemble
        self._net: ResidualAutoencoder | None = (
            copy.deepcopy(net).float().eval().requires_grad_(requires_grad=False)
        )
        self._notice = notice
        self._lock = threading.Lock()
        self._has_redone = False
        self._nets: tuple[_Run, _Run] | None = None

    @property
    def passes(self) -> int:
        """How often the net runs on each window."""
        return SYMMETRIES if self.ensemble else 1

    @torch.inference_mode()
    def run(
        self, windows: Tensor, scale: float, on_pass: Callable[[int], None] = lambda _: None
    ) -> Tensor:
        """Run the net on windows by the path of a factor.

        Those are ``(N, C, h, w)`` ``float32``; C is 3 (RGB) or 1, seen as R = G = B. The result has
        the same shape, in ``float32``, and is not clamped. ``on_pass`` is called with the pixels
        of the windows after each of the :attr:`passes`.

        Raises:
            WeightsError: If the result is not finite even in fp32.
        """
        _survive_forks()
        image = windows.expand(-1, 3, -1, -1)

        def once(turned: Tensor) -> Tensor:
            result = self._run_once(turned, scale)
            on_pass(len(turned) * turned[0, 0].numel())
            return result

        # A caller's autocast is about the caller's net.
        with torch.autocast(image.device.type, enabled=False):
            result = self._averaged(image, once) if self.ensemble else once(image)
        return result.mean(1, keepdim=True) if windows.shape[1] == 1 else result

    def _averaged(self, image: Tensor, once: Callable[[Tensor], Tensor]) -> Tensor:
        # Windows begin and end at multiples of the stride: turned, they keep its phase.
        total = torch.zeros_like(image)
        for down, across, transposed in product((False, True), repeat=3):
            flipped = [-1] * across + [-2] * down
            turned = (image.mT if transposed else image).flip(flipped)
            result = once(turned).flip(flipped)
            total = total + (result.mT if transposed else result)
        return total / SYMMETRIES

    def _run_once(self, image: Tensor, scale: float) -> Tensor:
        image = image.contiguous(memory_format=torch.channels_last)
        fast, exact = self.nets()
        scales = [scale] * len(image)
        result = fast(image, scales)
        if bool(torch.isfinite(result).all()):
            return result
        result = exact(image, scales)
        if not bool(torch.isfinite(result).all()):
            raise WeightsError("the net's result is not finite even in fp32; use other weights")
        with self._lock:
            if not self._has_redone:
                dtype = self.compute.dtype
                self._notice(f"a patch was not finite in {dtype} and was redone in fp32")
            self._has_redone = True
        return result

    def close(self) -> None:
        """Forget the net and let its memory go."""
        with self._lock:
            self._net = self._nets = None

    def nets(self) -> tuple[_Run, _Run]:
        """Return the net in the working format and in fp32, on the device; copied there once."""
        with self._lock:
            if self._net is None:
                raise UsageError("this upscaler is closed: make another one")
            if self._nets is None:
                exact = on_device(self._net, self.compute.device)
                fast: _Run
                if self.compute.engine == "torch":
                    fast = in_dtype(exact, self.compute.dtype)
                else:
                    from srcli.model.graph import CompiledNet  # noqa: PLC0415 - of an extra

                    fast = CompiledNet(exact, self.compute, self._ranges)
                self._nets = fast, exact
            return self._nets


@cache
def _survive_forks() -> None:
    """Let processes that are forked from here on compute by one thread.

    OpenMP would wait for its others for ever, which a fork does not copy.
    """
    if hasattr(os, "register_at_fork"):  # Windows has none
        os.register_at_fork(after_in_child=partial(torch.set_num_threads, 1))
