"""How a picture loses resolution: Y = S·B·X + n, and JPEG."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from srcli.ops.color import dequantize, quantize
from srcli.ops.degradation import Degradation
from srcli.ops.resample import axis_weights, bicubic, reflect
from srcli.ops.spans import Span, output_length
from srcli.quantisers import libjpeg_steps

__all__ = ["DRAWS", "PHASE_DRAWS", "degrade", "jpeg", "training_input"]

DRAWS = 8
"""Uniform numbers that a sample's degradation is drawn from, in this order: standard deviation
of the blur, that of the noise, JPEG quality, where the JPEG grid begins down and across, the
seed of the noise, whether it is spared all of them, and the kernel that reduces it."""

PHASE_DRAWS = slice(3, 5)
"""The draws of where the JPEG grid begins. Zero there is a whole picture, whose grid begins in
its corner; a patch is a window of one and sees the grid begin anywhere."""

_BICUBIC = Degradation()

_BLUR_REACH = 3.0
"""Radius of the Gaussian in standard deviations, rounded up to whole pixels."""

_MCU = 16
"""Side of JPEG's unit with 4:2:0 chroma, luma pixels: two blocks of eight."""

_DCT_HALF = (
    (8192, 8192, 8192, 8192),
    (11363, 9633, 6437, 2260),
    (10703, 4433, -4433, -10703),
    (9633, -2259, -11362, -6436),
    (8192, -8192, -8192, 8192),
    (6437, -11362, 2261, 9633),
    (4433, -10704, 10704, -4433),
    (2260, -6436, 9633, -11363),
)
"""The left half of libjpeg's DCT-II, 2**13 * sqrt(8) times the orthonormal one: the constants of
its ``jfdctint.c`` and ``jidctint.c`` multiplied out, their roundings kept."""

_YCC_BITS = 16
"""Fraction bits of libjpeg's colour conversion (``SCALEBITS`` of ``jccolor.c``)."""


def degrade(
    image: Tensor,
    scale: float,
    degradation: Degradation = _BICUBIC,
    draws: Tensor | None = None,
) -> Tensor:
    """Degrade pictures as the paper's model does: blur, reduction, noise; then JPEG.

    The blur is of the HR picture and reflects it about its edges. The noise is generated on the
    CPU from each sample's own seed, so that every device adds the same.

    Args:
        image: ``(..., H, W)`` floating point in [0, 1]; ``(..., 3, H, W)`` RGB or
            ``(..., 1, H, W)`` grey for more than plain bicubic.
        scale: HR pixels per LR pixel, at least 1.
        degradation: The ranges to draw from; plain bicubic is the reduction alone.
        draws: ``(N, DRAWS)`` ``float64`` uniform numbers in [0, 1) on the CPU, a row for each of
            the N pictures; needed for more than plain bicubic.

    Returns:
        ``(..., h, w)`` with sides divided by ``scale`` and rounded, in [0, 1], on 8-bit levels:
        an LR picture is a file, and files have integers.

    Raises:
        ValueError: If more than plain bicubic is asked for and ``draws`` or the channels do not
            fit.
    """
    size = _reduced(image.shape[-2], scale), _reduced(image.shape[-1], scale)
    if degradation.is_bicubic:
        return dequantize(quantize(bicubic(image, size)))
    samples = dequantize(image).reshape(-1, *image.shape[-3:])
    rows = _checked(draws, len(samples))
    blur, noise, quality, _, _, seed, clean, kernel = rows.unbind(1)
    soiled = (clean >= degradation.clean).double()  # factors of the deviations
    sigma = _drawn(blur, degradation.blur or (0, 0)) * soiled
    low = _blurred_and_reduced(samples, size, sigma, _drawn_kernels(kernel, soiled, degradation))
    if degradation.noise:
        low = low + _noise(low, _drawn(noise, degradation.noise) * soiled, seed)
    low = dequantize(quantize(low))
    if degradation.jpeg and bool(soiled.any()):
        where = soiled.nonzero()[:, 0]
        phase = (rows[:, PHASE_DRAWS] * _MCU).long()
        low[where] = jpeg(low[where], _drawn_whole(quality, degradation.jpeg)[where], phase[where])
    return low.reshape(*image.shape[:-2], *size)


def jpeg(image: Tensor, quality: Tensor, phase: Tensor | None = None) -> Tensor:
    """Write pictures as JPEG files and read them back, each at its own quality.

    Baseline JPEG as libjpeg-turbo has it by default: full-range Y'CbCr of JFIF (ITU-T T.871),
    chroma of half the resolution (4:2:0), reduced by 2x2 means and enlarged by the triangular
    ("fancy") filter, the accurate integer DCT, the tables of ITU-T T.81 annex K scaled by
    quality. Every step is done in the library's own whole numbers, so the result is bit for bit
    what the file would give, on any device; only of pictures narrower than five pixels does the
    library leave the chroma unfiltered, and this function does not.

    Args:
        image: ``(N, 3, H, W)`` RGB or ``(N, 1, H, W)`` grey, in [0, 1]; put on 8-bit levels.
        quality: ``(N,)`` whole numbers 1..100 on the CPU, as libjpeg counts them.
        phase: ``(N, 2)`` whole numbers 0..15 on the CPU: rows and columns between the corner of
            a 16x16 unit and that of the picture. The picture is continued by its edge to the
            unit's corner and cut out again. None is zero: a whole picture.

    Returns:
        The same shape, in [0, 1] on 8-bit levels.

    Raises:
        ValueError: If a shape does not fit, or a quality or phase is out of range.
    """
    starts = torch.zeros(len(image), 2, dtype=torch.long) if phase is None else phase
    _require_jpeg(image, quality, starts)
    if image.shape[1] == 1:
        return jpeg(image.expand(-1, 3, -1, -1), quality, starts)[:, :1]
    down = _grid(image.shape[-2], starts[:, 0], image.device)
    across = _grid(image.shape[-1], starts[:, 1], image.device)
    planes = _to_ycc(quantize(image))
    luma_steps, chroma_steps = _steps(quality).to(image.device, non_blocking=True)
    luma = _coded(_window(planes[:1], down.pixels, across.pixels), luma_steps)
    chroma = _coded(_halved(_window(planes[1:], down.pairs, across.pixels)), chroma_steps)
    return _to_rgb(_window(luma, down.places, across.places), _doubled(chroma, down, across))


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
        degradation: The ranges to draw from.
        draws: ``(N, DRAWS)`` as for :func:`degrade`; needed for more than plain bicubic.

    Returns:
        ``(N, 3, H, W)`` network inputs; each depends on its own patch, scale and draws alone.

    Raises:
        ValueError: As :func:`degrade` does.
    """
    rows = None if degradation.is_bicubic else _checked(draws, len(image))
    result = torch.empty_like(image)
    for scale in sorted(set(scales)):
        chosen = [index for index, value in enumerate(scales) if value == scale]
        where = torch.tensor(chosen).to(image.device, non_blocking=True)
        draw = None if rows is None else rows[chosen]
        low = degrade(image.index_select(0, where), scale, degradation, draw)
        result[where] = bicubic(low, (image.shape[-2], image.shape[-1])).to(result.dtype)
    return result


def _reduced(length: int, scale: float) -> int:
    return output_length(length, 1.0 / scale)


def _checked(draws: Tensor | None, samples: int) -> Tensor:
    """Give the draws back, or raise ``ValueError`` if they are not a row for each sample."""
    if draws is None or draws.shape != (samples, DRAWS):
        found = None if draws is None else tuple(draws.shape)
        raise ValueError(
            f"this degradation needs draws of the shape {(samples, DRAWS)}, not {found}"
        )
    if not bool(((draws >= 0) & (draws < 1)).all()):
        raise ValueError("draws must lie in [0, 1)")
    return draws


def _drawn(draw: Tensor, limits: tuple[float, float]) -> Tensor:
    """Bring uniform numbers in [0, 1) into a range."""
    low, high = limits
    return low + (high - low) * draw


def _drawn_whole(draw: Tensor, limits: tuple[int, int]) -> Tensor:
    """Draw whole numbers of a range, each as likely as the others."""
    low, high = limits
    return low + (draw * (high - low + 1)).long()


def _drawn_kernels(draw: Tensor, soiled: Tensor, degradation: Degradation) -> list[str]:
    """Name each sample's kernel: one of the degradation's, and plain bicubic where it is clean."""
    names = degradation.kernel
    places = _drawn_whole(draw, (0, len(names) - 1)).tolist()
    return [
        names[place] if dirty else "bicubic"
        for place, dirty in zip(places, soiled.tolist(), strict=True)
    ]


def _blurred_and_reduced(
    image: Tensor, size: tuple[int, int], sigma: Tensor, kernels: Sequence[str]
) -> Tensor:
    """Blur and reduce ``(N, C, H, W)``, those of one kernel together; not clamped."""
    names = sorted(set(kernels))
    if len(names) == 1:
        return _filtered(image, size, sigma, names[0])
    result = image.new_empty(*image.shape[:-2], *size)
    for name in names:
        where = torch.tensor([place for place, found in enumerate(kernels) if found == name])
        moved = where.to(image.device, non_blocking=True)
        result[moved] = _filtered(image.index_select(0, moved), size, sigma[where], name)
    return result


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


def _require_jpeg(image: Tensor, quality: Tensor, phase: Tensor) -> None:
    """Raise ``ValueError`` unless :func:`jpeg` can do what it is asked."""
    if image.ndim != 4 or image.shape[1] not in {1, 3}:
        raise ValueError(f"JPEG needs (N, 3, H, W) or (N, 1, H, W), not {tuple(image.shape)}")
    if quality.shape != image.shape[:1] or phase.shape != (len(image), 2):
        raise ValueError(
            f"JPEG needs a quality and two phases for each of {len(image)} pictures, "
            f"not the shapes {tuple(quality.shape)} and {tuple(phase.shape)}"
        )
    if not bool(((quality >= 1) & (quality <= 100)).all()):
        raise ValueError(f"a JPEG quality lies in 1..100, not {quality.tolist()}")
    if not bool(((phase >= 0) & (phase < _MCU)).all()):
        raise ValueError(f"a JPEG phase lies in 0..{_MCU - 1}, not {phase.tolist()}")


@dataclass(frozen=True, slots=True)
class _Grid:
    """How one axis of the pictures lies on the grid of JPEG's units; ``(N, n)`` indices."""

    pixels: Tensor
    """The pixel of the picture at each place of the grid."""

    pairs: Tensor
    """The same for chroma rows: below the picture the last pair is repeated, not the last pixel,
    as libjpeg does down but not across (``jcprepct.c``)."""

    places: Tensor
    """The place on the grid of each pixel of the picture."""

    near: Tensor
    """The chroma sample in which each pixel lies."""

    far: Tensor
    """The one on the pixel's other side."""


def _grid(length: int, phase: Tensor, device: torch.device) -> _Grid:
    """Lay an axis of ``length`` pixels on the grid, ``phase`` places behind its start."""
    size = -(-(length + int(phase.max())) // _MCU) * _MCU
    start = phase.to(device, non_blocking=True)[:, None]
    grid = torch.arange(size, device=device)
    places = torch.arange(length, device=device) + start
    last = (start + length - 1) // 2
    near = places // 2
    return _Grid(
        pixels=(grid - start).clamp_(0, length - 1),
        pairs=(torch.minimum(grid // 2, last) * 2 + grid % 2 - start).clamp_(0, length - 1),
        places=places,
        near=near,
        far=torch.minimum((near + places % 2 * 2 - 1).clamp_(min=0), last),
    )


def _rows(planes: Tensor, index: Tensor) -> Tensor:
    """Take rows of ``(P, N, H, W)`` by each sample's own ``(N, n)`` indices: ``(P, N, n, W)``."""
    samples, height = planes.shape[1:3]
    first = torch.arange(samples, device=index.device)[:, None] * height
    taken = planes.flatten(1, 2).index_select(1, (index + first).flatten())
    return taken.view(len(planes), *index.shape, -1)


def _window(planes: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Take rows and columns by each sample's own indices."""
    # Rows are gathered several times faster than columns.
    return _rows(_rows(planes, rows).mT.contiguous(), columns).mT


def _to_ycc(levels: Tensor) -> Tensor:
    """Convert ``(N, 3, H, W)`` levels to full-range Y'CbCr planes, ``(3, N, H, W)`` ``int32``."""
    red, green, blue = levels.to(torch.int32).unbind(1)
    half = 1 << (_YCC_BITS - 1)
    center = (128 << _YCC_BITS) + half - 1  # a chroma of 255.5 must not become 256
    luma = red * _fixed(0.299) + green * _fixed(0.587) + blue * _fixed(0.114) + half
    to_blue = blue * half - red * _fixed(0.16874) - green * _fixed(0.33126) + center
    to_red = red * half - green * _fixed(0.41869) - blue * _fixed(0.08131) + center
    return torch.stack([luma, to_blue, to_red]) >> _YCC_BITS


def _to_rgb(luma: Tensor, chroma: Tensor) -> Tensor:
    """Convert Y' ``(1, N, H, W)`` and Cb, Cr ``(2, N, H, W)`` back, ``(N, 3, H, W)`` in [0, 1]."""
    to_blue, to_red = chroma - 128
    half = 1 << (_YCC_BITS - 1)
    green = -to_blue * _fixed(0.34414) - to_red * _fixed(0.71414)
    offsets = torch.stack([to_red * _fixed(1.402), green, to_blue * _fixed(1.772)], 1)
    levels = ((offsets + half) >> _YCC_BITS) + luma.transpose(0, 1)
    return dequantize(levels.clamp_(0, 255).to(torch.uint8))


def _fixed(number: float) -> int:
    return int(number * (1 << _YCC_BITS) + 0.5)


def _halved(planes: Tensor) -> Tensor:
    """Average 2x2 pixels; what is halfway between levels goes down and up in turn."""
    tall = planes[..., ::2, :] + planes[..., 1::2, :]
    total = tall[..., ::2] + tall[..., 1::2]
    turn = torch.arange(total.shape[-1], dtype=torch.int32, device=planes.device) % 2
    return (total + 1 + turn) >> 2


def _doubled(chroma: Tensor, down: _Grid, across: _Grid) -> Tensor:
    """Enlarge chroma to the picture's pixels: three parts of the near sample, one of the far."""
    tall = (_rows(chroma, down.near) * 3 + _rows(chroma, down.far)).mT.contiguous()
    wide = _rows(tall, across.near) * 3 + _rows(tall, across.far)
    # Sixteenths; libjpeg rounds halves up in even columns and down in odd ones.
    return ((wide + (8 - across.places % 2).int()[..., None]) >> 4).mT


def _steps(quality: Tensor) -> Tensor:
    """Scale both tables by quality as libjpeg does: ``(2, 8, 8, N, 1)`` ``float64``."""
    return torch.from_numpy(libjpeg_steps(quality.numpy())).double()[..., None]


def _coded(planes: Tensor, steps: Tensor) -> Tensor:
    """Quantise the DCT of every 8x8 block of ``(P, N, h, w)`` levels, and return levels.

    All numbers are whole and below 2**53, so ``float64`` adds them exactly, and the products of
    matrices have the same bits in any order of summation, on any device.
    """
    layers, samples, height, width = planes.shape
    blocks = planes.reshape(layers, samples, height // 8, 8, width // 8, 8)
    blocks = blocks.permute(3, 5, 0, 1, 2, 4)
    matrix = _dct(planes.device)
    values = blocks.reshape(8, 8, -1).double().sub_(128)
    values = _shifted(matrix @ values, 11)
    values = _shifted(matrix @ values.view(8, -1), 15)
    values = _quantised(values.view(8, 8, layers, samples, -1), steps)
    values = _shifted(matrix.T @ values.view(8, -1), 11).view(8, 8, -1)
    values = _shifted(matrix.T @ values, 18).add_(128).clamp_(0, 255)
    return values.int().view(blocks.shape).permute(2, 3, 4, 0, 5, 1).reshape(planes.shape)


def _quantised(coefficients: Tensor, steps: Tensor) -> Tensor:
    """Round ``(8, 8, P, N, n)`` coefficients to multiples of ``(8, 8, N, 1)`` steps."""
    steps = steps[:, :, None]
    sign = coefficients.sign()
    # libjpeg's forward DCT is eight times the orthonormal one; halves go away from zero.
    whole = (coefficients.abs() / (8.0 * steps)).add_(0.5).floor_()
    return whole.mul_(sign).mul_(steps)


def _shifted(values: Tensor, bits: int) -> Tensor:
    """Divide by a power of two and round, halves up."""
    return values.mul_(0.5**bits).add_(0.5).floor_()


@lru_cache(maxsize=16)
def _dct(device: torch.device) -> Tensor:
    """Build libjpeg's DCT as a matrix, ``(8, 8)`` ``float64``, frequencies down."""
    half = torch.tensor(_DCT_HALF, dtype=torch.float64)
    signs = torch.tensor([[1.0], [-1.0]], dtype=torch.float64).repeat(4, 1)
    return torch.cat([half, half.flip(1) * signs], 1).to(device)
