"""Which device and number format the net runs on: the one place that decides."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import nn

from srcli.errors import DeviceError, UsageError

__all__ = ["memory_errors", "on_device", "resolve_device", "resolve_dtype"]

_Net = TypeVar("_Net", bound=nn.Module)

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def resolve_device(name: str) -> torch.device:
    """Turn a name into a device that is available: ``auto`` is CUDA if there is any, else the CPU.

    Of ``cuda`` and ``xpu`` there may be several, each with a number, as in ``cuda:1``.

    Raises:
        UsageError: If the name is none of these.
        DeviceError: If there is no such device on this machine.
    """
    if name == "auto":
        return torch.device("cuda" if _count("cuda") else "cpu")
    kind, _, index = name.partition(":")
    is_numbered = kind in {"cuda", "xpu"} and index.isdecimal()
    if kind not in {"cpu", "cuda", "mps", "xpu"} or (":" in name and not is_numbered):
        raise UsageError(f"--device {name!r} is unknown: use auto, cpu, cuda, cuda:N, mps or xpu")
    if kind != "cpu":
        count, what = _count(kind), kind.upper()
        if int(index or 0) >= count:
            devices = f"{count} {what} device{'s' if count > 1 else ''}"
            there = f"has {devices}" if count else f"has no {what} device torch can use"
            raise DeviceError(f"--device {name}: this machine {there}; use --device cpu or auto")
    return torch.device(name)


def _count(kind: str) -> int:
    """Count the accelerators of a kind that torch can use."""
    there = torch.accelerator.is_available() and torch.accelerator.current_accelerator()
    return torch.accelerator.device_count() if there and there.type == kind else 0


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    """Turn ``auto`` or a format's name into the dtype that the net computes in.

    ``auto`` is bf16 where that is measured to be faster, else fp32: a GPU from Ampere on, a CPU
    with AMX, or one with AVX-512 BF16 that is not Intel's.

    Raises:
        UsageError: If the name is unknown, or the device cannot compute in it.
    """
    if name == "auto":
        return torch.bfloat16 if _is_bf16_faster(device) else torch.float32
    if name not in _DTYPES:
        raise UsageError(f"--dtype {name!r} is unknown: use auto, fp32, bf16, fp16 or int8")
    if name == "fp16" and device.type == "cpu":
        raise UsageError("--dtype fp16 needs a GPU; on the CPU use auto, bf16 or fp32")
    return _DTYPES[name]


@contextmanager
def memory_errors() -> Iterator[None]:
    """Turn what torch raises when memory runs out, on any device, into ``MemoryError``."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise MemoryError(str(error)) from error
    except RuntimeError as error:
        # The allocators of the CPU and of Apple's GPU have no error of their own.
        if not any(text in str(error) for text in ("allocate memory", "out of memory")):
            raise
        raise MemoryError(str(error)) from error


def on_device(net: _Net, device: torch.device) -> _Net:
    """Move a net to a device, its convolutions in channels-last order, and return it.

    oneDNN and cuDNN both run 3x3 convolutions fastest in that order, and in it no layer has to
    reorder its input.
    """
    moved: _Net = net.to(device)
    return moved.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def _is_bf16_faster(device: torch.device) -> bool:
    """Whether a device computes the net faster in bf16 than in fp32.

    AMD's processors with ``avx512_bf16`` take half the time; an Intel Xeon that has it without AMX
    takes 1.5 to 1.7 times as long.
    """
    if device.type != "cpu":
        # Ampere and later; torch also says yes to older ones, which emulate it.
        is_cuda = device.type == "cuda"
        return is_cuda and torch.cuda.get_device_capability(device) >= (8, 0)
    features: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    if features:
        is_intel = "intel" in str(features.get("cpu_name", "")).lower()
        return bool(features.get("amx_bf16") or (features.get("avx512_bf16") and not is_intel))
    # Older versions of torch name neither the other features nor the processor.
    return bool(getattr(torch.cpu, "_is_avx512_bf16_supported", bool)())
