"""Lists of paths, and stdin and stdout as inputs and outputs of a plan."""

import io
import sys
from pathlib import Path

import pytest
from plan_files import listed, problems, selected, targets, touch

from srcli.errors import UsageError
from srcli.upscaling.plan import plan
from srcli.upscaling.search import read_list

pytestmark = pytest.mark.usefixtures("here")


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
    ("text", "message"),
    [
        ("@gone", "cannot read the list gone: No such file or directory; check the path"),
        ("@folder", "cannot read the list folder: Is a directory; check the path"),
        ("@b.jpg", "the list b.jpg is a picture; give it without the @"),
    ],
)
def test_a_list_that_cannot_be_read_is_reported(text, message):
    """A list is not taken for an image, nor for nothing."""
    touch("@x.png", "a.png", "folder/a.png")
    Path("b.jpg").write_bytes(b"\xff\xd8\xff\xe0\0.\0")

    with pytest.raises(UsageError) as caught:
        plan(selected("a.png", text))

    assert str(caught.value).startswith(message)


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
    assert problems(selected(*inputs, **options, existing="skip")) == [None] * len(expected)


@pytest.mark.parametrize(
    ("inputs", "output", "message"),
    [
        (("-", "a.png"), None, "the result of - goes to stdout, alone; give an --output"),
        (("photos",), "-", "--output - (stdout) takes one file; several need a folder"),
        (("-", "@-"), "out", "- and @- both read stdin; give the list or the picture as a file"),
    ],
)
def test_one_stream_holds_one_thing(monkeypatch, inputs, output, message):
    """What would mix two pictures, or a picture and a list, is refused."""
    touch("a.png", "photos/b.png")
    stdin(b"-\n", monkeypatch)

    with pytest.raises(UsageError) as caught:
        plan(selected(*inputs, output=output))

    assert str(caught.value).startswith(message)
