"""``srcli eval``: the literature's protocol, checked by Pillow and scikit-image."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from typer.testing import CliRunner

from srcli.cli.app import app
from srcli.errors import DataError, UsageError
from srcli.evaluation.config import BASELINE, FILTERS, EvalConfig
from srcli.evaluation.evaluate import evaluate
from srcli.upscaler import Settings

EXACT = Settings(device="cpu", dtype="fp32")


def scored(dataset, *models, **options):
    """Evaluate weights in fp32 on the CPU."""
    names = tuple(str(model) for model in models)
    return evaluate(EvalConfig(dataset=Path(dataset), models=names, settings=EXACT, **options))


def opened(path):
    """An image as an array, ``HxW`` or ``HxWx3``."""
    with Image.open(path) as image:
        return np.asarray(image)


def fitted(high, scale):
    """Cut an HR picture to whole LR pixels."""
    height, width = high.shape[0] // scale * scale, high.shape[1] // scale * scale
    return high[:height, :width]


def resized(pixels, width, height, filtering=Image.Resampling.BICUBIC):
    """A filter of Pillow's in floating point, rounded once to 8 bits."""
    channels = [
        np.asarray(Image.fromarray(channel.astype(np.float32)).resize((width, height), filtering))
        for channel in np.atleast_3d(pixels).transpose(2, 0, 1)
    ]
    levels = np.floor(np.stack(channels, -1).clip(0, 255) + 0.5).astype(np.uint8)
    return levels[..., 0] if pixels.ndim == 2 else levels


def luma(pixels):
    """BT.601 studio-range luma on the 0..255 scale, as MATLAB computes it."""
    colours = pixels.astype(float) / 255
    red, green, blue = np.moveaxis(colours, -1, 0) if colours.ndim == 3 else [colours] * 3
    return 16 + 65.481 * red + 128.553 * green + 24.966 * blue


def reference(result, high, border):
    """PSNR and SSIM on luma by scikit-image."""
    inner = slice(border, -border or None)
    x, y = luma(result)[inner, inner], luma(high)[inner, inner]
    ssim = structural_similarity(
        *(x, y), data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    return peak_signal_noise_ratio(y, x, data_range=255), ssim


def reduce_into(folder, source, scale=3, name="{}", noise=0):
    """Write an LR picture for each HR picture of a folder; noise makes it known again."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(3)
    for path in sorted(source.iterdir()):
        high = fitted(opened(path), scale)
        low = resized(high, high.shape[1] // scale, high.shape[0] // scale)
        if noise:
            low = (low + random.integers(-noise, noise + 1, low.shape)).clip(0, 255)
        Image.fromarray(low.astype(np.uint8)).save(folder / f"{name.format(path.stem)}.png")


# ---- the baseline and the protocol --------------------------------------------------------


@pytest.mark.parametrize("scale", [2, 3])
def test_bicubic_is_what_others_measure(image_folder, tiny_weights, scale):
    """Degraded here and enlarged back, every image scores as by Pillow and scikit-image."""
    paths = sorted(image_folder.iterdir())
    report = scored(image_folder, tiny_weights, scale=float(scale))

    scores = [score for score in report.scores if score.method == BASELINE]
    assert [score.image for score in scores] == [path.name for path in paths]
    for path, score in zip(paths, scores, strict=True):
        high = fitted(opened(path), scale)
        height, width = high.shape[:2]
        low = resized(high, width // scale, height // scale)
        psnr, ssim = reference(resized(low, width, height), high, scale)
        assert score.values["psnr"] == pytest.approx(psnr, abs=0.01)
        assert score.values["ssim"] == pytest.approx(ssim, abs=0.0005)


def test_a_net_is_scored_by_what_upscale_makes(here, photo, tiny_weights):
    """The file that ``upscale`` writes has, against the original, the score that ``eval`` gives."""
    Path("HR").mkdir()
    high = fitted(photo, 3)
    Image.fromarray(high).save("HR/a.png")
    reduce_into(here / "LRx3", here / "HR")
    arguments = ("-m", str(tiny_weights), "--device", "cpu", "--dtype", "fp32")
    made = CliRunner().invoke(app, ["upscale", "LRx3/a.png", "-o", "a.png", *arguments])
    assert made.exit_code == 0

    report = scored(".", tiny_weights)

    psnr, ssim = reference(opened("a.png"), high, 3)
    assert report.scores[1].values["psnr"] == pytest.approx(psnr, abs=1e-4)
    assert report.scores[1].values["ssim"] == pytest.approx(ssim, abs=1e-5)


@pytest.mark.usefixtures("here")
def test_every_result_is_rounded_to_8_bits(photo, tiny_weights):
    """A net's, too, that was given LR of 16 bits."""
    high = np.asarray(Image.fromarray(fitted(photo, 3)).convert("L"))
    low = resized(high, high.shape[1] // 3, high.shape[0] // 3)
    for folder, pixels in (("8", low), ("16", low.astype(np.uint16) * 257)):
        Path(folder, "HR").mkdir(parents=True)
        Path(folder, "LRx3").mkdir()
        Image.fromarray(high).save(f"{folder}/HR/a.png")
        Image.fromarray(pixels).save(f"{folder}/LRx3/a.png")

    few, many = (scored(folder, tiny_weights).scores[1] for folder in ("8", "16"))

    assert many.values["psnr"] == pytest.approx(few.values["psnr"], abs=1e-4)


@pytest.mark.usefixtures("here")
def test_border_and_channel_are_the_options(photo, tiny_weights):
    """What lies in the border does not count, on any side; RGB is compared in its mean error."""
    Path("HR").mkdir()
    Image.fromarray(photo).save("HR/a.png")
    high = fitted(photo, 3)
    height, width = high.shape[:2]
    result = resized(resized(high, width // 3, height // 3), width, height)

    for border in (0, 10):
        report = scored("HR", tiny_weights, crop_border=border)
        psnr, ssim = reference(result, high, border)
        assert report.config.border == border
        assert report.scores[0].values["psnr"] == pytest.approx(psnr, abs=0.01)
        assert report.scores[0].values["ssim"] == pytest.approx(ssim, abs=0.002)
    report = scored("HR", tiny_weights, channel="rgb")
    inner = slice(3, -3)
    expected = peak_signal_noise_ratio(high[inner, inner], result[inner, inner], data_range=255)
    assert report.scores[0].values["psnr"] == pytest.approx(expected, abs=0.01)
    assert report.scores[0].values["psnr"] != pytest.approx(reference(result, high, 3)[0], abs=0.02)
    assert report.protocol == "PSNR/SSIM on RGB, 3 px border cut, x3, LR: bicubic, float32 on cpu"
    assert EvalConfig(dataset=Path(), scale=2.5).border == 3


@pytest.mark.parametrize("channel", ["y", "rgb"])
@pytest.mark.usefixtures("here")
def test_grey_counts_as_equal_channels(photo, tiny_weights, channel):
    """A grey picture scores what the same picture stored as RGB scores."""
    grey = Image.fromarray(photo).convert("L")
    for folder, mode in (("grey", "L"), ("colour", "RGB")):
        Path(folder).mkdir()
        grey.convert(mode).save(f"{folder}/a.png")

    report = scored("grey", tiny_weights, channel=channel)

    bicubic, same = report.scores[0], scored("colour", tiny_weights, channel=channel).scores[0]
    assert bicubic.values["psnr"] == pytest.approx(same.values["psnr"], abs=1e-6)
    assert bicubic.values["ssim"] == pytest.approx(same.values["ssim"], abs=1e-6)


@pytest.mark.parametrize("scale", [3, 5 / 3])
@pytest.mark.usefixtures("here")
def test_the_filters_are_pillows(photo, tiny_weights, scale):
    """Whatever filter the models are compared with, it scores as Pillow's of that name does."""
    high = photo[:60, :90]
    low = resized(high, round(90 / scale), round(60 / scale))
    for folder, pixels in (("HR", high), ("low", low)):
        Path(folder).mkdir()
        Image.fromarray(pixels).save(f"{folder}/a.png")

    report = scored("HR", tiny_weights, lr=Path("low"), baselines=tuple(FILTERS), scale=scale)

    assert [score.method for score in report.scores[:-1]] == list(FILTERS)
    for score in report.scores[:-1]:
        larger = resized(low, 90, 60, Image.Resampling[score.method.upper()])
        psnr, ssim = reference(larger, high, report.config.border)
        assert score.values["psnr"] == pytest.approx(psnr, abs=0.005)
        assert score.values["ssim"] == pytest.approx(ssim, abs=0.0002)


# ---- pairs --------------------------------------------------------------------------------


@pytest.fixture
def paired(here, photo):
    """A folder ``HR`` of two pictures whose sides are no multiples of 3, and nothing else."""
    Path("HR").mkdir()
    Image.fromarray(photo).save("HR/a.png")
    Image.fromarray(photo[:50, :70]).save("HR/b.png")
    return here


@pytest.mark.parametrize(
    ("dataset", "folder", "name"),
    [
        (".", "LRx3", "{}x3"),
        ("HR", "low", "{}"),
        (".", "low", "{}x3"),
    ],
    ids=["set", "plain folder", "set with another LR"],
)
def test_lr_pictures_are_found(paired, tiny_weights, dataset, folder, name):
    """The set's own LR pictures are used, or the folder given, whichever way they are named."""
    reduce_into(paired / folder, paired / "HR", name=name, noise=9)

    report = scored(dataset, tiny_weights, lr=Path("low") if folder == "low" else None)

    assert report.lr == folder
    assert [score.image for score in report.scores[::2]] == ["a.png", "b.png"]
    for score in report.scores[::2]:
        high = fitted(opened(f"HR/{score.image}"), 3)
        low = opened(f"{folder}/{name.format(Path(score.image).stem)}.png")
        psnr, _ = reference(resized(low, high.shape[1], high.shape[0]), high, 3)
        assert score.values["psnr"] == pytest.approx(psnr, abs=0.01)


def test_a_missing_lr_picture_is_refused(paired, tiny_weights):
    """A set with a hole is not scored in part."""
    reduce_into(paired / "LRx3", paired / "HR")
    Path("LRx3/b.png").unlink()

    with pytest.raises(DataError, match=r"LRx3 holds no LR image for b\.png"):
        scored(".", tiny_weights)


@pytest.mark.parametrize("size", [(31, 20), (32, 21)])
def test_an_lr_picture_that_does_not_fit_is_refused(paired, tiny_weights, size):
    """97x61 reduced by 3 is 32x20, and nothing else."""
    reduce_into(paired / "LRx3", paired / "HR")
    Image.new("RGB", size).save("LRx3/a.png")

    with pytest.raises(DataError) as caught:
        scored(".", tiny_weights)

    assert str(caught.value) == (
        f"LRx3/a.png is {size[0]}x{size[1]}: that is not HR/a.png (97x61) reduced by 3; "
        "give another --lr or --scale"
    )


@pytest.mark.parametrize(("size", "scale"), [((2, 40), 3.0), ((12, 12), 3.0)])
@pytest.mark.usefixtures("here")
def test_a_picture_too_small_to_be_scored_is_refused(tiny_weights, size, scale):
    """Nothing is left to compare, or less than SSIM's window of 11x11."""
    Image.new("RGB", size).save("a.png")

    with pytest.raises(DataError, match=r"a\.png"):
        scored(".", tiny_weights, scale=scale)


# ---- the report ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"baselines": ("cubic",)}, "--baseline must be one of bicubic, lanczos, bilinear, "),
        ({"scale": math.nan}, "--scale must lie in (1, 16], not nan"),
    ],
)
def test_an_option_out_of_range_is_refused(options, message):
    """A value that cannot be meant is refused before any file is looked at."""
    with pytest.raises(UsageError, match=f"^{re.escape(message)}"):
        EvalConfig(dataset=Path(), **options)


@pytest.mark.usefixtures("paired")
@pytest.mark.parametrize("baselines", [("nearest", "bicubic"), ()], ids=["two", "none"])
def test_methods_stand_in_the_order_asked_for(tiny_weights, plain_weights, baselines):
    """Filters first, if any, then the models, for each image anew; means are plain means.

    A net that corrects nothing scores like bicubic to the last digit.
    """
    report = scored("HR", tiny_weights, plain_weights, baselines=baselines)

    models = (str(tiny_weights), str(plain_weights))
    assert report.methods == (*baselines, *models)
    assert report.models == models
    assert [score.method for score in report.scores] == [*report.methods, *report.methods]
    assert (
        scored("HR", tiny_weights, plain_weights, baselines=baselines, limit=1).scores
        == (report.scores[: len(report.methods)])
    )
    assert report.mean(models[0]) != report.mean(models[1])
    own = [score for score in report.scores if score.method == models[0]]
    first, second = (score.values for score in own)
    assert report.mean(models[0]) == pytest.approx(
        {name: (first[name] + second[name]) / 2 for name in ("psnr", "ssim", "accuracy")}
    )
    if baselines:
        assert report.mean(models[1]) == report.mean("bicubic")
