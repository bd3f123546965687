"""Animated WebP files out: every frame, each cut to what changed.

WebP Container Specification (Google, RFC 9649). Frames are encoded by Pillow one by one:
libwebp's own animator drops a frame that looks like the one before it.
"""

import struct
from collections.abc import Iterator, Sequence
from io import BytesIO
from typing import Any, BinaryIO, Final

import numpy as np
from PIL import Image

from srcli.imaging.fitting import changed_part

__all__ = ["write_webp"]

_PIXELS: Final = {b"ALPH", b"VP8 ", b"VP8L"}
"""The chunks of a still picture that a frame is made of."""

_METADATA: Final = (("icc_profile", b"ICCP", 0x20), ("exif", b"EXIF", 8), ("xmp", b"XMP ", 4))
"""What Pillow calls it, its chunk, and the flag that announces it."""

_ALPHA, _ANIMATION = 0x10, 0x02
_REPLACE: Final = 2
"""The flag of a frame whose clear pixels replace what is below."""

_LONGEST: Final = 0xFFFFFF
"""Milliseconds, of 24 bits."""


def write_webp(
    images: Sequence[Image.Image],
    durations: Sequence[float],
    stream: BinaryIO,
    *,
    loop: int | None,
    options: dict[str, Any],
) -> None:
    """Write images as an animated WebP.

    Args:
        images: The frames, of one size, and of mode ``RGB`` or ``RGBA``.
        durations: Milliseconds that each is shown.
        stream: Where to.
        loop: How often it plays, 0 for ever; None: once.
        options: How Pillow is to encode each, and the metadata of all.

    Raises:
        OSError: What the file system says.
    """
    options = dict(options)
    found = {name: options.pop(name, b"") for name, _, _ in _METADATA}
    found["exif"] = found["exif"].removeprefix(b"Exif\0\0")
    flags = _ANIMATION | (_ALPHA if images[0].mode == "RGBA" else 0)
    flags |= sum(flag for name, _, flag in _METADATA if found[name])
    size = _three(images[0].width - 1) + _three(images[0].height - 1)
    profile, *behind = [
        _chunk(kind, found[name]) if found[name] else b"" for name, kind, _ in _METADATA
    ]
    body = BytesIO()
    body.write(b"WEBP" + _chunk(b"VP8X", struct.pack("<I", flags) + size) + profile)
    times = 1 if loop is None else min(loop, 65535)
    body.write(_chunk(b"ANIM", struct.pack("<IH", 0, times)))
    body.writelines(_frames(images, durations, options))
    body.writelines(behind)
    stream.write(_chunk(b"RIFF", body.getbuffer()))


def _three(number: int) -> bytes:
    return number.to_bytes(3, "little")


def _chunk(kind: bytes, data: bytes | memoryview) -> bytes:
    return kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)


def _frames(
    images: Sequence[Image.Image], durations: Sequence[float], options: dict[str, Any]
) -> Iterator[bytes]:
    before = None
    for image, duration in zip(images, durations, strict=True):
        levels = np.asarray(image)
        known = np.False_ if before is None else np.equal(levels, before).all(axis=2)
        rows, columns = changed_part(np.broadcast_to(~known, levels.shape[:2]))
        left, top = columns.start // 2 * 2, rows.start // 2 * 2  # places are counted in twos
        part = image.crop((left, top, columns.stop, rows.stop))
        place = (left // 2, top // 2, part.width - 1, part.height - 1)
        shown = min(max(round(duration), 0), _LONGEST)
        head = b"".join(map(_three, (*place, shown))) + bytes((_REPLACE,))
        yield _chunk(b"ANMF", head + _still(part, options))
        before = levels


def _still(image: Image.Image, options: dict[str, Any]) -> bytes:
    """Encode a frame and take the chunks of its pixels out of the file."""
    encoded = BytesIO()
    image.save(encoded, format="WEBP", **options)
    data, start, kept = encoded.getvalue(), 12, b""
    while start < len(data):
        kind, size = struct.unpack_from("<4sI", data, start)
        end = start + 8 + size + size % 2
        kept += data[start:end] if kind in _PIXELS else b""
        start = end
    return kept
