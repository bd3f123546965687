"""Image files in and out: the module that knows Pillow.

Whatever a file holds (a palette, CMYK, sixteen bits, an orientation in its EXIF) becomes one
upright :class:`Picture`: grey or RGB integers, with transparency and metadata beside them.
Pixels are never converted between colour profiles; a profile travels with the pixels that it
describes, or is dropped.
"""

import errno
import io
import math
import os
import stat
import struct
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final, NoReturn, SupportsFloat

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile, TiffImagePlugin, UnidentifiedImageError, features

from srcli.errors import ImageError, OutputError
from srcli.files import is_file, one_line, replacing

__all__ = [
    "READABLE_SUFFIXES",
    "Levels",
    "Metadata",
    "Picture",
    "check_size",
    "files_in",
    "format_of",
    "is_image",
    "read",
    "read_size",
    "write",
]

Levels = NDArray[np.uint8] | NDArray[np.uint16]
"""Integer levels, ``HxWxC``: 0 is black or clear, the dtype's largest value white or opaque."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metadata:
    """What a file says about its picture besides the pixels."""

    icc_profile: bytes | None = None
    """The colour profile of the pixels, or ``None``."""

    exif: bytes | None = None
    """The EXIF block, beginning with ``Exif\\0\\0``, without an orientation; or ``None``."""

    dpi: tuple[float, float] | None = None
    """Pixels per inch across and down, or ``None``."""


# Not compared by value: arrays have no single truth value.
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Picture:
    """A decoded image, upright."""

    pixels: Levels
    """``HxWx1`` (grey) or ``HxWx3`` (RGB), ``uint8`` or ``uint16``, C-contiguous, writable."""

    alpha: Levels | None = None
    """Opacity, ``HxWx1`` of the dtype of the pixels, not multiplied into them; or ``None``."""

    format: str | None = None
    """Pillow's name of the format that it was read from, such as ``JPEG``."""

    first_of_several: bool = False
    """Whether the file holds more frames or pages, of which this is the first."""

    metadata: Metadata = field(default_factory=Metadata)
    """What travels with the pixels."""

    def __post_init__(self) -> None:
        """Refuse arrays that are no picture.

        Raises:
            ValueError: If a shape or dtype is not as documented.
        """
        shape, dtype = self.pixels.shape, self.pixels.dtype
        if len(shape) != 3 or shape[2] not in {1, 3} or 0 in shape:
            raise ValueError(f"pixels must be HxWx1 or HxWx3 and not empty, not {shape}")
        if dtype not in (np.uint8, np.uint16):
            raise ValueError(f"pixels must be uint8 or uint16, not {dtype}")
        if self.alpha is not None and (*self.alpha.shape, self.alpha.dtype) != (
            *shape[:2],
            1,
            dtype,
        ):
            raise ValueError(f"alpha must be {shape[0]}x{shape[1]}x1 {dtype} like its pixels")

    @property
    def height(self) -> int:
        """Rows, in pixels."""
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        """Columns, in pixels."""
        return int(self.pixels.shape[1])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Format:
    """What a file format can hold."""

    suffixes: tuple[str, ...]
    longest: int | None = None
    """Most pixels along a side, where the format or its codec has a limit."""

    alpha: bool = False
    sixteen: bool = False
    """Whether grey is written at 16 bits."""

    keeps: frozenset[str] = frozenset()
    """The fields of :class:`Metadata` that it stores."""


_FORMATS: Final = {
    "JPEG": _Format(
        suffixes=(".jpg", ".jpeg", ".jpe", ".jfif"),
        longest=65500,  # libjpeg's; the format's own is 65535
        keeps=frozenset({"icc_profile", "exif", "dpi"}),
    ),
    "PNG": _Format(
        suffixes=(".png",),
        alpha=True,
        sixteen=True,
        keeps=frozenset({"icc_profile", "exif", "dpi"}),
    ),
    "WEBP": _Format(
        suffixes=(".webp",), longest=16383, alpha=True, keeps=frozenset({"icc_profile", "exif"})
    ),
    "TIFF": _Format(
        suffixes=(".tif", ".tiff"),
        alpha=True,
        sixteen=True,
        keeps=frozenset({"icc_profile", "dpi"}),  # and EXIF, by a way of its own
    ),
    "BMP": _Format(suffixes=(".bmp",), keeps=frozenset({"dpi"})),
    "GIF": _Format(suffixes=(".gif",), longest=65535, alpha=True),
    "AVIF": _Format(
        suffixes=(".avif",),
        longest=32768,  # more can be written, but no decoder built on libavif reads it
        alpha=True,
        keeps=frozenset({"icc_profile", "exif"}),
    ),
    "PPM": _Format(suffixes=(".ppm", ".pgm", ".pbm", ".pnm"), sixteen=True),
}

_OPTIONAL: Final = {"WEBP": "webp", "AVIF": "avif"}
"""Formats that a Pillow may have been built without, and what it calls the codec."""

_BUILT: Final = tuple(
    name
    for name in _FORMATS
    if name not in _OPTIONAL or _OPTIONAL[name] in features.get_supported()
)
"""What is read and written. Pillow reads more, and for some starts other programs (EPS)."""

_FORMAT_BY_SUFFIX: Final = {suffix: name for name in _BUILT for suffix in _FORMATS[name].suffixes}

READABLE_SUFFIXES: Final = frozenset(_FORMAT_BY_SUFFIX)
"""The suffixes that are looked at in folders, in lower case; all can be written as well."""


def format_of(path: Path) -> str | None:
    """Name the format that a file of this name is written in.

    Args:
        path: Any path; only its suffix counts, in either case.

    Returns:
        Pillow's name of the format, or ``None`` where nothing is written under this suffix.

    Example:
        >>> format_of(Path("photo.JPG")), format_of(Path("photo.doc"))
        ('JPEG', None)
    """
    return _FORMAT_BY_SUFFIX.get(path.suffix.lower())


def is_image(path: Path) -> bool:
    """Whether a path leads to a file with the suffix of a format that is read here."""
    return path.suffix.lower() in READABLE_SUFFIXES and is_file(path)


def files_in(folder: Path, *, recursive: bool) -> list[Path]:
    """List the images of a folder, sorted by path; hidden files and folders are left out.

    Args:
        folder: Where to look.
        recursive: Whether to look below its first level too.

    Returns:
        Paths that begin with ``folder``.
    """
    found = folder.rglob("*") if recursive else folder.glob("*")
    return sorted(
        path
        for path in found
        if is_image(path)
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


# ---- reading ------------------------------------------------------------------------------


def read(path: Path, data: bytes | None = None) -> Picture:
    """Decode an image file; of an animation, the first frame.

    Grey of 16 bits stays so; colour is decoded to 8 bits.

    Args:
        path: An image file, or what messages are to call ``data``.
        data: The file's bytes where it lies in an archive; None: read ``path``.

    Returns:
        The picture, turned upright as its EXIF says.

    Raises:
        ImageError: If the file is missing, unreadable, damaged, too large or no image.
    """
    with _opened(path, data) as (image, _):
        clear = _clear_colour(image)
        image.load()
        turn = _TURNS[_orientation(image.getexif)]
        pixels, alpha = _levels(image if turn is None else image.transpose(turn))
        metadata = Metadata(
            icc_profile=_profile_for(image.info.get("icc_profile"), pixels.shape[2]),
            exif=_exif_of(image),
            dpi=_dpi_of(image.info.get("dpi")),
        )
        several = image.format != "MPO" and _has_more_frames(image)
    if clear is not None:
        opaque = np.any(pixels != np.array(clear), axis=2, keepdims=True)
        alpha = opaque.astype(pixels.dtype) * np.iinfo(pixels.dtype).max
    # A phone's multi-picture file is a JPEG with more JPEGs behind it.
    name = "JPEG" if image.format == "MPO" else image.format
    return Picture(
        pixels=pixels, alpha=alpha, format=name, metadata=metadata, first_of_several=several
    )


def _has_more_frames(image: ImageFile.ImageFile) -> bool:
    """Whether frames follow the first; no, where what follows is too damaged to tell."""
    try:
        return bool(getattr(image, "is_animated", False))
    # As in _opened: the decoder runs into hostile bytes, but the first frame is read by now.
    except Exception:  # noqa: BLE001
        return False


def read_size(path: Path, data: bytes | None = None) -> tuple[int, int]:
    """Tell the size of the picture that :func:`read` would return, without decoding it.

    Args:
        path: An image file, or what messages are to call ``data``.
        data: The file's bytes where it lies in an archive; None: read ``path``.

    Returns:
        Width and height in pixels, upright.

    Raises:
        ImageError: If the file is missing, unreadable, too large or no image. Damage behind
            the header goes unnoticed.
    """
    with _opened(path, data) as (image, stream):
        width, height = image.size
        if image.format == "TIFF":
            return width, height  # Pillow has swapped them already
        late = image.format == "PNG" and _has_late_exif(stream)
        # For a PNG, image.getexif would decode the pixels to see whether EXIF follows them.
        getexif = image.getexif if late else lambda: Image.Image.getexif(image)
        return (height, width) if _orientation(getexif) >= 5 else (width, height)


@contextmanager
def _opened(path: Path, data: bytes | None) -> Iterator[tuple[ImageFile.ImageFile, BinaryIO]]:
    """Open an image and report whatever goes wrong while it is open as one ``ImageError``."""
    try:
        with _PILLOW_SILENCE, path.open("rb") if data is None else io.BytesIO(data) as file:
            # A pipe cannot be rewound, as telling formats apart needs.
            stream: BinaryIO = file if file.seekable() else io.BytesIO(file.read())
            if not stream.read(1):
                _refuse("empty (0 bytes); fetch the file again")
            with Image.open(stream, formats=_BUILT) as image:
                yield image, stream
    # Pillow's decoders are fed hostile bytes and raise whatever their parsing runs into:
    # OSError, SyntaxError, ValueError, struct.error, EOFError, KeyError, ZeroDivisionError...
    # All of it means the same to a user: this file is not readable.
    except Exception as error:
        raise ImageError(f"{one_line(str(path))}: {_read_problem(error)}") from error


def _refuse(problem: str) -> NoReturn:
    raise ImageError(problem)


_READ_PROBLEMS: Final[tuple[tuple[tuple[type[Exception], ...], str], ...]] = (
    ((FileNotFoundError, NotADirectoryError), "no such file; check the path"),
    ((IsADirectoryError,), "a folder, not an image file; name files in it"),
    ((PermissionError,), "no permission to read it; change its permissions"),
    (
        (UnidentifiedImageError,),
        "not an image in a known format, or damaged at its start; convert it to PNG or JPEG",
    ),
    (
        (Image.DecompressionBombError,),
        "more pixels than can be decoded safely (a decompression bomb?); cut it into parts",
    ),
    ((MemoryError,), "does not fit into memory; cut it into parts"),
)

_TRUNCATION: Final = ("truncated", "not enough", "unexpected end", "end of file", "eof")


def _read_problem(error: Exception) -> str:
    """Say what is wrong with a file, and a way out, in one line."""
    if isinstance(error, ImageError):
        return str(error)
    for kinds, problem in _READ_PROBLEMS:
        if isinstance(error, kinds):
            return problem
    # What the system refuses; but codecs seek to nonsense offsets, which it calls invalid.
    if isinstance(error, OSError) and error.errno not in {None, errno.EINVAL}:
        return f"cannot be read ({_reason(error)}); check the path and the disk"
    if isinstance(error, EOFError) or any(word in str(error).lower() for word in _TRUNCATION):
        return "truncated, its end is missing; fetch the file again"
    return f"damaged ({_reason(error)}); fetch the file again"


def _reason(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) else None
    return one_line(text or str(error) or type(error).__name__)


class _PillowSilence:
    """Keeps Pillow's warnings off the terminal while any thread is inside.

    ``warnings.catch_warnings`` alone is not enough: it swaps process-wide state, and two
    threads that leave in another order than they entered would leave it swapped.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._before = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._before = warnings.catch_warnings()
                self._before.__enter__()
                warnings.filterwarnings("ignore", module=r"PIL\.")
                # Up to twice its limit Pillow only warns; cameras of 100 megapixels are there.
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._before.__exit__(None, None, None)


_PILLOW_SILENCE: Final = _PillowSilence()


# ---- pixels -------------------------------------------------------------------------------

_TARGET_MODES: Final = {
    "1": "L",
    "L": "L",
    "LA": "LA",
    "La": "LA",
    "RGB": "RGB",
    "RGBX": "RGB",
    "RGBA": "RGBA",
    "RGBa": "RGBA",
    "PA": "RGBA",
    "CMYK": "RGB",
    "YCbCr": "RGB",
    "LAB": "RGB",
    "HSV": "RGB",
}
"""Pillow's modes, and the one of ours that each is converted to. (Palettes: it depends.)"""

_TURNS: Final[dict[int, Image.Transpose | None]] = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns a picture of each EXIF orientation upright; from 5 on, the sides change places."""


def _levels(image: Image.Image) -> tuple[Levels, Levels | None]:
    """Split a decoded image into its pixels and its opacity, if any."""
    if image.mode.startswith("I"):
        return _sixteen_bits(image), None
    if image.mode == "P":
        target = "RGBA" if image.has_transparency_data else "RGB"
    else:
        target = _TARGET_MODES.get(image.mode, "")
    if not target:
        _refuse(f"pixels of kind {image.mode} have no fixed range; convert it to 8 or 16 bits")
    levels = np.array(image if image.mode == target else image.convert(target))
    levels = levels.reshape(image.height, image.width, -1)
    if not target.endswith("A"):
        return levels, None
    return np.ascontiguousarray(levels[..., :-1]), np.ascontiguousarray(levels[..., -1:])


def _sixteen_bits(image: Image.Image) -> NDArray[np.uint16]:
    levels = np.asarray(image)
    low, high = int(levels.min()), int(levels.max())
    if low < 0 or high > 65535:
        _refuse(f"32-bit levels {low}..{high} are outside 0..65535; convert it to 16 bits")
    return levels.astype(np.uint16)[..., np.newaxis]


_KEY_SCALES: Final = {"L;2": (85, 1), "L;4": (17, 1), "RGB;16B": (1, 256)}
"""How Pillow scales the levels of PNGs to 8 bits, but not the one that stands for clear."""


def _clear_colour(image: ImageFile.ImageFile) -> tuple[int, ...] | None:
    """The one colour of a grey or RGB image that stands for transparent pixels, if any."""
    key = image.info.get("transparency")
    if image.mode == "P" or not isinstance(key, int | tuple):
        return None
    if image.mode == "1":
        return (255 if key else 0,)
    stored_as = image.tile[0][3] if image.format == "PNG" and image.tile else None
    times, over = _KEY_SCALES.get(str(stored_as), (1, 1))
    return tuple(level * times // over for level in (key if isinstance(key, tuple) else (key,)))


# ---- metadata -----------------------------------------------------------------------------

_TAGS: Final[dict[int, type]] = {
    ExifTags.Base.ImageDescription: str,
    ExifTags.Base.Make: str,
    ExifTags.Base.Model: str,
    ExifTags.Base.Software: str,
    ExifTags.Base.DateTime: str,
    ExifTags.Base.Artist: str,
    ExifTags.Base.HostComputer: str,
    ExifTags.Base.Copyright: str,
    ExifTags.Base.Rating: int,
    ExifTags.Base.RatingPercent: int,
    ExifTags.Base.XPTitle: bytes,
    ExifTags.Base.XPComment: bytes,
    ExifTags.Base.XPAuthor: bytes,
    ExifTags.Base.XPKeywords: bytes,
    ExifTags.Base.XPSubject: bytes,
}
"""The tags kept of the first EXIF directory, with the type of a sound value.

The others say how the file was stored, which is no longer true of the next one."""

_DIRECTORIES: Final = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)

_SIZE_TAGS: Final = (ExifTags.Base.ExifImageWidth, ExifTags.Base.ExifImageHeight)


def _orientation(getexif: Callable[[], Image.Exif]) -> int:
    """Read the EXIF orientation, 1 to 8; 1 (upright) where there is none or it is broken."""
    try:
        value = getexif().get(ExifTags.Base.Orientation)
    except Exception:  # noqa: BLE001 - broken EXIF raises anything, and must not cost the picture
        return 1
    return value if isinstance(value, int) and value in _TURNS else 1


def _exif_of(image: Image.Image) -> bytes | None:
    """Copy what describes the picture, not its old file, into a fresh EXIF block."""
    try:
        found = image.getexif()
        kept = Image.Exif()
        kept.update(_sound_tags(found))
        for directory in _DIRECTORIES:
            entries = found.get_ifd(directory)
            # A pointer into the old block, to a directory that says nothing of use.
            entries.pop(ExifTags.IFD.Interop, None)
            if entries:
                kept[directory] = entries
        return kept.tobytes() if kept else None
    except Exception:  # noqa: BLE001 - broken EXIF raises anything, and must not cost the picture
        return None


def _sound_tags(exif: Image.Exif) -> dict[int, Any]:
    return {tag: exif[tag] for tag, kind in _TAGS.items() if isinstance(exif.get(tag), kind)}


def _positive(value: SupportsFloat) -> bool:
    number = float(value)
    return math.isfinite(number) and 0 < number < 65536


def _dpi_of(value: object) -> tuple[float, float] | None:
    if not isinstance(value, tuple) or len(value) != 2 or not all(map(_positive, value)):
        return None
    across, down = map(float, value)
    # One pixel per inch is what Pillow makes up for a TIFF that does not say.
    return None if across == down == 1 else (across, down)


def _profile_for(profile: object, channels: int) -> bytes | None:
    """Keep a profile only if its header says that it describes pixels of this kind."""
    space = b"GRAY" if channels == 1 else b"RGB "
    return profile if isinstance(profile, bytes) and profile[16:20] == space else None


def _has_late_exif(stream: BinaryIO) -> bool:
    """Tell whether a PNG's orientation may stand behind its pixels, as ImageMagick puts it."""
    position = stream.tell()
    stream.seek(8)
    behind = found = False
    while not found and len(head := stream.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        start = stream.read(min(length, 21))
        behind = behind or kind == b"IDAT"
        found = behind and (kind == b"eXIf" or start == b"Raw profile type exif")
        stream.seek(length - len(start) + 4, os.SEEK_CUR)
    stream.seek(position)
    return found


# ---- writing ------------------------------------------------------------------------------


def check_size(path: Path, width: int, height: int) -> None:
    """Find out before the work whether a file's format can hold so many pixels.

    Raises:
        OutputError: If the suffix is unknown or a side exceeds the format's limit.
    """
    try:
        _check_size(width, height, _known_format(path))
    except OutputError as error:
        raise OutputError(f"{one_line(str(path))}: {error}") from error


def write(picture: Picture, path: Path, *, quality: int = 95, lossless: bool = False) -> None:
    """Encode a picture into a file that appears whole or not at all.

    What the format cannot hold is adapted: transparency is laid over white (GIF: made on or
    off), colours become a palette of 256 for GIF, 16 bits are rounded to the nearest of 8
    unless the picture is grey without transparency and the format is PNG, TIFF or PPM.
    Metadata is stored as far as the format can.

    Args:
        picture: What to write.
        path: Where; its suffix names the format. An existing file is replaced.
        quality: 0 to 100 for the lossy formats: JPEG (always without chroma subsampling),
            WebP, AVIF.
        lossless: Encode WebP without loss, and AVIF at its best, which is within a few levels.
            PNG, TIFF, BMP and PPM never lose anything; JPEG and GIF always may.

    Raises:
        OutputError: If the suffix is unknown, the picture too large for the format, or the
            file cannot be written.
    """
    try:
        name = _known_format(path)
        _check_target(path)
        _check_size(picture.width, picture.height, name)
        with _PILLOW_SILENCE, replacing(path) as temporary:
            _encode(picture, temporary, name, quality=quality, lossless=lossless)
    # Encoders raise as variously as decoders do, and the reader of the message needs one line.
    except Exception as error:
        raise OutputError(f"{one_line(str(path))}: {_write_problem(error)}") from error


def _known_format(path: Path) -> str:
    name = format_of(path)
    if name is None:
        known = " ".join(sorted(_FORMAT_BY_SUFFIX))
        raise OutputError(f"no format is known for the suffix {path.suffix!r}; use {known}")
    return name


def _check_target(path: Path) -> None:
    """Find out before the encoding what would make it useless."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        if not path.parent.is_dir():
            raise OutputError(
                f"there is no folder {one_line(str(path.parent))}; make it first"
            ) from None
    else:
        if stat.S_ISDIR(mode):
            raise OutputError("a folder is in the way; choose another name")


def _check_size(width: int, height: int, name: str) -> None:
    limit = _FORMATS[name].longest
    if limit is not None and max(width, height) > limit:
        raise OutputError(
            f"{width}x{height} pixels exceed the {limit} a side that {name} "
            "can hold; write PNG or TIFF"
        )


_WRITE_PROBLEMS: Final = {
    errno.ENOSPC: "the disk is full; free some space or choose another folder",
    errno.EDQUOT: "the disk quota is used up; free some space or choose another folder",
    errno.EACCES: "no permission to write there; choose another folder",
    errno.EPERM: "no permission to write there; choose another folder",
    errno.EROFS: "the disk is read-only; choose another folder",
    errno.ENAMETOOLONG: "the file name is too long; shorten it",
    errno.ENOTDIR: "there is no such folder; make it first",
}


def _write_problem(error: Exception) -> str:
    """Say why a file could not be written, and a way out, in one line."""
    if isinstance(error, OutputError):
        return str(error)
    if isinstance(error, MemoryError):
        return "encoding it does not fit into memory; write BMP or PPM"
    if isinstance(error, OSError) and error.errno is not None:
        other = f"cannot be written ({_reason(error)}); choose another folder"
        return _WRITE_PROBLEMS.get(error.errno, other)
    return f"cannot be encoded ({_reason(error)}); choose another format"


class _Sink(io.FileIO):
    """A file that hides its descriptor, so that Pillow writes through Python.

    Pillow's C code would write to the descriptor itself and forget why that failed.
    """

    def fileno(self) -> int:
        raise io.UnsupportedOperation


def _encode(picture: Picture, target: Path, name: str, *, quality: int, lossless: bool) -> None:
    image = _image_of(picture, name)
    exif = _exif_for(picture)
    options = _codec_options(name, image.mode, quality=quality, lossless=lossless)
    options |= _metadata_options(picture.metadata, exif, name, image.mode)
    if name == "TIFF":
        options["tiffinfo"] = _tiff_tags(exif)
    with io.BufferedWriter(_Sink(target, "xb")) as stream:
        image.save(stream, format=name, **options)
    if name == "TIFF":
        _append_directories(target, exif)


def _image_of(picture: Picture, name: str) -> Image.Image:
    """Turn a picture into the Pillow image that comes closest to it in a format."""
    grey = picture.pixels.shape[2] == 1
    if picture.alpha is None and grey and _FORMATS[name].sixteen:
        return Image.fromarray(picture.pixels[..., 0])
    pixels = _eight_bits(picture.pixels)
    image = Image.fromarray(pixels[..., 0] if grey else pixels)
    if picture.alpha is not None:
        opacity = Image.fromarray(_eight_bits(picture.alpha)[..., 0])
        if name == "GIF":
            return _palette_with_clear(image, opacity)
        if not _FORMATS[name].alpha:
            return Image.composite(image, Image.new(image.mode, image.size, "white"), opacity)
        image.putalpha(opacity)
    wider = _WIDENED.get((name, image.mode))
    return image if wider is None else image.convert(wider)  # convert() copies even to itself


_WIDENED: Final = {("WEBP", "L"): "RGB", ("WEBP", "LA"): "RGBA", ("AVIF", "LA"): "RGBA"}
"""Where a format lacks a mode of ours, the one that holds it."""


def _eight_bits(levels: Levels) -> NDArray[np.uint8]:
    """Round to the nearest of 256 levels; 65535 = 255 * 257."""
    if levels.dtype == np.uint8:
        return levels.astype(np.uint8, copy=False)
    return ((levels.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _palette_with_clear(image: Image.Image, opacity: Image.Image) -> Image.Image:
    """Reduce to at most 255 colours and one index for what is less than half opaque."""
    reduced = image.convert("RGB").quantize(255)
    palette = reduced.getpalette() or []
    clear = len(palette) // 3
    reduced.putpalette([*palette, 0, 0, 0])
    reduced.paste(clear, mask=opacity.point([255] * 128 + [0] * 128))
    reduced.info["transparency"] = clear
    return reduced


def _codec_options(name: str, mode: str, *, quality: int, lossless: bool) -> dict[str, Any]:
    match name:
        case "JPEG":
            return {"quality": quality, "subsampling": 0}
        case "WEBP":
            return {"quality": quality, "lossless": lossless, "exact": True}
        case "AVIF":
            colour = {} if mode == "L" else {"subsampling": "4:4:4"}
            return {"quality": 100 if lossless else quality, **colour}
        case "TIFF":
            return {"compression": "tiff_adobe_deflate"}
        case _:
            return {}


def _metadata_options(metadata: Metadata, exif: Image.Exif, name: str, mode: str) -> dict[str, Any]:
    block = exif.tobytes() if exif else b""
    fits = name != "JPEG" or len(block) <= _JPEG_MARKER_BYTES
    found = {
        "icc_profile": _profile_for(metadata.icc_profile, 1 if mode in _GREY_MODES else 3),
        "exif": block if fits else None,
        "dpi": metadata.dpi,
    }
    return {key: found[key] for key in _FORMATS[name].keeps if found[key]}


_GREY_MODES: Final = {"L", "LA", "I;16"}

_JPEG_MARKER_BYTES: Final = 65533
"""What one segment of a JPEG holds; larger EXIF is left out rather than the picture."""


def _exif_for(picture: Picture) -> Image.Exif:
    """Parse the EXIF of a picture and make its sizes those of the pixels."""
    exif = Image.Exif()
    if picture.metadata.exif is not None:
        exif.load(picture.metadata.exif)
    if ExifTags.IFD.Exif in exif:
        entries = exif.get_ifd(ExifTags.IFD.Exif)
        sides = zip(_SIZE_TAGS, (picture.width, picture.height), strict=True)
        entries.update({tag: side for tag, side in sides if tag in entries})
    return exif


def _tiff_tags(exif: Image.Exif) -> TiffImagePlugin.ImageFileDirectory_v2:
    """Collect the tags of a TIFF's own directory."""
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[_PREDICTOR] = 2  # differences between neighbours: a quarter smaller on photographs
    for tag, value in _sound_tags(exif).items():
        tags[tag] = value
    for directory in _DIRECTORIES:
        if directory in exif:
            tags[directory] = 0  # set by _append_directories
    return tags


_PREDICTOR: Final = 317


def _append_directories(target: Path, exif: Image.Exif) -> None:
    """Add the EXIF and GPS directories to a TIFF, which libtiff cannot through Pillow."""
    with target.open("rb+") as file:
        prefix = file.read(2)
        order = "<" if prefix == b"II" else ">"
        _, start = struct.unpack(f"{order}HL", file.read(6))
        file.seek(start)
        (count,) = struct.unpack(f"{order}H", file.read(2))
        entries = file.read(12 * count)
        for index in range(count):
            (tag,) = struct.unpack_from(f"{order}H", entries, 12 * index)
            if tag in _DIRECTORIES:
                where = file.seek(0, os.SEEK_END)
                where += file.write(b"\0" * (where % 2))  # directories begin on even bytes
                directory = TiffImagePlugin.ImageFileDirectory_v2(prefix=prefix, group=tag)
                directory.update(exif.get_ifd(tag))
                file.write(directory.tobytes(where))
                file.seek(start + 2 + 12 * index + 8)
                file.write(struct.pack(f"{order}L", where))
