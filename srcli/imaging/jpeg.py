"""JPEG files out, of any size: rows as they come through libvips, which holds a few of them.

Pillow encodes the same bytes (both drive libjpeg), but asks for the whole picture. It still says
what comes before the picture: libvips would set its own resolution and rewrite the EXIF.
"""

from queue import Queue
from threading import Event, Thread
from typing import Any, BinaryIO, Final

from srcli.imaging.bands import Rows
from srcli.imaging.png import write_bare_png
from srcli.imaging.vips import vips

__all__ = ["write_jpeg_rows"]

_TABLES: Final = 0xDB
"""The marker of the quantisation tables (ISO/IEC 10918-1, table B.1), the first after metadata."""


def write_jpeg_rows(rows: Rows, stream: BinaryIO, like: bytes, *, quality: int) -> None:
    """Write one picture as its rows come, without chroma subsampling.

    Args:
        rows: Grey or RGB of 8 bits.
        stream: Where to.
        like: A JPEG that begins with the metadata that this one is to have.
        quality: 0 to 100, on libjpeg's scale.

    Raises:
        OSError: What the file system says.
        Exception: What libvips raises.
        BaseException: What the rows raise.
    """
    stream.write(like[: _tables_of(like)])
    encoder = _Encoder(stream, max(1, quality))
    try:
        write_bare_png(rows, encoder)  # what libvips reads from a pipe in every build
    finally:
        encoder.end()
    encoder.check()


def _tables_of(data: bytes | bytearray) -> int:
    """Find where the segments before the tables end; -1 if that is still to come."""
    place = 2
    while place + 4 <= len(data):
        if data[place + 1] == _TABLES:
            return place
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return -1


class _Encoder:
    """libvips at work in a thread of its own: it asks for rows, and we are given them."""

    def __init__(self, stream: BinaryIO, quality: int) -> None:
        self._stream = stream
        self._quality = quality
        self._pieces: Queue[bytes | None] = Queue(maxsize=2)
        self._left = memoryview(b"")
        self._ended = False
        self._head = bytearray()
        self._begun = False
        self._error: Exception | None = None
        self._broken = Event()
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()

    def write(self, piece: bytes, /) -> None:
        """Hand over bytes of the picture; wait until there is room for them."""
        if self._broken.is_set():  # computing more rows would be in vain
            self.end()
            self.check()
        self._pieces.put(piece)

    def end(self) -> None:
        """Wait until all is encoded, or was given up."""
        if self._thread.is_alive():
            self._pieces.put(None)
        self._thread.join()

    def check(self) -> None:
        """Raise what happened in the thread."""
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            self._encode(vips())
        except Exception as error:  # noqa: BLE001 - it is raised where the rows come from
            # What libvips says of a failed write is only that it failed.
            self._error = self._error or error
            self._broken.set()
        while not self._ended:
            self._ended = self._pieces.get() is None

    def _encode(self, pyvips: Any) -> None:  # noqa: ANN401 - a module without types
        source, target = pyvips.SourceCustom(), pyvips.TargetCustom()
        source.on_read(self._read)
        target.on_write(self._write)
        image = pyvips.Image.pngload_source(source, access="sequential", fail_on="error")
        options = {"Q": self._quality, "subsample_mode": "off", "keep": "none"}
        image.jpegsave_target(target, **options)

    def _read(self, size: int) -> memoryview | None:
        while not self._left and not self._ended:
            piece = self._pieces.get()
            self._ended = piece is None
            self._left = memoryview(piece or b"")
        part, self._left = self._left[:size], self._left[size:]
        return part or None

    def _write(self, data: Any) -> int:  # noqa: ANN401 - a buffer of cffi
        try:
            self._put(bytes(data))
        # Through C no exception finds its way.
        except Exception as error:  # noqa: BLE001
            self._error = error
            self._broken.set()
            return -1
        return len(data)

    def _put(self, data: bytes) -> None:
        if self._begun:
            self._stream.write(data)
            return
        self._head += data
        place = _tables_of(self._head)
        if place >= 0:
            self._stream.write(self._head[place:])
            self._begun = True
