"""Huge pictures by bands of rows: which files can be read so, and the bands.

PNG, TIFF and JPEG by libvips, whose decoders go from top to bottom; PPM has nothing to decode.
"""

import os
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import IO, Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray
from PIL import ImageFile, PpmImagePlugin

from srcli.imaging.deep import TiffPages, ppm_levels, vips_bands
from srcli.imaging.pictures import Coding, Levels, Metadata

__all__ = ["Bands", "PngBones", "Scan", "bands_of", "png_bones"]

Bands = Callable[[BinaryIO], Iterator[Levels]]
"""Decodes an open file from top to bottom: ``hxWxC`` of a few rows each."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scan:
    """A picture that is read a few rows at a time."""

    width: int
    """Pixels across."""

    height: int
    """Pixels down."""

    channels: int
    """1 for grey, 3 for RGB; it has no transparency."""

    dtype: type[np.uint8] | type[np.uint16]
    """Of its levels."""

    metadata: Metadata
    """What travels with the pixels."""

    coding: Coding
    """How it was stored."""

    format: str
    """Pillow's name of the format, ``JPEG`` for the several pictures of a phone."""

    rows: Iterator[Levels]
    """Bands from top to bottom, ``hxWxC``, each once: they come as the file is decoded.

    It raises :class:`srcli.errors.ImageError` where the file turns out to be damaged."""


_ROWS: Final = 128
"""Rows of a band: whole blocks of a JPEG, and few enough to be nothing beside a picture."""

_STEP: Final = 16
"""How many rows of a PNG or JPEG libvips decodes together, and forgets the rest of."""

_BAND_BYTES: Final = 1 << 22
"""Most bytes of a band, where its rows are so long that fewer have to do."""

_MOST_STEP: Final = 1 << 25
"""Most bytes of a strip, or of a row of tiles, of a compressed TIFF: bands are made of them."""

_MOST_PACKED: Final = 1 << 23
"""Most bytes of a compressed strip or tile: libtiff refuses or holds what is larger."""


def bands_of(image: ImageFile.ImageFile, bits: int) -> Bands | None:
    """Tell how a picture is decoded by bands, to the same levels as Pillow decodes it whole.

    Args:
        image: As Pillow opened it, upright, of one picture without transparency; not loaded.
        bits: Of its levels, 8 or 16.

    Returns:
        What decodes the file; None where its pixels are of a kind that cannot be read so.
    """
    channels = _CHANNELS.get(image.mode, 0)
    shape = (image.height, image.width, channels)
    if not channels:
        return None
    rows = max(1, min(_ROWS, _BAND_BYTES // (image.width * channels * bits // 8)))
    if isinstance(image, TiffPages):
        return _tiff_bands(image, shape, rows, bits)
    if isinstance(image, PpmImagePlugin.PpmImageFile):
        return _ppm_bands_of(image, shape, rows, bits)
    loader = {"PNG": "pngload", "JPEG": "jpegload", "MPO": "jpegload"}.get(str(image.format))
    if loader is None:
        return None
    rows = max(_STEP, rows // _STEP * _STEP)
    return partial(vips_bands, loader, shape=shape, bits=bits, rows=rows)


_CHANNELS: Final = {"L": 1, "I": 1, "I;16": 1, "I;16B": 1, "I;16L": 1, "I;16N": 1, "RGB": 3}
"""Pillow's modes without transparency whose levels need no conversion."""

# ---- TIFF ---------------------------------------------------------------------------------

_COMPRESSION, _PHOTOMETRIC, _FILL_ORDER, _STRIP_ROWS = 259, 262, 266, 278
_TILE_WIDTH, _TILE_ROWS = 322, 323

_UNPACKED: Final = 1
_JPEG: Final = 7

_SAME_PACKINGS: Final = {_UNPACKED, 5, _JPEG, 8, 32773, 32946}
"""None, LZW, JPEG, Deflate, PackBits, and Deflate by its old number."""

_YCBCR: Final = 6
"""A photometric interpretation, which JPEG undoes."""


def _tiff_bands(
    image: TiffPages, shape: tuple[int, int, int], rows: int, bits: int
) -> Bands | None:
    if image.refusal is not None or not _is_plain_tiff(image, shape[2], bits):
        return None
    tags, parts = image.tag_v2, [*image.parts()]
    tiled, packing = _TILE_WIDTH in tags, tags.get(_COMPRESSION, _UNPACKED)
    step = tags.get(_TILE_ROWS if tiled else _STRIP_ROWS, image.height)
    if not isinstance(step, int) or step < 1:
        return None
    if packing == _UNPACKED and not tiled:
        stored = np.dtype(f"{'<' if tags.prefix == b'II' else '>'}u{bits // 8}")
        layout = _Strips(parts=parts, rows=min(step, image.height), shape=shape, dtype=stored)
        return partial(_raw_bands, layout=layout, rows=rows) if layout.are_whole else None
    sizes = [count for _, count in parts]
    pixel = shape[2] * bits // 8
    if packing == _UNPACKED:  # what is missing of a tile libtiff takes for black
        sound = min(sizes, default=0) >= step * int(tags.get(_TILE_WIDTH, 0)) * pixel
    else:
        sound = max(sizes, default=0) <= _MOST_PACKED
    if not tiled and step > _ROWS:
        step = _STEP  # libvips decodes such strips row by row
    if not sound or step * image.width * pixel > _MOST_STEP:
        return None
    # What is left of a strip or tile after a band would be forgotten.
    rows = max(1, rows // step) * step
    return partial(vips_bands, "tiffload", shape=shape, bits=bits, rows=rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Strips:
    """Where the levels of a TIFF stand that are not compressed."""

    parts: list[tuple[int, int]]
    """The place and the length of every strip."""

    rows: int
    """Of a strip, but perhaps the last."""

    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    """As they are stored."""

    @property
    def row_bytes(self) -> int:
        return self.shape[1] * self.shape[2] * self.dtype.itemsize

    @property
    def are_whole(self) -> bool:
        """Whether there are as many as there should be, and none is too short."""
        tops = range(0, self.shape[0], self.rows)
        return len(tops) == len(self.parts) and all(
            count >= min(self.rows, self.shape[0] - top) * self.row_bytes
            for top, (_, count) in zip(tops, self.parts, strict=True)
        )

    def places(self, top: int, end: int) -> Iterator[tuple[int, int]]:
        """List where rows are, and how many bytes."""
        while top < end:
            number, row = divmod(top, self.rows)
            count = min(end - top, self.rows - row)
            yield self.parts[number][0] + row * self.row_bytes, count * self.row_bytes
            top += count


def _raw_bands(stream: BinaryIO, *, layout: _Strips, rows: int) -> Iterator[Levels]:
    height, width, channels = layout.shape
    for top in range(0, height, rows):
        end = min(top + rows, height)
        pieces = [_read_at(stream, *place) for place in layout.places(top, end)]
        yield _native(b"".join(pieces), layout.dtype).reshape(end - top, width, channels)


def _native(data: bytes, stored: np.dtype[Any]) -> NDArray[Any]:
    """Copy levels, in the machine's order of bytes."""
    return np.frombuffer(data, stored).astype(stored.newbyteorder("="))


def _read_at(stream: BinaryIO, start: int, count: int) -> bytes:
    stream.seek(start)
    data = stream.read(count)
    if len(data) < count:
        raise EOFError("unexpected end of file")
    return data


def _is_plain_tiff(image: TiffPages, channels: int, bits: int) -> bool:
    """Whether a page is stored in a way in which libvips and Pillow find the same levels."""
    tags = image.tag_v2
    packing = tags.get(_COMPRESSION, _UNPACKED)
    means = {1} if channels == 1 else ({2, _YCBCR} if packing == _JPEG else {2})
    return (
        packing in _SAME_PACKINGS
        and tags.get(_PHOTOMETRIC) in means
        and tags.get(_FILL_ORDER, 1) == 1
        and image.is_unsigned(samples=channels, depth=bits)
        and not image.is_separate
    )


# ---- PPM ----------------------------------------------------------------------------------


def _ppm_bands_of(
    image: PpmImagePlugin.PpmImageFile, shape: tuple[int, int, int], rows: int, bits: int
) -> Bands | None:
    """See that levels stand there as bytes; of grey that is scaled Pillow has its own rounding."""
    tile = image.tile[0]
    top = tile.args[-1] if isinstance(tile.args, tuple) else 65535 if bits == 16 else 255
    deep_colour = shape[2] == 3 and isinstance(top, int) and top > 255
    if tile.codec_name != "raw" and not (tile.codec_name == "ppm" and deep_colour):
        return None
    return partial(_ppm_bands, start=tile.offset, shape=shape, rows=rows, top=top)


def _ppm_bands(
    stream: BinaryIO, *, start: int, shape: tuple[int, int, int], rows: int, top: int
) -> Iterator[Levels]:
    height, width, channels = shape
    stream.seek(start)
    for row in range(0, height, rows):
        size = (width, min(rows, height - row))
        data = stream.read(size[0] * size[1] * channels * (1 if top <= 255 else 2))
        yield ppm_levels(data, size, top, channels=channels, plain=False)


# ---- PNG ----------------------------------------------------------------------------------

_PIECE: Final = 1 << 20
"""Bytes of a chunk that are looked at together."""

_PIXEL_CHUNKS: Final = {b"IHDR", b"IDAT", b"PLTE", b"tRNS"}
"""The chunks that decide what the pixels are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PngBones:
    """A PNG without its compressed pixels."""

    data: bytes
    """Its signature and its other chunks, as far as they are whole."""

    sound: bool
    """Whether the checksums of what makes its pixels are right, as far as it is whole."""

    runs: int
    """How many times its pixels begin: 1, or chunks that are no pixels lie between them."""

    ended: bool
    """Whether it has its last chunk."""

    @property
    def kind(self) -> tuple[int, int, int]:
        """Bits a sample, the colour type, and whether it is interlaced; zeros without a header."""
        header = self.data[16:29]
        return (header[8], header[9], header[12]) if len(header) == 13 else (0, 0, 0)


def png_bones(stream: IO[bytes], *, checked: bool = True) -> PngBones:
    """Go through a PNG, a piece at a time, and keep what is not compressed pixels.

    Args:
        stream: A PNG, or the beginning of one, seekable; its position stays.
        checked: Whether to read the pixels, for the sake of their checksums.

    Returns:
        All that it says besides its pixels, and whether these are as they were written.
    """
    position = stream.tell()
    end = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    kept, sound, runs, before = [stream.read(8)], True, 0, b""
    try:
        while before != b"IEND" and len(head := stream.read(8)) == 8:
            length, name = struct.unpack(">I4s", head)
            if stream.tell() + length + 4 > end:
                break
            runs += name == b"IDAT" != before
            before = name
            if name in {b"IDAT", b"fdAT"}:
                told = checked and name == b"IDAT"
                sound = (not told or _is_sound(stream, name, length)) and sound
                stream.seek(0 if told else length + 4, os.SEEK_CUR)
                continue
            kept += (head, stream.read(length + 4))
            right = zlib.crc32(kept[-1][:-4], zlib.crc32(name)) == int.from_bytes(kept[-1][-4:])
            sound = sound and (right or name not in _PIXEL_CHUNKS)
    finally:
        stream.seek(position)
    return PngBones(data=b"".join(kept), sound=sound, runs=runs, ended=before == b"IEND")


def _is_sound(stream: IO[bytes], name: bytes, length: int) -> bool:
    """Read a chunk to its end and compare its checksum."""
    checksum = zlib.crc32(name)
    while length:
        piece = stream.read(min(length, _PIECE))
        if not piece:
            return True  # cut off meanwhile: not for a checksum to say
        checksum = zlib.crc32(piece, checksum)
        length -= len(piece)
    return checksum == int.from_bytes(stream.read(4))
