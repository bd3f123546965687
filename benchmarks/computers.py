"""Seconds for whole photographs by kind of processor, engine and number format, beside peers.

A part of ``performance.py``. The instructions are limited by oneDNN's ``ONEDNN_MAX_CPU_ISA``, which
torch's and OpenVINO's convolutions follow, and torch's own ``ATEN_CPU_CAPABILITY``. Peers are nets
of other people's in the files of ncnn, which computes with all instructions that there are.
"""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "ENGINES",
    "LIMITS",
    "PEERS",
    "TASKS",
    "Ncnn",
    "Task",
    "capable",
    "limited",
    "per_megapixel",
]

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Task:
    """What a person has, and wants."""

    title: str
    size: tuple[int, int]
    """Height and width of the photograph."""

    scale: int

    @property
    def megapixels(self) -> float:
        """Of the result."""
        return self.size[0] * self.size[1] * self.scale**2 / 1e6


TASKS = (
    Task("12-megapixel photo ×2", (3000, 4000), 2),
    Task("0.5-megapixel picture ×4", (600, 832), 4),
)

LIMITS = {
    "AVX2": ("AVX2", {"avx2"}),
    "AVX2 with VNNI": ("AVX2_VNNI", {"avx_vnni"}),
    "AVX-512": ("AVX512_CORE", {"avx512bw"}),
    "AVX-512 with VNNI": ("AVX512_CORE_VNNI", {"avx512_vnni"}),
    "AVX-512 with bf16": ("AVX512_CORE_BF16", {"avx512_bf16"}),
    "AMX": ("AVX512_CORE_AMX", {"amx_bf16", "amx_int8"}),
}
"""Kinds of processors: oneDNN's name, and the flags by which Linux knows them."""

ENGINES = {
    "AVX2": ("torch fp32", "openvino fp32", "openvino int8"),
    "AVX2 with VNNI": ("openvino int8",),
    "AVX-512": ("torch fp32", "openvino fp32", "openvino int8"),
    "AVX-512 with VNNI": ("openvino int8",),
    "AVX-512 with bf16": ("torch bf16",),
    "AMX": ("torch bf16", "openvino int8"),
}
"""What is measured on each: what VNNI does not change is left out."""

PEERS = {
    "general-x4v3": ("RealESRGAN_General_x4_v3", "data", "output", 4),
    "4xLSDIRCompactC3": ("4xLSDIRCompactC3", "data", "output", 4),
    "waifu2x upconv_7_photo": ("upconv_7_photo", "Input1", "Eltwise4", 2),
}
"""Files of ncnn, the names of input and output, and the factor."""


def capable(name: str) -> bool:
    """Whether this processor has the instructions of a kind, as Linux says."""
    found = Path("/proc/cpuinfo")
    flags = found.read_text(encoding="utf-8").split() if found.exists() else []
    return LIMITS[name][1] <= set(flags)


def limited(name: str) -> dict[str, str]:
    """Return the environment that limits a process to a kind of processor."""
    environment = {"ONEDNN_MAX_CPU_ISA": LIMITS[name][0]}
    return environment | ({"ATEN_CPU_CAPABILITY": "avx2"} if name.startswith("AVX2") else {})


class Ncnn:
    """A peer: whole pictures, fp32, all cores; on the processor.

    Args:
        files: As :data:`PEERS` has them.
        folder: Where they are.
    """

    def __init__(self, files: tuple[str, str, str, int], folder: Path) -> None:
        import ncnn  # noqa: PLC0415 - for who compares alone

        stem, self._entry, self._end, self.scale = files
        self._mat, self._net = ncnn.Mat, ncnn.Net()
        self._net.opt.use_vulkan_compute = False
        self._net.opt.num_threads = os.cpu_count() or 1
        for option in ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_storage"):
            setattr(self._net.opt, f"use_{option}", False)
        self._net.load_param(str(folder / f"{stem}.param"))
        self._net.load_model(str(folder / f"{stem}.bin"))

    def __call__(self, low: Pixels) -> Pixels:
        """Enlarge ``(H, W, 3)``."""
        # ncnn does not keep an array alive: it must outlive the run.
        values = np.ascontiguousarray(low.transpose(2, 0, 1), np.float32) / np.float32(255)
        extractor = self._net.create_extractor()
        extractor.input(self._entry, self._mat(values).clone())
        _, result = extractor.extract(self._end)
        pixels = np.array(result).transpose(1, 2, 0) * 255
        return pixels.round().clip(0, 255).astype(np.uint8)


def per_megapixel(run: Callable[[Pixels], Pixels], low: Pixels, rounds: int) -> float:
    """Return the seconds that a megapixel of a result takes, the median of several runs."""
    times: list[float] = []
    shape: Sequence[Any] = ()
    for _ in range(rounds):
        begun = time.perf_counter()
        shape = run(low).shape
        times.append(time.perf_counter() - begun)
    return float(median(times) / (shape[0] * shape[1] / 1e6))
