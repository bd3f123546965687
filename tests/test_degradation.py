"""Bicubic against other implementations, windows, and the two-way degradation."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch.nn import functional

from srcli.data.degrading import degrade, training_input
from srcli.imaging.jpeg_roundtrip import jpeg_roundtrip
from srcli.ops import degrade as degradation
from srcli.ops import resample
from srcli.ops.color import dequantize, quantize
from srcli.ops.degradation import Degradation
from srcli.ops.degrade import DRAWS, PHASE_DRAWS
from srcli.ops.resample import bicubic
from srcli.ops.spans import Span

SIZES = [
    (61, 97),
    (122, 194),
    (183, 291),
    (92, 145),
    (200, 97),
    (61, 300),
    (31, 49),
    (20, 32),
    (7, 11),
    (1, 1),
    (150, 40),
]
"""Enlarged, reduced, one way each, to odd and even: height and width from 61 x 97."""

EVERYTHING = Degradation.parse("blur=0..3, noise=0..20, jpeg=10..100, kernel=any")

CLEAN, KERNEL = 6, 7
"""The draws of whether a sample is spared, and of its kernel."""

sides = st.integers(1, 40)


@st.composite
def windows(draw):
    """Draw a picture, the size to bring it to, and a window inside the result."""
    size = draw(st.integers(1, 90)), draw(st.integers(1, 90))
    edges = [
        sorted(draw(st.lists(st.integers(0, n), min_size=2, max_size=2, unique=True))) for n in size
    ]
    picture = noise(draw(sides), draw(sides), seed=draw(st.integers(0, 99)))
    return picture, size, (Span(*edges[0]), Span(*edges[1]))


def noise(height, width, seed=0):
    """Make ``(3, H, W)`` uniform noise on 8-bit levels, ``uint8``."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)


def crop(image, window):
    """Cut a window out of ``(..., H, W)``."""
    rows, columns = window
    return image[..., rows.start : rows.stop, columns.start : columns.stop]


@given(height=sides, width=sides, size=st.tuples(st.integers(1, 90), st.integers(1, 90)))
def test_bicubic_is_torchs_antialiased_filter(height, width, size):
    """PyTorch's own antialiased bicubic gives the same values, overshoot included."""
    image = noise(height, width) / 255
    (expected,) = functional.interpolate(
        image[None], size, mode="bicubic", antialias=True, align_corners=False
    )

    torch.testing.assert_close(bicubic(image, size), expected, rtol=0, atol=1e-5)


@given(height=sides, width=sides, size=st.tuples(st.integers(1, 90), st.integers(1, 90)))
def test_bicubic_is_pillows_filter(height, width, size):
    """Pillow gives the same values where it too computes in floating point."""
    image = noise(height, width) / 255
    expected = [
        np.array(Image.fromarray(channel).resize(size[::-1], Image.Resampling.BICUBIC))
        for channel in image.numpy()
    ]

    np.testing.assert_allclose(bicubic(image, size), np.stack(expected), rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_bicubic_is_pillows_filter_on_files(photo, size):
    """Pillow, in whole numbers, is never more than one level away on a photo."""
    expected = np.asarray(Image.fromarray(photo).resize(size[::-1], Image.Resampling.BICUBIC))

    found = quantize(bicubic(torch.from_numpy(photo).permute(2, 0, 1), size))

    assert np.abs(found.permute(1, 2, 0).numpy().astype(int) - expected).max() <= 1


@pytest.mark.parametrize("scale", [2, 3, 2.5])
def test_bicubic_reproduces_quadratics(scale):
    """Away from the border a parabola is enlarged to itself: Keys' a is -0.5, not -0.75."""
    side = 16
    final = int(side * scale)
    inputs = (torch.arange(side, dtype=torch.float64) + 0.5) / side
    outputs = (torch.arange(final, dtype=torch.float64) + 0.5) / final
    inner = slice(int(3 * scale), -int(3 * scale))

    enlarged = bicubic((inputs**2).expand(1, 4, side), (4, final))[0, 0]

    torch.testing.assert_close(enlarged[inner], outputs[inner] ** 2, rtol=0, atol=1e-6)


@given(case=windows(), scaled=st.booleans())
def test_a_window_is_the_crop_of_the_whole(case, scaled):
    """Any window computed alone has the very bits that it has in the whole picture."""
    picture, size, window = case
    image = picture / 255 if scaled else picture

    assert torch.equal(bicubic(image, size, window), crop(bicubic(image, size), window))


@given(
    height=sides,
    width=sides,
    size=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    pads=st.tuples(*[st.integers(0, 70)] * 4),
)
def test_a_window_outside_reflects_the_result(height, width, size, pads):
    """Beyond its edges the result continues as its mirror image, as far as one may ask."""
    image = noise(height, width)
    top, bottom, left, right = pads
    window = Span(-top, size[0] + bottom), Span(-left, size[1] + right)
    whole = bicubic(image, size).numpy()

    expected = np.pad(whole, ((0, 0), (top, bottom), (left, right)), mode="symmetric")

    torch.testing.assert_close(
        bicubic(image, size, window), torch.from_numpy(expected), rtol=0, atol=1e-6
    )


@given(height=sides, width=sides, size=st.tuples(st.integers(1, 90), st.integers(1, 90)))
def test_a_flat_picture_stays_flat(height, width, size):
    """A constant is a constant at every size: the weights of a pixel sum to one."""
    image = torch.full((1, height, width), 0.3)

    torch.testing.assert_close(bicubic(image, size), torch.full((1, *size), 0.3))


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (23, 37)], ids=str)
def test_the_same_size_is_the_same_picture(shape):
    """Nothing is filtered when nothing changes size."""
    picture = noise(*shape)

    assert torch.equal(bicubic(picture, shape), picture / 255)


def test_integers_are_levels():
    """8-bit and 16-bit pictures are brought to [0, 1] before they are filtered."""
    picture = noise(9, 7)
    expected = bicubic(picture / 255, (20, 30))

    assert torch.equal(bicubic(picture, (20, 30)), expected)
    wide = (picture.to(torch.int32) * 257).to(torch.uint16)
    torch.testing.assert_close(bicubic(wide, (20, 30)), expected, rtol=0, atol=1e-6)


def test_bicubic_overshoots():
    """The filter's result is not clamped: next to an edge it leaves [0, 1]."""
    step = torch.zeros(1, 8, 8)
    step[..., 4:] = 1

    enlarged = bicubic(step, (24, 24))

    assert enlarged.min() < -0.05
    assert enlarged.max() > 1.05


@given(height=sides, width=sides, scale=st.floats(1, 8))
def test_a_degraded_picture_lies_on_levels(height, width, scale):
    """What is reduced could be an 8-bit file: every value is a whole level in [0, 1]."""
    low = degrade(noise(height, width) / 255, scale)

    assert torch.equal(low, torch.arange(256)[(low * 255).round().long()] / 255)


@pytest.mark.parametrize(
    ("scale", "size"),
    [(1, (61, 97)), (2, (31, 49)), (3, (20, 32)), (4, (15, 24)), (2.5, (24, 39)), (200, (1, 1))],
)
def test_a_degraded_picture_is_pillows_reduction(photo, scale, size):
    """Sides are divided and rounded half up, and the pixels are Pillow's within a level."""
    expected = np.asarray(Image.fromarray(photo).resize(size[::-1], Image.Resampling.BICUBIC))

    low = degrade(torch.from_numpy(photo).permute(2, 0, 1) / 255, scale)

    found = (low.permute(1, 2, 0).numpy() * 255).round().astype(int)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 1


def test_a_training_input_is_there_and_back():
    """The input is the patch reduced, put on 8-bit levels, and enlarged again, for its scale."""
    patches = torch.stack([noise(120, 120, seed) for seed in range(4)]) / 255
    scales = [2.0, 3.0, 4.0, 2.5]

    found = training_input(patches, scales)

    for patch, scale, result in zip(patches, scales, found, strict=True):
        low = bicubic(patch, (round(120 / scale),) * 2)
        levels = (low * 255 + 0.5).floor().clamp(0, 255) / 255
        torch.testing.assert_close(result, bicubic(levels, (120, 120)), rtol=0, atol=1e-6)


def test_a_batch_of_scales_is_each_alone():
    """Patches of a batch do not know of one another, whichever scales they come with."""
    patches = torch.stack([noise(120, 120, seed) for seed in range(6)]) / 255
    scales = [3.0, 2.0, 3.0, 4.0, 2.5, 2.0]

    alone = [training_input(patches[i : i + 1], scales[i : i + 1]) for i in range(6)]

    assert torch.equal(training_input(patches, scales), torch.cat(alone))


def test_larger_scales_lose_more():
    """The input lies further from the patch the larger its scale is."""
    patches = noise(120, 120)[None] / 255
    errors = [
        float((training_input(patches, [scale]) - patches).square().mean())
        for scale in (1.0, 2.0, 3.0, 4.0)
    ]

    assert errors[0] == 0
    assert errors == sorted(set(errors))


def uniform(samples, seed=0):
    """Draw the numbers that a batch is degraded by."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(samples, DRAWS, generator=generator, dtype=torch.float64)


def batch_of(picture):
    """Make ``(1, 3, H, W)`` or ``(1, 1, H, W)`` in [0, 1] of a ``uint8`` array."""
    planes = picture[None] if picture.ndim == 2 else picture.transpose(2, 0, 1)
    return torch.from_numpy(planes.copy())[None] / 255


def levels_of(image):
    """Bring one picture in [0, 1] to the array ``(H, W, C)`` of its file."""
    return (image * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()


@pytest.mark.parametrize("sigma", [0.3, 0.8, 1.5, 4.0, 8.0])
def test_the_blur_is_a_gaussian(sigma):
    """A dense convolution in float64 with the 2-D Gaussian gives the same, edges included."""
    images = torch.stack([noise(50, 41, seed) for seed in range(2)]) / 255
    radius = math.ceil(3 * sigma)
    line = torch.arange(-radius, radius + 1, dtype=torch.float64)
    kernel = (-(line[:, None] ** 2 + line**2) / (2 * sigma**2)).exp()
    padded = np.pad(
        images.double(), ((0, 0), (0, 0), (radius, radius), (radius, radius)), "symmetric"
    )
    channels = torch.from_numpy(padded).flatten(0, 1)[:, None]
    expected = functional.conv2d(channels, (kernel / kernel.sum())[None, None])

    found = degradation._filtered(
        images, (50, 41), torch.tensor([sigma, 0.0], dtype=torch.float64), "bicubic"
    )

    torch.testing.assert_close(found[0], expected[:3, 0].float(), rtol=0, atol=1e-5)
    assert torch.equal(found[1], images[1])


def test_the_picture_is_blurred_before_it_is_reduced(photo):
    """The deviation is in HR pixels, and what is reduced is the blurred picture."""
    image = batch_of(photo)
    blurred = degradation._filtered(image, image.shape[-2:], torch.tensor([1.7]), "bicubic")

    found = degrade(image, 3, Degradation(blur=(1.7, 1.7)), uniform(1))

    assert float((found - degrade(blurred, 3)).abs().max()) < 1.01 / 255
    assert float((found - degrade(image, 3)).abs().max()) > 5 / 255


@pytest.mark.parametrize("text", ["blur=0", "noise=0", "blur=0,noise=0"])
def test_no_deviation_is_plain_bicubic(text):
    """A deviation of zero changes no bit, also beside a sample that is changed."""
    images = torch.stack([noise(60, 48, seed) for seed in range(2)]) / 255
    draws = uniform(2)

    assert torch.equal(degrade(images, 2, Degradation.parse(text), draws), degrade(images, 2))
    draws[0] = 0
    found = degrade(images, 2, Degradation.parse(text.replace("0", "0..5")), draws)
    assert torch.equal(found[0], degrade(images[0], 2))
    assert not torch.equal(found[1], degrade(images[1], 2))


@pytest.mark.parametrize("sigma", [1.0, 8.0, 25.0])
def test_noise_has_the_deviation_asked_for(sigma):
    """Noise is white: mean 0, its deviation in levels, nothing in common between pixels."""
    image = torch.full((1, 3, 200, 240), 128 / 255)

    low = degrade(image, 1, Degradation(noise=(sigma, sigma)), uniform(1)) * 255 - 128

    count = low.numel()
    assert abs(float(low.mean())) < 4 * sigma / math.sqrt(count)
    # Rounding to levels adds a twelfth to the variance.
    assert float(low.std()) == pytest.approx(math.sqrt(sigma**2 + 1 / 12), rel=0.01)
    for shifted in (low.roll(1, -1), low.roll(1, -2), low.roll(1, -3)):
        assert abs(float((low * shifted).mean())) / sigma**2 < 4 / math.sqrt(count)


def test_noise_is_drawn_within_its_range():
    """The deviation follows the draw from the low end of the range to the high one."""
    image = torch.full((5, 3, 64, 64), 128 / 255)
    draws = uniform(5)
    draws[:, 1] = torch.linspace(0, 0.999, 5)

    low = degrade(image, 1, Degradation(noise=(4, 12)), draws) * 255

    found = low.flatten(1).std(1)
    torch.testing.assert_close(found, torch.linspace(4, 12, 5), rtol=0.03, atol=0)


@given(
    limits=st.tuples(st.floats(0, 64), st.floats(0, 64)).map(sorted),
    whole=st.tuples(st.integers(1, 100), st.integers(1, 100)).map(sorted),
    draw=st.floats(0, 1, exclude_max=True) | st.just(math.nextafter(1, 0)),
)
def test_what_is_drawn_lies_in_its_range(limits, whole, draw):
    """No rounding carries a number out of the range that it is drawn from."""
    number = float(degradation._drawn(torch.tensor([draw], dtype=torch.float64), limits))
    integer = int(degradation._drawn_whole(torch.tensor([draw], dtype=torch.float64), whole))

    assert limits[0] <= number <= limits[1]
    assert whole[0] <= integer <= whole[1]


def test_every_quality_of_a_range_is_drawn():
    """Both ends of a range of whole numbers come as often as what lies between."""
    draws = (torch.arange(600, dtype=torch.float64) + 0.5) / 600

    found = degradation._drawn_whole(draws, (30, 35))

    assert torch.bincount(found)[30:].tolist() == [100] * 6


@pytest.mark.parametrize("column", [*range(CLEAN), KERNEL])
def test_every_draw_changes_the_result(column):
    """No column of the draws is left unread, and each part reads its own."""
    image = noise(60, 60)[None] / 255
    draws, changed = torch.full((2, 1, DRAWS), 0.5, dtype=torch.float64)
    changed[:, column] = 0.25
    readers = {0: "blur=0..3", 1: "noise=0..20", 5: "noise=0..20", KERNEL: "kernel=any"}
    reader = readers.get(column, "jpeg=10..100")

    assert not torch.equal(
        degrade(image, 2, EVERYTHING, draws), degrade(image, 2, EVERYTHING, changed)
    )
    for text in ("blur=0..3", "noise=0..20", "jpeg=10..100", "kernel=any"):
        part = Degradation.parse(text)
        same = torch.equal(degrade(image, 2, part, draws), degrade(image, 2, part, changed))
        assert same == (text != reader)


def test_the_share_that_stays_clean_is_plain_bicubic():
    """A draw of its own spares a sample every part, and leaves its neighbour as it was."""
    images = torch.stack([noise(60, 60), noise(60, 60)]) / 255
    draws = torch.full((2, DRAWS), 0.5, dtype=torch.float64)
    draws[:, CLEAN] = torch.tensor([0.29, 0.3])
    some = Degradation.parse(f"{EVERYTHING},clean=0.3")

    found = degrade(images, 2, some, draws)

    assert torch.equal(found[0], degrade(images[0], 2))
    assert torch.equal(found[1], degrade(images, 2, EVERYTHING, draws)[1])


def test_the_same_draws_are_the_same_picture():
    """Nothing but the draws decides: neither what came before nor torch's own seed."""
    image = torch.stack([noise(60, 60)] * 2) / 255
    draws = uniform(2)
    before = degrade(image, 2, EVERYTHING, draws)
    torch.manual_seed(5)

    assert torch.equal(degrade(image, 2, EVERYTHING, draws), before)
    assert not torch.equal(before[0], before[1])


def test_seeds_close_together_are_different_noise():
    """Draws that differ in their sixth digit seed noise that has nothing in common."""
    draws = torch.full((64, DRAWS), 0.5, dtype=torch.float64)
    draws[:, 5] += torch.arange(64) * 1e-6

    low = degrade(torch.full((64, 3, 32, 32), 0.5), 1, Degradation(noise=(20, 20)), draws)

    alike = torch.corrcoef(low.flatten(1)).fill_diagonal_(0).abs().max()
    assert float(alike) < 6 / math.sqrt(3 * 32 * 32)


def test_the_jpeg_file_is_written_last():
    """JPEG gets the picture with its blur and noise, at the quality and phase drawn."""
    images = torch.stack([noise(90, 75, seed) for seed in range(3)]) / 255
    draws = uniform(3)
    parts = {"blur": (0.5, 2), "noise": (2, 9)}

    found = degrade(images, 3, Degradation(**parts, jpeg=(40, 80)), draws)

    before = degrade(images, 3, Degradation(**parts), draws)
    for low, picture, row in zip(found, before, draws.tolist(), strict=True):
        quality, phase = 40 + int(row[2] * 41), (int(row[3] * 16), int(row[4] * 16))
        expected = jpeg_roundtrip(levels_of(picture), quality, phase)
        np.testing.assert_array_equal(levels_of(low), expected)


def test_a_whole_picture_begins_at_the_corner_of_the_grid(photo):
    """One picture without phase is the JPEG file of its reduction, as Pillow writes it."""
    image = batch_of(photo)[0]
    draws = uniform(1)
    draws[:, PHASE_DRAWS] = 0

    found = degrade(image, 2, Degradation(jpeg=(80, 80)), draws)

    assert found.shape == (3, 31, 49)
    expected = jpeg_roundtrip(levels_of(degrade(image, 2)), 80)
    np.testing.assert_array_equal(levels_of(found), expected)


@pytest.mark.parametrize(
    "text", ["blur=0..3", "noise=3", "jpeg=20..90", "kernel=lanczos", str(EVERYTHING)]
)
def test_grey_pictures_are_degraded_too(photo, text):
    """One channel comes back as one channel; without noise it is that of the same RGB."""
    part, draws = Degradation.parse(text), uniform(1)
    grey = batch_of(photo[..., 0])

    found = degrade(grey[0], 2, part, draws)

    assert found.shape == (1, 31, 49)
    assert not torch.equal(found, degrade(grey[0], 2))
    if part.noise is None:
        expected = degrade(grey.expand(-1, 3, -1, -1), 2, part, draws)[0]
        assert torch.equal(found.expand(3, -1, -1), expected)


@given(height=sides, width=sides, scale=st.floats(1, 8), seed=st.integers(0, 99))
def test_a_fully_degraded_picture_lies_on_levels(height, width, scale, seed):
    """Whatever happens to it, a picture of any size ends on whole levels in [0, 1]."""
    image = noise(height, width, seed)[None] / 255

    low = degrade(image, scale, EVERYTHING, uniform(1, seed))

    assert low.shape == degrade(image, scale).shape
    assert torch.equal(low, torch.arange(256)[(low * 255).round().long()] / 255)


@pytest.mark.parametrize("scale", [1.0, 2.0, 3.0, 3.7])
def test_a_degraded_batch_is_each_alone(scale):
    """A sample does not know of its neighbours: the same bits alone and in any batch."""
    images = torch.stack([noise(72, 60, seed) for seed in range(7)]) / 255
    draws = uniform(7)

    alone = [degrade(images[i], scale, EVERYTHING, draws[i : i + 1]) for i in range(7)]

    assert torch.equal(degrade(images, scale, EVERYTHING, draws), torch.stack(alone))


def test_a_training_input_is_degraded_and_enlarged():
    """Each patch of a mixed batch goes through its own draws at its own scale, and back."""
    patches = torch.stack([noise(120, 120, seed) for seed in range(6)]) / 255
    scales, draws = [3.0, 2.0, 3.0, 4.0, 2.5, 2.0], uniform(6)

    found = training_input(patches, scales, EVERYTHING, draws)

    for i, scale in enumerate(scales):
        low = degrade(patches[i], scale, EVERYTHING, draws[i : i + 1])
        assert torch.equal(found[i], bicubic(low, (120, 120)))


@pytest.mark.parametrize(
    ("draws", "message"),
    [
        (None, rf"needs draws of the shape \(2, {DRAWS}\), not None$"),
        (torch.zeros(1, DRAWS), rf"\(2, {DRAWS}\), not \(1, {DRAWS}\)$"),
        (torch.zeros(2, 3), rf"\(2, {DRAWS}\), not \(2, 3\)$"),
        (torch.full((2, DRAWS), 1.0), r"^draws must lie in \[0, 1\)$"),
        (torch.full((2, DRAWS), -0.1), r"^draws must lie in \[0, 1\)$"),
        (torch.full((2, DRAWS), math.nan), r"^draws must lie in \[0, 1\)$"),
    ],
    ids=["none", "rows", "columns", "one", "negative", "nan"],
)
def test_draws_that_do_not_fit_are_refused(draws, message):
    """More than plain bicubic needs a row of numbers in [0, 1) for every sample."""
    images = torch.zeros(2, 3, 24, 24)

    with pytest.raises(ValueError, match=message):
        degrade(images, 2, EVERYTHING, draws)
    with pytest.raises(ValueError, match=message):
        training_input(images, [2, 3], EVERYTHING, draws)


def test_plain_bicubic_needs_no_draws():
    """By default the pictures are reduced and nothing else, whatever draws come with them."""
    images = torch.stack([noise(48, 36, seed) for seed in range(2)]) / 255

    plain = degrade(images, 2, Degradation(), uniform(2))

    assert torch.equal(plain, degrade(images, 2))
    assert torch.equal(plain, dequantize(quantize(bicubic(images, (24, 18)))))


def test_the_work_happens_on_the_device_of_the_picture():
    """On a device that refuses to mix with the CPU the result comes out there."""
    patches = torch.empty(3, 3, 60, 60, device="meta")

    part = Degradation.parse("blur=0..3, noise=0..20, kernel=any")  # JPEG is done on the CPU

    found = training_input(patches, [2.0, 3.0, 2.0], part, uniform(3))

    assert found.device.type == "meta"
    assert found.shape == patches.shape


def test_weights_are_brought_to_a_device_once():
    """A second batch finds the weights of the first where they are needed."""
    patches = torch.empty(2, 3, 66, 66, device="meta")
    training_input(patches, [2.0, 3.0])
    before = resample._moved.cache_info()

    training_input(patches, [3.0, 2.0])

    after = resample._moved.cache_info()
    assert after.misses == before.misses
    assert after.hits > before.hits


def test_weights_follow_the_format_of_the_picture():
    """The same axis in ``float64`` after ``float32`` is computed in ``float64``."""
    image = noise(24, 30)[None] / 255
    single = bicubic(image, (10, 12))

    double = bicubic(image.double(), (10, 12))

    assert (single.dtype, double.dtype) == (torch.float32, torch.float64)
    torch.testing.assert_close(single.double(), double, rtol=0, atol=1e-6)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_degrades_as_the_cpu_does():
    """Blur and reduction round to the same level or its next, and JPEG comes back to the GPU."""
    images = torch.stack([noise(96, 84, seed) for seed in range(5)]) / 255
    draws = uniform(5)
    plain = Degradation.parse("blur=0..3,noise=0..20,kernel=any")

    found = degrade(images.cuda(), 2, plain, draws).cpu()
    assert float((found - degrade(images, 2, plain, draws)).abs().max()) < 1.01 / 255
    assert degrade(images.cuda(), 2, EVERYTHING, draws).device.type == "cuda"
