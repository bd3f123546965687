"""Pictures through the upscaler, and every way in from Python: files, images, arrays, processes."""

import dataclasses
import io
import math
import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from PIL import Image, ImageCms
from run_files import needs_openvino
from upscaler_nets import SMALL, correcting, photograph, upscaler, whole

from srcli import Settings, Upscaler, UsageError
from srcli.errors import ImageError, WeightsError
from srcli.imaging.images import Picture
from srcli.model.network import ResidualAutoencoder
from srcli.ops.arrays import interleaved
from srcli.ops.color import quantize
from srcli.ops.resample import bicubic
from srcli.ops.spans import PATCH
from srcli.training.symmetry import Symmetry


def identity(**options):
    """An upscaler whose net adds nothing: the bicubic enlargement."""
    return upscaler(ResidualAutoencoder(SMALL), **options)


def picture(image):
    """``(C, H, W)`` pixels as a picture."""
    return Picture(pixels=interleaved(image))


# ---- sizes and steps ----------------------------------------------------------------------


@hypothesis.settings(max_examples=25)
@hypothesis.given(height=st.integers(1, 20), width=st.integers(1, 20), scale=st.floats(1, 16))
def test_any_size_from_one_pixel_up_comes_out_exactly(height, width, scale):
    """The result has the size asked for, at every factor, and a flat picture stays flat."""
    size = max(1, round(height * scale)), max(1, round(width * scale))
    image = torch.full((3, height, width), 77, dtype=torch.uint8)

    result = identity().upscale(picture(image), size).pixels

    assert (*size, 3) == result.shape
    assert np.unique(result).tolist() == [77]


def test_an_untrained_correction_is_the_bicubic_filter():
    """With a net that adds nothing the whole way is bicubic."""
    image = photograph(50, 61)

    actual = identity().upscale(picture(image), (150, 183)).pixels

    assert np.array_equal(interleaved(quantize(bicubic(image, (150, 183)))), actual)


@pytest.mark.parametrize(
    ("scales", "size", "steps"),
    [
        # What is a pixel off a trained factor is enlarged by the net directly.
        ((2, 3, 4), (61, 71), [((61, 71), 3)]),
        ((2, 3, 4), (50, 60), [((60, 72), 3)]),
        ((2, 3, 4), (120, 144), [((60, 72), 3), ((120, 144), 2)]),
        # Of a result that is stretched neither side is enlarged by the filter.
        ((2, 3, 4), (39, 100), [((60, 72), 3), ((120, 144), 2)]),
        # By a net for x3, x4 is x9, reduced: two steps of x2 would be what it never saw.
        ((3,), (80, 96), [((60, 72), 3), ((180, 216), 3)]),
    ],
)
def test_any_size_is_reached_by_trained_factors(scales, size, steps):
    """The largest first; what is too large is reduced, what is between two steps only clamped."""
    image = photograph(20, 24)
    model = Upscaler(correcting(), scales=scales, settings=Settings(dtype="fp32"))

    actual = whole(model, image, size)

    found = model._layout.steps((20, 24), size)
    assert [(step.size, step.scale) for step in found] == steps
    expected = image
    for number, step in enumerate(found, 1):
        expected = whole(model, expected, step.size)
        expected = expected if number == len(steps) else expected.clamp(0, 1)
    expected = expected if step.size == size else bicubic(expected, size)
    assert float((expected - actual).abs().max()) < 1e-5


# ---- number formats -----------------------------------------------------------------------


@pytest.mark.parametrize("factor", [2, 3])
def test_bf16_stays_close_to_fp32(factor):
    """bf16 changes at most one value in 20, and none by more than two levels."""
    image, size = photograph(75, 100), (75 * factor, 100 * factor)
    exact, fast = (
        whole(upscaler(dtype=dtype), image, size).clamp(0, 1) for dtype in ("fp32", "bf16")
    )

    difference = (quantize(exact).int() - quantize(fast).int()).abs()
    assert 0 < float((exact - fast).abs().max()) * 255 < 1.5
    assert 1 <= int(difference.max()) <= 2
    assert float((difference > 0).float().mean()) < 0.05


def test_the_autocast_of_a_caller_changes_nothing():
    """It is meant for the caller's own net."""
    model, image, size = upscaler(correcting()), photograph(20, 30), (60, 90)
    with torch.autocast("cpu", torch.bfloat16):
        inside = whole(model, image, size)

    assert torch.equal(inside, whole(model, image, size))


def test_a_patch_that_overflows_is_redone_in_fp32_and_reported_once():
    """A result that is not finite in the fast format comes from fp32 instead."""
    notices = []
    model = upscaler(correcting(), notices.append, dtype="bf16", tile=PATCH)
    image = photograph(50, 100)
    expected = whole(upscaler(correcting(), tile=PATCH), image, (150, 300))
    with torch.no_grad():
        model._runner.nets()[0].head.bias.fill_(math.inf)

    assert torch.equal(expected, whole(model, image, (150, 300)))
    assert notices == ["a patch was not finite in torch.bfloat16 and was redone in fp32"]


def test_a_net_that_is_never_finite_is_refused():
    """Weights that overflow even in fp32 are named as the cause."""
    net = ResidualAutoencoder(SMALL)
    with torch.no_grad():
        net.head.bias.fill_(math.nan)

    with pytest.raises(WeightsError, match="not finite even in fp32"):
        whole(upscaler(net), photograph(4, 4), (12, 12))


# ---- colours and metadata -----------------------------------------------------------------


@pytest.mark.parametrize("background", [0.0, 1.0])
def test_a_cut_out_has_no_halo(background):
    """By premultiplied alpha one colour with soft edges is that colour, laid over the ground."""
    rows, columns = np.mgrid[:24, :30]
    opacity = np.clip(9.5 - np.hypot(rows - 12, columns - 15), 0, 1)[..., None]
    alpha = (opacity * 255).round().astype(np.uint8)
    colour = np.array([230, 40, 90])
    pixels = np.where(alpha > 0, colour, np.array([0, 255, 0])).astype(np.uint8)

    result = identity().upscale(Picture(pixels=pixels, alpha=alpha), (72, 90))

    def laid(colours, share):
        return colours / 255 * share + background * (1 - share)

    wide = bicubic(torch.from_numpy(alpha / 255).permute(2, 0, 1), (72, 90))
    expected = laid(colour, wide.clamp(0, 1).permute(1, 2, 0).numpy())
    assert np.abs(laid(result.pixels, result.alpha / 255) - expected).max() <= 2 / 255


# ---- self-ensemble ------------------------------------------------------------------------


def test_tta_is_the_mean_of_the_eight_turned_pictures():
    """Each turned picture alone, turned back, in the mean: the ensemble's result in fp32."""
    image, size = photograph(40, 40), (120, 120)
    plain, ensemble = (upscaler(correcting(), overlap=10_000, tta=tta) for tta in (False, True))
    results = []
    for quarters in range(4):
        for mirrored in (False, True):
            turned = torch.rot90(image.mT if mirrored else image, quarters, (1, 2))
            result = torch.rot90(whole(plain, turned, size), -quarters, (1, 2))
            results.append(result.mT if mirrored else result)

    actual = whole(ensemble, image, size)

    torch.testing.assert_close(actual, torch.stack(results).mean(0), atol=2e-5, rtol=0)
    assert float((results[0] - actual).abs().max()) > 0.01
    assert ensemble.patches((40, 40), size) == 8
    # A block that is not square comes back in its own shape, and grey stays grey.
    grey = Picture(pixels=np.zeros((9, 50, 1), np.uint8))
    assert ensemble.upscale(grey, (27, 150)).pixels.shape == (27, 150, 1)


def test_tta_of_a_symmetric_net_is_one_pass():
    """All eight orientations are alike, so one is computed; a notice says so."""
    config = dataclasses.replace(SMALL, symmetric=True)
    net = correcting(config)
    Symmetry(net, config).begin()
    notices = []
    image, size = photograph(40, 40), (120, 120)
    model = upscaler(net, notices.append, tta=True)

    assert torch.equal(whole(upscaler(net), image, size), whole(model, image, size))
    assert notices == [
        "--tta changes nothing with this net: its result is the same in all eight ways"
    ]
    assert model.patches((40, 40), size) == 1


# ---- from Python --------------------------------------------------------------------------


def test_a_pillow_image_keeps_what_it_says_and_is_upright():
    """The orientation is applied once; profile, EXIF, XMP and resolution are on the result."""
    image, exif = Image.new("RGB", (14, 9), "red"), Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Maker"
    image.info = {
        "exif": exif.tobytes(),
        "icc_profile": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
        "xmp": b"<x/>",
        "dpi": (300, 300),
    }

    larger = identity()(image)

    assert larger.size == (27, 42)
    for name in ("icc_profile", "xmp", "dpi"):
        assert larger.info[name] == image.info[name]
    assert larger.getexif().get(0x0112, 1) == 1
    assert larger.getexif()[0x010F] == "Maker"


def test_one_upscaler_serves_several_threads():
    """Each thread gets its own picture's result, the same as alone."""
    model = upscaler(correcting())
    images = [Image.fromarray(photograph(30 + n, 40).permute(1, 2, 0).numpy()) for n in range(6)]
    alone = [model(image).tobytes() for image in images]

    with ThreadPoolExecutor(3) as pool:
        together = [image.tobytes() for image in pool.map(model, images)]

    assert together == alone


# ---- arrays and tensors, processes and threads --------------------------------------------


@pytest.fixture(scope="module")
def tiny(tiny_weights):
    """A tiny net on the processor, exactly."""
    return Upscaler(tiny_weights, settings=Settings(device=torch.device("cpu"), dtype="fp32"))


@pytest.fixture
def pixels(photo):
    """A small photo, RGB."""
    return photo[:31, :41]


def test_every_kind_comes_back_as_it_was_given(tiny, pixels, tmp_path):
    """The same pixels by each way in; shape, dtype and layout are kept."""
    path = tmp_path / "photo.png"
    Image.fromarray(pixels).save(path)
    array = tiny(pixels, scale=2)
    tensor = tiny(torch.from_numpy(pixels).permute(2, 0, 1), scale=2)

    assert (array.shape, array.dtype) == ((62, 82, 3), np.uint8)
    assert array.flags.c_contiguous
    assert (tuple(tensor.shape), tensor.dtype) == ((3, 62, 82), torch.uint8)
    assert np.array_equal(tensor.permute(1, 2, 0).numpy(), array)
    with os.scandir(tmp_path) as entries:  # an os.PathLike
        (entry,) = entries
    for given in (path, str(path), entry, Image.open(path)):
        image = tiny(given, scale=2)
        assert isinstance(image, Image.Image)
        assert np.array_equal(np.asarray(image), array)
    view = np.asarray(Image.open(path))  # read-only, of which torch would warn
    assert np.array_equal(tiny(view, scale=2), array)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("channels", [0, 1, 3, 4])
def test_depths_and_channels_are_kept(tiny, pixels, dtype, channels):
    """Sixteen bits in colour too, and opacity; all within half a level of the float result."""
    top = 1.0 if dtype == "float32" else np.iinfo(dtype).max
    exact = np.dstack([pixels, pixels[::-1, :, :1]]).astype(np.float32) / 255
    given = ((exact[..., :channels] if channels else exact[..., 0]) * top).astype(dtype)

    result = tiny(given, size=(100, 70))

    assert (result.dtype, result.shape) == (given.dtype, (70, 100, *given.shape[2:]))
    expected = tiny((given / np.float32(top)).astype(np.float32), size=(100, 70))
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
def test_what_is_no_picture_is_refused(tiny, image, message):
    """Kind, shape, dtype or range, and what to do."""
    with pytest.raises((TypeError, ImageError), match=message):
        tiny(image)


def test_grey_is_the_mean_of_three_equal_channels(tiny, pixels):
    """The net sees R = G = B."""
    grey = 0.3 + pixels[..., 0].astype(np.float32) / 255 * 0.4

    assert np.allclose(tiny(grey), tiny(np.stack([grey] * 3, -1)).mean(-1), atol=1e-5)


def test_its_own_size_changes_nothing(tiny, pixels):
    """Not even what lies under transparency, which may be data."""
    given = np.dstack([pixels, np.zeros_like(pixels[..., :1])])

    assert np.array_equal(tiny(given, 1), given)


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
def test_a_size_that_cannot_be_is_refused(tiny, pixels, asked, message):
    """A service hands on what it was asked for; see docs/python.md."""
    with pytest.raises(UsageError, match=message):
        tiny(pixels, **asked)


def test_it_can_be_sent_to_another_process(tiny, tiny_weights, pixels, monkeypatch, tmp_path):
    """A pickle holds name and settings, no tensors, and means the same file anywhere."""
    monkeypatch.chdir(tiny_weights.parent)
    relative = Upscaler(tiny_weights.name, settings=tiny.settings, notice=print)
    content = pickle.dumps(relative)
    monkeypatch.chdir(tmp_path)

    again = pickle.loads(content)  # noqa: S301 - our own

    assert len(content) < 2000
    assert again.settings == tiny.settings
    assert np.array_equal(again(pixels, 2), tiny(pixels, 2))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("engine", ["torch", pytest.param("openvino", marks=needs_openvino)])
def test_a_fork_does_not_wait_for_threads_that_it_has_not(tiny_weights, engine):
    """As multiprocessing makes them by default on Linux, after something has been enlarged."""
    code = (
        "import os, signal, sys, numpy, torch\n"
        "from srcli import Settings, Upscaler\n"
        "torch.set_num_threads(2)\n"
        "settings = Settings(device='cpu', dtype='fp32', engine=sys.argv[2])\n"
        "tiny, image = Upscaler(sys.argv[1], settings=settings), numpy.zeros((90, 90), 'u1')\n"
        "tiny(image)\n"
        "if child := os.fork():\n"
        "    sys.exit(os.waitpid(child, 0)[1] != 0)\n"
        "signal.alarm(60)\n"
        "tiny(image)\n"
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
    with pytest.raises(UsageError, match=r"scales must lie in 1.01..16, not \[2, 1\]"):
        Upscaler(tiny_weights, scales=(2, 1))
