"""A run directory: what a training run leaves behind, and what it is resumed from.

::

    options.json               every resolved option, written before step one
    log.csv                    loss and accuracy, training and evaluation, step by step
    curves.png                 both against the epoch
    samples.png                LR, output and HR of a few images that were not trained on
    skipped.txt                images that could not be read, if there were any
    state/step-N.safetensors   net, EMA, optimiser and log: what --resume continues from
    model.safetensors          the weights, ready for ``srcli upscale -m``
"""

import csv
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from srcli.data.sources import absolute
from srcli.errors import DataError, OutputError, UsageError, WeightsError
from srcli.files import TEMPORARY_SUFFIX, is_file, is_folder, is_there, replacing
from srcli.model import weights
from srcli.model.config import ModelConfig
from srcli.training import curves as plots
from srcli.training.config import TrainConfig

__all__ = ["Row", "RunDirectory", "load_options"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A line of ``log.csv``. Losses are those of the run; PSNR is that of RGB, in dB."""

    step: int
    epoch: float
    patches: int
    seconds: float
    lr: float
    loss: float
    """Mean over the steps since the line before, like ``accuracy``."""

    accuracy: float
    """Share of pixels whose largest channel is the HR patch's."""

    eval_loss: float | None = None
    eval_accuracy: float | None = None
    eval_psnr: float | None = None
    baseline_psnr: float | None = None
    """The bicubic input's, on the same images."""

    def cells(self) -> list[str]:
        """Write the values as text; one that is missing as nothing."""
        return [
            "" if value is None else str(value) if isinstance(value, int) else f"{value:.8g}"
            for value in astuple(self)
        ]

    @classmethod
    def read(cls, cells: Mapping[str, str]) -> "Row":
        """Read what :meth:`cells` wrote.

        Raises:
            ValueError: If a cell is no number.
        """
        values: dict[str, Any] = {
            name: float(text) if text else None for name, text in cells.items()
        }
        return cls(**{**values, "step": int(cells["step"]), "patches": int(cells["patches"])})


_COLUMNS = [field.name for field in fields(Row)]


class RunDirectory:
    """Reads and writes the files of one run.

    Args:
        path: The directory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.weights = path / "model.safetensors"
        self._state = path / "state"
        self._log = path / "log.csv"

    def refuse(self) -> None:
        """Find out before images are loaded whether a new run cannot be kept here.

        Raises:
            OutputError: If the path is no folder, or holds a run.
        """
        output = self.path
        blocker = next((part for part in (output, *output.parents) if is_there(part)), output)
        if is_there(blocker) and not is_folder(blocker):
            raise OutputError(
                f"cannot write the run directory {output}: {blocker} is not a folder; "
                "give another --output"
            )
        if self._checkpoints():
            raise OutputError(
                f"{output} already holds a run: continue it with --resume {output}, "
                "or give another --output"
            )
        if is_there(self.weights):
            raise OutputError(f"{output} already holds trained weights; give another --output")

    def begin(self, config: TrainConfig) -> None:
        """Make the directory with its options and an empty log.

        Raises:
            OutputError: If it cannot be written.
        """
        try:
            self._state.mkdir(parents=True, exist_ok=True)
            self._tidy()
            # Absolute, so that the run can be resumed from any directory.
            kept = replace(config, datasets=tuple(map(absolute, config.datasets)))
            with replacing(self.path / "options.json") as temporary:
                temporary.write_text(kept.to_json(), encoding="utf-8")
            self._log.write_text(",".join(_COLUMNS) + "\n", encoding="utf-8")
        except OSError as error:
            raise self._problem("the run directory", error) from error

    def take_up(self, step: int) -> None:
        """Drop what a stopped run logged after its checkpoint: it comes again.

        Raises:
            DataError: If the log cannot be read.
            OutputError: If it cannot be written.
        """
        rows = [row for row in self.rows() if row.step <= step]
        try:
            self._tidy()
            with replacing(self._log) as temporary, temporary.open("w", newline="") as file:
                lines = csv.writer(file, lineterminator="\n")
                lines.writerow(_COLUMNS)
                lines.writerows(row.cells() for row in rows)
        except OSError as error:
            raise self._problem("log.csv", error) from error

    def log(self, row: Row) -> None:
        """Append a line to the log.

        Raises:
            OutputError: If it cannot be written.
        """
        try:
            with self._log.open("a", newline="", encoding="utf-8") as file:
                csv.writer(file, lineterminator="\n").writerow(row.cells())
                file.flush()
                os.fsync(file.fileno())  # a checkpoint must not outlive the lines before it
        except OSError as error:
            raise self._problem("log.csv", error) from error

    def rows(self) -> list[Row]:
        """Read the log.

        Raises:
            DataError: If it is missing or damaged.
        """
        try:
            text = self._log.read_text(encoding="utf-8")
            # A killed process may leave its last line unfinished.
            lines = csv.DictReader(text[: text.rfind("\n") + 1].splitlines())
            whole = [line for line in lines if None not in line and None not in line.values()]
            return [Row.read(line) for line in whole]
        except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
            raise DataError(
                f"{self._log} cannot be read ({error}); start again with another --output"
            ) from error

    def save(
        self,
        step: int,
        tensors: Mapping[str, Tensor],
        progress: Mapping[str, Any],
        *,
        keep_last: int,
    ) -> None:
        """Write a checkpoint, whole or not at all; the oldest ones go when it is there.

        Raises:
            OutputError: If it cannot be written; the older ones stay then.
        """
        path = self._state / f"step-{step:08d}.safetensors"
        try:
            weights.write_tensors(path, tensors, {"progress": json.dumps(dict(progress))})
            # A newer one was damaged, or the run would not have come by here again.
            kept = [one for one in self._checkpoints() if one <= path][-keep_last:]
            for other in set(self._checkpoints()) - set(kept):
                other.unlink(missing_ok=True)
        except (OSError, WeightsError) as error:
            raise self._problem("the checkpoint", error) from error

    def load(self, notice: Callable[[str], None]) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Read the newest checkpoint that can be read.

        Args:
            notice: Called with one line for a newer one that is damaged.

        Returns:
            What :meth:`save` was given: progress and tensors.

        Raises:
            DataError: If there is none.
        """
        for path in reversed(self._checkpoints()):
            try:
                metadata, tensors = weights.read_tensors(path)
                return json.loads(metadata["progress"]), tensors
            except (WeightsError, ValueError, LookupError) as error:
                notice(f"{path.name} cannot be read and is passed over: {error}")
        raise DataError(
            f"--resume {self.path}: no checkpoint in {self._state} can be read; "
            "give another run directory, or start again with another --output"
        )

    def save_weights(
        self, tensors: Mapping[str, Tensor], config: ModelConfig, record: Mapping[str, Any]
    ) -> None:
        """Write the weights for ``srcli upscale``.

        Raises:
            OutputError: If they cannot be written.
        """
        try:
            weights.save(self.weights, tensors, config, record)
        except WeightsError as error:
            raise self._problem("the weights", error) from error

    def skipped(self, reasons: Sequence[str]) -> None:
        """List the images that could not be read, besides those that are listed already.

        Raises:
            OutputError: If the list cannot be written.
        """
        path = self.path / "skipped.txt"
        try:
            known = path.read_text(encoding="utf-8").splitlines() if is_file(path) else []
            with replacing(path) as temporary:
                lines = sorted({*known, *reasons})
                temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        except OSError as error:
            raise self._problem("skipped.txt", error) from error

    def draw_curves(self, loss: str) -> None:
        """Draw ``curves.png`` from the log.

        Args:
            loss: What the loss is, for the panel's title.

        Raises:
            OutputError: If it cannot be written.
        """
        rows = self.rows()
        trained = _between_evaluations(rows)
        tested = [row for row in rows if row.eval_loss is not None]
        panels = {
            f"loss ({loss})": [
                _curve("training", trained, "loss"),
                _curve("evaluation", tested, "eval_loss"),
            ],
            "accuracy": [
                _curve("training", trained, "accuracy"),
                _curve("evaluation", tested, "eval_accuracy"),
            ],
            "PSNR, dB": [
                _curve("evaluation", tested, "eval_psnr"),
                _curve("bicubic", tested, "baseline_psnr"),
            ],
        }
        plots.curves(self.path / "curves.png", panels, title=self.path.name)

    def _checkpoints(self) -> list[Path]:
        return sorted(self._state.glob("step-*.safetensors"))

    def _tidy(self) -> None:
        """Remove what a process left that was killed while it wrote."""
        for folder in (self.path, self._state):
            for leftover in folder.glob(f".*{TEMPORARY_SUFFIX}"):
                leftover.unlink(missing_ok=True)

    def _problem(self, what: str, error: Exception) -> OutputError:
        reason = getattr(error, "strerror", None) or str(error)
        return OutputError(
            f"cannot write {what} in {self.path}: {reason}; make room or give another --output"
        )


def load_options(directory: Path) -> TrainConfig:
    """Read the options of a run to resume it, wherever its directory lies now.

    Raises:
        DataError: If the directory holds no run that can be resumed.
    """
    if not any((directory / "state").glob("step-*.safetensors")):
        raise DataError(
            f"--resume {directory}: there is no state to resume (state/step-N.safetensors is "
            "missing); give a run directory of srcli train"
        )
    try:
        text = (directory / "options.json").read_text(encoding="utf-8")
        return replace(TrainConfig.from_json(text), output=directory)
    except (OSError, UnicodeDecodeError, UsageError) as error:
        raise DataError(
            f"--resume {directory}: options.json cannot be used: {error}; give the run directory "
            "of a run of this version"
        ) from error


def _between_evaluations(rows: Sequence[Row]) -> list[Row]:
    """Average the training values of the lines up to each evaluation, weighted by steps."""
    result: list[Row] = []
    loss = accuracy = 0.0
    counted = before = 0
    evaluated = any(row.eval_loss is not None for row in rows)
    for row in rows:
        steps, before = row.step - before, row.step
        loss, accuracy = loss + row.loss * steps, accuracy + row.accuracy * steps
        counted += steps
        if (row.eval_loss is not None or not evaluated) and counted:
            result.append(replace(row, loss=loss / counted, accuracy=accuracy / counted))
            loss, accuracy, counted = 0.0, 0.0, 0
    return result


def _curve(label: str, rows: Sequence[Row], field: str) -> plots.Curve:
    values = [getattr(row, field) for row in rows]
    return plots.Curve(
        label=label,
        x=[row.epoch for row in rows],
        y=[math.nan if value is None else value for value in values],
    )
