"""Image files out: pictures to files that appear whole or not at all."""

import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
from PIL import Image

from srcli.errors import OutputError
from srcli.files import one_line, reason, replacing
from srcli.imaging.colour import to_srgb
from srcli.imaging.embedding import embedded, holds_profile
from srcli.imaging.encoding import Encoding, encode, image_of
from srcli.imaging.formats import FORMAT_BY_SUFFIX, FORMATS, streams
from srcli.imaging.opening import PILLOW_SILENCE
from srcli.imaging.pictures import Album, Picture, eight_bits, over_white
from srcli.imaging.streaming import Rows, write_by_rows


def check_size(path: Path, width: int, height: int) -> None:
    """Find out before the work whether a file's format can hold so many pixels: OutputError."""
    with _named(one_line(str(path))):
        _check_size(width, height, FORMAT_BY_SUFFIX[path.suffix.lower()])


def write_album(
    album: Album, path: Path, *, quality: int = 95, lossless: bool = False
) -> tuple[str, ...]:
    """Encode all pictures of an album into a file that appears whole or not at all.

    The same album gives the same bytes every time, but for an animated AVIF, which holds when it
    was written.

    Args:
        album: What to write; what the format cannot hold is adapted.
        path: Where; its suffix names the format. An existing file is replaced.
        quality: 0 to 100 for JPEG (always without chroma subsampling), WebP, AVIF.
        lossless: Encode WebP without loss, and AVIF at its best, which is within a few levels.
            What was lossless WebP is encoded so in any case.

    Returns:
        What the format could not hold, a short line each.

    Raises:
        OutputError: If a picture is too large for the format, or the file cannot be written.
    """
    with _named(one_line(str(path))):
        name = FORMAT_BY_SUFFIX[path.suffix.lower()]
        how = Encoding(format=name, quality=quality, lossless=lossless)
        with _appearing(path, album.pictures[0].metadata.modified) as stream:
            return _encode(album, stream, how)


def write_rows(
    bands: Iterable[Picture],
    path: Path,
    *,
    height: int,
    quality: int = 95,
    lossless: bool = False,
) -> tuple[str, ...]:
    """Encode one picture while it comes, into a file that appears whole or not at all.

    The file is the one that :func:`write_album` writes of the whole picture, byte for byte,
    however the picture was cut; 64 MB of memory at most are needed besides the band.

    Args:
        bands: Parts of the picture as wide as the whole, from top to bottom, with the same
            channels, depth and metadata, ``height`` rows together. It is gone through in this
            thread; what a band holds is not read again once the next one is asked for.
        path: Where; its suffix names a format of which :func:`streams` is true, and that holds
            so many pixels (:func:`check_size`).
        height: Rows of the whole picture.
        quality: As for :func:`write_album`, and so what is returned and raised.
        lossless: What JPEG is not, which is said.
    """
    with _named(one_line(str(path))):
        name = FORMAT_BY_SUFFIX[path.suffix.lower()]
        rows = Rows(bands, height=height, fit=partial(_fitted, name=name))
        how = Encoding(format=name, quality=quality, lossless=lossless)
        lost: dict[str, None] = {}
        metadata = embedded(rows.raw, name, lost)
        with _appearing(path, rows.raw.metadata.modified) as stream:
            write_by_rows([rows], stream, how, [metadata])
            return _notes_of(Album(pictures=(rows.raw,)), how, lost)


def write_stream(
    album: Album,
    stream: BinaryIO,
    *,
    format: str,  # noqa: A002 - what it is called everywhere
    quality: int = 95,
    lossless: bool = False,
) -> tuple[str, ...]:
    """Encode all pictures of an album into a stream, such as standard output.

    Nothing is written before everything is encoded; the stream stays open. ``format`` is Pillow's
    name; what is not said here is as for :func:`write_album`.
    """
    where = one_line(str(getattr(stream, "name", "stream")))
    with _named(where):
        whole = io.BytesIO()
        how = Encoding(format=format, quality=quality, lossless=lossless)
        with PILLOW_SILENCE.up_to():
            notes = _encode(album, whole, how)
        stream.write(whole.getbuffer())
        stream.flush()
        return notes


def to_pillow(picture: Picture) -> Image.Image:
    """Hand a picture to Pillow, with its profile, EXIF, XMP and resolution.

    Its mode is ``L``, ``LA``, ``RGB``, ``RGBA``, or ``I;16`` for grey of 16 bits without
    transparency; other levels of 16 bits are rounded to 8.
    """
    image = image_of(picture)
    found = embedded(picture, "PNG", {})
    kept = {name: getattr(found, name) for name in ("icc_profile", "exif", "xmp", "dpi")}
    image.info |= {key: value for key, value in kept.items() if value}
    return image


# ---- before the encoding ------------------------------------------------------------------


def _check_size(width: int, height: int, name: str) -> None:
    limit = FORMATS[name].longest
    if limit is not None and max(width, height) > limit:
        raise OutputError(
            f"{width}x{height} pixels exceed the {limit} a side that {name} "
            "can hold; write PNG or TIFF"
        )


@contextmanager
def _named(where: str) -> Iterator[None]:
    """Report whatever encoders raise as one ``OutputError`` of one line."""
    try:
        yield
    except Exception as error:
        if isinstance(error, OutputError):
            problem = str(error)
        elif isinstance(error, MemoryError):
            problem = "encoding it does not fit into memory; write BMP or PPM"
        elif isinstance(error, OSError) and error.errno is not None:
            problem = f"cannot be written ({reason(error)}); choose another place"
        else:
            problem = f"cannot be encoded ({reason(error)}); choose another format"
        raise OutputError(f"{where}: {problem}") from error


@contextmanager
def _appearing(path: Path, modified: int | None) -> Iterator[BinaryIO]:
    """Open a stream into a file that appears when the block succeeds, as changed at a time."""
    with (
        PILLOW_SILENCE.up_to(),
        replacing(path, modified) as temporary,
        io.BufferedRandom(_Sink(temporary, "wb+")) as stream,
    ):
        yield stream


class _Sink(io.FileIO):
    """A file that hides its descriptor, to which Pillow would write, and forget what failed."""

    def fileno(self) -> int:
        raise io.UnsupportedOperation


# ---- what a format can hold ---------------------------------------------------------------


def _encode(album: Album, stream: BinaryIO, how: Encoding) -> tuple[str, ...]:
    """Encode what a format holds of an album; return what it could not hold."""
    held, fit = _held_by(album, how.format), partial(_fitted, name=how.format)
    for picture in held:
        _check_size(picture.width, picture.height, how.format)
    kept = how.format == "WEBP" and album.coding is not None and album.coding.lossless
    how = replace(how, lossless=how.lossless or kept, loop=album.loop)
    lost: dict[str, None] = {}
    metadata = [embedded(picture, how.format, lost) for picture in held]
    if streams(how.format) and (len(held) == 1 or how.format == "TIFF"):
        write_by_rows([Rows.of(each, fit=fit) for each in held], stream, how, metadata)
    else:
        encode([fit(picture) for picture in held], stream, how, metadata[0])
    return _notes_of(album, how, lost)


def _fitted(picture: Picture, name: str) -> Picture:
    """Adapt a picture to a format, pixel by pixel."""
    form = FORMATS[name]
    if not holds_profile(picture, name):
        picture = to_srgb(picture)
    if not form.alpha:
        picture = over_white(picture)
    return picture if form.sixteen else eight_bits(picture)


def _held_by(album: Album, name: str) -> tuple[Picture, ...]:
    """Return the pictures of an album that a format holds: frames are of one size and kind."""
    pictures, form = album.pictures, FORMATS[name]
    kinds = {(each.pixels.shape, each.pixels.dtype, each.alpha is None) for each in pictures}
    return pictures if form.pages or (form.frames and len(kinds) == 1) else pictures[:1]


# ---- what it cannot hold ------------------------------------------------------------------


def _notes_of(album: Album, how: Encoding, lost: Iterable[str]) -> tuple[str, ...]:
    """Say in a short line each what a format cannot hold of an album, its metadata's losses too."""
    name, form, held = how.format, FORMATS[how.format], _held_by(album, how.format)
    count, timed = len(album.pictures), album.pictures[0].duration is not None
    several, gif = len(held) == count > 1, name == "GIF"
    clear = any(each.alpha is not None for each in held)
    deep = any(each.pixels.dtype == np.uint16 for each in held)
    plays = album.loop or (album.loop is None and album.format != name)
    room = "frames of one size and kind" if form.frames else "one picture"
    losses = {
        f"{room}: the first of {count} {'frames' if timed else 'pages'}": len(held) < count,
        "no timing: frames become pages": several and form.pages and timed,
        "no pages: shown for a second each": several and form.frames and not timed,
        "no transparency: laid over white": clear and not form.alpha,
        "transparency that is on or off: rounded": gif and clear,
        "8 bits a channel: rounded from 16": deep and not form.sixteen,
        "animations of 8 bits a channel: rounded from 16": (
            deep and form.sixteen and len(held) > 1 and not form.pages
        ),
        "255 colours a frame: reduced": gif,
        "hundredths of a second: durations rounded": (
            gif and any((each.duration or 0) % 10 for each in held)
        ),
    }
    lines = [f"{name} holds {loss}" for loss, is_lost in losses.items() if is_lost]
    if several and timed and name == "AVIF" and plays:
        lines.append("AVIF does not say how often it plays: for ever")
    lines += lost
    if how.lossless and name in _NEVER_LOSSLESS:
        lines.append(_NEVER_LOSSLESS[name])
    return tuple(dict.fromkeys(lines))


_NEVER_LOSSLESS: Final = {
    "JPEG": "JPEG is never lossless: written at its quality",
    "AVIF": "AVIF is never quite lossless: off by a few levels",
}
