"""A run directory: what a training run leaves behind, and what it is resumed from.

::

    options.json               every resolved option, written before step one
    log.csv                    loss and accuracy, training and evaluation, step by step
    curves.png                 both against the epoch
    tensorboard/               the log for TensorBoard, if asked for
    samples.png                LR, output and HR of a few images that were not trained on
    skipped.txt                images that could not be read, if there were any
    state/step-N.safetensors   net, EMA, optimizer and log: what --resume continues from
    model.safetensors          the weights, ready for ``srcli upscale -m``
"""

import csv
import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from srcli.data.sources import absolute
from srcli.errors import DataError, OutputError, UsageError, WeightsError
from srcli.files import is_file, is_folder, is_there, reason, replacing, sweep
from srcli.model import weights
from srcli.model.config import ModelConfig
from srcli.training.config import TrainConfig

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

__all__ = ["Row", "RunDirectory", "load_options"]


Row = dict[str, float]
"""A line of ``log.csv``: what it has of the columns."""

_COLUMNS = (
    *("step", "epoch", "patches", "seconds", "lr", "loss", "accuracy"),
    *("eval_loss", "eval_accuracy", "eval_psnr", "baseline_psnr"),
)
"""Losses are those of the run; the accuracy is the share of pixels whose largest channel is the HR
patch's. Both are means over the steps since the line before. PSNR is that of RGB, in dB; the
baseline's is that of the bicubic input on the same images."""

_OF_DISCRIMINATOR = ("features", "adversarial", "discriminator")
"""Of a run with a discriminator alone: the distance of the features, before its weight; how well
results are told from originals, ln 2 where they are not; and the discriminator's own loss, 2 ln 2
where it only guesses."""


_KEPT = 2
"""Checkpoints: where the newest is damaged, the one before it will do."""


class RunDirectory:
    """Reads and writes the files of one run; what cannot be written is an ``OutputError``.

    Args:
        path: The directory.
        config: The run's options; None where it is only looked at.
    """

    def __init__(self, path: Path, config: TrainConfig | None = None) -> None:
        self.path = path
        self._columns = _COLUMNS + (_OF_DISCRIMINATOR if config and config.adversarial else ())
        self.weights = path / "model.safetensors"
        self._state = path / "state"
        self._log = path / "log.csv"
        self._tensorboard = config is not None and config.tensorboard
        self._events: SummaryWriter | None = None

    def require_new(self) -> None:
        """Raise ``OutputError``, before images are loaded, if a new run cannot be kept here."""
        output = self.path
        blocker = next((part for part in (output, *output.parents) if is_there(part)), output)
        if is_there(blocker) and not is_folder(blocker):
            raise OutputError(
                f"cannot write the run directory {output}: {blocker} is not a folder; "
                "give another --output"
            )
        if self._checkpoints() or is_there(self.weights):
            raise OutputError(
                f"{output} already holds a run: continue it with --resume {output}, "
                "or give another --output"
            )

    def begin(self, config: TrainConfig) -> None:
        """Make the directory with its options and an empty log."""
        # Absolute, so that the run can be resumed from any directory.
        kept = replace(config, datasets=tuple(map(absolute, config.datasets)))
        with self._writing("the run directory"):
            self._state.mkdir(parents=True, exist_ok=True)
            with replacing(self.path / "options.json") as temporary:
                temporary.write_text(kept.to_json(), encoding="utf-8")
            self._begin_log(())

    def resume_at(self, step: int) -> None:
        """Drop what a stopped run logged after its checkpoint: those steps are taken again."""
        rows = [row for row in self.rows() if row["step"] <= step]
        with self._writing("log.csv"):
            self._begin_log(rows)

    def log(self, row: Row) -> None:
        """Append a line to the log."""
        with (
            self._writing("log.csv"),
            self._log.open("a", newline="", encoding="utf-8") as file,
        ):
            file.write(self._line(row))
            file.flush()
            os.fsync(file.fileno())  # a checkpoint must not outlive the lines before it
            self._add_event(row)

    def _line(self, row: Row) -> str:
        cells = [row.get(name, "") for name in self._columns]
        texts = (f"{cell:.8g}" if isinstance(cell, float) else str(cell) for cell in cells)
        return ",".join(texts) + "\n"

    def _begin_log(self, rows: Sequence[Row]) -> None:
        """Write the log anew, and TensorBoard's file, which forgets what it had."""
        for folder in (self.path, self._state):  # what was left when a process was killed
            sweep(folder)
        with replacing(self._log) as temporary:
            lines = [",".join(self._columns) + "\n", *map(self._line, rows)]
            temporary.write_text("".join(lines), encoding="utf-8")
        if self._tensorboard:
            from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - an extra

            self._events = SummaryWriter(str(self.path / "tensorboard"), purge_step=0)
            for row in rows:
                self._add_event(row)

    def _add_event(self, row: Row) -> None:
        if self._events is None:
            return
        for name in row.keys() - {"step", "patches", "seconds"}:
            self._events.add_scalar(name, row[name], int(row["step"]))
        self._events.flush()

    def close(self) -> None:
        """Close TensorBoard's file."""
        if self._events is not None:
            self._events.close()

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
            return [
                {
                    name: int(cell) if cell.isdecimal() else float(cell)
                    for name in self._columns
                    if (cell := line[name])
                }
                for line in whole
            ]
        except (OSError, ValueError, KeyError, csv.Error) as error:
            raise DataError(
                f"{self._log} cannot be read ({reason(error)}); start again with another --output"
            ) from error

    def save(
        self,
        step: int,
        state: Mapping[str, Mapping[str, Tensor]],
        progress: Mapping[str, Any],
    ) -> None:
        """Write a checkpoint, whole or not at all; the oldest ones go when it is there.

        ``state`` has the tensors of each part of the run (net, optimizer, ...) by their names,
        ``progress`` what else the run is resumed from.
        """
        path = self._state / f"step-{step:08d}.safetensors"
        tensors = {
            f"{part}.{name}": tensor
            for part, named in state.items()
            for name, tensor in named.items()
        }
        with self._writing("the checkpoint"):
            weights.write_tensors(path, tensors, {"progress": json.dumps(dict(progress))})
            # A newer one was damaged, or the run would not have come by here again.
            kept = [one for one in self._checkpoints() if one <= path][-_KEPT:]
            for other in set(self._checkpoints()) - set(kept):
                other.unlink(missing_ok=True)

    def load(
        self, notice: Callable[[str], None]
    ) -> tuple[dict[str, Any], Mapping[str, dict[str, Tensor]]]:
        """Read progress and state of the newest checkpoint that can be read.

        A part that is missing from the state is empty. ``notice`` is called with one line for a
        newer checkpoint that is damaged.

        Raises:
            DataError: If there is none.
        """
        for path in reversed(self._checkpoints()):
            try:
                metadata, tensors = weights.read_tensors(path)
                progress = json.loads(metadata["progress"])
            except (WeightsError, ValueError, LookupError) as error:
                notice(f"{path.name} cannot be read and is passed over: {error}")
                continue
            state: defaultdict[str, dict[str, Tensor]] = defaultdict(dict)
            for full_name, tensor in tensors.items():
                part, _, name = full_name.partition(".")
                state[part][name] = tensor
            return progress, state
        raise DataError(
            f"--resume {self.path}: no checkpoint in {self._state} can be read; "
            "give another run directory, or start again with another --output"
        )

    def save_weights(
        self, tensors: Mapping[str, Tensor], config: ModelConfig, record: Mapping[str, Any]
    ) -> None:
        """Write the weights for ``srcli upscale``."""
        with self._writing("the weights"):
            weights.save(self.weights, tensors, config, record)

    def list_skipped(self, reasons: Sequence[str]) -> Path:
        """List unreadable images besides those that are listed already; return the list's path."""
        path = self.path / "skipped.txt"
        with self._writing("skipped.txt"):
            known = path.read_text(encoding="utf-8").splitlines() if is_file(path) else []
            with replacing(path) as temporary:
                lines = sorted({*known, *reasons})
                temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return path

    def _checkpoints(self) -> list[Path]:
        return sorted(self._state.glob("step-*.safetensors"))

    @contextmanager
    def _writing(self, what: str) -> Iterator[None]:
        """Turn what the file system says into an error with a way out."""
        try:
            yield
        except (OSError, WeightsError) as error:
            raise OutputError(
                f"cannot write {what} in {self.path}: {reason(error)}; make room or give another "
                "--output"
            ) from error


def load_options(directory: Path) -> TrainConfig:
    """Read the options of a run to resume it, wherever its directory lies now.

    Raises:
        DataError: If the directory holds no run that can be resumed.
    """
    try:
        text = (directory / "options.json").read_text(encoding="utf-8-sig")
        return replace(TrainConfig.from_json(text), output=directory)
    except (OSError, UnicodeDecodeError, UsageError) as error:
        raise DataError(
            f"--resume {directory}: options.json cannot be used: {reason(error)}; give the run "
            "directory of a run of this version"
        ) from error
