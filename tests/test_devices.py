"""Which device and number format a name stands for, and what is refused."""

import re

import pytest
import torch

from srcli.errors import DeviceError, UsageError
from srcli.ops.devices import resolve_device, resolve_dtype

CPU = torch.device("cpu")
FP32, BF16 = torch.float32, torch.bfloat16


@pytest.fixture
def gpus(monkeypatch):
    """Return a function that pretends to have so many CUDA devices of a capability."""

    def pretend(count, capability=(8, 0), kind="cuda"):
        monkeypatch.setattr(torch.accelerator, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device(kind))
        monkeypatch.setattr(torch.accelerator, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _=None: capability)

    return pretend


@pytest.mark.parametrize(
    ("name", "kind", "auto", "dtype"),
    [
        ("cuda:1", "cuda", "cuda", BF16),
        *((name, name.partition(":")[0], "cpu", FP32) for name in ("mps", "xpu", "xpu:1")),
    ],
)
def test_a_name_is_a_device(gpus, name, kind, auto, dtype):
    """What torch knows and the machine has; ``auto`` takes none that was never tried."""
    gpus(2, kind=kind)

    assert resolve_device(name) == torch.device(name)
    assert resolve_device("auto") == torch.device(auto)
    assert resolve_dtype("auto", torch.device(name)) == dtype
    gpus(0)
    assert resolve_device("auto") == CPU


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        *(
            (name, UsageError, f"{name!r} is unknown: use auto, cpu, cuda, cuda:N, mps or xpu")
            for name in ("", "CPU", "cpu:0", "cuda:-1", "mps:0", "xpu:")
        ),
        ("cuda:1", DeviceError, "cuda:1: this machine has 1 CUDA device; use --device cpu or auto"),
        ("xpu:0", DeviceError, "xpu:0: this machine has no XPU device torch can use; use --device"),
    ],
)
def test_a_device_that_is_not_there_is_refused(gpus, name, error, message):
    """An unknown name is wrong usage; of others the message says how many there are."""
    gpus(1)
    with pytest.raises(error, match=f"^--device {re.escape(message)}"):
        resolve_device(name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("FP32", "'FP32' is unknown: use auto, fp32, bf16, fp16 or int8"),
        ("fp16", "fp16 needs a GPU; on the CPU use auto, bf16 or fp32"),
    ],
)
def test_a_format_that_cannot_be_is_refused(name, message):
    """A format that is none of ours, or not the CPU's, is wrong usage."""
    with pytest.raises(UsageError, match=f"^--dtype {re.escape(message)}$"):
        resolve_dtype(name, CPU)


@pytest.mark.parametrize(
    ("features", "dtype"),
    [
        ({"avx512_bf16": True, "cpu_name": "AMD Ryzen"}, BF16),
        ({"avx512_bf16": True, "amx_bf16": True, "cpu_name": "Intel Xeon"}, BF16),
        ({"avx512_bf16": True, "amx_bf16": False, "cpu_name": "Intel Xeon"}, FP32),
        ({"neon": True, "bf16": True}, FP32),
        ({}, BF16),
    ],
    ids=["zen-4", "intel-amx", "intel-without-amx", "arm", "older-torch"],
)
def test_auto_on_a_processor_is_the_faster_format(monkeypatch, features, dtype):
    """bf16 only where that was measured to be faster; of an older torch its own probe is asked."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: features, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True, raising=False)

    assert resolve_dtype("auto", CPU) == dtype


@pytest.mark.parametrize(("capability", "dtype"), [((8, 0), BF16), ((7, 5), FP32)])
def test_auto_on_a_gpu_is_what_it_multiplies(gpus, capability, dtype):
    """A GPU computes in bf16 from Ampere on, and in fp32 before."""
    gpus(1, capability)

    assert resolve_dtype("auto", torch.device("cuda")) == dtype
