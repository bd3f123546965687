"""The file formats that are read and written: their suffixes and what they can hold."""

import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from PIL import Image, features

from srcli.errors import is_installed

PillowImage = Image.Image
"""What Pillow calls an image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """What a file format can hold."""

    suffixes: tuple[str, ...]
    longest: int | None = None
    """Most pixels along a side, where the format or its codec has a limit."""

    alpha: bool = False
    """Whether it holds opacity; GIF's is on or off."""

    sixteen: bool = False
    """Whether it is written at 16 bits a channel, where the picture has them."""

    frames: bool = False
    """Whether it holds an animation."""

    pages: bool = False
    """Whether it holds several pictures, each of its own size and kind."""

    rows: bool = False
    """Whether a still is written as its rows come, whatever its size."""

    keeps: frozenset[str] = frozenset()
    """The fields of :class:`Metadata` that it stores."""


FORMATS: Final = {
    "JPEG": Format(
        suffixes=(".jpg", ".jpeg", ".jpe", ".jfif"),
        longest=65500,  # libjpeg's; the format's own is 65535
        rows=True,
        keeps=frozenset({"icc_profile", "exif", "xmp", "iptc", "dpi", "comment"}),
    ),
    "PNG": Format(
        suffixes=(".png",),
        alpha=True,
        sixteen=True,
        frames=True,
        rows=True,
        keeps=frozenset({"icc_profile", "exif", "xmp", "dpi", "text", "comment"}),
    ),
    "WEBP": Format(
        suffixes=(".webp",),
        longest=16383,
        alpha=True,
        frames=True,
        keeps=frozenset({"icc_profile", "exif", "xmp", "dpi"}),
    ),
    "TIFF": Format(
        suffixes=(".tif", ".tiff"),
        alpha=True,
        sixteen=True,
        pages=True,
        rows=True,
        keeps=frozenset({"icc_profile", "exif", "xmp", "iptc", "dpi"}),
    ),
    "BMP": Format(suffixes=(".bmp",), keeps=frozenset({"dpi"})),
    "GIF": Format(
        suffixes=(".gif",),
        longest=65535,
        alpha=True,
        frames=True,
        keeps=frozenset({"comment", "xmp"}),
    ),
    "AVIF": Format(
        suffixes=(".avif",),
        longest=32768,  # more can be written, but no decoder built on libavif reads it
        alpha=True,
        frames=True,
        keeps=frozenset({"icc_profile", "exif", "xmp", "dpi"}),
    ),
    "PPM": Format(suffixes=(".ppm", ".pgm", ".pbm", ".pnm"), sixteen=True, rows=True),
}

_OPTIONAL: Final = {"WEBP": "webp", "AVIF": "avif"}
"""Formats that a Pillow may have been built without, and what it calls the codec."""

BUILT: Final = tuple(
    name for name in FORMATS if name not in _OPTIONAL or _OPTIONAL[name] in features.get_supported()
)
"""What is read and written. Pillow reads more, and for some starts other programs (EPS)."""

FORMAT_BY_SUFFIX: Final = {suffix: name for name in BUILT for suffix in FORMATS[name].suffixes}

READABLE_SUFFIXES: Final = frozenset(FORMAT_BY_SUFFIX)
"""The suffixes of what is read and written, in lower case."""

EXTRAS: Final = {".heic": "heic", ".heif": "heic", ".hif": "heic", ".jxl": "jxl"}
"""Suffixes of what is read where a package is installed, and the extra of srcli that brings it."""

_PACKAGES: Final = {"heic": "pillow_heif", "jxl": "pillow_jxl"}

FOUND_SUFFIXES: Final = READABLE_SUFFIXES | {
    suffix for suffix, extra in EXTRAS.items() if is_installed(_PACKAGES[extra])
}
"""The suffixes that are taken in folders, in lower case, with what is only read."""

_RAWS: Final = (
    "3fr arw cr2 cr3 crw dcr dng erf fff gpr iiq kdc mef mos mrw nef nrw orf pef raf raw rw2 rwl "
    "sr2 srf srw x3f"
)

RAW_SUFFIXES: Final = frozenset(f".{name}" for name in _RAWS.split())
"""The suffixes of camera raws."""

LEFT_OUT_SUFFIXES: Final = (
    RAW_SUFFIXES | EXTRAS.keys() | {".psd", ".psb", ".jp2", ".j2k", ".jxr", ".exr", ".tga", ".xcf"}
) - FOUND_SUFFIXES
"""The suffixes of pictures that are not read, in lower case."""


def format_of(path: Path) -> str | None:
    """Name the format that a file of this name is written in, if any.

    Example:
        >>> format_of(Path("photo.JPG")), format_of(Path("photo.doc"))
        ('JPEG', None)
    """
    return FORMAT_BY_SUFFIX.get(path.suffix.lower())


def streams(name: str) -> bool:
    """Whether stills of a format are written as their rows come, whatever their size."""
    return FORMATS[name].rows


class PillowSilence:
    """Keeps Pillow's warnings off the terminal while any thread is inside.

    ``warnings.catch_warnings`` alone is not enough: it swaps process-wide state, and two
    threads that leave in another order than they entered would leave it swapped.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside: list[int] = []
        self._before = ExitStack()

    @contextmanager
    def up_to(self, pixels: int = 0) -> Iterator[None]:
        """Keep silence, and let Pillow open pictures of so many pixels; 0: of as many as before.

        Pillow has one limit for the whole process; of several threads the most generous one's
        holds, and each has to check its own besides.
        """
        with self._lock:
            if not self._inside:
                self._before.enter_context(warnings.catch_warnings())
                warnings.filterwarnings("ignore", module=r"PIL\.")
                # Up to twice its limit Pillow only warns; cameras of 100 megapixels are there.
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)
                limit = Image.MAX_IMAGE_PIXELS
                self._before.callback(setattr, Image, "MAX_IMAGE_PIXELS", limit)
            self._inside.append(pixels)
            self._set_limit()
        try:
            yield
        finally:
            with self._lock:
                self._inside.remove(pixels)
                self._set_limit()
                if not self._inside:
                    self._before.close()

    def _set_limit(self) -> None:
        if any(self._inside):
            Image.MAX_IMAGE_PIXELS = (max(self._inside) + 1) // 2  # it refuses twice as many


PILLOW_SILENCE: Final = PillowSilence()
