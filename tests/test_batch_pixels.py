"""A batch of files: the options, and the sizes and pixels of the results."""

from pathlib import Path

import numpy as np
import pytest
from batch_files import configured, enlarge, listing, picture
from PIL import Image, ImageOps

from srcli.errors import UsageError

ORIENTATION = 0x0112


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quality": 0}, "--quality must lie in 1..100, not 0"),
        ({"quality": 101}, "--quality must lie in 1..100, not 101"),
        ({"max_pixels": 0}, "--max-pixels must be at least 1, not 0"),
        ({"jobs": 0}, "--jobs must lie in 1..256, not 0"),
        ({"jobs": 257}, "--jobs must lie in 1..256, not 257"),
    ],
)
def test_an_option_out_of_range_is_refused(options, message):
    """A value that cannot be meant is refused before any file is looked at."""
    with pytest.raises(UsageError) as caught:
        configured("photo.png", **options)

    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("size", "scale", "larger"),
    [
        ((1, 1), 1, (1, 1)),
        ((1, 1), 1.25, (1, 1)),
        ((1, 7), 2.5, (3, 18)),
        ((23, 37), 2, (46, 74)),
        ((47, 31), 3.7, (174, 115)),
        ((9, 11), 16, (144, 176)),
    ],
)
def test_the_size_is_exact(here, tiny_weights, size, scale, larger):
    """The result has that size, from one pixel on and in every number of steps."""
    picture(*size).save("a.png")

    (result,) = enlarge("a.png", model=tiny_weights, scale=scale, output=Path("b.png"))

    assert (result.status, result.before, result.after) == ("done", size, larger)
    with Image.open("b.png") as image:
        assert image.size == larger
    assert listing(here) == ["a.png", "b.png"]


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


@pytest.mark.parametrize("orientation", [1, 2, 6])
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
