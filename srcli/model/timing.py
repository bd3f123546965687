"""How long an enlargement takes, estimated from a short measurement on this machine."""

import math
import time
from collections.abc import Callable, Iterator

import torch

from srcli.model.layout import Layout, Step
from srcli.model.memory import BatchPlan, BatchPlans
from srcli.model.rows import Rows

__all__ = ["Enlarge", "SpeedMeasure"]

Enlarge = Callable[[Rows, Step], Iterator[object]]
"""Enlarges rows by one step of the net and yields its bands."""

_ENOUGH_SECONDS, _MOST_PASSES = 2.0, 5
"""A measurement is repeated until it has taken so long, or so often; the fastest pass counts,
because what else the machine does only adds."""


class SpeedMeasure:
    """Seconds that the net takes per pixel, measured once for each kind of window.

    Args:
        layout: Steps and blocks of the net.
        plans: How much is computed at a time.
    """

    def __init__(self, layout: Layout, plans: BatchPlans) -> None:
        self._layout, self._plans = layout, plans
        self._known: dict[tuple[BatchPlan, float, int], float] = {}

    def seconds(self, source: tuple[int, int], size: tuple[int, int], enlarge: Enlarge) -> float:
        """Estimate how long an enlargement takes.

        Args:
            source: Height and width of the picture.
            size: Those of the result.
            enlarge: Enlarges rows by one step of the net.

        Returns:
            Seconds.
        """
        return sum(
            (
                times * area * self._seconds_per_pixel(step.scale, area, enlarge)
                for step in self._layout.steps(source, size)
                for area, times in self._windows(step).items()
            ),
            0.0,
        )

    def _windows(self, step: Step) -> dict[int, int]:
        return self._layout.windows(step, self._plans.current.fuse)

    def _seconds_per_pixel(self, scale: float, area: int, enlarge: Enlarge) -> float:
        """Measure what a pixel takes in a window of about ``area`` pixels."""
        plan, side = self._plans.current, self._layout.patch
        fuses = sorted({one.fuse for one in self._plans.remaining})
        kinds = {max(self._windows(Step((fuse * side,) * 2, scale))): fuse for fuse in fuses}
        # The kind that is the fewest times larger or smaller.
        fuse = kinds[min(kinds, key=lambda kind: abs(math.log(kind / area)))]
        key = plan, scale, fuse
        if key not in self._known:
            # The largest blocks are computed several at once.
            columns = plan.batch * len(plan.devices) if fuse == fuses[-1] else 1
            step = Step((fuse * side, fuse * side * columns), scale)
            # Small pictures are computed on all devices at the same time.
            at_once = 1 if fuse == fuses[-1] else len(plan.devices)
            self._known[key] = self._fastest_pass(step, enlarge) / at_once
        return self._known[key]

    def _fastest_pass(self, step: Step, enlarge: Enlarge) -> float:
        """Enlarge noise by a step and return the seconds that a pixel of its windows took."""
        shape = 3, *(math.ceil(length / step.scale) for length in step.size)
        noise = torch.rand(shape, generator=torch.Generator().manual_seed(0))
        taken: list[float] = []
        while len(taken) < _MOST_PASSES and sum(taken) < _ENOUGH_SECONDS:
            begun = time.perf_counter()
            for _band in enlarge(Rows.of(noise), step):
                pass
            taken.append(time.perf_counter() - begun)
        return min(taken) / sum(area * times for area, times in self._windows(step).items())
