"""How much is computed at a time, and what an enlargement takes: memory and seconds."""

import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from srcli.model.patches import SLICE_ROWS, Layout, Rows, Step

__all__ = ["BatchPlan", "BatchPlans", "SpeedMeasure", "estimated_bytes"]

_FUSE = {"cpu": 6, "gpu": 8}
"""Patches per side of a block with ``tile=auto``: the larger it is, the less context is computed
twice. In bf16 on two Zen 4 cores blocks of 2, 4, 6 and 12 patches took 0.43, 0.33, 0.30 and 0.28 s
per megapixel; six is where the gain ends that is worth its memory."""

_BATCH = {"cpu": 1, "gpu": 8}
"""Windows per forward pass: a CPU gains nothing by several, and a fused block is a batch."""

_PIXEL_BYTES, _POSITION_BYTES = 190, 2000
"""Bytes that ``base`` needs for each pixel of a window, its input and result included, and for each
position of its highest level. Estimates, x2 to x6 in fp32, were 0.93 to 1.08 of measured peaks."""

_STEP_BYTES = 80
"""Bytes for each pixel of a window that every step before the last adds to the peak: freed blocks
of another size are not all reused."""

_FLOAT_BYTES = 4 * 3
"""Bytes of an RGB pixel of an intermediate step."""

_ENOUGH_SECONDS, _MOST_PASSES = 2.0, 5
"""A measurement is repeated until it has taken so long, or so often; the fastest pass counts,
because what else the machine does only adds."""


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """How much is computed at a time."""

    fuse: int
    """Patches per side of a block."""

    batch: int
    """Blocks per forward pass."""


class BatchPlans:
    """The batch plan in use, which becomes smaller when memory runs out; safe between threads.

    Args:
        device: Where the net runs.
        fuse: Whether neighbouring patches may be fused into blocks.
        batch_size: Blocks per forward pass; None chooses.
        notice: Called with a line at the first fallback.
    """

    def __init__(
        self,
        device: torch.device,
        *,
        fuse: bool,
        batch_size: int | None,
        notice: Callable[[str], None],
    ) -> None:
        kind = "cpu" if device.type == "cpu" else "gpu"
        self.current = BatchPlan(_FUSE[kind] if fuse else 1, batch_size or _BATCH[kind])
        """The plan that memory has held so far."""

        self._device, self._first, self._notice = device, self.current, notice
        self._lock = threading.Lock()

    def fall_back(self, failed: BatchPlan) -> bool:
        """Halve the batch of a plan that memory did not hold, or else its blocks.

        Returns:
            False if there is no smaller plan: it was single patches.
        """
        fuse, batch = failed.fuse, failed.batch
        if fuse == batch == 1:
            return False
        with self._lock:
            if self.current == failed:  # else another thread has fallen back already
                if failed == self._first:
                    self._notice(f"{self._device} is short of memory: smaller blocks from here on")
                smaller = (fuse, batch // 2) if batch > 1 else (fuse // 2, 1)
                self.current = BatchPlan(*smaller)
        return True


def estimated_bytes(
    layout: Layout,
    plan: BatchPlan,
    source: tuple[int, int],
    size: tuple[int, int],
    bytes_per_pixel: int,
) -> int:
    """Estimate the bytes that an enlargement needs beside the program and its input, at the peak.

    That is a batch in the net, a band of the result, and of each step before the last the rows
    that the next one needs, as float, and what its windows leave behind.
    """
    if size == source:
        return bytes_per_pixel * SLICE_ROWS * size[1]
    *steps, last = layout.steps(source, size)
    grid = layout.grid(last, plan.fuse)
    high = max(len(block.window) for block in grid.rows)
    wide = max(len(block.window) for block in grid.columns)
    band = max(len(block.keep) for block in grid.rows)
    # Three copies of a step's rows: a new band, what is held of the one before, and both joined.
    held = sum(3 * _FLOAT_BYTES * min(step.size[0], high) * step.size[1] for step in steps)
    if last.size != size:
        held += 3 * _FLOAT_BYTES * band * last.size[1]
    positions = high * wide / layout.config.at(last.scale).stem ** 2
    window = round(_PIXEL_BYTES * high * wide + _POSITION_BYTES * positions)
    net = window * min(plan.batch, len(grid.columns)) + _STEP_BYTES * len(steps) * high * wide
    return net + held + bytes_per_pixel * min(band, size[0]) * size[1]


class SpeedMeasure:
    """Seconds that the net takes per pixel, measured once for each factor.

    ``enlarge`` enlarges rows by one step of the net and yields its bands.
    """

    def __init__(
        self, layout: Layout, plans: BatchPlans, enlarge: Callable[[Rows, Step], Iterator[object]]
    ) -> None:
        self._layout, self._plans, self._enlarge = layout, plans, enlarge
        self._known: dict[tuple[BatchPlan, float], float] = {}

    def seconds(self, source: tuple[int, int], size: tuple[int, int]) -> float:
        """Estimate how long it takes to enlarge a picture, from its size to the result's."""
        plan = self._plans.current
        return math.fsum(
            self._seconds_per_pixel(plan, step.scale) * self._layout.grid(step, plan.fuse).area
            for step in self._layout.steps(source, size)
        )

    def _seconds_per_pixel(self, plan: BatchPlan, scale: float) -> float:
        """Enlarge noise to a batch of blocks, and return what a pixel of its windows took."""
        if (plan, scale) not in self._known:
            side = plan.fuse * self._layout.patch
            step = Step((side, side * plan.batch), scale)
            shape = 3, *(math.ceil(length / scale) for length in step.size)
            noise = torch.rand(shape, generator=torch.Generator().manual_seed(0))
            taken: list[float] = []
            while len(taken) < _MOST_PASSES and sum(taken) < _ENOUGH_SECONDS:
                begun = time.perf_counter()
                for _band in self._enlarge(Rows.of(noise), step):
                    pass
                taken.append(time.perf_counter() - begun)
            self._known[plan, scale] = min(taken) / self._layout.grid(step, plan.fuse).area
        return self._known[plan, scale]
