"""Frames and pages: each is what is to be seen."""

import io
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import ExifTags, Image
from reading_files import AVIF, SRGB, as_image, drawn, exif_block, message_of, noise, parsed

from srcli.errors import ImageError
from srcli.imaging.reading import read, read_album, read_header, read_size


def lossless_options(name):
    """What makes an encoder keep every level, if it can."""
    return {
        "webp": {"lossless": True, "exact": True},
        "avif": {"quality": 100, "subsampling": "4:4:4"},
    }.get(name, {})


# ---- frames and pages ---------------------------------------------------------------------


@pytest.mark.parametrize("clear", [False, True], ids=["opaque", "clear"])
@pytest.mark.parametrize("name", ["gif", "png", "webp", pytest.param("avif", marks=AVIF)])
def test_every_frame_is_what_is_to_be_seen(saved, name, clear):
    """All frames arrive composed, of one kind, with the time that each is shown."""
    frames = drawn(clear)
    times = [100, 50, 2000, 230]
    options = {"duration": times, "disposal": 2} if name == "gif" else {"duration": times}
    options |= {"blend": 0, "disposal": 1} if name == "png" else lossless_options(name)
    path = saved(frames[0], f"a.{name}", save_all=True, append_images=frames[1:], **options)

    album = read_album(path)

    assert [picture.duration for picture in album.pictures] == times
    assert album.format == name.upper()
    for frame, picture in zip(frames, album.pictures, strict=True):
        expected = np.array(frame.convert("RGBA")).astype(int)
        seen = expected[..., 3] > 0
        tolerance = 3 if name == "avif" else 2 if name == "gif" else 0
        np.testing.assert_allclose(picture.pixels[seen], expected[seen][:, :3], atol=tolerance)
        if clear:
            np.testing.assert_array_equal(expected[..., 3:], picture.alpha)
        elif name != "webp":  # whose animations always have a channel of opacity
            assert picture.alpha is None
    header = read_header(path)
    assert (header.frames, header.width, header.height) == (4, 16, 12)
    assert (header.channels, header.bits, header.format) == (3, 8, name.upper())
    assert not clear or header.alpha
    np.testing.assert_array_equal(album.pictures[0].pixels, read(path).pixels)


def test_what_frames_of_a_webp_leave_out_is_clear():
    """Though the file does not say that it has transparency, as libwebp writes it then."""
    frames = [Image.new("RGBA", (16, 12)) for _ in "ab"]
    for place, frame in enumerate(frames):
        frame.paste((200, 60, 30, 255), (4 * place, 2, 4 * place + 4, 6))
    stream = io.BytesIO()
    frames[0].save(stream, "WEBP", save_all=True, append_images=frames[1:], lossless=True)

    assert not stream.getvalue()[20] & 0x10
    for picture, frame in zip(
        read_album(Path("a"), stream.getvalue()).pictures, frames, strict=True
    ):
        np.testing.assert_array_equal(picture.alpha[..., 0], np.array(frame)[..., 3])


def test_a_still_picture_has_no_time(saved):
    """One frame is no animation, whatever its file says about time."""
    for name in ("a.gif", "a.webp", "a.png"):
        album = read_album(saved(drawn(clear=False)[0], name, duration=80, loop=3))

        assert (album.pictures[0].duration, album.loop, album.notes) == (None, None, ())


def test_the_stand_in_of_an_animated_png_is_left_out(saved):
    """A picture for programs without animations is no frame; that it is gone is told."""
    frames = drawn(clear=False)
    path = saved(
        frames[0], "a.png", save_all=True, append_images=frames[1:], default_image=True, duration=9
    )

    album = read_album(path)

    assert len(album.pictures) == read_header(path).frames == 3
    assert album.notes == ("the picture that stands in for the animation is left out",)
    np.testing.assert_array_equal(np.array(frames[1]), album.pictures[0].pixels)
    np.testing.assert_array_equal(np.array(frames[1]), read(path).pixels)


def test_an_animation_is_turned_and_described(saved):
    """Orientation and metadata belong to all frames."""
    frames = drawn(clear=False)
    for name in ("a.png", "a.webp"):
        options = {"exif": exif_block(6), **({"lossless": True} if "webp" in name else {})}
        path = saved(frames[0], name, save_all=True, append_images=frames[1:], **options)

        for frame, picture in zip(frames, read_album(path).pictures, strict=True):
            np.testing.assert_array_equal(np.rot90(np.array(frame), -1), picture.pixels)
            assert parsed(picture.metadata.exif)[0][ExifTags.Base.Make] == "Maker"
        assert read_size(path) == (12, 16)


def test_grey_frames_stay_grey_until_one_is_coloured(saved):
    """All frames are of one kind: grey if all are, RGB if any is."""
    grey = [Image.new("RGB", (9, 9), (level,) * 3) for level in (10, 90, 200)]
    for frames, channels in ((grey, 1), ([*grey, Image.new("RGB", (9, 9), "red")], 3)):
        path = saved(frames[0], "a.gif", save_all=True, append_images=frames[1:])

        kinds = {picture.pixels.shape[2] for picture in read_album(path).pictures}

        assert kinds == {channels}


def test_grey_frames_with_a_profile_of_colours_stay_rgb():
    """The profile says nothing of grey."""
    stream = io.BytesIO()
    frames = [Image.new("RGB", (9, 9), (level,) * 3) for level in (10, 90)]
    frames[0].save(stream, "PNG", save_all=True, append_images=frames[1:], icc_profile=SRGB)

    first = read_album(Path("a"), stream.getvalue()).pictures[0]
    assert (first.pixels.shape, first.metadata.icc_profile) == ((9, 9, 3), SRGB)


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

    album = read_album(Path("a.tiff"), data)

    for expected, picture in zip((deep, grey, np.rot90(turned)), album.pictures, strict=True):
        np.testing.assert_array_equal(expected, picture.pixels)
        assert picture.duration is None
    assert [picture.metadata.icc_profile for picture in album.pictures] == [SRGB, None, None]
    assert [picture.metadata.dpi for picture in album.pictures] == [(300, 300), None, None]
    assert album.notes == ("reduced copies of its pages are left out",)
    assert album.loop is None
    header = read_header(Path("a.tiff"), data)
    assert (header.frames, header.bits, header.channels) == (3, 16, 3)


@pytest.mark.parametrize("name", ["gif", "png"])
def test_a_damaged_frame_is_named(saved, name):
    """Which frame of how many is damaged is part of the message."""
    frames = [as_image(noise(3, seed=seed, height=30, width=30)) for seed in range(4)]
    path = saved(frames[0], f"a.{name}", save_all=True, append_images=frames[1:])
    data = bytearray(path.read_bytes())
    if name == "png":
        data[data.rindex(b"fdAT") + 200] ^= 0xFF
        damage = "broken data stream when reading image file"
        expected = f"frame 4 of 4 is damaged ({damage}); fetch the file again"
    else:
        del data[-50:]
        expected = "frame 4 of 4 is truncated, its end is missing; fetch the file again"
    path.write_bytes(data)

    assert message_of(path, read_album) == expected


def test_a_damaged_page_is_named():
    """Of a TIFF it is the page."""
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as writer:
        for seed in range(3):
            levels = noise(3, np.uint16, seed=seed, height=30, width=30)
            writer.write(levels, photometric="rgb", compression="zlib", metadata=None)
    stream.seek(0)
    with tifffile.TiffFile(stream) as file:
        middle = file.pages[1].dataoffsets[0] + 900
    data = bytearray(stream.getvalue())
    data[middle] ^= 0xFF

    with pytest.raises(ImageError, match=r"^a: page 2 of 3 is damaged \(.*\); fetch the file"):
        read_album(Path("a"), bytes(data))
