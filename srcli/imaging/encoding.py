"""Pictures into the bytes of a format that can hold them, by Pillow."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from srcli.imaging.embedding import Embedded
from srcli.imaging.pictures import Picture, eight_bits, interleaved, rounded

_PAGE_MILLISECONDS: Final = 1000.0
"""How long a page is shown where it becomes a frame."""

_LONGEST: Final = {"PNG": 65_535_000, "WEBP": 0xFFFFFF, "GIF": 655_350, "AVIF": 2**31 - 1}
"""Milliseconds that a frame may be shown."""

_WEBP_FLAGS, _WEBP_ALPHA = 20, 0x10
"""Where a WebP says what it holds, and what says that it has transparency (RFC 9649, 2.7)."""

_TIMES: Final = re.compile(rb"(?s)(?:mvhd|tkhd|mdhd)(?:\x00.{11}|\x01.{19})")
"""When a sequence and its parts were made and changed, of 32 or 64 bits (ISO/IEC 14496-12)."""

MOST_COLOURS: Final = 256
"""How many colours a frame of a GIF holds, the one that stands for clear included."""


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
        options: dict[str, dict[str, Any]] = {
            "JPEG": {"quality": self.quality, "subsampling": 0},
            "WEBP": {
                "quality": self.quality,
                "lossless": self.lossless,
                "exact": True,
                "method": 4,
            },
            "AVIF": {"quality": best, "speed": 8, **colour},
        }
        return options.get(self.format, {})


def encode(
    pictures: Sequence[Picture], stream: BinaryIO, how: Encoding, metadata: Embedded
) -> None:
    """Encode a picture, or several of one size and kind as an animation, into an empty file."""
    name = how.format
    if name == "GIF":
        images = _palette_images(pictures)
    else:
        images = [image_of(eight_bits(picture)) for picture in pictures]
        wider = _WIDENED.get((name, images[0].mode))
        images = [image.convert(wider) if wider else image for image in images]
    options = how.options(images[0].mode) | metadata.pillow_options(name)
    if len(images) == 1:
        images[0].save(stream, format=name, **options)
        return
    options |= {"save_all": True, "append_images": images[1:], **_timing(pictures, how)}
    encoded = BytesIO()
    images[0].save(encoded, format=name, **options)
    data = encoded.getvalue()
    if name == "AVIF":  # without the times, so that the same frames give the same bytes
        data = _TIMES.sub(lambda found: found[0][:8].ljust(len(found[0]), b"\0"), data)
    elif name == "WEBP" and images[0].mode == "RGBA" and data[12:16] == b"VP8X":
        # libwebp does not say so where clear pixels are left out of every frame.
        data = (
            data[:_WEBP_FLAGS] + bytes([data[_WEBP_FLAGS] | _WEBP_ALPHA]) + data[_WEBP_FLAGS + 1 :]
        )
    stream.write(data)


def _timing(pictures: Sequence[Picture], how: Encoding) -> dict[str, Any]:
    name, plays = how.format, 1 if how.loop is None else how.loop
    times = [_PAGE_MILLISECONDS if each.duration is None else each.duration for each in pictures]
    durations: list[float] = [min(max(each, 0), _LONGEST[name]) for each in times]
    if name == "PNG":
        return {"duration": durations, "loop": min(plays, 2**31 - 1), "disposal": 0, "blend": 0}
    if name != "GIF":
        return {"duration": list(map(round, durations)), "loop": min(plays, 65535)}
    through = any(clear_of(picture).any() for picture in pictures)
    # The shortest time but none is a hundredth of a second.
    hundredths = [10 * max(round(each / 10), each > 0) for each in durations]
    _limit(hundredths, pictures, _LONGEST[name])
    # Without a loop it plays once; the number in it is that of the repetitions.
    loop = {} if plays == 1 else {"loop": min(max(plays - 1, 0), 65535)}
    return {"duration": hundredths, "disposal": 2 if through else 1, "optimize": False, **loop}


def _limit(durations: list[int], pictures: Sequence[Picture], most: int) -> None:
    """Shorten the times of equal neighbours, which become one frame, to what that can be shown."""
    total = 0
    for number, picture in enumerate(pictures):
        before = pictures[max(number - 1, 0)]
        same = np.array_equal(picture.pixels, before.pixels)
        total = total + durations[number] if same else durations[number]
        durations[number] -= max(total - most, 0)
        total = min(total, most)


def image_of(picture: Picture) -> Image.Image:
    """Hand levels to Pillow: ``I;16`` for grey of 16 bits alone, else rounded to 8 bits."""
    if picture.alpha is None and picture.pixels.shape[2] == 1:
        return Image.fromarray(picture.pixels[..., 0])
    return Image.fromarray(interleaved(eight_bits(picture)))


_WIDENED: Final = {("WEBP", "L"): "RGB", ("WEBP", "LA"): "RGBA", ("AVIF", "LA"): "RGBA"}
"""Where a format lacks a mode of ours, the one that holds it."""


# ---- GIF ----------------------------------------------------------------------------------


def clear_of(picture: Picture) -> NDArray[np.bool_]:
    """Tell which pixels a GIF shows as clear, ``HxW``: those less than half opaque."""
    if picture.alpha is None:
        return np.zeros(picture.pixels.shape[:2], np.bool_)
    return picture.alpha[..., 0] < np.iinfo(picture.alpha.dtype).max / 2


def _palette_images(pictures: Sequence[Picture]) -> list[Image.Image]:
    """Reduce frames to palettes of their own.

    A pixel that is the same as in the frame before is left out, whatever the palette of the
    next frame would have made of it: what does not move does not flicker. Where clear pixels
    let through what is below, each frame is taken away before the next one.
    """
    clears = [clear_of(picture) for picture in pictures]
    through = any(clear.any() for clear in clears)
    before: NDArray[np.uint8] | None = None
    parts = []
    for picture, clear in zip(pictures, clears, strict=True):
        colours = np.broadcast_to(rounded(picture.pixels), (*clear.shape, 3))
        shown = ~clear
        if before is not None and not through:
            shown = np.any(colours != before, axis=2)
        most = MOST_COLOURS - (through or len(pictures) > 1)
        parts.append((shown, *_reduced(colours[shown], most)))
        before = colours
    used = {bytes(colour) for _, _, palette in parts for colour in palette}
    # Pillow compares frames by colour: what stands for clear must be none that is shown.
    unused = next(c for c in (i.to_bytes(3, "big") for i in range(1 << 24)) if c not in used)
    return [_palette_image(*part, clear=unused) for part in parts]


def _palette_image(
    shown: NDArray[np.bool_],
    indices: NDArray[np.uint8],
    palette: NDArray[np.uint8],
    *,
    clear: bytes,
) -> Image.Image:
    keeps_clear = not shown.all()
    plane = np.full(shown.shape, min(len(palette), MOST_COLOURS - 1), np.uint8)
    plane[shown] = indices
    image = Image.fromarray(plane, "P")
    image.putpalette(palette.tobytes() + clear * (len(palette) < MOST_COLOURS))
    if keeps_clear:
        image.info["transparency"] = len(palette)
    return image


def _reduced(colours: NDArray[np.uint8], most: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Choose a palette for pixels, ``Nx3``, and give their indices and it; exact if it can be."""
    if not len(colours):
        return np.zeros(0, np.uint8), np.zeros((0, 3), np.uint8)
    image = Image.fromarray(colours.reshape(1, -1, 3))
    if image.getcolors(most) is None:
        reduced = image.quantize(most)
        palette = np.array(reduced.getpalette(), np.uint8).reshape(-1, 3)
        return np.asarray(reduced).reshape(-1), palette[:most]
    packed = colours.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    found, indices = np.unique(packed, return_inverse=True)
    palette = np.stack([found >> 16, found >> 8 & 255, found & 255], axis=1).astype(np.uint8)
    return indices.astype(np.uint8), palette
