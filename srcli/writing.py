"""Image files out: pictures to files that appear whole or not at all."""

import errno
import io
import os
import stat
import struct
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from srcli.errors import OutputError
from srcli.files import one_line, reason, replacing
from srcli.formats import FORMAT_BY_SUFFIX, FORMATS, PILLOW_SILENCE, format_of
from srcli.pictures import Levels, Metadata, Picture
from srcli.tags import DIRECTORIES, exif_for, profile_for, sound_tags

__all__ = ["check_size", "write"]


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
        with PILLOW_SILENCE, replacing(path) as temporary:
            _encode(picture, temporary, name, quality=quality, lossless=lossless)
    # Encoders raise as variously as decoders do, and the reader of the message needs one line.
    except Exception as error:
        raise OutputError(f"{one_line(str(path))}: {_write_problem(error)}") from error


def _known_format(path: Path) -> str:
    name = format_of(path)
    if name is None:
        known = " ".join(sorted(FORMAT_BY_SUFFIX))
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
    limit = FORMATS[name].longest
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
        other = f"cannot be written ({reason(error)}); choose another folder"
        return _WRITE_PROBLEMS.get(error.errno, other)
    return f"cannot be encoded ({reason(error)}); choose another format"


class _Sink(io.FileIO):
    """A file that hides its descriptor, so that Pillow writes through Python.

    Pillow's C code would write to the descriptor itself and forget why that failed.
    """

    def fileno(self) -> int:
        raise io.UnsupportedOperation


def _encode(picture: Picture, target: Path, name: str, *, quality: int, lossless: bool) -> None:
    image = _image_of(picture, name)
    exif = exif_for(picture)
    options = _codec_options(name, image.mode, quality=quality, lossless=lossless)
    options |= _metadata_options(picture.metadata, exif, name, image.mode)
    if name == "TIFF":
        options["tiffinfo"] = _tiff_tags(exif)
    with io.BufferedWriter(_Sink(target, "wb")) as stream:
        image.save(stream, format=name, **options)
    if name == "TIFF":
        _append_directories(target, exif)


def _image_of(picture: Picture, name: str) -> Image.Image:
    """Turn a picture into the Pillow image that comes closest to it in a format."""
    grey = picture.pixels.shape[2] == 1
    if picture.alpha is None and grey and FORMATS[name].sixteen:
        return Image.fromarray(picture.pixels[..., 0])
    pixels = _eight_bits(picture.pixels)
    image = Image.fromarray(pixels[..., 0] if grey else pixels)
    if picture.alpha is not None:
        opacity = Image.fromarray(_eight_bits(picture.alpha)[..., 0])
        if name == "GIF":
            return _palette_with_clear(image, opacity)
        if not FORMATS[name].alpha:
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
        "icc_profile": profile_for(metadata.icc_profile, 1 if mode in _GREY_MODES else 3),
        "exif": block if fits else None,
        "dpi": metadata.dpi,
    }
    return {key: found[key] for key in FORMATS[name].keeps if found[key]}


_GREY_MODES: Final = {"L", "LA", "I;16"}

_JPEG_MARKER_BYTES: Final = 65533
"""What one segment of a JPEG holds; larger EXIF is left out rather than the picture."""


def _tiff_tags(exif: Image.Exif) -> TiffImagePlugin.ImageFileDirectory_v2:
    """Collect the tags of a TIFF's own directory."""
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[_PREDICTOR] = 2  # differences between neighbours: a quarter smaller on photographs
    for tag, value in sound_tags(exif).items():
        tags[tag] = value
    for directory in DIRECTORIES:
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
            if tag in DIRECTORIES:
                where = file.seek(0, os.SEEK_END)
                where += file.write(b"\0" * (where % 2))  # directories begin on even bytes
                directory = TiffImagePlugin.ImageFileDirectory_v2(prefix=prefix, group=tag)
                directory.update(exif.get_ifd(tag))
                file.write(directory.tobytes(where))
                file.seek(start + 2 + 12 * index + 8)
                file.write(struct.pack(f"{order}L", where))
