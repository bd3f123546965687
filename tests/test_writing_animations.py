"""Animations and pages into files, and what is reported where a format cannot hold something."""

import io
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from metadata_blocks import swapped
from PIL import ExifTags, Image
from reading_files import AVIF, SRGB, exif_block, noise, smooth
from writing_files import KINDS, of_kind

from srcli.imaging.images import Metadata, Picture, read_album
from srcli.imaging.pictures import Album
from srcli.imaging.writing import write_album, write_stream

GREY_PROFILE = b"\0" * 16 + b"GRAY" + b"\0" * 16 + b"acsp" + b"\0" * 88
"""What begins like an ICC profile of grey."""

DURATIONS = (100.0, 40.0, 70.0, 50.0, 700.0)


def animated(*, alpha=False, loop=0):
    """Make an album in which a patch moves over a still gradient, and perhaps its opacity."""
    frames = []
    for number, duration in enumerate(DURATIONS):
        pixels, opacity = smooth(), np.zeros((24, 40, 1), np.uint8)
        pixels[5 + number : 12 + number, 9 : 20 + number] = 17 * number
        opacity[2 * number : 2 * number + 12, 3 * number : 3 * number + 20] = 255
        metadata = Metadata(exif=exif_block(), icc_profile=SRGB)
        frame = {"metadata": metadata, "duration": duration, "alpha": opacity if alpha else None}
        frames.append(Picture(pixels=pixels, **frame))
    return Album(pictures=tuple(frames), loop=loop)


def frames_by_pillow(path):
    """Decode every frame as it is seen, with its duration."""
    with Image.open(path) as image:
        for number in range(image.n_frames):
            image.seek(number)
            yield np.array(image.convert("RGBA")).astype(int), image.info.get("duration")


@given(st.data())
def test_animations_show_what_they_showed_as_long_as_they_did(data):
    """Of any frames, opaque or clear, equal neighbours included; these may become one."""
    name = data.draw(st.sampled_from(["GIF", "PNG", "WEBP"]))
    channels = data.draw(st.sampled_from([1, 3]))
    clear = data.draw(st.booleans())
    shape = data.draw(st.tuples(st.integers(1, 6), st.integers(1, 6)))
    random = np.random.default_rng(data.draw(st.integers(0, 1000)))
    frames = []
    for _ in range(data.draw(st.integers(2, 4))):
        if frames and random.random() < 0.3:
            frames.append(frames[-1])
            continue
        pixels = random.integers(0, 3, (*shape, channels)).astype(np.uint8) * 127
        if frames:
            still = random.random(shape) < 0.6
            pixels = np.where(still[..., None], frames[-1].pixels, pixels)
        alpha = random.integers(0, 2, (*shape, 1)).astype(np.uint8) * 255 if clear else None
        frames.append(Picture(pixels=pixels, alpha=alpha, duration=10.0 * random.integers(1, 30)))
    stream = io.BytesIO()
    write_stream(Album(pictures=tuple(frames), loop=0), stream, format=name, lossless=True)

    found = read_album(Path("a"), stream.getvalue()).pictures

    if len(found) > 1:
        assert seen(frames) == seen(found)
    else:
        assert seen(frames)[0][0] == seen(found)[0][0]


def seen(pictures):
    """Give what is to be seen, clear pixels as black, and how long, equal neighbours joined."""
    result = []
    for picture in pictures:
        shape = (picture.height, picture.width)
        opacity = np.full((*shape, 1), 255) if picture.alpha is None else picture.alpha
        colours = np.where(opacity > 0, picture.pixels, 0)
        levels = np.concatenate([np.broadcast_to(colours, (*shape, 3)), opacity], 2).tolist()
        if result and result[-1][0] == levels:
            result[-1][1] += picture.duration or 0
        else:
            result.append([levels, picture.duration or 0])
    return result


@AVIF
def test_every_frame_of_an_avif_sequence_is_written(tmp_path):
    """Within a few levels, each as long as it was shown."""
    album = animated(alpha=True)
    write_album(album, tmp_path / "a.avif", lossless=True)

    found = list(frames_by_pillow(tmp_path / "a.avif"))

    assert [duration for _, duration in found] == list(DURATIONS)
    for picture, (levels, _) in zip(album.pictures, found, strict=True):
        np.testing.assert_array_equal(picture.alpha[..., 0], levels[..., 3])
        error = np.abs(levels[..., :3] - picture.pixels)[levels[..., 3] > 0]
        assert error.max() <= 4


def test_what_does_not_move_does_not_flicker_in_a_gif(tmp_path):
    """Pixels that stay the same keep their colour when the palette changes."""
    still = noise(3, height=40, width=40)
    frames = []
    for number in range(3):
        pixels = still.copy()
        pixels[:20] = noise(3, seed=number, height=20, width=40) // (number + 1)
        frames.append(Picture(pixels=pixels, duration=100.0))
    write_album(Album(pictures=tuple(frames)), tmp_path / "a.gif")

    first, *rest = (levels[20:] for levels, _ in frames_by_pillow(tmp_path / "a.gif"))
    for levels in rest:
        np.testing.assert_array_equal(first, levels)


@pytest.mark.parametrize("big", [False, True])
def test_pages_are_exact_at_every_size_and_depth(tmp_path, monkeypatch, big):
    """A decoder of others finds every page as it was, in TIFF and BigTIFF."""
    if big:
        monkeypatch.setattr("srcli.imaging.streaming._BIG", 1000)
    sides = [(1, 1), (5, 7), (300, 601)]
    pictures = [
        of_kind(dtype, channels, alpha=alpha, height=sides[n % 3][0], width=sides[n % 3][1])
        for n, (dtype, channels, alpha) in enumerate(kind.values for kind in KINDS)
    ]
    path = tmp_path / f"{big}.tiff"
    assert write_album(Album(pictures=tuple(pictures)), path) == ()

    with tifffile.TiffFile(path) as file:
        assert file.is_bigtiff is big
        for page, picture in zip(file.pages, pictures, strict=True):
            parts = [picture.pixels] if picture.alpha is None else [picture.pixels, picture.alpha]
            levels = np.concatenate(parts, axis=2)
            np.testing.assert_array_equal(levels, page.asarray().reshape(levels.shape))
            assert picture.pixels.dtype == page.dtype
            assert page.extrasamples == (() if picture.alpha is None else (2,))


@pytest.mark.parametrize("loop", [None, 0, 1, 7])
@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.gif"])
def test_plays_are_counted_as_the_format_counts(tmp_path, name, loop):
    """What is not said is once; GIF counts the repetitions, and has none to say for once."""
    write_album(animated(loop=loop), tmp_path / name)

    with Image.open(tmp_path / name) as image:
        found = image.info.get("loop")
        if name != "a.gif":
            assert image.info["icc_profile"] == SRGB
            assert image.getexif()[ExifTags.Base.Make] == "Maker"
    plays = 1 if loop is None else loop
    assert found == ({0: 0, 1: None}.get(plays, plays - 1) if name == "a.gif" else plays)
    again = read_album(tmp_path / name).loop
    assert again == (None if name == "a.gif" and plays == 1 else plays)


@pytest.mark.parametrize(
    ("name", "duration", "expected"),
    [
        ("a.gif", 33.3, 30),
        ("a.gif", 4, 10),  # not none, which programs take for a tenth of a second
        ("a.gif", 0, 0),
        ("a.gif", 1e9, 655350),
        ("a.png", 1000 / 30, 1000 / 30),
        ("a.png", 1e9, 65_535_000),
    ],
)
def test_durations_are_as_near_as_the_format_comes(tmp_path, name, duration, expected):
    """GIF counts hundredths of a second, PNG has fractions."""
    pictures = tuple(Picture(pixels=noise(3, seed=seed), duration=duration) for seed in (1, 2))
    notes = write_album(Album(pictures=pictures, loop=0), tmp_path / name)

    found = [each for _, each in frames_by_pillow(tmp_path / name)]
    assert found == [pytest.approx(expected, rel=1e-4)] * 2
    told = "GIF holds hundredths of a second: durations rounded" in notes
    assert told is (name == "a.gif" and duration % 10 != 0)


EVERYTHING = Metadata(
    icc_profile=SRGB,
    exif=exif_block(),
    xmp=b"<x/>",
    dpi=(300.0, 300.0),
    text=(("Title", "Night"),),
    comment=b"hello",
)


def one(**more):
    """Make an album of one picture."""
    return Album(pictures=(Picture(**{"pixels": smooth(), **more}),))


ALPHA = np.repeat(np.linspace(0, 255, 40).astype(np.uint8)[None, :, None], 24, axis=0)
SWAPPED, GREY = (Metadata(icc_profile=profile) for profile in (swapped(SRGB), GREY_PROFILE))
PAGES = Album(pictures=one().pictures * 2)
MIXED = Album(pictures=(*one().pictures, Picture(pixels=noise(3))))
DEEP = Album(pictures=(of_kind(np.uint16, 3, duration=50.0),) * 2)
REDUCED = "GIF holds 255 colours a frame: reduced"


@pytest.mark.parametrize(
    ("album", "name", "lossless", "expected"),
    [
        (one(metadata=EVERYTHING), "PNG", True, []),
        (one(alpha=ALPHA), "GIF", False, ["GIF holds transparency that is on or off: rounded"]),
        (one(), "JPEG", True, ["JPEG is never lossless: written at its quality"]),
        (animated(), "JPEG", False, ["JPEG holds one picture: the first of 5 frames"]),
        (animated(), "TIFF", False, ["TIFF holds no timing: frames become pages"]),
        (animated(loop=3), "AVIF", False, ["AVIF does not say how often it plays: for ever"]),
        (DEEP, "PNG", False, ["PNG holds animations of 8 bits a channel: rounded from 16"]),
        (PAGES, "PPM", False, ["PPM holds one picture: the first of 2 pages"]),
        (PAGES, "PNG", False, ["PNG holds no pages: shown for a second each"]),
        (MIXED, "WEBP", False, ["WEBP holds frames of one size and kind: the first of 2 pages"]),
        (one(metadata=SWAPPED), "BMP", False, ["BMP holds no ICC profile: converted to sRGB"]),
        (
            one(pixels=noise(1), metadata=GREY),
            "WEBP",
            False,
            ["WEBP holds no grey ICC profile: converted to sRGB"],
        ),
    ],
)
def test_what_a_format_cannot_hold_is_reported(album, name, lossless, expected):
    """One line for each loss, and none where nothing is lost."""
    notes = write_stream(album, io.BytesIO(), format=name, lossless=lossless)
    assert [*notes] == expected + [REDUCED] * (name == "GIF")
