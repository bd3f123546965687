"""How a step is computed: the net, the precision, and threads that share a batch."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from srcli.data.loading import Batch
from srcli.errors import DeviceError, UsageError
from srcli.model import weights
from srcli.model.network import ResidualAutoencoder
from srcli.ops.devices import memory_errors
from srcli.training.config import TrainConfig
from srcli.training.distributed import ProcessGroup

__all__ = [
    "BatchThreads",
    "computing",
    "memory_reported",
    "precision",
    "starting_net",
    "uses_every_weight",
]


def starting_net(
    config: TrainConfig, *, resume: bool
) -> tuple[ResidualAutoencoder, Mapping[str, Any] | None]:
    """Return the net to begin with, and the training record of its weights, if it has any.

    A resumed run does not need the weights that it began with. ``UsageError`` if they are of
    another shape, ``WeightsError`` if they cannot be loaded.
    """
    if config.init_from is None or resume:
        return ResidualAutoencoder(config.model), None
    net, header = weights.load(config.init_from)
    # Symmetric weights may be trained on without their symmetry, but not the other way round.
    if config.model not in (header.config, replace(header.config, symmetric=False)):
        raise UsageError(
            f"--init-from {config.init_from}: its net has another shape than --set model asks "
            "for; use weights of that shape"
        )
    return net.train(), header.training


def uses_every_weight(config: TrainConfig) -> bool:
    """Whether each process has a patch for every path through the net in every step.

    Looking for unused weights takes time in each step, and where there are none PyTorch warns.
    """
    used = {config.model.path(scale) for scale in config.scales}
    takes_each = len(used) == 1 or config.batch_size >= len(config.scales)
    return takes_each and used == {None, *config.model.paths}


@contextmanager
def memory_reported(config: TrainConfig, device: torch.device) -> Iterator[None]:
    """Turn a lack of memory into a ``DeviceError`` that says what to change."""
    try:
        with memory_errors():
            yield
    except MemoryError as error:
        raise DeviceError(
            f"{device} is out of memory: use a smaller --batch-size than {config.batch_size}"
        ) from error


@contextmanager
def computing(config: TrainConfig, group: ProcessGroup) -> Iterator["BatchThreads | None"]:
    """Compute as fast as the device can, and report a lack of memory as what to change.

    Threads that share a layer wait for each other at its end. Two Zen 5 cores that take half of a
    batch each learn from 1.25 times as many patches a second in bf16, 1.15 times in fp32.

    Yields:
        Threads that share each batch, as many as torch was given; None where it stays whole.
    """
    cores, benchmark = torch.get_num_threads(), torch.backends.cudnn.benchmark
    alone = group.device.type == "cpu" and group.size == 1
    count = min(cores, config.batch_size) if alone else 1
    # The shapes of all steps are alike: cuDNN's search for the fastest costs the first ones alone.
    torch.backends.cudnn.benchmark = benchmark or group.device.type == "cuda"
    try:
        with memory_reported(config, group.device):
            if count < 2:
                yield None
                return
            share = (max(1, cores // count),)
            with ThreadPoolExecutor(count, "srcli-step", torch.set_num_threads, share) as threads:
                yield BatchThreads(threads, math.ceil(config.batch_size / count))
    finally:
        torch.backends.cudnn.benchmark = benchmark
        torch.set_num_threads(cores)  # that of the threads had become everyone's


def precision(
    device: torch.device, dtype: torch.dtype, *, threads: "BatchThreads | None"
) -> torch.autocast:
    """Return a context that runs a net in a format.

    Weights that are cast to it are kept for no other thread: threads would share them, but when
    the first is done all are forgotten, and where a part of a batch uses a weight twice, it was
    left to chance whether its gradients were added up in bf16.
    """
    return torch.autocast(
        device.type, dtype, enabled=dtype != torch.float32, cache_enabled=threads is None
    )


class BatchThreads:
    """Threads that each compute the gradients of a part of a batch, of ``part`` patches."""

    def __init__(self, threads: ThreadPoolExecutor, part: int) -> None:
        self._threads, self._part = threads, part

    def backward(
        self,
        parameters: Sequence[nn.Parameter],
        measure: Callable[[Batch], tuple[Tensor, dict[str, Tensor]]],
        batch: Batch,
    ) -> dict[str, Tensor]:
        """Give the parameters, which have none, the gradients of a batch's loss.

        A loss is a mean over the patches, so its gradient is that of the parts', by their sizes;
        they are added up in the parts' order. ``measure`` returns the loss of a batch, and named
        means over its patches; returned are those of the whole batch.
        """
        count, size = len(batch.scales), self._part

        def part(start: int) -> tuple[Sequence[Tensor | None], dict[str, Tensor]]:
            some = batch.part(slice(start, start + size))
            loss, values = measure(some)
            share = len(some.scales) / count
            gradients = torch.autograd.grad(share * loss, parameters, allow_unused=True)
            return gradients, {name: share * value.detach() for name, value in values.items()}

        means: dict[str, Tensor] = {}
        for gradients, shares in self._threads.map(part, range(0, count, size)):
            for parameter, gradient in zip(parameters, gradients, strict=True):
                if parameter.grad is None:
                    parameter.grad = gradient
                elif gradient is not None:
                    parameter.grad.add_(gradient)
            # In fp32, as the loss is.
            means = {name: means.get(name, torch.zeros(())) + shares[name] for name in shares}
        return means
