"""Frames and pages: each is what is to be seen."""

import io

import numpy as np
import pytest
import tifffile
from metadata_blocks import parsed_block
from PIL import ExifTags, Image
from reading_files import (
    AVIF,
    NAME,
    SRGB,
    as_bytes,
    as_image,
    drawn,
    exif_block,
    message_of,
    noise,
)

from srcli.imaging.reading import read, read_album, read_header, read_size

EXACT = {
    "WEBP": {"lossless": True, "exact": True},
    "AVIF": {"quality": 100, "subsampling": "4:4:4"},
    "GIF": {"disposal": 2},
    "PNG": {"blend": 0, "disposal": 1},
}
"""What makes an encoder keep every level, if it can."""


@pytest.mark.parametrize("clear", [False, True], ids=["opaque", "clear"])
@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", pytest.param("AVIF", marks=AVIF)])
def test_every_frame_is_what_is_to_be_seen(kind, clear):
    """All frames arrive composed, of one kind, with the time that each is shown."""
    frames, times = drawn(clear), [100, 50, 2000, 230]
    data = as_bytes(frames, kind, duration=times, **EXACT[kind])

    album = read_album(NAME, data)

    assert [picture.duration for picture in album.pictures] == times
    assert album.format == kind
    for frame, picture in zip(frames, album.pictures, strict=True):
        expected = np.array(frame.convert("RGBA")).astype(int)
        seen = expected[..., 3] > 0
        tolerance = {"AVIF": 3, "GIF": 2}.get(kind, 0)
        np.testing.assert_allclose(picture.pixels[seen], expected[seen][:, :3], atol=tolerance)
        if clear:
            np.testing.assert_array_equal(expected[..., 3:], picture.alpha)
        elif kind != "WEBP":  # whose animations always have a channel of opacity
            assert picture.alpha is None
    header = read_header(NAME, data)
    assert (header.frames, header.width, header.height) == (4, 16, 12)
    assert (header.channels, header.bits, header.format) == (3, 8, kind)
    assert not clear or header.alpha
    np.testing.assert_array_equal(album.pictures[0].pixels, read(NAME, data).pixels)


def test_what_frames_of_a_webp_leave_out_is_clear():
    """Though the file does not say that it has transparency, as libwebp writes it then."""
    frames = [Image.new("RGBA", (16, 12)) for _ in "ab"]
    for place, frame in enumerate(frames):
        frame.paste((200, 60, 30, 255), (4 * place, 2, 4 * place + 4, 6))
    data = as_bytes(frames, "WEBP", lossless=True)

    assert not data[20] & 0x10
    for picture, frame in zip(read_album(NAME, data).pictures, frames, strict=True):
        np.testing.assert_array_equal(picture.alpha[..., 0], np.array(frame)[..., 3])


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_a_still_picture_has_no_time(kind):
    """One frame is no animation, whatever its file says about time."""
    album = read_album(NAME, as_bytes(drawn(clear=False)[0], kind, duration=80, loop=3))

    assert (album.pictures[0].duration, album.loop, album.notes) == (None, None, ())


def test_the_stand_in_of_an_animated_png_is_left_out():
    """A picture for programs without animations is no frame; that it is gone is told."""
    frames = drawn(clear=False)
    data = as_bytes(frames, "PNG", default_image=True, duration=9)

    album = read_album(NAME, data)

    assert len(album.pictures) == read_header(NAME, data).frames == 3
    assert album.notes == ("the picture that stands in for the animation is left out",)
    for first in (album.pictures[0], read(NAME, data)):
        np.testing.assert_array_equal(np.array(frames[1]), first.pixels)


def test_frames_of_a_png_are_laid_over_one_another():
    """By their opacity, where they are partly transparent; the stand-in is not below them."""
    below, above = (Image.new("RGBA", (4, 3), (90, 160, level, 128)) for level in (0, 250))
    frames = [Image.new("RGBA", (4, 3), "blue"), below, above]
    album = read_album(NAME, as_bytes(frames, "PNG", default_image=True, blend=1))

    expected = below, Image.alpha_composite(below, above)
    for frame, picture in zip(expected, album.pictures, strict=True):
        found = np.dstack([picture.pixels, picture.alpha])
        np.testing.assert_array_equal(np.array(frame), found)


@pytest.mark.parametrize("disposal", [2, 3])
def test_what_no_frame_of_a_gif_covers_is_clear(disposal):
    """As browsers show it, though no frame is transparent; a palette of its own holds."""
    data = as_bytes(Image.new("RGB", (2, 1), "red"), "GIF")
    frame = data[data.index(b",") : -1]
    colours = bytes((frame[9] | 0x80, *bytes(range(6))))
    frames = [frame, frame[:9] + colours + frame[10:]]
    moved = [each[:1] + bytes((2 * n,)) + each[2:] for n, each in enumerate(frames)]
    control = b"!\xf9\4" + bytes((disposal << 2, 7, 0, 0, 0))
    data = data[:6] + b"\4" + data[7 : data.index(b",")]
    loop = b"!\xff\x0bANIMEXTS1.0\3\1\4\0\0"

    album = read_album(
        NAME, data + loop + b"\0" + b"".join(control + each for each in moved) + b";"
    )

    assert (album.loop, [each.duration for each in album.pictures]) == (5, [70, 70])
    seen = [picture.alpha[0, :, 0].tolist() for picture in album.pictures]
    assert seen == [[255, 255, 0, 0], [0, 0, 255, 255]]
    assert album.pictures[1].pixels[0, 2].tolist() == [0, 1, 2]
    assert read(NAME, data + moved[0] + b";").alpha[0, :, 0].tolist() == [255, 255, 0, 0]


def test_frames_of_a_png_of_16_bits_of_grey_are_read_at_8():
    """Pillow would cut off what is beyond 255."""
    frames = [Image.fromarray(noise(1, np.uint16, seed=seed)[..., 0]) for seed in range(2)]
    album = read_album(NAME, as_bytes(frames, "PNG"))

    assert album.notes == ("PNG of 16 bits read at 8 bits",)
    for frame, picture in zip(frames, album.pictures, strict=True):
        np.testing.assert_allclose(picture.pixels[..., 0], np.array(frame) / 257, atol=0.51)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_an_animation_is_turned_and_described(kind):
    """Orientation and metadata belong to all frames."""
    frames = drawn(clear=False)
    data = as_bytes(frames, kind, exif=exif_block(6), **EXACT[kind])

    for frame, picture in zip(frames, read_album(NAME, data).pictures, strict=True):
        np.testing.assert_array_equal(np.rot90(np.array(frame), -1), picture.pixels)
        assert parsed_block(picture.metadata.exif)[0][ExifTags.Base.Make] == "Maker"
    assert read_size(NAME, data) == (12, 16)


GREYS = [Image.new("RGB", (9, 9), (level,) * 3) for level in (10, 90, 200)]


@pytest.mark.parametrize(
    ("data", "channels"),
    [
        (as_bytes(GREYS, "GIF"), 1),
        (as_bytes([*GREYS, Image.new("RGB", (9, 9), "red")], "GIF"), 3),
        (as_bytes(GREYS, "PNG", icc_profile=SRGB), 3),
    ],
    ids=["grey", "one is red", "a profile of colours"],
)
def test_grey_frames_stay_grey_until_one_is_coloured(data, channels):
    """All frames are of one kind; a profile of colours says nothing of grey."""
    assert {picture.pixels.shape[2] for picture in read_album(NAME, data).pictures} == {channels}


def test_every_page_of_a_tiff_is_its_own_picture():
    """Pages keep their size, kind, depth and metadata; reduced copies are left out, and told."""
    deep, grey, small, turned = (
        noise(3, np.uint16),
        noise(1, height=9, width=4),
        noise(3, height=2, width=2),
        noise(3, height=3, width=8),
    )
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as writer:
        writer.write(deep, photometric="rgb", iccprofile=SRGB, resolution=(300, 300))
        writer.write(grey[..., 0], photometric="minisblack")
        writer.write(small, photometric="rgb", subfiletype=1)
        writer.write(turned, photometric="rgb", extratags=[(274, 3, 1, 8, True)])
    data = stream.getvalue()

    album = read_album(NAME, data)

    for expected, picture in zip((deep, grey, np.rot90(turned)), album.pictures, strict=True):
        np.testing.assert_array_equal(expected, picture.pixels)
        assert picture.duration is None
    assert [picture.metadata.icc_profile for picture in album.pictures] == [SRGB, None, None]
    assert [picture.metadata.dpi for picture in album.pictures] == [(300, 300), None, None]
    assert album.notes == ("reduced copies of its pages are left out",)
    assert album.loop is None
    header = read_header(NAME, data)
    assert (header.frames, header.bits, header.channels) == (3, 16, 3)


def damaged_frames(kind):
    """Make an animation or pages of which the last is damaged."""
    frames = [as_image(noise(3, seed=seed, height=30, width=30)) for seed in range(4)]
    if kind == "GIF":
        return as_bytes(frames, kind)[:-50]
    options = {"compression": "tiff_adobe_deflate"} if kind == "TIFF" else {}
    data = bytearray(as_bytes(frames, kind, **options))
    where = data.rindex(b"fdAT") if kind == "PNG" else data.rindex(b"\x78\x9c")
    data[where + 200] ^= 0xFF
    return bytes(data)


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        ("GIF", "frame 4 of 4: truncated, its end is missing"),
        ("PNG", "frame 4 of 4: damaged (broken data stream"),
        ("TIFF", "page 4 of 4: damaged ("),
    ],
)
def test_a_damaged_frame_is_named(kind, problem):
    """Which frame or page of how many is damaged is part of the message."""
    assert message_of(NAME, read_album, damaged_frames(kind)).startswith(problem)
