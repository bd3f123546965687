"""``srcli eval``: the literature's protocol, checked by Pillow and scikit-image."""

from pathlib import Path

import numpy as np
import pytest
from command_runs import EXACT, run
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from srcli.errors import DataError
from srcli.evaluation import panels
from srcli.evaluation.config import FILTERS, EvalConfig
from srcli.evaluation.evaluate import evaluate
from srcli.evaluation.pairs import Pair
from srcli.evaluation.panels import draw, prepare, worst_window
from srcli.imaging.images import Picture
from srcli.ops.spans import Span
from srcli.upscaler import Settings


def scored(dataset, *models, **options):
    """Evaluate weights in fp32 on the CPU."""
    settings, names = Settings(device="cpu", dtype="fp32"), tuple(map(str, models))
    return evaluate(EvalConfig(dataset=Path(dataset), models=names, settings=settings, **options))


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


def check(score, result, high, border, exact=1e-4):
    """Compare a score with the reference's; rounding may differ by ``exact`` dB."""
    psnr, ssim = reference(result, high, border)
    assert score.values["psnr"] == pytest.approx(psnr, abs=exact)
    assert score.values["ssim"] == pytest.approx(ssim, abs=exact / 10)


def test_a_net_is_scored_by_what_upscale_makes(paired, photo, tiny_weights):
    """The file that ``upscale`` writes has, against the original, the score that ``eval`` gives."""
    reduce_into(paired / "LRx3", paired / "HR")
    made = run("upscale", "LRx3/a.png", "-o", "a.png", "-m", tiny_weights, *EXACT)
    assert made.exit_code == 0

    report = scored(".", tiny_weights)

    check(report.scores[1], opened("a.png"), fitted(photo, 3), 3)


@pytest.mark.usefixtures("here")
def test_every_result_is_rounded_to_8_bits(photo, tiny_weights):
    """A net's, too, that was given LR of 16 bits."""
    high = np.asarray(Image.fromarray(fitted(photo, 3)).convert("L"))
    low = resized(high, high.shape[1] // 3, high.shape[0] // 3)
    for folder, pixels in (("HR", high), ("8", low), ("16", low.astype(np.uint16) * 257)):
        Path(folder).mkdir()
        Image.fromarray(pixels).save(f"{folder}/a.png")

    few, many = (scored("HR", tiny_weights, lr=Path(bits)).scores[1] for bits in ("8", "16"))

    assert many.values["psnr"] == pytest.approx(few.values["psnr"], abs=1e-4)


@pytest.mark.usefixtures("paired")
def test_border_and_channel_are_the_options(photo, tiny_weights):
    """What lies in the border does not count, on any side; RGB is compared in its mean error."""
    high = fitted(photo, 3)
    height, width = high.shape[:2]
    result = resized(resized(high, width // 3, height // 3), width, height)

    for border in (None, 0, 10):
        report = scored("HR", tiny_weights, crop_border=border)
        check(report.scores[0], result, high, 3 if border is None else border, exact=0.02)
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

    bicubic, same = (scored(one, tiny_weights, channel=channel) for one in ("grey", "colour"))

    assert bicubic.scores[0].values == pytest.approx(same.scores[0].values, abs=1e-6)


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
        check(score, larger, high, report.config.border, exact=0.005)


@pytest.mark.parametrize(
    ("dataset", "folder", "name"),
    [(".", "LRx3", "{}x3"), ("HR", "low", "{}"), (".", "low", "{}x3")],
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
        check(score, resized(low, high.shape[1], high.shape[0]), high, 3, exact=0.01)


@pytest.mark.parametrize(
    ("file", "size", "message"),
    [
        ("LRx3/b.png", None, r"LRx3 holds no LR image for b\.png"),
        *(
            (
                "LRx3/a.png",
                size,
                r"is .*: that is not HR/a\.png \(97x61\) reduced by 3; give",
            )
            for size in ((31, 20), (32, 21))
        ),
        *(("HR/b.png", size, r"HR/b\.png") for size in ((2, 40), (12, 12))),
    ],
)
def test_a_pair_that_cannot_be_scored_is_refused(paired, monkeypatch, file, size, message):
    """A set with a hole, LR of another size, too little for SSIM's window: before a net is made."""
    monkeypatch.setattr("srcli.evaluation.evaluate.Upscaler", None)
    reduce_into(paired / "LRx3", paired / "HR")
    Path(file).unlink()
    if size:
        Image.new("RGB", size).save(file)

    with pytest.raises(DataError, match=message):
        scored("HR" if file.startswith("HR") else ".", "base")


@pytest.mark.usefixtures("paired")
@pytest.mark.parametrize("baselines", [("nearest", "bicubic"), ()], ids=["two", "none"])
def test_methods_stand_in_the_order_asked_for(tiny_weights, plain_weights, baselines):
    """Filters, then models, image by image; means are plain; no correction scores as bicubic."""
    report = scored("HR", tiny_weights, plain_weights, baselines=baselines)

    tiny, plain = models = (str(tiny_weights), str(plain_weights))
    assert report.methods == (*baselines, *models)
    assert [score.method for score in report.scores] == [*report.methods, *report.methods]
    some = scored("HR", tiny_weights, plain_weights, baselines=baselines, limit=1)
    assert some.scores == report.scores[: len(report.methods)]
    assert report.mean(tiny) != report.mean(plain)
    first, second = (score.values for score in report.scores if score.method == tiny)
    assert report.mean(tiny) == pytest.approx(
        {name: (first[name] + second[name]) / 2 for name in ("psnr", "ssim", "accuracy")}
    )
    if baselines:
        assert report.mean(plain) == report.mean("bicubic")


@pytest.fixture
def drawn(monkeypatch):
    """What is drawn: path and cells of each panel. The files are written all the same."""
    found = []

    def sheet(path, rows, real=panels.sheet, **options):
        found.append((path, [cell for row in rows for cell in row]))
        real(path, rows, **options)

    monkeypatch.setattr(panels, "sheet", sheet)
    return found


def flat(height, width, dtype):
    """A picture of one middle grey, with room to differ from it."""
    return Picture(pixels=np.full((height, width, 3), np.iinfo(dtype).max // 2, dtype))


@pytest.mark.parametrize(("spot", "corner"), [((99, 119), (80, 100)), ((50, 60), (31, 41))])
def test_the_detail_is_where_the_difference_is(spot, corner):
    """A window holds the only pixel that differs; of all that do it is the first."""
    high, result = flat(100, 120, np.uint8), flat(100, 120, np.uint8)
    result.pixels[spot] += 28

    rows, columns = worst_window(high, result, side=20)

    assert (rows.start, columns.start) == corner
    assert (len(rows), len(columns)) == (20, 20)


@pytest.mark.usefixtures("paired")
@pytest.mark.parametrize("baselines", [("lanczos", "nearest"), ()], ids=len)
def test_a_panel_shows_lr_methods_and_hr(tiny_weights, drawn, baselines):
    """Each method has its name above and the report's scores below, each image its own panel."""
    Image.open("HR/b.png").convert("L").save("HR/b.png")
    report = scored("HR", tiny_weights, baselines=baselines, panels=Path("out"))

    assert [path for path, _ in drawn] == [Path("out/a.png"), Path("out/b.png")]
    assert sorted(path.name for path in Path("out").iterdir()) == ["a.png", "b.png"]
    for (_, cells), name, size in zip(drawn, ("a.png", "b.png"), ("96x60", "69x48"), strict=True):
        own = [score for score in report.scores if score.image == name]
        assert [cell.title for cell in cells] == ["LR", *baselines, "tiny.safetensors", "HR"]
        assert [cell.caption for cell in cells[1:-1]] == [
            f"{score.values['psnr']:.2f} dB / {score.values['ssim']:.4f}" for score in own
        ]
        assert cells[-1].caption == size
        height, width, _ = cells[-1].image.shape
        assert np.array_equal(cells[-1].image, np.atleast_3d(opened(f"HR/{name}"))[:height, :width])
    assert [cells[0].caption for _, cells in drawn] == ["32x20, x3", "23x16, x3"]


@pytest.mark.usefixtures("here")
def test_the_detail_of_all_is_one_window(photo, tiny_weights, drawn, monkeypatch):
    """LR's squares, the filter, the net and HR show the same pixels, those most in error."""
    monkeypatch.setattr(panels.worst_window, "__defaults__", (30,))
    low = np.random.default_rng(2).integers(0, 255, (20, 32, 3), np.uint8)
    for folder, pixels in (("set/HR", photo[:60, :96]), ("set/LRx3", low)):
        Path(folder).mkdir(parents=True)
        Image.fromarray(pixels).save(f"{folder}/a.png")

    scored("set", tiny_weights, baselines=("nearest", "bicubic"), panels=Path("out"))

    ((_, cells),) = drawn
    high, squares = photo[:60, :96], low.repeat(3, 0).repeat(3, 1)
    spans = worst_window(*(Picture(pixels=one.copy()) for one in (high, squares)), side=30)
    window = tuple(slice(span.start, span.stop) for span in spans)
    assert any(span.start for span in spans)
    for cell, pixels in zip((*cells[:2], cells[-1]), (squares, squares, high), strict=True):
        assert np.array_equal(cell.image, pixels[window])
    assert {cell.image.shape for cell in cells} == {(30, 30, 3)}


@pytest.mark.parametrize(("count", "rows"), [(6, [6]), (7, [4, 3]), (13, [5, 5, 3])])
def test_many_views_stand_in_several_rows(monkeypatch, count, rows):
    """More than six continue below, in rows of about one length; 16 bits are shown as 8."""
    grids = []
    monkeypatch.setattr(panels, "sheet", lambda _path, grid, **_: grids.append(grid))
    views = [(str(index), flat(9, 9, np.uint16), "") for index in range(count)]

    draw(Path("panel.png"), views, (Span(2, 8), Span(1, 5)))

    assert [len(row) for row in grids[0]] == rows
    image = grids[0][0][0].image
    assert (image.shape, image.dtype, set(image.flat)) == ((6, 4, 3), np.uint8, {127})


@pytest.mark.parametrize(
    ("images", "names"),
    [
        (["a.png", "b.jpg"], ["a", "b"]),
        (["A.png", "a.jpg", "b.png"], ["A.png", "a.jpg", "b.png"]),
        (["stl10/test/7", "stl10/test/8"], ["stl10_test_7", "stl10_test_8"]),
    ],
    ids=["stems", "one stem", "slashes"],
)
def test_every_image_has_a_panel_of_its_own(images, names):
    """Called by its stem where that is enough; no two by one name."""
    pairs = [Pair(image, image, lambda: None, ()) for image in images]

    assert prepare(Path("out"), pairs) == [Path(f"out/{name}.png") for name in names]
