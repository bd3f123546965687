"""The net that a run trains: where its weights begin, and how it is compiled and distributed."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from srcli.errors import UsageError
from srcli.model import weights
from srcli.model.network import ResidualAutoencoder
from srcli.training.config import TrainConfig
from srcli.training.distributed import ProcessGroup

__all__ = ["callable_net", "starting_net", "uses_every_weight"]


def starting_net(
    config: TrainConfig, *, resume: bool
) -> tuple[ResidualAutoencoder, Mapping[str, Any] | None]:
    """Return the net to begin with, and the training record of its weights, if it has any.

    Args:
        config: The run's options.
        resume: Whether a checkpoint follows: then the weights to start from are not needed.

    Raises:
        UsageError: If the weights to start from are of another shape.
        WeightsError: If they cannot be loaded.
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


def callable_net(net: ResidualAutoencoder, config: TrainConfig, group: ProcessGroup) -> nn.Module:
    """Return the net as a training step calls it: compiled, distributed, or itself."""
    if config.compile:
        # What a batch is split into by scales differs from step to step; each part is one graph.
        dynamic = True if config.model.paths else None
        net.restore = torch.compile(net.restore, dynamic=dynamic)  # type: ignore[method-assign]
    if group.size == 1:
        return net
    wrapped: nn.Module = DistributedDataParallel(
        net, gradient_as_bucket_view=True, find_unused_parameters=not uses_every_weight(config)
    )
    return wrapped


def uses_every_weight(config: TrainConfig) -> bool:
    """Whether each process has a patch for every path through the net in every step.

    Looking for unused weights takes time in each step, and where there are none PyTorch warns.
    """
    used = {config.model.path(scale) for scale in config.scales}
    if used != {None, *config.model.paths}:
        return False
    return len(used) == 1 or (config.balanced and config.batch_size >= len(config.scales))
