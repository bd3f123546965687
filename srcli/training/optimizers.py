"""The learning rate, and Adam or Muon with Adam beside it, whose state is a dict of tensors."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from srcli.ops.devices import resolve_dtype
from srcli.training.config import OptimizerName, TrainConfig

__all__ = ["Optimizer", "learning_rate"]

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
        self._rest: list[nn.Parameter] = []
        for key, value in net.named_parameters():
            inner = name == "muon" and value.ndim == 4 and not key.startswith(_ENDS)
            (self._filters if inner else self._rest).append(value)
        self._adam = torch.optim.Adam(self._rest, betas=betas, fused=True)
        self._momenta: dict[int, Tensor] = {}
        """Muon's, by the places of the filters that had a gradient."""
        self._weight_decay = weight_decay
        self._dtype = resolve_dtype("auto", self._rest[0].device)

    def step(self, lr: float) -> None:
        """Change the parameters by their gradients at Adam's rate ``lr``; Muon's is twice that."""
        self._adam.param_groups[0]["lr"] = lr
        self._adam.step()
        self._step_muon(_MUON_RATE * lr)

    @torch.no_grad()
    def _step_muon(self, lr: float) -> None:
        """Change every filter that has a gradient.

        As ``torch.optim.Muon`` has it with ``match_rms_adamw``, but all matrices of a shape at
        once, and in bf16 only where the processor multiplies it. A step of ``base`` on one core
        took 70 to 90 ms here and 113 to 132 ms by torch's (Xeon with AVX-512); without native
        bf16, 54 to 72 ms and 870 to 1,000 ms.
        """
        alike: dict[torch.Size, list[tuple[Tensor, Tensor]]] = {}
        for place, value in enumerate(self._filters):
            if value.grad is None:  # none of the patches went through it
                continue
            gradient = _matrix(value.grad)
            momentum = self._momenta.setdefault(place, torch.zeros_like(gradient))
            momentum.lerp_(gradient, 1 - _MUON_MOMENTUM)
            update = gradient.lerp(momentum, _MUON_MOMENTUM)  # looks ahead as Nesterov does
            alike.setdefault(update.shape, []).append((_matrix(value), update))
        for shape, pairs in alike.items():
            updates = _orthogonal(torch.stack([update for _, update in pairs]), self._dtype)
            for (matrix, _), update in zip(pairs, updates, strict=True):
                matrix.mul_(1 - lr * self._weight_decay)
                matrix.add_(update, alpha=-lr * _MUON_SIZE * max(shape) ** 0.5)

    def state(self) -> dict[str, Tensor]:
        """Return everything that the next step depends on, besides the parameters."""
        adam = {
            f"adam.{index}.{key}": value
            for index, values in self._adam.state_dict()["state"].items()
            for key, value in values.items()
        }
        muon = {f"muon.{place}.momentum_buffer": one for place, one in self._momenta.items()}
        return adam | muon

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Continue from what :meth:`state` returned; else ``ValueError`` and the like."""
        moments: dict[int, dict[str, Tensor]] = {}
        for full_name, value in state.items():
            name, index, key = full_name.split(".")
            like = (self._rest if name == "adam" else self._filters)[int(index)]
            if name == "muon":
                self._momenta[int(index)] = value.to(like.device)
                continue
            # The fused Adam walks through memory: a moment must lie as its parameter does.
            placed = torch.empty_like(like).copy_(value) if value.shape == like.shape else value
            moments.setdefault(int(index), {})[key] = placed
        self._adam.load_state_dict({**self._adam.state_dict(), "state": moments})


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
