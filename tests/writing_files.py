"""Pictures that the tests of writing share."""

import numpy as np
import pytest
from reading_files import HEIGHT, WIDTH, noise

from srcli.imaging.pictures import Album, Picture
from srcli.imaging.writing import write_album

KINDS = [
    pytest.param(dtype, channels, alpha, id=f"{dtype.__name__}-{channels}{'-alpha' * alpha}")
    for dtype in (np.uint8, np.uint16)
    for channels in (1, 3)
    for alpha in (False, True)
]


def of_kind(dtype, channels, *, alpha=False, height=HEIGHT, width=WIDTH, seed=0, **more):
    """Make a picture of noise."""
    sides = {"height": height, "width": width}
    return Picture(
        pixels=noise(channels, dtype, seed, **sides),
        alpha=noise(1, dtype, seed + 1, **sides) if alpha else None,
        **more,
    )


def write(picture, path, **options):
    """Write one picture; give the notes."""
    return write_album(Album(pictures=(picture,)), path, **options)


SMALL = Picture(pixels=noise(3))
