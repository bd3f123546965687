"""What a format cannot hold of an album's pictures, in words for the user."""

from collections.abc import Iterable
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
    name, form, held = how.format, FORMATS[how.format], held_by(album, how.format)
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
        "transparency that is on or off: rounded": gif and any(map(_is_half, held)),
        "8 bits a channel: rounded from 16": deep and not form.sixteen,
        "animations of 8 bits a channel: rounded from 16": (
            deep and form.sixteen and len(held) > 1 and not form.pages
        ),
        "255 colours a frame: reduced": gif and not all(map(_has_few_colours, held)),
        "hundredths of a second: durations rounded": (
            gif and any((each.duration or 0) % 10 for each in held)
        ),
    }
    lines = [f"{name} holds {loss}" for loss, is_lost in losses.items() if is_lost]
    if several and timed and name == "AVIF" and plays:
        lines.append("AVIF does not say how often it plays: for ever")
    lines += [line for each in metadata for line in each.notes]
    if how.lossless and name in _NEVER_LOSSLESS:
        lines.append(_NEVER_LOSSLESS[name])
    return tuple(dict.fromkeys(lines))


_NEVER_LOSSLESS: Final = {
    "JPEG": "JPEG is never lossless: written at its quality",
    "AVIF": "AVIF is never quite lossless: off by a few levels",
}


def _is_half(picture: Picture) -> bool:
    alpha = np.zeros(0, np.uint8) if picture.alpha is None else picture.alpha
    return bool(((alpha > 0) & (alpha < np.iinfo(alpha.dtype).max)).any())


def _has_few_colours(picture: Picture) -> bool:
    clear = clear_of(picture)
    pixels = rounded(picture.pixels)[~clear][None]
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    return not pixels.size or image.getcolors(MOST_COLOURS - bool(clear.any())) is not None
