"""Loss and accuracy of the steps since the last line of the log."""

from collections.abc import Mapping

import torch
from torch import Tensor

from srcli.errors import TrainingError
from srcli.training.distributed import ProcessGroup

__all__ = ["RecentSteps"]


class RecentSteps:
    """Keeps two numbers a step on the device, so that a GPU need not be waited for.

    What concerns all processes has to be called by all of them together.

    Args:
        group: The processes, each with the same number of steps.
    """

    def __init__(self, group: ProcessGroup) -> None:
        self._group = group
        self._losses: list[Tensor] = []
        self._accuracies: list[Tensor] = []

    def append(self, loss: Tensor, accuracy: Tensor) -> None:
        """Add a step."""
        self._losses.append(loss.detach())
        self._accuracies.append(accuracy)

    def require_finite(self, step: int, lr: float) -> None:
        """Stop before a loss that is not finite gets into the log or a checkpoint.

        The losses of all processes are looked at together: otherwise those that saw none would
        wait for ever for the one that stopped.

        Args:
            step: The last step.
            lr: The run's peak learning rate, for the message.

        Raises:
            TrainingError: Naming the first step whose loss is not finite.
        """
        losses = self._stacked(self._losses).double().cpu()
        bad = (~self._group.sum(losses).isfinite()).nonzero()
        if len(bad):
            raise TrainingError(
                f"the loss is no longer finite at step {step - len(losses) + int(bad[0]) + 1}: "
                "resume from the last checkpoint or train again with a lower --lr than "
                f"{lr:g}"
            )

    def take_means(self) -> tuple[float, float]:
        """Return the means of loss and accuracy over all processes, and begin anew."""
        means = [self._mean(values) for values in (self._losses, self._accuracies)]
        self._losses.clear()
        self._accuracies.clear()
        return means[0], means[1]

    def state(self) -> dict[str, Tensor]:
        """Return everything to continue from, the same for all processes."""
        return {
            "loss": self._group.mean(self._stacked(self._losses)),
            "accuracy": self._group.mean(self._stacked(self._accuracies, torch.float64)),
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Continue from what :meth:`state` returned.

        Raises:
            LookupError: If it is no such state.
        """
        self._losses = list(state["loss"].to(self._group.device))
        self._accuracies = list(state["accuracy"].to(self._group.device))

    def _stacked(self, values: list[Tensor], dtype: torch.dtype = torch.float32) -> Tensor:
        """Stack one number a step, even of no step at all."""
        return torch.stack([torch.zeros((), dtype=dtype, device=self._group.device), *values])[1:]

    def _mean(self, values: list[Tensor]) -> float:
        mean = torch.stack(values).double().mean().cpu()
        return self._group.sum(mean).item() / self._group.size
