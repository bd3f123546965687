"""A picture after it was saved as JPEG: grid phases, grey, and any size and quality."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from reading_files import as_bytes

from srcli.errors import ImageError
from srcli.imaging.encoding import jpeg_roundtrip


@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    channels=st.sampled_from([1, 3]),
    quality=st.integers(1, 100),
    phase=st.tuples(st.integers(0, 15), st.integers(0, 15)),
)
def test_a_phase_is_a_window_of_a_larger_file(height, width, channels, quality, phase):
    """The grid begins where it is told to: the picture continued by its edge, and cut out."""
    picture = np.random.default_rng(quality).integers(0, 256, (height, width, channels), np.uint8)
    larger = np.pad(picture, ((phase[0], 0), (phase[1], 0), (0, 0)), mode="edge")
    file = as_bytes(larger, "JPEG", quality=quality, subsampling="4:2:0")
    expected = np.asarray(Image.open(io.BytesIO(file)))[phase[0] :, phase[1] :]

    found = jpeg_roundtrip(picture, quality, phase)

    np.testing.assert_array_equal(found, expected.reshape(picture.shape))


def test_a_picture_beyond_jpegs_limit_is_refused():
    """A side of 65,500 pixels is saved, the continuation of a phase counted; one more is not."""
    row = np.full((1, 65_500, 1), 77, np.uint8)

    np.testing.assert_array_equal(jpeg_roundtrip(row, 100), row)
    with pytest.raises(ImageError, match=r"^JPEG holds .*, not a picture of 65500x1: degrade it"):
        jpeg_roundtrip(row, 100, (0, 1))
