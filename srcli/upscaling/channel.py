"""Finished rows on their way from the net to a thread that writes them."""

import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import suppress
from queue import Full, Queue
from typing import Any, Final

from srcli.imaging.images import Picture

__all__ = ["BANDS_HELD", "Abandoned", "Channel"]

_BANDS_WAITING: Final = 1
"""Finished bands of rows that wait for an encoder."""

BANDS_HELD: Final = _BANDS_WAITING + 2
"""Bands beside the one that is computed: one is handed on, one is encoded."""

_POLL_SECONDS: Final = 0.1
"""Between two looks whether a writer is still there."""


class Abandoned(Exception):  # noqa: N818 - it ends a file, but nothing went wrong
    """Says to a writer that there will be no more rows, or to the net that none are wanted."""


class Channel:
    """Bands of rows from one thread to another, a few at a time."""

    def __init__(self) -> None:
        self.ended = 0.0
        """When the last band was put in."""

        self._waiting: Queue[Picture | Exception | None] = Queue(_BANDS_WAITING)

    def put(self, item: Picture | Exception | None, reader: Future[Any]) -> bool:
        """Hand on a band, the end (None), or why there is none; False if the reader is gone."""
        self.ended = time.perf_counter()
        while not reader.done():
            with suppress(Full):
                self._waiting.put(item, timeout=_POLL_SECONDS)
                return True
        return False

    def __iter__(self) -> Iterator[Picture]:
        while (item := self._waiting.get()) is not None:
            if isinstance(item, Exception):
                raise item
            yield item
