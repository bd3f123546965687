"""``srcli eval --panels``: the detail that is shown, what stands around it, where it is written."""

import re
from pathlib import Path

import numpy as np
import pytest
from command_runs import run_eval
from PIL import Image

from srcli.errors import UsageError
from srcli.evaluation import panels
from srcli.evaluation.config import EvalConfig
from srcli.evaluation.evaluate import evaluate
from srcli.evaluation.pairs import Pair
from srcli.evaluation.panels import draw, prepare, worst_window
from srcli.imaging.images import Picture
from srcli.ops.spans import Span
from srcli.upscaler import Settings

EXACT = Settings(device="cpu", dtype="fp32")


@pytest.fixture(autouse=True)
def _paired(paired, photo):
    """A working directory with a folder ``HR``: a picture in colour and a grey one."""
    Image.fromarray(photo[:60, :96]).save(paired / "HR/a.png")
    Image.fromarray(photo[:48, :60]).convert("L").save(paired / "HR/b.png")


@pytest.fixture
def drawn(monkeypatch):
    """What is drawn: path and cells of each panel. The files are written all the same."""
    found = []

    def sheet(path, rows, real=panels.sheet, **options):
        found.append((path, [cell for row in rows for cell in row]))
        real(path, rows, **options)

    monkeypatch.setattr(panels, "sheet", sheet)
    return found


def scored(dataset, *models, **options):
    """Evaluate weights in fp32 on the CPU, with panels in ``out`` by default."""
    names = tuple(str(model) for model in models)
    options = {"panels": Path("out"), **options}
    return evaluate(EvalConfig(dataset=dataset, models=names, settings=EXACT, **options))


def opened(path):
    """An image as an array, ``HxWx1`` or ``HxWx3``."""
    with Image.open(path) as image:
        return np.atleast_3d(np.asarray(image))


# ---- the detail ---------------------------------------------------------------------------


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


# ---- what is drawn ------------------------------------------------------------------------


@pytest.mark.parametrize("baselines", [("lanczos", "nearest"), ()], ids=len)
def test_a_panel_shows_lr_methods_and_hr(tiny_weights, drawn, baselines):
    """Each method has its name above and the report's scores below, each image its own panel."""
    report = scored("HR", tiny_weights, baselines=baselines)

    assert [path for path, _ in drawn] == [Path("out/a.png"), Path("out/b.png")]
    assert sorted(path.name for path in Path("out").iterdir()) == ["a.png", "b.png"]
    for (_, cells), name, size in zip(drawn, ("a.png", "b.png"), ("96x60", "60x48"), strict=True):
        own = [score for score in report.scores if score.image == name]
        assert [cell.title for cell in cells] == ["LR", *baselines, "tiny.safetensors", "HR"]
        assert [cell.caption for cell in cells[1:-1]] == [
            f"{score.values['psnr']:.2f} dB / {score.values['ssim']:.4f}" for score in own
        ]
        assert cells[-1].caption == size
        assert np.array_equal(cells[-1].image, opened(f"HR/{name}"))
    assert [cells[0].caption for _, cells in drawn] == ["32x20, x3", "20x16, x3"]


def test_the_detail_of_all_is_one_window(photo, tiny_weights, drawn, monkeypatch):
    """LR's squares, the filter, the net and HR show the same pixels, those most in error."""
    monkeypatch.setattr(panels.worst_window, "__defaults__", (30,))
    low = np.random.default_rng(2).integers(0, 255, (20, 32, 3), np.uint8)
    for folder, pixels in (("set/HR", photo[:60, :96]), ("set/LRx3", low)):
        Path(folder).mkdir(parents=True)
        Image.fromarray(pixels).save(f"{folder}/a.png")

    scored("set", tiny_weights, baselines=("nearest", "bicubic"))

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


# ---- where it is written ------------------------------------------------------------------


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


def test_the_images_are_not_written_over(tiny_weights):
    """A panel has its image's name, so it may not lie beside it, by a link either."""
    Path("linked").symlink_to("HR")
    before = [path.read_bytes() for path in sorted(Path("HR").iterdir())]

    with pytest.raises(UsageError, match=r"--panels .* is where the images are.*give another"):
        scored("HR", tiny_weights, panels=Path("linked"))

    assert [path.read_bytes() for path in sorted(Path("HR").iterdir())] == before


def test_a_place_that_cannot_be_written_is_refused_first(tiny_weights):
    """One line, exit code 1, before anything is computed: a broken image is not met yet."""
    Path("file").touch()
    Path("HR/a.png").write_bytes(b"broken")

    result = run_eval("HR", "-m", tiny_weights, "--panels", "file/out")

    assert (result.exit_code, result.stdout) == (1, "")
    assert re.fullmatch(r"error: cannot write .*; give another --panels\n", result.stderr)
