"""``srcli eval``: the literature's protocol, checked by Pillow and scikit-image."""

import csv
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from typer.testing import CliRunner

from srcli.cli.app import app
from srcli.cli.options import complete_weights
from srcli.errors import DataError, UsageError, WeightsError
from srcli.evaluation.config import BASELINE, EvalConfig
from srcli.evaluation.evaluate import evaluate
from srcli.evaluation.report import EvalReport, Score
from srcli.model.weights import ScoreLine
from srcli.upscaler import Settings

EXACT = Settings(device="cpu", dtype="fp32")
DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


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


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_bicubic_is_what_others_measure(image_folder, tiny_weights, scale):
    """Degraded here and enlarged back, every image scores as by Pillow and scikit-image."""
    report = scored(image_folder, tiny_weights, scale=float(scale))

    paths = sorted(image_folder.iterdir())
    scores = [score for score in report.scores if score.method == BASELINE]
    assert [score.image for score in scores] == [path.name for path in paths]
    for path, score in zip(paths, scores, strict=True):
        high = fitted(opened(path), scale)
        height, width = high.shape[:2]
        low = resized(high, width // scale, height // scale)
        psnr, ssim = reference(resized(low, width, height), high, scale)
        assert score.psnr == pytest.approx(psnr, abs=0.01)
        assert score.ssim == pytest.approx(ssim, abs=0.0005)


def test_a_net_that_corrects_nothing_scores_like_bicubic(image_folder, plain_weights):
    """Both go the same way, so the scores agree to the last digit."""
    report = scored(image_folder, plain_weights)

    pairs = zip(report.scores[::2], report.scores[1::2], strict=True)
    for bicubic, plain in pairs:
        assert (bicubic.method, plain.method) == (BASELINE, str(plain_weights))
        assert (bicubic.image, bicubic.psnr, bicubic.ssim) == (plain.image, plain.psnr, plain.ssim)


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
    assert report.scores[1].psnr == pytest.approx(psnr, abs=1e-4)
    assert report.scores[1].ssim == pytest.approx(ssim, abs=1e-5)


@pytest.mark.parametrize(
    ("scale", "given", "border"),
    [(3, None, 3), (2.5, None, 3), (4, None, 4), (3, 0, 0), (3, 7, 7)],
)
def test_the_border_is_the_scale_unless_told(scale, given, border):
    """A fractional scale is rounded up; zero means none."""
    config = EvalConfig(dataset=Path(), scale=scale, crop_border=given)

    assert config.border == border


@pytest.mark.parametrize("border", [0, 10])
def test_the_border_is_cut(here, photo, tiny_weights, border):
    """What lies in the border does not count, on any side."""
    Path("HR").mkdir()
    Image.fromarray(photo).save("HR/a.png")
    high = fitted(photo, 3)
    height, width = high.shape[:2]
    low = resized(high, width // 3, height // 3)

    report = scored(here, tiny_weights, crop_border=border)

    psnr, ssim = reference(resized(low, width, height), high, border)
    assert report.crop_border == border
    assert report.scores[0].psnr == pytest.approx(psnr, abs=0.01)
    assert report.scores[0].ssim == pytest.approx(ssim, abs=0.002)


@pytest.mark.usefixtures("here")
def test_rgb_compares_the_three_channels(photo, tiny_weights):
    """``channel="rgb"`` takes the mean error over the channels, and says so."""
    Path("HR").mkdir()
    Image.fromarray(photo).save("HR/a.png")
    high = fitted(photo, 3)
    height, width = high.shape[:2]
    result = resized(resized(high, width // 3, height // 3), width, height)

    report = scored("HR", tiny_weights, channel="rgb")

    inner = slice(3, -3)
    expected = peak_signal_noise_ratio(high[inner, inner], result[inner, inner], data_range=255)
    assert report.scores[0].psnr == pytest.approx(expected, abs=0.01)
    assert report.scores[0].psnr != scored("HR", tiny_weights).scores[0].psnr
    assert report.protocol == ("PSNR/SSIM on RGB, 3 px border cut, x3, LR: bicubic, float32 on cpu")


@pytest.mark.parametrize("channel", ["y", "rgb"])
@pytest.mark.usefixtures("here")
def test_grey_counts_as_equal_channels(photo, tiny_weights, channel):
    """A grey picture scores what the same picture stored as RGB scores."""
    grey = Image.fromarray(photo).convert("L")
    for folder, mode in (("grey", "L"), ("colour", "RGB")):
        Path(folder).mkdir()
        grey.convert(mode).save(f"{folder}/a.png")
    high = fitted(np.asarray(grey), 3)
    height, width = high.shape
    low = resized(high, width // 3, height // 3)

    report = scored("grey", tiny_weights, channel=channel)

    bicubic, same = report.scores[0], scored("colour", tiny_weights, channel=channel).scores[0]
    assert bicubic.psnr == pytest.approx(same.psnr, abs=1e-6)
    assert bicubic.ssim == pytest.approx(same.ssim, abs=1e-6)
    if channel == "y":
        psnr, ssim = reference(resized(low, width, height), high, 3)
        assert bicubic.psnr == pytest.approx(psnr, abs=0.01)
        assert bicubic.ssim == pytest.approx(ssim, abs=0.002)


@pytest.mark.parametrize(
    ("dataset", "psnr", "ssim"), [("set5", 30.40, 0.869), ("set14", 27.63, 0.776)]
)
def test_bicubic_on_the_published_sets(dataset, psnr, ssim, tiny_weights):
    """At x3, bicubic has the PSNR and SSIM on luma that the literature reports."""
    if not (DATA / dataset / "LRx3").is_dir():
        pytest.skip(f"shared/data/{dataset} is not beside the repository")

    report = scored(DATA / dataset, tiny_weights)

    assert report.lr == "LRx3"
    assert len(report.scores) == 2 * {"set5": 5, "set14": 14}[dataset]
    mean = report.mean(BASELINE)
    assert mean[0] == pytest.approx(psnr, abs=0.02)
    assert mean[1] == pytest.approx(ssim, abs=0.002)


@pytest.mark.parametrize(
    ("name", "filtering"),
    [
        ("bicubic", Image.Resampling.BICUBIC),
        ("lanczos", Image.Resampling.LANCZOS),
        ("bilinear", Image.Resampling.BILINEAR),
        ("nearest", Image.Resampling.NEAREST),
    ],
)
@pytest.mark.parametrize("scale", [3, 5 / 3])
@pytest.mark.usefixtures("here")
def test_the_filters_are_pillows(photo, tiny_weights, name, filtering, scale):
    """Whatever filter the models are measured beside, it scores as Pillow's of that name does."""
    high = photo[:60, :90]
    low = resized(high, round(90 / scale), round(60 / scale))
    for folder, pixels in (("HR", high), ("low", low)):
        Path(folder).mkdir()
        Image.fromarray(pixels).save(f"{folder}/a.png")

    report = scored("HR", tiny_weights, lr=Path("low"), baselines=(name,), scale=scale)

    larger = resized(low, 90, 60, filtering)
    psnr, ssim = reference(larger, high, report.crop_border)
    assert report.scores[0].method == name
    assert report.scores[0].psnr == pytest.approx(psnr, abs=0.005)
    assert report.scores[0].ssim == pytest.approx(ssim, abs=0.0002)


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
        (".", "LRx3", "{}"),
        (".", "LRx3", "{}x3"),
        ("HR", "low", "{}"),
        (".", "low", "{}x3"),
    ],
    ids=["set", "set with x3 names", "plain folder", "set with another LR"],
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
        psnr, ssim = reference(resized(low, high.shape[1], high.shape[0]), high, 3)
        assert score.psnr == pytest.approx(psnr, abs=0.01)
        assert score.ssim == pytest.approx(ssim, abs=0.002)


def test_the_lr_of_another_scale_is_left_alone(paired, tiny_weights):
    """A set with ``LRx3`` alone is degraded here for x2."""
    reduce_into(paired / "LRx3", paired / "HR", noise=60)

    report = scored(".", tiny_weights, scale=2.0)

    assert report.lr == "bicubic"
    assert report.scores == scored("HR", tiny_weights, scale=2.0).scores


@pytest.mark.parametrize("lr", [None, Path("LRx3")])
def test_a_missing_lr_picture_is_told(paired, tiny_weights, lr):
    """A set with a hole is not scored in part."""
    reduce_into(paired / "LRx3", paired / "HR")
    Path("LRx3/b.png").unlink()

    with pytest.raises(DataError, match=r"LRx3 holds no LR image for b\.png"):
        scored(".", tiny_weights, lr=lr)


@pytest.mark.parametrize("size", [(31, 20), (33, 20), (32, 19), (32, 21), (97, 61)])
def test_an_lr_picture_that_does_not_fit_is_told(paired, tiny_weights, size):
    """97x61 reduced by 3 is 32x20, and nothing else."""
    reduce_into(paired / "LRx3", paired / "HR")
    Image.new("RGB", size).save("LRx3/a.png")

    with pytest.raises(DataError) as caught:
        scored(".", tiny_weights)

    assert str(caught.value) == (
        f"LRx3/a.png is {size[0]}x{size[1]}: that is not HR/a.png (97x61) reduced by 3; "
        "give another --lr or --scale"
    )


@pytest.mark.parametrize(("size", "scale"), [((2, 40), 3.0), ((12, 12), 3.0), ((30, 9), 2.0)])
@pytest.mark.usefixtures("here")
def test_a_picture_too_small_to_be_scored_is_told(tiny_weights, size, scale):
    """Nothing is left to compare, or less than SSIM's window of 11x11."""
    Image.new("RGB", size).save("a.png")

    with pytest.raises(DataError, match=r"a\.png"):
        scored(".", tiny_weights, scale=scale)


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ("HR/a.png", "HR/a.png is not a folder of images"),
        ("gone", "gone is not a folder of images"),
        ("bare", "bare holds no image; give the folder of the HR images"),
    ],
)
@pytest.mark.usefixtures("paired")
def test_a_set_that_is_none_is_told(tiny_weights, dataset, message):
    """A file, a missing folder, and one with other files and hidden images alone."""
    Path("bare").mkdir()
    Path("bare/notes.txt").touch()
    Path("bare/.a.png").touch()

    with pytest.raises(DataError) as caught:
        scored(dataset, tiny_weights)

    assert str(caught.value).startswith(message)


@pytest.mark.usefixtures("paired")
def test_missing_weights_are_told_before_any_score():
    """Every model is loaded before the first picture."""
    told = []
    config = EvalConfig(dataset=Path("HR"), models=("gone.safetensors",), settings=EXACT)

    with pytest.raises(WeightsError, match=r"gone\.safetensors"):
        evaluate(config, lambda *_: told.append(_))

    assert told == []


# ---- the report ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": 1.0}, "--scale must lie in (1, 16], not 1"),
        ({"scale": 17.0}, "--scale must lie in (1, 16], not 17"),
        ({"scale": math.nan}, "--scale must lie in (1, 16], not nan"),
        ({"crop_border": -1}, "--crop-border must be at least 0, not -1"),
        ({"limit": 0}, "--limit must be at least 1, not 0"),
        ({"models": ()}, "nothing to score: give weights, e.g. -m base"),
        (
            {"models": ("base", "auto")},
            (
                "-m auto chooses for each file of srcli upscale; srcli eval needs weights by "
                "name, e.g. -m base -m photo"
            ),
        ),
        ({"models": ("base", "base")}, "-m must name each method once, not base, base"),
        (
            {"baselines": ("cubic",)},
            "--baseline must be one of bicubic, lanczos, bilinear, nearest or none, not 'cubic'",
        ),
        (
            {"baselines": ("lanczos",) * 2},
            "--baseline must name each method once, not lanczos, lanczos",
        ),
        (
            {"models": ("lanczos",), "baselines": ("lanczos",)},
            "-m lanczos is the name of a --baseline too; give the file as ./lanczos",
        ),
    ],
)
def test_an_option_out_of_range_is_refused(options, message):
    """A value that cannot be meant is refused before any file is looked at."""
    with pytest.raises(UsageError) as caught:
        EvalConfig(dataset=Path(), **options)

    assert str(caught.value) == message


def test_the_mean_is_the_plain_mean():
    """Decibels are averaged as they are, each image once, each method by itself."""
    scores = (
        Score("a", BASELINE, 20.0, 0.5, 0.75),
        Score("a", "net", 21.0, 0.75, 1.0),
        Score("b", BASELINE, 40.0, 1.0, 0.25),
        Score("b", "net", 50.0, 0.25, 0.5),
    )
    report = EvalReport(
        dataset="set",
        scale=3.0,
        lr="bicubic",
        channel="y",
        crop_border=3,
        device="cpu",
        dtype="float32",
        methods=(BASELINE, "net"),
        scores=scores,
    )

    assert report.mean(BASELINE) == (30.0, 0.75)
    assert report.mean("net") == (35.5, 0.5)


def test_the_limit_takes_the_first(image_folder, tiny_weights):
    """Images are taken by name, progress counts those that are scored."""
    told = []
    config = EvalConfig(dataset=image_folder, models=(str(tiny_weights),), limit=2, settings=EXACT)

    report = evaluate(config, lambda done, total: told.append((done, total)))

    assert [score.image for score in report.scores] == ["0.png", "0.png", "1.png", "1.png"]
    assert told == [(1, 2), (2, 2)]


@pytest.mark.usefixtures("paired")
def test_models_are_scored_beside_each_other(tiny_weights, plain_weights):
    """The baseline comes first, then the models in the order asked for."""
    report = scored("HR", tiny_weights, plain_weights)

    assert report.methods == (BASELINE, str(tiny_weights), str(plain_weights))
    assert [score.method for score in report.scores] == [*report.methods, *report.methods]
    assert report.mean(str(plain_weights)) == report.mean(BASELINE)
    assert report.mean(str(tiny_weights)) != report.mean(BASELINE)


@pytest.mark.usefixtures("paired")
@pytest.mark.parametrize("baselines", [("nearest", "bicubic"), ()], ids=["two", "none"])
def test_the_baselines_come_first(tiny_weights, baselines):
    """Filters stand before the models, in the order asked for, or not at all."""
    report = scored("HR", tiny_weights, baselines=baselines)

    assert report.methods == (*baselines, str(tiny_weights))
    assert (report.baselines, report.models) == (baselines, (str(tiny_weights),))
    assert report.mean(str(tiny_weights)) == scored("HR", tiny_weights).mean(str(tiny_weights))


def labelled(*methods):
    """What a report of methods calls them."""
    report = EvalReport(
        dataset="set",
        scale=3.0,
        lr="bicubic",
        channel="y",
        crop_border=3,
        device="cpu",
        dtype="float32",
        methods=methods,
        scores=(),
    )
    return list(report.labels.values())


@pytest.mark.parametrize(
    ("methods", "labels"),
    [
        (("bicubic", "base", "runs/a/m.st"), ["bicubic", "base", "m.st"]),
        (("runs/a/m.st", "/runs/b/m.st"), ["a/m.st", "b/m.st"]),
        (("x/a/m.st", "y/a/m.st", "b/m.st"), ["x/a/m.st", "y/a/m.st", "b/m.st"]),
        (("base", "runs/base"), ["base", "runs/base"]),
        (("m.st", "./m.st"), ["m.st", "./m.st"]),
        ((), []),
    ],
)
def test_methods_are_told_apart_in_little_room(methods, labels):
    """A path is shortened from the left as far as no other ends alike."""
    assert labelled(*methods) == labels


@pytest.mark.usefixtures("paired")
def test_a_score_line_sums_a_method_up(tiny_weights):
    """What goes into a header are the means, and what they are means of."""
    report = scored("HR", tiny_weights, scale=2.0)

    line = report.score_line(str(tiny_weights))

    psnr, ssim = report.mean(str(tiny_weights))
    assert line == ScoreLine(
        dataset="HR", scale=2.0, lr="bicubic", channel="y", psnr=psnr, ssim=ssim, images=2
    )
    assert report.score_line(str(tiny_weights), "Set2").dataset == "Set2"
    with pytest.raises(ValueError, match="not of gone"):
        report.score_line("gone")


# ---- the command --------------------------------------------------------------------------


def run(*arguments):
    """Run ``srcli eval`` in this process; an error that is not ours fails the test."""
    command = ["eval", *map(str, arguments), "--device", "cpu", "--dtype", "fp32"]
    return CliRunner().invoke(app, command, catch_exceptions=False)


def strictly(text):
    """Parse JSON as every other program does: without NaN and Infinity."""

    def refuse(constant):
        raise ValueError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.mark.usefixtures("paired")
def test_json_holds_scores_means_and_protocol(tiny_weights):
    """One object on stdout, and nothing else on either stream."""
    result = run("HR", "-m", tiny_weights, "--json")

    assert (result.exit_code, result.stderr) == (0, "")
    values = strictly(result.stdout)
    report = scored("HR", tiny_weights)
    assert values == {
        "dataset": "HR",
        "scale": 3.0,
        "lr": "bicubic",
        "channel": "y",
        "crop_border": 3,
        "device": "cpu",
        "dtype": "float32",
        "methods": [BASELINE, str(tiny_weights)],
        "baselines": [BASELINE],
        "scores": [
            {
                "image": score.image,
                "method": score.method,
                "psnr": score.psnr,
                "ssim": score.ssim,
                "accuracy": score.accuracy,
            }
            for score in report.scores
        ],
        "mean": {
            method: {
                "psnr": report.mean(method)[0],
                "ssim": report.mean(method)[1],
                "accuracy": report.accuracy(method),
            }
            for method in report.methods
        },
        "has_accuracy": False,
        "protocol": (
            "PSNR/SSIM on luma (BT.601 studio range), 3 px border cut, x3, LR: bicubic, "
            "float32 on cpu"
        ),
    }


@pytest.mark.usefixtures("paired")
def test_a_perfect_score_is_still_json(plain_weights):
    """Equal pictures have an infinite PSNR, which JSON has no number for."""
    Path("flat").mkdir()
    Image.new("RGB", (60, 48), (10, 200, 30)).save("flat/a.png")

    result = run("flat", "-m", plain_weights, "--json")

    assert result.exit_code == 0
    assert strictly(result.stdout)["scores"][0]["ssim"] == 1.0


@pytest.mark.usefixtures("paired")
def test_output_writes_what_json_prints(tiny_weights):
    """``-o`` is the same object in a file, whole, replacing an older one."""
    Path("scores.json").write_text("older", encoding="utf-8")

    printed = run("HR", "-m", tiny_weights, "-o", "scores.json", "--json")

    assert printed.exit_code == 0
    assert Path("scores.json").read_text(encoding="utf-8") == printed.stdout
    assert sorted(path.name for path in Path().iterdir()) == ["HR", "scores.json"]


@pytest.mark.usefixtures("paired")
@pytest.mark.parametrize("name", ["scores.csv", "SCORES.CSV"])
def test_a_csv_file_has_a_row_for_every_score(tiny_weights, name):
    """What is called .csv is a table: each image and method, then the means."""
    Path("HR/b.png").rename("HR/b, 1.png")
    report = scored("HR", tiny_weights)

    result = run("HR", "-m", tiny_weights, "-o", name, "--json")

    assert result.exit_code == 0
    with Path(name).open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["dataset", "image", "method", "scale", "psnr", "ssim", "accuracy"]
    values = [(s.image, s.method, s.psnr, s.ssim, s.accuracy) for s in report.scores]
    values += [("mean", name, *report.mean(name), report.accuracy(name)) for name in report.methods]
    assert rows == [
        ["HR", image, method, "3", *map(str, numbers)] for image, method, *numbers in values
    ]
    assert {row[1] for row in rows} == {"a.png", "b, 1.png", "mean"}


@pytest.mark.usefixtures("paired")
def test_a_csv_file_can_hold_any_name(tiny_weights):
    """A file name that is no text, a line break in one, and an infinite PSNR are no obstacle."""
    Image.new("RGB", (60, 48), (10, 200, 30)).save("HR/flat\n\udcff.png", "PNG")

    result = run("HR", "-m", tiny_weights, "-o", "scores.csv", "-q")

    assert result.exit_code == 0
    lines = Path("scores.csv").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 1 + 3 * 2 + 2
    assert lines[5].startswith(r"HR,flat\n\udcff.png,bicubic,3,inf,1.0,")


@pytest.mark.usefixtures("paired")
@pytest.mark.parametrize(
    ("given", "methods"),
    [
        ((), ["bicubic"]),
        (("nearest", "lanczos", "nearest"), ["nearest", "lanczos"]),
        (("none",), []),
    ],
    ids=["default", "two", "none"],
)
def test_baseline_chooses_the_filters(tiny_weights, given, methods):
    """Each name is taken once, in the order given; none takes the default away."""
    options = [word for name in given for word in ("--baseline", name)]

    result = run("HR", "-m", tiny_weights, *options, "--json")

    assert result.exit_code == 0
    assert json.loads(result.stdout)["methods"] == [*methods, str(tiny_weights)]


@pytest.mark.usefixtures("paired")
def test_none_goes_with_no_other_baseline(tiny_weights):
    """Two answers to one question are wrong usage."""
    result = run("HR", "-m", tiny_weights, "--baseline", "none", "--baseline", "bicubic")

    assert result.exit_code == 2
    assert result.stderr == (
        "error: --baseline none goes with no other, not with none, bicubic; leave one out\n"
    )


@pytest.mark.usefixtures("paired")
def test_models_of_one_name_are_told_apart(tiny_weights, plain_weights):
    """Each run's file is called model.safetensors: the table shows its folder as well."""
    for folder, source in (("one", tiny_weights), ("two", plain_weights)):
        Path(folder).mkdir()
        shutil.copy(source, f"{folder}/model.safetensors")

    result = run("HR", "-m", "one/model.safetensors", "-m", "two/model.safetensors")

    header = next(line for line in result.stdout.splitlines() if "image" in line)
    assert header.strip("┃").replace(" ", "").split("┃") == [
        *("image", "bicubic", "one/model.safetensors", "two/model.safetensors")
    ]


@pytest.mark.usefixtures("paired")
def test_the_table_shows_every_score(tiny_weights):
    """A row for each image and one for the mean, the protocol below; names are no markup."""
    Path("HR/b.png").rename("HR/b [red] 1.png")
    report = scored("HR", tiny_weights)

    result = run("HR", "-m", tiny_weights)

    assert (result.exit_code, result.stderr) == (0, "")
    rows = [
        [cell.strip() for cell in line.strip("│┃").replace("┃", "│").split("│")]
        for line in result.stdout.splitlines()
        if "│" in line or "┃" in line
    ]
    cells = [f"{score.psnr:.2f} / {score.ssim:.4f}" for score in report.scores]
    means = [f"{psnr:.2f} / {ssim:.4f}" for psnr, ssim in map(report.mean, report.methods)]
    assert rows == [
        ["image", BASELINE, "tiny.safetensors"],
        ["a.png", *cells[:2]],
        ["b [red] 1.png", *cells[2:]],
        ["mean", *means],
    ]
    assert report.protocol in " ".join(result.stdout.split())


@pytest.mark.usefixtures("paired")
def test_a_gate_not_met_ends_with_six(tiny_weights):
    """The scores are printed and written all the same, and one line says which model failed."""
    report = scored("HR", tiny_weights)
    mean = report.mean(str(tiny_weights))[0]

    result = run("HR", "-m", tiny_weights, "-o", "scores.json", "--json", "--min-psnr", "60")

    assert result.exit_code == 6
    assert result.stderr == f"error: {tiny_weights} has {mean:.2f} dB, --min-psnr asks for 60\n"
    written = json.loads(Path("scores.json").read_text(encoding="utf-8"))
    assert written["mean"][str(tiny_weights)]["psnr"] == mean
    assert json.loads(result.stdout) == written


@pytest.mark.usefixtures("paired")
def test_the_gate_is_for_models_alone(tiny_weights, plain_weights):
    """The baseline may lie below the gate or above it; every model must reach it."""
    report = scored("HR", tiny_weights, plain_weights)
    plain, tiny = (report.mean(str(path))[0] for path in (plain_weights, tiny_weights))
    assert tiny < plain - 0.02

    between = f"{(plain + tiny) / 2:.4f}"

    assert run("HR", "-m", plain_weights, "--min-psnr", between).exit_code == 0
    assert run("HR", "-m", tiny_weights, "--min-psnr", between).exit_code == 6
    assert run("HR", "-m", plain_weights, "-m", tiny_weights, "--min-psnr", between).exit_code == 6


@pytest.mark.usefixtures("here")
def test_weights_are_completed_by_name_alone(plain_weights):
    """What is measured has a name: auto is not offered, files are."""
    shutil.copy(plain_weights, "autumn.safetensors")

    assert complete_weights("au") == ["autumn.safetensors"]
    assert "base" in complete_weights("")


@pytest.mark.usefixtures("paired")
def test_quiet_prints_errors_alone(tiny_weights):
    """No table: the file and the exit code are the result, and what fails is still reported."""
    result = run("HR", "-m", tiny_weights, "-q", "-o", "scores.json")
    failed = run("HR", "-m", tiny_weights, "-q", "--min-psnr", "60")

    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")
    assert Path("scores.json").exists()
    assert (failed.exit_code, failed.stdout) == (6, "")
    assert failed.stderr.endswith("--min-psnr asks for 60\n")


@pytest.mark.usefixtures("paired")
def test_two_scales_are_refused(tiny_weights):
    """Training takes several; here the last would silently win."""
    result = run("HR", "-m", tiny_weights, "-s", "2", "--scale", "2.5")

    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "error: --scale is given 2 times (2, 2.5); run srcli eval for each\n"


@pytest.mark.usefixtures("paired")
def test_a_benchmark_set_that_is_not_there_says_where_it_comes_from(tiny_weights):
    """One line: the layout, and that it has to be downloaded by hand."""
    result = run("set5", "-m", tiny_weights)

    assert (result.exit_code, result.stdout) == (4, "")
    assert result.stderr == (
        "error: set5 is not a folder of images; give a folder of HR images, or one with the "
        "folders HR and LRx3 (benchmark sets such as Set5 and Set14 have to be downloaded by "
        "hand), or celeba or stl10\n"
    )
