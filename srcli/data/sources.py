"""Where training and evaluation images come from: CelebA, STL-10, any folder, pairs.

A source is a list of images, each read on its own when it is wanted: three hundred thousand of
them are never in memory together.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from srcli.data.celeba import CelebA
from srcli.data.choices import DATASETS
from srcli.data.folders import Files, Folder, Pairs
from srcli.data.stl10 import STL10
from srcli.errors import UsageError
from srcli.files import is_folder, one_line

__all__ = ["DATASETS", "Source", "absolute", "open_folder", "open_source", "parse"]


Source = Files | STL10
"""A list of images that are read one by one, from any thread."""


def parse(text: str) -> tuple[str, tuple[str, ...]]:
    """Split ``celeba:train,valid`` into the data set and its parts; a folder has none.

    A part that is named twice counts once.

    Raises:
        UsageError: If the data set has no such part.

    Example:
        >>> parse("celeba:train,valid"), parse("photos")
        (('celeba', ('train', 'valid')), ('photos', ()))
    """
    name, _, parts = text.partition(":")
    if name not in DATASETS:
        return text, ()
    named = [part.strip() for part in parts.split(",")] if ":" in text else []
    for part in named:
        if part not in DATASETS[name]:
            known = ", ".join(DATASETS[name])
            raise UsageError(
                f"--dataset {one_line(text)}: {name} has the parts {known}, not {part!r}; choose "
                "among them"
            )
    return name, tuple(dict.fromkeys(named))


def absolute(text: str) -> str:
    """Make a folder independent of the working directory; a data set's name stays."""
    return text if parse(text)[0] in DATASETS else str(Path(text).absolute())


def open_folder(path: Path, scales: Sequence[float], option: str = "--dataset") -> Folder:
    """Open a folder of images, or of pairs if it has ``HR`` and an ``LRx`` with a factor."""
    if is_folder(path / "HR") and any(path.glob("LRx*")):
        return Pairs(path, scales, option)
    return Folder(path, option)


def open_source(
    text: str, data_dir: Path, notice: Callable[[str], None], scales: Sequence[float] = ()
) -> Source:
    """Open what ``--dataset`` names.

    Args:
        text: ``celeba`` or ``stl10``, either with ``:part,part`` behind it, or a folder.
        data_dir: Where the data sets with names lie: the data set's own folder or one above.
        notice: Called with one line for anything worth knowing.
        scales: Factors whose LR images are wanted, where a folder has them.

    Raises:
        DataError: If it is not there, or laid out in another way.
        UsageError: If the data set has no such part.
    """
    name, parts = parse(text)
    if name not in DATASETS:
        return open_folder(Path(text), scales)
    inner = data_dir / name
    root = inner if is_folder(inner) else data_dir
    return CelebA(root, parts, notice) if name == "celeba" else STL10(root, parts, notice)
