"""Deflate (RFC 1950), as PNG and TIFF store levels: by ISA-L where it is, else by zlib.

Encoding must not cost what computing does. On one core, of a photo of 12 megapixels, filtered for
PNG: zlib takes 0.1 s a megapixel at level 4, Intel's ISA-L 0.007 s, for 1 to 7 % more bytes.
Its wheels are for 64-bit x86 and ARM; what was packed depends on the library, never what is read.
"""

import zlib
from contextlib import suppress
from types import ModuleType
from typing import Final, Protocol, cast

import numpy as np
from numpy.typing import NDArray

__all__ = ["Buffer", "Deflater", "check", "deflated", "deflater"]

Buffer = bytes | NDArray[np.uint8]
"""What is packed: bytes, or a C-contiguous array of them."""

_ENGINE: ModuleType = zlib
with suppress(ImportError):
    from isal import isal_zlib

    _ENGINE = isal_zlib

_LEVEL: Final = 1
"""How hard it tries. Levels 2 and 3 of ISA-L make photographs with grain larger, not smaller."""


class Deflater(Protocol):
    """Packs a stream of bytes, piece by piece."""

    def compress(self, data: Buffer, /) -> bytes:
        """Take more in, and give what is packed so far."""

    def flush(self) -> bytes:
        """Give the rest."""


def deflater(*, stored: bool = False) -> Deflater:
    """Begin a stream. The same pieces in the same order give the same bytes.

    Args:
        stored: Only wrap the bytes, for what is read at once and thrown away.
    """
    return cast("Deflater", zlib.compressobj(0) if stored else _ENGINE.compressobj(_LEVEL))


def deflated(data: Buffer) -> bytes:
    """Pack all at once; noise becomes larger by less than a thousandth."""
    return cast("bytes", _ENGINE.compress(data, _LEVEL))


def check(data: Buffer, start: int = 0) -> int:
    """Compute the CRC-32 that PNG's chunks end with, going on from that of what comes before."""
    return cast("int", _ENGINE.crc32(data, start))
