"""The images of a run: which are trained and evaluated on, and their patches."""

import math
import os
from collections import deque
from collections.abc import Callable, Generator, Iterator
from itertools import islice

from torch import Tensor

from srcli.data.degrading import training_input
from srcli.data.loading import Batch, Centers, Loader
from srcli.data.pool import Pool, Splits, open_pool, split
from srcli.data.sampling import Sampler
from srcli.data.sources import open_folder
from srcli.errors import UsageError
from srcli.ops.color import dequantize
from srcli.ops.degradation import Degradation
from srcli.ops.resample import bicubic
from srcli.ops.spans import PATCH
from srcli.training.config import TrainConfig
from srcli.training.distributed import ProcessGroup

__all__ = ["GIVEN", "TrainingImages", "input_and_target", "total_steps"]

GIVEN = "LR of the data set"
"""What the header of weights has for the degradation of pairs."""

_SAMPLES = 4


class TrainingImages:
    """All images of a run, split, and what draws patches from them.

    Raises:
        DataError: If a data set is missing or empty, or too much of it unreadable.
    """

    def __init__(
        self, config: TrainConfig, group: ProcessGroup, notice: Callable[[str], None]
    ) -> None:
        self._config, self._group = config, group
        if not group.is_main_process:
            group.wait()  # the main process may have an archive to unpack
        pool = open_pool(config.datasets, config.data_dir, config.seed, notice, config.scales)
        pool = pool.limited(config.limit)
        own = None
        if config.valid is not None:
            own = Pool([open_folder(config.valid, config.scales, "--valid")], config.seed)
        self.has_pairs = pool.has_pairs or (own is not None and own.has_pairs)
        """Whether LR is given of some images."""
        if self.has_pairs and not config.degradation.is_bicubic:
            raise UsageError(
                f"--degradation {config.degradation} would do nothing to images that have LR of "
                "their own, in folders HR and LRx3: leave it out, or give the folder HR alone"
            )
        if group.is_main_process:
            group.wait()
        self.fingerprint = pool.fingerprint()
        """Names the images: a resumed run needs those that it was begun with."""

        if own is None:
            self.splits = split(pool, config.seed, config.split)
        else:
            self.fingerprint += own.fingerprint()
            self.splits = Splits(train=pool, evaluation=own, test=own.limited(0))
        workers = config.workers or os.cpu_count() or 1
        self.loader = Loader(self.splits.train, group.device, workers=workers)
        areas = self.loader.areas() if config.sampling == "area" or self.has_pairs else []
        self._sampler = Sampler(
            len(self.splits.train),
            config.seed,
            scales=config.scales,
            augment=config.augment,
            areas=areas if config.sampling == "area" else None,
        )
        self.epoch_steps = self._sampler.steps_per_epoch(config.batch)
        self.total_steps = total_steps(config, len(self.splits.train), self.epoch_steps)
        held = self.splits.evaluation
        count = min(len(held), config.eval_images or len(held))
        # Narrowed first: the factors go round among those that are evaluated on.
        chosen = held.only(i * len(held) // count for i in range(count))
        places = range(count)[group.rank :: group.size]
        self.held_out = Centers(
            chosen, places, group.device, workers=workers, size=config.batch_size
        )
        """Patches to evaluate on: this process's share of evenly spread images."""

        self._check_evaluation(chosen, notice)

    def _check_evaluation(self, chosen: Pool, notice: Callable[[str], None]) -> None:
        """Say what is wrong with the images to evaluate on, before the first step."""
        if self.held_out.keeps:  # what cannot be read is found
            deque(self.evaluation_batches(), maxlen=0)
        trained = self.splits.train.shared(chosen)
        if trained:
            notice(
                f"{len(trained)} of the {len(chosen)} images to evaluate on are trained on as "
                f"well, such as {trained[0]}: their scores are too good; give each folder once, "
                "and none that holds that of --valid"
            )
        if not chosen:
            notice(
                f"there is no image left to evaluate on ({sum(map(len, self.splits))} in "
                "all): curves and samples show training alone; give more images"
            )

    def batches(self, step: int) -> Generator[Batch]:
        """Read this process's patches of all steps from ``step`` on, without end."""
        own, rank = self._config.batch_size, self._group.rank
        rows = slice(rank * own, (rank + 1) * own)
        return self.loader.batches(self._sampler, step, self._config.batch, rows)

    def evaluation_batches(self) -> Iterator[Batch]:
        """Read this process's share of the patches to evaluate on, always the same ones."""
        return self.held_out.batches(self._config.scales, self._config.seed)

    def samples(self) -> Iterator[Batch]:
        """Return a few of the patches to evaluate on, a batch each."""
        batches = self.evaluation_batches()
        alone = (batch.part(slice(i, i + 1)) for batch in batches for i in range(len(batch.scales)))
        return islice(alone, _SAMPLES)

    def epoch(self, step: int) -> float:
        """Return how many passes over the training images so many steps are."""
        if self._config.sampling == "epoch":
            return step / self.epoch_steps
        return step * self._config.batch / len(self.splits.train)

    @property
    def failures(self) -> list[str]:
        """Why images could not be read, as far as this process wanted them."""
        return [*self.loader.failures.values(), *self.held_out.failures.values()]


def total_steps(config: TrainConfig, images: int, epoch_steps: int) -> int | None:
    """Return how many steps a run has; None where its time is all that ends it.

    Of ``images`` that are trained on, each has its turn within ``epoch_steps`` steps.
    """
    if config.epochs is None:
        return config.steps
    if config.sampling == "epoch":
        return max(1, math.ceil(config.epochs * epoch_steps))
    return max(1, math.ceil(config.epochs * images / config.batch))


def input_and_target(batch: Batch, degradation: Degradation) -> tuple[Tensor, Tensor]:
    """Return LR of a batch's patches, given or made, enlarged by bicubic, and the originals.

    Both are ``(N, 3, 120, 120)`` in [0, 1].
    """
    target = dequantize(batch.patches)
    image = training_input(target, batch.scales, degradation, batch.draws)
    for row, low in batch.lows.items():
        image[row] = bicubic(low, (PATCH, PATCH))
    return image, target
