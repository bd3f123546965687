"""What a format cannot hold of an album's pictures, in words for the user."""

from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np
from PIL import Image

from srcli.imaging.embedding import Embedded
from srcli.imaging.encoding import MOST_COLOURS, Encoding, clear_of
from srcli.imaging.formats import FORMATS
from srcli.imaging.pictures import Album, Picture, rounded


def held_by(album: Album, name: str) -> tuple[Picture, ...]:
    """Return the pictures of an album that a format holds."""
    pictures, form = album.pictures, FORMATS[name]
    if form.pages or (form.frames and _are_alike(pictures)):
        return pictures
    return pictures[:1]


def _are_alike(pictures: tuple[Picture, ...]) -> bool:
    """Whether pictures are of one size and kind, as the frames of an animation are."""
    kinds = {(each.pixels.shape, each.pixels.dtype, each.alpha is None) for each in pictures}
    return len(kinds) == 1


def notes_of(album: Album, how: Encoding, metadata: Iterable[Embedded]) -> tuple[str, ...]:
    """Say what a format cannot hold of an album, with what it stores besides the pixels.

    Returns:
        One short line for each loss, without a file name; of the same words for every album
        with the same losses.
    """
    name = how.format
    pictures = held_by(album, name)
    ways = (_lost_pictures, _lost_alpha, _lost_depth, _lost_colours)
    lines = [line for way in ways for line in way(album, pictures, name)]
    lines += [line for each in metadata for line in each.notes]
    if how.lossless and name in _NEVER_LOSSLESS:
        lines.append(_NEVER_LOSSLESS[name])
    return tuple(dict.fromkeys(lines))


_NEVER_LOSSLESS: Final = {
    "JPEG": "JPEG is never lossless: written at its quality",
    "AVIF": "AVIF is never quite lossless: off by a few levels",
}

_Held = tuple[Picture, ...]


def _lost_pictures(album: Album, held: _Held, name: str) -> Iterator[str]:
    count, form = len(album.pictures), FORMATS[name]
    if count == 1:
        return
    timed = album.pictures[0].duration is not None
    if len(held) < count:
        room = "frames of one size and kind" if form.frames else "one picture"
        yield f"{name} holds {room}: the first of {count} {'frames' if timed else 'pages'}"
    elif form.pages and timed:
        yield f"{name} holds no timing: frames become pages"
    elif form.frames and not timed:
        yield f"{name} holds no pages: shown for a second each"
    elif name == "AVIF" and (album.loop or (album.loop is None and album.format != name)):
        yield "AVIF does not say how often it plays: for ever"


def _lost_alpha(_: Album, held: _Held, name: str) -> Iterator[str]:
    if not FORMATS[name].alpha and any(each.alpha is not None for each in held):
        yield f"{name} holds no transparency: laid over white"
    if name == "GIF" and any(each.alpha is not None and _is_half(each) for each in held):
        yield "GIF holds transparency that is on or off: rounded"


def _is_half(picture: Picture) -> bool:
    alpha = np.zeros(0, np.uint8) if picture.alpha is None else picture.alpha
    return bool(((alpha > 0) & (alpha < np.iinfo(alpha.dtype).max)).any())


def _lost_depth(_: Album, held: _Held, name: str) -> Iterator[str]:
    if any(each.pixels.dtype == np.uint16 for each in held):
        if not FORMATS[name].sixteen:
            yield f"{name} holds 8 bits a channel: rounded from 16"
        elif len(held) > 1 and not FORMATS[name].pages:
            yield f"{name} holds animations of 8 bits a channel: rounded from 16"


def _lost_colours(_: Album, held: _Held, name: str) -> Iterator[str]:
    if name != "GIF":
        return
    if not all(map(_has_few_colours, held)):
        yield "GIF holds 256 colours a frame: reduced"
    if any((each.duration or 0) % 10 for each in held):
        yield "GIF holds hundredths of a second: durations rounded"


def _has_few_colours(picture: Picture) -> bool:
    clear = clear_of(picture)
    pixels = rounded(picture.pixels)[~clear][None]
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    return not pixels.size or image.getcolors(MOST_COLOURS - bool(clear.any())) is not None
