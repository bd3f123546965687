"""The page of ``srcli upscale --compare``: what it shows, and how it is used."""

import base64
import html
import os
import re
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from browser import CHROMIUM, Browser
from command_runs import run_upscale as run
from PIL import Image

from srcli.cli import enlarging
from srcli.files import one_line
from srcli.upscaling import compare

URL = re.compile(r'src="data:image/jpeg;base64,([^"]+)"')


def noise(height, width, channels=3, seed=1):
    """Random levels, smooth enough for a JPEG."""
    draw = np.random.default_rng(seed)
    levels = draw.integers(0, 256, (height // 4 + 1, width // 4 + 1, channels), dtype=np.uint8)
    return levels.repeat(4, axis=0).repeat(4, axis=1)[:height, :width]


def pairs(page):
    """Decode what a page shows: bicubic enlargement and result of each picture."""
    found = [base64.b64decode(data) for data in URL.findall(page.read_text("utf-8"))]
    assert not any(b"Exif" in data for data in found)
    images = [np.asarray(Image.open(BytesIO(data)).convert("RGB"), int) for data in found]
    return list(zip(images[::2], images[1::2], strict=True))


@pytest.mark.usefixtures("desk")
def test_a_page_has_what_was_enlarged_and_counts_the_rest(monkeypatch):
    """Names, sizes, factor, weights, how many failed; nothing is fetched from elsewhere."""
    real = enlarging.write_page

    def late(page, results, most):
        results[-1].job.target.unlink()
        return real(page, results, most)

    monkeypatch.setattr(enlarging, "write_page", late)
    result = run("in", "-r", "-s", "2", "--compare", "page.html")

    text = Path("page.html").read_text("utf-8")
    assert result.exit_code == 1
    assert re.findall(r"<h2>(.*)</h2>", text) == ["a.png", "b.jpg", "c.png"]
    assert "13x11 → 26x22, ×2, weights tiny" in text
    assert "<h1>3 pictures enlarged by srcli</h1>\n<p>1 failed</p>" in text
    assert not re.search(
        r"https?:|//|<link|url\(|@import", re.sub(URL, "", text).split("<script")[0]
    )
    assert re.search(r"<h2>c.png</h2>\n<p>not shown: \S*: no such file; check the path</p>", text)
    assert len(pairs(Path("page.html"))) == 2
    assert [path.name for path in Path().iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize(
    ("name", "mode"),
    [("a.png", "RGB"), ("a.webp", "RGBA"), ("a.tif", "L"), ("a.png", "I;16")],
)
@pytest.mark.usefixtures("here")
def test_the_middle_of_a_large_result_is_shown_as_it_is(plain_weights, name, mode):
    """Read by bands or whole, with opacity or 16 bits: the net adds nothing, so both are alike."""
    levels = noise(300, 420, 4)
    picture = Image.fromarray(levels, "RGBA").convert("RGB" if mode == "I;16" else mode)
    if mode == "I;16":
        picture = Image.fromarray(np.asarray(picture.convert("L"), np.uint16) * 257)
    picture.save(name, **({"lossless": True} if name == "a.webp" else {}))

    done = run(name, "-o", "out.png", "--compare", "page.html", model=plain_weights)

    assert done.exit_code == 0, done.stderr
    ((bicubic, result),) = pairs(Path("page.html"))
    with Image.open("out.png") as image:
        whole = np.asarray(image)
    whole = (whole / 257).round() if mode == "I;16" else whole
    whole = np.dstack([whole] * 3) if whole.ndim == 2 else whole
    colours, alpha = whole[..., :3], whole[..., 3:] / 255 if mode == "RGBA" else 1
    expected = (colours * alpha + 255 * (1 - alpha))[130:770, 150:1110]
    assert result.shape == bicubic.shape == (640, 960, 3)
    assert np.abs(result - expected).mean() < 2
    # Where it is transparent the colours beneath are mixed before or after it is enlarged.
    assert np.abs(result - bicubic).mean() < (6 if mode == "RGBA" else 0.5)


@pytest.mark.skipif(os.name != "posix", reason="needs names that are no text")
@pytest.mark.parametrize("name", [b"<b>&amp;\"'$name ${x} $$.png", b"\xff\xfe.png"])
@pytest.mark.usefixtures("here")
def test_odd_names_are_shown_and_mean_nothing(tiny_weights, name):
    """Neither markup nor a place of the template nor what is no UTF-8 breaks the page."""
    Image.fromarray(noise(8, 8)).save("a.png")
    Path("a.png").rename(os.fsdecode(name))

    done = run(os.fsdecode(name), "--compare", "page.html", model=tiny_weights)

    assert done.exit_code == 0
    (shown,) = re.findall(r"<h2>(.*)</h2>", Path("page.html").read_text("utf-8"))
    assert html.unescape(shown) == one_line(os.fsdecode(name))
    assert not {'"', "<"} & set(shown)


@pytest.mark.usefixtures("here")
def test_a_page_stays_small(tiny_weights, monkeypatch):
    """The first pictures of many are shown, and the worst of pictures has a bound."""
    monkeypatch.setattr(compare, "MOST_PICTURES", 1)
    draw = np.random.default_rng(1)
    for name in ("a.png", "b.png"):
        Image.fromarray(draw.integers(0, 256, (640, 960, 3), dtype=np.uint8)).save(name)

    command = ("a.png", "b.png", "-s", "1", "-o", "out", "--compare", "page.html")
    run(*command, model=tiny_weights)

    text = Path("page.html").read_text("utf-8")
    assert "<p>the first 1 of 2 are shown</p>" in text
    assert len(text) < 3_500_000


@pytest.mark.usefixtures("desk")
def test_no_picture_is_no_page():
    """One line says so, and what was there stays."""
    Path("page.html").write_text("old")

    result = run("in/broken.png", "--compare", "page.html")

    assert result.stderr.splitlines()[-1] == "no picture was enlarged: page.html is not written"
    assert Path("page.html").read_text() == "old"


# ---- in a browser -------------------------------------------------------------------------

STATE = """
[...document.querySelectorAll("section")].map(one => [
    Number(one.querySelector("input").value),
    one.querySelector("output").value,
    getComputedStyle(one.querySelector(".result")).clipPath.match(/([\\d.]+)%/)[1],
    getComputedStyle(one.querySelector(".result img")).transform.match(/[-\\d.]+/g).map(Number)])
"""
BOX = "(box => [box.x, box.y, box.width])(document.querySelector('.stage').getBoundingClientRect())"


@pytest.fixture(scope="module")
def page(tmp_path_factory, plain_weights):
    """A page of two pictures."""
    folder = tmp_path_factory.mktemp("page")
    for name in ("one.png", "two.png"):
        Image.fromarray(noise(100, 150)).save(folder / name)
    made = run(folder, "-s", "2", "--compare", folder / "page.html", model=plain_weights)
    assert made.exit_code == 0, made.stderr
    return folder / "page.html"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A browser for all tests."""
    if CHROMIUM is None:
        pytest.skip("needs Chromium (apt-get install chromium)")
    started = Browser(tmp_path_factory.mktemp("profile"))
    yield started
    started.close()


def shown(browser):
    """What each picture shows, once everything is drawn: divider, zoom, clipping, view."""
    browser.value("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    states = browser.value(STATE)
    assert all(float(clipped) == value for value, _, clipped, _ in states)
    return [(value, zoom, view) for value, zoom, _, view in states]


def test_the_keyboard_moves_zooms_and_goes_on(browser, page):
    """Arrows, plus, minus, zero, shifted arrows, Tab; the second picture is not touched by it."""
    browser.open(page, 1280, 800)
    assert browser.value("document.querySelector('h2').textContent") == "one.png"
    assert shown(browser)[0][:2] == (50, "100 %")

    browser.press("ArrowLeft")  # before anything has the focus: the first picture
    browser.press("Tab")
    for key in ("ArrowRight", "ArrowRight", "ArrowRight"):
        browser.press(key)
    browser.press("+", "+")
    browser.press("=", "=")
    assert shown(browser)[0][:2] == (54, "400 %")
    before = shown(browser)[0][2]
    browser.press("ArrowRight", modifiers=8)
    after = shown(browser)[0][2]
    assert after[4] - before[4] == -40
    browser.press("-", "-")
    assert shown(browser)[0][1] == "200 %"
    browser.press("0", "0")
    assert shown(browser)[0] == (54, "100 %", [1, 0, 0, 1, 0, 0])
    browser.press("Tab")
    browser.press("ArrowLeft")

    assert [value for value, _, _ in shown(browser)] == [54, 48]
    assert browser.value("document.activeElement.ariaLabel").startswith("two.png")
    assert browser.value("document.activeElement.getAttribute('aria-valuetext')") == "48 % bicubic"


@pytest.mark.parametrize("phone", [False, True], ids=["desk", "phone"])
def test_a_page_fits_its_window_and_is_dragged(browser, page, phone):
    """By mouse in light colours, by a finger in dark ones; nothing sticks out or is fetched."""
    window = (390, 844) if phone else (1280, 800)
    browser.open(page, *window, phone=phone, scheme="dark" if phone else "light")

    assert browser.value("document.documentElement.scrollWidth") <= window[0]
    with Image.open(BytesIO(browser.screenshot())) as image:
        assert image.size == window
        assert (np.asarray(image.convert("L"))[:, :8].mean() < 64) == phone
    seen = [one["params"] for one in browser.events]
    requests = [one["request"]["url"] for one in seen if "request" in one]
    assert [url for url in requests if not url.startswith("data:")] == [page.absolute().as_uri()]
    assert not [one for one in seen if "exceptionDetails" in one or "entry" in one]

    x, y, width = browser.value(BOX)
    browser.drag((x + width / 2, y + 50), (x + width / 4, y + 52), touch=phone)
    assert shown(browser)[0][0] == pytest.approx(25, abs=0.2)
    browser.value("document.querySelectorAll('button')[1].click()")
    before = shown(browser)[0]
    browser.drag((x + width * 0.8, y + 50), (x + width * 0.8 - 30, y + 60), touch=phone)
    after = shown(browser)[0]
    assert after[0] == before[0]
    assert [after[2][4] - before[2][4], after[2][5] - before[2][5]] == pytest.approx([-30, 10])
