"""Pictures through the upscaler: seams, sizes, colours, steps and number formats."""

import dataclasses
import io
import math
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

import srcli
from srcli import upscaler as upscaling
from srcli.errors import UsageError, WeightsError
from srcli.imaging import images
from srcli.imaging.images import Metadata, Picture
from srcli.model import memory, timing, weights
from srcli.model.config import BASE
from srcli.model.memory import BatchPlans, batch_plans
from srcli.model.network import ResidualAutoencoder
from srcli.model.runner import NetRunner
from srcli.model.tiling import enlarge_rows
from srcli.ops.color import quantize
from srcli.ops.resample import bicubic
from srcli.ops.spans import PATCH
from srcli.training.symmetry import Symmetry
from srcli.upscaler import Settings, Upscaler

ROOT = Path(__file__).parents[1]
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
EXAMPLE = ROOT / "examples" / "originals" / "houses.png"


def upscaler(model="base", **options):
    """Shipped weights in fp32."""
    return Upscaler(model, settings=Settings(**{"dtype": "fp32", **options}))


def identity(**options):
    """An upscaler whose net adds nothing: the bicubic enlargement."""
    return Upscaler(ResidualAutoencoder(BASE), settings=Settings(dtype="fp32", **options))


def photograph(height, width):
    """The middle of the example photograph, ``(3, H, W)`` levels."""
    pixels = images.read(EXAMPLE).pixels
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    part = pixels[top : top + height, left : left + width].copy()
    return torch.from_numpy(part).permute(2, 0, 1)


def grey(height=9, width=7, dtype=np.uint8):
    """A grey ramp from black to white."""
    top = np.iinfo(dtype).max
    pixels = np.linspace(0, top, height * width).astype(dtype).reshape(height, width, 1)
    return Picture(pixels=pixels)


def picture(image, alpha=None):
    """``(C, H, W)`` levels as a picture."""
    return Picture(pixels=image.permute(1, 2, 0).contiguous().numpy(), alpha=alpha)


def whole(model, image, size):
    """All rows of an enlargement, ``(C, h, w)``."""
    return torch.cat([band for _, band in model.enlarge(image, size)], 1)


def seam_error(source, factor, *, overlap, tile, dtype="fp32", model="base"):
    """Largest difference in 8-bit levels between a tiled result and the untiled one."""
    image, size = photograph(*source), tuple(factor * side for side in source)
    untiled_side = -(-max(size) // BASE.common_stride) * BASE.common_stride
    margin = BASE.at(factor).receptive_margin
    untiled = upscaler(model, tile=untiled_side, overlap=margin, dtype=dtype)
    tiled = upscaler(model, tile=tile, overlap=overlap, dtype=dtype)
    results = [quantize(whole(model, image, size)).int() for model in (untiled, tiled)]
    return int((results[0] - results[1]).abs().max())


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("factor", [2, 3, 4])
@pytest.mark.parametrize("tile", [PATCH, None], ids=["patches", "fused"])
def test_seams_at_the_default_margin_stay_within_one_level(tile, factor, dtype):
    """On a real photograph the shipped weights leave no seam of more than one level."""
    assert seam_error((125, 150), factor, overlap=None, tile=tile, dtype=dtype) <= 1


@pytest.mark.parametrize(
    ("model", "factor"),
    [("photo", 2), ("photo", 3), ("photo", 4), ("faces", 3), ("paper", 3)],
)
def test_the_usual_margin_is_enough_for_all_shipped_weights(model, factor):
    """What was measured with ``base`` holds for the others."""
    assert seam_error((125, 150), factor, overlap=None, tile=PATCH, model=model) <= 1


@pytest.mark.parametrize("factor", [2, 3, 4])
@pytest.mark.parametrize("tile", [PATCH, None], ids=["patches", "fused"])
def test_seams_at_the_full_receptive_field_are_exactly_zero(tile, factor):
    """With all the context that can matter, patches compute what the whole picture would."""
    margin = BASE.at(factor).receptive_margin

    assert seam_error((91, 111), factor, overlap=margin, tile=tile) == 0


def test_seams_without_a_margin_are_seen():
    """The measure can fail: no context leaves more than a level."""
    assert seam_error((91, 111), 3, overlap=0, tile=PATCH) > 1


@pytest.mark.parametrize("factor", [2, 3])
def test_bf16_stays_close_to_fp32(factor):
    """The working format of a CPU with native bf16 moves one value in 20, two levels at most."""
    image = photograph(91, 111)
    exact, fast = (
        whole(upscaler(dtype=dtype), image, (91 * factor, 111 * factor)).clamp(0, 1)
        for dtype in ("fp32", "bf16")
    )

    difference = (quantize(exact).int() - quantize(fast).int()).abs()
    assert 0 < float((exact - fast).abs().max()) * 255 < 1.5
    assert 1 <= int(difference.max()) <= 2
    assert float((difference > 0).float().mean()) < 0.05


@pytest.mark.parametrize("batch_size", [2, 3, 8])
def test_the_batch_size_changes_nothing(batch_size):
    """Patches run together are what each is alone."""
    image = photograph(60, 130)
    alone, together = (
        quantize(whole(upscaler(tile=PATCH, batch_size=size), image, (180, 390)))
        for size in (1, batch_size)
    )

    assert torch.equal(alone, together)


def test_the_shipped_weights_beat_bicubic_on_a_photograph():
    """Reduced by three and enlarged again, the net's picture is over a decibel closer."""
    high = photograph(240, 300)
    low = quantize(bicubic(high, (80, 100)))

    def error(result):
        return float((quantize(result).float() - high.float()).square().mean())

    net = error(whole(upscaler(), low, (240, 300)))
    plain = error(bicubic(low, (240, 300)))

    assert 10 * math.log10(plain / net) > 1


@settings(max_examples=25, deadline=None)
@given(height=st.integers(1, 20), width=st.integers(1, 20), scale=st.floats(1, 16))
def test_any_size_from_one_pixel_up_comes_out_exactly(height, width, scale):
    """The result has the size asked for, at every factor, and a flat picture stays flat."""
    size = max(1, round(height * scale)), max(1, round(width * scale))
    image = torch.full((3, height, width), 77, dtype=torch.uint8)

    result = identity().upscale(picture(image), size).pixels

    assert (*size, 3) == result.shape
    assert np.unique(result).tolist() == [77]


def test_an_untrained_correction_is_the_bicubic_filter():
    """With a net that adds nothing the whole path is bicubic, to the level."""
    image = photograph(50, 61)

    actual = identity().upscale(picture(image), (150, 183)).pixels

    expected = quantize(bicubic(image, (150, 183))).permute(1, 2, 0).numpy()
    assert np.array_equal(expected, actual)


def test_the_same_size_changes_nothing():
    """Factor 1 gives the pixels back as they are."""
    image = photograph(20, 30)

    assert np.array_equal(
        picture(image).pixels, upscaler().upscale(picture(image), (20, 30)).pixels
    )


def test_a_factor_below_the_trained_ones_goes_over_the_smallest():
    """x1.3 is x2 reduced: what the filter makes of the whole x2 result, row by row."""
    image, size = photograph(61, 70), (79, 91)
    model = upscaler()

    actual = whole(model, image, size)

    expected = bicubic(whole(model, image, (122, 140)), size)
    assert float((expected - actual).abs().max()) < 1e-5


@pytest.mark.parametrize(("factor", "steps"), [(2.5, [3]), (3.3, [4]), (6, [3, 2]), (7, [4, 2])])
def test_any_factor_is_reached_by_trained_ones(factor, steps):
    """The net enlarges by what it was trained for, largest first; what is too large is reduced."""
    image = photograph(20, 24)
    model = upscaler()
    size = round(20 * factor), round(24 * factor)

    actual = whole(model, image, size)

    expected, product = image, 1
    for step in steps:
        product *= step
        expected = whole(model, expected, (20 * product, 24 * product))
        if step != steps[-1]:
            expected = expected.clamp(0, 1)
    if product != factor:
        expected = bicubic(expected, size)
    assert float((expected - actual).abs().max()) < 1e-5


@pytest.mark.parametrize("size", [(61, 72), (60, 73), (61, 71)])
def test_a_pixel_more_or_less_is_no_other_factor(size):
    """A size that rounding makes a pixel off a trained factor is enlarged by the net directly."""
    model = upscaler()

    (stage,) = model._layout.steps((20, 24), size)

    assert (stage.size, stage.scale) == (size, 3)


def test_a_stretched_size_is_reached_from_above():
    """Of a result that is stretched neither side is enlarged by the filter."""
    model = upscaler()

    for size in [(60, 24), (20, 72), (61, 200), (39, 100)]:
        last = model._layout.steps((20, 24), size)[-1].size
        assert last[0] >= size[0]
        assert last[1] >= size[1]
        assert whole(model, photograph(20, 24), size).shape[-2:] == size


def test_a_net_of_one_factor_takes_that_again():
    """x4 by a net for x3 is x9, reduced: two steps of x2 would be what it never saw."""
    model = Upscaler("base", scales=(3.0,))

    stages = model._layout.steps((20, 24), (80, 96))

    assert [(stage.size, stage.scale) for stage in stages] == [((60, 72), 3), ((180, 216), 3)]


@pytest.mark.parametrize("factor", [2, 4, 6])
def test_a_net_of_one_factor_is_better_than_the_filter_at_others(factor):
    """``paper`` knows x3 alone, and its pictures beat bicubic ones wherever it is asked."""
    original = bicubic(photograph(192, 192).double() / 255, (96, 96))
    image = bicubic(original, (96 // factor, 96 // factor))
    levels = (image.clamp(0, 1) * 255).round().to(torch.uint8)

    restored = whole(upscaler("paper"), levels, (96, 96))

    enlarged = bicubic(levels.double() / 255, (96, 96))
    errors = [float((one.double() - original).square().mean()) for one in (restored, enlarged)]
    assert errors[0] < 0.95 * errors[1]


def test_a_factor_above_the_trained_ones_goes_in_steps():
    """x9 is x3 of x3, the intermediate picture never rounded to levels."""
    image = photograph(20, 24)
    model = upscaler()

    actual = whole(model, image, (180, 216))

    expected = whole(model, whole(model, image, (60, 72)).clamp(0, 1), (180, 216))
    assert torch.equal(expected, actual)


def test_grey_stays_grey_and_sixteen_bits_stay_sixteen():
    """One channel in, one out; levels between the 8-bit ones survive."""
    result = upscaler().upscale(grey(dtype=np.uint16), (27, 21)).pixels

    assert (27, 21, 1) == result.shape
    assert result.dtype == np.uint16
    assert (result % 257 != 0).any()


def test_alpha_is_enlarged_by_the_filter_and_hidden_colours_do_not_bleed():
    """Black under full transparency leaves no dark rim around a white shape."""
    alpha = np.zeros((20, 24, 1), np.uint8)
    alpha[:, 10:] = 255
    image = torch.from_numpy(np.repeat(alpha, 3, 2)).permute(2, 0, 1)

    result = upscaler().upscale(picture(image, alpha), (60, 72))

    assert result.alpha is not None
    expected = quantize(bicubic(torch.from_numpy(alpha).permute(2, 0, 1), (60, 72)))
    assert np.array_equal(expected.permute(1, 2, 0).numpy(), result.alpha)
    assert int(result.pixels[result.alpha[..., 0] > 0].min()) >= 250


def test_metadata_and_duration_travel_along():
    """What the file said of itself is on the result."""
    metadata = Metadata(icc_profile=b"profile", exif=None, dpi=(300.0, 300.0))
    given_picture = Picture(pixels=grey().pixels, duration=40.0, metadata=metadata)

    result = identity().upscale(given_picture, (18, 14))

    assert (result.metadata, result.duration) == (metadata, 40.0)


def test_progress_rises_to_one():
    """The share done grows with the finished rows and ends at one."""
    shares = []
    identity(tile=PATCH).upscale(picture(photograph(100, 20)), (300, 60), shares.append)

    assert sorted(shares) == shares
    assert len(shares) == 3
    assert shares[-1] == 1


def test_a_patch_that_overflows_is_redone_exactly_and_told_once():
    """A result that is not finite in the fast format comes from fp32 instead."""
    notices = []
    model = Upscaler(
        weights.load(weights.resolve("base"))[0],
        settings=Settings(dtype="bf16", tile=PATCH),
        notice=notices.append,
    )
    image = photograph(50, 100)
    expected = quantize(whole(upscaler(tile=PATCH), image, (150, 300)))
    with torch.no_grad():
        model._runner.nets_on(torch.device("cpu"))[0].head.bias.fill_(math.inf)

    actual = quantize(whole(model, image, (150, 300)))

    assert torch.equal(expected, actual)
    assert notices == ["a patch was not finite in torch.bfloat16 and was redone in fp32"]


def test_a_net_that_is_never_finite_is_refused():
    """Weights that overflow even in fp32 are named as the cause."""
    net = ResidualAutoencoder(BASE)
    with torch.no_grad():
        net.head.bias.fill_(math.nan)
    model = Upscaler(net, settings=Settings(dtype="fp32"))

    with pytest.raises(WeightsError, match="not finite even in fp32"):
        whole(model, photograph(4, 4), (12, 12))


def limited(model, monkeypatch, pixels):
    """Let the net of a model run out of memory on windows of more than ``pixels`` pixels."""
    run, sizes = model._runner.run, []

    def exhausted(windows, scale):
        if windows.shape[0] * windows.shape[-2] * windows.shape[-1] > pixels:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes")
        sizes.append(tuple(windows.shape))
        return run(windows, scale)

    monkeypatch.setattr(model._runner, "run", exhausted)
    return sizes


def test_out_of_memory_makes_the_blocks_smaller_and_the_picture_stays(monkeypatch):
    """From the row where memory ran out smaller blocks go on: the same picture, told once."""
    notices = []
    image, size = photograph(150, 130), (900, 780)
    exact = Settings(dtype="fp32", overlap=10_000)  # the receptive field: no seam at all
    expected = whole(
        Upscaler(weights.load(weights.resolve("base"))[0], settings=exact), image, size
    )
    model = Upscaler(settings=exact, notice=notices.append)
    bands = model.enlarge(image, size)
    span, first = next(bands)
    sizes = limited(model, monkeypatch, 480 * 480)

    rest = list(bands)
    again = whole(model, image, size)

    assert span.stop < size[0]
    assert rest[0][0].start == span.stop
    assert torch.equal(quantize(expected), quantize(torch.cat([first, *(b for _, b in rest)], 1)))
    assert torch.equal(quantize(expected), quantize(again))
    assert notices == ["cpu is short of memory: smaller blocks from here on"]
    assert max(height * width for _, _, height, width in sizes) <= 480 * 480


def test_too_little_memory_for_a_single_patch_is_a_memory_error(monkeypatch):
    """When nothing smaller is left to try, the picture fails as one that does not fit."""
    model = Upscaler(ResidualAutoencoder(BASE), settings=Settings(batch_size=4, tile=PATCH))
    sizes = limited(model, monkeypatch, 9)

    with pytest.raises(MemoryError):
        whole(model, photograph(40, 90), (120, 270))

    assert sizes == []


def on_gpus(model, notices, *, fuse=True):
    """Let a model believe that it computes on GPUs."""
    plans = batch_plans(torch.device("cuda"), fuse=fuse, batch_size=None)
    model._plans = BatchPlans(plans, notices.append)


def test_a_device_out_of_memory_hands_over_to_the_cpu(monkeypatch):
    """Batches are halved, then blocks, then the CPU takes over; each is announced once."""
    notices, tried = [], []
    image, size = photograph(50, 100), (150, 300)
    model = Upscaler(settings=Settings(dtype="fp32"))
    expected = whole(model, image, size)
    on_gpus(model, notices)

    def crowded(rows, grid, workers, batch, finish):
        tried.append((workers[0].device.type, model._plans.current.fuse, batch))
        if workers[0].device.type == "cuda":
            raise torch.OutOfMemoryError
        return enlarge_rows(rows, grid, workers, batch, finish)

    monkeypatch.setattr(upscaling, "enlarge_rows", crowded)
    actual = [whole(model, image, size) for _ in range(2)]

    cuda = [(8, 8), (8, 4), (8, 2), (8, 1), (4, 1), (2, 1), (1, 1)]
    assert tried == [("cuda", *each) for each in cuda] + [("cpu", 6, 1)] * 2
    assert all(torch.equal(expected, each) for each in actual)
    assert notices == [
        "cuda is short of memory: smaller blocks from here on",
        "cuda is out of memory: continuing on the CPU",
    ]


@pytest.mark.parametrize("count", [2, 3])
def test_several_devices_share_one_picture(monkeypatch, count):
    """Each computes rows of blocks with a net of its own; the picture is the same."""
    image, size = photograph(140, 60), (420, 180)
    model = Upscaler(settings=Settings(dtype="fp32", tile=PATCH))
    expected = whole(model, image, size)
    monkeypatch.setattr(memory, "all_alike", lambda _: (torch.device("cpu"),) * count)
    on_gpus(model, [], fuse=False)

    assert torch.equal(expected, whole(model, image, size))
    assert [str(one) for one in model._plans.current.devices] == ["cpu"] * count


def test_fp16_of_a_device_is_no_format_of_the_cpu_that_takes_over():
    """The CPU, which cannot compute in fp16, chooses its own format."""
    runner = NetRunner(ResidualAutoencoder(BASE), torch.device("cpu"), "fp32")
    runner._device, runner._dtype_name = torch.device("cuda"), "fp16"

    fast, exact = runner.nets_on(torch.device("cpu"))

    assert {fast.head.weight.dtype, exact.head.weight.dtype} <= {torch.float32, torch.bfloat16}
    assert exact.head.weight.dtype == torch.float32


@pytest.mark.parametrize("background", [0.0, 1.0])
def test_a_cut_out_has_no_halo(background):
    """Whatever lies under the transparent pixels, laid over a ground it is what the ground shows.

    A shape of one colour with soft edges is that colour, as opaque as the filter says, laid over
    the ground: the arithmetic of premultiplied alpha.
    """
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


# ---- from Python --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        *[(mode, mode) for mode in ("L", "LA", "RGB", "RGBA", "I;16")],
        *[("1", "L"), ("P", "RGB"), ("CMYK", "RGB")],
    ],
)
def test_a_pillow_image_becomes_a_larger_one(mode, expected):
    """Any mode goes in; what comes out has the size asked for and shows the same."""
    image = Image.new(mode, (14, 9), 1 if mode == "1" else 0)

    larger = identity()(image, scale=1.5)
    sized = identity()(image, size=(20, 30))

    assert (larger.mode, larger.size) == (expected, (21, 14))
    assert sized.size == (20, 30)
    assert image.size == (14, 9)


def test_a_pillow_image_keeps_what_it_says_and_is_upright():
    """The orientation is applied once; profile and EXIF are on the result."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Maker"
    file = io.BytesIO()
    Image.new("RGB", (14, 9), "red").save(file, "JPEG", exif=exif, icc_profile=SRGB)

    with Image.open(file) as image:
        larger = identity()(image)

    assert larger.size == (27, 42)
    assert larger.info["icc_profile"] == SRGB
    assert larger.getexif().get(0x0112, 1) == 1
    assert larger.getexif()[0x010F] == "Maker"


def test_a_pillow_image_is_not_reduced():
    """A scale below one is a contradiction here as everywhere."""
    with pytest.raises(UsageError, match="that is smaller"):
        identity()(Image.new("L", (10, 10)), scale=0.5)


def test_one_upscaler_serves_several_threads():
    """Each thread gets its own picture's result, the same as alone."""
    model = upscaler()
    images_ = [Image.fromarray(photograph(30 + n, 40).permute(1, 2, 0).numpy()) for n in range(6)]
    alone = [model(image) for image in images_]

    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(model, images_))

    assert [np.asarray(each).tolist() for each in alone] == [
        np.asarray(each).tolist() for each in together
    ]


def test_srcli_has_the_upscaler_and_imports_torch_only_for_it():
    """``from srcli import Upscaler`` works, and ``import srcli`` alone does not wait for torch."""
    code = (
        "import sys, srcli; assert 'torch' not in sys.modules; "
        "from srcli import Settings, Upscaler; print(Upscaler.__module__, Settings.__module__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert done.stdout.split() == ["srcli.upscaler"] * 2
    with pytest.raises(AttributeError, match="no attribute 'Downscaler'"):
        srcli.Downscaler  # noqa: B018 - asking is enough


# ---- self-ensemble ------------------------------------------------------------------------


def correcting(config):
    """A net that changes its input at random."""
    torch.manual_seed(2)
    net = ResidualAutoencoder(config)
    for head in (net.head, *net.heads.values()):
        torch.nn.init.normal_(head.weight, std=0.02)
    return net


def test_tta_is_the_mean_of_the_eight_turned_pictures():
    """Each turned picture alone, turned back, in the mean: the ensemble's result in fp32."""
    image, size = photograph(40, 40), (120, 120)
    net = correcting(dataclasses.replace(BASE, symmetric=False))
    exact = {"dtype": "fp32", "overlap": 10_000}
    plain = Upscaler(net, settings=Settings(**exact))
    results = []
    for quarters in range(4):
        for mirrored in (False, True):
            turned = torch.rot90(image.mT if mirrored else image, quarters, (1, 2))
            result = torch.rot90(whole(plain, turned, size), -quarters, (1, 2))
            results.append(result.mT if mirrored else result)

    actual = whole(Upscaler(net, settings=Settings(**exact, tta=True)), image, size)

    torch.testing.assert_close(actual, torch.stack(results).mean(0), atol=2e-5, rtol=0)
    assert float((results[0] - actual).abs().max()) > 0.01


def test_tta_of_a_symmetric_net_is_one_pass(monkeypatch):
    """All eight are alike, so one is computed; a notice says that nothing is gained."""
    config = dataclasses.replace(BASE, symmetric=True)
    net = correcting(config)
    Symmetry(net, config).begin()
    notes, passes = [], []
    run_once = NetRunner._run_once
    monkeypatch.setattr(
        NetRunner, "_run_once", lambda self, *args: passes.append(1) or run_once(self, *args)
    )
    image, size = photograph(40, 40), (120, 120)
    settings = Settings(dtype="fp32", tta=True)
    made = Upscaler(net, settings=settings, notice=notes.append)

    actual = whole(made, image, size)

    assert notes == [
        "--tta changes nothing with this net: its result is the same in all eight ways"
    ]
    assert len(passes) == 1
    assert made.patches((40, 40), size) == 1
    plain = Upscaler(net, settings=Settings(dtype="fp32"))
    assert torch.equal(whole(plain, image, size), actual)


def test_tta_works_on_any_shape_and_on_grey():
    """A turned block that is not square comes back in its own shape; grey stays grey."""
    result = upscaler(tta=True).upscale(grey(9, 50), (27, 150))

    assert result.pixels.shape == (27, 150, 1)


# ---- foretelling --------------------------------------------------------------------------


class Clocked:
    """A net that only moves a clock, by a millionth of a second for each pixel it is given."""

    def __init__(self, monkeypatch, most=math.inf):
        self.now, self.windows, self.most = 0.0, [], most
        monkeypatch.setattr(NetRunner, "run", lambda _runner, windows, **_: self.run(windows))
        monkeypatch.setattr(timing.time, "perf_counter", lambda: self.now)

    def run(self, windows):
        """Give windows back as they are; those of more than so many pixels do not fit."""
        pixels = windows.shape[0] * windows[0, 0].numel()
        if pixels > self.most:
            raise MemoryError
        self.windows.append(pixels)
        self.now += pixels / 1e6
        return windows


@pytest.mark.parametrize("options", [{}, {"tile": 48}, {"overlap": 0}, {"batch_size": 3}])
@pytest.mark.parametrize(
    ("source", "factor"),
    [((7, 9), 3), ((40, 50), 3), ((75, 31), 2), ((40, 50), 2.5), ((20, 30), 6), ((260, 300), 3)],
)
def test_the_time_foretold_is_that_of_the_windows(source, factor, options, monkeypatch):
    """Of every step, context included: what a run then takes by the same clock."""
    clock = Clocked(monkeypatch)
    made = identity(**options)
    size = round(source[0] * factor), round(source[1] * factor)
    foretold = made.seconds(source, size)
    begun = clock.now

    whole(made, photograph(*source), size)

    assert foretold == pytest.approx(clock.now - begun)


def test_what_is_measured_once_is_known(monkeypatch):
    """Twenty thousand photos of one kind cost one measure; another factor or size one more."""
    clock = Clocked(monkeypatch)
    made = identity()
    draws = torch.get_rng_state()
    one = made.seconds((40, 50), (120, 150))
    passes = len(clock.windows)

    assert torch.equal(torch.get_rng_state(), draws)
    assert passes == 5
    assert made.seconds((40, 50), (120, 150)) == one
    assert made.seconds((80, 50), (240, 150)) > 1.5 * one
    assert made.seconds((40, 50), (40, 50)) == 0
    assert len(clock.windows) == passes
    made.seconds((40, 50), (160, 200))
    assert len(clock.windows) == passes + 5
    made.seconds((900, 900), (2700, 2700))
    assert 0 < len(clock.windows) - passes - 5 <= 5


def test_a_slow_measure_is_not_repeated(monkeypatch):
    """On a slow machine the foretelling must not take longer than the work."""
    clock = Clocked(monkeypatch)
    made = identity(tile=1440)

    made.seconds((400, 400), (1200, 1200))

    assert clock.windows == [(1440 + 2 * BASE.usual_margin) ** 2]


def test_the_fastest_measure_counts(monkeypatch):
    """What else the machine does now and then is not foretold for the whole night."""
    clock = Clocked(monkeypatch)
    made = identity()
    run, delays = clock.run, iter([0.1, 0.0, 0.3, 0.0, 0.2])

    def delayed(windows):
        clock.now += next(delays)
        return run(windows)

    monkeypatch.setattr(clock, "run", delayed)

    assert made.seconds((40, 40), (120, 120)) == pytest.approx(clock.windows[0] / 1e6)


def test_a_measure_that_finds_too_little_memory_goes_on_with_less(monkeypatch):
    """As a run does; what it then says is of the smaller blocks."""
    clock, notes = Clocked(monkeypatch, most=500**2), []
    net = ResidualAutoencoder(BASE)
    made = Upscaler(net, settings=Settings(dtype="fp32"), notice=notes.append)

    assert made.seconds((400, 400), (1200, 1200)) > 1.2**2
    assert notes == ["cpu is short of memory: smaller blocks from here on"]
    assert max(clock.windows) <= 500**2


# ---- refusals ----------------------------------------------------------------------------


def test_smaller_than_the_picture_is_refused():
    """The tool enlarges; a smaller size is a contradiction."""
    with pytest.raises(UsageError, match="30x20 cannot be enlarged to 30x19"):
        whole(identity(), photograph(20, 30), (19, 30))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"tile": 100}, "multiple of the net's stride 24, not 100"),
        ({"tile": 0}, "--tile must be at least 1, not 0"),
        ({"overlap": -1}, "--overlap must be at least 0, not -1"),
        ({"batch_size": 0}, "--batch-size must be at least 1, not 0"),
    ],
)
def test_settings_that_cannot_work_are_refused_at_once(options, text):
    """A wrong number is told before any picture is read."""
    with pytest.raises(UsageError, match=text):
        identity(**options)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
def test_cuda_agrees_with_the_cpu(dtype):
    """On CUDA the picture is the CPU's fp32 one, as closely as the number format allows."""
    image = photograph(91, 111)
    on_cpu = quantize(whole(upscaler(device="cpu"), image, (273, 333))).int()
    on_cuda = quantize(whole(upscaler(device="cuda", dtype=dtype), image, (273, 333))).int()

    assert int((on_cpu - on_cuda).abs().max()) <= (2 if dtype == "bf16" else 1)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_gives_the_same_levels_every_time():
    """Bands that are copied while others are computed come whole: many small ones, three times."""
    image = picture(photograph(200, 120))
    model = upscaler(device="cuda", dtype="fp32", tile=12)

    first, *others = (model.upscale(image, (600, 360)).pixels for _ in range(3))

    assert all(np.array_equal(first, other) for other in others)
    expected = upscaler(device="cpu", tile=12).upscale(image, (600, 360)).pixels
    assert int(np.abs(first.astype(int) - expected.astype(int)).max()) <= 1
