"""Python's ways in: paths, Pillow images, arrays and tensors; pickles, threads, and the end."""

import io
import math
import os
import pickle
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from PIL import Image

from srcli import Settings, Upscaler, UsageError
from srcli.errors import ImageError

needs_openvino = pytest.mark.skipif(
    find_spec("openvino") is None, reason="needs openvino: pip install 'srcli[openvino]'"
)


@pytest.fixture(scope="module")
def upscaler(tiny_weights):
    """A tiny net on the processor, exactly."""
    return Upscaler(tiny_weights, settings=Settings(device="cpu", dtype="fp32"))


@pytest.fixture
def pixels(photo):
    """A small photo, RGB."""
    return photo[:31, :41]


def test_every_kind_comes_back_as_it_was_given(upscaler, pixels, tmp_path):
    """The same pixels by each way in; shape, dtype and layout are kept."""
    path = tmp_path / "photo.png"
    Image.fromarray(pixels).save(path)
    array = upscaler(pixels, scale=2)
    tensor = upscaler(torch.from_numpy(pixels).permute(2, 0, 1), scale=2)

    assert (array.shape, array.dtype) == ((62, 82, 3), np.uint8)
    assert array.flags.c_contiguous
    assert (tuple(tensor.shape), tensor.dtype) == ((3, 62, 82), torch.uint8)
    assert np.array_equal(tensor.permute(1, 2, 0).numpy(), array)
    with os.scandir(tmp_path) as entries:  # an os.PathLike
        (entry,) = entries
    for given in (path, str(path), entry, Image.open(path)):
        image = upscaler(given, scale=2)
        assert isinstance(image, Image.Image)
        assert np.array_equal(np.asarray(image), array)
    view = np.asarray(Image.open(path))  # read-only, of which torch would warn
    assert np.array_equal(upscaler(view, scale=2), array)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("channels", [0, 1, 3, 4])
def test_depths_and_channels_are_kept(upscaler, pixels, dtype, channels):
    """Sixteen bits in colour too, and opacity; all within half a level of the float result."""
    top = 1.0 if dtype == "float32" else np.iinfo(dtype).max
    exact = np.dstack([pixels, pixels[::-1, :, :1]]).astype(np.float32) / 255
    given = ((exact[..., :channels] if channels else exact[..., 0]) * top).astype(dtype)

    result = upscaler(given, size=(100, 70))

    assert (result.dtype, result.shape) == (given.dtype, (70, 100, *given.shape[2:]))
    expected = upscaler((given / np.float32(top)).astype(np.float32), size=(100, 70))
    assert np.abs(result / top - expected).max() <= 0.51 / top + 1e-5
    assert 0 <= expected.min() <= expected.max() <= 1


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4, 2), np.uint8), r"HxW, HxWx3 or HxWx4, not \(4, 4, 2\)"),
        (np.zeros((1, 4, 4, 3), np.uint8), "index or transpose it"),
        (np.zeros((0, 4, 3), np.uint8), r"not \(0, 4, 3\)"),
        (np.zeros((4, 4, 3), np.float64), "not float64: convert it with astype"),
        (np.full((4, 4, 3), 7, np.float32), r"\[0, 1\], not 7 to 7: divide"),
        (np.full((4, 4), np.nan, np.float32), r"\[0, 1\], not nan"),
        (torch.zeros(2, 3, 4, 4), r"one picture of a batch at a time"),
        (torch.zeros(5, 4, 3), r"C 1, 3 or 4, not"),
        ([[1, 2], [3, 4]], r"not list: open .*, convert others with numpy\.asarray"),
        (io.BytesIO(), r"not BytesIO: open a file or bytes with PIL\.Image\.open"),
        (Image.new("RGB", (0, 5)), "it has no pixels"),
    ],
)
def test_what_is_no_picture_is_refused(upscaler, image, message):
    """Kind, shape, dtype or range, and what to do."""
    with pytest.raises((TypeError, ImageError), match=message):
        upscaler(image)


def test_its_own_size_changes_nothing(upscaler, pixels):
    """Not even what lies under transparency, which may be data."""
    given = np.dstack([pixels, np.zeros_like(pixels[..., :1])])

    assert np.array_equal(upscaler(given, 1), given)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"scale": 2, "size": (90, 90)}, "give one of them"),
        *(
            (wrong, "give a number as scale, or two whole numbers")
            for wrong in ({"scale": math.nan}, {"scale": "x"}, {"size": 90}, {"size": (90.5, 90)})
        ),
        *(
            (large, "choose at most 16 times its sides")
            for large in ({"scale": 17}, {"size": (41, 10**6)})
        ),
        ({"scale": 0.5}, "that is smaller"),
    ],
    ids=str,
)
def test_a_size_that_cannot_be_is_refused(upscaler, pixels, asked, message):
    """A service hands on what it was asked for; see docs/python.md."""
    with pytest.raises(UsageError, match=message):
        upscaler(pixels, **asked)


def test_it_can_be_sent_to_another_process(upscaler, tiny_weights, pixels, monkeypatch, tmp_path):
    """A pickle holds name and settings, no tensors, and means the same file anywhere."""
    monkeypatch.chdir(tiny_weights.parent)
    relative = Upscaler(tiny_weights.name, settings=upscaler.settings, notice=print)
    content = pickle.dumps(relative)
    monkeypatch.chdir(tmp_path)

    again = pickle.loads(content)  # noqa: S301 - our own

    assert len(content) < 2000
    assert again.settings == upscaler.settings
    assert np.array_equal(again(pixels, 2), upscaler(pixels, 2))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("engine", ["torch", pytest.param("openvino", marks=needs_openvino)])
def test_a_fork_does_not_wait_for_threads_that_it_has_not(tiny_weights, engine):
    """As multiprocessing makes them by default on Linux, after something has been enlarged."""
    code = (
        "import os, signal, sys, numpy, torch\n"
        "from srcli import Settings, Upscaler\n"
        "torch.set_num_threads(2)\n"
        "settings = Settings(device='cpu', dtype='fp32', engine=sys.argv[2])\n"
        "upscaler, image = Upscaler(sys.argv[1], settings=settings), numpy.zeros((90, 90), 'u1')\n"
        "upscaler(image)\n"
        "if child := os.fork():\n"
        "    sys.exit(os.waitpid(child, 0)[1] != 0)\n"
        "signal.alarm(60)\n"
        "upscaler(image)\n"
        "os._exit(0)\n"
    )

    subprocess.run([sys.executable, "-c", code, str(tiny_weights), engine], check=True)


def test_a_closed_one_says_so(tiny_weights, pixels):
    """At the end of its block, however often."""
    with Upscaler(tiny_weights) as closing:
        assert closing(pixels).shape == (93, 123, 3)
    closing.close()

    with pytest.raises(UsageError, match="this upscaler is closed: make another one"):
        closing(pixels, 2)
