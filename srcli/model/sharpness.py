"""Weights mixed with their sharp sibling: one net, as fast as either.

Weights that were trained on from others lie near them, and so does what lies between the two
(Wang et al. 2019, "Deep network interpolation for continuous imagery effect transition"). Siblings
know each other by their headers, which have the record of the weights that a training started from.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import torch

from srcli import files
from srcli.errors import WeightsError
from srcli.model.network import ResidualAutoencoder
from srcli.model.weights import Ranges, Weights, load, read_header

__all__ = ["load_mixed", "siblings"]

_SHARP: Final = "sharp"
"""How the names of shipped weights begin that are sharp; all others are faithful."""


def siblings(path: Path) -> tuple[Path, Path]:
    """Return the files of the faithful and the sharp weights of which ``path`` is one.

    Faithful ones are shipped; sharp ones are shipped, or trained on from shipped faithful ones.

    Raises:
        WeightsError: If the other one is not there, or a file cannot be read.
    """
    shipped = files.shipped()
    records = {name: read_header(file).training for name, file in shipped.items()}
    faithful = {name: one for name, one in records.items() if not name.startswith(_SHARP)}
    parents = {name: _parent(records[name], faithful) for name in records.keys() - faithful.keys()}
    own = read_header(path).training
    parent = None if own in faithful.values() else _parent(own, faithful)
    if parent is not None:
        return shipped[parent], path
    for name, parent in sorted(parents.items()):
        if parent is not None and records[parent] == own:
            return path, shipped[name]
    name = path.stem if path in shipped.values() else str(path)
    known = " or ".join(sorted(filter(None, parents.values())))
    raise WeightsError(
        f"--sharpness cannot mix {name}: it has no sibling among the weights that are shipped; "
        f"leave it out{f' or give -m {known}' if known else ''}"
    )


def load_mixed(path: Path, sharpness: float) -> tuple[ResidualAutoencoder, Weights]:
    """Load weights and their sibling, and mix them linearly, in ``float32``.

    Args:
        path: Either of the two.
        sharpness: 0 is the faithful one exactly, 1 the sharp one.

    Returns:
        What :func:`srcli.model.weights.load` returns, with the sharp one's record unless it has
        no part in it.

    Raises:
        WeightsError: If a file cannot be loaded, there is no sibling, or it has another shape.
    """
    parent, sharp = siblings(path)
    if not sharpness:
        return load(parent)
    (begin, below), (end, header) = load(parent), load(sharp)
    symmetric = below.config.symmetric and header.config.symmetric
    config = replace(header.config, symmetric=symmetric)
    if config != replace(below.config, symmetric=symmetric):
        raise WeightsError(
            f"{sharp} has another shape than {parent}, so they cannot be mixed; "
            "leave --sharpness out"
        )
    net, others = ResidualAutoencoder(config).float(), end.state_dict()
    mixed = {  # exact at both ends
        name: torch.lerp(tensor, others[name], sharpness)
        for name, tensor in begin.state_dict().items()
    }
    net.load_state_dict(mixed)
    ranges = _joined(below.ranges, header.ranges, sharpness)
    return net.eval(), replace(header, config=config, ranges=ranges)


def _joined(below: Ranges, above: Ranges, sharpness: float) -> Ranges:
    """Return the ranges of a mixture, wide enough for both ends: it was not calibrated itself."""
    # Where both need one pass; else two, or none as the nearer: benchmarks/results/engines.md.
    nearer = below if sharpness <= 0.5 else above

    def passes(name: str, sums: int) -> int:
        if below[name][sums] == above[name][sums] == 1:
            return 1
        return 2 if sums == 2 and nearer[name][sums] else 0

    return {
        name: [
            min(low, above[name][0]),
            max(high, above[name][1]),
            passes(name, 2),
            passes(name, 3),
        ]
        for name, (low, high, *_) in below.items()
        if name in above
    }


def _parent(record: Mapping[str, Any], faithful: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Name the nearest of the faithful weights that a training goes back to."""
    origin = record.get("origin")
    while isinstance(origin, dict):
        for name, known in faithful.items():
            if known == origin:
                return name
        origin = origin.get("origin")
    return None
