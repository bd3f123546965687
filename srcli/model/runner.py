"""The net in the working number format on every device, with fp32 where that is not enough."""

import copy
import threading
from collections.abc import Callable

import torch
from torch import Tensor

from srcli.errors import WeightsError
from srcli.model.config import SYMMETRIES
from srcli.model.network import ResidualAutoencoder, in_dtype
from srcli.ops.devices import on_device, resolve_dtype

__all__ = ["NetRunner"]


class NetRunner:
    """Runs one net on windows of pictures; may be used from several threads at the same time.

    Args:
        net: In ``float32``; it is moved to the device.
        device: Where it usually runs.
        dtype: Name of the working format, or ``auto``.
        ensemble: Whether the results of all eight orientations of a window are averaged.
        notice: Called with a line when something is first computed again in fp32.

    Raises:
        UsageError: If the device cannot compute in the format.
    """

    def __init__(
        self,
        net: ResidualAutoencoder,
        device: torch.device,
        dtype: str,
        *,
        ensemble: bool = False,
        notice: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.dtype = resolve_dtype(dtype, device)
        self.ensemble = ensemble
        self._device, self._dtype_name = device, dtype
        self._notice = notice
        self._lock = threading.Lock()
        self._has_redone = False
        self._exact = on_device(net.eval(), device).requires_grad_(requires_grad=False)
        self._fast = in_dtype(self._exact, self.dtype)
        self._copies: dict[torch.device, tuple[ResidualAutoencoder, ResidualAutoencoder]] = {}

    @torch.inference_mode()
    def run(self, windows: Tensor, scale: float) -> Tensor:
        """Run the net on windows, wherever they are.

        Args:
            windows: ``(N, C, h, w)`` ``float32``; C is 3 (RGB) or 1, seen as R = G = B.
            scale: The factor whose path they take.

        Returns:
            The same shape, ``float32``, not clamped.

        Raises:
            WeightsError: If the result is not finite even in fp32.
        """
        image = windows.expand(-1, 3, -1, -1)
        result = self._averaged(image, scale) if self.ensemble else self._run_once(image, scale)
        return result.mean(1, keepdim=True) if windows.shape[1] == 1 else result

    def _averaged(self, image: Tensor, scale: float) -> Tensor:
        # Windows begin and end at multiples of the stride: turned, they keep its phase.
        total = torch.zeros_like(image)
        for orientation in range(SYMMETRIES):
            result = self._run_once(_turned(image, orientation), scale)
            total = total + _turned_back(result, orientation)
        return total / SYMMETRIES

    def _run_once(self, image: Tensor, scale: float) -> Tensor:
        image = image.contiguous(memory_format=torch.channels_last)
        fast, exact = self.nets_on(image.device)
        scales = [scale] * len(image)
        result: Tensor = fast(image, scales)
        return result if bool(torch.isfinite(result).all()) else self._redone(exact, image, scales)

    def _redone(self, exact: ResidualAutoencoder, image: Tensor, scales: list[float]) -> Tensor:
        result: Tensor = exact(image, scales)
        if not bool(torch.isfinite(result).all()):
            raise WeightsError("the net's result is not finite even in fp32; use other weights")
        with self._lock:
            if not self._has_redone:
                self._notice(f"a patch was not finite in {self.dtype} and was redone in fp32")
            self._has_redone = True
        return result

    def nets_on(self, device: torch.device) -> tuple[ResidualAutoencoder, ResidualAutoencoder]:
        """Return the net in the working format and in fp32, on a device; copied there once."""
        if _is_same(device, self._device):
            return self._fast, self._exact
        with self._lock:
            if device not in self._copies:
                exact = on_device(copy.deepcopy(self._exact), device)
                dtype = self.dtype
                if device.type != self._device.type:
                    # A CPU that takes over from a GPU cannot compute in fp16.
                    name = self._dtype_name if self._dtype_name != "fp16" else "auto"
                    dtype = resolve_dtype(name, device)
                self._copies[device] = in_dtype(exact, dtype), exact
            return self._copies[device]


def _turned(image: Tensor, orientation: int) -> Tensor:
    """Return one of the eight orientations of ``(..., H, W)``."""
    turned = image.mT if orientation & 1 else image
    return turned.flip(_flipped_axes(orientation))


def _turned_back(image: Tensor, orientation: int) -> Tensor:
    """Undo :func:`_turned`."""
    flipped = image.flip(_flipped_axes(orientation))
    return flipped.mT if orientation & 1 else flipped


def _flipped_axes(orientation: int) -> list[int]:
    return [axis for axis, bit in ((-1, 2), (-2, 4)) if orientation & bit]


def _is_same(one: torch.device, other: torch.device) -> bool:
    """Whether two names mean one device: ``cuda`` is the first of them."""
    return (one.type, one.index or 0) == (other.type, other.index or 0)
