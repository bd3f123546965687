"""Adam, or Muon with Adam beside it, as one object whose state is a dictionary of tensors."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from srcli.recipes import OptimizerName

__all__ = ["Optimizer"]

_MUON_MOMENTUM = 0.95

_MUON_RATE = 2.0
"""Muon's rate over Adam's. With updates of Adam's usual size ("Muon is Scalable for LLM Training",
Liu et al. 2025: 0.2 sqrt(max(rows, columns))) ``base`` ended its first ten minutes at 27.18 dB
with Adam at 1e-3; Muon had 27.18 after six of them at the same rate, 27.20 at twice that, and did
not converge at five times."""

_ENDS = ("stem.", "stems.", "head.", "heads.")
"""The convolutions from and to pixels stay with Adam, as Muon's author advises."""


class Optimizer:
    """Takes the steps of a training run.

    ``muon`` (Jordan et al. 2024, torch's own) replaces the gradient of each weight matrix by the
    nearest orthogonal one, so that all its directions learn at the same speed; a 3x3
    convolution's weight is the matrix of outputs times inputs and taps. What is no such matrix
    (biases, the first and the last convolution) is left to Adam.

    Args:
        net: In its final place and channels-last: the parameters are changed where they lie.
        name: ``adam`` or ``muon``.
        weight_decay: Share of Muon's weights that a step takes away, times its rate.
    """

    def __init__(self, net: nn.Module, name: OptimizerName, weight_decay: float = 0.0) -> None:
        chosen = {
            key
            for key, value in net.named_parameters()
            if name == "muon" and value.ndim == 4 and not key.startswith(_ENDS)
        }
        self._filters = [value for key, value in net.named_parameters() if key in chosen]
        self._rest = [value for key, value in net.named_parameters() if key not in chosen]
        self._matrices = [nn.Parameter(_matrix(value.detach())) for value in self._filters]
        self._adam = torch.optim.Adam(self._rest, fused=True)
        self._muon: torch.optim.Muon | None = None
        if self._matrices:
            self._muon = torch.optim.Muon(
                self._matrices,
                momentum=_MUON_MOMENTUM,
                weight_decay=weight_decay,
                adjust_lr_fn="match_rms_adamw",
            )

    def zero_grad(self) -> None:
        """Forget the gradients of all parameters."""
        for value in (*self._filters, *self._rest):
            value.grad = None

    def step(self, lr: float) -> None:
        """Change the parameters by their gradients.

        Args:
            lr: Adam's learning rate; Muon's is twice that.
        """
        _set_rate(self._adam, lr)
        self._adam.step()
        if self._muon is None:
            return
        for value, matrix in zip(self._filters, self._matrices, strict=True):
            # A unit that none of the patches went through has none.
            matrix.grad = None if value.grad is None else _matrix(value.grad)
        _set_rate(self._muon, _MUON_RATE * lr)
        self._muon.step()  # type: ignore[no-untyped-call]

    def state(self) -> dict[str, Tensor]:
        """Everything the next step depends on, besides the parameters."""
        parts = {"adam": self._adam, "muon": self._muon}
        return {
            f"{part}.{index}.{key}": value
            for part, optimizer in parts.items()
            if optimizer is not None
            for index, values in optimizer.state_dict()["state"].items()
            for key, value in values.items()
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take up what :meth:`state` gave.

        Raises:
            ValueError: If it is the state of another net or another optimiser.
            LookupError: Likewise.
        """
        parts = {"adam": (self._adam, self._rest), "muon": (self._muon, self._matrices)}
        moments: dict[str, dict[int, dict[str, Tensor]]] = {part: {} for part in parts}
        for name, value in state.items():
            part, index, key = name.split(".")
            like = parts[part][1][int(index)]
            # The fused Adam walks through memory: a moment must lie as its parameter does.
            placed = torch.empty_like(like).copy_(value) if value.shape == like.shape else value
            moments[part].setdefault(int(index), {})[key] = placed
        for part, (optimizer, _) in parts.items():
            if optimizer is not None:
                optimizer.load_state_dict({**optimizer.state_dict(), "state": moments[part]})


def _set_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr


def _matrix(filters: Tensor) -> Tensor:
    """See ``(O, I, H, W)`` as ``(O, H * W * I)``: without a copy where it lies channels-last."""
    return filters.permute(0, 2, 3, 1).flatten(1)
