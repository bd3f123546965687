"""Blocks of patches in the upscaler: seams, batches, too little memory, the time taken."""

import functools
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from upscaler_nets import SMALL, correcting, photograph, upscaler, whole

from srcli.imaging.images import Picture
from srcli.model import batches
from srcli.model.batches import BatchPlans
from srcli.model.config import BASE
from srcli.model.network import ResidualAutoencoder
from srcli.model.patches import Grid, Rows, enlarge_rows
from srcli.model.runner import NetRunner
from srcli.ops.color import quantize
from srcli.ops.resample import bicubic
from srcli.ops.spans import PATCH, plan_axis

# ---- seams --------------------------------------------------------------------------------


@functools.cache
def untiled(model, factor, dtype, source):
    """A photograph enlarged in one block, with all the context that can matter."""
    size = tuple(factor * side for side in source)
    side = -(-max(size) // BASE.common_stride) * BASE.common_stride
    made = upscaler(model, tile=side, overlap=BASE.at(factor).receptive_margin, dtype=dtype)
    return quantize(whole(made, photograph(*source), size)).int()


def seam_error(factor, source=(75, 100), model="base", dtype="fp32", **options):
    """Largest difference in 8-bit levels between a tiled result and the untiled one."""
    size = tuple(factor * side for side in source)
    tiled = whole(upscaler(model, dtype=dtype, **options), photograph(*source), size)
    return int((untiled(model, factor, dtype, source) - quantize(tiled).int()).abs().max())


@pytest.mark.parametrize(
    ("model", "factor", "dtype"),
    [
        *itertools.product(["base"], [2, 3, 4], ["fp32", "bf16"]),
        *itertools.product(["photo"], [2, 3, 4], ["fp32"]),
        *itertools.product(["faces", "paper"], [3], ["fp32"]),
    ],
)
def test_seams_at_the_default_margin_stay_within_one_level(model, factor, dtype):
    """On a real photograph no shipped weights leave a seam of more than one level."""
    assert seam_error(factor, model=model, dtype=dtype, tile=PATCH) <= 1


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_seams_at_the_full_receptive_field_are_exactly_zero(factor):
    """With all the context that can matter, patches compute what the whole picture would."""
    margin = BASE.at(factor).receptive_margin

    assert seam_error(factor, (45, 65), overlap=margin, tile=PATCH) == 0


def test_fused_patches_leave_no_other_seams(monkeypatch):
    """Blocks of two patches a side keep to the same limits; no context leaves more than a level."""
    monkeypatch.setitem(batches._FUSE, "cpu", 2)

    assert seam_error(3) <= 1
    assert seam_error(3, overlap=10_000) == 0
    assert seam_error(3, overlap=0) > 1


# ---- too little memory --------------------------------------------------------------


def limited(model, monkeypatch, pixels):
    """Let the net of a model run out of memory on windows of more than ``pixels`` pixels."""
    run, sizes = model._runner.run, []

    def exhausted(windows, **options):
        if windows.shape[0] * windows.shape[-2] * windows.shape[-1] > pixels:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes")
        sizes.append(tuple(windows.shape))
        return run(windows, **options)

    monkeypatch.setattr(model._runner, "run", exhausted)
    return sizes


def test_out_of_memory_makes_the_blocks_smaller_and_the_picture_stays(monkeypatch):
    """From the row where memory ran out smaller blocks are used: the same picture, one notice."""
    notices = []
    image, size = photograph(300, 260), (900, 780)
    expected = whole(upscaler(correcting(), overlap=10_000), image, size)
    model = upscaler(correcting(), notices.append, overlap=10_000)
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
    model = upscaler(correcting(), batch_size=4, tile=PATCH)
    limited(model, monkeypatch, 9)

    with pytest.raises(MemoryError):
        whole(model, photograph(40, 90), (120, 270))


def test_a_gpu_short_of_memory_takes_smaller_batches_and_blocks():
    """Batches are halved, then blocks, down to single patches; it is announced once."""
    notices = []
    plans = BatchPlans(torch.device("cuda"), fuse=True, batch_size=None, notice=notices.append)
    found = [plans.current]

    while plans.fall_back(plans.current):
        found.append(plans.current)

    assert [(plan.fuse, plan.batch) for plan in found] == [
        *((8, 8), (8, 4), (8, 2), (8, 1), (4, 1), (2, 1), (1, 1))
    ]
    assert notices == ["cuda is short of memory: smaller blocks from here on"]


@pytest.mark.parametrize(
    ("factor", "options", "count"),
    [(3, {}, 6), (3, {"batch_size": 2}, 4), (3, {"tta": True}, 48), (6, {}, 6 + 20), (2.5, {}, 6)],
)
def test_progress_moves_with_every_batch(factor, options, count, monkeypatch):
    """Within a row of blocks, too, in all steps and passes; it never falls, and ends with all."""
    monkeypatch.setattr(NetRunner, "_run_once", lambda _runner, image, _scale: image)
    net = ResidualAutoencoder(SMALL)
    model, shares = upscaler(net, tile=PATCH, **options), []
    pixels = photograph(70, 120 if factor == 3 else 100).permute(1, 2, 0).numpy()
    size = round(pixels.shape[0] * factor), round(pixels.shape[1] * factor)

    model.upscale(Picture(pixels=pixels), size, shares.append)

    assert len(shares) == count
    assert shares == sorted(set(shares))
    assert shares[-1] == 1


def test_progress_does_not_fall_when_memory_runs_out(monkeypatch):
    """What is computed again with smaller blocks ends with all as well."""
    model, shares = upscaler(correcting()), []
    sizes = limited(model, monkeypatch, 350 * 350)
    pixels = photograph(300, 90).permute(1, 2, 0).numpy()

    model.upscale(Picture(pixels=pixels), (900, 270), shares.append)

    assert len(sizes) > 2
    assert shares == sorted(shares)
    assert shares[-1] == 1


# ---- the time that an enlargement takes ---------------------------------------------------


class Clocked:
    """A net that only moves a clock, by a millionth of a second for each pixel it is given."""

    def __init__(self, monkeypatch):
        self.now, self.windows = 0.0, []
        monkeypatch.setattr(NetRunner, "run", lambda _runner, windows, **_: self.run(windows))
        monkeypatch.setattr(batches.time, "perf_counter", lambda: self.now)

    def run(self, windows):
        """Give windows back as they are."""
        pixels = windows.shape[0] * windows[0, 0].numel()
        self.windows.append(pixels)
        self.now += pixels / 1e6
        return windows


@pytest.mark.parametrize(
    ("source", "factor", "options"),
    [
        ((40, 50), 3, {"tile": 48}),
        ((75, 31), 2, {"overlap": 0}),
        ((20, 30), 6, {"batch_size": 3}),
        ((260, 300), 2.5, {}),
    ],
)
def test_the_estimated_time_is_that_of_the_windows(source, factor, options, monkeypatch):
    """Of every step, context included: what a run then takes by the same clock."""
    clock = Clocked(monkeypatch)
    made = upscaler(correcting(), **options)
    size = round(source[0] * factor), round(source[1] * factor)
    estimate = made.seconds(source, size)
    begun = clock.now

    whole(made, photograph(*source), size)

    assert estimate == pytest.approx(clock.now - begun)


def test_what_is_measured_once_is_known(monkeypatch):
    """Twenty thousand photos cost one measurement; another factor or a smaller plan one more."""
    clock = Clocked(monkeypatch)
    made = upscaler(correcting())
    draws = torch.get_rng_state()
    one = made.seconds((40, 50), (120, 150))

    assert torch.equal(torch.get_rng_state(), draws)
    assert 1 < len(clock.windows) <= 5
    del clock.windows[:]
    assert made.seconds((40, 50), (120, 150)) == one
    assert made.seconds((80, 50), (240, 150)) > 1.5 * one
    assert made.seconds((40, 50), (40, 50)) == 0
    assert clock.windows == []
    made.seconds((40, 50), (160, 200))
    assert 1 < len(clock.windows) <= 5
    del clock.windows[:]
    upscaler(correcting(), tile=1440).seconds((400, 400), (1200, 1200))
    assert len(clock.windows) == 1, "a slow machine measures once"


# ---- any plan ------------------------------------------------------------------------------


@settings(max_examples=60)
@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    scale=st.floats(1, 4),
    channels=st.sampled_from([1, 3]),
    plan=st.fixed_dictionaries(
        {
            "patch": st.sampled_from([6, 12, 36, 120]),
            "overlap": st.integers(0, 30),
            "fuse": st.integers(1, 3),
            "batch_size": st.integers(1, 5),
        }
    ),
)
def test_a_pointwise_net_is_stitched_exactly(height, width, scale, channels, plan):
    """Whatever the plan, tiling a pointwise net gives bit for bit the untiled result, in order."""
    image, size = torch.rand(channels, height, width), (int(height * scale), int(width * scale))
    batch_size = plan.pop("batch_size")
    grid = Grid(*(plan_axis(length, stride=6, **plan) for length in size))

    def pointwise(windows):
        return windows * 0.5 + 0.25

    cpu, finish = torch.device("cpu"), torch.clone
    found = enlarge_rows(Rows.of(image), grid, pointwise, cpu, batch_size=batch_size, finish=finish)
    spans, bands = zip(*found, strict=True)

    assert list(spans) == [block.keep for block in grid.rows]
    assert torch.equal(pointwise(bicubic(image, size)), torch.cat(bands, 1))


# ---- rows ---------------------------------------------------------------------------------


def cut(image, sizes):
    """Cut a picture into bands of rows of these sizes, over and over."""
    top = 0
    while top < image.shape[1]:
        for rows in sizes:
            if top < image.shape[1]:
                yield image[:, top : top + rows].clone()
                top += rows


@settings(max_examples=60)
@given(
    height=st.integers(1, 60),
    sizes=st.lists(st.integers(1, 25), min_size=1, max_size=4),
    wanted=st.lists(st.tuples(st.integers(0, 20), st.integers(1, 30)), max_size=8),
    dtype=st.sampled_from([torch.uint8, torch.uint16, torch.float32]),
)
def test_rows_are_those_of_the_whole_however_they_arrive(height, sizes, wanted, dtype):
    """Parts that go down the picture, overlapping or not, are cut out of it exactly."""
    image = torch.arange(2 * height * 3).reshape(2, height, 3).to(dtype)
    rows = Rows(cut(image, sizes), (2, height, 3))
    first = 0
    for step, count in wanted:
        first = min(first + step, height - 1)
        stop = min(first + count, height)
        assert torch.equal(rows.part(first, stop), image[:, first:stop])

    assert (rows.channels, rows.size) == (2, [height, 3])


def test_no_more_rows_are_held_than_are_needed():
    """Of a thousand rows only the bands of the part asked for are taken and kept."""
    taken = []
    bands = (taken.append(number) or torch.full((1, 10, 4), float(number)) for number in range(100))
    rows = Rows(bands, (1, 1000, 4))
    for first in range(0, 960, 16):
        part = rows.part(first, first + 40)

        assert part.shape == (1, 40, 4)
        assert len(taken) == -(-(first + 40) // 10)
        assert part.untyped_storage().nbytes() <= 4 * 4 * (40 + 16 + 2 * 10)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
def test_cuda_agrees_with_the_cpu(dtype):
    """On CUDA the picture is the CPU's fp32 one, as closely as the number format allows."""
    image = photograph(91, 111)
    on_cpu = quantize(whole(upscaler(device="cpu"), image, (273, 333))).int()
    on_cuda = quantize(whole(upscaler(device="cuda", dtype=dtype), image, (273, 333))).int()

    assert int((on_cpu - on_cuda).abs().max()) <= (2 if dtype == "bf16" else 1)
