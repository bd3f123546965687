"""What computes a net: torch or OpenVINO, on which device, in which number format."""

import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from srcli.errors import DeviceError, UsageError, is_installed, require_package
from srcli.ops.devices import resolve_device, resolve_dtype

__all__ = ["ENGINES", "Compute", "resolve", "without_converter"]

ENGINES = ("auto", "torch", "openvino")

_PLACES = {"CPU": "cpu", "GPU": "xpu"}

_X86 = {"x86_64", "amd64", "i386", "i686", "x86"}


@dataclass(frozen=True, slots=True)
class Compute:
    """What computes a net."""

    engine: str
    """``torch`` or ``openvino``."""

    device: torch.device
    """Where windows are made and results arrive."""

    dtype: torch.dtype
    """``torch.int8``: the convolutions of the residual units alone."""

    target: str
    """What the engine calls its device."""

    @property
    def place(self) -> str:
        """The device as ``--device`` has it."""
        return str(self.device) if self.engine == "torch" else _PLACES[self.target[:3]]

    @property
    def format(self) -> str:
        """The name of the number format."""
        return str(self.dtype).removeprefix("torch.")

    def __str__(self) -> str:
        by = "" if self.engine == "torch" else f" by {self.engine}"
        return f"{self.place} in {self.format}{by}"


def resolve(engine: str, device: str, dtype: str, *, has_ranges: bool) -> Compute:
    """Choose what computes a net.

    ``auto`` is torch on a GPU, and on a CPU where bf16 is fast or there is no OpenVINO. Else it is
    OpenVINO, in int8 if the weights have ranges: see ``docs/performance.md`` for what was measured.

    Args:
        engine: One of :data:`ENGINES`.
        device: See :func:`srcli.ops.devices.resolve_device`.
        dtype: See :func:`srcli.ops.devices.resolve_dtype`, or ``int8``.
        has_ranges: Whether the weights have what int8 needs.

    Raises:
        UsageError: If they do not go together, a name is unknown, or OpenVINO is not installed.
        DeviceError: If the device is not there.
    """
    if engine not in ENGINES:
        raise UsageError(f"--engine {engine!r} is unknown: use auto, torch or openvino")
    if engine == "auto":
        engine = _fastest(device, dtype)
    if engine == "openvino":
        return _by_openvino(device, dtype, has_ranges=has_ranges)
    if dtype == "int8":
        raise UsageError(
            "--dtype int8 is computed by --engine openvino: add that, or use auto or fp32"
        )
    place = resolve_device(device)
    return Compute("torch", place, resolve_dtype(dtype, place), str(place))


@contextmanager
def without_converter() -> Iterator[None]:
    """Import OpenVINO inside, without its converter of other packages' models.

    That is most of the time of the import, and it reports each import over the network, from a
    thread of its own. It can be imported afterwards.
    """
    name = "openvino.tools.ovc"
    before = sys.modules.pop(name, None)
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]
        if before is not None:
            sys.modules[name] = before


def _fastest(device: str, dtype: str) -> str:
    place = resolve_device(device)
    if dtype == "int8":
        if place.type != "cpu":
            raise UsageError(f"--dtype int8 needs the CPU, not {place}; use --device cpu or auto")
        return "openvino"
    is_apt = place.type == "cpu" and platform.machine().lower() in _X86
    if not is_apt or not is_installed("openvino") or dtype not in {"auto", "fp32"}:
        return "torch"
    return "torch" if resolve_dtype(dtype, place) == torch.bfloat16 else "openvino"


def _by_openvino(device: str, dtype: str, *, has_ranges: bool) -> Compute:
    require_package("openvino", "openvino", "--engine openvino")
    kind, _, index = device.partition(":")
    if kind not in {"auto", "cpu", "xpu"} or (index and kind != "xpu"):
        raise UsageError(
            f"--engine openvino cannot use --device {device}; use cpu or xpu, or --engine torch"
        )
    target = "GPU" if kind == "xpu" else "CPU"
    formats = {"auto": torch.float32, "fp32": torch.float32}
    if target == "CPU":
        formats["int8"] = torch.int8
        if has_ranges and resolve_dtype("auto", torch.device("cpu")) != torch.bfloat16:
            formats["auto"] = torch.int8
    else:
        formats["fp16"] = torch.float16
        target = _gpu(device, index)
    if dtype == "int8" and not has_ranges:
        raise UsageError(
            "--dtype int8 needs weights with ranges, which these have not; add them with "
            "python -m srcli.training.calibrate FILE PICTURES, or use auto or fp32"
        )
    if dtype not in formats:
        names = ", ".join(formats)
        raise UsageError(f"--engine openvino on {kind} has no --dtype {dtype}; use {names}")
    return Compute("openvino", torch.device("cpu"), formats[dtype], target)


def _gpu(device: str, index: str) -> str:
    """Name Intel's GPU as OpenVINO does."""
    with without_converter():
        from openvino import Core  # noqa: PLC0415 - an extra brings it

    found = [name for name in Core().available_devices if name.startswith("GPU")]
    name = f"GPU.{index}" if index else "GPU"
    if name not in found and not (name == "GPU" and found):
        has = ", ".join(found) or "no GPU"
        raise DeviceError(f"--device {device}: OpenVINO finds {has} here; use --device cpu or auto")
    return name
