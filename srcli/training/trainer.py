"""``srcli train``: one run, from its first step to the weights that it leaves.

What happens at a step follows from the options and the step's number alone, so that a run
may be stopped anywhere and resumed, and may be shared by several processes.
"""

import copy
import math
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from srcli.data.loading import Batch
from srcli.errors import DataError
from srcli.ops.devices import on_device, resolve_dtype
from srcli.ops.metrics import agreement, psnr
from srcli.training.adversary import Adversary
from srcli.training.compute import (
    BatchThreads,
    computing,
    memory_reported,
    precision,
    starting_net,
    uses_every_weight,
)
from srcli.training.config import TrainConfig
from srcli.training.curves import draw_curves, draw_samples
from srcli.training.distributed import ProcessGroup, join_process_group, share_batch
from srcli.training.images import TrainingImages, input_and_target
from srcli.training.losses import LOSS_FUNCTIONS
from srcli.training.optimizers import Optimizer, learning_rate
from srcli.training.reports import (
    Progress,
    RecentSteps,
    Scores,
    TrainReport,
    diverged,
    training_record,
)
from srcli.training.run_directory import Row, RunDirectory
from srcli.training.symmetry import Symmetry

__all__ = ["Trainer", "train"]

_LOG_EVERY = 100
_SECONDS_BETWEEN_PICTURES = 60.0


def train(
    config: TrainConfig,
    *,
    resume: bool = False,
    on_progress: Callable[[Progress], None] = lambda _: None,
    on_message: Callable[[str], None] = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> TrainReport:
    """Train a net, or continue a run where its last checkpoint left it.

    Under ``torchrun`` every process calls this with the same options; the first one writes.

    Args:
        config: The run's options.
        resume: Continue from the run directory's state instead of starting anew.
        on_progress: Called after every step.
        on_message: Called with one line for anything worth knowing (an unreadable image); in
            the main process only.
        should_stop: Asked after every step; true saves the state and ends the run early.

    Returns:
        The report; ``report.weights`` is the file that was written.

    Raises:
        DataError: If a data set is missing or empty, or too much of it unreadable.
        OutputError: If the run directory cannot be written, or already holds a run.
        TrainingError: If the loss is not finite; the last checkpoint stays.
        DeviceError: If the device is not there or out of memory.
        UsageError: If the batch of a resumed run cannot be shared by the processes.
        WeightsError: If the weights to start from cannot be loaded.
    """
    with join_process_group(config.device) as group:
        notice = on_message if group.is_main_process else lambda _: None
        if not resume and group.is_main_process:
            RunDirectory(config.output).require_new()
        return Trainer(config, group, notice, resume=resume).fit(on_progress, should_stop)


class Trainer:
    """A run: its net, its images, and how far it is; arguments and errors are as for ``train``."""

    def __init__(
        self,
        config: TrainConfig,
        group: ProcessGroup,
        notice: Callable[[str], None],
        *,
        resume: bool = False,
    ) -> None:
        if resume:
            config = share_batch(config, group.size)
        self.config = config = replace(config, processes=group.size)
        self.group, self._notice, self._resumes = group, notice, resume
        self.directory = RunDirectory(config.output, config)
        self.dtype = resolve_dtype(config.dtype, group.device)
        torch.manual_seed(config.seed)
        net, self._origin = starting_net(config, resume=resume)
        self.net = on_device(net, group.device)
        self._symmetry: Symmetry | None = None
        self._symmetric_share = float(config.model.symmetric) or config.symmetric_share
        if self._symmetric_share:
            self._symmetry = Symmetry(self.net, replace(config.model, symmetric=True))
            if config.init_from is None:
                self._symmetry.begin()
        self.average = copy.deepcopy(self.net).eval().requires_grad_(requires_grad=False)
        self._optimizer = Optimizer(self.net, config.optimizer, config.weight_decay)
        self._loss_function = LOSS_FUNCTIONS[config.loss]
        self._adversary = Adversary(config, group, notice) if config.adversarial else None
        with memory_reported(config, group.device):
            self.images = TrainingImages(config, group, notice)
        self._callable: nn.Module = self.net
        if group.size > 1:
            self._callable = DistributedDataParallel(
                self.net,
                gradient_as_bucket_view=True,
                find_unused_parameters=not uses_every_weight(config),
            )
        self.threads: BatchThreads | None = None
        """What shares each batch while a CPU computes; None: each step is computed at once."""
        self.step = 0
        self.seconds = 0.0
        """In the training loop, all sessions together."""

        self._seconds_drawn = -math.inf
        self._recent = RecentSteps(group)
        self._means: dict[str, float] = {}
        self.scores: Scores | None = None
        self._best = (-math.inf, 0)
        """The best PSNR, and the evaluations since then."""

        self._stopped = False

    def fit(
        self,
        on_progress: Callable[[Progress], None] = lambda _: None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> TrainReport:
        """Train to the end of the run, or until asked to stop, and leave the weights."""
        if self._resumes:
            self.resume()
        elif self.group.is_main_process:
            self.directory.begin(self.config)
        with (
            computing(self.config, self.group) as self.threads,
            closing(self.images.batches(self.step)) as batches,
            closing(self.directory),
        ):
            begun = time.monotonic() - self.seconds
            while not self._ends:
                lr = learning_rate(self.config, self.step, self.done)
                self.train_step(next(batches), lr)
                self._stopped, self.seconds = self.group.agree(
                    stop=should_stop(), seconds=time.monotonic() - begun
                )
                self._log(lr)
                on_progress(self._progress(lr))
                if self.step % self.config.save_every == 0 and not self._ends:
                    self.save()
            self.save()
            if self._is_impatient:
                self._notice(
                    f"the PSNR has not been above {self._best[0]:.2f} dB in {self._best[1]} "
                    f"evaluations: patience={self.config.patience} ends the run"
                )
            report = self._report(self.group.gather(self.images.failures))
            if self.group.is_main_process:
                self._draw()
            self.group.wait()
        return report

    def train_step(self, batch: Batch, lr: float) -> None:
        """Take one step on a batch and let the average follow."""
        self.net.zero_grad()
        parameters = list(self.net.parameters())
        if self._adversary:
            self._adversary.begin(self.step)
            parameters += self._adversary.discriminator.parameters()
        if self.threads is None:
            total, values = self._measure(batch)
            total.backward()  # type: ignore[no-untyped-call]
        else:
            values = self.threads.backward(parameters, self._measure, batch)
        if self._symmetry and self.done < self._symmetric_share:
            self._symmetry.average_gradients()
        if self.config.clip:
            nn.utils.clip_grad_norm_(self.net.parameters(), self.config.clip)
        self._optimizer.step(lr)
        if self._adversary:
            self._adversary.step(lr)
        self.step += 1
        self._follow()
        self._recent.append(values)

    @torch.no_grad()
    def _follow(self) -> None:
        """Let the average follow: closely early on, so that it forgets the random start."""
        decay = min(self.config.ema, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(
            list(self.average.parameters()), list(self.net.parameters()), 1 - decay
        )

    def _measure(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Run the net on a batch and return what to descend from, and what the log has of it."""
        image, target = input_and_target(batch, self.config.degradation)
        output = self._run(self._callable, image, batch.scales)
        with torch.no_grad():
            accuracy = agreement(output, target).mean()
        total = self._loss_function(output, target)
        values = {"loss": total, "accuracy": accuracy}
        if self._adversary:
            with precision(self.group.device, self.dtype, threads=self.threads):
                more, parts = self._adversary.measure(output, target, batch.scales)
            total, values = total + more, values | parts
        return total, values

    def restore(self, image: Tensor, scales: Sequence[float]) -> Tensor:
        """Run the averaged net on enlarged patches, ``(N, 3, 120, 120)``, in ``float32``."""
        return self._run(self.average, image, scales)

    def _run(self, net: nn.Module, image: Tensor, scales: Sequence[float]) -> Tensor:
        image = image.contiguous(memory_format=torch.channels_last)
        with precision(self.group.device, self.dtype, threads=self.threads):
            output: Tensor = net(image, scales)
        return output.float()

    @torch.no_grad()
    def evaluate(self) -> Scores:
        """Return the scores of the averaged net, and of its input, on the evaluation images."""
        sums = torch.zeros(5, dtype=torch.float64)
        for batch in self.images.evaluation_batches():
            image, target = input_and_target(batch, self.config.degradation)
            output = self.restore(image, batch.scales)
            values = [
                self._loss_function(output, target).double() * len(target),
                agreement(output, target).sum(),
                psnr(output.clamp(0, 1), target).sum(),
                psnr(image.clamp(0, 1), target).sum(),
            ]
            sums += torch.tensor([*map(float, values), len(target)], dtype=torch.float64)
        *totals, count = self.group.sum(sums).tolist()
        if not count:
            raise DataError("none of the evaluation images can be read; give other images")
        loss, accuracy, score, baseline = (total / count for total in totals)
        return Scores(loss=loss, accuracy=accuracy, psnr=score, baseline_psnr=baseline)

    def save(self) -> None:
        """Write a checkpoint and the averaged weights; all processes have to call it together."""
        self._recent.require_finite(self.step, self.config.lr)
        if not all(value.isfinite().all() for value in self.net.parameters()):
            raise diverged("weights are", self.step, self.config.lr)
        state = {
            "net": self.net.state_dict(),
            "ema": self.average.state_dict(),
            "optimizer": self._optimizer.state(),
            "recent": self._recent.state(),
            "adversary": self._adversary.state() if self._adversary else {},
        }
        if not self.group.is_main_process:
            return
        progress = {
            "step": self.step,
            "seconds": self.seconds,
            "images": self.images.fingerprint,
            "patience": self._best,
            "origin": self._origin,
        }
        self.directory.save(self.step, state, progress)
        record = training_record(self.config, self.images, self.step, self.seconds, self._origin)
        record["dtype"] = str(self.dtype).removeprefix("torch.")
        self.directory.save_weights(self.average.state_dict(), self.config.model, record)

    def resume(self) -> None:
        """Continue from the newest readable checkpoint of the run directory."""
        path = self.directory.path
        progress, state = self.directory.load(self._notice)
        if progress.get("images", self.images.fingerprint) != self.images.fingerprint:
            raise DataError(
                f"the images of {', '.join(self.config.datasets)} are no longer those that "
                f"{path} was begun with: give them back as they were, or start again "
                "with another --output"
            )
        try:
            self.step, self.seconds = int(progress["step"]), float(progress["seconds"])
            self._origin = progress.get("origin")
            self._best = progress.get("patience", self._best)
            self.net.load_state_dict(state["net"])
            self.average.load_state_dict(state["ema"])
            self._optimizer.restore(state["optimizer"])
            self._recent.restore(state["recent"])
            if self._adversary:
                self._adversary.restore(state["adversary"])
        except (ValueError, LookupError, TypeError, RuntimeError) as error:
            reason = str(error).splitlines()[-1].strip()
            raise DataError(
                f"the state in {path} cannot be resumed: {reason}; start again with "
                "another --output"
            ) from error
        if self.group.is_main_process:
            self.directory.resume_at(self.step)

    @property
    def done(self) -> float:
        """Share of the run that is over, 0 to 1; the learning rate follows it."""
        if self.images.total_steps is not None:
            return min(1.0, self.step / self.images.total_steps)
        return min(1.0, self.seconds / (self.config.max_seconds or math.inf))

    @property
    def is_over(self) -> bool:
        """Whether the run has come to its end, by its steps or by its clock."""
        late = self.seconds >= (self.config.max_seconds or math.inf)
        return self.done >= 1 or late or self._is_impatient

    @property
    def _is_impatient(self) -> bool:
        return self._best[1] >= (self.config.patience or math.inf)

    @property
    def _ends(self) -> bool:
        return self.is_over or self._stopped

    @property
    def evaluation_interval(self) -> int:
        """Steps between evaluations."""
        return self.config.eval_every or self.images.epoch_steps

    def _log(self, lr: float) -> None:
        """Write a line of the log when one is due, with scores when it is time to evaluate."""
        is_due = self.step % self.evaluation_interval == 0 or self.is_over
        evaluates = is_due and len(self.images.splits.evaluation) > 0
        if not (evaluates or self.is_over or self.step % _LOG_EVERY == 0 or self.step == 1):
            return
        self._recent.require_finite(self.step, self.config.lr)
        self._means = self._recent.take_means()
        if self._adversary:
            self._adversary.require_alive(self.step, self._means)
        if evaluates:
            self.scores = self.evaluate()
            (best, worse), psnr = self._best, self.scores.psnr
            self._best = max(best, psnr), 0 if psnr > best else worse + 1
        if not self.group.is_main_process:
            return
        row: Row = {
            "step": self.step,
            "epoch": self.images.epoch(self.step),
            "patches": self.step * self.config.batch,
            "seconds": round(self.seconds, 2),
            "lr": lr,
        }
        scores = self.scores.cells() if self.scores and evaluates else {}
        self.directory.log(row | self._means | scores)
        since = self.seconds - self._seconds_drawn
        if evaluates and since >= _SECONDS_BETWEEN_PICTURES and not self.is_over:
            self._draw()

    def _progress(self, lr: float) -> Progress:
        return Progress(
            step=self.step,
            epoch=self.images.epoch(self.step),
            done=self.done,
            loss=self._means.get("loss", math.nan),
            lr=lr,
            scores=self.scores,
        )

    def _draw(self) -> None:
        self._seconds_drawn = self.seconds
        path = self.directory.path
        draw_curves(path / "curves.png", self.directory.rows(), self.config.loss)
        draw_samples(path / "samples.png", self.images, self.config.degradation, self.restore)

    def _report(self, skipped: list[str]) -> TrainReport:
        if skipped and self.group.is_main_process:
            path = self.directory.list_skipped(skipped)
            self._notice(
                f"{len(skipped)} images could not be read and were left out, as {path} lists; the "
                f"first: {skipped[0]}"
            )
        return TrainReport(
            output=str(self.directory.path),
            weights=str(self.directory.weights),
            step=self.step,
            patches=self.step * self.config.batch,
            seconds=self.seconds,
            loss=self._means.get("loss"),
            accuracy=self._means.get("accuracy"),
            scores=self.scores,
            skipped=len(skipped),
            finished=self.done >= 1 or self._is_impatient,
            stopped=self._stopped,
        )
