"""Batches of patches: images read in threads or kept in memory, and cut on the CPU or GPU."""

import math
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count
from typing import TypeVar

import torch
from torch import Tensor

from srcli.data.degrading import DRAWS
from srcli.data.pool import Pool
from srcli.data.sampling import Cut, Resident, Sampler, center_patch, cut_patch, derive_seed
from srcli.errors import DataError, ImageError
from srcli.ops.spans import PATCH

__all__ = ["Batch", "Centers", "Loader", "named_draws"]

_RESIDENT_BYTES = 2 << 30
"""Decoded images of a CPU run stay in memory up to this; a larger set is decoded as needed."""

_RESIDENT_SHARE = 0.4
"""Share of a GPU's free memory that decoded images may take."""

_UNREADABLE_SHARE = 0.01
"""More unreadable images than this share of a set end the run: something is wrong with it."""


_Read = TypeVar("_Read")


@dataclass(frozen=True, slots=True)
class Batch:
    """HR patches and how each is to be degraded."""

    patches: Tensor
    """``(N, 3, 120, 120)`` ``uint8``, on the loader's device."""

    scales: list[float]
    """N scale factors."""

    draws: Tensor
    """``(N, DRAWS)`` uniform numbers that the degradation is drawn from, on the CPU."""

    lows: Mapping[int, Tensor] = field(default_factory=dict)
    """Of the rows that are cut from pairs LR, ``(3, h, w)`` ``uint8``; the others' is made."""

    def part(self, rows: slice) -> "Batch":
        """Return some of the rows."""
        numbers = range(len(self.scales))[rows]
        lows = {row - numbers.start: low for row, low in self.lows.items() if row in numbers}
        return Batch(self.patches[rows], self.scales[rows], self.draws[rows], lows)


class Loader:
    """Reads patches of a pool: out of memory where it fits, else in worker threads.

    Which of the two changes the speed and nothing else. Decoders and copies run outside Python's
    lock, so threads keep the cores busy; and unlike processes they need no second torch, no shared
    memory, and die with the run.

    Args:
        pool: The images.
        device: Where patches are wanted.
        workers: Threads that decode.
        resident: Whether decoded images are kept; None: where they fit into 2 GiB, or into
            two fifths of a GPU's free memory.

    Raises:
        DataError: If none, or more than one in a hundred, cannot be read.
    """

    def __init__(
        self, pool: Pool, device: torch.device, *, workers: int, resident: bool | None = None
    ) -> None:
        self.pool = pool
        self.failures: dict[int, str] = {}
        """Why images could not be read, by their place; of those tried so far."""
        self._device, self._workers = device, workers
        if resident is None:
            resident = _mean_bytes(pool) * len(pool) <= _room(device)
        self.resident = resident
        """Whether the decoded images are kept in memory: on a GPU in its own."""
        self._kept: list[Tensor | None] = []
        self._on_gpu: Resident | None = None
        if resident:
            with ThreadPoolExecutor(workers) as threads:
                images = threads.map(self._try, range(len(pool)))
                if device.type != "cpu":
                    self._on_gpu = Resident(images, device)
                else:
                    self._kept = list(images)
        self._lows: dict[tuple[int, float], Tensor] = {}

    def areas(self) -> list[int]:
        """Count each image's pixels; zero for one whose header cannot be read.

        An image that is damaged behind its header counts, decoded already or not: what is drawn
        must not depend on where images are kept.
        """
        with ThreadPoolExecutor(self._workers) as threads:
            return list(threads.map(self._area, range(len(self.pool))))

    def batches(
        self, sampler: Sampler, start: int, size: int, rows: slice = slice(None)
    ) -> Generator[Batch]:
        """Read what is drawn for all steps from ``start`` on, in order and without end.

        Of ``size`` patches of a batch this process wants some ``rows``. ``DataError`` if more than
        one image in a hundred cannot be read.
        """
        if self._on_gpu is not None:
            # The copies are queued on the device at once: there is nothing to wait for.
            for step in count(start):
                yield self._batch(sampler, step, size, rows)
        with ThreadPoolExecutor(self._workers) as threads:
            waiting: deque[Future[Batch]] = deque()
            try:
                for step in count(start):
                    waiting.append(threads.submit(self._batch, sampler, step, size, rows))
                    if len(waiting) > 2 * self._workers:
                        yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()

    def _batch(self, sampler: Sampler, step: int, size: int, rows: slice) -> Batch:
        draw = sampler.draw(step, size)
        scales = draw.scales[rows]
        patches, cuts = self._cut(list(zip(draw.cuts[rows], scales, strict=True)))
        lows = {row: self._low(cut, scales[row]) for row, cut in enumerate(cuts) if cut.grid > 1}
        return Batch(patches, scales, draw.degradation[rows], lows)

    def _cut(self, wanted: Sequence[tuple[Cut, float]]) -> tuple[Tensor, list[Cut]]:
        """Cut patches and say where; the next image that can be read stands in."""
        if self._on_gpu is not None:
            cuts = [self._placed(cut, self._sound(cut.image), scale) for cut, scale in wanted]
            return self._on_gpu.cut(cuts), cuts
        cuts = []
        patches = torch.empty(len(wanted), 3, PATCH, PATCH, dtype=torch.uint8)
        for patch, (cut, scale) in zip(patches, wanted, strict=True):
            place, image = self._readable(cut.image)
            cuts.append(self._placed(cut, place, scale))
            patch.copy_(cut_patch(image, cuts[-1]))  # the image may go
        if self._device.type == "cuda":
            patches = patches.pin_memory().to(self._device, non_blocking=True)
        return patches, cuts

    def _placed(self, cut: Cut, place: int, scale: float) -> Cut:
        return cut._replace(image=place, grid=int(scale) if self.pool.has_low(place) else 1)

    def _low(self, cut: Cut, scale: float) -> Tensor:
        """Cut what LR has of a patch of HR."""
        image = self._lows.get((cut.image, scale))
        if image is None:
            image = self.pool.read_low(cut.image, scale)
            if self.resident:
                self._lows[cut.image, scale] = image
        low = cut_patch(image, cut._replace(grid=1), PATCH // cut.grid)
        return low.to(self._device, non_blocking=True)

    def _sound(self, place: int) -> int:
        while place in self.failures:
            place = (place + 1) % len(self.pool)
        return place

    def _readable(self, place: int) -> tuple[int, Tensor]:
        while (image := self._try(place)) is None:
            # Else a thread might search forever where all images have failed.
            _check_failures(self.failures, len(self.pool))
            place = (place + 1) % len(self.pool)
        return place, image

    def _try(self, place: int) -> Tensor | None:
        if place in self.failures:
            return None
        if self._kept:
            return self._kept[place]
        return self._attempt(self.pool.read, place)

    def _area(self, place: int) -> int:
        return math.prod(self._attempt(self.pool.size, place) or (0,))

    def _attempt(self, read: Callable[[int], _Read], place: int) -> _Read | None:
        try:
            return read(place)
        except ImageError as error:
            self.failures.setdefault(place, str(error))
            _check_failures(self.failures, len(self.pool))
            return None


class Centers:
    """The patches in the middle of some images, the same ones whenever they are asked for."""

    def __init__(
        self, pool: Pool, places: Sequence[int], device: torch.device, *, workers: int, size: int
    ) -> None:
        self.count = len(places)
        self._pool, self._places, self._device = pool, list(places), device
        self._workers, self._size = workers, size
        self.failures: dict[int, str] = {}
        """Why images could not be read, by their place; of those tried so far."""
        self._cached: dict[tuple[tuple[float, ...], int], list[Batch]] = {}
        self.keeps = 3 * PATCH**2 * self.count <= _room(device) / 2
        """Whether the patches are read once and stay in memory."""

    def batches(self, scales: Sequence[float], seed: int) -> Iterator[Batch]:
        """Read all patches in the order of the places; unreadable images are left out.

        The images of the pool have the factors in turn; their degradation is drawn from the seed
        and their names. ``DataError`` if more than one in a hundred of the set cannot be read.
        """
        asked, kept = (tuple(scales), seed), []
        for batch in self._cached.get(asked) or self._read(scales, seed):
            if self.keeps:
                kept.append(batch)
            yield batch
        self._cached = {asked: kept}

    def _read(self, scales: Sequence[float], seed: int) -> Iterator[Batch]:
        with ThreadPoolExecutor(self._workers) as threads:
            for begin in range(0, self.count, self._size):
                places = self._places[begin : begin + self._size]
                factors = [scales[place % len(scales)] for place in places]
                read = zip(places, factors, threads.map(self._center, places, factors), strict=True)
                found = [(place, scale, *cut) for place, scale, cut in read if cut is not None]
                if not found:
                    continue
                where, scaled, patches, lows = zip(*found, strict=True)
                yield Batch(
                    torch.stack(patches).to(self._device),
                    list(scaled),
                    torch.stack([named_draws(seed, self._pool.key(place)) for place in where]),
                    {row: low.to(self._device) for row, low in enumerate(lows) if low is not None},
                )

    def _center(self, place: int, scale: float) -> tuple[Tensor, Tensor | None] | None:
        """Cut the middle of an image, and of its LR if it has any; None if it is damaged."""
        try:
            image = self._pool.read(place)
            if not self._pool.has_low(place):
                return center_patch(image), None
            grid = int(scale)
            low = self._pool.read_low(place, scale)
            return center_patch(image, grid), center_patch(low, side=PATCH // grid)
        except ImageError as error:
            self.failures[place] = str(error)
            # One failure among the few images read here says little about the set.
            _check_failures(self.failures, self._pool.total)
            return None


def named_draws(seed: int, name: str) -> Tensor:
    """Draw the uniform numbers of a named image's degradation: ``(DRAWS,)``."""
    generator = torch.Generator().manual_seed(derive_seed(seed, f"degradation of {name}"))
    return torch.rand(DRAWS, generator=generator, dtype=torch.float64)


def _check_failures(failures: Mapping[int, str], total: int) -> None:
    if len(failures) > _UNREADABLE_SHARE * total:
        first, *_ = failures.values()  # a copy at once: other threads may be adding to it
        raise DataError(
            f"{len(failures)} of {total} images cannot be read, more than "
            f"{_UNREADABLE_SHARE:.0%}: remove or replace them; the first: {first}"
        )


def _mean_bytes(pool: Pool) -> float:
    """Estimate the bytes of a decoded image from a few hundred headers."""
    sizes = []
    for place in range(0, len(pool), max(1, len(pool) // 256)):
        try:
            sizes.append(3 * math.prod(pool.size(place)))
        except ImageError:  # it is counted when it is read
            continue
    return sum(sizes) / max(1, len(sizes))


def _room(device: torch.device) -> float:
    """Return how many bytes of decoded images may stay in memory."""
    if device.type == "cuda":
        return _RESIDENT_SHARE * torch.cuda.mem_get_info(device)[0]
    return _RESIDENT_BYTES
