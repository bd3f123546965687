"""The degradation that training and evaluation share: Y = S·B·X + n, then JPEG."""

from collections.abc import Sequence

import torch
from torch import Tensor

from srcli.imaging.encoding import jpeg_roundtrip
from srcli.ops.color import dequantize, quantize
from srcli.ops.degradation import Degradation
from srcli.ops.degrade import DRAWS, JpegDraw, draw_jpeg, reduce_resolution
from srcli.ops.resample import bicubic
from srcli.ops.spans import output_length

__all__ = ["degrade", "training_input"]

_BICUBIC = Degradation()


def degrade(
    image: Tensor,
    scale: float,
    degradation: Degradation = _BICUBIC,
    draws: Tensor | None = None,
) -> Tensor:
    """Degrade pictures: blur, reduction, noise, and a JPEG file of what that gives.

    The same draws give the same result. JPEG is done on the CPU wherever the pictures are.

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
    low = reduce_resolution(batch, (height, width), degradation, draws)
    files = draw_jpeg(degradation, draws)
    if files:
        low = _saved_as_jpeg(low, files)
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


def _saved_as_jpeg(low: Tensor, files: Sequence[JpegDraw]) -> Tensor:
    """Replace samples of ``(N, C, H, W)`` ``uint8`` by what their JPEG files hold."""
    pictures = low.cpu().clone()
    for file in files:
        pixels = pictures[file.sample].permute(1, 2, 0).contiguous().numpy()
        decoded = torch.from_numpy(jpeg_roundtrip(pixels, file.quality, file.phase))
        pictures[file.sample] = decoded.permute(2, 0, 1)
    return pictures.to(low.device)
