"""Which device and number format a name stands for, and what is refused."""

import pytest
import torch
from torch import nn

from srcli.errors import DeviceError, UsageError
from srcli.ops.devices import all_alike, on_device, resolve_device, resolve_dtype

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def gpus(monkeypatch):
    """Return a function that pretends to have so many CUDA devices of a capability."""

    def pretend(count, capability=(8, 0)):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _=None: capability)

    return pretend


@pytest.mark.parametrize(
    ("name", "count", "names"),
    [
        ("cpu", 2, ["cpu"]),
        ("cuda", 1, ["cuda"]),
        ("cuda", 3, ["cuda:0", "cuda:1", "cuda:2"]),
        ("cuda:1", 3, ["cuda:1"]),
    ],
)
def test_cuda_without_a_number_is_all_of_them(gpus, name, count, names):
    """A number, or a single GPU, or the CPU, stands for itself alone."""
    gpus(count)

    assert [str(one) for one in all_alike(torch.device(name))] == names


def pretend_cpu(monkeypatch, **features):
    """Pretend that the processor has some features."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: features, raising=False)
    monkeypatch.setattr(
        torch.cpu,
        "_is_avx512_bf16_supported",
        lambda: bool(features.get("avx512_bf16")),
        raising=False,
    )


@pytest.mark.parametrize(
    ("name", "count", "device"),
    [
        ("auto", 0, "cpu"),
        ("auto", 1, "cuda"),
        ("cpu", 0, "cpu"),
        ("cpu", 2, "cpu"),
        ("cuda", 1, "cuda"),
        ("cuda:0", 1, "cuda:0"),
        ("cuda:1", 2, "cuda:1"),
    ],
)
def test_a_name_is_a_device(gpus, name, count, device):
    """``auto`` takes a GPU where one is, every other name means what it says."""
    gpus(count)

    assert resolve_device(name) == torch.device(device)


@pytest.mark.parametrize(
    "name", ["", "gpu", "CPU", "cpu:0", "cuda:", "cuda:x", "cuda:-1", "cuda:1:2", "mps", "meta"]
)
def test_an_unknown_device_is_refused(gpus, name):
    """A name that is none of ours is wrong usage, with what may be used instead."""
    gpus(2)
    with pytest.raises(UsageError) as caught:
        resolve_device(name)

    assert str(caught.value) == f"--device {name!r} is unknown: use auto, cpu, cuda or cuda:N"
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:3"])
def test_a_missing_gpu_is_told(gpus, name):
    """Asking for a GPU on a machine without one says so and names the way out."""
    gpus(0)
    with pytest.raises(DeviceError) as caught:
        resolve_device(name)

    assert str(caught.value) == (
        f"--device {name}: this machine has no CUDA device torch can use; use --device cpu or auto"
    )
    assert caught.value.exit_code == 5


@pytest.mark.parametrize("name", ["cuda:2", "cuda:17"])
def test_a_gpu_beyond_the_last_is_told(gpus, name):
    """A number beyond the last GPU says how many there are."""
    gpus(2)
    with pytest.raises(DeviceError) as caught:
        resolve_device(name)

    assert str(caught.value) == (
        f"--device {name}: this machine has 2 CUDA devices; use --device cpu or auto"
    )


@pytest.mark.parametrize(
    ("name", "device", "dtype"),
    [
        ("fp32", CPU, torch.float32),
        ("bf16", CPU, torch.bfloat16),
        ("fp32", CUDA, torch.float32),
        ("bf16", CUDA, torch.bfloat16),
        ("fp16", CUDA, torch.float16),
    ],
)
def test_a_format_by_name(name, device, dtype):
    """A named format is taken as it is named, whatever the hardware likes best."""
    assert resolve_dtype(name, device) == dtype


@pytest.mark.parametrize("name", ["", "float32", "FP32", "int8"])
def test_an_unknown_format_is_refused(name):
    """A format that is none of ours is wrong usage, with what may be used instead."""
    with pytest.raises(UsageError) as caught:
        resolve_dtype(name, CPU)

    assert str(caught.value) == f"--dtype {name!r} is unknown: use auto, fp32, bf16 or fp16"


def test_half_precision_needs_a_gpu():
    """The CPU does not compute in fp16, and the text says what it can do."""
    with pytest.raises(UsageError) as caught:
        resolve_dtype("fp16", CPU)

    assert str(caught.value) == (
        "--dtype fp16 needs a CUDA device; on the CPU use auto, bf16 or fp32"
    )


@pytest.mark.parametrize(
    ("features", "dtype"),
    [
        ({"avx512_bf16": True, "cpu_name": "AMD Ryzen"}, torch.bfloat16),
        ({"avx512_bf16": True, "amx_bf16": True, "cpu_name": "Intel Xeon"}, torch.bfloat16),
        ({"avx512_bf16": True, "amx_bf16": False, "cpu_name": "Intel Xeon"}, torch.float32),
        ({"avx512_bf16": False, "avx2": True, "cpu_name": "AMD Ryzen"}, torch.float32),
        ({"neon": True, "bf16": True}, torch.float32),
        ({}, torch.float32),
    ],
    ids=["zen-4", "intel-amx", "intel-without-amx", "zen-3", "arm", "unknown"],
)
def test_auto_on_a_processor_is_the_faster_format(monkeypatch, features, dtype):
    """A CPU computes in bf16 only where that was measured to be faster than fp32."""
    pretend_cpu(monkeypatch, **features)

    assert resolve_dtype("auto", CPU) == dtype


@pytest.mark.parametrize("native", [True, False])
def test_auto_on_an_older_torch(monkeypatch, native):
    """Where torch cannot list the processor's features, its older probe is asked."""
    pretend_cpu(monkeypatch, avx512_bf16=native)
    monkeypatch.delattr(torch.cpu, "get_capabilities")

    assert resolve_dtype("auto", CPU) == (torch.bfloat16 if native else torch.float32)


@pytest.mark.parametrize(
    ("capability", "dtype"),
    [
        ((9, 0), torch.bfloat16),
        ((8, 0), torch.bfloat16),
        ((7, 5), torch.float32),
        ((6, 1), torch.float32),
    ],
)
def test_auto_on_a_gpu_is_what_it_multiplies(gpus, capability, dtype):
    """A GPU computes in bf16 from Ampere on, and in fp32 before."""
    gpus(1, capability)

    assert resolve_dtype("auto", CUDA) == dtype


def test_a_net_on_a_device_is_in_channels_last_order():
    """The convolutions change their memory's order, not their values, and the net is the same."""
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
    weight = net[0].weight.detach().clone()

    moved = on_device(net, CPU)

    assert moved is net
    assert torch.equal(net[0].weight, weight)
    assert net[0].weight.is_contiguous(memory_format=torch.channels_last)
