"""Which device and number format a name stands for, and what is refused."""

import pytest
import torch
from torch import nn

from srcli.errors import DeviceError, UsageError
from srcli.ops.devices import on_device, resolve_device, resolve_dtype

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
FP32, BF16, FP16 = torch.float32, torch.bfloat16, torch.float16


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
    ("name", "count", "device"),
    [
        ("auto", 0, "cpu"),
        ("auto", 1, "cuda"),
        ("cuda:1", 3, "cuda:1"),
    ],
)
def test_a_name_is_a_device(gpus, name, count, device):
    """``auto`` takes a GPU where one is."""
    gpus(count)

    assert resolve_device(name) == torch.device(device)


@pytest.mark.parametrize("name", ["", "CPU", "cpu:0", "cuda:-1", "mps:0", "xpu:"])
def test_an_unknown_device_is_refused(gpus, name):
    """A name that is none of ours is wrong usage, with what may be used instead."""
    gpus(2)
    with pytest.raises(UsageError) as caught:
        resolve_device(name)

    assert (
        str(caught.value)
        == f"--device {name!r} is unknown: use auto, cpu, cuda, cuda:N, mps or xpu"
    )


@pytest.mark.parametrize(
    ("name", "count", "there"),
    [
        ("cuda", 0, "has no CUDA device torch can use"),
        ("cuda:1", 1, "has 1 CUDA device"),
        ("xpu:0", 1, "has no XPU device torch can use"),
    ],
)
def test_a_missing_gpu_is_reported(gpus, name, count, there):
    """The message says how many there are, and names the way out."""
    gpus(count)
    with pytest.raises(DeviceError) as caught:
        resolve_device(name)

    assert str(caught.value) == f"--device {name}: this machine {there}; use --device cpu or auto"


@pytest.mark.parametrize("name", ["mps", "xpu", "xpu:1"])
def test_an_accelerator_by_name(gpus, name):
    """What torch knows and the machine has; ``auto`` does not take it, for it was never tried."""
    gpus(2, kind=name.partition(":")[0])

    assert resolve_device(name) == torch.device(name)
    assert resolve_device("auto") == CPU
    assert resolve_dtype("auto", torch.device(name)) == FP32


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("FP32", "'FP32' is unknown: use auto, fp32, bf16, fp16 or int8"),
        ("fp16", "fp16 needs a GPU; on the CPU use auto, bf16 or fp32"),
    ],
)
def test_a_format_that_cannot_be_is_refused(name, message):
    """A format that is none of ours, or not the CPU's, is wrong usage."""
    with pytest.raises(UsageError) as caught:
        resolve_dtype(name, CPU)

    assert str(caught.value) == f"--dtype {message}"


@pytest.mark.parametrize(
    ("features", "dtype"),
    [
        ({"avx512_bf16": True, "cpu_name": "AMD Ryzen"}, BF16),
        ({"avx512_bf16": True, "amx_bf16": True, "cpu_name": "Intel Xeon"}, BF16),
        ({"avx512_bf16": True, "amx_bf16": False, "cpu_name": "Intel Xeon"}, FP32),
        ({"neon": True, "bf16": True}, FP32),
    ],
    ids=["zen-4", "intel-amx", "intel-without-amx", "arm"],
)
def test_auto_on_a_processor_is_the_faster_format(monkeypatch, features, dtype):
    """A CPU computes in bf16 only where that was measured to be faster than fp32."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: features, raising=False)

    assert resolve_dtype("auto", CPU) == dtype


@pytest.mark.parametrize(("native", "dtype"), [(True, BF16), (False, FP32)])
def test_auto_on_an_older_torch(monkeypatch, native, dtype):
    """Where torch cannot list the processor's features, its older probe is asked."""
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native, raising=False)

    assert resolve_dtype("auto", CPU) == dtype


@pytest.mark.parametrize(("capability", "dtype"), [((8, 0), BF16), ((7, 5), FP32)])
def test_auto_on_a_gpu_is_what_it_multiplies(gpus, capability, dtype):
    """A GPU computes in bf16 from Ampere on, and in fp32 before."""
    gpus(1, capability)

    assert resolve_dtype("auto", CUDA) == dtype


def test_a_net_on_a_device_is_in_channels_last_order():
    """The convolutions change their memory's order, not their values, and the net is the same."""
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
    weight = net[0].weight.detach().clone()

    assert on_device(net, CPU) is net
    assert torch.equal(net[0].weight, weight)
    assert net[0].weight.is_contiguous(memory_format=torch.channels_last)
