"""Pictures into the bytes of a format that can hold them, by Pillow; GIF by libvips."""

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, JpegImagePlugin

from srcli.errors import ImageError
from srcli.imaging.decoding import vips
from srcli.imaging.embedding import pillow_options
from srcli.imaging.formats import FORMATS
from srcli.imaging.headers import clear_webp, palette_bytes
from srcli.imaging.pictures import Metadata, Picture, eight_bits, interleaved, rounded

_PAGE_MILLISECONDS: Final = 1000.0
"""How long a page is shown where it becomes a frame."""

_LONGEST: Final = {"PNG": 65_535_000, "WEBP": 0xFFFFFF, "GIF": 655_350, "AVIF": 2**31 - 1}
"""Milliseconds that a frame may be shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding:
    """What a file is to be."""

    format: str
    """Pillow's name of the format."""

    quality: int = 95
    """0 to 100, for the lossy formats."""

    lossless: bool = False
    """Whether to encode WebP without loss, and AVIF at its best."""

    loop: int | None = None
    """How often an animation plays, 0 for ever; None: once."""

    def options(self, mode: str) -> dict[str, Any]:
        """Make Pillow's options for the pixels of a mode."""
        # Optimised tables of JPEG save 2 %, but Pillow's buffer for them is too small for noise.
        # A photo of 3 megapixels takes 0.6 s as AVIF; at speed 6 it is 1.6 s for 8 % fewer bytes.
        best = 100 if self.lossless else self.quality
        colour = {} if mode == "L" else {"subsampling": "4:4:4"}
        webp = {"quality": self.quality, "lossless": self.lossless, "exact": True, "method": 4}
        options: dict[str, dict[str, Any]] = {
            "JPEG": {"quality": self.quality, "subsampling": 0},
            "WEBP": webp,
            "AVIF": {"quality": best, "speed": 8, **colour},
        }
        return options.get(self.format, {})


def encode(
    pictures: Sequence[Picture], stream: BinaryIO, how: Encoding, metadata: Metadata
) -> None:
    """Encode a picture, or several of one size and kind as an animation, into an empty file."""
    name = how.format
    if name == "GIF":
        stream.write(_gif(pictures, how, metadata))
        return
    images = [image_of(eight_bits(picture)) for picture in pictures]
    options = how.options(images[0].mode) | pillow_options(metadata, name)
    if len(images) == 1:
        images[0].save(stream, format=name, **options)
        return
    options |= {"save_all": True, "append_images": images[1:], **_timing(pictures, how)}
    encoded = BytesIO()
    images[0].save(encoded, format=name, **options)
    data = encoded.getvalue()
    if name == "WEBP" and images[0].has_transparency_data and data[12:16] == b"VP8X":
        # libwebp does not say so where clear pixels are left out of every frame.
        data = clear_webp(data)
    stream.write(data)


def _timing(pictures: Sequence[Picture], how: Encoding) -> dict[str, Any]:
    name, plays = how.format, 1 if how.loop is None else how.loop
    times = [_PAGE_MILLISECONDS if each.duration is None else each.duration for each in pictures]
    durations: list[float] = [min(max(each, 0), _LONGEST[name]) for each in times]
    if name == "GIF":  # the shortest time but none is a hundredth of a second
        durations = [10 * max(round(each / 10), each > 0) for each in durations]
    if name != "PNG":
        durations = list(map(round, durations))
    return {"duration": durations, "loop": min(plays, 65535)}


def image_of(picture: Picture) -> Image.Image:
    """Hand levels to Pillow: ``I;16`` for grey of 16 bits alone, else rounded to 8 bits."""
    if picture.alpha is None and picture.pixels.shape[2] == 1:
        return Image.fromarray(picture.pixels[..., 0])
    return Image.fromarray(interleaved(eight_bits(picture)))


# ---- GIF ----------------------------------------------------------------------------------


def _gif(pictures: Sequence[Picture], how: Encoding, metadata: Metadata) -> bytes:
    """Let libvips choose palettes and write the frames: what does not move does not flicker."""
    frames = []
    for picture in pictures:
        planes = [np.broadcast_to(rounded(picture.pixels), (picture.height, picture.width, 3))]
        if picture.alpha is not None:
            planes.append(np.where(rounded(picture.alpha) < 128, 0, 255).astype(np.uint8))
        frames.append(np.concatenate(planes, axis=2))
    pyvips = vips()
    image = pyvips.Image.new_from_array(np.concatenate(frames)).copy(interpretation="srgb")
    if len(frames) > 1:
        options = _timing(pictures, how)
        whole = pyvips.GValue.gint_type
        image.set_type(whole, "page-height", pictures[0].height)
        image.set_type(whole, "loop", options["loop"])
        image.set_type(pyvips.GValue.array_int_type, "delay", options["duration"])
    data: bytes = image.gifsave_buffer(
        dither=0, effort=5, keep_duplicate_frames=True, interframe_maxerror=0
    )
    # A comment stands behind the header and the palette of all frames (GIF89a, 24).
    start = 13 + palette_bytes(data[10])
    return data[:start] + _extensions(metadata) + data[start:]


def _extensions(metadata: Metadata) -> bytes:
    """Encode the comment and XMP as a GIF has them."""
    comment, packet = metadata.comment or b"", metadata.xmp
    parts = [comment[at : at + 255] for at in range(0, len(comment), 255)]
    blocks = b"".join(bytes([len(part)]) + part for part in parts)
    said = b"!\xfe" + blocks + b"\0" if blocks else b""
    if packet:  # XMP Specification, part 3, 1.1.2
        said += b"!\xff\x0bXMP DataXMP" + packet + b"\1" + bytes(range(255, -1, -1)) + b"\0"
    return said


# ---- a JPEG there and back ---------------------------------------------------------------

_HALF_CHROMA = 2
"""Pillow's number for 4:2:0: chroma of half the resolution down and across."""


def jpeg_roundtrip(
    pixels: NDArray[np.uint8], quality: int, phase: tuple[int, int] = (0, 0)
) -> NDArray[np.uint8]:
    """Encode a picture as baseline JPEG with 4:2:0 chroma and decode it, by Pillow's libjpeg.

    Args:
        pixels: ``(H, W, 3)`` RGB or ``(H, W, 1)`` grey.
        quality: 1..100 on libjpeg's scale.
        phase: Rows and columns, 0..15, between the corner of a 16x16 unit of JPEG's grid and
            that of the picture, which is continued by its edge up to there and cut out again.

    Raises:
        ImageError: If a side is longer than JPEG's 65,500 pixels.
    """
    top, left = phase
    height, width, channels = pixels.shape
    rows = np.arange(-top, height).clip(0)
    columns = np.arange(-left, width).clip(0)
    padded = pixels[rows][:, columns]
    longest = FORMATS["JPEG"].longest or 0
    if max(padded.shape) > longest:
        raise ImageError(
            f"JPEG holds sides of up to {longest:,} pixels, not a picture of "
            f"{width}x{height}: degrade it without jpeg, or leave it out"
        )
    image = Image.fromarray(padded if channels == 3 else padded[..., 0])
    stream = BytesIO()
    image.save(stream, "JPEG", quality=quality, subsampling=_HALF_CHROMA)
    stream.seek(0)
    # Image.open would look for the format and limit the number of pixels.
    decoded = np.array(JpegImagePlugin.JpegImageFile(stream))
    return decoded.reshape(padded.shape)[top:, left:]
