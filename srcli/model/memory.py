"""How much is computed at a time: batch plans, what follows when memory runs out, an estimate."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from srcli.model.layout import Layout
from srcli.model.rows import SLICE_ROWS
from srcli.ops.devices import all_alike

__all__ = ["BatchPlan", "BatchPlans", "batch_plans", "estimated_bytes"]

_FUSE = {"cpu": 6, "cuda": 8}
"""Patches per side of a block with ``tile=auto``: the larger the block, the less context is
computed twice, as long as a layer's features stay in the cache. In bf16 on two Zen 4 cores blocks
of 2, 3, 4, 5, 6, 8 and 12 patches took 0.43, 0.35, 0.33, 0.30, 0.30, 0.29 and 0.28 s per megapixel;
six is where the gain ends that is worth its memory."""

_BATCH = {"cpu": 1, "cuda": 8}
"""Windows per forward pass. On a Zen 4 core, 1, 2, 4, 8 and 16 single patches a pass took 0.99,
0.93, 0.98, 1.00 and 1.20 s per megapixel: a CPU gains nothing, and a fused block is a batch."""

_PIXEL_BYTES, _POSITION_BYTES = 190, 2000
"""Bytes that ``base`` needs for each pixel of a window, its input and result included, and for each
position of its highest level: 412 a pixel at x3, more at x2, less at x4. The estimates for five
pictures, x2 to x6 in fp32 on two Zen 3 cores, were 0.93 to 1.08 of the measured peak."""

_STEP_BYTES = 80
"""Bytes for each pixel of a window that every step before the last adds to the peak: freed blocks
of another size are not all reused. Without it 17 runs at x6 in fp32 on two Zen 3 cores took 1.01
to 1.15 times the estimate, 1.08 on average."""


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """How much is computed at a time, and on which devices."""

    devices: tuple[torch.device, ...]

    fuse: int
    """Patches per side of a block."""

    batch: int
    """Blocks per forward pass."""

    def __str__(self) -> str:
        return str(self.devices[0] if len(self.devices) == 1 else self.devices[0].type)

    def halved(self) -> "list[BatchPlan]":
        """Itself and ever smaller ones: half a batch, half a block, down to single patches."""
        if self.batch > 1:
            return [self, *replace(self, batch=self.batch // 2).halved()]
        if self.fuse > 1:
            return [self, *replace(self, fuse=self.fuse // 2).halved()]
        return [self]


def batch_plans(device: torch.device, *, fuse: bool, batch_size: int | None) -> list[BatchPlan]:
    """List the batch plans for a device, each the fallback of the one before.

    Args:
        device: Where the net runs; ``cuda`` without a number is all GPUs of the machine.
        fuse: Whether neighbouring patches may be fused into blocks.
        batch_size: Blocks per forward pass; None chooses.

    Returns:
        Ever smaller plans for the device, then, if it is a GPU, for the CPU.
    """
    first = BatchPlan(
        all_alike(device), _FUSE[device.type] if fuse else 1, batch_size or _BATCH[device.type]
    )
    if device.type == "cpu":
        return first.halved()
    cpu = BatchPlan((torch.device("cpu"),), _FUSE["cpu"] if fuse else 1, _BATCH["cpu"])
    return [*first.halved(), *cpu.halved()]


class BatchPlans:
    """The batch plan in use, which becomes smaller when memory runs out; safe between threads.

    Args:
        plans: From the largest to the smallest, no two alike.
        notice: Called with a line at the first fallback, and when the CPU takes over.
    """

    def __init__(self, plans: Sequence[BatchPlan], notice: Callable[[str], None]) -> None:
        self._plans = plans
        self._index = 0
        self._notice = notice
        self._lock = threading.Lock()

    @property
    def current(self) -> BatchPlan:
        """The plan that memory has held so far."""
        return self._plans[self._index]

    @property
    def remaining(self) -> Sequence[BatchPlan]:
        """The current plan and its fallbacks."""
        return self._plans[self._index :]

    def fall_back(self, failed: BatchPlan) -> bool:
        """Use a smaller plan than one that memory did not hold.

        Returns:
            False if there is none.
        """
        with self._lock:
            index = self._plans.index(failed)
            if index + 1 == len(self._plans):
                return False
            if self._index == index:  # else another thread has fallen back already
                self._announce(failed, self._plans[index + 1])
                self._index += 1
            return True

    def _announce(self, before: BatchPlan, after: BatchPlan) -> None:
        if after.devices != before.devices:
            torch.cuda.empty_cache()
            self._notice(f"{before} is out of memory: continuing on the CPU")
        elif self._index == 0:
            self._notice(f"{before} is short of memory: smaller blocks from here on")


def estimated_bytes(
    layout: Layout,
    plan: BatchPlan,
    source: tuple[int, int],
    size: tuple[int, int],
    bytes_per_pixel: int,
) -> int:
    """Estimate the memory that an enlargement needs beside the program and its input.

    Args:
        layout: Steps and blocks of the net.
        plan: How much is computed at a time.
        source: Height and width of the picture.
        size: Those of the result.
        bytes_per_pixel: Of both.

    Returns:
        Bytes at the peak: a batch in the net, a band of the result, and of each step before the
        last the rows that the next one needs, as float, and what its windows leave behind.
    """
    if size == source:
        return bytes_per_pixel * SLICE_ROWS * size[1]
    *steps, last = layout.steps(source, size)
    grid = layout.grid(last, plan.fuse)
    high = max(len(block.window) for block in grid.rows)
    wide = max(len(block.window) for block in grid.columns)
    band = max(len(block.keep) for block in grid.rows)
    # Three copies of float RGB rows of a step: a new band, what is held of the one before, and
    # both joined.
    held = sum(3 * 4 * 3 * min(step.size[0], high) * step.size[1] for step in steps)
    if last.size != size:
        held += 3 * 4 * 3 * band * last.size[1]
    positions = high * wide / layout.config.at(last.scale).stem ** 2
    window = round(_PIXEL_BYTES * high * wide + _POSITION_BYTES * positions)
    net = window * min(plan.batch, len(grid.columns)) + _STEP_BYTES * len(steps) * high * wide
    return net + held + bytes_per_pixel * min(band, size[0]) * size[1]
