"""Pictures through the upscaler: seams, sizes, colours, steps and number formats."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from srcli import images, weights
from srcli.color import quantize
from srcli.config import BASE, DEFAULT_OVERLAP, PATCH
from srcli.degradation import bicubic
from srcli.errors import DeviceError, UsageError, WeightsError
from srcli.images import Metadata, Picture
from srcli.model import ResidualAutoencoder
from srcli.upscaling import Settings, Upscaler

EXAMPLE = Path(__file__).parents[1] / "examples" / "originals" / "houses.png"


def upscaler(**options):
    """The shipped weights in fp32."""
    return Upscaler.from_weights("base", settings=Settings(**{"dtype": "fp32", **options}))


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


def seam_error(image, size, *, overlap, tile, dtype="fp32"):
    """Largest difference in 8-bit levels between a tiled result and the untiled one."""
    untiled_side = -(-max(size) // BASE.stride) * BASE.stride
    untiled = upscaler(tile=untiled_side, overlap=BASE.receptive_margin, dtype=dtype)
    tiled = upscaler(tile=tile, overlap=overlap, dtype=dtype)
    results = [quantize(whole(model, image, size)).int() for model in (untiled, tiled)]
    return int((results[0] - results[1]).abs().max())


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("tile", [PATCH, None], ids=["patches", "fused"])
def test_seams_at_the_default_margin_stay_within_one_level(tile, dtype):
    """On a real photograph the shipped weights leave no seam of more than one level."""
    image, size = photograph(140, 165), (420, 495)

    assert seam_error(image, size, overlap=DEFAULT_OVERLAP, tile=tile, dtype=dtype) <= 1


@pytest.mark.parametrize("tile", [PATCH, None], ids=["patches", "fused"])
def test_seams_at_the_full_receptive_field_are_exactly_zero(tile):
    """With all the context that can matter, patches compute what the whole picture would."""
    margin = BASE.receptive_margin

    assert seam_error(photograph(91, 111), (273, 333), overlap=margin, tile=tile) == 0


def test_seams_without_a_margin_are_seen():
    """The measure can fail: no context leaves more than a level."""
    assert seam_error(photograph(91, 111), (273, 333), overlap=0, tile=PATCH) > 1


def test_bf16_stays_close_to_fp32():
    """The working format of a CPU with native bf16 moves next to no value by over a level."""
    image = photograph(91, 111)
    exact, fast = (
        quantize(whole(upscaler(dtype=dtype), image, (273, 333))).int()
        for dtype in ("fp32", "bf16")
    )

    apart = (exact - fast).abs()
    assert int(apart.max()) <= 2
    assert float((apart > 1).float().mean()) < 1e-4


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


def test_a_factor_above_the_trained_ones_goes_in_equal_steps():
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
        model._fast.head.bias.fill_(math.inf)

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


def test_running_out_of_memory_names_the_way_out(monkeypatch):
    """A device's exhaustion is one line with what to try, the machine's a MemoryError."""
    errors = [torch.OutOfMemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
    for error in errors:

        def exhausted(_windows, error=error):
            raise error

        model = identity(tile=PATCH)
        monkeypatch.setattr(model, "_run", exhausted)
        with pytest.raises(MemoryError):
            whole(model, photograph(4, 4), (12, 12))
        model.device = torch.device("meta")  # any device that is not the CPU
        with pytest.raises(DeviceError, match="out of memory: use --tile 120"):
            whole(model, photograph(4, 4), (12, 12))


def test_smaller_than_the_picture_is_refused():
    """The tool enlarges; a smaller size is a contradiction."""
    with pytest.raises(UsageError, match="30x20 cannot be enlarged to 30x19"):
        whole(identity(), photograph(20, 30), (19, 30))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"tile": 100}, "multiple of the net's stride 6, not 100"),
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
