"""The plan: what results are called, and which of them cannot be."""

import io
import os
from pathlib import Path

import pytest
from batch_files import configured, listed, listing, names, problems, targets, touch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from run_files import refusal

from srcli.errors import NothingToDoError, UsageError
from srcli.imaging.formats import READABLE_SUFFIXES
from srcli.ops.spans import TargetSize
from srcli.upscaling import conflicts
from srcli.upscaling.config import Job
from srcli.upscaling.plan import plan

pytestmark = pytest.mark.usefixtures("here")

KNOWN = " ".join(sorted(READABLE_SUFFIXES))


BRACES = ": what stands in braces must be {stem}, {model}, {scale}, {width} or {height}"
GIVE = "give a name such as '{stem}_x{scale}'"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": 0.999}, "--scale must lie in 1..16, not 0.999"),
        ({"suffix": "a/b"}, "--suffix 'a/b' must not contain a path separator"),
        ({"suffix": "{size}"}, f"--suffix '{{size}}'{BRACES}"),
        ({"name": "{scale:g}"}, f"--name '{{scale:g}}'{BRACES}"),
        ({"name": "../{stem}"}, "--name '../{stem}' must not contain a path separator"),
        ({"name": ""}, f"--name '' is empty; {GIVE}"),
        ({"name": "a.JPG"}, f"--name 'a.JPG' has an ending, which is --format's; {GIVE}"),
        ({"name": "{stem}", "suffix": ""}, "--suffix and --name exclude each other; give one"),
        ({"jobs": 257}, "--jobs must lie in 1..256, not 257"),
        ({"include": ("",)}, "--include is empty; give a pattern such as *.jpg"),
        ({"exclude": ("./",)}, "--exclude is empty; give a pattern such as *.jpg"),
    ],
)
def test_an_option_out_of_range_is_refused(options, message):
    """A value that cannot be meant is refused before any file is looked at."""
    assert refusal(lambda: configured("photo.png", **options), UsageError) == message


@pytest.mark.parametrize(
    ("source", "options", "target"),
    [
        ("photo.jpg", {}, "photo_x3.jpg"),
        ("photo.jpg", {"scale": 1.5}, "photo_x1.5.jpg"),
        ("photo.jpg", {"size": TargetSize.parse(">=x1080")}, "photo_x1080.jpg"),
        ("photo.jpg", {"suffix": "_{scale}", "size": TargetSize.parse("9x8")}, "photo_9x8.jpg"),
        ("photo.jpg", {"suffix": "{scale}{scale}", "scale": 2.5}, "photo2.52.5.jpg"),
        ("photo.jpg", {"name": "{stem}_{model}.", "model": "{stem}"}, "photo_{stem}..jpg"),
        ("photo.jpg", {"format": "png", "suffix": ""}, "photo.png"),
        ("PHOTO.V1.JPG", {}, "PHOTO.V1_x3.JPG"),
        ("notes.txt", {}, "notes_x3.png"),
        ("deep/down/photo", {}, "deep/down/photo_x3.png"),
        ("photo.jpg", {"output": "deep/large.webp"}, "deep/large.webp"),
        ("photo.jpg", {"output": "new"}, "new/photo.jpg"),
        ("photo.jpg", {"output": "new", "suffix": "_b", "format": "tiff"}, "new/photo_b.tiff"),
        ("photo.jpg", {"output": "new.png", "into_folder": True}, "new.png/photo.jpg"),
        ("photo.jpg", {"output": "made.d"}, "made.d/photo.jpg"),
        ("gone.jpg", {}, "gone_x3.jpg"),
    ],
)
def test_a_file_has_its_result_named(here, source, options, target):
    """Beside the input with a suffix, in the folder given, or under the file name given."""
    if source != "gone.jpg":
        touch(source)
    Path("made.d").mkdir()
    before = listing(here)
    jobs = plan(configured(source, **options))

    assert jobs == [Job(Path(source), Path(target), source)]
    assert listing(here) == before, "a plan makes nothing"


def test_a_folder_gets_a_sibling_with_the_same_names():
    """Images of the first level, or all below it, keep their names and tree."""
    touch("photos/b.jpg", "photos/a.PNG", "photos/sub/c.webp", "photos/sub/deep/d.tif")
    Path("photos/folder.png").mkdir()
    found = ["a.PNG", "b.jpg", "sub/c.webp", "sub/deep/d.tif"]
    expected = [(f"photos/{name}", f"photos_x3/{name}") for name in found]

    assert names(plan(configured("photos"))) == expected[:2]
    assert names(plan(configured("photos", recursive=True))) == expected
    assert problems(configured("photos", recursive=True)) == [None] * 4


@pytest.mark.parametrize(
    ("folder", "options", "target"),
    [
        ("photos", {"size": TargetSize.parse("1920x")}, "photos_1920x/a.png"),
        ("photos", {"suffix": "-{scale}"}, "photos_x3/a-3.png"),
        ("./photos/sub/..", {"scale": 2}, "photos_x2/a.png"),
        ("photos/.", {"name": "new", "format": "webp"}, "photos_x3/new.webp"),
    ],
)
def test_a_folder_of_results_is_marked_by_the_size(here, monkeypatch, folder, options, target):
    """``.`` and ``..`` stand for the folder's real name; a suffix is of the names inside."""
    touch("photos/a.png", "photos/sub/b.png")
    start, _, argument = folder.rpartition("/")
    monkeypatch.chdir(start or ".")

    assert [job.target.resolve() for job in plan(configured(argument, **options))] == [
        here / target
    ]


def test_a_name_may_have_the_size_of_the_result():
    """It is read from the header of each input; one that has none fails when it is read."""
    Image.new("L", (5, 4)).save("a.png")
    touch("b.png")
    options = {"name": "{stem}_{width}x{height}", "scale": 2.5}

    assert targets("a.png", "b.png", **options) == {"a.png": "a_13x10.png", "b.png": "b_0x0.png"}
    Image.new("L", (13, 10)).save("a_13x10.png")
    again = plan(configured("a.png", "a_13x10.png", existing="overwrite", **options))
    assert [job.source.name for job in again] == ["a.png"]
    with pytest.raises(UsageError, match="needs files; a pipe is read once"):
        plan(configured("-", output="out", **options))


@pytest.mark.parametrize(
    ("inputs", "options", "expected"),
    [
        (["a.png"], {"output": "a.doc"}, [f"no known image suffix; use one of {KNOWN}"]),
        (["there.png", "a.png"], {}, ["there already; use --overwrite or --skip-existing", None]),
        (["there.png", "a.png"], {"existing": "skip"}, [None, None]),
        (["there.png", "a.png"], {"existing": "overwrite"}, [None, None]),
        (["folder.png"], {"existing": "overwrite"}, ["is a folder; give another --output"]),
        # No link hides that a result would take the place of an input.
        (["link.png"], {"output": "a.png", "existing": "overwrite"}, ["a.png is an input; use"]),
        # Whoever wants one place: none of them is done, the rest is.
        (
            ["one/c.png", "two/c.png", "a.png", "photos/c.png"],
            {"output": "out"},
            ["also that of two/c.png", "also that of one/c.png", None, "also that of one/c.png"],
        ),
        (
            ["a.png", "a.jpg"],
            {"format": "webp", "existing": "skip"},
            ["also that of a.jpg; rename one of them", "also that of a.png; rename one of them"],
        ),
        # What is no picture takes no name from one, and fails when it is read.
        (["a.png", "a.xmp", "a.nef", "gone/a.png"], {"format": "webp", "output": "o"}, [None] * 4),
        # A link to a folder of results makes no second place of it, even before it is filled.
        (["one", "two"], {}, ["also that of two/c.png", "also that of one/c.png"]),
    ],
)
def test_what_cannot_be_is_known_before_anything_is_begun(inputs, options, expected):
    """Unknown formats, results that are there, and all of several inputs with one result."""
    touch("a.xmp", "a.png", "a.jpg", "there.png", "there_x3.png", "folder.png", "real/other")
    touch("one/c.png", "two/c.png", "photos/c.png")
    Path("a.nef").write_bytes(b"IIU\0" + bytes(60))
    Path("folder_x3.png").mkdir()
    Path("link.png").symlink_to("a.png")
    Path("two_x3").symlink_to("real")
    Path("one_x3").symlink_to("two_x3")

    found = problems(configured(*inputs, **options))

    for problem, text in zip(found, expected, strict=True):
        assert problem is None if text is None else text in problem


@pytest.mark.parametrize(
    ("inputs", "output", "message"),
    [
        (["photos", "a.png"], "x.png", "--output x.png is a file name; several inputs need"),
        (["@list.txt"], "x.png", "--output x.png is a file name; several inputs need a folder"),
        (["photos"], "there.png", "--output there.png is a file; a folder's results need a folder"),
        (["/./gone/a.png"], None, "/ has no folder beside it; give an --output"),
        ([""], None, "an input is empty; give a file, a folder or a pattern"),
        (["a.png", "@gone"], None, "cannot read the list gone: No such file or directory; check"),
        (["a.png", "@photos"], None, "cannot read the list photos: Is a directory; check the path"),
        (["a.png", "@b.jpg"], None, "the list b.jpg is a picture; give it without the @"),
        (["-", "a.png"], None, "the result of - goes to stdout, alone; give an --output"),
        (["photos"], "-", "--output - (stdout) takes one file; several need a folder"),
        (["-", "@-"], "out", "- and @- both read stdin; give the list or the picture as a file"),
    ],
)
def test_what_cannot_be_planned_is_refused(monkeypatch, inputs, output, message):
    """One line, and nothing is planned."""
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"-\n")))
    touch("a.png", "b.png", "photos/c.png", "there.png")
    Path("list.txt").write_text("a.png\nb.png\n")
    Path("b.jpg").write_bytes(b"\xff\xd8\xff\xe0\0.\0")

    assert refusal(lambda: plan(configured(*inputs, output=output)), UsageError).startswith(message)


@pytest.mark.parametrize("folding", [False, True])
def test_names_that_the_system_takes_for_one_clash(monkeypatch, folding):
    """On Windows and macOS case and Unicode form make no other name."""
    monkeypatch.setattr(conflicts, "_FOLDING", folding)
    touch("a/x.png", "a/e\u0301.png", "a/sub/y.png", "b/X.png", "b/é.png", "b/Sub/y.png", "b/z.png")

    jobs = plan(configured("a", "b", output="out", recursive=True))

    refused = [str(job.source) for job in jobs if job.problem is not None]
    assert len(refused) == (6 if folding else 0)


STEMS = st.sampled_from(["a", "b", "a_x3", "A", "a_x3_x3", "\udcff", "n\n"])
FILES = st.builds("{}{}".format, STEMS, st.sampled_from([".png", ".jpg", ".PNG", ".txt"]))
FOLDERS = st.sampled_from(["", "p/", "p/q/", "p_x3/", "out/", "p/out/", "p/.h/"])
PATHS = st.builds("{}{}".format, FOLDERS, FILES)
LINKS = st.tuples(PATHS, PATHS, st.booleans())
INPUTS = st.one_of(
    PATHS,
    st.sampled_from(
        [".", "p", "./p", "p/", "p/./q", "p/q", "out", "link", "*.png", "p/*", "**/a*", "p/./**"]
    ),
)


@st.composite
def selections(draw):
    """Draw options."""
    return {
        "output": draw(st.sampled_from([None, "out", "p/out", "p", "new/deep"])),
        "suffix": draw(st.sampled_from([None, "", "_x3", "_{scale}"])),
        "format": draw(st.sampled_from([None, "png"])),
        "recursive": draw(st.booleans()),
        "include": draw(st.sampled_from([(), ("*.png",), ("q/**",)])),
        "exclude": draw(st.sampled_from([(), ("b*",), ("out",)])),
        "existing": draw(st.sampled_from(["error", "skip", "overwrite"])),
    }


def furnish(folder, files, links):
    """Make a tree with hard and symbolic links, and go there."""
    folder.mkdir()
    os.chdir(folder)
    for name in ("p/q/a.png", *files):
        touch(name)
    Path("link").symlink_to("p/q")
    Path("p/up").symlink_to("..")
    for name, origin, hard in links:
        if not os.path.lexists(name) and Path(origin).exists():
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            (os.link if hard else os.symlink)(Path(origin).absolute(), name)


SITUATIONS = st.fixed_dictionaries(
    {
        "files": st.lists(PATHS, max_size=8),
        "links": st.lists(LINKS, max_size=3),
        "inputs": st.lists(INPUTS, min_size=1, max_size=3),
        "options": selections(),
    }
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(situation=SITUATIONS, data=st.data())
def test_nothing_is_ever_overwritten_by_chance(folders, situation, data):
    """No two results have one place, none an input's; a list of all or some gives the same."""
    furnish(next(folders), situation["files"], situation["links"])
    options = situation["options"]
    try:
        jobs = plan(configured(*situation["inputs"], **options))
    except NothingToDoError:
        return
    # What is not there fails when it is read, and takes no place.
    good = [job.target for job in jobs if job.problem is None and job.source.exists()]
    places = [os.path.realpath(target.parent) + "/" + target.name for target in good]

    assert len(places) == len(set(places))
    assert not set(places) & {os.path.realpath(job.source) for job in jobs}
    assert options["existing"] != "error" or not any(map(os.path.lexists, good))

    part = data.draw(st.lists(st.sampled_from(jobs), min_size=1, unique=True))
    assert plan(configured(listed(*(job.entry for job in jobs)), **options)) == jobs
    again = plan(configured(listed(*(job.entry for job in part)), **options))
    assert names(again) == names(part)
    assert [job.entry for job in again] == [job.entry for job in part]
