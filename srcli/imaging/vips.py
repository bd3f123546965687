"""libvips: pixels of 16 bits, TIFFs, and pictures that are decoded a few rows at a time.

It is loaded when the first such file is met, and never for any other.
"""

from collections.abc import Iterator
from typing import Any, BinaryIO, Final

from numpy.typing import NDArray

from srcli.imaging.pictures import Levels

_MOST_SAVED: Final = 50_000
"""More than one byte can stand for by any compression that is used in PNG and TIFF.

Deflate comes to 1032, LZW to about 1400, Zstandard to 32,000. Without this limit a damaged header
costs gigabytes and seconds before the decoder finds out.
"""


def vips() -> Any:  # noqa: ANN401 - a module without types
    """Import libvips and stop it from caching decoded files."""
    import pyvips  # type: ignore[import-untyped]  # noqa: PLC0415 - 0.1 s and 40 MB that most runs do without

    pyvips.cache_set_max(0)
    return pyvips


def decoded(loader: str, data: bytes, size: tuple[int, int], **options: int) -> NDArray[Any]:
    """Decode a file with one of libvips' loaders: ``HxWxC``, writable; OSError if it is damaged.

    ``size`` is what its header states; the loader may have turned it.
    """
    if 8 * size[0] * size[1] > _MOST_SAVED * len(data):
        raise OSError(f"{len(data)} bytes cannot hold {size[0]}x{size[1]} pixels")
    pyvips = vips()
    try:
        image = pyvips.Operation.call(loader, data, **{"fail_on": "error", **options})
        if {image.width, image.height} != {*size}:  # its size is the one that was agreed to
            raise OSError("its headers contradict each other")
        return _pixels_of(image)
    except pyvips.Error as error:
        raise OSError(_last_line(str(error))) from error


def decoded_bands(
    loader: str, stream: BinaryIO, *, shape: tuple[int, int, int], bits: int, rows: int
) -> Iterator[Levels]:
    """Decode a still picture from top to bottom, a few rows in memory at a time.

    Args:
        loader: What libvips calls its decoder: ``jpegload``, ``pngload``, ``tiffload``.
        stream: The file itself, open; its position is lost.
        shape: Height, width and channels that it is known to have.
        bits: 8 or 16, as its pixel values are known to have.
        rows: Of each band, but perhaps the last; of whole tiles where there are any.
    """
    pyvips = vips()
    height, width, _ = shape
    stream.seek(0)
    try:
        source = pyvips.Source.new_from_descriptor(stream.fileno())
        options = {"access": "sequential", "fail_on": "error"}
        image = pyvips.Operation.call(f"{loader}_source", source, **options)
        kind = {8: "uchar", 16: "ushort"}[bits]
        if (image.height, image.width, image.bands, image.format) != (*shape, kind):
            raise OSError("its headers contradict each other")
        # A crop is written by itself: a region of the whole would keep what it has passed.
        for top in range(0, height, rows):
            yield _pixels_of(image.crop(0, top, width, min(rows, height - top)))
    except pyvips.Error as error:
        raise OSError(_last_line(str(error))) from error


def _pixels_of(image: Any) -> NDArray[Any]:  # noqa: ANN401 - pyvips has no types
    pixels: NDArray[Any] = image.numpy().reshape(image.height, image.width, -1)
    return pixels if pixels.flags.writeable else pixels.copy()


def _last_line(text: str) -> str:
    """Return the line of libvips' message that says what happened, without who says it."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    lines = [line for line in lines if not line.endswith("load error")] or lines
    return lines[-1].partition(": ")[2] or lines[-1] if lines else "for an unknown reason"
