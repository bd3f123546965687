"""What a file's header tells about its encoder: whether it took anything away, and how much."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, BinaryIO, Final

import numpy as np
from PIL import ImageFile, JpegImagePlugin, TiffImagePlugin

from srcli.imaging.pictures import Coding
from srcli.imaging.quantisers import libjpeg_steps

__all__ = ["coding_of", "jpeg_quality"]

_ZIGZAG: Final = sorted(
    range(64), key=lambda i: (i // 8 + i % 8, i // 8 if (i // 8 + i % 8) % 2 else i % 8)
)
"""Where in its block each coefficient of a JPEG file belongs (T.81, figure A.6)."""

_COMPRESSION, _STRIPS, _TILES, _JPEG_TABLES = 259, 273, 324, 347
"""Tags of TIFF (TIFF 6.0, sections 8 and 15; Adobe's Technical Note 2)."""

_JPEG_IN_TIFF: Final = {6, 7}
"""Compressions of TIFF that are JPEG, the old way and the new one."""

_MOST_HEADER: Final = 1 << 16
"""Bytes at the start of an AVIF, or of a strip of a TIFF, in which its header is looked for."""

_MOST_CHUNKS: Final = 64
"""Chunks of a WebP that are looked at; its picture is among the first five."""

_VP8_HEADER: Final = 400
"""Bytes of a VP8 frame that its quantisers lie in, whatever comes before them."""


def coding_of(image: ImageFile.ImageFile, stream: BinaryIO) -> Coding:
    """Tell how an image was encoded, from what its header says; nothing is decoded.

    Args:
        image: As Pillow opened it, at its first frame or page.
        stream: What it was opened from, seekable; its position stays.

    Returns:
        How its first picture was encoded. Where the header is too damaged to tell, a format
        with losses of an unknown quality.
    """
    name = "JPEG" if image.format == "MPO" else str(image.format)
    position = stream.tell()
    try:
        lossy, quality = _losses(image, stream)
    except Exception:  # noqa: BLE001 - damaged headers raise anything, and must not cost the picture
        lossy, quality = True, None
    finally:
        stream.seek(position)
    return Coding(format=name, lossy=lossy, quality=quality)


def jpeg_quality(table: Sequence[int]) -> int | None:
    """Estimate the quality of a JPEG on libjpeg's scale from its quantisation table of luma.

    The answer is the quality whose table, as :func:`libjpeg_steps` has it, is
    nearest: the least sum of squared differences of logarithms, so that 2 for 1 counts as much
    as 20 for 10. For tables of libjpeg, libjpeg-turbo and Pillow
    that is the quality itself, as no two of the hundred are alike; for those of other encoders,
    the one whose steps are as coarse on the whole.

    Args:
        table: 64 steps, row by row.

    Returns:
        1 to 100; None where it is no table: not 64 steps, or one that is not positive.

    Example:
        >>> jpeg_quality([1] * 64), jpeg_quality([8] * 64), jpeg_quality([0] * 64)
        (100, 92, None)
    """
    if len(table) != 64 or min(table) < 1:
        return None
    return _nearest(tuple(table))


@lru_cache(maxsize=256)
def _nearest(table: tuple[int, ...]) -> int:
    # Tables of 16 bits go on where libjpeg, for the sake of old decoders, stops at 255.
    distance = np.square(_LOGARITHMS - np.log(np.minimum(table, 255))).sum(axis=1)
    return int(distance.argmin()) + 1


_LOGARITHMS: Final = np.log(libjpeg_steps(np.arange(1, 101))[0].reshape(64, 100).T)
"""Of the tables of luma of quality 1 to 100, ``100x64``."""


def _losses(image: ImageFile.ImageFile, stream: BinaryIO) -> tuple[bool, int | None]:
    """Whether an encoder left something out, and its quality, if that is known."""
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        # The first component is luma; which table it uses its frame header says.
        return True, jpeg_quality(image.quantization[image.layer[0][3]])
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return _tiff_losses(image, stream)
    if image.format == "WEBP":
        return _webp_losses(stream)
    if image.format == "AVIF":
        return _avif_is_lossy(stream), None
    return False, None


def _tiff_losses(image: TiffImagePlugin.TiffImageFile, stream: BinaryIO) -> tuple[bool, int | None]:
    tags: Any = image.tag_v2
    if tags.get(_COMPRESSION) not in _JPEG_IN_TIFF:
        return False, None
    table = _first_table(bytes(tags.get(_JPEG_TABLES, b"")))
    if not table:  # each strip or tile is a whole JPEG
        starts = tags.get(_STRIPS) or tags.get(_TILES)
        stream.seek(starts[0])
        table = _first_table(stream.read(_MOST_HEADER))
    return True, jpeg_quality(table)


def _first_table(data: bytes) -> list[int]:
    """Read the first quantisation table of a JPEG or of its header alone; empty if none is there.

    Segments as in T.81, B.2.4.1; libtiff and all that is known to write TIFF put luma's first.
    """
    at = 2
    while data[at : at + 1] == b"\xff" and data[at + 1] != 0xDA:
        length = int.from_bytes(data[at + 2 : at + 4])
        if data[at + 1] == 0xDB:
            wide = data[at + 4] >> 4
            steps = np.frombuffer(data, ">u2" if wide else "u1", 64, at + 5)
            table = np.empty(64, int)
            table[_ZIGZAG] = steps
            return [int(step) for step in table]
        at += 2 + length
    return []


def _webp_losses(stream: BinaryIO) -> tuple[bool, int | None]:
    """Tell whether the first picture is VP8 and not VP8L (RFC 9649, 2.5 and 2.7), and how good."""
    stream.seek(12)
    for _ in range(_MOST_CHUNKS):
        head = stream.read(8)
        if head[:4] == b"VP8L":
            return False, None
        if head[:4] == b"VP8 ":
            return True, _vp8_quality(stream.read(_VP8_HEADER))
        if head[:4] == b"ANMF":  # a frame: sixteen bytes, and the chunks of a picture
            stream.seek(16, 1)
        else:
            length = int.from_bytes(head[4:], "little")
            stream.seek(length + length % 2, 1)
    return True, None


def _vp8_quality(frame: bytes) -> int | None:
    """Estimate the quality that libwebp was asked for, 1 to 100, from the quantisers of a frame.

    libwebp's ``QualityToCompression`` makes ``c`` of a quality ``Q`` (two thirds of ``Q / 100``
    below 75, ``Q / 50 - 1`` from there on), and ``127 * (1 - cbrt(c))`` is the index of the
    quantiser, which it varies by segment around it. Their mean leads back to within six for
    photographs from 50 up, and to within two from 90 up.
    """
    if frame[3:6] != b"\x9d\x01\x2a":  # no key frame
        return None
    indices = _vp8_indices(_Bits(frame[10:]))
    compression = (1 - min(127, max(0, sum(indices) / len(indices))) / 127) ** 3
    linear = compression * 1.5 if compression < 0.5 else (compression + 1) / 2
    return max(1, round(100 * linear))


def _vp8_indices(bits: "_Bits") -> list[int]:
    """Read a frame's header as far as its quantisers, one for each segment (RFC 6386, 9.2 to 9.6).

    Each line is what one of its fields is called there, in their order.
    """
    bits.number(2)  # color_space, clamping_type
    segments, absolute = [0], 0
    if bits.number(1):  # segmentation_enabled
        has_map = bits.number(1)
        if bits.number(1):  # update_segment_feature_data
            absolute = bits.number(1)
            segments = [bits.optional(7) for _ in range(4)]
            _ = [bits.optional(6) for _ in range(4)]  # lf_update_value
        if has_map:
            _ = [bits.number(8) for _ in range(3) if bits.number(1)]  # segment_prob
    bits.number(10)  # filter_type, loop_filter_level, sharpness_level
    if bits.number(1) and bits.number(1):  # loop_filter_adj_enable, mode_ref_lf_delta_update
        _ = [bits.optional(6) for _ in range(8)]
    bits.number(2)  # log2_nbr_of_dct_partitions
    index = bits.number(7)  # y_ac_qi
    return [segment if absolute else index + segment for segment in segments]


class _Bits:
    """The decoder of VP8's headers, whose bits are all as likely to be 0 as 1 (RFC 6386, 7.3)."""

    def __init__(self, data: bytes) -> None:
        self._coming = iter(data[2:])
        self._value = int.from_bytes(data[:2])
        self._range = 255
        self._shifted = 0

    def number(self, bits: int) -> int:
        """Read a number of so many bits, the highest first."""
        found = 0
        for _ in range(bits):
            found = 2 * found + self._bit()
        return found

    def optional(self, bits: int) -> int:
        """Read a flag, and if it is set, a number and its sign; else it is 0."""
        if not self.number(1):
            return 0
        found = self.number(bits)
        return -found if self.number(1) else found

    def _bit(self) -> int:
        split = 1 + ((self._range - 1) >> 1)
        found = self._value >= split << 8
        self._value -= split << 8 if found else 0
        self._range = self._range - split if found else split
        while self._range < 128:
            self._value <<= 1
            self._range <<= 1
            self._shifted += 1
            if self._shifted % 8 == 0:
                self._value |= next(self._coming)
        return int(found)


def _avif_is_lossy(stream: BinaryIO) -> bool:
    """Whether the colours are stored otherwise than as RGB.

    The quantiser stands deep in the frame's header; but encoders that keep every bit store RGB as
    it is, under the matrix 0 (identity) of ITU-T H.273, and others do not: converting to YCbCr
    loses some. The first ``colr`` box tells it (ISO 14496-12, 12.1.5).
    """
    stream.seek(0)
    box = stream.read(_MOST_HEADER).partition(b"colrnclx")[2]
    return box[4:6] != b"\0\0"
