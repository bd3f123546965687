"""The file formats: their suffixes, what they can hold, and how they begin."""

import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from PIL import Image, features

from srcli.errors import ImageError, is_installed
from srcli.files import is_file
from srcli.imaging.pages import RAW, is_tiff, pages_of

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


# ---- by the first bytes ------------------------------------------------------------------

_START: Final = 40
"""Bytes that tell what a file is."""

_STARTS: Final = {
    "JPEG": rb"\xff\xd8\xff",
    "PNG": rb"\x89PNG\r\n\x1a\n",
    "WEBP": rb"RIFF....WEBP",
    "AVIF": rb"....ftyp(avi[fs]|mi[fa]f.*avif)",
    "GIF": rb"GIF8[79]a",
    "BMP": rb"BM.{4}\0{4}.{4}[\x0c-\x7c]\0{3}",
    "PPM": rb"P[1-6]\s+(#|\d+\s+\d+\s)",
}
"""How files of each format begin, but for TIFF: regular expressions."""

_HEIC_BRANDS: Final = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}

_RAW_STARTS: Final = (
    *(b"FUJIFILMCCD-RAW", b"IIU\0", b"IIRO", b"IIRS", b"MMOR", b"FOVb", b"\0MRM"),
    b"II\x1a\0\0\0HEAPCCDR",
)
"""How files of Fujifilm, Panasonic, Olympus, Sigma, Minolta and old Canon cameras begin."""

_UNREAD: Final = (
    (b"8BPS", "a Photoshop document"),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000 file"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 file"),
    (b"v/1\1", "an OpenEXR file"),
    (b"#?R", "a Radiance HDR file"),
    (b"gimp xcf ", "a file of GIMP"),
    (b"P7\n", "a PAM file"),
)
"""How other pictures begin that are not read, and what they are."""


def kind_of(start: bytes) -> str | None:
    """Tell a HEIC (ISO/IEC 23008-12, 10.2) or JPEG XL (ISO/IEC 18181-2) by its first 40 bytes.

    ImageError if it is of a kind that is not read.
    """
    if start.startswith(_RAW_STARTS) or start[4:12] == b"ftypcrx " or start[25:32] == b"ARECOYK":
        raise ImageError(RAW)
    for head, what in _UNREAD:
        if start.startswith(head):
            raise ImageError(f"{what}, which is not read; export it as TIFF or PNG")
    if start[4:8] == b"ftyp" and start[8:12] in _HEIC_BRANDS and b"avif" not in start[16:]:
        return "HEIC"
    if start[:2] == b"\xff\x0a" or start[4:12] == b"JXL \r\n\x87\n":
        return "JPEG XL"
    return None


def format_at(path: str | Path) -> str | None:
    """Name the format of a file by its first bytes, whatever its name says.

    What is no file is not opened, for a pipe can be read once.

    Returns:
        As :data:`FORMATS` has it, or as :func:`registered` where another package decodes it;
        ``None``: it is no picture, or it cannot be opened.

    Raises:
        ImageError: If it is a picture of a kind that is not read, or not without a package.
    """
    if not is_file(path):
        return None
    try:
        with open(path, "rb", buffering=0) as stream:  # noqa: PTH123 - a third faster, for many
            start = stream.read(_START)
            if is_tiff(start):
                next(pages_of(stream))  # which knows a camera raw
                return "TIFF"
    except OSError:
        return None
    except (EOFError, ValueError):  # reading it says what is the matter
        return "TIFF"
    kind = kind_of(start)
    if kind is not None:
        return registered(kind)
    found = (name for name in BUILT if name in _STARTS)
    return next((name for name in found if re.match(_STARTS[name], start, re.DOTALL)), None)


def suffix_of_result(path: Path | None) -> str:
    """Return the suffix of a result whose format nobody has chosen: that of its input.

    Of a format that is only read it is ``.jpg``, of what is no picture, or a stream, ``.png``.
    """
    if path is None or format_of(path) is not None:
        return ".png" if path is None else path.suffix
    name = None
    with suppress(ImageError):
        name = format_at(path)
    if name in FORMATS:
        return FORMATS[name].suffixes[0]
    return ".jpg" if name or path.suffix.lower() in EXTRAS else ".png"


def registered(kind: str) -> str:
    """Make a kind of :func:`kind_of` known to Pillow, and return what Pillow calls it.

    ImageError if the package that decodes it is not installed.
    """
    try:
        if kind == "HEIC":
            import pillow_heif  # noqa: PLC0415 - an extra

            pillow_heif.register_heif_opener()
            return "HEIF"
        import pillow_jxl  # noqa: F401, PLC0415 - it registers itself
    except ImportError:
        extra = "heic" if kind == "HEIC" else "jxl"
        raise ImageError(
            f"{kind} needs a package that is not installed: pip install 'srcli[{extra}]', "
            "or convert it to JPEG"
        ) from None
    return "JXL"
