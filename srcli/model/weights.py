"""Weights on disk: safetensors alone, with everything needed to rebuild the net in the header.

The header is a safetensors metadata map of strings:

- ``format``: ``srcli/1``;
- ``config``: the :class:`srcli.model.config.ModelConfig` as JSON;
- ``training``: JSON of how the file came to be (data, degradation, scales, steps, seed, ...);
- ``scores``: a JSON list of what the file scored; it may be missing.
- ``ranges``: JSON of :data:`Ranges`; missing where the file was not calibrated.
"""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from srcli import files
from srcli.errors import UsageError, WeightsError
from srcli.files import reason, replacing
from srcli.model.config import ModelConfig
from srcli.model.network import ResidualAutoencoder

__all__ = [
    "Ranges",
    "Weights",
    "load",
    "read_header",
    "read_tensors",
    "record",
    "resolve",
    "save",
    "write_tensors",
]

_FORMAT = "srcli/1"

_DEFAULT_SCALES = (2.0, 3.0, 4.0)


Ranges = Mapping[str, Sequence[float]]
"""Of each residual convolution: its smallest and its largest input, and in how many passes of int8
it is computed with sums of 32 bits and of 16 bits, 0 being fp32; named as by
:func:`srcli.model.int8.convolutions`."""


_SCORE_TEXTS, _SCORE_NUMBERS = {"dataset", "lr", "channel"}, {"scale", "psnr", "ssim", "images"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """What a weights file's header says.

    Raises:
        UsageError: If the scales of the training record cannot be.
        ValueError: If scores or ranges cannot be.
    """

    config: ModelConfig
    """The shape of the net."""

    training: Mapping[str, Any] = field(default_factory=dict)
    """How the weights were made; JSON values."""

    scores: tuple[Mapping[str, Any], ...] = ()
    """What they scored by the protocol of ``srcli eval``, a line for each data set and scale: its
    ``dataset``, ``scale``, ``lr`` (a folder's name, or the degradation that made LR), ``channel``
    (``y`` or ``rgb``), mean ``psnr`` in dB and ``ssim``, and how many ``images`` there were."""

    ranges: Ranges = field(default_factory=dict)
    """What int8 needs; empty: they were not calibrated."""

    def __post_init__(self) -> None:
        """Check what is used of the training record, the scores and the ranges."""
        scales = self.training.get("scales", [])
        is_list = isinstance(scales, list)
        # Of factors close to 1 it would take steps without end.
        if not is_list or not all(_is_number(one) and 1.01 <= one <= 16 for one in scales):
            raise UsageError(f"scales must lie in 1.01..16, not {scales!r:.80}")
        for line in self.scores:
            is_line = isinstance(line, dict) and line.keys() == _SCORE_TEXTS | _SCORE_NUMBERS
            if not is_line or not (
                all(isinstance(line[name], str) for name in _SCORE_TEXTS)
                and all(_is_number(line[name]) for name in _SCORE_NUMBERS)
            ):
                raise ValueError(f"a score cannot be {line!r:.80}")
        for name, limits in self.ranges.items():
            is_range = isinstance(limits, list) and len(limits) == 4
            if not is_range or not all(map(_is_number, limits)) or not limits[0] <= 0 < limits[1]:
                raise ValueError(f"its range of {name:.80} is {limits!r:.80}")

    @property
    def scales(self) -> tuple[float, ...]:
        """The scale factors that the net was trained for, each once, rising."""
        return tuple(sorted({float(one) for one in self.training.get("scales") or _DEFAULT_SCALES}))


def resolve(name: str) -> Path:
    """Return the path of shipped weights by name, or of a file.

    Raises:
        WeightsError: If it is neither; the message lists the names.
    """
    names = files.shipped()
    if name in names:
        return names[name]
    path = Path(name)
    if files.is_file(path):
        return path
    known = ", ".join(names) or "none"
    shown = files.one_line(name) or "''"
    raise WeightsError(f"no weights called {shown}: give a .safetensors file or a name ({known})")


def read_header(path: Path) -> Weights:
    """Read what a weights file says of itself, without its tensors.

    Raises:
        WeightsError: If it cannot be read or is not ours.
    """
    return _header(path, read_tensors(path, only_header=True)[0])


def load(path: Path) -> tuple[ResidualAutoencoder, Weights]:
    """Rebuild the net of a weights file, in ``float32`` on the CPU, in evaluation mode.

    Raises:
        WeightsError: If the file is unreadable or foreign, a tensor is missing, unexpected, of
            the wrong shape, or holds a value that is not finite. The message names it.
    """
    metadata, tensors = read_tensors(path)
    header = _header(path, metadata)
    with torch.device("meta"):  # a damaged header must not allocate what it asks for
        net = ResidualAutoencoder(header.config)
    try:  # copied: what was read is a view of the file
        net.load_state_dict({name: one.clone() for name, one in tensors.items()}, assign=True)
    except RuntimeError as error:
        problem = " ".join(str(error).partition(":")[2].split()).rstrip(".")
        raise WeightsError(
            f"{path} does not fit its header: {problem:.200}; use another file"
        ) from error
    for name, value in net.float().named_parameters():
        if not bool(value.isfinite().all()):
            raise WeightsError(f"{path}: tensor {name} holds NaN or infinity; use another file")
    return net.eval(), header


def save(
    path: Path, tensors: Mapping[str, Tensor], config: ModelConfig, training: Mapping[str, Any]
) -> None:
    """Write a net's ``state_dict`` atomically, with its shape and how it came to be (JSON values).

    Raises:
        WeightsError: If it cannot be written.
    """
    metadata = {
        "format": _FORMAT,
        "config": config.to_json(),
        "training": json.dumps(dict(training), sort_keys=True),
    }
    write_tensors(path, tensors, metadata)


def record(path: Path, part: str, value: Sequence[Any] | Mapping[str, Any]) -> None:
    """Replace a part of the header of a weights file: ``scores`` or ``ranges``.

    The rest of the header and every bit of the tensors stay as they are; a file that has these
    values already is not written. An empty value removes the part.

    Raises:
        WeightsError: If it cannot be read, is not ours, or cannot be written.
    """
    metadata, tensors = read_tensors(path)
    kept = {name: text for name, text in metadata.items() if name != part}
    _header(path, kept)  # a damaged part may be replaced, nothing else
    if value:
        kept[part] = json.dumps(value, allow_nan=False, sort_keys=True)
    if kept != metadata:  # the strings of a header are written in another order each time
        write_tensors(path, tensors, kept)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors and a header of strings as one safetensors file, atomically.

    Raises:
        WeightsError: If it cannot be written.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(tensors.items())}
    try:
        with replacing(path) as temporary:
            save_file(plain, temporary, dict(metadata))
            # safetensors makes its files private; a weights file is like any other.
            umask = os.umask(0)
            os.umask(umask)
            temporary.chmod(0o666 & ~umask)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"cannot write {path}: {reason(error)}") from error


def read_tensors(
    path: Path, *, only_header: bool = False
) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Read a safetensors file: its header of strings, and its tensors unless they are not wanted.

    Raises:
        WeightsError: If it cannot be read.
    """
    try:
        with safe_open(path, framework="pt") as file:
            names = () if only_header else file.keys()
            return file.metadata() or {}, {name: file.get_tensor(name) for name in names}
    except (OSError, SafetensorError) as error:
        raise WeightsError(
            f"cannot read weights {path}: {reason(error)}; "
            "it must be a .safetensors file made by srcli train"
        ) from error


def _header(path: Path, metadata: Mapping[str, str]) -> Weights:
    if metadata.get("format") != _FORMAT:
        raise WeightsError(
            f"{path} is not a weights file of srcli (no {_FORMAT!r} in its header); "
            "use one made by srcli train"
        )
    try:
        return Weights(
            config=ModelConfig.from_json(metadata.get("config", "")),
            training=_json(metadata, "training", dict),
            scores=tuple(_json(metadata, "scores", list)),
            ranges=_json(metadata, "ranges", dict),
        )
    except (UsageError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise WeightsError(
            f"{path} has an unusable header: {reason(error)}; use another file"
        ) from error


def _json(metadata: Mapping[str, str], name: str, kind: type) -> Any:  # noqa: ANN401 - JSON
    """Parse a part of a header, which may be missing."""
    value = json.loads(metadata[name]) if name in metadata else kind()
    if not isinstance(value, kind):
        raise TypeError(f"its {name} cannot be {value!r:.80}")
    return value


def _is_number(value: object) -> TypeGuard[float]:
    """Whether a JSON value is a finite number."""
    return isinstance(value, int | float) and type(value) is not bool and math.isfinite(value)
