"""The images of an evaluation: HR, and LR that is given or made here by training's degradation."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from srcli.data.degrading import PHASE_DRAWS, degrade
from srcli.data.folders import files_in, lr_images
from srcli.data.loading import named_draws
from srcli.data.pool import open_pool
from srcli.data.sampling import center_patch
from srcli.data.sources import DATASETS, parse
from srcli.errors import DataError, ImageError
from srcli.evaluation.config import EvalConfig
from srcli.files import one_line
from srcli.imaging import images
from srcli.imaging.images import Picture
from srcli.ops.arrays import interleaved, planes
from srcli.ops.color import dequantize, quantize
from srcli.ops.metrics import SSIM_SIDE

__all__ = ["Pair", "list_pairs"]

_GIVE = (
    f"give a folder of HR images, or one with the folders HR and LRx3, or {' or '.join(DATASETS)}; "
    "Set5, Set14 and other such sets have to be downloaded by hand: "
    "https://github.com/XPixelGroup/BasicSR/blob/master/docs/DatasetPreparation.md has the links"
)


class Pair(NamedTuple):
    """An image to score, not read yet."""

    name: str
    """As the report has it."""

    label: str
    """The same for messages: a file has its path."""

    read: Callable[[], tuple[Picture, Picture]]
    """Return HR and LR, HR cut to a whole number of LR pixels."""

    folders: tuple[Path, ...]
    """Where its files lie, among which nothing may be written."""


def list_pairs(config: EvalConfig, on_message: Callable[[str], None]) -> tuple[list[Pair], str]:
    """List the images of a data set, and name LR's origin: a folder, or what degrades HR.

    Raises:
        DataError: If there are no images, or LR of one is missing. Reading a pair raises it if
            the two do not fit each other.
    """
    return (_of_data_set if config.is_named else _of_folder)(config, on_message)


def _of_data_set(config: EvalConfig, on_message: Callable[[str], None]) -> tuple[list[Pair], str]:
    """List the centers of the images of CelebA or STL-10."""
    name, parts = parse(str(config.dataset))
    text = str(config.dataset) if parts else f"{name}:test"
    pool = open_pool([text], config.data_dir, config.seed, on_message).limited(config.limit)

    def read(place: int) -> tuple[Picture, Picture]:
        high = Picture(pixels=interleaved(center_patch(pool.read(place))))
        return _degraded(high, pool.key(place), pool.label(place), config)

    labels = map(pool.label, range(len(pool)))
    pairs = [
        Pair(pool.key(place), label, partial(read, place), (Path(label).parent,))
        for place, label in enumerate(labels)
    ]
    return pairs, str(config.degradation)


def _of_folder(config: EvalConfig, on_message: Callable[[str], None]) -> tuple[list[Pair], str]:
    """List the images of a folder, each with its LR image or with one made here."""
    root = Path(config.dataset)
    highs = _listed(root / "HR" if (root / "HR").is_dir() else root, _GIVE)[: config.limit]
    folder, own = config.lr, root / f"LRx{config.scale:g}"
    if folder is None and own.is_dir() and config.degradation.is_bicubic:
        folder = own
    lows: list[Path | None] = [None] * len(highs)
    if folder is not None:
        found = _listed(folder, "give that of the LR images as --lr")
        lows = [*lr_images(highs, folder, found, config.scale)]
    pairs = [
        Pair(
            high.name,
            str(high),
            partial(_load, high, low, _size(high, low, config, on_message), config),
            tuple(path.parent for path in (high, low) if path is not None),
        )
        for high, low in zip(highs, lows, strict=True)
    ]
    return pairs, str(config.degradation) if folder is None else folder.name


def _listed(folder: Path, advice: str) -> list[Path]:
    """List the images of a folder."""
    found = files_in(folder) if folder.is_dir() else []
    if not found:
        problem = "holds no image" if folder.is_dir() else "is not a folder of images"
        raise DataError(f"{folder} {problem}; {advice}")
    return found


def _size(
    high_path: Path, low_path: Path | None, config: EvalConfig, on_message: Callable[[str], None]
) -> tuple[int, int]:
    """Return the height and width of HR that are scored, by the headers alone.

    What cannot be scored is found before the first image is: the last one would cost an hour.
    """
    headers = [(path, images.read_header(path)) for path in (high_path, low_path) if path]
    for path, header in headers:
        if header.frames > 1:
            on_message(f"{one_line(path)}: the first of its {header.frames} pictures is scored")
    (_, high), (_, low), scale = headers[0], headers[-1], config.scale
    size = _whole(high.height, scale), _whole(high.width, scale)
    if low_path is not None:
        size = round(low.height * scale), round(low.width * scale)
        if not (0 <= high.height - size[0] < scale and 0 <= high.width - size[1] < scale):
            raise DataError(
                f"{low_path} is {low.width}x{low.height}: that is not {high_path} "
                f"({high.width}x{high.height}) reduced by {scale:g}; "
                "give another --lr or --scale"
            )
    if min(size) - 2 * config.border < SSIM_SIDE:
        raise DataError(
            f"{one_line(high_path)} cannot be scored: {high.width}x{high.height} pixels are too "
            f"few for x{scale:g} and a border of {config.border}; take it away"
        )
    return size


def _whole(side: int, scale: float) -> int:
    """Return how many pixels of a side are a whole number of LR pixels."""
    return round(int(side / scale) * scale)


def _load(
    high_path: Path, low_path: Path | None, size: tuple[int, int], config: EvalConfig
) -> tuple[Picture, Picture]:
    """Read HR and LR, or make LR where it has no file."""
    high = images.read(high_path)
    if low_path is None:
        return _degraded(high, high_path.name, str(high_path), config)
    height, width = size
    return Picture(pixels=high.pixels[:height, :width].copy()), images.read(low_path)


def _degraded(high: Picture, name: str, label: str, config: EvalConfig) -> tuple[Picture, Picture]:
    """Make LR by the degradation, its draws following from the image's name."""
    scale = config.scale
    height, width = _whole(high.height, scale), _whole(high.width, scale)
    high = Picture(pixels=high.pixels[:height, :width].copy())
    draws = named_draws(config.seed, name)[None]
    draws[:, PHASE_DRAWS] = 0.0  # a whole picture
    image = dequantize(planes(high.pixels))[None]
    try:
        low = quantize(degrade(image, scale, config.degradation, draws))[0]
    except ImageError as error:
        raise ImageError(f"{one_line(label)}: {error}") from error
    return high, Picture(pixels=interleaved(low))
