"""Blur, reduction and noise: the degradation model Y = S·B·X + n, on tensors.

What follows in a file, JPEG, needs an encoder: :mod:`srcli.data.degrading` composes the two.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from srcli.ops.color import quantize
from srcli.ops.degradation import Degradation
from srcli.ops.resample import axis_weights, reflect
from srcli.ops.spans import Span

__all__ = ["DRAWS", "PHASE_DRAWS", "JpegDraw", "draw_jpeg", "reduce_resolution"]

DRAWS = 8
"""Uniform numbers that a sample's degradation is drawn from, in this order: standard deviation
of the blur, that of the noise, JPEG quality, where the JPEG grid begins down and across, the
seed of the noise, whether the sample stays undegraded, and the kernel that reduces it."""

PHASE_DRAWS = slice(3, 5)
"""The draws of where the JPEG grid begins. Zero there is a whole picture, whose grid begins in
its corner; a patch is a window of one, so its grid begins anywhere."""

_JPEG_UNIT = 16
"""Side of JPEG's unit with 4:2:0 chroma, luma pixels: two blocks of eight."""

_BLUR_REACH = 3.0
"""Radius of the Gaussian in standard deviations, rounded up to whole pixels."""


class JpegDraw(NamedTuple):
    """How one sample is saved as a JPEG file."""

    sample: int
    """Its place in the batch."""

    quality: int
    """1..100 on libjpeg's scale."""

    phase: tuple[int, int]
    """Rows and columns, 0..15, between the corner of a 16x16 unit and that of the picture."""


def reduce_resolution(
    image: Tensor, size: tuple[int, int], degradation: Degradation, draws: Tensor
) -> Tensor:
    """Blur pictures, reduce them and add noise, all but the JPEG of a degradation.

    The blur is of the HR picture and reflects it about its edges. The noise is generated on the
    CPU from each sample's own seed, so that every device adds the same.

    Args:
        image: ``(N, C, H, W)`` floating point in [0, 1].
        size: Height and width of the result.
        degradation: The ranges to draw from.
        draws: ``(N, DRAWS)`` ``float64`` uniform numbers in [0, 1) on the CPU.

    Returns:
        ``(N, C, *size)`` ``uint8``: an LR picture is a file, and files have integers.
    """
    blur, noise, _, _, _, seed, undegraded, kernel = draws.unbind(1)
    degraded = undegraded >= degradation.clean
    sigma = _drawn(blur, degradation.blur or (0, 0)) * degraded
    places = _drawn_whole(kernel, (0, len(degradation.kernel) - 1))
    kernels = [
        degradation.kernel[place] if is_degraded else "bicubic"
        for place, is_degraded in zip(places.tolist(), degraded.tolist(), strict=True)
    ]
    low = image.new_empty(*image.shape[:2], *size)
    for name in sorted(set(kernels)):
        where = torch.tensor([place for place, found in enumerate(kernels) if found == name])
        moved = where.to(image.device, non_blocking=True)
        low[moved] = _filtered(image.index_select(0, moved), size, sigma[where], name)
    if degradation.noise:
        low += _noise(low, _drawn(noise, degradation.noise) * degraded, seed)
    return quantize(low)


def draw_jpeg(degradation: Degradation, draws: Tensor) -> list[JpegDraw]:
    """List the samples of a batch that are saved as JPEG, and how.

    Args:
        degradation: The range of qualities; without one the list is empty.
        draws: ``(N, DRAWS)`` as for :func:`reduce_resolution`.
    """
    if degradation.jpeg is None:
        return []
    _, _, quality, down, across, _, undegraded, _ = draws.unbind(1)
    qualities = _drawn_whole(quality, degradation.jpeg).tolist()
    rows, columns = ((phase * _JPEG_UNIT).long().tolist() for phase in (down, across))
    return [
        JpegDraw(sample, qualities[sample], (rows[sample], columns[sample]))
        for sample in (undegraded >= degradation.clean).nonzero()[:, 0].tolist()
    ]


def _drawn(draw: Tensor, limits: tuple[float, float]) -> Tensor:
    """Bring uniform numbers in [0, 1) into a range."""
    low, high = limits
    return low + (high - low) * draw


def _drawn_whole(draw: Tensor, limits: tuple[int, int]) -> Tensor:
    """Draw whole numbers of a range, each as likely as the others."""
    low, high = limits
    return low + (draw * (high - low + 1)).long()


def _filtered(image: Tensor, size: tuple[int, int], sigma: Tensor, kernel: str) -> Tensor:
    """Blur ``(N, C, H, W)`` by its own Gaussian each and reduce it, not clamped.

    Blur and reduction act along one axis at a time, and what acts on different axes may change
    places: reduced in height first, the picture is smaller when it is blurred across.
    """
    weights = _gaussian(sigma).to(image, non_blocking=True)
    down = axis_weights(image.shape[-2], size[0], Span(0, size[0]), kernel)
    across = axis_weights(image.shape[-1], size[1], Span(0, size[1]), kernel)
    # A kernel that aliases may leave the first pixels out.
    rows = _blur_rows(image, weights)[..., down.first : down.stop, :]
    columns = _blur_rows(down.apply(rows).mT.contiguous(), weights)
    return across.apply(columns[..., across.first : across.stop, :]).mT.contiguous()


def _gaussian(sigma: Tensor) -> Tensor:
    """Sample each Gaussian from its centre outwards: ``(taps, N, 1, 1, 1)`` ``float64``.

    Both sides together sum to one. Each ends at its own radius and is zero beyond, so that a
    neighbour's larger one changes no bit of the result.
    """
    reach = (_BLUR_REACH * sigma).ceil()
    distance = torch.arange(int(reach.max()) + 1, dtype=torch.float64)[:, None]
    # With almost no deviation the centre's weight is one and the others are zero, exactly.
    weights = (distance / sigma.clamp(min=1e-6)).square().mul(-0.5).exp()
    weights = torch.where(distance <= reach, weights, 0.0)
    # Added one by one, for the same bits however many taps there are.
    total = 2.0 * weights.cumsum(0)[-1] - weights[0]
    return (weights / total)[..., None, None, None]


def _blur_rows(image: Tensor, weights: Tensor) -> Tensor:
    """Filter ``(N, C, H, W)`` along H with one side of a symmetric kernel for each sample."""
    radius, height = len(weights) - 1, image.shape[-2]
    if radius == 0:  # no sample is blurred
        return image
    reflected = reflect(torch.arange(-radius, height + radius, device=image.device), height)
    padded = image.index_select(-2, reflected)
    total = image * weights[0]
    pair = torch.empty_like(total)
    for tap in range(1, radius + 1):
        before = padded.narrow(-2, radius - tap, height)
        torch.add(before, padded.narrow(-2, radius + tap, height), out=pair)
        total.add_(pair.mul_(weights[tap]))
    return total


def _noise(image: Tensor, sigma: Tensor, seeds: Tensor) -> Tensor:
    """Make white Gaussian noise of ``sigma`` 8-bit levels for every sample of ``image``."""
    noise = [
        torch.randn(image.shape[1:], generator=torch.Generator().manual_seed(seed))
        for seed in (seeds * 2.0**32).long().tolist()  # the generator takes 32 bits
    ]
    scaled = torch.stack(noise).mul_((sigma / 255.0).float()[:, None, None, None])
    return scaled.to(image, non_blocking=True)
