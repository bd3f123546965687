"""What a search meets and does not take: kinds that are not read, results, folders below."""

import json
import os
import sys
from pathlib import Path

import pytest
from batch_files import configured, picture
from command_runs import run_upscale as run
from reading_files import as_bytes, raw
from run_files import refusal

from srcli.errors import NothingToDoError
from srcli.imaging import formats
from srcli.imaging.formats import format_at
from srcli.ops.spans import TargetSize
from srcli.upscaling import search
from srcli.upscaling.left_out import LeftOut
from srcli.upscaling.plan import plan

HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(72)
JXL = b"\xff\x0a" + bytes(64)
RAW = raw(subifds=1)


pytestmark = pytest.mark.usefixtures("here")


@pytest.fixture(autouse=True)
def _bare(monkeypatch):
    """Be without the packages of the extras."""
    found = formats.READABLE_SUFFIXES
    monkeypatch.setattr(search, "FOUND_SUFFIXES", found)
    monkeypatch.setattr(search, "LEFT_OUT_SUFFIXES", formats.LEFT_OUT_SUFFIXES | {".heic", ".jxl"})
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.setitem(sys.modules, "pillow_jxl", None)


def encoded(name="JPEG", size=(8, 6)):
    """Encode a small picture."""
    return as_bytes(picture(*size), name)


def lay(**files):
    """Write files by their names, ``__`` for a slash and ``_o_`` for a dot."""
    for name, data in files.items():
        path = Path(name.replace("__", "/").replace("_o_", "."))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def planned(*inputs, **options):
    """Plan; give sources, targets' names by source, and what was left out."""
    left_out = LeftOut()
    jobs = plan(configured(*inputs, **options), left_out)
    assert [job.problem for job in jobs if job.problem is not None] == []
    return {job.source.as_posix(): job.target.name for job in jobs}, left_out


def album():
    """Lay an album: what is read whatever its name, what is counted, what is no photograph."""
    jpeg = encoded()
    lay(a_o_jpg=jpeg, IMG_2_o_HEIC=jpeg, IMG_3=jpeg, d_o_jpeg_large=encoded("PNG"))
    lay(e_o_nef=encoded("WEBP"), f_o_dat=encoded("TIFF"), g=encoded("PPM"), h_o_x=encoded("GIF"))
    lay(IMG_1_o_HEIC=HEIC, b_o_JXL=JXL, c_o_dng=RAW, raw=RAW, i_o_NEF=encoded("TIFF"))
    lay(j=HEIC, k_o_psd=b"8BPS\0\1" + bytes(60), l_o_arw=b"", m_o_bin=JXL)
    lay(a_o_xmp=b"<x:xmpmeta/>", Thumbs_o_db=b"\xd0\xcf\x11\xe0", n_o_mp4=HEIC[:8] + b"isom")
    lay(o_o_thm=jpeg, a_o_jpg_original=jpeg, p_o_bak=jpeg, q_o_txt=b"P3 is no picture", r=b"")
    lay(s_o_mov=b"\0\0\0\x14ftypqt  ", t_o_txt=b"BM was a firm, and GIF", u_o_crdownload=jpeg)
    for name in (".hidden", "v.jpg~"):
        Path(name).write_bytes(jpeg)


def test_a_picture_is_known_by_its_content():
    """What begins like a picture is one; its result has the suffix of what it is."""
    album()
    found, _ = planned(".", output="out")

    assert found == {
        "IMG_2.HEIC": "IMG_2.jpg",
        "IMG_3": "IMG_3.jpg",
        "a.jpg": "a.jpg",
        "d.jpeg_large": "d.png",
        "e.nef": "e.webp",
        "f.dat": "f.tif",
        "g": "g.ppm",
        "h.x": "h.gif",
    }


def test_kinds_that_are_not_read_are_counted():
    """By suffix; what is no photograph, or excluded, is not missed."""
    album()
    for inputs in ((".",), ("*",), (".", Path.cwd().as_posix())):
        _, left_out = planned(*inputs, output="out")

        kinds = {"without a suffix": 2, ".heic": 1, ".jxl": 1, ".dng": 1, ".nef": 1}
        assert left_out.kinds() == kinds | {".psd": 1, ".arw": 1, ".bin": 1}
    _, left_out = planned(".", output="out", include=("*.jpg", "*.heic"))
    assert left_out.kinds() == {".heic": 1}
    lay(heic__IMG_1_o_HEIC=HEIC)
    assert refusal(lambda: planned("heic"), NothingToDoError) == (
        "no image found in heic; 1 file left out, of kinds that are not read: "
        "1 .heic (pip install 'srcli[heic]' reads them)"
    )


def test_what_can_be_read_once_is_not_looked_into(monkeypatch):
    """A pipe without a suffix would wait for its writer; a file that cannot be opened is no one."""
    os.mkfifo("pipe")
    lay(locked=encoded(), a_o_jpg=b"")
    Path("nowhere").symlink_to("gone")
    monkeypatch.setattr("builtins.open", _refusing)

    assert planned(".", output="out")[0] == {"a.jpg": "a.jpg"}
    assert format_at("pipe") is None
    assert plan(configured("pipe"))[0].target == Path("pipe_x3.png")


def _refusing(path, *_, **__):
    raise PermissionError(13, "Permission denied", path)


def test_a_folder_says_that_its_pictures_lie_below():
    """Beside pictures of its own or without; not where there are none, or where -r is given."""
    lay(one__sub__deep__a_o_jpg=b"", two__b_o_jpg=b"", two__x__IMG_3=encoded(), two__y__c_o_jpg=b"")
    lay(four__sub__a_o_nef=b"", three__d_o_jpg=b"", three__out__d_o_jpg=b"")
    lay(three__sub__notes_o_txt=b"")

    inputs = ("one", "two", "three", "four")
    found, left_out = planned(*inputs, output="three/out", existing="skip")
    assert set(found) == {"two/b.jpg", "three/d.jpg"}
    assert left_out.deeper == ["one", "two", "four"]
    assert planned("one", "two", recursive=True, output="out")[1].lines() == []
    assert planned("two/*", output="out")[1].lines() == []


def photos(*names, size=(8, 6)):
    """Write PNGs of a size."""
    lay(**{name: encoded("PNG", size) for name in names})


@pytest.mark.parametrize(
    ("options", "result", "size"),
    [
        ({"scale": 3}, "a_x2.png", (16, 12)),
        ({"scale": 1.5}, "a_x2.5.jpg", (20, 15)),
        ({"scale": 2, "suffix": "_big"}, "a_big.png", (24, 18)),
        ({"scale": 2, "suffix": "-{scale}"}, "a-4.png", (32, 24)),
        ({"name": "{stem}_{model}_x{scale}", "model": "nets/my.net"}, "a_my_x3.png", (24, 18)),
        ({"name": "{stem} {stem}-{scale}", "scale": 2}, "a a-4.png", (32, 24)),
        ({}, "a_1920x1080.png", (1440, 1080)),
        ({}, "sub_x4/a.png", (32, 24)),
        ({"scale": 4}, "1920x/a.png", (16, 12)),
    ],
)
@pytest.mark.parametrize("existing", ["skip", "overwrite"])
def test_a_result_beside_its_original_is_not_enlarged(options, result, size, existing):
    """By its name, for any factor; alone, or where it is no result, it is an input like others."""
    photos("a_o_png", "b_o_png", "sub__a_o_png", "sub__c_x2_o_png")
    path = Path(result)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(encoded("PNG", size))

    left_out = LeftOut()
    config = configured(".", recursive=True, output="out", existing=existing, **options)
    jobs = plan(config, left_out)
    assert left_out.results == [result]
    assert len(jobs) == 4
    assert set(planned(result, "b.png", "sub/c_x2.png", **options)[0]) >= {result, "sub/c_x2.png"}


def test_overwrite_makes_the_same_results_anew():
    """What the last run made of the inputs of this one, beside them or in a folder of results."""
    photos("a_o_png", "one__c_o_png")
    photos("a_x3_o_png", "out__c_o_png", size=(24, 18))

    named = sorted(map(str, Path().glob("*.png")))
    assert planned(*named, existing="overwrite")[0] == {"a.png": "a_x3.png"}
    glob = ("one/c.png", "out/c.png")
    assert planned(*glob, output="out", existing="overwrite")[0] == {"one/c.png": "c.png"}
    photos("b_o_png", "b_5x5_o_png")  # a copy of what was large enough
    copies = {"size": TargetSize.parse("5x5"), "existing": "overwrite"}
    assert planned("b.png", "b_5x5.png", **copies)[0] == {"b.png": "b_5x5.png"}


@pytest.mark.parametrize("size", [(8, 6), (24, 20), (12, 18)])
@pytest.mark.parametrize("existing", ["error", "overwrite"])
def test_a_photograph_that_is_called_like_a_result_is_not_replaced(size, existing):
    """Its size is none that enlarging the other one gives: it is an input, and stays as it is."""
    photos("a_o_png")
    photos("a_x3_o_png", "two__a_o_png", size=size)

    for inputs, output in ((("a.png", "a_x3.png"), None), (("a.png", "two/a.png"), "two")):
        jobs = plan(configured(*inputs, output=output, existing=existing))
        assert len(jobs) == 2
        assert "is an input; use --output or --suffix" in jobs[0].problem


@pytest.mark.usefixtures("desk")
def test_what_was_left_out_is_reported_after_the_run():
    """On stderr, in the summary and in a dry run; quietly not at all."""
    Path("in/broken.png").unlink()
    lay(in__IMG_1_o_HEIC=HEIC, in__c_o_dng=RAW)
    Path("in/a_x2.png").write_bytes(encoded("PNG", (26, 22)))

    for more in ((), ("-n",)):
        result = run("in", "-o", f"out{len(more)}", *more)

        assert result.exit_code == 0, result.stderr
        kinds, results, deeper = result.stderr.splitlines()[-4:-1]
        assert kinds == (
            "2 files left out, of kinds that are not read: "
            "1 .heic (pip install 'srcli[heic]' reads them), 1 .dng"
        )
        assert results == (
            "1 result of earlier runs left out: in/a_x2.png; "
            "give one without its original to enlarge it"
        )
        assert deeper == "pictures in folders below in left out; search them with -r"
    for more in (("-n",), ()):
        result = run("in", "-o", "json", "--json", *more)
        summary = json.loads(result.stdout.splitlines()[-1])
        assert (summary["left_out"], summary["earlier_results"]) == ({".heic": 1, ".dng": 1}, 1)
        assert result.stderr == ""
    assert run("in", "-q", "-o", "out2").stderr == ""
