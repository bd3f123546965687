"""The learning rate, and Adam or Muon with Adam beside it, whose state is a dict of tensors."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from srcli.ops.devices import resolve_dtype
from srcli.training.config import OptimizerName, TrainConfig

__all__ = ["Muon", "Optimizer", "learning_rate"]

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


def learning_rate(config: TrainConfig, step: int, done: float) -> float:
    """Return the rate of a step: a linear warm-up, then the schedule.

    ``step`` counts those before it; ``done`` is the share of the run that is over, 0 to 1.
    """
    peak = config.lr * min(1.0, (step + 1) / max(1, config.warmup))
    if config.schedule == "constant":
        return peak
    return peak * 0.5 * (1 + math.cos(math.pi * done))


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
        betas: How much of Adam's moments a step keeps.
    """

    def __init__(
        self,
        net: nn.Module,
        name: OptimizerName,
        weight_decay: float = 0.0,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
    ) -> None:
        self._filters: list[nn.Parameter] = []
        rest: list[nn.Parameter] = []
        for key, value in net.named_parameters():
            inner = name == "muon" and value.ndim == 4 and not key.startswith(_ENDS)
            (self._filters if inner else rest).append(value)
        self._matrices = [nn.Parameter(_matrix(value.detach())) for value in self._filters]
        self._rates = {"adam": 1.0, "muon": _MUON_RATE}
        self._parts: dict[str, torch.optim.Optimizer] = {
            "adam": torch.optim.Adam(rest, betas=betas, fused=True)
        }
        if self._matrices:
            self._parts["muon"] = Muon(self._matrices, weight_decay)
        self._all = [*self._filters, *rest]

    def zero_grad(self) -> None:
        """Forget the gradients of all parameters."""
        for value in self._all:
            value.grad = None

    def step(self, lr: float) -> None:
        """Change the parameters by their gradients at Adam's rate ``lr``; Muon's is twice that."""
        for value, matrix in zip(self._filters, self._matrices, strict=True):
            # A unit that none of the patches went through has no gradient.
            matrix.grad = None if value.grad is None else _matrix(value.grad)
        for name, part in self._parts.items():
            part.param_groups[0]["lr"] = self._rates[name] * lr
            part.step()

    def state(self) -> dict[str, Tensor]:
        """Return everything that the next step depends on, besides the parameters."""
        return {
            f"{name}.{index}.{key}": value
            for name, part in self._parts.items()
            for index, values in part.state_dict()["state"].items()
            for key, value in values.items()
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Continue from what :meth:`state` returned; else ``ValueError`` and the like."""
        moments: dict[str, dict[int, dict[str, Tensor]]] = {name: {} for name in self._parts}
        for full_name, value in state.items():
            name, index, key = full_name.split(".")
            like = self._parts[name].param_groups[0]["params"][int(index)]
            # The fused Adam walks through memory: a moment must lie as its parameter does.
            placed = torch.empty_like(like).copy_(value) if value.shape == like.shape else value
            moments[name].setdefault(int(index), {})[key] = placed
        for name, part in self._parts.items():
            part.load_state_dict({**part.state_dict(), "state": moments[name]})


class Muon(torch.optim.Optimizer):
    """Muon for matrices.

    As ``torch.optim.Muon`` has it with ``match_rms_adamw``, but all matrices of a shape at once,
    and in bf16 only where the processor multiplies it. A step of ``base`` on one core took 70 to
    90 ms here and 113 to 132 ms by torch's (Xeon with AVX-512); without native bf16, 54 to 72 ms
    and 870 to 1,000 ms.

    Args:
        matrices: What is trained, each ``(rows, columns)``.
        weight_decay: Share of the weights that a step takes away, times its rate.
    """

    def __init__(self, matrices: list[nn.Parameter], weight_decay: float) -> None:
        super().__init__(matrices, {"lr": 0.0, "weight_decay": weight_decay})
        self._dtype = resolve_dtype("auto", matrices[0].device)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Change every matrix that has a gradient."""
        assert closure is None
        for group in self.param_groups:
            alike: dict[torch.Size, list[Tensor]] = {}
            for matrix in group["params"]:
                if matrix.grad is not None:
                    alike.setdefault(matrix.shape, []).append(matrix)
            for shape, matrices in alike.items():
                updates = torch.stack([self._update(matrix) for matrix in matrices])
                size = group["lr"] * _MUON_SIZE * max(shape) ** 0.5
                for matrix, update in zip(matrices, _orthogonal(updates, self._dtype), strict=True):
                    matrix.mul_(1 - group["lr"] * group["weight_decay"])
                    matrix.add_(update, alpha=-size)

    def _update(self, matrix: Tensor) -> Tensor:
        """Let the momentum follow the gradient, and look ahead as Nesterov does."""
        assert matrix.grad is not None
        state = self.state[matrix]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(matrix)
        momentum: Tensor = state["momentum_buffer"]
        momentum.lerp_(matrix.grad, 1 - _MUON_MOMENTUM)
        return matrix.grad.lerp(momentum, _MUON_MOMENTUM)


def _orthogonal(matrices: Tensor, dtype: torch.dtype) -> Tensor:
    """Take the singular values of each of ``(N, rows, columns)`` to about one (Newton, Schulz)."""
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


def _matrix(filters: Tensor) -> Tensor:
    """View ``(O, I, H, W)`` as ``(O, H * W * I)``: without a copy where it lies channels-last."""
    return filters.permute(0, 2, 3, 1).flatten(1)
