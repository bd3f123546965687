"""What may be wrong with image files, in words: too large, damaged, not there; and silence."""

import errno
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from PIL import Image, UnidentifiedImageError

from srcli.errors import ImageError
from srcli.files import one_line, reason

MAX_PIXELS: Final = 178_956_970
"""Most pixels of a file, all frames together, unless more are asked for.

Where Pillow calls a file a decompression bomb: twice its ``MAX_IMAGE_PIXELS``.
"""


@contextmanager
def named(path: Path, limit: int = MAX_PIXELS) -> Iterator[None]:
    """Report whatever goes wrong with a file as one ``ImageError`` that names it."""
    try:
        yield
    # Decoders are fed hostile bytes and raise whatever their parsing runs into:
    # OSError, SyntaxError, ValueError, struct.error, EOFError, KeyError, ZeroDivisionError...
    # All of it means the same to a user: this file is not readable.
    except Exception as error:
        raise ImageError(f"{one_line(str(path))}: {problem_of(error, limit)}") from error


def check_pixels(size: tuple[int, int], frames: int, limit: int) -> None:
    """Refuse, by an ImageError, what would take more memory than was agreed to."""
    width, height = size
    if width * height * frames > limit:
        several = f"{frames} frames of " if frames > 1 else ""
        raise ImageError(f"{several}{width}x{height} pixels {too_many(limit)}")


def too_many(limit: int) -> str:
    """Say that pixels are more than a limit, and the way out."""
    if limit == MAX_PIXELS:
        most = f"the {limit / 1e6:.0f} million that are decoded by default"
    else:
        most = f"the {limit} that --max-pixels allows"
    return f"are more than {most} (a decompression bomb?); raise --max-pixels if you trust it"


_PROBLEMS: Final[tuple[tuple[tuple[type[Exception], ...], str], ...]] = (
    ((FileNotFoundError, NotADirectoryError), "no such file; check the path"),
    ((IsADirectoryError,), "a folder, not an image file; name files in it"),
    ((PermissionError,), "no permission to read it; change its permissions"),
    (
        (UnidentifiedImageError,),
        "not an image in a known format, or damaged at its start; convert it to PNG or JPEG",
    ),
    ((MemoryError,), "does not fit into memory; cut it into parts"),
)

_TRUNCATION: Final = re.compile(
    r"truncated(?! \w+ chunk)|not enough|unexpected end|premature end of jpeg image|end of file|eof"
    "|(?<!libpng )read error",
    re.IGNORECASE,
)

_FOREIGN: Final = re.compile(
    "^unsupported|not configured|whole number of bytes|^not 1 bands", re.IGNORECASE
)


def _is_of_system(error: Exception) -> bool:
    """Whether the system refused; but codecs seek to nonsense offsets, which it calls invalid."""
    return isinstance(error, OSError) and error.errno not in {None, errno.EINVAL}


def is_no_damage(error: Exception) -> bool:
    """Whether the reason is not in the file: memory, a limit, the disk."""
    return isinstance(error, MemoryError | Image.DecompressionBombError) or _is_of_system(error)


def problem_of(error: Exception, limit: int = MAX_PIXELS) -> str:
    """Say what is wrong with a file whose opening or decoding raised this, and a way out."""
    if isinstance(error, ImageError):
        return str(error)
    if isinstance(error, Image.DecompressionBombError):
        claimed = re.search(r"\((\d+) pixels\)", str(error))
        return f"{claimed[1] if claimed else 'its'} pixels {too_many(limit)}"
    for types, problem in _PROBLEMS:
        if isinstance(error, types):
            return problem
    if _is_of_system(error):
        return f"cannot be read ({reason(error)}); check the path and the disk"
    if isinstance(error, EOFError) or _TRUNCATION.search(str(error)):
        return "truncated, its end is missing; fetch the file again"
    foreign = _FOREIGN.search(str(error))
    what = "of a kind that is not read" if foreign else "damaged"
    return f"{what} ({reason(error)}); {'convert it to PNG' if foreign else 'fetch the file again'}"


class _PillowSilence:
    """Keeps Pillow from warning, and sets its limit of pixels, while any thread is inside.

    ``warnings.catch_warnings`` alone is not enough: it swaps process-wide state, and two
    threads that leave in another order than they entered would leave it swapped.
    """

    def __init__(self) -> None:
        self._lock, self._inside, self._before = threading.Lock(), list[int](), ExitStack()

    @contextmanager
    def up_to(self, pixels: int = 0) -> Iterator[None]:
        """Keep silence, and let Pillow open pictures of so many pixels; 0: of as many as before.

        Pillow has one limit for the whole process, which protects the program's other threads as
        well: the most generous one's holds, and each has to check its own besides.
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


PILLOW_SILENCE: Final = _PillowSilence()
