"""Measure what int8 needs, once for each weights file, and write it into the file's header.

    python -m srcli.training.calibrate WEIGHTS.safetensors PICTURES [PICTURES...]

PICTURES are folders of photographs like those that the weights were trained on. The middle of each
is degraded as in the training. The ranges of the inputs of all residual convolutions are measured,
path by path; those whose rounding alone changes single pixels most run in two passes with sums of
32 bits, else in fp32, as few as it takes that all together change hardly a pixel by more than two
levels.
"""

import argparse
import copy
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from srcli.data.loading import Centers
from srcli.data.pool import open_pool
from srcli.errors import SrcliError, WeightsError
from srcli.files import one_line
from srcli.model import weights
from srcli.model.config import ScalePath
from srcli.model.int8 import convolutions, input_ranges, weight_steps
from srcli.model.network import ResidualAutoencoder
from srcli.model.weights import Ranges
from srcli.ops.degradation import Degradation
from srcli.training.images import GIVEN, input_and_target

__all__ = ["calibrate"]

_LEVELS = 2
"""What 99.99 % of the pixels of a result may change by, of 255."""

_SHARE = 0.00002
"""The share of the pixels that may change by more: a fifth of what is promised, as others may
be harder."""

_ROOM = 1.15
"""How much wider ranges are than what was seen: what exceeds them is clipped."""

_COST = {0: 3.5, 1: 1, 2: 2}
"""What a convolution takes in so many passes with VNNI; none is fp32."""

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
        patches = [input_and_target(one, degradation)[0] for one in centers.batches(factors, 0)]
        found, exact = _measured(net, way, patches)
        pairs = list(zip(patches, exact, strict=True))
        wide, narrow = (_harmless(net, way, found, pairs, wide=one) for one in (True, False))
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


@torch.inference_mode()
def _harmless(
    net: ResidualAutoencoder,
    way: ScalePath | None,
    found: Ranges,
    pairs: Sequence[tuple[Tensor, Tensor]],
    *,
    wide: bool,
) -> dict[str, int]:
    """Return in how many passes each convolution can be rounded, all together.

    ``pairs`` are patches and their results in fp32.
    """

    def changes(counts: Mapping[str, int], pairs: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        """Return by how many levels the pixels of patches change: a row each."""
        other = _rounded(net, way, found, counts, wide=wide)
        changed = [(other.restore(patch, way) - one).abs().amax(1) for patch, one in pairs]
        return 255 * torch.stack([each.flatten() for each in changed])

    def beyond(changed: Tensor) -> Tensor:
        # What changes by 2.3 levels changes by 3 in eight bits in three cases of ten.
        return (changed - _LEVELS).clamp(0, 1)

    # Where one pass changes most, two need not: both kinds of patches are looked at.
    once, *twice = (
        changes(dict.fromkeys(found, count), pairs) for count in ((1, 2) if wide else (1,))
    )
    orders = [beyond(one).sum(1).argsort(descending=True).tolist() for one in (once, *twice)]
    hard = [pairs[place] for place in {place for order in orders for place in order[:_HARD]}]
    hardest = [pairs[place] for place in orders[0][:_HARDEST]]
    at_stake = once[orders[0][:_HARDEST]] > _LEVELS

    def harm(name: str) -> float:
        return float((changes({name: 1}, hardest) * at_stake).square().sum())

    order = sorted(found, key=harm)

    def counts(most: int, others: int) -> dict[str, int]:
        return {name: 1 if place < most else others for place, name in enumerate(order)}

    def is_harmless(most: int, others: int) -> bool:
        changed = changes(counts(most, others), hard)
        return float(beyond(changed).sum()) <= _SHARE * once.numel()

    def rounded(others: int) -> dict[str, int]:
        """Round as many once as can be, and all others so often."""
        below, above = 0, len(order) + 1
        while above - below > 1:
            middle = (below + above) // 2
            below, above = (middle, above) if is_harmless(middle, others) else (below, middle)
        return counts(below, others)

    choices = [rounded(0)]
    if wide and is_harmless(0, 2):
        choices.append(rounded(2))
    return min(choices, key=lambda one: sum(_COST[count] for count in one.values()))


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
