"""The degradation that training and evaluation share: Y = S·B·X + n, then JPEG."""

from collections.abc import Sequence

import torch
from torch import Tensor

from srcli.imaging.encoding import jpeg_roundtrip
from srcli.ops.arrays import interleaved, planes
from srcli.ops.color import dequantize, quantize
from srcli.ops.degradation import Degradation
from srcli.ops.resample import axis_weights, bicubic, reflect
from srcli.ops.spans import Span, output_length

__all__ = ["DRAWS", "PHASE_DRAWS", "degrade", "training_input"]

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

_BICUBIC = Degradation()


def degrade(
    image: Tensor,
    scale: float,
    degradation: Degradation = _BICUBIC,
    draws: Tensor | None = None,
) -> Tensor:
    """Degrade pictures: blur, reduction, noise, and a JPEG file of what that gives.

    The blur is of the HR picture and reflects it about its edges. The same draws give the same
    result on every device: noise and JPEG are made on the CPU, the noise by each sample's own seed.

    Args:
        image: ``(..., H, W)`` floating point in [0, 1]; ``(..., 3, H, W)`` RGB or
            ``(..., 1, H, W)`` grey for more than plain bicubic.
        scale: HR pixels per LR pixel, at least 1.
        degradation: The ranges to draw from; plain bicubic is the reduction alone.
        draws: ``(N, DRAWS)`` ``float64`` uniform numbers in [0, 1) on the CPU, a row for each of
            the N pictures; needed for more than plain bicubic.

    Returns:
        ``(..., h, w)`` with sides divided by ``scale`` and rounded, in [0, 1], rounded to 8 bits:
        an LR picture is a file, and files have integers.

    Raises:
        ValueError: If more than plain bicubic is asked for and ``draws`` does not fit.
    """
    height, width = (output_length(side, 1.0 / scale) for side in image.shape[-2:])
    if degradation.is_bicubic:
        return dequantize(quantize(bicubic(image, (height, width))))
    batch = image.reshape(-1, *image.shape[-3:])
    if draws is None or draws.shape != (len(batch), DRAWS):
        found = None if draws is None else tuple(draws.shape)
        raise ValueError(
            f"this degradation needs draws of the shape {(len(batch), DRAWS)}, not {found}"
        )
    low = _reduced(batch, (height, width), degradation, draws)
    low = _saved_as_jpeg(low, degradation, draws)
    return dequantize(low).reshape(*image.shape[:-2], height, width)


def training_input(
    image: Tensor,
    scales: Sequence[float],
    degradation: Degradation = _BICUBIC,
    draws: Tensor | None = None,
) -> Tensor:
    """Degrade each HR patch by its own scale and enlarge it back: Y of the paper.

    Args:
        image: ``(N, 3, H, W)`` HR patches in [0, 1].
        scales: N scale factors.
        degradation: As for :func:`degrade`.
        draws: Likewise.

    Returns:
        ``(N, 3, H, W)`` network inputs; each depends on its own patch, scale and draws alone.
    """
    result = torch.empty_like(image)
    for scale in sorted(set(scales)):
        chosen = [index for index, value in enumerate(scales) if value == scale]
        where = torch.tensor(chosen).to(image.device, non_blocking=True)
        draw = None if draws is None else draws[chosen]
        low = degrade(image.index_select(0, where), scale, degradation, draw)
        result[where] = bicubic(low, (image.shape[-2], image.shape[-1])).to(result.dtype)
    return result


def _reduced(
    image: Tensor, size: tuple[int, int], degradation: Degradation, draws: Tensor
) -> Tensor:
    """Blur ``(N, C, H, W)``, reduce it and add noise: all but JPEG, ``uint8``."""
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


def _saved_as_jpeg(low: Tensor, degradation: Degradation, draws: Tensor) -> Tensor:
    """Replace samples of ``(N, C, H, W)`` ``uint8`` by what their JPEG files hold."""
    if degradation.jpeg is None:
        return low
    _, _, quality, down, across, _, undegraded, _ = draws.unbind(1)
    qualities = _drawn_whole(quality, degradation.jpeg).tolist()
    rows, columns = ((phase * _JPEG_UNIT).long().tolist() for phase in (down, across))
    pictures = low.cpu().clone()
    for sample in (undegraded >= degradation.clean).nonzero()[:, 0].tolist():
        phase = rows[sample], columns[sample]
        decoded = jpeg_roundtrip(interleaved(pictures[sample]), qualities[sample], phase)
        pictures[sample] = planes(decoded)
    return pictures.to(low.device)


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
