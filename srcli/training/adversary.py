"""Sharp weights: a discriminator that learns to tell results from originals, and features to match.

As ESRGAN (Wang et al. 2018) and Real-ESRGAN (Wang et al. 2021) are trained: the error of pixels,
the error of a frozen net's features, and a discriminator that judges each pixel. Here all three are
one scalar. Gradients of the net do not go through the discriminator's weights, nor its own through
the net, so that one backward pass serves both, whole or shared by threads.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from srcli.errors import TrainingError
from srcli.ops.devices import on_device
from srcli.ops.spans import PATCH
from srcli.training.config import TrainConfig
from srcli.training.distributed import ProcessGroup
from srcli.training.losses import Features, excess, lattice
from srcli.training.optimizers import Optimizer

__all__ = ["Adversary", "Discriminator"]

_WIDTH = 32
"""Channels of the discriminator's first convolution; each level has twice those above."""

_LEVELS = 4

_WINDOW = 96
"""Side of what is judged of a patch, at a place drawn for each step. The grids of strided
convolutions and of pooling then lie anyhow in the patch; at a fixed place their gradients favour
some pixels of each LR cell over others, and results show a lattice."""

_RAMP_STEPS = 2000
"""Steps in which the discriminator's part of the loss rises to its weight, from a third of it."""

_LATTICE_WEIGHT = 10.0
"""Of :func:`lattice`. Without it the pixels in the corners of the LR cells were three levels too
bright after 500 steps, and the power at the period of the factor seven times its neighbours'."""

_COLLAPSED = 0.02
"""A mean loss of the discriminator below this: it knows every result, and teaches nothing."""

_SETTLING_STEPS = 500
"""Steps before a collapse is looked for."""


class SpectralConvolution(nn.Conv2d):
    """A convolution whose weight, as a matrix, is divided by its largest singular value.

    Miyato et al. 2018, "Spectral Normalization for Generative Adversarial Networks". The value's
    vectors follow the weight by one power iteration a step, not one a call: a step calls it from
    several threads.
    """

    def __init__(self, inputs: int, outputs: int, side: int, stride: int = 1) -> None:
        super().__init__(inputs, outputs, side, stride, padding=1, bias=False)
        self.left = nn.Buffer(functional.normalize(torch.randn(outputs), dim=0))
        self.right = nn.Buffer(functional.normalize(torch.randn(inputs * side**2), dim=0))
        for _ in range(15):
            self.iterate()

    @torch.no_grad()
    def iterate(self) -> None:
        """Let the vectors follow the weight."""
        matrix = self.weight.flatten(1)
        self.right.copy_(functional.normalize(matrix.mT @ self.left, dim=0))
        self.left.copy_(functional.normalize(matrix @ self.right, dim=0))

    def forward(self, features: Tensor) -> Tensor:
        """Convolve."""
        # Products of single numbers: a matrix product would be rounded to bf16.
        value = ((self.weight.flatten(1) * self.right).sum(1) * self.left).sum()
        weight = self.weight / value
        return functional.conv2d(features, weight, stride=self.stride, padding=self.padding)


class Discriminator(nn.Module):
    """A U-Net that says of each pixel how likely it is one of an original (Real-ESRGAN)."""

    def __init__(self) -> None:
        super().__init__()
        widths = [_WIDTH * 2**level for level in range(_LEVELS)]
        self.first = nn.Conv2d(3, _WIDTH, 3, padding=1)
        self.downs = nn.ModuleList(
            SpectralConvolution(upper, lower, 4, 2) for upper, lower in pairwise(widths)
        )
        self.ups = nn.ModuleList(
            SpectralConvolution(lower, upper, 3) for upper, lower in pairwise(widths)
        )
        self.refine = SpectralConvolution(_WIDTH, _WIDTH, 3)
        self.last = nn.Conv2d(_WIDTH, 1, 3, padding=1)

    def forward(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Judge pictures, ``(N, 3, H, W)`` in [0, 1], sides a multiple of 8.

        Returns:
            Logits ``(N, 1, H, W)``, and the features of each level on the way down.
        """
        levels = [_active(self.first(image - 0.5))]
        for down in self.downs:
            levels.append(_active(down(levels[-1])))
        features = levels[-1]
        for up, skip in zip(reversed(self.ups), reversed(levels[:-1]), strict=True):
            larger = functional.interpolate(features, scale_factor=2, mode="bilinear")
            features = _active(up(larger)) + skip
        return self.last(_active(self.refine(features))), levels

    def iterate(self) -> None:
        """Let the spectral norms follow the weights, once a step."""
        for module in self.modules():
            if isinstance(module, SpectralConvolution):
                module.iterate()


class Adversary:
    """What ``sharp`` adds to a run: the discriminator, its optimizer, and the features to match.

    ``DataError`` if the file of features cannot be used.
    """

    def __init__(
        self, config: TrainConfig, group: ProcessGroup, notice: Callable[[str], None]
    ) -> None:
        self._config, self._group = config, group
        self._features = None
        if config.features is not None:
            self._features = Features(config.features, group.device)
        elif config.perceptual:
            notice(
                "there is no --features file: the discriminator's own features are matched, "
                "which gains less; docs/train.md says how to make the file"
            )
        self.discriminator = on_device(Discriminator(), group.device)
        with torch.device("meta"):
            self._judge = Discriminator().requires_grad_(requires_grad=False)
        """The same one, in the same memory, whose weights get no gradient."""
        self._judge.load_state_dict(self.discriminator.state_dict(), assign=True)
        # The moments forget quickly: what the discriminator has to tell apart changes.
        self._optimizer = Optimizer(self.discriminator, "adam", betas=(0.9, 0.99))
        self._step, self._weight = 0, 0.0
        self._corner = (0, 0)

    def begin(self, step: int) -> None:
        """Prepare a step: its weight, and the window that is judged."""
        self._step = step
        rise = min(1.0, (1 + 2 * step / _RAMP_STEPS) / 3)
        self._weight = self._config.adversarial * rise
        draw = random.Random(f"{self._config.seed} window {step}")  # noqa: S311 - no secret
        self._corner = draw.randrange(PATCH + 1 - _WINDOW), draw.randrange(PATCH + 1 - _WINDOW)
        self.discriminator.zero_grad()
        self.discriminator.iterate()

    def measure(
        self, output: Tensor, target: Tensor, scales: Sequence[float]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return what is added to the error of N patches of 120x120, and its parts for the log."""
        grid = _LATTICE_WEIGHT * lattice(output, target, scales)
        if self._config.spectrum:
            grid = grid + self._config.spectrum * excess(output.float(), target, scales)
        output, target = self._window_of(output), self._window_of(target)
        judged, own = self._judge(output)
        # Softplus of what the wrong answer would be: the non-saturating loss of Goodfellow 2014.
        adversarial = functional.softplus(-judged.float()).mean()
        fake, _ = self.discriminator(output.detach())
        real, levels = self.discriminator(target)
        discriminator = (
            functional.softplus(fake.float()).mean() + functional.softplus(-real.float()).mean()
        )
        if self._features is None:
            pairs = zip(own, levels, strict=True)
            features = torch.stack([(one - two.detach()).abs().mean() for one, two in pairs]).mean()
        else:
            half = slice(self._step % 2, None, 2) if len(output) > 1 else slice(None)
            features = self._features.distance(output[half], target[half])
        total = self._config.perceptual * features + self._weight * adversarial + discriminator
        total = total + grid
        parts = {"features": features, "adversarial": adversarial, "discriminator": discriminator}
        return total, parts

    def _window_of(self, patches: Tensor) -> Tensor:
        """Cut out of each patch what the discriminator sees of it in this step."""
        top, left = self._corner
        window = patches[..., top : top + _WINDOW, left : left + _WINDOW]
        return window.contiguous(memory_format=torch.channels_last)

    def step(self, lr: float) -> None:
        """Change the discriminator by its gradients."""
        for parameter in self.discriminator.parameters():
            if parameter.grad is not None:
                parameter.grad.copy_(self._group.mean(parameter.grad))
        self._optimizer.step(lr)

    def require_alive(self, step: int, means: Mapping[str, float]) -> None:
        """Raise ``TrainingError`` if the discriminator has collapsed, by the means of the log."""
        mean = means["discriminator"]
        if step > _SETTLING_STEPS and mean < _COLLAPSED:
            raise TrainingError(
                f"the discriminator has collapsed at step {step} (its loss is {mean:.3g}): "
                "the last checkpoint and its weights stay; train again with a lower --set "
                f"adversarial than {self._config.adversarial:g}"
            )

    def state(self) -> dict[str, Tensor]:
        """Return everything that the next step depends on."""
        net = self.discriminator.state_dict()
        return {f"net.{name}": value for name, value in net.items()} | self._optimizer.state()

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Continue from what :meth:`state` returned; else ``LookupError`` and the like."""
        ours = {name for name in state if name.startswith("net.")}
        self.discriminator.load_state_dict({name[4:]: state[name] for name in ours})
        self._optimizer.restore({name: state[name] for name in state.keys() - ours})


def _active(features: Tensor) -> Tensor:
    return functional.leaky_relu(features, 0.2)
