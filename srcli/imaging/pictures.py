"""What travels through srcli: decoded pictures, and what their files said about them.

Plain arrays: no codec, no torch.
"""

from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

Levels = NDArray[np.uint8] | NDArray[np.uint16]
"""Integer levels, ``HxWxC``: 0 is black or clear, the dtype's largest value white or opaque."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metadata:
    """What a file says about its picture besides the pixels."""

    icc_profile: bytes | None = None
    """The colour profile of the pixels, or ``None``."""

    exif: bytes | None = None
    """The EXIF block as it stood in the file, beginning with ``Exif\\0\\0``, or ``None``.

    Nothing in it is changed by reading; writing changes its orientation and sizes in place."""

    xmp: bytes | None = None
    """The XMP packet as it stood, a JPEG's extension put back into it; or ``None``."""

    iptc: bytes | None = None
    """The records of IPTC-IIM, where press photographers put captions; or ``None``."""

    dpi: tuple[float, float] | None = None
    """Pixels per inch across and down, or ``None``."""

    text: tuple[tuple[str, str], ...] = ()
    """Keywords and texts as PNG has them, in the order of the file."""

    comment: bytes | None = None
    """The comment of a JPEG or GIF, or ``None``."""

    colour_chunks: tuple[tuple[bytes, bytes], ...] = ()
    """Names and contents of the chunks that say in a PNG what its colours are (``cICP``, ``gAMA``,
    ``cHRM``, ...), with them ``iCCP`` and the profile that stood beside them; ``icc_profile`` says
    the same for other formats."""

    orientation: int = 1
    """The EXIF orientation (1 to 8) by which the pixels were turned to stand upright."""

    modified: int | None = None
    """When the file was changed, nanoseconds since 1970, where its copy is to keep that."""

    size: tuple[int, int] | None = None
    """Width and height, upright, of the picture that EXIF and XMP speak of, so that their numbers
    of pixels can follow a new size; ``None`` where it is not known."""


# Not compared by value: arrays have no single truth value.
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Picture:
    """A decoded image, upright."""

    pixels: Levels
    """``HxWx1`` (grey) or ``HxWx3`` (RGB), ``uint8`` or ``uint16``, C-contiguous, writable."""

    alpha: Levels | None = None
    """Opacity, ``HxWx1`` of the dtype of the pixels, not multiplied into them; or ``None``."""

    metadata: Metadata = field(default_factory=Metadata)
    """What travels with the pixels."""

    duration: float | None = None
    """Milliseconds that a frame of an animation is shown; ``None`` in anything else."""

    @property
    def height(self) -> int:
        """Rows, in pixels."""
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        """Columns, in pixels."""
        return int(self.pixels.shape[1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Coding:
    """How a file's encoder stored its first picture."""

    format: str
    """Pillow's name of the format, ``JPEG`` for the several pictures of a phone."""

    quality: int | None = None
    """1 to 100, of a JPEG on libjpeg's scale; None where it is not known."""

    lossless: bool = False
    """Whether it is a WebP that left nothing out."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Album:
    """All that an image file holds: one picture, the frames of an animation, or pages."""

    pictures: tuple[Picture, ...]
    """At least one. Frames are composed: each is what is to be seen, of one size and kind."""

    format: str | None = None
    """Pillow's name of the format that it was read from, such as ``JPEG``; of one that is not
    written ``JPEG`` too."""

    coding: Coding | None = None
    """How it was stored in the file that it was read from."""

    loop: int | None = None
    """How often an animation plays, 0 for ever; ``None`` where the file does not say."""

    notes: tuple[str, ...] = ()
    """What reading had to change, such as a conversion from CMYK: one line each, no file name."""


def upright(
    pixels: NDArray[Any], alpha: NDArray[Any] | None, orientation: int
) -> tuple[Levels, Levels | None]:
    """Turn pixels and opacity upright, as an EXIF orientation says how they are stored."""
    found, *opacity = (
        np.ascontiguousarray(turned(each, orientation))
        for each in (pixels, alpha)
        if each is not None
    )
    return found, opacity[0] if opacity else None


def turned(stored: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Return a view of an array with the side up that an orientation, 1 to 8, says."""
    if orientation >= 5:
        stored = stored.transpose(1, 0, 2)
    down = -1 if orientation in {3, 4, 7, 8} else 1
    across = -1 if orientation in {2, 3, 6, 7} else 1
    return stored[::down, ::across]


def upright_size(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    """Return width and height once a picture is turned upright."""
    return size[::-1] if orientation >= 5 else size


def turned_point(x: float, y: float, orientation: int) -> tuple[float, float]:
    """Find where a point of a stored picture comes to lie upright, in parts of its sides."""
    x, y = (y, x) if orientation >= 5 else (x, y)
    return 1 - x if orientation in {2, 3, 6, 7} else x, 1 - y if orientation in {3, 4, 7, 8} else y


def rounded(levels: Levels) -> NDArray[np.uint8]:
    """Round to the nearest of 256 levels; 65535 = 255 * 257."""
    if levels.dtype == np.uint8:
        return levels.astype(np.uint8, copy=False)
    return ((levels.astype(np.uint32) + 128) // 257).astype(np.uint8)


def eight_bits(picture: Picture) -> Picture:
    """Round a picture to 8 bits a channel."""
    alpha = None if picture.alpha is None else rounded(picture.alpha)
    return replace(picture, pixels=rounded(picture.pixels), alpha=alpha)


def over_white(picture: Picture) -> Picture:
    """Lay a picture over white paper: what it looks like where nothing is behind it."""
    if picture.alpha is None:
        return picture
    white = np.iinfo(picture.pixels.dtype).max
    opacity = picture.alpha.astype(np.uint32)
    # At most 65535 * 65535 + 32767, which 32 bits hold.
    mixed = (picture.pixels * opacity + white * (white - opacity) + white // 2) // white
    pixels = cast("Levels", mixed.astype(picture.pixels.dtype))
    return replace(picture, pixels=pixels, alpha=None)


def interleaved(picture: Picture) -> Levels:
    """Put the opacity behind the other channels: ``HxWx1`` to ``HxWx4``, C-contiguous."""
    if picture.alpha is None:
        return cast("Levels", np.ascontiguousarray(picture.pixels))
    return cast("Levels", np.concatenate([picture.pixels, picture.alpha], axis=2))


def of_one_kind(pictures: list[Picture]) -> list[Picture]:
    """Give all frames an opacity if one has it, and RGB if one is coloured; else make them grey."""
    clear = any(picture.alpha is not None for picture in pictures)
    profile = pictures[0].metadata.icc_profile or b""  # one of RGB says nothing of grey
    coloured = b"RGB " in profile[:20] or any(
        bool((each.pixels[..., :1] != each.pixels[..., 1:]).any()) for each in pictures
    )
    found = []
    for picture in pictures:
        pixels, alpha = picture.pixels, picture.alpha
        if clear and alpha is None:
            alpha = np.full_like(pixels[..., :1], np.iinfo(pixels.dtype).max)
        if coloured != (pixels.shape[2] == 3):
            pixels = cast("Levels", np.repeat(pixels[..., :1], 3 if coloured else 1, axis=2))
        found.append(replace(picture, pixels=pixels, alpha=alpha))
    return found
