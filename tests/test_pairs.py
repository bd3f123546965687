"""Pairs of one's own in training: HR and LRx2, LRx3, LRx4, cut at the same place."""

import re
import shutil
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from srcli.data import pool as pool_module
from srcli.data.loading import Centers, Loader
from srcli.data.pool import open_pool
from srcli.data.sampling import Sampler
from srcli.errors import DataError, UsageError
from srcli.ops.degradation import Degradation
from srcli.ops.resample import bicubic
from srcli.training.images import input_and_target
from srcli.training.trainer import train

CPU = torch.device("cpu")
SCALES = (2.0, 3.0, 4.0)
CELL = 12
"""Pixels of HR that have one colour: a whole number of LR pixels at each factor."""


def save(path, pixels):
    """Write ``(H, W, 3)`` ``uint8``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Three pairs whose LR is HR's every other, third and fourth pixel; no side is a multiple."""
    root = tmp_path_factory.mktemp("pairs") / "own"
    for number, (height, width) in enumerate([(253, 182), (134, 121), (170, 302)]):
        cells = np.random.default_rng(number).integers(0, 256, (30, 30, 3), dtype=np.uint8)
        high = cells.repeat(CELL, 0).repeat(CELL, 1)[:height, :width]
        save(root / f"HR/{number}.png", high)
        for scale in (2, 3, 4):
            low = high[: height // scale * scale : scale, : width // scale * scale : scale]
            name = f"{number}x{scale}" if number else str(number)
            save(root / f"LRx{scale}/{name}.png", low)
    return root


@pytest.fixture
def own(pairs, tmp_path):
    """A copy, to be spoiled."""
    return Path(shutil.copytree(pairs, tmp_path / "own"))


def enlarged(low, scale):
    """Repeat the pixels of LR: HR again."""
    return low.repeat_interleave(int(scale), 1).repeat_interleave(int(scale), 2)


@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize("keep", [1024, 150])
def test_both_are_cut_and_turned_alike(pairs, image_folder, monkeypatch, resident, keep):
    """Pixel by pixel, at every factor, also where a window of a large image is kept."""
    monkeypatch.setattr(pool_module, "_KEEP_SIDE", keep)
    pool = open_pool([str(pairs), str(image_folder)], pairs, seed=3, scales=SCALES)
    loader = Loader(pool, CPU, workers=2, resident=resident)
    sampler = Sampler(len(pool), 3, scales=SCALES, augment="turn", areas=loader.areas())
    seen = set()

    for batch in islice(loader.batches(sampler, 0, 16), 6):
        assert 0 < len(batch.lows) < 16, "the folder has none"
        for row, low in batch.lows.items():
            scale = batch.scales[row]
            assert low.shape == (3, 120 // scale, 120 // scale)
            assert torch.equal(enlarged(low, scale), batch.patches[row])
            seen.add(scale)
    assert seen == set(SCALES)


def test_the_middles_fit_and_are_what_is_given(pairs):
    """Evaluation has the same LR each time; the net's input is its bicubic enlargement."""
    pool = open_pool([str(pairs)], pairs, seed=0, scales=SCALES)
    (batch,) = Centers(pool, range(3), CPU, workers=1, size=4).batches(SCALES, 0)

    image, target = input_and_target(batch, Degradation())

    assert sorted(batch.lows) == [0, 1, 2]
    for row, low in batch.lows.items():
        assert torch.equal(enlarged(low, batch.scales[row]), batch.patches[row])
        assert torch.equal(image[row], bicubic(low, (120, 120)))
    some = batch.part(slice(1, 3))
    assert torch.equal(some.lows[1], batch.lows[2])
    assert torch.equal(input_and_target(some, Degradation())[0], image[1:])
    assert target.shape == image.shape


def test_a_run_learns_from_pairs_and_is_scored_on_others(options, saved_run, pairs):
    """The header says where LR came from; the samples show it."""
    config = options(datasets=(str(pairs),), valid=pairs, scales=SCALES, eval_every=2)
    train(config)

    run = saved_run(config.output)
    assert run.header.training["degradation"] == "LR of the data set"
    assert float(run.log[-1]["baseline_psnr"]) > 10
    assert (config.output / "samples.png").exists()


def small_low(name):
    """Return what makes an LR image of the wrong size."""
    return lambda root: save(root / "LRx2" / name, np.zeros((30, 40, 3), np.uint8))


@pytest.mark.parametrize(
    ("spoil", "changes", "message"),
    [
        (None, {"scales": (2.5,)}, "has HR and LRx2, LRx3, LRx4, but no LR images for"),
        (
            None,
            {"degradation": Degradation.parse("blur=1")},
            "--degradation blur=1 would do nothing to images that have LR of their own",
        ),
        (
            lambda root: (root / "LRx3/1x3.png").unlink(),
            {},
            "LRx3 holds no LR image for 1.png; each HR image needs one of its own",
        ),
        (
            lambda root: shutil.copy(root / "LRx3/1x3.png", root / "LRx3/1.png"),
            {},
            "LRx3 holds 1.png and 1x3.png for 1.png; each HR image needs one of its own",
        ),
        (
            lambda root: shutil.copy(root / "HR/1.png", root / "HR/1.bmp"),
            {},
            "LRx2 holds 1x2.png for 1.bmp and 1.png; each HR image needs one of its own",
        ),
        (
            lambda root: (root / "LRx4/2x4.png").write_bytes(b"broken"),
            {},
            "remove or replace them; the first: ",
        ),
        (
            lambda root: save(root / "HR/2.png", np.zeros((100, 200, 3), np.uint8)),
            {},
            "has sides below 120 pixels",
        ),
        *(
            (small_low(name), {"sampling": "epoch"}, "reduced by 2; take the pair away or")
            for name in ("0.png", "1x2.png", "2x2.png")
        ),
    ],
    ids=[
        "2.5",
        "degradation",
        "missing",
        "two",
        "shared",
        "broken",
        "small",
        "first",
        "second",
        "third",
    ],
)
def test_what_is_no_pair_is_one_line(own, options, spoil, changes, message):
    """It is found before a step, whichever image is held out."""
    if spoil:
        spoil(own)
    config = options(**({"datasets": (str(own),), "scales": SCALES} | changes))

    with pytest.raises((DataError, UsageError), match=re.escape(message)):
        train(config)

    assert not any(config.output.glob("state/*"))
