"""GIF files out: pictures of up to 256 colours, and animations of them.

Graphics Interchange Format, Version 89a (CompuServe, 1990), and the loops of Netscape 2.0.
Pillow's writer takes opaque black for clear where it compares frames, so the blocks are set
here; the colours are chosen and the indices compressed by Pillow.
"""

import struct
from collections.abc import Iterator, Sequence
from typing import BinaryIO, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from srcli.imaging.fitting import changed_part, rounded
from srcli.imaging.pictures import Picture

__all__ = ["MOST_COLOURS", "clear_of", "write_gif"]

MOST_COLOURS: Final = 256
"""How many colours a frame holds, the one that stands for clear included."""

_LEAVE: Final = 1
_CLEAR_AGAIN: Final = 2
"""What becomes of a frame when the next one is shown: section 23 of the standard."""

_Bytes = NDArray[np.uint8]
_Mask = NDArray[np.bool_]

_BLACK: Final = np.array([[0, 0, 0]], np.uint8)


def write_gif(pictures: Sequence[Picture], stream: BinaryIO, *, loop: int | None = None) -> None:
    """Write a picture as a GIF, or several as an animated one.

    A pixel that is the same as in the frame before keeps its colour, whatever the palette of
    the next frame would have made of it: what does not move does not flicker.

    Args:
        pictures: At least one; frames of one size. The comment is the first's.
        stream: Where to.
        loop: How often an animation plays, 0 for ever; None: once.

    Raises:
        OSError: What the file system says.
    """
    first = pictures[0]
    head = struct.pack("<6sHHBBB", b"GIF89a", first.width, first.height, 0, 0, 0)
    stream.write(head)
    # Without the block it plays once; the number in it is that of the repetitions.
    if len(pictures) > 1 and loop is not None and loop != 1:
        times = min(max(loop - 1, 0), 65535)
        stream.write(b"!\xff\x0bNETSCAPE2.0" + _blocks(b"\1" + struct.pack("<H", times)))
    if first.metadata.comment:
        stream.write(b"!\xfe" + _blocks(first.metadata.comment))
    stream.writelines(_frames(pictures))
    stream.write(b";")


def clear_of(picture: Picture) -> _Mask:
    """Tell which pixels a GIF shows as clear, ``HxW``: those less than half opaque."""
    if picture.alpha is None:
        return np.zeros(picture.pixels.shape[:2], np.bool_)
    return picture.alpha[..., 0] < np.iinfo(picture.alpha.dtype).max / 2


def _frames(pictures: Sequence[Picture]) -> Iterator[bytes]:
    clears = [clear_of(picture) for picture in pictures]
    # What a clear pixel lies on shows through, unless the frame below is taken away.
    through = len(pictures) > 1 and any(clear.any() for clear in clears)
    before: _Bytes | None = None
    for picture, clear in zip(pictures, clears, strict=True):
        colours: _Bytes = np.broadcast_to(rounded(picture.pixels), (*clear.shape, 3))
        shown = ~clear
        if before is not None and not through:
            shown = np.any(colours != before, axis=2)
        yield _frame(picture.duration, colours, shown, through=through, first=before is None)
        before = colours


def _frame(
    duration: float | None, colours: _Bytes, shown: _Mask, *, through: bool, first: bool
) -> bytes:
    """Encode a frame: its times, its place, its palette and its indices."""
    # The first frame covers all: some programs take its size for that of the picture.
    rows, columns = changed_part(shown | first)
    colours, shown = colours[rows, columns], shown[rows, columns]
    # A reader that finds no clear colour may take a frame away by painting it over.
    keeps_clear = through or not shown.all()
    indices, palette = _reduced(colours[shown], MOST_COLOURS - keeps_clear)
    clear = len(palette) if keeps_clear else 0
    plane = np.full(shown.shape, clear, np.uint8)
    plane[shown] = indices
    bits = max(1, (len(palette) + keeps_clear - 1).bit_length())
    table = palette.tobytes().ljust(3 << bits, b"\0")
    delay = 0 if not duration else min(max(round(duration / 10), 1), 65535)
    flags = (_CLEAR_AGAIN if through else _LEAVE) << 2 | keeps_clear
    control = struct.pack("<BBHBB", 4, flags, delay, clear, 0)
    sides = (columns.stop - columns.start, rows.stop - rows.start)
    packed = Image.fromarray(plane).tobytes("gif", "L", 8, 0)
    where = struct.pack("<BHHHHB", 0x2C, columns.start, rows.start, *sides, 0x80 | (bits - 1))
    return b"!\xf9" + control + where + table + b"\x08" + packed + b"\0"


def _reduced(colours: _Bytes, most: int) -> tuple[_Bytes, _Bytes]:
    """Choose a palette for pixels, ``Nx3``, and give their indices and it; exact if it can be."""
    if not len(colours):
        return np.zeros(0, np.uint8), _BLACK
    image = Image.fromarray(colours.reshape(1, -1, 3))
    if image.getcolors(most) is None:
        reduced = image.quantize(most)
        palette = np.array(reduced.getpalette(), np.uint8).reshape(-1, 3)
        return np.asarray(reduced).reshape(-1), palette[:most]
    packed = colours.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    found, indices = np.unique(packed, return_inverse=True)
    palette = np.stack([found >> 16, found >> 8 & 255, found & 255], axis=1).astype(np.uint8)
    return indices.astype(np.uint8), palette


def _blocks(data: bytes) -> bytes:
    """Cut data into the blocks of up to 255 bytes that GIF is made of."""
    cut = (data[start : start + 255] for start in range(0, len(data), 255))
    return b"".join(bytes((len(each),)) + each for each in cut) + b"\0"
