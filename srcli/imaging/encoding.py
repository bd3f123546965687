"""Pictures into the bytes of a format that can hold them."""

import re
import struct
from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO
from typing import Any, BinaryIO, Final

from PIL import Image

from srcli.imaging.bands import Rows
from srcli.imaging.directories import Exif, exif_block
from srcli.imaging.fitting import eight_bits, interleaved
from srcli.imaging.formats import FORMATS
from srcli.imaging.gif import write_gif
from srcli.imaging.jpeg import write_jpeg_rows
from srcli.imaging.pictures import Picture
from srcli.imaging.png import write_png, write_png_rows
from srcli.imaging.tags import (
    IPTC_RESOURCE,
    dpi_of,
    exif_for,
    profile_for,
    resolution_tags,
    xmp_for,
)
from srcli.imaging.tiff import write_tiff, write_tiff_rows
from srcli.imaging.webp import write_webp

__all__ = ["encode", "encode_rows", "image_of", "streams", "too_long"]

_JPEG_LIMITS: Final = {"exif": 65533, "xmp": 65502, "iptc": 65506, "comment": 65533}
"""What one segment of a JPEG holds; of XMP and IPTC less, by the names that come before them."""

_XMP_PADDING: Final = re.compile(rb"\s{64,}(?=<\?xpacket end)")
"""Room that programs leave to change a packet in its place."""

_PILLOW_PIXELS: Final = 1 << 26
"""Up to this size Pillow encodes JPEG, from the whole picture. Above it libvips does, row by row,
into the same bytes; it takes 0.1 s and 40 MB to load."""

_BLOCK_BYTES: Final = 1 << 20

_PAGE_MILLISECONDS: Final = 1000.0
"""How long a page is shown where it becomes a frame."""


def encode(
    pictures: Sequence[Picture],
    stream: BinaryIO,
    name: str,
    *,
    loop: int | None,
    quality: int,
    lossless: bool,
) -> None:
    """Encode pictures that a format can hold.

    Args:
        pictures: At least one; no more than the format holds, nor deeper, nor transparent
            where it knows no transparency.
        stream: An empty file that can be sought.
        name: Pillow's name of the format.
        loop: How often an animation plays, 0 for ever; None: once.
        quality: 0 to 100 for the lossy formats.
        lossless: Whether to encode WebP without loss, and AVIF at its best.

    Raises:
        OSError: What the file system says.
        Exception: What an encoder raises.
    """
    match name:
        case "PNG":
            write_png(_timed(pictures), stream, loop=loop)
        case "GIF":
            write_gif(_timed(pictures), stream, loop=loop)
        case "TIFF":
            write_tiff(pictures, stream)
        case _:
            _write_by_pillow(pictures, stream, name, loop, quality, lossless=lossless)


def streams(name: str, width: int, height: int) -> bool:
    """Whether a still of this size is written as its rows come, by :func:`encode_rows`."""
    return FORMATS[name].rows and (name != "JPEG" or width * height > _PILLOW_PIXELS)


def encode_rows(rows: Rows, stream: BinaryIO, name: str, *, quality: int) -> None:
    """Encode a still as its rows come; a few megabytes of them are held.

    Args:
        rows: What the format can hold: not deeper, nor transparent where it knows no opacity.
        stream: An empty file that can be sought.
        name: Pillow's name of a format that :func:`streams` says yes to.
        quality: 0 to 100 for JPEG.

    Raises:
        OSError: What the file system says.
        Exception: What an encoder raises.
        BaseException: What the rows raise.
    """
    match name:
        case "PNG":
            write_png_rows(rows, stream)
        case "TIFF":
            write_tiff_rows(rows, stream)
        case "JPEG":
            write_jpeg_rows(rows, stream, _jpeg_head(rows.like, quality), quality=quality)
        case _:
            _write_ppm_rows(rows, stream)


def _jpeg_head(picture: Picture, quality: int) -> bytes:
    """Let Pillow encode one pixel, for all that it writes before the picture."""
    encoded = BytesIO()
    image = image_of(replace(picture, pixels=picture.pixels[:1, :1].copy()))
    options = _codec_options("JPEG", image.mode, quality=quality, lossless=False)
    options |= _metadata_options(picture, "JPEG", image.mode)
    image.save(encoded, format="JPEG", **options)
    return encoded.getvalue()


def _timed(pictures: Sequence[Picture]) -> list[Picture]:
    """Give pages that become frames a time to be seen."""
    if len(pictures) == 1:
        return list(pictures)
    return [
        replace(each, duration=_PAGE_MILLISECONDS) if each.duration is None else each
        for each in pictures
    ]


def _write_ppm_rows(rows: Rows, stream: BinaryIO) -> None:
    """Write PPM or PGM, which store the higher byte of 16 bits first."""
    magic, top = 5 if rows.channels == 1 else 6, 256**rows.itemsize - 1
    stream.write(b"P%d\n%d %d\n%d\n" % (magic, rows.width, rows.height, top))
    blocks = rows.blocks(max(1, _BLOCK_BYTES // rows.row_bytes))
    stream.writelines(levels.astype(f">u{rows.itemsize}", copy=False).data for levels in blocks)


def image_of(picture: Picture) -> Image.Image:
    """Hand levels to Pillow: ``I;16`` for grey of 16 bits alone, else rounded to 8 bits."""
    if picture.alpha is None and picture.pixels.shape[2] == 1:
        return Image.fromarray(picture.pixels[..., 0])
    levels = interleaved(eight_bits(picture))
    return Image.fromarray(levels)


# ---- Pillow's encoders --------------------------------------------------------------------


def _write_by_pillow(
    pictures: Sequence[Picture],
    stream: BinaryIO,
    name: str,
    loop: int | None,
    quality: int,
    *,
    lossless: bool,
) -> None:
    images = [_widened(image_of(picture), name) for picture in pictures]
    options = _codec_options(name, images[0].mode, quality=quality, lossless=lossless)
    options |= _metadata_options(pictures[0], name, images[0].mode)
    if len(images) == 1:
        images[0].save(stream, format=name, **options)
        return
    durations = [each.duration or 0 for each in _timed(pictures)]
    if name == "WEBP":
        write_webp(images, durations, stream, loop=loop, options=options)
        return
    encoded = BytesIO()
    options |= {"save_all": True, "append_images": images[1:], "duration": _whole(durations)}
    images[0].save(encoded, format=name, **options)
    stream.write(_undated(encoded.getvalue()))


def _whole(durations: Sequence[float]) -> list[int]:
    return [round(duration) for duration in durations]


_WIDENED: Final = {("WEBP", "L"): "RGB", ("WEBP", "LA"): "RGBA", ("AVIF", "LA"): "RGBA"}
"""Where a format lacks a mode of ours, the one that holds it."""


def _widened(image: Image.Image, name: str) -> Image.Image:
    wider = _WIDENED.get((name, image.mode))
    return image if wider is None else image.convert(wider)


def _codec_options(name: str, mode: str, *, quality: int, lossless: bool) -> dict[str, Any]:
    match name:
        case "JPEG":
            # Optimised tables save 2 %, but Pillow's buffer for them is too small for noise.
            return {"quality": quality, "subsampling": 0}
        case "WEBP":
            return {"quality": quality, "lossless": lossless, "exact": True, "method": 4}
        case "AVIF":
            colour = {} if mode == "L" else {"subsampling": "4:4:4"}
            # A photo of 3 megapixels takes 0.6 s; at speed 6 it is 1.6 s for 8 % fewer bytes.
            return {"quality": 100 if lossless else quality, "speed": 8, **colour}
        case _:
            return {}


def _metadata_options(picture: Picture, name: str, mode: str) -> dict[str, Any]:
    metadata = picture.metadata
    profile = profile_for(metadata.icc_profile, 1 if mode in {"L", "LA"} else 3)
    match name:
        case "JPEG":
            blocks = _jpeg_blocks(picture)
            kept = {key: blocks[key] for key in blocks.keys() - too_long(picture)}
            extra = _photoshop_segment(kept.pop("iptc", None))
            found = {**kept, "extra": extra, "icc_profile": profile, "dpi": _dpi_option(picture)}
        case "WEBP" | "AVIF":
            exif = _exif_with_resolution(picture)
            found = {"icc_profile": profile, "exif": exif, "xmp": xmp_for(picture)}
        case "BMP":
            found = {"dpi": _dpi_option(picture)}
        case _:
            found = {}
    return {key: value for key, value in found.items() if value}


def _dpi_option(picture: Picture) -> tuple[float, ...] | None:
    dpi = dpi_of(picture.metadata.dpi)
    # JPEG's numbers are whole and of 16 bits.
    return None if dpi is None else tuple(min(side, 65535.0) for side in dpi)


def _jpeg_blocks(picture: Picture) -> dict[str, bytes | None]:
    """Make what a JPEG holds in one segment each."""
    exif, packet = exif_for(picture), xmp_for(picture)
    if packet is not None and len(packet) > _JPEG_LIMITS["xmp"]:
        packet = _XMP_PADDING.sub(b"\n", packet)
    block = None if exif is None else exif_block(exif)
    metadata = picture.metadata
    return {"exif": block, "xmp": packet, "iptc": metadata.iptc, "comment": metadata.comment}


def _photoshop_segment(iptc: bytes | None) -> bytes:
    """Wrap IPTC records as Photoshop does (File Formats Specification, Image Resources)."""
    if not iptc:
        return b""
    head = struct.pack(">4sH2xI", b"8BIM", IPTC_RESOURCE, len(iptc))
    content = b"Photoshop 3.0\0" + head + iptc + b"\0" * (len(iptc) % 2)
    return b"\xff\xed" + struct.pack(">H", 2 + len(content)) + content


def too_long(picture: Picture) -> frozenset[str]:
    """Name the fields of a picture's metadata that are too long for a JPEG."""
    blocks = _jpeg_blocks(picture).items()
    return frozenset(key for key, block in blocks if len(block or b"") > _JPEG_LIMITS[key])


def _exif_with_resolution(picture: Picture) -> bytes | None:
    """Make EXIF that states the resolution, where the format has no other place for it."""
    exif, dpi = exif_for(picture), dpi_of(picture.metadata.dpi)
    if dpi is not None:
        exif = exif or Exif(order="<", main={})
        exif = replace(exif, main=exif.main | resolution_tags(dpi, exif.order))
    return None if exif is None else exif_block(exif)


_BOXES: Final = {b"moov", b"trak", b"mdia"}
"""Boxes of ISO/IEC 14496-12 that hold others."""

_DATED: Final = {b"mvhd", b"tkhd", b"mdhd"}
"""Boxes that begin with the times at which they were made and changed."""


def _undated(data: bytes) -> bytes:
    """Take the time out of an AVIF sequence, so that the same frames give the same bytes."""
    changed, start = bytearray(data), 0
    while start + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, start)
        if kind in _DATED:
            times = 16 if data[start + 8] else 8  # version 1 has 64 bits each
            changed[start + 12 : start + 12 + times] = bytes(times)
        start += 8 if kind in _BOXES else max(size, 8)
    return bytes(changed)
