"""Patterns for paths below a folder: those of ``--include`` and ``--exclude``, and ``**``."""

import itertools
import os
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Self

from pathspec.patterns.gitignore.basic import GitIgnoreBasicPattern as Pattern

from srcli.upscaling.selection import Selection

__all__ = ["SEPARATORS", "Filters", "Parts", "compiled", "folded", "matches", "parts_of"]

Parts = tuple[str, ...]
"""A path below a folder: the names on the way."""

SEPARATORS: Final = "/" if os.sep == "/" else "/\\"


def parts_of(text: str) -> Parts:
    """Split a path into its names."""
    names = re.split(f"[{re.escape(SEPARATORS)}]", text)
    return tuple(name for name in names if name not in {"", "."})


def folded(name: str) -> str:
    """Give a name without its case and Unicode form."""
    if name.isascii():
        return name.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def compiled(text: str, fold: Callable[[str], str]) -> Pattern:
    """Read a pattern that is about a whole path, as in a ``.gitignore``.

    A backslash, ``!``, ``#`` and spaces are ordinary characters in it.

    Args:
        text: The pattern; a slash at its end says that it is about folders.
        fold: What the paths go through that it is compared with.
    """
    names = [name if name == "**" else re.sub(r"\*+", "*", name) for name in parts_of(text)]
    # Two ** in a row say what one says, and would be tried in every combination.
    kept = [
        name for name, group in itertools.groupby(names) for _ in ([0] if name == "**" else group)
    ]
    path = re.sub(r"[\\ ]", r"\\\g<0>", fold("/".join(kept)))
    return Pattern(f"/{path}{'/' if text[-1:] in set(SEPARATORS) else ''}")


def matches(pattern: Pattern, path: str) -> bool:
    """Whether a pattern matches a path, or a folder on its way."""
    return pattern.match_file(path) is not None


@dataclass(frozen=True, slots=True)
class Filters:
    """What ``include`` and ``exclude`` leave of what is found."""

    names: tuple[Pattern, ...] = ()
    """Of ``include``, about the file's name alone."""

    paths: tuple[Pattern, ...] = ()
    """Of ``include``, about its path below the folder."""

    exclude: tuple[Pattern, ...] = ()

    @classmethod
    def of(cls, selection: Selection) -> Self:
        """Read the patterns of a selection."""
        by_name = [text for text in selection.include if not set(SEPARATORS) & set(text)]
        by_path = [text for text in selection.include if text not in by_name]
        return cls(*(tuple(map(_filter, some)) for some in (by_name, by_path, selection.exclude)))

    @property
    def included(self) -> bool:
        """Whether there is a pattern that a file must match."""
        return bool(self.names or self.paths)

    def below(self, folder: Parts) -> Self:
        """Leave out the patterns that would exclude a folder which is named itself: it is meant."""
        path = folded("/".join(folder)) + "/"
        return replace(self, exclude=tuple(one for one in self.exclude if not matches(one, path)))

    def takes(self, parts: Parts) -> bool:
        """Whether a file is kept."""
        path = folded("/".join(parts))
        if any(matches(one, path) for one in self.exclude):
            return False
        return (
            not self.included
            or any(matches(one, folded(parts[-1])) for one in self.names)
            or any(matches(one, path) for one in self.paths)
        )

    def enters(self, parts: Parts) -> bool:
        """Whether a folder is searched."""
        if not self.exclude:
            return True
        path = folded("/".join(parts)) + "/"
        return not any(matches(one, path) for one in self.exclude)


def _filter(text: str) -> Pattern:
    """Read a pattern of an option: without a slash before its end it may match anywhere."""
    anchored = set(SEPARATORS) & set(text.rstrip(SEPARATORS))
    return compiled(text if anchored else f"**/{text}", folded)
