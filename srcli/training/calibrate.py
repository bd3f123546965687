"""Measure what int8 needs, once for each weights file, and write it into the file's header.

    python -m srcli.training.calibrate WEIGHTS.safetensors PICTURES [PICTURES...]

PICTURES are folders of photographs like those that the weights were trained on. The middle of each
is degraded as in the training, of one in four only reduced; some are made black and white, as text
is. The ranges of the inputs of all residual convolutions are measured, path by path; those whose
rounding alone changes single pixels most run in two passes with sums of 32 bits, else in fp32: as
few as it takes that all together change hardly a pixel by more than two levels, and brightness so
little that no score falls.
"""

import argparse
import copy
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from srcli.data.loading import Batch, Centers
from srcli.data.pool import open_pool
from srcli.errors import SrcliError, WeightsError
from srcli.files import one_line
from srcli.model import weights
from srcli.model.config import ScalePath
from srcli.model.int8 import convolutions, input_ranges, weight_steps
from srcli.model.network import ResidualAutoencoder
from srcli.model.weights import Ranges
from srcli.ops.color import luma
from srcli.ops.degradation import Degradation
from srcli.training.images import GIVEN, input_and_target

__all__ = ["calibrate"]

_LEVELS = 2
"""What 99.99 % of the pixels of a result may change by, of 255."""

_SHARE = 0.00002
"""The share of the pixels that may change by more: a fifth of what is promised, as others may
be harder."""

_SHARE_OF_DRAWN = 0.016
"""The share of what is black and white, at x1; it falls with the square of the factor. Then one
page among fifteen photographs, as in Set14, changes no more than is promised."""

_NOISE = 0.095
"""What brightness may change by on average, in levels, for each unit of the factor: that costs
less than 0.02 dB where the rest is as far from the original as on Set5."""

_ROOM = 1.15
"""How much wider ranges are than what was seen: what exceeds them is clipped."""

_COST = {0: 3.5, 1: 1, 2: 2}
"""What a convolution takes in so many passes with VNNI; none is fp32."""

_DRAWN_OF = 50
"""One in so many patches is made black and white as well."""

_HARD, _HARDEST = 96, 16
"""Patches, those that change most if all is rounded once, or twice: on which it is tried which
convolutions are harmless together, and on which they are compared singly."""


def calibrate(
    path: Path, pictures: Sequence[str], report: Callable[[str], None] = lambda _: None
) -> Ranges:
    """Measure the ranges of a weights file.

    Args:
        path: The file; it is not changed.
        pictures: Folders of photographs, or of pairs, whose LR is taken as it is.
        report: Called with a line for each path through the net.

    Raises:
        WeightsError: If the file cannot be loaded, or int8 is not for its kind of net.
        DataError: If the pictures cannot be read.
    """
    net, header = weights.load(path)
    if not net.config.is_residual:
        raise WeightsError(f"{path} has no residual units, which int8 is for; use --dtype fp32")
    pool = open_pool(pictures, Path("data"), 0, scales=header.scales)
    centers = Centers(pool, range(len(pool)), torch.device("cpu"), workers=1, size=1)
    recorded = str(header.training.get("degradation", GIVEN))
    degradation = Degradation() if recorded == GIVEN else Degradation.parse(recorded)
    ranges: dict[str, Sequence[float]] = {}
    for way in (None, *net.config.paths):
        factors = [scale for scale in header.scales if net.config.path(scale) is way]
        if not factors:
            continue
        batches = [*centers.batches(factors, 0)]
        patches = [_patch(batch, number, degradation) for number, batch in enumerate(batches)]
        drawn = [input_and_target(_drawn(one), degradation)[0] for one in batches[::_DRAWN_OF]]
        found, exact = _measured(net, way, patches + drawn)
        pairs = list(zip(patches + drawn, exact, strict=True))
        trial = _Trial(
            net=net,
            way=way,
            ranges=found,
            photographs=pairs[: len(patches)],
            drawn=pairs[len(patches) :],
            scale=min(factors),
        )
        wide, narrow = (trial.harmless(wide=one) for one in (True, False))
        for name, limits in found.items():
            ranges[name] = [*limits, wide[name], narrow[name]]
        once, twice, narrow_once = (
            [*counts.values()].count(number)
            for counts, number in ((wide, 1), (wide, 2), (narrow, 1))
        )
        report(
            f"x{factors[0]:g}: {len(found)} convolutions, {once} of them in one pass of int8 and "
            f"{twice} in two, {narrow_once} where sums have 16 bits"
        )
    return ranges


def _patch(batch: Batch, number: int, degradation: Degradation) -> Tensor:
    """Make what the net is given of a patch; one in four is only reduced."""
    return input_and_target(batch, Degradation() if number % 4 == 3 else degradation)[0]


def _drawn(batch: Batch) -> Batch:
    """Make patches black and white, as text is."""
    grey = batch.patches.float().mean(1, keepdim=True)
    white = (grey > grey.mean((2, 3), keepdim=True)).to(torch.uint8)
    return replace(batch, patches=255 * white.expand_as(batch.patches), lows={})


@torch.inference_mode()
def _measured(
    net: ResidualAutoencoder, way: ScalePath | None, patches: Sequence[Tensor]
) -> tuple[dict[str, tuple[float, float]], list[Tensor]]:
    """Return the ranges of the inputs of the convolutions that are on a path, and the results."""
    found: dict[str, tuple[float, float]] = {}

    def see(name: str, features: Tensor) -> None:
        low, high = found.get(name, (0.0, 1e-6))
        found[name] = min(low, float(features.min())), max(high, float(features.max()))

    handles = [
        layer.register_forward_pre_hook(lambda _, given, name=name: see(name, given[0]))
        for name, layer in convolutions(net, way)
    ]
    exact = [net.restore(patch, way) for patch in patches]
    for handle in handles:
        handle.remove()
    return {
        name: (round(_ROOM * low, 4), round(_ROOM * high, 4)) for name, (low, high) in found.items()
    }, exact


Pairs = Sequence[tuple[Tensor, Tensor]]
"""What the net is given, and what it makes of it in fp32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Trial:
    """Finds out which convolutions of a path can be rounded, all together."""

    net: ResidualAutoencoder
    way: ScalePath | None
    ranges: Ranges
    photographs: Pairs
    drawn: Pairs
    scale: float

    @torch.inference_mode()
    def harmless(self, *, wide: bool) -> dict[str, int]:
        """Return in how many passes each convolution can be rounded."""
        # Where one pass changes most, two need not: both kinds of patches are looked at.
        once, *twice = (
            self._changes(dict.fromkeys(self.ranges, count), self.photographs, wide=wide)
            for count in ((1, 2) if wide else (1,))
        )
        orders = [
            _beyond(one).flatten(1).sum(1).argsort(descending=True).tolist()
            for one in (once, *twice)
        ]
        places = [*{place for order in orders for place in order[:_HARD]}]
        hard = [self.photographs[place] for place in places]
        hardest = [self.photographs[place] for place in orders[0][:_HARDEST]]
        at_stake = once[orders[0][:_HARDEST]].abs().amax(1) > _LEVELS

        def harm(name: str) -> float:
            changed = self._changes({name: 1}, hardest, wide=wide).abs().amax(1)
            return float((changed * at_stake).square().sum())

        order = sorted(self.ranges, key=harm)
        typical = self.photographs[:: max(1, len(once) // _HARD)]
        most = _SHARE * len(once) / len(hard)

        def is_harmless(most_once: int, most_exact: int) -> bool:
            counts = _counts(order, most_once, most_exact)

            def changed(pairs: Pairs) -> Tensor:
                return self._changes(counts, pairs, wide=wide)

            return (
                float(_beyond(changed(self.drawn)).mean()) <= _SHARE_OF_DRAWN / self.scale**2
                and float(_noise(changed(typical))) <= _NOISE * self.scale
                and float(_beyond(changed(hard)).mean()) <= most
            )

        # All others in fp32; and, with sums of 32 bits, as few in fp32 as two passes allow.
        count = len(order)
        most_once = _most(lambda number: is_harmless(number, count - number), count)
        choices = [_counts(order, most_once, count - most_once)]
        if wide:
            exact = count - _most(lambda number: is_harmless(0, count - number), count)
            most_once = _most(lambda number: is_harmless(number, exact), count - exact)
            choices.append(_counts(order, most_once, exact))
        return min(choices, key=lambda one: sum(_COST[passes] for passes in one.values()))

    def _changes(self, counts: Mapping[str, int], pairs: Pairs, *, wide: bool) -> Tensor:
        """Return by how many levels the pixels of patches change: ``(N, 3, H, W)``."""
        other = _rounded(self.net, self.way, self.ranges, counts, wide=wide)
        return 255 * torch.cat([other.restore(patch, self.way) - one for patch, one in pairs])


def _counts(order: Sequence[str], once: int, exact: int) -> dict[str, int]:
    """Return the passes of each: of the first ones one, of the last ones none, of others two."""
    twice = len(order) - once - exact
    return dict(zip(order, [1] * once + [2] * twice + [0] * exact, strict=True))


def _most(is_harmless: Callable[[int], bool], limit: int) -> int:
    """Return how many are harmless, at most; none are, and fewer than so many are as well."""
    below, above = 0, limit + 1
    while above - below > 1:
        middle = (below + above) // 2
        below, above = (middle, above) if is_harmless(middle) else (below, middle)
    return below


def _beyond(changed: Tensor) -> Tensor:
    """Return how surely each pixel changes by more than what is allowed, in eight bits."""
    # What changes by 2.3 levels changes by 3 in three cases of ten.
    return (changed.abs().amax(1) - _LEVELS).clamp(0, 1)


def _noise(changed: Tensor) -> Tensor:
    """Return the root of the mean square that brightness changes by."""
    return (luma(changed) - luma(torch.zeros(3, 1, 1))).square().mean().sqrt()


def _rounded(
    net: ResidualAutoencoder,
    way: ScalePath | None,
    ranges: Ranges,
    counts: Mapping[str, int],
    *,
    wide: bool,
) -> ResidualAutoencoder:
    """Return a copy of a net that computes as int8 does, rounding included, but in fp32.

    ``counts`` has the passes of each convolution; those that have none stay as they are.
    """
    other = copy.deepcopy(net)
    for name, layer in convolutions(other, way):
        if count := counts.get(name):
            steps = weight_steps(layer.weight, wide=wide)
            layer.weight.copy_(torch.round(layer.weight / steps) * steps)
            layer.register_forward_pre_hook(_rounding([*input_ranges(ranges[name], count)]))
    return other


def _rounding(
    limits: Sequence[tuple[float, float]],
) -> Callable[[nn.Module, tuple[Tensor]], Tensor]:
    def rounded(_: nn.Module, given: tuple[Tensor]) -> Tensor:
        rest, total = given[0], torch.zeros(())
        for low, high in limits:
            step = (high - low) / 255
            part = torch.round(rest.clamp(low, high) / step) * step
            rest, total = rest - part, total + part
        return total

    return rounded


def main() -> None:
    """Calibrate a file."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("weights", help="a .safetensors file, which is rewritten")
    parser.add_argument("pictures", nargs="+", help="folders of photographs")
    options = parser.parse_args()
    report = partial(print, file=sys.stderr)
    try:
        path = weights.resolve(options.weights)
        weights.record(path, "ranges", calibrate(path, options.pictures, report))
    except SrcliError as error:
        report(f"error: {one_line(str(error))}")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


if __name__ == "__main__":
    main()
