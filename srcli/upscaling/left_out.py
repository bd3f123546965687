"""What a search meets and does not take: no photograph is passed over in silence."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from srcli.files import one_line
from srcli.imaging.formats import EXTRAS

__all__ = ["LeftOut", "listed"]

_NO_SUFFIX: Final = "without a suffix"


@dataclass(slots=True)
class LeftOut:
    """What was left out of a plan."""

    unread: dict[str, str] = field(default_factory=dict)
    """Pictures of kinds that are not read: the suffix of each in lower case, by its path."""

    results: list[str] = field(default_factory=list)
    """Results of earlier runs beside their originals."""

    deeper: list[str] = field(default_factory=list)
    """Folders in whose folders there are pictures."""

    def add_unread(self, path: str) -> None:
        """Count a picture of a kind that is not read, once."""
        suffix = os.path.splitext(path)[1].lower()  # noqa: PTH122 - as the search does
        self.unread[os.path.abspath(path)] = suffix or _NO_SUFFIX  # noqa: PTH100

    def kinds(self) -> dict[str, int]:
        """Count the pictures of each kind that is not read, the most frequent first."""
        return dict(Counter(self.unread.values()).most_common())

    def lines(self) -> list[str]:
        """Say what was left out, and the way out: a line each."""
        lines = []
        if self.unread:
            kinds = (f"{count} {_hinted(kind)}" for kind, count in self.kinds().items())
            files = _several(len(self.unread), "file")
            lines.append(f"{files} left out, of kinds that are not read: {', '.join(kinds)}")
        if self.results:
            results = _several(len(self.results), "result")
            lines.append(
                f"{results} of earlier runs left out: {listed(self.results)}; "
                "give one without its original to enlarge it"
            )
        if self.deeper:
            lines.append(
                f"pictures in folders below {listed(self.deeper)} left out; search them with -r"
            )
        return lines


def listed(names: Sequence[str | Path], most: int = 5) -> str:
    """Name the first of several, and count the others."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(one_line(str(name)) for name in names[:most]) + more


def _several(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _hinted(kind: str) -> str:
    extra = EXTRAS.get(kind)
    return one_line(kind) if extra is None else f"{kind} (pip install 'srcli[{extra}]' reads them)"
