"""What every test runs under, and the fixtures that more than one file uses."""

import os
import signal

import numpy as np
import pytest
import torch
from hypothesis import settings
from PIL import Image
from torch import nn

from srcli.model import weights
from srcli.model.config import ModelConfig, ScalePath
from srcli.model.network import ResidualAutoencoder

# Read when Typer and rich are imported, so set before anything imports them.
os.environ.update({"NO_COLOR": "1", "COLUMNS": "100", "TERM": "dumb"})
for _forcing in ("FORCE_COLOR", "GITHUB_ACTIONS", "PY_COLORS", "TERMINAL_WIDTH"):
    os.environ.pop(_forcing, None)

settings.register_profile("srcli", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("srcli")

torch.set_num_threads(1)

# In the background of a shell Ctrl-C is ignored, by children too; some tests press it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

IMAGE_SIZES = ((121, 163), (135, 149), (151, 127), (129, 201), (183, 125), (143, 157))
"""Height and width of the images of ``image_folder``: odd, not square, at least a patch."""


@pytest.fixture(autouse=True)
def _seeded():
    """Start every test from the same seed."""
    torch.manual_seed(0)


def textured(height, width, seed):
    """Draw a photo-like picture: smooth waves of several lengths with two hard edges."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    channels = []
    for _ in range(3):
        wave = np.full((height, width), 0.5)
        for length, strength in ((5, 0.03), (9, 0.08), (23, 0.12), (60, 0.16)):
            angle, phase = random.uniform(0, 2 * np.pi, 2)
            along = rows * np.sin(angle) + columns * np.cos(angle)
            wave += strength * np.sin(2 * np.pi * along / length + phase)
        channels.append(wave)
    picture = np.stack(channels, -1)
    picture[rows * width + columns * height < 0.7 * height * width] *= 0.7
    picture[(rows - height / 2) ** 2 + (columns - width / 2) ** 2 < height * width / 16] *= 0.8
    return (picture.clip(0, 1) * 255).round().astype(np.uint8)


@pytest.fixture(scope="session")
def photo():
    """A picture of 97 x 61 pixels, ``(61, 97, 3)`` ``uint8``."""
    return textured(61, 97, seed=1)


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory):
    """A folder of six PNG images; shared, so copy it before changing it."""
    folder = tmp_path_factory.mktemp("images")
    for index, (height, width) in enumerate(IMAGE_SIZES):
        Image.fromarray(textured(height, width, seed=10 + index)).save(folder / f"{index}.png")
    return folder


@pytest.fixture(scope="session")
def celeba(tmp_path_factory):
    """Twelve faces in the layout of CelebA, four of them for test; copy it before changing it."""
    folder = tmp_path_factory.mktemp("celeba")
    faces = folder / "img_align_celeba"
    faces.mkdir()
    random = np.random.default_rng(3)
    lines = []
    for number in range(1, 13):
        rows = np.linspace(0, 6, 218)[:, None, None] * random.uniform(1, 5, 3)
        columns = np.linspace(0, 6, 178)[None, :, None] * random.uniform(1, 5, 3)
        pixels = (127 + 90 * np.sin(rows + columns)).astype(np.uint8)
        Image.fromarray(pixels).save(faces / f"{number:06d}.jpg", quality=90)
        lines.append(f"{number:06d}.jpg {0 if number < 9 else 2}\n")
    (folder / "list_eval_partition.txt").write_text("".join(lines), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def tiny_config():
    """The smallest relative of ``base``: every kind of layer that it has, few channels."""
    return ModelConfig(
        stem=3,
        widths=(8, 12),
        encoder=(1,),
        bottom=1,
        decoder=(1,),
        unit="residual",
        down="convolution",
        up="depth-to-space",
        join="before",
        output="correction",
        paths=(ScalePath(scale=2, encoder=(1,), decoder=(1,)),),
    )


@pytest.fixture(scope="session")
def tiny_weights(tiny_config, tmp_path_factory):
    """A weights file of a random tiny net whose correction is not zero."""
    torch.manual_seed(7)
    net = ResidualAutoencoder(tiny_config)
    for head in (net.head, *net.heads.values()):
        nn.init.normal_(head.weight, std=0.02)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    weights.save(path, net.state_dict(), tiny_config, {"scales": [2, 3, 4]})
    return path


@pytest.fixture(scope="session")
def plain_weights(tiny_config, tmp_path_factory):
    """A weights file of a net that corrects nothing: its result is the bicubic enlargement."""
    path = tmp_path_factory.mktemp("weights") / "plain.safetensors"
    net = ResidualAutoencoder(tiny_config)
    weights.save(path, net.state_dict(), tiny_config, {"scales": [2, 3, 4]})
    return path


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working directory, so that the paths of a test are short and relative."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
