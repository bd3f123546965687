"""How large results are."""

from srcli.errors import UsageError
from srcli.ops.spans import MAX_SCALE, output_length
from srcli.upscaling.selection import Selection

__all__ = ["result_size"]


def result_size(selection: Selection, width: int, height: int) -> tuple[int, int]:
    """Return width and height of the result of a picture.

    Args:
        selection: What says the scale, or the size of every result.
        width: Of the picture, pixels.
        height: Of the picture, pixels.

    Raises:
        UsageError: If that is more than the largest factor.
    """
    if selection.size is None:
        return output_length(width, selection.scale), output_length(height, selection.scale)
    factor = selection.size.factor(width, height)
    if factor > MAX_SCALE:
        raise UsageError(
            f"--size {selection.size} is {factor:.4g} times its {width}x{height}; "
            f"choose at most {MAX_SCALE:g} times"
        )
    return selection.size.of(width, height)
