"""Animations taken apart and put together."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from srcli.imaging.animations import (
    Animation,
    Disposal,
    Frame,
    bare_png,
    compose,
    gif_animation,
    png_animation,
    png_husk,
)


def frame(corner, size, disposal=Disposal.KEEP, **more):
    """Describe a frame whose data does not matter."""
    return Frame(data=b"", corner=corner, size=size, duration=10, disposal=disposal, **more)


def patch(size, colour, opacity=None, dtype=np.uint8):
    """Fill a frame with one colour."""
    pixels = np.full((size[1], size[0], 3), colour, dtype)
    alpha = None if opacity is None else np.full((size[1], size[0], 1), opacity, dtype)
    return pixels, alpha


def shown(size, *frames):
    """Compose frames of one colour; each is a frame, a colour and an opacity."""
    patches = ((one, *patch(one.size, colour, opacity)) for one, colour, opacity in frames)
    return [np.dstack(both).tolist() for both in compose(size, patches)]


RED, BLUE, NOTHING = [255, 0, 0, 255], [0, 0, 255, 255], [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("disposal", "behind"),
    [(Disposal.KEEP, BLUE), (Disposal.CLEAR, NOTHING), (Disposal.RESTORE, RED)],
)
def test_a_frame_leaves_behind_what_it_says(disposal, behind):
    """The area of the second frame is, under the third, its own, clear, or the first one's."""
    pictures = shown(
        (3, 1),
        (frame((0, 0), (3, 1)), (255, 0, 0), None),
        (frame((1, 0), (1, 1), disposal), (0, 0, 255), None),
        (frame((0, 0), (1, 1)), (0, 0, 255), None),
    )

    assert pictures == [[[RED, RED, RED]], [[RED, BLUE, RED]], [[BLUE, behind, RED]]]


def test_the_first_frame_has_nothing_to_restore():
    """The canvas begins clear, and that is what restoring gives."""
    pictures = shown(
        (2, 1),
        (frame((0, 0), (1, 1), Disposal.RESTORE), (255, 0, 0), None),
        (frame((1, 0), (1, 1)), (0, 0, 255), None),
    )

    assert pictures == [[[RED, NOTHING]], [[NOTHING, BLUE]]]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_half_transparent_frames_are_mixed(dtype):
    """Over a colour they are mixed with it; over nothing they are what they were."""
    top = np.iinfo(dtype).max
    under = np.zeros((1, 2, 3), dtype), np.array([[[top], [0]]], dtype)
    above = np.full((1, 2, 3), top, dtype), np.full((1, 2, 1), top // 3, dtype)
    base = frame((0, 0), (2, 1))

    *_, (pixels, alpha) = compose((2, 1), [(base, *under), (base, *above)])

    assert pixels[0, :, 0].tolist() == [top // 3, top]
    assert alpha[0, :, 0].tolist() == [top, top // 3]
    assert pixels.dtype == alpha.dtype == dtype


def test_a_frame_that_is_not_blended_replaces():
    """Its transparency is put in the place of what was there."""
    pictures = shown(
        (1, 1),
        (frame((0, 0), (1, 1)), (255, 0, 0), None),
        (frame((0, 0), (1, 1), blended=False), (0, 0, 255), 0),
    )

    assert pictures[1] == [[[0, 0, 255, 0]]]


def test_clear_pixels_of_a_blended_frame_show_what_is_there():
    """Nothing laid over a colour is the colour, whatever the levels of the clear pixels are."""
    pictures = shown(
        (1, 1),
        (frame((0, 0), (1, 1)), (255, 0, 0), None),
        (frame((0, 0), (1, 1)), (0, 0, 255), 0),
    )

    assert pictures[1] == [[RED]]


def test_what_lies_outside_of_the_canvas_is_cut_off():
    """GIF allows frames larger than the screen."""
    pictures = shown((2, 1), (frame((1, 0), (4, 3)), (255, 0, 0), None))

    assert pictures == [[[NOTHING, RED]]]


def gif(*blocks, screen=(4, 3)):
    """Assemble a GIF with a palette of two colours."""
    head = struct.pack("<6sHHBBB", b"GIF89a", *screen, 0x80, 0, 0)
    return head + bytes([9, 9, 9, 250, 0, 0]) + b"".join(blocks) + b";"


def gif_image(corner, size):
    """Encode a block of zeros through Pillow and cut it out of its file."""
    stream = io.BytesIO()
    Image.new("P", size).save(stream, "GIF")
    data = stream.getvalue()
    start = data.index(b",\0\0\0\0")
    body = data[start + 10 : -1]
    own = data[start + 9]
    assert not own & 0x80
    return struct.pack("<BHHHHB", 0x2C, *corner, *size, own) + body


def control(flags, hundredths, index=0):
    """Make the block that stands before an image."""
    return struct.pack("<BBBBHBB", 0x21, 0xF9, 4, flags, hundredths, index, 0)


def test_a_gif_is_taken_apart():
    """Places, times, disposals and the loop are those of its blocks; its frames are GIFs."""
    again = b"!\xff\x0bNETSCAPE2.0\3\1\4\0\0"
    data = gif(
        again,
        control(0, 7),
        gif_image((0, 0), (4, 3)),
        b"!\xfe\5hello\0",
        control(2 << 2 | 1, 0, 1),
        gif_image((1, 2), (3, 1)),
        control(3 << 2, 300),
        gif_image((2, 0), (1, 1)),
        gif_image((0, 0), (1, 1)),
    )

    animation = gif_animation(data)

    assert (animation.size, animation.loop, animation.announced) == ((4, 3), 5, 4)
    assert [one.corner for one in animation.frames] == [(0, 0), (1, 2), (2, 0), (0, 0)]
    assert [one.duration for one in animation.frames] == [70, 0, 3000, 0]
    kinds = [Disposal.KEEP, Disposal.CLEAR, Disposal.RESTORE, Disposal.KEEP]
    assert [one.disposal for one in animation.frames] == kinds
    assert [one.clear for one in animation.frames] == [False, True, False, False]
    for one in animation.frames:
        with Image.open(io.BytesIO(one.data)) as image:
            assert image.size == one.size
            image.load()


def test_stray_bytes_between_the_blocks_of_a_gif_are_passed():
    """Programs in the wild leave some; the trailer may be missing as well."""
    image = gif_image((0, 0), (4, 3))

    assert len(gif_animation(gif(image, b"\0\0", image)).frames) == 2
    assert gif_animation(gif(image, image)[:-1]).announced == 2


def test_a_gif_without_a_screen_is_as_large_as_its_frames():
    """Zero sides are what some encoders leave behind."""
    data = gif(gif_image((0, 0), (4, 3)), gif_image((1, 1), (5, 1)), screen=(0, 0))

    assert gif_animation(data).size == (6, 3)


@pytest.mark.parametrize("missing", [2, 5, 9, 13, 15, 20])
def test_a_cut_gif_announces_more_than_it_has(missing):
    """The last frame is not sound, or one more is announced than there are."""
    image = gif_image((0, 0), (4, 3))
    data = gif(image, control(0, 5), image)[:-missing]

    animation = gif_animation(data)

    sound = [one for one in animation.frames if one.sound]
    assert len(sound) == 1
    assert animation.announced == 2


def chunk(name, content):
    """Encode a chunk of a PNG."""
    checksum = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)


def place(number, size, corner=(0, 0), *, delay=(1, 10), disposal=0, blend=0):
    """Encode the chunk that stands before a frame."""
    content = struct.pack(">IIIIIHHBB", number, *size, *corner, *delay, disposal, blend)
    return chunk(b"fcTL", content)


def apng(*chunks, frames=2, plays=0, size=(2, 1)):
    """Assemble an animated PNG of grey."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, 8, 0, 0, 0, 0))
    control_chunk = chunk(b"acTL", struct.pack(">II", frames, plays))
    return b"\x89PNG\r\n\x1a\n" + header + control_chunk + b"".join(chunks) + chunk(b"IEND", b"")


FIRST = chunk(b"IDAT", zlib.compress(b"\0\1\2"))
SECOND = chunk(b"fdAT", b"\0\0\0\2" + zlib.compress(b"\0\7"))


def test_an_animated_png_is_taken_apart():
    """Places, times, disposals and the loop are those of its chunks; its frames are PNGs."""
    data = apng(
        place(0, (2, 1)),
        FIRST,
        place(1, (1, 1), (1, 0), delay=(3, 0), disposal=2, blend=1),
        SECOND,
        plays=6,
    )

    animation = png_animation(data)

    assert (animation.size, animation.loop, animation.announced) == ((2, 1), 6, 2)
    assert not animation.still
    first, second = animation.frames
    assert (first.corner, first.size, first.duration) == ((0, 0), (2, 1), 100)
    assert (second.corner, second.size, second.duration) == ((1, 0), (1, 1), 30)
    assert (first.blended, second.blended) == (False, True)
    assert (first.disposal, second.disposal) == (Disposal.KEEP, Disposal.RESTORE)
    levels = [np.array(Image.open(io.BytesIO(one.data))).tolist() for one in animation.frames]
    assert levels == [[[1, 2]], [[7]]]


def test_a_picture_before_the_first_frame_is_a_stand_in():
    """It is not one of the frames."""
    animation = png_animation(apng(FIRST, place(0, (1, 1)), SECOND, frames=1))

    assert animation.still
    assert len(animation.frames) == 1


def test_broken_checksums_of_a_frame_are_noticed():
    """A decoder of the frame alone could not see them any more."""
    broken = bytearray(SECOND)
    broken[-1] ^= 1
    data = apng(place(0, (2, 1)), FIRST, place(1, (1, 1)), bytes(broken))

    assert [one.sound for one in png_animation(data).frames] == [True, False]


def test_frames_outside_of_the_picture_are_damage():
    """The format forbids them."""
    data = apng(place(0, (2, 1)), FIRST, place(1, (1, 1), (2, 0)), SECOND)

    with pytest.raises(ValueError, match="a frame lies outside the picture"):
        png_animation(data)


def test_a_bare_png_has_the_pixels_alone():
    """Text and animation are gone, the pixels are the same."""
    text = chunk(b"tEXt", b"Title\0hello")
    data = apng(text, place(0, (2, 1)), FIRST, place(1, (1, 1)), SECOND)

    bare = bare_png(data)

    assert b"hello" not in bare
    assert b"fcTL" not in bare
    assert np.array(Image.open(io.BytesIO(bare))).tolist() == [[1, 2]]


def test_a_husk_has_all_but_the_pixels():
    """Metadata from before and behind the pixels is there, and one pixel."""
    text, late = chunk(b"tEXt", b"Title\0hello"), chunk(b"tEXt", b"Author\0me")
    data = apng(text, place(0, (2, 1)), FIRST, place(1, (1, 1)), SECOND, late)

    with Image.open(io.BytesIO(png_husk(data))) as image:
        assert image.size == (1, 1)
        assert image.text == {"Title": "hello", "Author": "me"}
        assert not image.is_animated


@pytest.mark.parametrize(
    ("frames", "clear"),
    [
        ((), False),
        ((frame((0, 0), (2, 2)), frame((1, 1), (1, 1), Disposal.CLEAR)), False),
        ((frame((0, 0), (2, 2), Disposal.CLEAR), frame((1, 1), (1, 1))), True),
        ((frame((0, 0), (1, 2)),), True),
        ((frame((0, 0), (2, 2), clear=True),), True),
    ],
    ids=["none", "last clears", "first clears", "bare", "said so"],
)
def test_an_animation_knows_whether_it_may_be_clear(frames, clear):
    """So do bare areas, cleared ones, and frames that say so."""
    animation = Animation(size=(2, 2), frames=frames, announced=len(frames), loop=None)

    assert animation.clear is clear
