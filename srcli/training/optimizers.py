"""Adam, or Muon with Adam beside it, as one object whose state is a dictionary of tensors."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from srcli.ops.devices import resolve_dtype
from srcli.training.config import OptimizerName

__all__ = ["Optimizer"]

_MUON_MOMENTUM = 0.95

_MUON_SIZE = 0.2
"""Root of the mean square of a step over the rate, as Adam's steps have it ("Muon is Scalable for
LLM Training", Liu et al. 2025)."""

_MUON_RATE = 2.0
"""Muon's rate over Adam's. ``base`` ended its first ten minutes at 27.18 dB with Adam at 1e-3; Muon
had 27.18 after six of them at the same rate, 27.20 at twice that, and did not converge at five
times."""

_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of the iteration, five of which take every singular value to about 0.7..1.2 (Jordan
et al. 2024, who chose them for the steepest rise from zero)."""

_ITERATIONS = 5

_ENDS = ("stem.", "stems.", "head.", "heads.")
"""The convolutions from and to pixels stay with Adam, as Muon's author advises."""


class Optimizer:
    """Takes the steps of a training run.

    ``muon`` (Jordan et al. 2024) replaces the gradient of each weight matrix by the
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
        self._muon = _Muon(self._matrices, weight_decay)

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
        for value, matrix in zip(self._filters, self._matrices, strict=True):
            # A unit that none of the patches went through has none.
            matrix.grad = None if value.grad is None else _matrix(value.grad)
        self._muon.step(_MUON_RATE * lr)

    def state(self) -> dict[str, Tensor]:
        """Everything the next step depends on, besides the parameters."""
        parts = {"adam": self._adam.state_dict()["state"], "muon": self._muon.state()}
        return {
            f"{part}.{index}.{key}": value
            for part, state in parts.items()
            for index, values in state.items()
            for key, value in values.items()
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take up what :meth:`state` gave.

        Raises:
            ValueError: If it is the state of another net or another optimiser.
            LookupError: Likewise.
        """
        parts = {"adam": self._rest, "muon": self._matrices}
        moments: dict[str, dict[int, dict[str, Tensor]]] = {part: {} for part in parts}
        for name, value in state.items():
            part, index, key = name.split(".")
            like = parts[part][int(index)]
            # The fused Adam walks through memory: a moment must lie as its parameter does.
            placed = torch.empty_like(like).copy_(value) if value.shape == like.shape else value
            moments[part].setdefault(int(index), {})[key] = placed
        self._adam.load_state_dict({**self._adam.state_dict(), "state": moments["adam"]})
        self._muon.restore(moments["muon"])


class _Muon:
    """The part of an :class:`Optimizer` that trains matrices.

    As ``torch.optim.Muon`` has it with ``match_rms_adamw``, but all matrices of a shape at once,
    and in bf16 only where the processor multiplies it: emulated, this took half as long as the net.
    """

    def __init__(self, matrices: list[nn.Parameter], weight_decay: float) -> None:
        self._matrices, self._decay = matrices, weight_decay
        self._momenta: dict[int, Tensor] = {}
        device = matrices[0].device if matrices else torch.device("cpu")
        self._dtype = resolve_dtype("auto", device)

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """Change every matrix that has a gradient."""
        alike: dict[torch.Size, list[tuple[nn.Parameter, Tensor]]] = {}
        for index, matrix in enumerate(self._matrices):
            if matrix.grad is None:
                continue
            if index not in self._momenta:
                self._momenta[index] = torch.zeros_like(matrix)
            momentum = self._momenta[index]
            momentum.lerp_(matrix.grad, 1 - _MUON_MOMENTUM)
            update = matrix.grad.lerp(momentum, _MUON_MOMENTUM)  # Nesterov's
            alike.setdefault(matrix.shape, []).append((matrix, update))
        for shape, group in alike.items():
            updates = _orthogonal(torch.stack([update for _, update in group]), self._dtype)
            for (matrix, _), update in zip(group, updates, strict=True):
                matrix.mul_(1 - lr * self._decay)
                matrix.add_(update, alpha=-lr * _MUON_SIZE * max(shape) ** 0.5)

    def state(self) -> dict[int, dict[str, Tensor]]:
        """Tell the momenta, named as torch names them."""
        return {index: {"momentum_buffer": one} for index, one in self._momenta.items()}

    def restore(self, state: Mapping[int, Mapping[str, Tensor]]) -> None:
        """Take up what :meth:`state` gave."""
        self._momenta = {index: one["momentum_buffer"] for index, one in state.items()}


def _orthogonal(matrices: Tensor, dtype: torch.dtype) -> Tensor:
    """Take the singular values of each of ``(N, rows, columns)`` to about one.

    By Newton and Schulz's iteration in ``dtype``, on matrices that are no higher than wide.
    """
    high = matrices.shape[1] > matrices.shape[2]
    wide = matrices.mT if high else matrices
    wide = wide / torch.linalg.matrix_norm(wide, keepdim=True).clamp(min=1e-7)
    wide = wide.to(dtype)
    first, third, fifth = _NEWTON_SCHULZ
    for _ in range(_ITERATIONS):
        square = wide @ wide.mT
        factor = torch.baddbmm(square, square, square, beta=third, alpha=fifth)
        wide = torch.baddbmm(wide, factor, wide, beta=first)
    return (wide.mT if high else wide).to(matrices.dtype)


def _set_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr


def _matrix(filters: Tensor) -> Tensor:
    """See ``(O, I, H, W)`` as ``(O, H * W * I)``: without a copy where it lies channels-last."""
    return filters.permute(0, 2, 3, 1).flatten(1)
