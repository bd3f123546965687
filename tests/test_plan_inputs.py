"""The inputs of a plan: folders, patterns, trees, lists, stdin and stdout."""

import io
import os
import sys
from pathlib import Path

import pytest
from batch_files import configured, listed, problems, targets, touch
from run_files import refusal

from srcli.errors import NothingToDoError
from srcli.upscaling.plan import plan
from srcli.upscaling.search import read_list

pytestmark = pytest.mark.usefixtures("here")


def sources(*inputs, **options):
    """Plan and give the files found."""
    return [str(job.source) for job in plan(configured(*inputs, **options))]


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


def test_links_to_files_are_files():
    """A link to an image is an input; one that leads nowhere, or to a pipe, is a problem."""
    touch("a.bin", "photos/folder.png/b.txt")
    Path("photos/a.png").symlink_to("../a.bin")
    Path("photos/b.png").symlink_to("nowhere")
    os.mkfifo("photos/d.png")

    assert [(job.source.name, job.problem is None) for job in plan(configured("photos"))] == [
        ("a.png", True),
        ("b.png", False),
        ("d.png", False),
    ]


@pytest.mark.parametrize("pattern", [None, "**/*.png"])
def test_a_folder_that_cannot_be_read_is_reported(monkeypatch, pattern):
    """It is a job that fails, so that what lies in it is not lost silently."""
    touch("photos/a.png", "photos/locked/b.png", "photos/z.png")
    Path("photos/lost").symlink_to("/media/a disk that is not there")
    scandir = os.scandir

    def guarded(path="."):
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    jobs = plan(configured(pattern or "photos", recursive=True))

    problem = "the folder cannot be read (Permission denied); check the path and its permissions"
    lost = None if pattern else problem.replace("Permission denied", "No such file or directory")
    assert [(str(job.source), job.problem) for job in jobs] == [
        ("photos/a.png", None),
        ("photos/locked", problem),
        ("photos/lost", lost),
        ("photos/z.png", None),
    ]


@pytest.mark.parametrize(
    "inputs", [("photos/a.png", "photos"), ("photos", "photos/./a.png", "./photos/a.png")]
)
def test_an_input_named_twice_is_done_once(inputs):
    """Directly, through its folder or through a link to that: the first naming counts."""
    touch("photos/a.png")
    Path("alias").symlink_to("photos")

    jobs = plan(configured(*inputs, "alias", "alias/a.png"))

    assert jobs == plan(configured(inputs[0]))


def test_results_of_one_folder_are_no_inputs_of_another():
    """A folder of results of this selection is left out wherever the search meets it."""
    touch("photos/a.png", "photos/2019/b.png", "photos/2019_x3/b.png", "photos_x3/a.png")
    Path("photos/up").symlink_to("..")

    found = sources("photos", "photos/2019", recursive=True)

    assert found == ["photos/2019/b.png", "photos/a.png"]
    assert sources("photos", "photos_x3") == ["photos/a.png", "photos_x3/a.png"], "named itself"


@pytest.mark.parametrize("text", ["x/" * 2000 + "a.png", "y" * 300, "loop/a.png", "a.png/b.png"])
def test_a_path_that_leads_nowhere_is_a_job(text):
    """What is wrong with it is found when it is read; the plan does not fall over it."""
    touch("a.png")
    Path("loop").symlink_to("loop")

    (first, second) = plan(configured(text, "a.png"))

    assert (str(first.source), first.entry) == (text, text)
    assert second.problem is None


IN_BRACKETS = ("[2019]/IMG 1.jpg", "[2019]/IMG [1].jpg")


def test_two_stars_continue_from_folders_alone():
    """What a pattern matches before ``**`` counts only where it is a folder."""
    touch("a.png", "one/b.png", "one/two/c.png", "gone.txt")

    assert sources("*/**/*.png", "gone/**") == ["one/b.png", "one/two/c.png"]
    assert sources("**/*.png", "*/**") == ["a.png", "one/b.png", "one/two/c.png"]
    assert sources("one/**/**/**/c.png") == ["one/two/c.png"]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("Photos [2019]/*.jpg", ["Photos [2019]/IMG 1.jpg", "Photos [2019]/IMG [1].jpg"]),
        ("**/IMG [[]1].j*", ["Photos [2019]/IMG [1].jpg"]),
        ("P* [2019]/I*[[]*", ["Photos [2019]/IMG [1].jpg"]),
        ("P*/s [a]/*", ["Photos [2019]/s [a]/b.jpg"]),
        ("*/IMG [1].jpg", [f"Photos {one}" for one in ("2/IMG 1.jpg", *IN_BRACKETS)]),
        ("Photos [2019]", [f"Photos {one}" for one in IN_BRACKETS]),
        ("*/", [f"Photos {one}" for one in ("2/IMG 1.jpg", *IN_BRACKETS)]),
        ("Photos [1-9]/*", ["Photos 2/IMG 1.jpg"]),
        ("Photos [2019]/*/", ["Photos [2019]/s [a]/b.jpg"]),
        ("Photos 2/IMG 1.jpg/", ["Photos 2/IMG 1.jpg"]),
        ("@b.jpg", ["@b.jpg"]),
        ("@[a-c]*", ["@b.jpg"]),
    ],
)
def test_names_mean_what_is_there(pattern, found):
    """Brackets, an ``@`` and a slash at the end, wherever a path or pattern has them."""
    touch(*(f"Photos {one}" for one in ("2/IMG 1.jpg", *IN_BRACKETS, "[2019]/s [a]/b.jpg")))
    touch("@b.jpg", "b.jpg")

    assert sorted(sources(pattern)) == found


def test_brackets_of_a_filter_may_be_what_they_are():
    """A choice of letters, and the name that reads the same."""
    touch("p/IMG [1].jpg", "p/IMG 1.jpg", "p/IMG [1]b.jpg", "p/IMG 2.jpg", "p/s [a]/c.jpg")
    left = ["p/IMG 2.jpg", "p/IMG [1]b.jpg"]

    chosen = sources("p", recursive=True, include=("img [1].jpg", "s [a]/"))
    assert chosen == ["p/IMG 1.jpg", "p/IMG [1].jpg", "p/s [a]/c.jpg"]
    assert sources("p", recursive=True, exclude=("IMG [1].jpg", "s [a]/")) == left


TREE = ("a.JPG", "b.png", "raw/c.jpg", "2019/raw/d.png", "2019/e.jpg", "2019/07/f.jpg", "é.png")


@pytest.mark.parametrize(
    ("include", "exclude", "found"),
    [
        (("*.jpg",), (), "a.JPG 2019/07/f.jpg 2019/e.jpg raw/c.jpg"),
        (("*.jpg",), ("RAW",), "a.JPG 2019/07/f.jpg 2019/e.jpg"),
        (("[ab].*", "f.*"), (), "a.JPG b.png 2019/07/f.jpg"),
        (("2019/**",), (), "2019/raw/d.png 2019/e.jpg 2019/07/f.jpg"),
        (("07/",), (), "2019/07/f.jpg"),
        (("2019/**/*.jpg",), (), "2019/e.jpg 2019/07/f.jpg"),
        (("**/raw/*",), (), "raw/c.jpg 2019/raw/d.png"),
        (("./*.png",), (), "b.png é.png"),
        (("*/*/*",), ("**/**/[e-z].*",), "2019/raw/d.png"),
        (("E\u0301.png",), (), "é.png"),
        ((), ("2019/raw", "*.jpg"), "b.png é.png"),
        ((), ("/raw",), "a.JPG b.png é.png 2019/e.jpg 2019/07/f.jpg 2019/raw/d.png"),
        ((), ("**/raw/**", "2019/*/f.jpg"), "a.JPG b.png é.png 2019/e.jpg"),
        (("**",), ("**/*.jpg",), "b.png é.png 2019/raw/d.png"),
    ],
)
def test_patterns_choose_what_is_found(include, exclude, found):
    """By name at any depth, or by the path below the folder; case and accents' form are alike."""
    touch(*(f"photos/{name}" for name in TREE))

    for text in ("photos", "photos/**", "photos/**/*.*"):
        assert sorted(sources(text, recursive=True, include=include, exclude=exclude)) == sorted(
            f"photos/{name}" for name in found.split()
        )


def test_patterns_leave_alone_what_is_named():
    """A file given by its name is meant, and so is one in a list; a folder's files are not."""
    touch("a.png", "b.png", "photos/c.png", "photos/raw/d.png", "photos/raw/deep/e.png")
    options = {"include": ("*.jpg",), "exclude": ("raw",), "recursive": True}

    assert sources("a.png", listed("b.png", "photos/./raw/d.png", "photos"), **options) == [
        "a.png",
        "b.png",
        "photos/raw/d.png",
    ]


def test_many_stars_take_no_time():
    """A pattern of nothing but stars is not tried in every combination."""
    touch(f"{'x/' * 30}a.png")

    with pytest.raises(NothingToDoError):
        plan(configured("x", include=("**/" * 30 + "*" * 30 + "b*",), recursive=True))


@pytest.mark.parametrize(
    ("inputs", "options", "message"),
    [
        (
            ("photos",),
            {},
            "photos; pictures in folders below photos left out; search them with -r",
        ),
        (("*.gif", "bare"), {"recursive": True}, "*.gif, bare; check the path"),
        (
            ("photos",),
            {"include": ("*.jpg", "b*"), "exclude": ("c",), "recursive": True},
            "photos that fits --include *.jpg --include b* --exclude c; check the patterns",
        ),
    ],
)
def test_nothing_to_do_says_where_it_looked(inputs, options, message):
    """Where no image matched, the way to look deeper is said, or the patterns are."""
    touch("photos/sub/a.png", "photos/notes.txt", "bare/notes.txt")

    found = refusal(lambda: plan(configured(*inputs, **options)), NothingToDoError)
    assert found == f"no image found in {message}"


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("photos/./2019/a.png", "photos_x3/2019/a.png"),
        ("./photos/./2019/a.png", "photos_x3/2019/a.png"),
        ("photos/2019/../2019/./a.png", "photos/2019_x3/a.png"),
        ("photos/././2019/a.png", "photos_x3/2019/a.png"),
        ("gone/./gone.png", "gone_x3/gone.png"),
        ("{here}/photos/./2019/a.png", "photos_x3/2019/a.png"),
    ],
)
def test_a_tree_begins_where_it_is_marked(here, text, target):
    """What follows ``/./`` is kept below the folder of the results, as if all were given."""
    touch("photos/2019/a.png")
    text = text.replace("{here}", str(here))

    (job,) = plan(configured(text, suffix="_b"))

    assert job.source == Path(text)
    assert job.target.resolve() == here / target.replace(".png", "_b.png")
    assert job.entry == text
    assert targets(text, output="out") == {text: f"out/{target.partition('_x3/')[2]}"}


@pytest.mark.parametrize("text", ["./a.png", "photos/./../a.png", "a.png/./"])
def test_not_every_dot_marks_a_tree(text):
    """Not one at the beginning, nor one after which the way leads out of the tree again."""
    touch("a.png", "photos/b.png")

    assert targets(text)[text] == str(Path(text).with_name("a_x3.png"))


def stdin(data, monkeypatch):
    """Let stdin hold these bytes."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


@pytest.mark.parametrize(
    ("data", "entries"),
    [
        (b"a.png\r\n\r\nb.png", ["a.png", "b.png"]),
        (b"\xef\xbb\xbfa.png\n\n", ["a.png"]),
        (b" a.png \n*.png\n@x\n", [" a.png ", "*.png", "@x"]),
        (b"a\nb.png\0\0c\r\0", ["a\nb.png", "c\r"]),
        (b"\xff.png\n\xc3\xa9.png\n", ["\udcff.png", "é.png"]),
        ("a\x0b\x1c\u2028b.png\n".encode(), ["a\x0b\x1c\u2028b.png"]),
        ("a.png\r\né.png\r\n".encode("utf-16"), ["a.png", "é.png"]),
        (b"\xfe\xff\0a\0\n\0b", ["a", "b"]),
        (b"", []),
    ],
)
@pytest.mark.parametrize("source", ["list.txt", "-"])
def test_a_list_has_a_path_on_each_line(monkeypatch, data, entries, source):
    """Lines end as on any system, or with a NUL as find has it; the rest belongs to the name."""
    Path("list.txt").write_bytes(data)
    stdin(data, monkeypatch)

    assert read_list(source) == entries


@pytest.mark.parametrize(
    ("output", "target"),
    [
        ("out.v2", "out.v2/a.png"),
        ("out.png", "out.png"),
        ("folder.png", "folder.png/a.png"),
        ("file", "file"),
        ("-", "-"),
    ],
)
def test_the_one_failure_of_several_lands_where_it_belongs(output, target):
    """One file in a list may be left of many: only what can be nothing else is its own name."""
    touch("a.png", "file", "folder.png/other")

    assert targets(listed("a.png"), output=output, existing="overwrite") == {"a.png": target}


@pytest.mark.parametrize(
    ("inputs", "options", "expected"),
    [
        (("-",), {}, {"-": "-"}),
        (("-", "-"), {}, {"-": "-"}),
        (
            ("-", "a.png"),
            {"output": "out", "format": "jpg"},
            {"-": "out/stdin.jpg", "a.png": "out/a.jpg"},
        ),
        (("*.png",), {"output": "-"}, {"a.png": "-"}),
        (("photos/./b.png",), {"output": "-"}, {"photos/./b.png": "-"}),
        (("./-",), {"output": "out"}, {"./-": "out/-.png"}),
        (("@list.txt",), {"output": "-"}, {"-": "-"}),
    ],
)
def test_a_dash_is_stdin_and_stdout(inputs, options, expected):
    """Without an output the result of stdin goes to stdout; a list has it by its sign as well."""
    touch("a.png", "photos/b.png", "-")
    listed("-")

    assert targets(*inputs, **options) == expected
    assert problems(configured(*inputs, **options, existing="skip")) == [None] * len(expected)
