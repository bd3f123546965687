"""Animations taken apart and put together: GIF and APNG, byte by byte, without a codec.

Each frame becomes a file of one image of its own, so that whatever decodes still pictures
decodes frames too, 16 bits included; what is to be seen is composed here. Pillow composes as
well, but mixes half-transparent frames of APNG wrongly, clears areas of a GIF to a background
colour that no browser shows, and knows colour of 8 bits alone.
"""

import io
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from srcli.imaging.pictures import Levels

__all__ = [
    "Animation",
    "Disposal",
    "Frame",
    "bare_png",
    "compose",
    "gif_animation",
    "png_animation",
    "png_husk",
]


class Disposal(Enum):
    """What becomes of a frame's area when its time is over."""

    KEEP = "keep"
    """It stays."""

    CLEAR = "clear"
    """It becomes transparent."""

    RESTORE = "restore"
    """It becomes what it was before the frame."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """What a frame changes on the canvas, still encoded."""

    data: bytes
    """A GIF or PNG of this image alone."""

    corner: tuple[int, int]
    """Its place on the canvas: pixels from the left and from the top."""

    size: tuple[int, int]
    """Width and height in pixels."""

    duration: float
    """Milliseconds that it is shown."""

    disposal: Disposal
    """What its area is afterwards."""

    blended: bool = True
    """Whether it is laid over what is there; else it replaces that, with its transparency."""

    clear: bool = False
    """Whether the file says that some of its pixels are transparent."""

    sound: bool = True
    """Whether its data is whole (GIF), and its checksums are right (PNG)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Animation:
    """An animation taken apart."""

    size: tuple[int, int]
    """Width and height of the canvas in pixels."""

    frames: tuple[Frame, ...]
    """In the order of the file; none where the file holds no animation."""

    announced: int
    """How many frames there should be; more than there are where the file is cut off."""

    loop: int | None
    """How often it plays, 0 for ever; ``None`` where the file does not say."""

    still: bool = False
    """Whether the file holds one more picture, for programs that know no animations."""

    ended: bool = True
    """Whether a GIF ends with the byte that says so."""

    @property
    def clear(self) -> bool:
        """Whether some of what is to be seen may be transparent."""
        if not self.frames:
            return False
        first = self.frames[0]
        bare = (*first.corner, *first.size) != (0, 0, *self.size)
        cleared = any(frame.disposal is not Disposal.KEEP for frame in self.frames[:-1])
        return bare or cleared or any(frame.clear for frame in self.frames)


def compose(
    size: tuple[int, int],
    frames: Iterable[tuple[Frame, Levels, Levels | None]],
) -> Iterator[tuple[Levels, Levels]]:
    """Lay decoded frames on a canvas, one after the other, and tell what is to be seen.

    By the rules of APNG (https://www.w3.org/TR/png-3/#apng-frame-based-animation), whose
    disposals are those of GIF89a as well; the canvas begins transparent, as in browsers.

    Args:
        size: Width and height of the canvas in pixels. What lies outside is cut off.
        frames: Each with its pixels, ``HxWx1`` or ``HxWx3``, and its opacity, ``HxWx1`` or
            ``None``; all of one dtype.

    Yields:
        The canvas with a frame on it: RGB, ``HxWx3``, and its opacity, ``HxWx1``.
    """
    canvas: NDArray[Any] | None = None
    for number, (frame, pixels, alpha) in enumerate(frames):
        patch = _rgba(pixels, alpha)
        if canvas is None:
            canvas = np.zeros((size[1], size[0], 4), patch.dtype)
        left, top = frame.corner
        area = canvas[top : top + patch.shape[0], left : left + patch.shape[1]]
        patch = patch[: area.shape[0], : area.shape[1]]
        before = area.copy()
        area[...] = _over(patch, area) if frame.blended else patch
        yield np.ascontiguousarray(canvas[..., :3]), np.ascontiguousarray(canvas[..., 3:])
        if frame.disposal is Disposal.CLEAR or (frame.disposal is Disposal.RESTORE and number == 0):
            area[...] = 0
        elif frame.disposal is Disposal.RESTORE:
            area[...] = before


def _rgba(pixels: Levels, alpha: Levels | None) -> NDArray[Any]:
    height, width, _ = pixels.shape
    patch = np.full((height, width, 4), np.iinfo(pixels.dtype).max, pixels.dtype)
    patch[..., :3] = pixels
    if alpha is not None:
        patch[..., 3:] = alpha
    return patch


def _over(above: NDArray[Any], below: NDArray[Any]) -> NDArray[Any]:
    """Lay one picture over another; neither has its opacity multiplied in."""
    top = np.iinfo(above.dtype).max
    opacity = above[..., 3:]
    mixed = np.where(opacity > 0, above, below)
    half = ((opacity > 0) & (opacity < top))[..., 0]
    if half.any():
        share = above[half][:, 3:] / top
        rest = below[half][:, 3:] / top * (1 - share)
        colour = (above[half][:, :3] * share + below[half][:, :3] * rest) / (share + rest)
        mixed[half] = np.rint(np.hstack([colour, (share + rest) * top]))
    return mixed


# ---- GIF ----------------------------------------------------------------------------------

_GIF_DISPOSALS: Final = {2: Disposal.CLEAR, 3: Disposal.RESTORE}
"""The disposal methods of GIF89a's graphic control extension; the others keep."""


@dataclass(slots=True)
class _GifState:
    """What the blocks before an image say about it."""

    loop: int | None = None
    control: bytes = b"\0\0\0\0"
    frames: list[Frame] = field(default_factory=list)


def gif_animation(data: bytes) -> Animation:
    """Take a GIF apart (https://www.w3.org/Graphics/GIF/spec-gif89a.txt).

    The loop extension of Netscape counts how often it plays again after the first time.

    Args:
        data: A GIF, or the beginning of one.

    Returns:
        Its frames. Where the file is cut off inside a block, one frame more is announced, or
        the last frame is cut; between two blocks nobody can tell, but then it has not ended.

    Raises:
        EOFError: If it ends before its first block.
    """
    stream, state = io.BytesIO(data), _GifState()
    head = _exactly(stream, 13)
    width, height, flags = struct.unpack("<HHB", head[6:11])
    palette = _exactly(stream, _table_bytes(flags))
    missing, kind = 0, b""
    try:
        while (kind := stream.read(1)) not in {b"", b";"}:
            if kind == b"!":
                _read_extension(stream, state)
            elif kind == b",":
                _read_gif_frame(stream, state, flags, palette)
    except EOFError:
        missing = 1
    sides = ([frame.corner[axis] + frame.size[axis] for frame in state.frames] for axis in (0, 1))
    across, down = (max(ends, default=0) for ends in sides)
    return Animation(
        # A screen without pixels is as large as its frames.
        size=(width or across, height or down),
        frames=tuple(state.frames),
        announced=len(state.frames) + missing,
        loop=state.loop,
        ended=kind == b";",
    )


def _exactly(stream: io.BytesIO, count: int) -> bytes:
    found = stream.read(count)
    if len(found) < count:
        raise EOFError("unexpected end of file")
    return found


def _table_bytes(flags: int) -> int:
    """Count the bytes of the colour table that a block's flags announce."""
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _sub_blocks(stream: io.BytesIO) -> Iterator[bytes]:
    while length := _exactly(stream, 1)[0]:
        yield _exactly(stream, length)


def _read_extension(stream: io.BytesIO, state: _GifState) -> None:
    label = _exactly(stream, 1)
    blocks = list(_sub_blocks(stream))
    if label == b"\xf9" and blocks and len(blocks[0]) >= 4:
        state.control = blocks[0][:4]
    looping = len(blocks) > 1 and blocks[0] in {b"NETSCAPE2.0", b"ANIMEXTS1.0"}
    if label == b"\xff" and looping and len(blocks[1]) >= 3 and blocks[1][0] == 1:
        again = int.from_bytes(blocks[1][1:3], "little")
        state.loop = again + 1 if again else 0


def _read_gif_frame(stream: io.BytesIO, state: _GifState, flags: int, palette: bytes) -> None:
    place = _exactly(stream, 9)
    left, top, width, height, own = struct.unpack("<HHHHB", place)
    start = stream.tell()
    sound = True
    try:
        _exactly(stream, _table_bytes(own) + 1)
        for _ in _sub_blocks(stream):
            pass
    except EOFError:
        sound = False
    control, state.control = state.control, b"\0\0\0\0"
    body = stream.getvalue()[start : stream.tell()]
    screen = struct.pack("<6sHHBBB", b"GIF89a", width, height, flags, 0, 0)
    index = struct.pack("<BBBBHBB", 0x21, 0xF9, 4, control[0] & 1, 0, control[3], 0)
    image = struct.pack("<BHHHHB", 0x2C, 0, 0, width, height, own)
    frame = Frame(
        data=screen + palette + index + image + body + b";",
        corner=(left, top),
        size=(width, height),
        duration=10.0 * int.from_bytes(control[1:3], "little"),
        disposal=_GIF_DISPOSALS.get(control[0] >> 2 & 7, Disposal.KEEP),
        clear=bool(control[0] & 1),
        sound=sound,
    )
    state.frames.append(frame)


# ---- PNG ----------------------------------------------------------------------------------

_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"

_ANIMATION_CHUNKS: Final = {b"acTL", b"fcTL", b"fdAT"}

_COLOUR_CHUNKS: Final = {b"PLTE", b"tRNS"}
"""The chunks besides the pixels that decide what these are."""

_PIXEL_CHUNKS: Final = {b"IHDR", b"IDAT", b"IEND"} | _COLOUR_CHUNKS
"""What a still picture consists of."""

_PNG_DISPOSALS: Final = (Disposal.KEEP, Disposal.CLEAR, Disposal.RESTORE)


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes, bool]]:
    """List a PNG's chunks to its end or as far as they are whole: name, content, soundness."""
    position = len(_SIGNATURE)
    name = b""
    while name != b"IEND" and position + 12 <= len(data):
        length, name = struct.unpack_from(">I4s", data, position)
        end = position + 8 + length
        if end + 4 > len(data):
            return
        content = data[position + 8 : end]
        (checksum,) = struct.unpack_from(">I", data, end)
        yield name, content, checksum == zlib.crc32(data[position + 4 : end])
        position = end + 4


def _chunk(name: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)


def bare_png(data: bytes) -> bytes:
    """Reduce a PNG to its still pixels: no metadata, no animation, no limits on their number.

    Args:
        data: A PNG. Damage of the chunks that stay is kept, so that its decoder sees it.

    Returns:
        A PNG of the same pixels.
    """
    position, parts = len(_SIGNATURE), [_SIGNATURE]
    while position + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, position)
        if name in _PIXEL_CHUNKS:
            parts.append(data[position : position + length + 12])
        position += length + 12
        if name == b"IEND":
            break
    return b"".join(parts)


def png_husk(data: bytes) -> bytes:
    """Replace a PNG's pixels by a single one, so that metadata can be read without decoding.

    Args:
        data: A PNG.

    Returns:
        A grey PNG of 1x1 pixels with all the chunks that describe the picture.
    """
    dropped = _PIXEL_CHUNKS | _ANIMATION_CHUNKS
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
    kept = [
        _chunk(name, text) for name, text, sound in _chunks(data) if sound and name not in dropped
    ]
    pixels = _chunk(b"IDAT", zlib.compress(b"\0\0"))
    return b"".join([_SIGNATURE, header, *kept, pixels, _chunk(b"IEND", b"")])


@dataclass(slots=True)
class _PngParts:
    """What is gathered while a PNG's chunks pass by."""

    announced: int = 0
    loop: int | None = None
    colours: list[bytes] = field(default_factory=list)
    still: bool = False
    control: bytes | None = None
    pixels: list[bytes] = field(default_factory=list)
    sound: bool = True


def png_animation(data: bytes) -> Animation:
    """Take an animated PNG apart (https://www.w3.org/TR/png-3/#animation-information).

    Args:
        data: A PNG, or the beginning of one.

    Returns:
        Its frames; none where it is a still picture.

    Raises:
        ValueError: If it does not begin as a PNG does, or a frame is not as it has to be.
        struct.error: If a chunk of the animation is too short.
    """
    parts, frames, header = _PngParts(), [], b""
    for name, content, sound in _chunks(data):
        if name == b"IHDR":
            header = content
        elif name in _COLOUR_CHUNKS:
            parts.colours.append(_chunk(name, content))
        elif name == b"acTL" and not parts.announced:
            parts.announced, parts.loop = struct.unpack(">II", content)
        elif name in {b"fcTL", b"IEND"}:
            frames += _finished(header, parts)
            parts.control, parts.sound = (content if name == b"fcTL" else None), sound
        elif name == b"IDAT" and parts.control is None:
            parts.still = True
        elif name in {b"IDAT", b"fdAT"}:
            parts.pixels.append(content if name == b"IDAT" else content[4:])
            parts.sound &= sound
    frames += _finished(header, parts)
    width, height = struct.unpack_from(">II", header)
    return Animation(
        size=(width, height),
        frames=tuple(frames[: parts.announced]),
        announced=parts.announced,
        loop=parts.loop,
        still=parts.still,
    )


def _finished(header: bytes, parts: _PngParts) -> list[Frame]:
    """Make a frame of what was gathered since its control chunk, if anything was."""
    if parts.control is None or not parts.pixels:
        return []
    _, width, height, left, top, over, under, disposal, blend = struct.unpack(
        ">IIIIIHHBB", parts.control
    )
    across, down = struct.unpack_from(">II", header)
    if not (0 < width <= across - left and 0 < height <= down - top) or disposal > 2:
        raise ValueError("a frame lies outside the picture")
    content = struct.pack(">II", width, height) + header[8:]
    pixels = [_chunk(b"IDAT", b"".join(parts.pixels)), _chunk(b"IEND", b"")]
    data = b"".join([_SIGNATURE, _chunk(b"IHDR", content), *parts.colours, *pixels])
    parts.pixels = []
    frame = Frame(
        data=data,
        corner=(left, top),
        size=(width, height),
        duration=1000 * over / (under or 100),
        disposal=_PNG_DISPOSALS[disposal],
        blended=blend == 1,
        clear=header[9] in {4, 6} or any(chunk[4:8] == b"tRNS" for chunk in parts.colours),
        sound=parts.sound,
    )
    return [frame]
