"""The bar of a run, what is said before it, and how long it still takes, by a clock of the test."""

import re
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import pytest
from batch_files import configured
from command_runs import run_upscale as run
from PIL import Image
from rich.console import Console
from writing_files import write

from srcli.cli.progress import RunProgress
from srcli.imaging import images
from srcli.upscaling import disk
from srcli.upscaling.config import STREAM, Job
from srcli.upscaling.plan import plan
from srcli.upscaling.survey import Survey

ROOT = Path(__file__).parents[1]


def job(name):
    """One file."""
    return Job(Path(name), Path("out", name), name)


def ahead(*, files=1, **pixels):
    """Know what a run of some files has before it, by their pixels."""
    survey = Survey(configured(), ())
    survey._pixels.update({job(name): count for name, count in pixels.items()})
    survey.files, survey.pictures, survey.after = files, len(pixels), sum(pixels.values())
    survey.before = survey.after // 9
    survey.complete.set()
    return survey


class Shown:
    """A run at a terminal, and the clock that it goes by."""

    def __init__(self, survey, width=80):
        self.now, self.file = 100.0, StringIO()
        terminal = Console(
            file=self.file,
            force_terminal=True,
            width=width,
            color_system=None,
            _environ={"TERM": "xterm"},
        )
        self.progress = RunProgress(survey, shown=True, console=terminal, clock=lambda: self.now)

    @contextmanager
    def running(self):
        """Show the bar."""
        with self.progress.running():
            yield self

    def advance(self, name, share, seconds=0.0):
        """Let a file come that far in so many seconds."""
        self.now += seconds
        self.progress.advance(job(name), share)

    def line(self):
        """Draw the bar, and return it without what is drawn of the bar itself."""
        self.progress._bar.refresh()
        line = self.file.getvalue().split("\x1b[2K")[-1]
        assert len(line) == self.progress.console.width
        return " ".join(line.replace("━", " ").replace("╸", " ").replace("╺", " ").split())


def test_the_time_left_goes_down_between_two_batches():
    """It is known from the first batch on, and needs no other to be drawn anew."""
    with Shown(ahead(a=108_000_000)).running() as shown:
        assert shown.line() == "starting 0% 0.0/108.0 MP"
        shown.advance("a", 0.0)
        assert shown.line() == "a 0% 0.0/108.0 MP"
        shown.advance("a", 0.01, seconds=2)
        assert shown.line() == "a 1% 1.1/108.0 MP 03:18 left"
        shown.now += 3
        assert shown.line() == "a 1% 1.1/108.0 MP 03:15 left"
        shown.advance("a", 1.0, seconds=1)
        assert shown.line() == "a 100% 108.0/108.0 MP writing"
    assert shown.file.getvalue().endswith("\x1b[1A\x1b[2K"), "it leaves nothing behind"


def test_a_folder_shows_files_pixels_and_the_time_of_the_whole_run():
    """A small file of many costs little time; what failed costs none, and is not waited for."""
    survey = ahead(files=3, a=1_000_000, b=30_000_000, c=2_969_000_000)
    with Shown(survey).running() as shown:
        shown.advance("a", 0.0)
        shown.advance("a", 1.0, seconds=1)
        assert shown.line() == "1/3 a 0% 0.0/3.0 GP 49:59 left"
        shown.progress.end(job("a"), failed=False)
        shown.advance("b", 0.5, seconds=15)
        assert shown.line() == "2/3 b 0% 0.0/3.0 GP 49:44 left"
        shown.progress.end(job("b"), failed=True)
        shown.advance("c", 0.0)
        assert shown.line() == "3/3 c 0% 0.0/3.0 GP 49:29 left"


def test_the_speed_is_that_of_the_last_minute():
    """An hour at a crawl is forgotten a minute after the machine is free again."""
    with Shown(ahead(a=1_000_000)).running() as shown:
        for step in range(60):
            shown.advance("a", step / 6000, seconds=60)
        for step in range(70):
            shown.advance("a", 0.01 + step / 1000, seconds=1)

        assert shown.line() == "a 7% 0.1/1.0 MP 15:21 left"


def test_a_narrow_terminal_keeps_share_and_time():
    """Pixels are left out below 60 columns, and names are cut before figures are."""
    name = "a-very-long-name.png"
    with Shown(ahead(files=2, **{name: 10_000_000}), width=40).running() as shown:
        shown.advance(name, 0.0)
        shown.advance(name, 0.5, seconds=10)

        assert re.fullmatch(r"1/2 a-.*… 50% 00:10 left", shown.line())


def test_what_cannot_be_known_before_is_not_claimed():
    """Of stdin there is a share and a time, of headers that are being read neither."""
    survey, stdin = ahead(), Job(STREAM, STREAM, "-")
    with Shown(survey).running() as shown:
        shown.progress.advance(stdin, 0.0)
        shown.now += 10
        shown.progress.advance(stdin, 0.25)
        assert shown.line() == "- 25% 00:30 left"
        survey.complete.clear()
        assert shown.line() == "- counting pixels"


def test_a_line_is_printed_above_the_bar():
    """It stays, whole and as it is, whatever is in it; without a bar nothing is printed here."""
    text = "error: [red]a photo[/].png: :smile: " + "x" * 200
    shown = Shown(ahead(a=1))
    assert not shown.progress.printed(text)
    with shown.running():
        assert shown.progress.printed(text)

    assert text + "\n" in shown.file.getvalue()


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(29, []), (5700, ["2 pictures, 3.73 -> 33.6 gigapixels, about 3 h 10 min; -n lists them"])],
)
def test_a_run_of_more_than_a_minute_is_announced(seconds, expected):
    """Once, when the net has been at work for a second and two batches."""
    shown = Shown(ahead(files=2, a=33_600_000_000, b=0))
    shown.advance("a", 0.0)
    shown.advance("a", 0.25, seconds=seconds / 2)
    assert list(shown.progress.news()) == []
    shown.advance("a", 0.5, seconds=seconds / 2)

    assert [list(shown.progress.news()) for _ in range(2)] == [expected, []]


@pytest.mark.usefixtures("desk")
def test_headers_say_what_a_run_has_before_it():
    """Pictures, pixels and bytes of what will be done; what is broken or done already is none."""
    Path("in/b_x3.jpg").touch()
    frames = [Image.new("L", (5, 4), level) for level in (0, 200)]
    frames[0].save("in/c.gif", save_all=True, append_images=frames[1:])
    names = ("in/a.png", "in/b.jpg", "in/broken.png", "gone.png", "in/c.gif")
    config = configured(*names, existing="skip")
    jobs = plan(config)

    with Survey(config, jobs) as survey:
        assert survey.complete.wait(60)

    before, after = 13 * 11 + 2 * 5 * 4, 39 * 33 + 2 * 15 * 12
    assert (survey.pictures, survey.before, survey.after) == (3, before, after)
    assert [survey.pixels(one) for one in jobs] == [39 * 33, 0, 0, 0, 2 * 15 * 12]
    assert after < survey.disks.size < after * 3


@pytest.mark.parametrize(
    ("suffix", "quality"),
    [(".jpg", 75), (".jpg", 100), (".png", 95), (".tif", 95), (".webp", 95), (".avif", 95)],
)
def test_the_room_of_a_result_is_estimated_within_a_factor_of_two(suffix, quality, tmp_path):
    """For a photograph, in every format that is often written."""
    config, target = configured("a.png", quality=quality), tmp_path / f"a{suffix}"
    with Image.open(ROOT / "examples/originals/houses.png") as photo:
        large = photo.convert("RGB").crop((300, 100, 500, 250)).resize((600, 450), Image.BICUBIC)
    write(images.from_pillow(large), target, quality=quality)

    estimated = disk.estimated_size(images.read_header(target), 600 * 450, target, config)

    assert 0.5 < estimated / target.stat().st_size < 2


@pytest.mark.usefixtures("desk")
def test_a_disk_that_is_too_small_is_named_before_it_is_full(monkeypatch):
    """In a run and in a dry run; the run goes on, for it is an estimate."""
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))

    dry, real = (run("in/a.png", "in/sub/c.png", "-o", "big", *more) for more in (["-n"], []))

    assert real.stderr.splitlines()[0] == (
        "warning: the disk of big has 1 kB free, the results take about 2 kB; free some space, or "
        "choose another --output or --format"
    )
    assert real.exit_code == 0
    assert "2 kB on disk (1 kB free)" in dry.stderr.splitlines()[-1]
