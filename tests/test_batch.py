"""``srcli upscale`` without a terminal: which files, under which names, what becomes of each."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from srcli import batch, images, weights, writing
from srcli.batch import BatchConfig, Job
from srcli.errors import NothingToDoError, UsageError, WeightsError
from srcli.model import ResidualAutoencoder
from srcli.upscaling import Settings, Upscaler

EXACT = Settings(device="cpu", dtype="fp32")
KNOWN = (
    ".avif .bmp .gif .jfif .jpe .jpeg .jpg .pbm .pgm .png .pnm .ppm .tif .tiff .webp"
    if ".avif" in images.READABLE_SUFFIXES
    else ".bmp .gif .jfif .jpe .jpeg .jpg .pbm .pgm .png .pnm .ppm .tif .tiff .webp"
)
ORIENTATION = 0x0112


@pytest.fixture(scope="session")
def plain_weights(tiny_config, tmp_path_factory):
    """A weights file of a net that corrects nothing: its result is the bicubic enlargement."""
    path = tmp_path_factory.mktemp("weights") / "plain.safetensors"
    net = ResidualAutoencoder(tiny_config)
    weights.save(path, net.state_dict(), tiny_config, {"scales": [2, 3, 4]})
    return path


@pytest.fixture(scope="session")
def desk(tmp_path_factory):
    """A folder that the examples of a property share."""
    return tmp_path_factory.mktemp("desk")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working directory, so that the paths of a test are short and relative."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def configured(*inputs, **options):
    """Options of a batch that computes in fp32 on the CPU."""
    return BatchConfig(inputs=inputs, **{"settings": EXACT, **options})


def touch(*names):
    """Make empty files, with their folders: a plan reads no picture."""
    for name in names:
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def names(jobs):
    """Sources and targets of jobs, as text."""
    return [(str(job.source), str(job.target)) for job in jobs]


def problems(config):
    """What stands in the way of each planned job."""
    return [job.problem for job in batch.plan(config)]


def listing(folder="."):
    """Every file and folder below a folder."""
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*"))


def enlarge(*inputs, model, **options):
    """Plan and run a batch."""
    config = configured(*inputs, model=str(model), **options)
    return list(batch.run(config, batch.plan(config)))


def picture(width, height, mode="RGB"):
    """Draw noise: no two pixels are expected to be alike."""
    channels = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}[mode]
    levels = np.random.default_rng(5).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return Image.fromarray(levels[..., 0] if channels == 1 else levels)


# ---- options ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": 0}, "--scale must lie in 1..16, not 0"),
        ({"scale": 0.999}, "--scale must lie in 1..16, not 0.999"),
        ({"scale": 16.01}, "--scale must lie in 1..16, not 16.01"),
        ({"scale": float("nan")}, "--scale must lie in 1..16, not nan"),
        ({"quality": 0}, "--quality must lie in 1..100, not 0"),
        ({"quality": 101}, "--quality must lie in 1..100, not 101"),
        ({"suffix": "a/b"}, "--suffix 'a/b' must not contain a path separator"),
        (
            {"format": "doc"},
            f"--format doc is unknown: use one of {KNOWN.replace(' ', ', ').replace('.', '')}",
        ),
    ],
)
def test_an_option_out_of_range_is_refused(options, message):
    """A value that cannot be meant is refused before any file is looked at."""
    with pytest.raises(UsageError) as caught:
        configured("photo.png", **options)

    assert str(caught.value) == message


@pytest.mark.parametrize(("scale", "suffix"), [(3, "_x3"), (1, "_x1"), (2.5, "_x2.5")])
def test_the_suffix_tells_the_factor(scale, suffix):
    """A whole factor is written without a decimal point."""
    assert configured("photo.png", scale=scale).name_suffix == suffix


# ---- plan: names --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "options", "target"),
    [
        ("photo.jpg", {}, "photo_x3.jpg"),
        ("photo.jpg", {"scale": 1.5}, "photo_x1.5.jpg"),
        ("photo.jpg", {"suffix": "_large"}, "photo_large.jpg"),
        ("photo.jpg", {"format": "png"}, "photo_x3.png"),
        ("photo.jpg", {"format": "png", "suffix": ""}, "photo.png"),
        ("PHOTO.JPG", {}, "PHOTO_x3.JPG"),
        ("photo.v1.png", {}, "photo.v1_x3.png"),
        ("notes.txt", {}, "notes_x3.png"),
        ("photo", {}, "photo_x3.png"),
        ("deep/down/photo.jpg", {}, "deep/down/photo_x3.jpg"),
        ("photo.jpg", {"output": "large.png"}, "large.png"),
        ("photo.jpg", {"output": "deep/large.webp"}, "deep/large.webp"),
        ("photo.jpg", {"output": "new"}, "new/photo.jpg"),
        ("photo.jpg", {"output": "new", "suffix": "_b"}, "new/photo_b.jpg"),
        ("photo.jpg", {"output": "new", "format": "tiff"}, "new/photo.tiff"),
        ("photo.jpg", {"output": "made"}, "made/photo.jpg"),
        ("photo.jpg", {"output": "made.d"}, "made.d/photo.jpg"),
        ("gone.jpg", {}, "gone_x3.jpg"),
    ],
)
def test_a_file_has_its_result_named(here, source, options, target):
    """Beside the input with a suffix, in the folder given, or under the file name given."""
    if source != "gone.jpg":
        touch(source)
    for folder in ("made", "made.d"):
        Path(folder).mkdir()
    before = listing(here)
    if "output" in options:
        options = options | {"output": Path(options["output"])}

    jobs = batch.plan(configured(source, **options))

    assert jobs == [Job(Path(source), Path(target))]
    assert listing(here) == before, "a plan makes nothing"


@pytest.mark.parametrize(
    ("recursive", "found"),
    [
        (False, ["a.PNG", "b.jpg"]),
        (True, ["a.PNG", "b.jpg", "sub/c.webp", "sub/deep/d.tif"]),
    ],
)
def test_a_folder_gets_a_sibling_with_the_same_names(here, recursive, found):
    """Images keep their names and tree; hidden files, hidden folders and other files stay."""
    touch("photos/b.jpg", "photos/a.PNG", "photos/sub/c.webp", "photos/sub/deep/d.tif")
    touch("photos/notes.txt", "photos/.b.jpg", "photos/.cache/e.png", "photos/sub/.f.png")
    Path("photos/folder.png").mkdir()

    jobs = batch.plan(configured("photos", recursive=recursive))

    assert names(jobs) == [(f"photos/{name}", str(here / "photos_x3" / name)) for name in found]
    assert problems(configured("photos", recursive=recursive)) == [None] * len(found)


@pytest.mark.parametrize(("start", "argument"), [("photos", "."), ("photos/sub", "..")])
def test_a_folder_named_by_dots_gets_a_sibling_too(here, monkeypatch, start, argument):
    """``.`` and ``..`` stand for the folder's real name."""
    touch("photos/a.jpg", "photos/sub/b.jpg")
    monkeypatch.chdir(start)

    jobs = batch.plan(configured(argument, scale=2))

    assert [job.target for job in jobs] == [here / "photos_x2" / "a.jpg"]


@pytest.mark.usefixtures("here")
def test_a_folder_takes_suffix_and_format():
    """Names in a folder change only where asked to."""
    touch("photos/a.jpg", "photos/sub/b.png")

    jobs = batch.plan(
        configured("photos", output=Path("out"), recursive=True, suffix="_big", format="webp")
    )

    assert names(jobs) == [
        ("photos/a.jpg", "out/a_big.webp"),
        ("photos/sub/b.png", "out/sub/b_big.webp"),
    ]


@pytest.mark.usefixtures("here")
def test_jobs_come_in_the_order_of_the_inputs():
    """Inputs keep their order; inside a folder names are sorted."""
    touch("z.png", "photos/b.png", "photos/a.png", "a.png")

    jobs = batch.plan(configured("z.png", "photos", "a.png", output=Path("out")))

    assert [str(job.source) for job in jobs] == ["z.png", "photos/a.png", "photos/b.png", "a.png"]


@pytest.mark.parametrize("absolute", [False, True])
def test_a_pattern_is_expanded(here, absolute):
    """What the shell left alone is expanded, sorted, hidden files left out."""
    touch("photos/b1.jpg", "photos/a1.jpg", "photos/a2.png", "photos/.c1.jpg")
    start = f"{here}/" if absolute else ""

    jobs = batch.plan(configured(f"{start}photos/*1.jp[ge]"))

    assert names(jobs) == [
        (f"{start}photos/{name}.jpg", f"{start}photos/{name}_x3.jpg") for name in ("a1", "b1")
    ]


@pytest.mark.parametrize("argument", ["photos", "photos/*"])
@pytest.mark.usefixtures("here")
def test_names_are_sorted_whatever_the_disk_says(argument):
    """The order does not depend on that in which the files were made."""
    touch(*(f"photos/{index * 37 % 100:02}.png" for index in range(100)))

    jobs = batch.plan(configured(argument))

    assert [job.source.name for job in jobs] == [f"{index:02}.png" for index in range(100)]


@pytest.mark.usefixtures("here")
def test_a_pattern_reaches_down_with_two_stars():
    """``**`` matches folders of any depth, none included."""
    touch("a.png", "one/b.png", "one/two/c.png")

    jobs = batch.plan(configured("**/*.png"))

    assert [str(job.source) for job in jobs] == ["a.png", "one/b.png", "one/two/c.png"]


@pytest.mark.usefixtures("here")
def test_a_file_whose_name_looks_like_a_pattern_is_itself():
    """Brackets in the name of a file that exists match nothing but that file."""
    touch("a[1].png", "a1.png")

    assert names(batch.plan(configured("a[1].png"))) == [("a[1].png", "a[1]_x3.png")]


@pytest.mark.parametrize(
    ("inputs", "recursive", "message"),
    [
        (("photos",), False, "no image found in photos (folders below it need -r)"),
        (("bare",), True, "no image found in bare"),
        (("*.gif", "bare"), False, "no image found in *.gif, bare (folders below it need -r)"),
    ],
)
@pytest.mark.usefixtures("here")
def test_nothing_to_do_says_where_it_looked(inputs, recursive, message):
    """Where no image matched, the way to look deeper is told unless it was taken."""
    touch("photos/sub/a.png", "photos/notes.txt", "bare/notes.txt")

    with pytest.raises(NothingToDoError) as caught:
        batch.plan(configured(*inputs, recursive=recursive))

    assert str(caught.value) == message


# ---- plan: what cannot be -----------------------------------------------------------------


@pytest.mark.parametrize(
    "inputs", [("a.png", "b.png"), ("*.png",), ("photos", "a.png"), ("a.png", "gone.png")]
)
@pytest.mark.usefixtures("here")
def test_several_inputs_cannot_share_a_file(inputs):
    """A file name as output serves one file alone."""
    touch("a.png", "b.png", "photos/c.png")

    with pytest.raises(UsageError, match=r"--output large\.png is a file name; several inputs "):
        batch.plan(configured(*inputs, output=Path("large.png")))


@pytest.mark.usefixtures("here")
def test_a_folder_cannot_go_into_a_file():
    """The output of a folder is a folder, or does not exist yet."""
    touch("photos/a.png", "there.png")

    with pytest.raises(UsageError) as caught:
        batch.plan(configured("photos", output=Path("there.png")))

    assert str(caught.value) == "--output there.png is a file; a folder's results need a folder"


@pytest.mark.usefixtures("here")
def test_an_output_of_unknown_format_is_told():
    """The suffix decides the format, so an unknown one is a problem of that file."""
    touch("a.png")

    assert problems(configured("a.png", output=Path("a.doc"))) == [
        f"its result a.doc has no known image suffix; use one of {KNOWN}"
    ]


@pytest.mark.usefixtures("here")
def test_of_two_inputs_with_one_output_the_second_is_refused():
    """The first of them is done, and the second names it."""
    touch("one/a.png", "two/a.png", "two/b.png")

    first, second, third = problems(configured("one", "two", output=Path("out")))

    assert first is None
    assert third is None
    assert second.startswith("its result out/a.png is also that of one/a.png; ")


@pytest.mark.parametrize(
    ("inputs", "options", "problem"),
    [
        (
            ("a.png", "a_x3.png"),
            {},
            "its result a_x3.png is an input; use --output or --suffix",
        ),
        (("a.png",), {"suffix": ""}, "its result a.png is an input; use --output or --suffix"),
        (
            ("a.png",),
            {"output": Path("a.png")},
            "its result a.png is an input; use --output or --suffix",
        ),
        (
            ("a.png",),
            {"output": Path("link.png")},
            "its result link.png is an input; use --output or --suffix",
        ),
        (
            ("link.png",),
            {"output": Path("a.png")},
            "its result a.png is an input; use --output or --suffix",
        ),
        (
            ("photos/b.png",),
            {"output": Path("alias")},
            "its result alias/b.png is an input; use --output or --suffix",
        ),
    ],
)
@pytest.mark.parametrize("existing", ["error", "overwrite"])
@pytest.mark.usefixtures("here")
def test_an_input_is_never_a_target(inputs, options, problem, existing):
    """No option lets a result take the place of an input, and no link hides it."""
    touch("a.png", "a_x3.png", "photos/b.png")
    Path("link.png").symlink_to("a.png")
    Path("alias").symlink_to("photos", target_is_directory=True)

    assert problems(configured(*inputs, **options, existing=existing))[0] == problem


@pytest.mark.usefixtures("here")
def test_results_of_an_earlier_run_are_no_inputs_when_it_goes_on():
    """A pattern that matches originals and their results goes on with the originals."""
    touch("a.png", "a_x3.png", "b.png", "c_x3.png")

    jobs = batch.plan(configured("*.png", existing="skip"))

    assert [str(job.source) for job in jobs] == ["a.png", "b.png", "c_x3.png"]
    assert [job.problem for job in jobs] == [None] * 3


@pytest.mark.usefixtures("here")
def test_results_inside_the_searched_folder_are_no_inputs():
    """An output folder below the input folder is left out of the search."""
    touch("photos/a.png", "photos/out/a.png", "photos/sub/b.png")

    jobs = batch.plan(
        configured("photos", output=Path("photos/out"), recursive=True, existing="skip")
    )

    assert [str(job.source) for job in jobs] == ["photos/a.png", "photos/sub/b.png"]


@pytest.mark.parametrize(
    ("existing", "problem"),
    [
        ("error", "a_x3.png is there already; use --overwrite or --skip-existing"),
        ("skip", None),
        ("overwrite", None),
    ],
)
@pytest.mark.usefixtures("here")
def test_an_output_that_is_there_is_a_problem_unless_told(existing, problem):
    """Without a word from the user, nothing that exists is replaced or taken as done."""
    touch("a.png", "a_x3.png", "b.png")

    assert problems(configured("a.png", "b.png", existing=existing)) == [problem, None]


@pytest.mark.parametrize("existing", ["error", "skip", "overwrite"])
@pytest.mark.usefixtures("here")
def test_a_folder_at_the_target_is_a_problem(existing):
    """A folder is neither replaced nor taken as done."""
    touch("a.png")
    Path("a_x3.png").mkdir()

    assert problems(configured("a.png", existing=existing)) == [
        "its result a_x3.png is a folder; give another --output"
    ]


def test_the_root_folder_has_no_sibling():
    """The one folder without a name asks for an output of its own."""
    with pytest.raises(UsageError, match="--output"):
        batch.plan(configured("/"))


@pytest.mark.usefixtures("here")
def test_an_empty_input_is_not_the_working_directory():
    """An argument that a shell variable left empty is refused, not taken for ``.``."""
    touch("a.png")

    with pytest.raises(UsageError):
        batch.plan(configured(""))


# ---- run: sizes and pixels ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "scale", "larger"),
    [
        ((1, 1), 1, (1, 1)),
        ((1, 1), 1.25, (1, 1)),
        ((1, 1), 1.5, (2, 2)),
        ((1, 1), 3, (3, 3)),
        ((1, 1), 16, (16, 16)),
        ((2, 1), 1.25, (3, 1)),
        ((1, 7), 2.5, (3, 18)),
        ((5, 7), 1, (5, 7)),
        ((5, 7), 1.5, (8, 11)),
        ((33, 17), 1.1, (36, 19)),
        ((23, 37), 2, (46, 74)),
        ((47, 31), 3.7, (174, 115)),
        ((3, 50), 4.5, (14, 225)),
        ((9, 11), 16, (144, 176)),
    ],
)
def test_the_size_is_exact(here, tiny_weights, size, scale, larger):
    """Each side is the input's times the factor, halves rounded up, from one pixel on."""
    picture(*size).save("a.png")

    (result,) = enlarge("a.png", model=tiny_weights, scale=scale, output=Path("b.png"))

    assert (result.status, result.before, result.after) == ("done", size, larger)
    with Image.open("b.png") as image:
        assert image.size == larger
    assert listing(here) == ["a.png", "b.png"]


@settings(max_examples=20)
@given(width=st.integers(1, 40), height=st.integers(1, 40), quarters=st.integers(4, 24))
def test_every_size_is_exact(plain_weights, desk, width, height, quarters):
    """Round half up for any picture and any quarter of a factor, by integer arithmetic."""
    picture(width, height).save(desk / "a.png")

    (result,) = enlarge(
        str(desk / "a.png"),
        model=plain_weights,
        scale=quarters / 4,
        output=desk / "b.png",
        existing="overwrite",
    )

    assert result.after == ((2 * width * quarters + 4) // 8, (2 * height * quarters + 4) // 8)
    with Image.open(desk / "b.png") as image:
        assert image.size == result.after


@pytest.mark.usefixtures("here")
def test_a_net_that_corrects_nothing_leaves_the_bicubic_enlargement(plain_weights, photo):
    """The whole way, but for the net, agrees with Pillow's filter within a level."""
    Image.fromarray(photo).save("a.png")

    enlarge("a.png", model=plain_weights)

    height, width = photo.shape[:2]
    expected = Image.fromarray(photo).resize((3 * width, 3 * height), Image.Resampling.BICUBIC)
    actual = images.read(Path("a_x3.png")).pixels
    assert np.abs(actual.astype(int) - np.asarray(expected).astype(int)).max() <= 1


@pytest.mark.usefixtures("here")
def test_the_net_decides_the_result(tiny_weights, photo):
    """The file holds what the Python interface computes with the same weights."""
    Image.fromarray(photo).save("a.png")

    enlarge("a.png", model=tiny_weights)

    upscaler = Upscaler.from_weights(str(tiny_weights), settings=EXACT)
    height, width = photo.shape[:2]
    expected = upscaler.upscale(images.read(Path("a.png")), (3 * height, 3 * width))
    actual = images.read(Path("a_x3.png"))
    assert np.array_equal(actual.pixels, expected.pixels)
    bicubic = Image.fromarray(photo).resize((3 * width, 3 * height), Image.Resampling.BICUBIC)
    assert np.abs(actual.pixels.astype(int) - np.asarray(bicubic).astype(int)).max() > 1


@pytest.mark.parametrize(
    ("mode", "name", "expected"),
    [
        ("1", "a.png", "L"),
        ("L", "a.png", "L"),
        ("L", "a.jpg", "L"),
        ("LA", "a.png", "LA"),
        ("P", "a.png", "RGB"),
        ("RGB", "a.png", "RGB"),
        ("RGB", "a.jpg", "RGB"),
        ("RGBA", "a.png", "RGBA"),
        ("CMYK", "a.jpg", "RGB"),
        ("I;16", "a.png", "I;16"),
    ],
)
@pytest.mark.usefixtures("here")
def test_a_mode_stays_what_it_shows(tiny_weights, mode, name, expected):
    """Grey stays grey, transparency stays, a palette becomes the colours it stood for."""
    if mode == "I;16":
        image = Image.fromarray(np.arange(11 * 7, dtype=np.uint16).reshape(7, 11) * 800)
    elif mode in {"L", "LA", "RGB", "RGBA"}:
        image = picture(11, 7, mode)
    else:
        image = picture(11, 7).convert(mode)
    assert image.mode == mode
    image.save(name)

    enlarge(name, model=tiny_weights, output=Path(f"larger.{name[2:]}"))

    with Image.open(f"larger.{name[2:]}") as larger:
        assert (larger.mode, larger.size) == (expected, (33, 21))


@pytest.mark.parametrize("scale", [1, 1.5, 3, 9])
@pytest.mark.parametrize(
    ("mode", "colour"),
    [
        ("L", 77),
        ("LA", (77, 200)),
        ("RGB", (10, 128, 255)),
        ("RGBA", (250, 3, 90, 100)),
        ("RGBA", (0, 0, 0, 255)),
        ("I;16", 40_001),
    ],
)
@pytest.mark.usefixtures("here")
def test_a_constant_picture_stays_constant(plain_weights, mode, colour, scale):
    """No step of the way, up in steps or up and down again, moves a level."""
    if mode == "I;16":
        Image.fromarray(np.full((17, 26), colour, np.uint16)).save("a.png")
    else:
        Image.new(mode, (26, 17), colour).save("a.png")

    enlarge("a.png", model=plain_weights, scale=scale, output=Path("b.png"))

    with Image.open("b.png") as image:
        assert image.mode == mode
        levels = np.asarray(image)
    assert (levels == np.array(colour)).all(), np.unique(levels)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.usefixtures("here")
def test_the_orientation_is_applied(tiny_weights, orientation):
    """A turned photo comes out upright, and nothing turns it a second time."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    image = picture(23, 13)
    image.save("turned.png", exif=exif)
    with Image.open("turned.png") as turned:
        ImageOps.exif_transpose(turned).save("upright.png", exif=b"")

    enlarge("turned.png", "upright.png", model=tiny_weights)

    with Image.open("turned_x3.png") as actual, Image.open("upright_x3.png") as expected:
        assert actual.size == ((69, 39) if orientation <= 4 else (39, 69))
        assert actual.getexif().get(ORIENTATION, 1) == 1
        assert np.array_equal(np.asarray(actual), np.asarray(expected))


# ---- run: what becomes of each ------------------------------------------------------------


def test_a_bad_file_costs_only_itself(here, tiny_weights):
    """Damaged, foreign and missing files fail with a reason; the others are done."""
    Path("photos").mkdir()
    picture(21, 15).save("photos/a.png")
    whole = Path("photos/a.png").read_bytes()
    Path("photos/b.png").write_bytes(whole[: len(whole) // 2])
    Path("photos/c.png").write_text("no picture", encoding="utf-8")
    Path("photos/d.png").touch()
    picture(15, 21).save("photos/e.jpg")

    results = enlarge("photos", "gone.png", model=tiny_weights, output=Path("out"))

    assert [(str(result.job.source), result.status) for result in results] == [
        ("photos/a.png", "done"),
        ("photos/b.png", "failed"),
        ("photos/c.png", "failed"),
        ("photos/d.png", "failed"),
        ("photos/e.jpg", "done"),
        ("gone.png", "failed"),
    ]
    assert [result.message for result in results] == [
        "",
        "photos/b.png: truncated, its end is missing; fetch the file again",
        (
            "photos/c.png: not an image in a known format, or damaged at its start; "
            "convert it to PNG or JPEG"
        ),
        "photos/d.png: empty (0 bytes); fetch the file again",
        "",
        "gone.png: no such file; check the path",
    ]
    assert listing(here / "out") == ["a.png", "e.jpg"]
    assert listing("photos") == ["a.png", "b.png", "c.png", "d.png", "e.jpg"]
    assert Path("photos/a.png").read_bytes() == whole


@pytest.mark.parametrize("source", ["photos/bad.png", "photos"])
def test_a_failed_input_leaves_no_folder(here, tiny_weights, source):
    """The output folder is made for a result, not for a promise of one."""
    touch("photos/bad.png")
    before = listing(here)

    (result,) = enlarge(source, model=tiny_weights, output=Path("out/deep"))

    assert result.status == "failed"
    assert listing(here) == before


def test_a_result_too_large_for_its_format_leaves_no_folder(here, tiny_weights):
    """A WebP has at most 16383 pixels a side; what exceeds them leaves nothing behind."""
    picture(1100, 2).save("wide.webp")

    (result,) = enlarge("wide.webp", model=tiny_weights, scale=15, output=Path("out"))

    assert result.message == (
        "out/wide.webp: 16500x30 pixels exceed the 16383 a side that WEBP can hold; "
        "write PNG or TIFF"
    )
    assert listing(here) == ["wide.webp"]


def test_output_folders_are_made(here, tiny_weights):
    """Every folder of the output's path is made, and the tree below a folder is kept."""
    Path("photos/sub").mkdir(parents=True)
    picture(9, 7).save("photos/sub/a.png")

    (result,) = enlarge("photos", model=tiny_weights, output=Path("x/y"), recursive=True)

    assert result.status == "done"
    assert listing(here / "x") == ["y", "y/sub", "y/sub/a.png"]


def test_a_file_in_the_way_of_the_folder_fails(here, tiny_weights):
    """Where a folder cannot be made, the file fails and the blocker stays."""
    picture(9, 7).save("a.png")
    Path("blocker").write_text("here first", encoding="utf-8")

    (result,) = enlarge("a.png", model=tiny_weights, output=Path("blocker/sub/b.png"))

    assert result.status == "failed"
    assert result.message.startswith("cannot write blocker/sub/b.png: blocker is not a folder")
    assert listing(here) == ["a.png", "blocker"]
    assert Path("blocker").read_text(encoding="utf-8") == "here first"


@pytest.mark.parametrize(
    ("existing", "status", "message"),
    [
        (
            "error",
            "failed",
            "a.png: a_x3.png is there already; use --overwrite or --skip-existing",
        ),
        ("skip", "skipped", "a_x3.png is there already"),
        ("overwrite", "done", ""),
    ],
)
def test_an_output_that_is_there(here, tiny_weights, existing, status, message):
    """It stays byte for byte unless overwriting was asked for; the others are done."""
    picture(9, 7).save("a.png")
    picture(9, 7).save("b.png")
    Path("a_x3.png").write_text("an older result", encoding="utf-8")

    results = enlarge("a.png", "b.png", model=tiny_weights, existing=existing)

    assert [(result.status, result.message) for result in results] == [
        (status, message),
        ("done", ""),
    ]
    kept = Path("a_x3.png").read_bytes() == b"an older result"
    assert kept == (existing != "overwrite")
    if not kept:
        assert images.read_size(Path("a_x3.png")) == (27, 21)
    assert listing(here) == ["a.png", "a_x3.png", "b.png", "b_x3.png"]


def test_a_link_at_the_target_is_replaced_not_followed(here, tiny_weights):
    """Overwriting a link leaves the file it pointed to alone."""
    picture(9, 7).save("a.png")
    Path("precious.png").write_text("precious", encoding="utf-8")
    Path("b.png").symlink_to("precious.png")

    (result,) = enlarge("a.png", model=tiny_weights, output=Path("b.png"), existing="overwrite")

    assert result.status == "done"
    assert Path("precious.png").read_text(encoding="utf-8") == "precious"
    assert listing(here) == ["a.png", "b.png", "precious.png"]


def test_a_full_disk_leaves_the_old_result(here, tiny_weights, monkeypatch):
    """A file whose writing breaks off in the middle neither appears nor replaces one."""

    def break_off(_picture, target, _name, **_options):
        target.write_bytes(b"half a pict")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    picture(9, 7).save("a.png")
    picture(9, 7).save("b.png")
    Path("a_x3.png").write_text("an older result", encoding="utf-8")
    monkeypatch.setattr(writing, "_encode", break_off)

    results = enlarge("a.png", "b.png", model=tiny_weights, existing="overwrite")

    assert [(result.status, result.message) for result in results] == [
        ("failed", f"{name}: the disk is full; free some space or choose another folder")
        for name in ("a_x3.png", "b_x3.png")
    ]
    assert listing(here) == ["a.png", "a_x3.png", "b.png"]
    assert Path("a_x3.png").read_text(encoding="utf-8") == "an older result"


def test_a_picture_too_large_for_the_memory_costs_only_itself(here, tiny_weights, monkeypatch):
    """A result that cannot be allocated is that file's failure, told with a way out."""
    upscale = Upscaler.upscale

    def short_of_memory(self, given, size, *rest):
        if given.width == 40:
            raise MemoryError
        return upscale(self, given, size, *rest)

    picture(40, 7).save("a.png")
    picture(9, 7).save("b.png")
    monkeypatch.setattr(Upscaler, "upscale", short_of_memory)

    first, second = enlarge("a.png", "b.png", model=tiny_weights)

    assert (first.status, second.status) == ("failed", "done")
    assert "memory" in first.message
    assert listing(here) == ["a.png", "b.png", "b_x3.png"]


def test_a_name_too_long_for_its_result_costs_only_itself(here, tiny_weights):
    """A name that has no room for the suffix fails; the others are done."""
    long = f"{'a' * 250}.png"
    picture(9, 7).save(long)
    picture(9, 7).save("b.png")

    first, second = enlarge(long, "b.png", model=tiny_weights)

    assert (first.status, second.status) == ("failed", "done")
    assert listing(here) == [long, "b.png", "b_x3.png"]


@pytest.mark.parametrize("kind", ["too long", "a loop"])
@pytest.mark.usefixtures("here")
def test_a_path_that_leads_nowhere_costs_only_itself(tiny_weights, kind):
    """What the file system refuses to look up fails like a missing file."""
    bad = f"{'a' * 300}.png" if kind == "too long" else "loop.png"
    if kind == "a loop":
        Path(bad).symlink_to(bad)
    picture(9, 7).save("b.png")

    first, second = enlarge(bad, "b.png", model=tiny_weights)

    assert (first.status, second.status) == ("failed", "done")
    assert first.message.startswith(bad)


@pytest.mark.usefixtures("here")
def test_damaged_weights_stop_before_the_first_job(tiny_weights):
    """What concerns every input is told once and for all, with nothing begun."""
    picture(9, 7).save("a.png")
    Path("cut.safetensors").write_bytes(tiny_weights.read_bytes()[:-8])

    with pytest.raises(WeightsError, match=r"cut\.safetensors"):
        enlarge("a.png", model="cut.safetensors")

    assert listing() == ["a.png", "cut.safetensors"]


@pytest.mark.parametrize("scale", [1, 1.3, 3, 16])
@pytest.mark.usefixtures("here")
def test_progress_rises_to_one(tiny_weights, scale):
    """Of every job the share done never falls, and the last one told is all of it."""
    picture(31, 45).save("a.png")
    picture(5, 40).save("b.png")
    told = {"a.png": [], "b.png": []}
    settings = Settings(device="cpu", dtype="fp32", tile=120)
    config = configured("a.png", "b.png", model=str(tiny_weights), scale=scale, settings=settings)

    list(
        batch.run(
            config,
            batch.plan(config),
            on_progress=lambda job, share: told[job.source.name].append(share),
        )
    )

    for shares in told.values():
        assert shares == sorted(shares)
        assert shares[-1] == 1.0
    assert len(told["a.png"]) >= (2 if scale == 16 else 1), "more than the end is told"


@pytest.mark.usefixtures("here")
def test_a_patch_that_overflows_is_redone_and_told_once(tiny_weights, monkeypatch):
    """A result that is not finite is computed again in fp32, with one notice for the batch."""
    picture(31, 45).save("a.png")
    picture(31, 45).save("b.png")
    told = []
    config = configured("a.png", "b.png", model=str(tiny_weights))
    forward = ResidualAutoencoder.forward
    calls = []

    def overflow_every_other_time(self, image):
        calls.append(image)
        return forward(self, image) + (torch.inf if len(calls) % 2 else 0)

    monkeypatch.setattr(ResidualAutoencoder, "forward", overflow_every_other_time)
    results = list(batch.run(config, batch.plan(config), notice=told.append))

    assert [result.status for result in results] == ["done", "done"]
    assert len(calls) == 4
    assert told == ["a patch was not finite in torch.float32 and was redone in fp32"]
