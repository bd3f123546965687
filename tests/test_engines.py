"""What computes a net: which engine, device and number format are chosen, and what is refused."""

import platform
import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch
from run_files import needs_openvino, refusal
from upscaler_nets import correcting

from srcli.errors import DeviceError, UsageError, is_installed
from srcli.model.config import BASE, FAST, PAPER
from srcli.model.runner import NetRunner
from srcli.ops import engines
from srcli.ops.engines import Compute, resolve

CPU = torch.device("cpu")


@pytest.fixture
def machine(monkeypatch):
    """Return a function that pretends to be a kind of machine, with OpenVINO or without."""

    def pretend(*, openvino=True, bf16=False, x86=True):
        monkeypatch.setattr(engines, "is_installed", lambda _name: openvino)
        monkeypatch.setattr(platform, "machine", lambda: "AMD64" if x86 else "arm64")
        monkeypatch.setattr("srcli.ops.devices._is_bf16_faster", lambda _device: bf16)

    return pretend


@pytest.mark.parametrize(
    ("there", "dtype", "has_ranges", "chosen"),
    [
        ({}, "auto", True, ("openvino", torch.int8)),
        ({}, "auto", False, ("openvino", torch.float32)),
        ({}, "fp32", True, ("openvino", torch.float32)),
        ({}, "int8", True, ("openvino", torch.int8)),
        ({}, "bf16", True, ("torch", torch.bfloat16)),
        ({"bf16": True}, "auto", True, ("torch", torch.bfloat16)),
        ({"bf16": True}, "int8", True, ("openvino", torch.int8)),
        ({"x86": False}, "auto", True, ("torch", torch.float32)),
        ({"openvino": False}, "auto", True, ("torch", torch.float32)),
    ],
)
@needs_openvino
def test_auto_is_what_was_measured_to_be_faster(machine, there, dtype, has_ranges, chosen):
    """OpenVINO where it is there and the processor has no bf16; int8 where weights have ranges."""
    machine(**there)
    found = resolve("auto", "auto", dtype, has_ranges=has_ranges)

    assert (found.engine, found.dtype) == chosen


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (("onnx", "auto", "auto"), "--engine 'onnx' is unknown: use auto, torch or openvino"),
        (("torch", "cpu", "int8"), "--dtype int8 is computed by --engine openvino"),
        (
            ("openvino", "cuda", "auto"),
            "--engine openvino cannot use --device cuda; use cpu or xpu",
        ),
        (("openvino", "cpu:0", "auto"), "--engine openvino cannot use --device cpu:0; use cpu or"),
        (("openvino", "cpu", "bf16"), "--engine openvino on cpu has no --dtype bf16; use auto, fp"),
        (("auto", "cpu", "int8"), "--dtype int8 needs weights with ranges, which these have not"),
    ],
)
@needs_openvino
def test_what_does_not_go_together_is_one_line(asked, message):
    """The engine, the device and the format are named, and the way out."""
    assert refusal(lambda: resolve(*asked, has_ranges=False), UsageError).startswith(message)


def test_int8_on_a_gpu_is_refused(monkeypatch):
    """Whatever has ranges: int8 is the CPU's."""
    monkeypatch.setattr(engines, "resolve_device", torch.device)

    with pytest.raises(UsageError, match=r"^--dtype int8 needs the CPU, not cuda:1; use --device"):
        resolve("auto", "cuda:1", "int8", has_ranges=True)


@pytest.mark.parametrize("dtype", ["auto", "int8"])
def test_an_engine_that_is_not_installed_says_what_to_install(monkeypatch, dtype):
    """So does a format that needs it."""
    monkeypatch.setattr("srcli.errors.find_spec", lambda _name: None)
    engine = "openvino" if dtype == "auto" else "auto"

    with pytest.raises(UsageError, match=r"openvino needs .*: pip install 'srcli\[openvino\]'$"):
        resolve(engine, "cpu", dtype, has_ranges=True)


def test_a_folder_of_models_is_no_package(monkeypatch, tmp_path):
    """Python would take it for one."""
    (tmp_path / "exported_models").mkdir()
    monkeypatch.syspath_prepend(tmp_path)

    assert find_spec("exported_models")
    assert is_installed("torch")
    assert not is_installed("exported_models")


@needs_openvino
@pytest.mark.parametrize("device", ["xpu", "xpu:3"])
def test_a_gpu_that_openvino_does_not_find(monkeypatch, device):
    """A GPU of Intel's is asked for by name and is not here."""
    monkeypatch.setattr("openvino.Core.available_devices", ["CPU"])

    with pytest.raises(DeviceError, match=f"^--device {device}: OpenVINO finds no GPU here; use"):
        resolve("openvino", device, "auto", has_ranges=False)


@needs_openvino
@pytest.mark.parametrize("config", [BASE, FAST, PAPER], ids=["base", "fast", "paper"])
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_openvino_computes_what_torch_does(config, scale):
    """Every path of every shape, several windows at once: far within a level of 255."""
    net = correcting(config).eval()
    stride = config.at(scale).stride
    windows = torch.rand(2, 3, 5 * stride, 7 * stride)
    by_torch, by_openvino = (
        NetRunner(net, Compute(engine, CPU, torch.float32, "CPU"), {}, ensemble=False, notice=print)
        for engine in ("torch", "openvino")
    )

    difference = by_torch.run(windows, scale) - by_openvino.run(windows, scale)

    assert float(difference.abs().max()) * 255 < 0.01


@needs_openvino
def test_openvino_reports_nothing():
    """The part that would is not even imported, and can be afterwards."""
    code = "import sys, srcli.model.graph; print(*sys.modules); import openvino.tools.ovc"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    modules = done.stdout.split()
    assert "openvino.opset13" in modules
    assert not any(name.startswith(("openvino_telemetry", "openvino.tools")) for name in modules)
