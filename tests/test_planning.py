"""Which files are enlarged, and under which names: decided before any is opened."""

import io
import os
import sys
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from srcli.errors import NothingToDoError, OutputError, UsageError
from srcli.imaging.formats import READABLE_SUFFIXES
from srcli.ops.spans import TargetSize
from srcli.upscaling import conflicts
from srcli.upscaling.lists import read_list, write_list
from srcli.upscaling.plan import plan
from srcli.upscaling.selection import STREAM, Job, Selection

KNOWN = " ".join(sorted(READABLE_SUFFIXES))


@pytest.fixture(scope="session")
def desk(tmp_path_factory):
    """Give every example of a property a folder of its own."""
    folder = tmp_path_factory.mktemp("desk")
    return (folder / f"{number}" for number in count())


def selected(*inputs, **options):
    """Select files with some options; an output may be text."""
    if isinstance(options.get("output"), str):
        options = options | {"output": Path(options["output"])}
    return Selection(inputs=inputs, **options)


def touch(*names):
    """Make empty files, with their folders: a plan opens none."""
    for name in names:
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def listed(*entries, name="list.txt"):
    """Write a list and give the input that stands for it."""
    write_list(Path(name), entries)
    return f"@{name}"


def targets(*inputs, **options):
    """Plan and give the results by the entries of their inputs."""
    return {job.entry: str(job.target) for job in plan(selected(*inputs, **options))}


def sources(*inputs, **options):
    """Plan and give the files found."""
    return [str(job.source) for job in plan(selected(*inputs, **options))]


def names(jobs):
    """Sources and targets of jobs, as text."""
    return [(str(job.source), str(job.target)) for job in jobs]


def problems(selection):
    """What stands in the way of each planned job."""
    return [job.problem for job in plan(selection)]


def listing(folder="."):
    """Every file and folder below a folder."""
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*"))


def stdin(data, monkeypatch):
    """Let stdin hold these bytes."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


# ---- options ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": 0}, "--scale must lie in 1..16, not 0"),
        ({"scale": 0.999}, "--scale must lie in 1..16, not 0.999"),
        ({"scale": 16.01}, "--scale must lie in 1..16, not 16.01"),
        ({"scale": float("nan")}, "--scale must lie in 1..16, not nan"),
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
        selected("photo.png", **options)

    assert str(caught.value) == message


@pytest.mark.parametrize(("scale", "suffix"), [(3, "_x3"), (1, "_x1"), (2.5, "_x2.5")])
def test_the_suffix_tells_the_factor(scale, suffix):
    """A whole factor is written without a decimal point."""
    assert selected("photo.png", scale=scale).name_suffix == suffix


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
    jobs = plan(selected(source, **options))

    assert jobs == [Job(Path(source), Path(target), source)]
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

    jobs = plan(selected("photos", recursive=recursive))

    assert names(jobs) == [(f"photos/{name}", str(here / "photos_x3" / name)) for name in found]
    assert problems(selected("photos", recursive=recursive)) == [None] * len(found)


@pytest.mark.parametrize(("start", "argument"), [("photos", "."), ("photos/sub", "..")])
def test_a_folder_named_by_dots_gets_a_sibling_too(here, monkeypatch, start, argument):
    """``.`` and ``..`` stand for the folder's real name."""
    touch("photos/a.jpg", "photos/sub/b.jpg")
    monkeypatch.chdir(start)

    jobs = plan(selected(argument, scale=2))

    assert [job.target for job in jobs] == [here / "photos_x2" / "a.jpg"]


@pytest.mark.usefixtures("here")
def test_a_folder_takes_suffix_and_format():
    """Names in a folder change only where asked to."""
    touch("photos/a.jpg", "photos/sub/b.png")

    jobs = plan(
        selected("photos", output=Path("out"), recursive=True, suffix="_big", format="webp")
    )

    assert names(jobs) == [
        ("photos/a.jpg", "out/a_big.webp"),
        ("photos/sub/b.png", "out/sub/b_big.webp"),
    ]


@pytest.mark.usefixtures("here")
def test_jobs_come_in_the_order_of_the_inputs():
    """Inputs keep their order; inside a folder names are sorted."""
    touch("z.png", "photos/b.png", "photos/a.png", "a.png")

    jobs = plan(selected("z.png", "photos", "a.png", output=Path("out")))

    assert [str(job.source) for job in jobs] == ["z.png", "photos/a.png", "photos/b.png", "a.png"]


@pytest.mark.parametrize("absolute", [False, True])
def test_a_pattern_is_expanded(here, absolute):
    """What the shell left alone is expanded, sorted, hidden files left out."""
    touch("photos/b1.jpg", "photos/a1.jpg", "photos/a2.png", "photos/.c1.jpg")
    start = f"{here}/" if absolute else ""

    jobs = plan(selected(f"{start}photos/*1.jp[ge]"))

    assert names(jobs) == [
        (f"{start}photos/{name}.jpg", f"{start}photos/{name}_x3.jpg") for name in ("a1", "b1")
    ]


@pytest.mark.parametrize("argument", ["photos", "photos/*"])
@pytest.mark.usefixtures("here")
def test_names_are_sorted_whatever_the_disk_says(argument):
    """The order does not depend on that in which the files were made."""
    touch(*(f"photos/{index * 37 % 100:02}.png" for index in range(100)))

    jobs = plan(selected(argument))

    assert [job.source.name for job in jobs] == [f"{index:02}.png" for index in range(100)]


@pytest.mark.usefixtures("here")
def test_a_pattern_reaches_down_with_two_stars():
    """``**`` matches folders of any depth, none included."""
    touch("a.png", "one/b.png", "one/two/c.png")

    jobs = plan(selected("**/*.png"))

    assert [str(job.source) for job in jobs] == ["a.png", "one/b.png", "one/two/c.png"]


@pytest.mark.usefixtures("here")
def test_stars_go_on_from_folders_alone():
    """What a pattern matches before ``**`` counts only where it is a folder."""
    touch("a.png", "one/b.png", "one/two/c.png", "gone.txt")

    assert sources("*/**/*.png", "gone/**") == ["one/b.png", "one/two/c.png"]
    assert sources("**/*.png", "*/**") == ["a.png", "one/b.png", "one/two/c.png"]
    assert sources("**/two/**") == ["one/two/c.png"]
    assert sources("one/**/**/**/c.png") == ["one/two/c.png"]


@pytest.mark.usefixtures("here")
def test_a_file_whose_name_looks_like_a_pattern_is_itself():
    """Brackets in the name of a file that exists match nothing but that file."""
    touch("a[1].png", "a1.png")

    assert names(plan(selected("a[1].png"))) == [("a[1].png", "a[1]_x3.png")]


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
        plan(selected(*inputs, recursive=recursive))

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
        plan(selected(*inputs, output=Path("large.png")))


@pytest.mark.usefixtures("here")
def test_a_folder_cannot_go_into_a_file():
    """The output of a folder is a folder, or does not exist yet."""
    touch("photos/a.png", "there.png")

    with pytest.raises(UsageError) as caught:
        plan(selected("photos", output=Path("there.png")))

    assert str(caught.value) == "--output there.png is a file; a folder's results need a folder"


@pytest.mark.usefixtures("here")
def test_an_output_of_unknown_format_is_told():
    """The suffix decides the format, so an unknown one is a problem of that file."""
    touch("a.png")

    assert problems(selected("a.png", output=Path("a.doc"))) == [
        f"its result a.doc has no known image suffix; use one of {KNOWN}"
    ]


@pytest.mark.usefixtures("here")
def test_two_inputs_with_one_output_are_both_refused():
    """Each names the other, and neither is done; the rest is."""
    touch("one/a.png", "two/a.png", "two/b.png")

    first, second, third = problems(selected("one", "two", output=Path("out")))

    assert first == "its result out/a.png is also that of two/a.png; rename one of them"
    assert second == "its result out/a.png is also that of one/a.png; rename one of them"
    assert third is None


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

    assert problems(selected(*inputs, **options, existing=existing))[0] == problem


@pytest.mark.usefixtures("here")
def test_results_of_an_earlier_run_are_no_inputs_when_it_goes_on():
    """A pattern that matches originals and their results goes on with the originals."""
    touch("a.png", "a_x3.png", "b.png", "c_x3.png")

    jobs = plan(selected("*.png", existing="skip"))

    assert [str(job.source) for job in jobs] == ["a.png", "b.png", "c_x3.png"]
    assert [job.problem for job in jobs] == [None] * 3


@pytest.mark.usefixtures("here")
def test_results_inside_the_searched_folder_are_no_inputs():
    """An output folder below the input folder is left out of the search."""
    touch("photos/a.png", "photos/out/a.png", "photos/sub/b.png")

    jobs = plan(selected("photos", output=Path("photos/out"), recursive=True, existing="skip"))

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

    assert problems(selected("a.png", "b.png", existing=existing)) == [problem, None]


@pytest.mark.parametrize("existing", ["error", "skip", "overwrite"])
@pytest.mark.usefixtures("here")
def test_a_folder_at_the_target_is_a_problem(existing):
    """A folder is neither replaced nor taken as done."""
    touch("a.png")
    Path("a_x3.png").mkdir()

    assert problems(selected("a.png", existing=existing)) == [
        "its result a_x3.png is a folder; give another --output"
    ]


def test_the_root_folder_has_no_sibling():
    """The one folder without a name asks for an output of its own."""
    with pytest.raises(UsageError, match="--output"):
        plan(selected("/"))


@pytest.mark.usefixtures("here")
def test_an_empty_input_is_not_the_working_directory():
    """An argument that a shell variable left empty is refused, not taken for ``.``."""
    touch("a.png")

    with pytest.raises(UsageError):
        plan(selected(""))


# ---- names: sizes, suffixes, long ones ----------------------------------------------------


@pytest.mark.parametrize(
    ("options", "file", "folder"),
    [
        ({"size": "1920x1080"}, "a_1920x1080.png", "photos_1920x1080/a.png"),
        ({"size": "1920x"}, "a_1920x.png", "photos_1920x/a.png"),
        ({"size": ">=x1080"}, "a_x1080.png", "photos_x1080/a.png"),
        ({"suffix": "-{scale}"}, "a-3.png", "photos_x3/a-3.png"),
        ({"suffix": "{scale}{scale}", "scale": 2.5}, "a2.52.5.png", "photos_x2.5/a2.52.5.png"),
        ({"suffix": "_{scale}", "size": ">=9x8"}, "a_9x8.png", "photos_9x8/a_9x8.png"),
    ],
)
def test_names_tell_the_size(here, options, file, folder):
    """A size marks names and folders as a factor does, and both can stand inside a suffix."""
    touch("a.png", "photos/a.png")
    if "size" in options:
        options = options | {"size": TargetSize.parse(options["size"])}

    assert targets("a.png", **options) == {"a.png": file}
    assert targets("photos", **options) == {"photos/./a.png": str(here / folder)}


@pytest.mark.parametrize("suffix", ["{name}", "{", "}", "{}", "{scale", "{{scale}}", "{Scale}"])
def test_unknown_braces_are_refused(suffix):
    """Only ``{scale}`` means something; the rest is refused, not written into names."""
    with pytest.raises(UsageError) as caught:
        selected("a.png", suffix=suffix)

    assert str(caught.value) == (
        f"--suffix {suffix!r}: of what stands in braces only {{scale}} is known"
    )


@pytest.mark.parametrize("option", ["include", "exclude"])
@pytest.mark.parametrize("pattern", ["", "/", "./"])
def test_an_empty_pattern_is_refused(option, pattern):
    """A pattern that a shell variable left empty is not one that nothing fits."""
    with pytest.raises(UsageError) as caught:
        selected("a.png", **{option: (pattern,)})

    assert str(caught.value) == f"--{option} is empty; give a pattern such as *.jpg"


@pytest.mark.usefixtures("here")
def test_a_name_that_grows_too_long_is_told():
    """255 bytes are a name, 256 are none; what counts are bytes, not letters."""
    fits, long, accents = "a" * 248 + ".png", "b" * 249 + ".png", "é" * 125 + ".png"
    touch(fits, long, accents)

    first, second, third = problems(selected(fits, long, accents))

    assert first is None
    assert second == (
        f"the name of its result {long[:-4]}_x3.png is too long; "
        "use a shorter --suffix, or --output"
    )
    assert third.startswith("the name of its result é")
    assert problems(selected(fits, long, accents, output="out")) == [None] * 3


ODD_NAMES = (
    "two\nlines",
    " ",
    "-",
    "@x",
    "\udcff\udc80",
    "e\u0301",
    "a\\b",
    "'\"",
    "a\r",
    "\ufeff",
)


@pytest.mark.usefixtures("here")
def test_odd_names_survive():
    """Spaces, line ends, bytes that are no UTF-8: each is found, named and listed as it is."""
    touch(*(f"photos/{stem}.png" for stem in ODD_NAMES))

    jobs = plan(selected("photos", output="out"))

    assert [job.problem for job in jobs] == [None] * len(ODD_NAMES)
    assert {str(job.target) for job in jobs} == {f"out/{stem}.png" for stem in ODD_NAMES}
    assert plan(selected(listed(*(job.entry for job in jobs)), output="out")) == jobs


@pytest.mark.usefixtures("here")
def test_a_problem_is_one_printable_line():
    """Whatever is in a name, what is said about it can be printed."""
    touch("two\nlines.png", "two\nlines_x3.png", "\udcff.png", "\udcff_x3.png")

    found = problems(selected("two\nlines.png", "\udcff.png"))

    assert found[0] == "two\\nlines_x3.png is there already; use --overwrite or --skip-existing"
    assert found[1] == "\\udcff_x3.png is there already; use --overwrite or --skip-existing"


# ---- folders ------------------------------------------------------------------------------


@pytest.mark.usefixtures("here")
def test_what_systems_leave_in_folders_is_no_input():
    """Thumbnails of a NAS, forks of a Mac, bins, sidecars and unfinished results are left out."""
    touch("photos/a.png", "photos/a.png.xmp", "photos/Thumbs.db", "photos/desktop.ini")
    touch("photos/@eaDir/a.png/SYNO.jpg", "photos/__MACOSX/a.png", "photos/.12ab.srcli-tmp")
    touch("photos/$RECYCLE.BIN/a.png", "photos/$Recycle.Bin/a.png", "photos/._a.png")
    touch("photos/System Volume Information/a.png", "photos/.trash/a.png", "photos/b/@eadir/a.png")

    assert sources("photos", recursive=True) == ["photos/a.png"]
    assert sources("photos/**/*.png") == ["photos/a.png"]
    assert sources("photos/*/*.png", "photos/a.png") == ["photos/a.png"]
    assert sources("photos/@eaDir/*/*.jpg") == ["photos/@eaDir/a.png/SYNO.jpg"]


@pytest.mark.parametrize("pattern", [None, "photos/**/*.png", "**/*.png"])
@pytest.mark.usefixtures("here")
def test_links_to_folders_are_followed_once(pattern):
    """What is reached in two ways is done once, under its own name; circles end."""
    touch("photos/real/a.png", "elsewhere/b.png")
    Path("photos/a link to real").symlink_to("real")
    Path("photos/real/up").symlink_to("..")
    Path("photos/real/self").symlink_to(".")
    Path("photos/to elsewhere").symlink_to("../elsewhere")
    Path("photos/to elsewhere too").symlink_to("../elsewhere")

    found = sources(pattern or "photos", recursive=True)

    beyond = "elsewhere/b.png" if pattern == "**/*.png" else "photos/to elsewhere/b.png"
    assert sorted(found) == sorted([beyond, "photos/real/a.png"])


@pytest.mark.usefixtures("here")
def test_links_to_files_are_files():
    """A link to an image is an input; one that leads nowhere, or to a pipe, is told."""
    touch("a.bin", "photos/folder.png/b.txt")
    Path("photos/a.png").symlink_to("../a.bin")
    Path("photos/b.png").symlink_to("nowhere")
    Path("photos/c.png").symlink_to("c.png")
    os.mkfifo("photos/d.png")

    assert [(job.source.name, job.problem is None) for job in plan(selected("photos"))] == [
        ("a.png", True),
        ("b.png", False),
        ("c.png", False),
        ("d.png", False),
    ]


@pytest.mark.parametrize("pattern", [None, "**/*.png"])
@pytest.mark.usefixtures("here")
def test_a_folder_that_cannot_be_read_is_told(monkeypatch, pattern):
    """It is a job that fails, so that what lies in it is not lost without a word."""
    touch("photos/a.png", "photos/locked/b.png", "photos/z.png")
    scandir = os.scandir

    def guarded(path="."):
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    jobs = plan(selected(pattern or "photos", recursive=True))

    problem = "the folder cannot be read (Permission denied); check the path and its permissions"
    assert [(str(job.source), job.problem) for job in jobs] == [
        ("photos/a.png", None),
        ("photos/locked", problem),
        ("photos/z.png", None),
    ]
    again = plan(selected(jobs[1].entry, recursive=True))
    assert [job.problem for job in again] == [problem]
    if pattern is None:
        monkeypatch.undo()
        os.chdir(jobs[0].target.parents[1])
        assert sources(jobs[1].entry) == ["photos/locked/b.png"]
        assert targets(jobs[1].entry)["photos/./locked/b.png"] == str(
            jobs[0].target.parent / "locked" / "b.png"
        )


@pytest.mark.parametrize(("recursive", "told"), [(True, ["photos/away"]), (False, [])])
@pytest.mark.usefixtures("here")
def test_a_link_to_a_disk_that_is_not_there_is_told(recursive, told):
    """What seems to be a folder and leads nowhere is not taken for an empty one."""
    touch("photos/a.png")
    Path("photos/away").symlink_to("/media/not mounted")
    Path("photos/notes.txt").symlink_to("/media/notes.txt")

    jobs = plan(selected("photos", recursive=recursive))

    assert [str(job.source) for job in jobs if job.problem is not None] == told
    assert [str(job.source) for job in jobs if job.problem is None] == ["photos/a.png"]


@pytest.mark.usefixtures("here")
def test_an_unreadable_input_is_no_empty_one(monkeypatch):
    """A folder that may not be read is a failure of its own, not nothing to do."""
    Path("photos").mkdir()
    monkeypatch.setattr(os, "scandir", lambda path: Path(path, "gone").stat())

    (job,) = plan(selected("photos"))

    assert job.entry == "photos"
    assert job.problem == (
        "the folder cannot be read (No such file or directory); check the path and its permissions"
    )


@pytest.mark.parametrize(
    "inputs", [("photos/a.png", "photos"), ("photos", "photos/./a.png", "./photos/a.png")]
)
@pytest.mark.usefixtures("here")
def test_an_input_named_twice_is_done_once(inputs):
    """Directly, through its folder or through a link to that: the first naming counts."""
    touch("photos/a.png")
    Path("alias").symlink_to("photos")

    jobs = plan(selected(*inputs, "alias", "alias/a.png"))

    assert jobs == plan(selected(inputs[0]))


@pytest.mark.usefixtures("here")
def test_results_of_one_folder_are_no_inputs_of_another():
    """A folder of results of this selection is left out wherever the search meets it."""
    touch("photos/a.png", "photos/2019/b.png", "photos/2019_x3/b.png", "photos_x3/a.png")
    Path("photos/up").symlink_to("..")

    found = sources("photos", "photos/2019", recursive=True)

    assert found == ["photos/2019/b.png", "photos/a.png"]


@pytest.mark.usefixtures("here")
def test_results_that_are_given_are_inputs():
    """A folder of results is searched where it is named itself."""
    touch("photos/a.png", "photos_x3/a.png", "real/deep/b.png", "real/c.png")
    Path("alias").symlink_to("real/deep")

    assert sources("photos", "photos_x3") == ["photos/a.png", "photos_x3/a.png"]
    assert sources("real/c.png", "alias/../c.png") == ["real/c.png"]


# ---- trees --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("photos/./2019/a.png", "photos_x3/2019/a.png"),
        ("photos//.//2019//a.png", "photos_x3/2019/a.png"),
        ("./photos/./2019/a.png", "photos_x3/2019/a.png"),
        ("photos/2019/./a.png", "photos/2019_x3/a.png"),
        ("photos/2019/../2019/./a.png", "photos/2019_x3/a.png"),
        ("photos/./2019/./a.png", "photos_x3/2019/a.png"),
        ("photos/././2019/a.png", "photos_x3/2019/a.png"),
        ("photos/./gone.png", "photos_x3/gone.png"),
        ("gone/./gone.png", "gone_x3/gone.png"),
        ("{here}/photos/./2019/a.png", "photos_x3/2019/a.png"),
    ],
)
def test_a_tree_begins_where_it_is_marked(here, text, target):
    """What follows ``/./`` is kept below the folder of the results, as if all were given."""
    touch("photos/2019/a.png")
    text = text.replace("{here}", str(here))

    (job,) = plan(selected(text, suffix="_b"))

    assert job.source == Path(text)
    assert job.target == here / target.replace(".png", "_b.png")
    assert job.entry == text
    assert targets(text, output="out") == {text: f"out/{target.partition('_x3/')[2]}"}


@pytest.mark.parametrize("text", ["./a.png", "photos/./../a.png", "a.png/./"])
@pytest.mark.usefixtures("here")
def test_not_every_dot_marks_a_tree(text):
    """Not one at the beginning, nor one after which the way leads out of the tree again."""
    touch("a.png", "photos/b.png")

    assert targets(text)[text] == str(Path(text).with_name("a_x3.png"))


@pytest.mark.parametrize(
    "text", ["photos", "photos/", "./photos", "photos/.", "photos/./", "{here}/photos//"]
)
def test_a_folder_may_be_written_in_many_ways(here, text):
    """What a folder gives is listed so that the list gives the same results."""
    touch("photos/2019/a.png")
    text = text.replace("{here}", str(here))

    jobs = plan(selected(text, recursive=True))

    assert [str(job.target) for job in jobs] == [str(here / "photos_x3/2019/a.png")]
    assert plan(selected(listed(*(job.entry for job in jobs)))) == jobs


@pytest.mark.parametrize("start", [".", "./", "./.", "..", "../photos/."])
def test_the_working_directory_is_a_tree_too(here, monkeypatch, start):
    """Files found by way of dots are listed so that the list gives the same results."""
    touch("photos/sub/a.png")
    monkeypatch.chdir("photos/sub" if start == ".." else "photos")

    jobs = plan(selected(start, recursive=True))

    assert [job.target for job in jobs] == [here / "photos_x3/sub/a.png"]
    assert plan(selected(listed(*(job.entry for job in jobs)))) == jobs


def test_a_folder_below_a_mark_keeps_its_place(here):
    """A folder may be given with the tree that it is a part of."""
    touch("photos/2019/a.png", "photos/2020/b.png")

    assert targets("photos/./2019") == {
        "photos/./2019/a.png": str(here / "photos_x3/2019/a.png"),
    }


@pytest.mark.parametrize("pattern", ["photos/./*/*.png", "photos/./**/*.png"])
def test_a_pattern_may_have_a_mark(here, pattern):
    """What it matches is kept below the tree."""
    touch("photos/2019/a.png")

    assert targets(pattern) == {"photos/./2019/a.png": str(here / "photos_x3/2019/a.png")}


@pytest.mark.usefixtures("here")
def test_the_root_can_be_a_tree():
    """Files of the root folder are listed as such, and keep their place in an output."""
    assert targets("/./gone/a.png", output="out") == {"/./gone/a.png": "out/gone/a.png"}
    with pytest.raises(UsageError, match=r"^/ has no folder beside it; give an --output$"):
        plan(selected("/./gone/a.png"))


# ---- lists --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "entries"),
    [
        (b"a.png\nb.png\n", ["a.png", "b.png"]),
        (b"a.png\r\n\r\nb.png", ["a.png", "b.png"]),
        (b"\xef\xbb\xbfa.png\n\n", ["a.png"]),
        (b" a.png \n*.png\n@x\n", [" a.png ", "*.png", "@x"]),
        (b"a\nb.png\0\0c\r\0", ["a\nb.png", "c\r"]),
        (b"a.png\0", ["a.png"]),
        (b"\xff.png\n\xc3\xa9.png\n", ["\udcff.png", "é.png"]),
        ("a\x0b\x1c\u2028b.png\n".encode(), ["a\x0b\x1c\u2028b.png"]),
        (b"", []),
    ],
)
@pytest.mark.parametrize("source", ["list.txt", "-"])
@pytest.mark.usefixtures("here")
def test_a_list_has_a_path_on_each_line(monkeypatch, data, entries, source):
    """Lines end as on any system, or with a NUL as find has it; the rest belongs to the name."""
    Path("list.txt").write_bytes(data)
    stdin(data, monkeypatch)

    assert read_list(source) == entries


NAME = st.text(
    st.one_of(
        st.sampled_from("\n\r\ufeff @-/.\udcff"), st.characters(exclude_categories=["Cs", "Cc"])
    ),
    min_size=1,
    max_size=6,
)


@given(entries=st.lists(NAME, max_size=5))
def test_a_list_is_read_as_it_was_written(desk, entries):
    """Whatever paths are written come back as they are."""
    path = next(desk)
    write_list(path, iter(entries))

    assert read_list(str(path)) == entries


@pytest.mark.parametrize("entry", ["\ufeffa.png", "a.png\r", "a\nb.png"])
@pytest.mark.usefixtures("here")
def test_a_name_that_lines_would_change_is_ended_by_a_nul(entry):
    """What looks like a byte order mark or the end of a line stays part of the name."""
    write_list(Path("list.txt"), [entry])

    assert Path("list.txt").read_bytes() == entry.encode() + b"\0"
    assert read_list("list.txt") == [entry]


@pytest.mark.usefixtures("here")
def test_a_list_is_for_people_where_it_can_be():
    """Plain names stand on lines."""
    write_list(Path("list.txt"), ["a b.png", "photos/./é.png"])

    assert Path("list.txt").read_bytes() == "a b.png\nphotos/./é.png\n".encode()


@pytest.mark.parametrize("path", ["folder", "gone/list.txt", "list.txt/list.txt"])
def test_a_list_that_cannot_be_written_is_told(here, path):
    """The text names the list and why, and nothing is left behind."""
    touch("list.txt")
    Path("folder").mkdir()
    before = listing(here)

    with pytest.raises(OutputError, match=f"^cannot write the list {path}: .*; choose another"):
        write_list(Path(path), ["a.png"])

    assert listing(here) == before


@pytest.mark.usefixtures("here")
def test_a_list_stands_for_its_paths():
    """Its files and folders are literal, and relative to the working directory."""
    touch("a.png", "*.png", "@x.png", "photos/b.png", "lists/gone.png")
    text = listed("*.png", "@x.png", "photos", "gone.png", name="lists/some")

    assert targets(text) == {
        "*.png": "*_x3.png",
        "@x.png": "@x_x3.png",
        "photos/./b.png": str(Path("photos_x3/b.png").absolute()),
        "gone.png": "gone_x3.png",
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("@gone", "cannot read the list gone: No such file or directory; check the path"),
        ("@x.png", "cannot read the list x.png: No such file or directory; give ./@x.png for the"),
        ("@folder", "cannot read the list folder: Is a directory; check the path"),
        ("@", "@ names no list; give @LIST, or @- for one from stdin"),
    ],
)
@pytest.mark.usefixtures("here")
def test_a_list_that_cannot_be_read_is_told(text, message):
    """A list is not taken for an image, nor for nothing."""
    touch("@x.png", "a.png", "folder/a.png")

    with pytest.raises(UsageError) as caught:
        plan(selected("a.png", text))

    assert str(caught.value).startswith(message)


@pytest.mark.usefixtures("here")
def test_a_file_that_looks_like_a_list_is_given_by_its_path():
    """``./@x.png`` is the file, and a list of it gives it back."""
    touch("@x.png")

    (job,) = plan(selected("./@x.png"))

    assert (job.source, job.entry) == (Path("@x.png"), "./@x.png")
    assert plan(selected(listed(job.entry))) == [job]


@pytest.mark.usefixtures("here")
def test_an_empty_list_is_nothing_to_do():
    """There is nothing wrong with it, but no image either."""
    with pytest.raises(NothingToDoError, match=r"^no image found in @list\.txt"):
        plan(selected(listed()))


@pytest.mark.parametrize(
    ("output", "there", "target"),
    [
        ("out", None, "out/a.png"),
        ("out.v2", None, "out.v2/a.png"),
        ("out.png", None, "out.png"),
        ("out.png", "folder", "out.png/a.png"),
        ("out.png", "file", "out.png"),
        ("-", None, "-"),
    ],
)
@pytest.mark.usefixtures("here")
def test_the_one_failure_of_several_lands_where_it_belongs(output, there, target):
    """One file in a list may be left of many: only what can be nothing else is its own name."""
    touch("a.png")
    if there == "file":
        touch(output)
    elif there == "folder":
        Path(output).mkdir()

    assert targets(listed("a.png"), output=output, existing="overwrite") == {"a.png": target}


@pytest.mark.usefixtures("here")
def test_several_files_in_a_list_cannot_share_a_file():
    """A file name as output serves one file alone, listed or not."""
    with pytest.raises(UsageError, match=r"--output out\.png is a file name; several inputs need"):
        plan(selected(listed("a.png", "b.png"), output="out.png"))


# ---- stdin and stdout ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("inputs", "options", "expected"),
    [
        (("-",), {}, {"-": "-"}),
        (("-", "-"), {}, {"-": "-"}),
        (("-",), {"output": "-"}, {"-": "-"}),
        (("-",), {"output": "large.jpg"}, {"-": "large.jpg"}),
        (("-",), {"output": "out"}, {"-": "out/stdin.png"}),
        (
            ("-", "a.png"),
            {"output": "out", "format": "jpg"},
            {"-": "out/stdin.jpg", "a.png": "out/a.jpg"},
        ),
        (("a.png",), {"output": "-"}, {"a.png": "-"}),
        (("*.png",), {"output": "-"}, {"a.png": "-"}),
        (("photos/./b.png",), {"output": "-"}, {"photos/./b.png": "-"}),
        (("@list.txt",), {"output": "-"}, {"-": "-"}),
    ],
)
@pytest.mark.parametrize("existing", ["error", "skip", "overwrite"])
@pytest.mark.usefixtures("here")
def test_a_dash_is_stdin_and_stdout(inputs, options, expected, existing):
    """Without an output the result of stdin goes to stdout; a list has it by its sign as well."""
    touch("a.png", "photos/b.png")
    listed("-")

    assert targets(*inputs, **options, existing=existing) == expected
    assert problems(selected(*inputs, **options, existing=existing)) == [None] * len(expected)


@pytest.mark.parametrize(
    ("inputs", "output", "message"),
    [
        (("-", "a.png"), None, "the result of - goes to stdout, alone; give an --output"),
        (("a.png", "b.png"), "-", "--output - (stdout) takes one file; several need a folder"),
        (("photos",), "-", "--output - (stdout) takes one file; several need a folder"),
        (("-", "@-"), "out", "- and @- both read stdin; give the list or the picture as a file"),
        (("@-",), "out", "- and @- both read stdin; give the list or the picture as a file"),
    ],
)
@pytest.mark.usefixtures("here")
def test_one_stream_holds_one_thing(monkeypatch, inputs, output, message):
    """What would mix two pictures, or a picture and a list, is refused."""
    touch("a.png", "photos/b.png")
    stdin(b"-\n", monkeypatch)

    with pytest.raises(UsageError) as caught:
        plan(selected(*inputs, output=output))

    assert str(caught.value).startswith(message)


@pytest.mark.usefixtures("here")
def test_a_file_that_is_called_dash_is_given_by_its_path():
    """``./-`` is not stdin."""
    touch("-")

    (job,) = plan(selected("./-"))

    assert job == Job(Path.cwd() / "-", Path.cwd() / "-_x3.png", "./-")
    assert job.source != STREAM


@pytest.mark.usefixtures("here")
def test_a_folder_that_is_called_dash_is_given_by_its_path():
    """A folder of that name does not take the place of stdin and stdout."""
    touch("-/a.png", "b.png")

    assert targets("-") == {"-": "-"}
    assert targets("b.png", output="-") == {"b.png": "-"}
    assert targets("./-", output="out") == {"./-/./a.png": "out/a.png"}
    assert targets(listed("./-/./a.png"), output="out") == {"./-/./a.png": "out/a.png"}


@pytest.mark.parametrize(
    "text", ["x/" * 2000 + "a.png", "y" * 300 + "/a.png", "y" * 300, "loop/a.png", "a.png/b.png"]
)
@pytest.mark.usefixtures("here")
def test_a_path_that_leads_nowhere_is_a_job(text):
    """What is wrong with it is found when it is read; the plan does not fall over it."""
    touch("a.png")
    Path("loop").symlink_to("loop")

    (first, second) = plan(selected(text, "a.png"))

    assert (str(first.source), first.entry) == (text, text)
    assert second.problem is None


@pytest.mark.usefixtures("here")
def test_a_closed_stdin_holds_no_list(monkeypatch):
    """Where there is no stdin at all, that is said."""
    monkeypatch.setattr(sys, "stdin", None)

    with pytest.raises(UsageError, match=r"^there is no stdin to read the list @- from; give "):
        plan(selected("@-"))


# ---- include and exclude ------------------------------------------------------------------


TREE = ("a.JPG", "b.png", "raw/c.jpg", "2019/raw/d.png", "2019/e.jpg", "2019/07/f.jpg", "é.png")


@pytest.mark.parametrize(
    ("include", "exclude", "found"),
    [
        (("*.jpg",), (), "a.JPG 2019/07/f.jpg 2019/e.jpg raw/c.jpg"),
        (("*.jpg",), ("RAW",), "a.JPG 2019/07/f.jpg 2019/e.jpg"),
        (("[ab].*", "f.*"), (), "a.JPG b.png 2019/07/f.jpg"),
        (("2019/*.jpg",), (), "2019/e.jpg"),
        (("2019/**",), (), "2019/raw/d.png 2019/e.jpg 2019/07/f.jpg"),
        (("2019/",), (), "2019/raw/d.png 2019/e.jpg 2019/07/f.jpg"),
        (("07/",), (), "2019/07/f.jpg"),
        (("2019/**/*.jpg",), (), "2019/e.jpg 2019/07/f.jpg"),
        (("**/raw/*",), (), "raw/c.jpg 2019/raw/d.png"),
        (("/b.png",), (), "b.png"),
        (("./*.png",), (), "b.png é.png"),
        (("*/*",), (), "raw/c.jpg 2019/e.jpg"),
        (("*/*/*",), ("**/**/[e-z].*",), "2019/raw/d.png"),
        (("E\u0301.png",), (), "é.png"),
        ((), ("raw/",), "a.JPG b.png é.png 2019/e.jpg 2019/07/f.jpg"),
        ((), ("2019/raw", "*.jpg"), "b.png é.png"),
        ((), ("/raw",), "a.JPG b.png é.png 2019/e.jpg 2019/07/f.jpg 2019/raw/d.png"),
        ((), ("**/raw/**", "2019/*/f.jpg"), "a.JPG b.png é.png 2019/e.jpg"),
        ((), ("2019/**",), "a.JPG b.png é.png raw/c.jpg"),
        (("**",), ("**/*.jpg",), "b.png é.png 2019/raw/d.png"),
    ],
)
@pytest.mark.usefixtures("here")
def test_patterns_choose_what_is_found(include, exclude, found):
    """By name at any depth, or by the path below the folder; case and accents' form are alike."""
    touch(*(f"photos/{name}" for name in TREE))

    for text in ("photos", "photos/**", "photos/**/*.*"):
        assert sorted(sources(text, recursive=True, include=include, exclude=exclude)) == sorted(
            f"photos/{name}" for name in found.split()
        )


@pytest.mark.usefixtures("here")
def test_patterns_leave_alone_what_is_named():
    """A file given by its name is meant, and so is one in a list; a folder's files are not."""
    touch("a.png", "b.png", "photos/c.png", "photos/raw/d.png", "photos/raw/deep/e.png")
    options = {"include": ("*.jpg",), "exclude": ("raw",), "recursive": True}

    assert sources("a.png", listed("b.png", "photos/./raw/d.png", "photos"), **options) == [
        "a.png",
        "b.png",
        "photos/raw/d.png",
    ]
    assert sources("photos/./raw", exclude=("raw",), recursive=True) == [
        "photos/raw/d.png",
        "photos/raw/deep/e.png",
    ]


@pytest.mark.usefixtures("here")
def test_patterns_that_leave_nothing_are_named():
    """Where no image fits, the patterns are what to look at."""
    touch("photos/a.png")

    with pytest.raises(NothingToDoError) as caught:
        plan(selected("photos", include=("*.jpg", "b*"), exclude=("c",), recursive=True))

    assert str(caught.value) == (
        "no image found in photos that fits --include *.jpg --include b* --exclude c; "
        "check the patterns"
    )


@pytest.mark.usefixtures("here")
def test_a_long_command_line_is_not_repeated():
    """Of many inputs in which nothing was found, the first are named."""
    for number in range(8):
        Path(f"{number}\n").mkdir()

    with pytest.raises(NothingToDoError) as caught:
        plan(selected(*(f"{number}\n" for number in range(8)), recursive=True))

    assert str(caught.value) == r"no image found in 0\n, 1\n, 2\n, 3\n, 4\n and 3 more"


@pytest.mark.usefixtures("here")
def test_many_stars_take_no_time():
    """A pattern of nothing but stars is not tried in every combination."""
    touch(f"{'x/' * 30}a.png")

    with pytest.raises(NothingToDoError):
        plan(selected("x", include=("**/" * 30 + "*" * 30 + "b*",), recursive=True))


# ---- clashes ------------------------------------------------------------------------------


@pytest.mark.parametrize("existing", ["error", "overwrite"])
@pytest.mark.usefixtures("here")
def test_no_link_hides_an_input(existing):
    """A target that is another name of any input is refused, whichever job it belongs to."""
    touch("a.png", "b.png", "c.png", "out/other")
    os.link("b.png", "out/a.png")
    Path("out/b.png").symlink_to("../c.png")
    Path("out/c.png").symlink_to("nowhere")

    first, second, third = problems(
        selected("a.png", "b.png", "c.png", output="out", existing=existing)
    )

    assert first == "its result out/a.png is an input; use --output or --suffix"
    assert second == "its result out/b.png is an input; use --output or --suffix"
    assert (third is None) == (existing == "overwrite")


@pytest.mark.usefixtures("here")
def test_two_ways_to_one_target_are_one():
    """A link to a folder of results makes no second place of it, even before it is filled."""
    touch("a/x.png", "b/x.png", "real/other")
    Path("b_x3").symlink_to("real")
    Path("a_x3").symlink_to("b_x3")

    first, second = problems(selected("a", "b"))

    assert first.endswith("is also that of b/x.png; rename one of them")
    assert second.endswith("is also that of a/x.png; rename one of them")


@pytest.mark.usefixtures("here")
def test_names_that_differ_are_told_apart_where_the_disk_does():
    """Here case and Unicode form make two names, so nothing is refused for them."""
    touch("a/X.png", "a/x.png", "a/é.png", "a/e\u0301.png")
    touch("b/Sub/y.png", "b/sub/y.png")

    assert problems(selected("a", "b", recursive=True)) == [None] * 6


@pytest.mark.parametrize("folding", [False, True])
@pytest.mark.usefixtures("here")
def test_names_that_the_system_takes_for_one_clash(monkeypatch, folding):
    """On Windows and macOS case and Unicode form make no other name."""
    monkeypatch.setattr(conflicts, "_FOLDING", folding)
    touch("a/x.png", "a/e\u0301.png", "a/sub/y.png", "b/X.png", "b/é.png", "b/Sub/y.png", "b/z.png")

    jobs = plan(selected("a", "b", output="out", recursive=True))

    refused = [str(job.source) for job in jobs if job.problem is not None]
    assert len(refused) == (6 if folding else 0)


# ---- properties ---------------------------------------------------------------------------


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


@pytest.fixture
def stay(monkeypatch, tmp_path):
    """Come back from where the examples went."""
    monkeypatch.chdir(tmp_path)


SITUATIONS = st.fixed_dictionaries(
    {
        "files": st.lists(PATHS, max_size=8),
        "links": st.lists(LINKS, max_size=3),
        "inputs": st.lists(INPUTS, min_size=1, max_size=3),
        "options": selections(),
    }
)


def planned(folder, situation):
    """Make the tree of a situation and plan; no jobs where there is nothing to do."""
    furnish(folder, situation["files"], situation["links"])
    try:
        return plan(selected(*situation["inputs"], **situation["options"]))
    except NothingToDoError:
        return []


@pytest.mark.usefixtures("stay")
@settings(max_examples=250, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(situation=SITUATIONS)
def test_nothing_is_ever_overwritten_by_chance(desk, situation):
    """In any tree: no two results have one place, and none that of an input."""
    jobs = planned(next(desk), situation)
    good = [job.target for job in jobs if job.problem is None]
    places = [os.path.realpath(target.parent) + "/" + target.name for target in good]

    assert len(places) == len(set(places))
    for target in good:
        assert situation["options"]["existing"] != "error" or not os.path.lexists(target)
        assert target not in [job.source for job in jobs]
        if target.exists():
            assert not any(job.source.exists() and target.samefile(job.source) for job in jobs)


@pytest.mark.usefixtures("stay")
@settings(max_examples=250, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(situation=SITUATIONS, data=st.data())
def test_a_list_of_what_was_planned_gives_the_same(desk, situation, data):
    """In any tree: all of it gives the same jobs, and a part of it the same targets."""
    jobs, options = planned(next(desk), situation), situation["options"]
    assume(jobs)
    part = data.draw(st.lists(st.sampled_from(jobs), min_size=1, unique=True))

    assert plan(selected(listed(*(job.entry for job in jobs)), **options)) == jobs
    again = plan(selected(listed(*(job.entry for job in part)), **options))
    assert names(again) == names(part)
    assert [job.entry for job in again] == [job.entry for job in part]
