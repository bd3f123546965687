"""How close an image is to its reference: PSNR, SSIM and the source paper's agreement.

Every metric takes two batches of one shape, computes in ``float64`` and returns one value
per image. None of them clamps, quantises, crops or converts: what is compared (luma or
RGB, rounded or not, with or without its border) is chosen, and named, by the caller.
"""

import math

from torch import Tensor

__all__ = ["SSIM_SIDE", "agreement", "crop_border", "psnr", "ssim"]

SSIM_SIDE = 11
"""Pixels along each side of the SSIM window."""

_SSIM_SIGMA = 1.5
"""Standard deviation of the SSIM window's Gaussian, in pixels."""

_gaussian = [
    math.exp(-0.5 * ((pixel - SSIM_SIDE // 2) / _SSIM_SIGMA) ** 2) for pixel in range(SSIM_SIDE)
]
_SSIM_WEIGHTS = [weight / sum(_gaussian) for weight in _gaussian]
"""The SSIM window along one axis; the window is its outer product with itself."""

_SSIM_C1 = 0.01**2
"""(K1 * L)**2 with K1 = 0.01 and L = 1: steadies the comparison of means."""

_SSIM_C2 = 0.03**2
"""(K2 * L)**2 with K2 = 0.03 and L = 1: steadies the comparison of variances."""


def psnr(image: Tensor, reference: Tensor) -> Tensor:
    """Measure peak signal-to-noise ratio in decibels; higher is closer.

    ``-10 * log10(MSE)``: the peak is 1, and the mean runs over channels and pixels alike.

    Args:
        image: ``(N, C, H, W)``, floating point, nominally in [0, 1].
        reference: The same shape.

    Returns:
        One value per image, ``(N,)``, ``float64``; ``inf`` where the two are equal.

    Raises:
        ValueError: If the shapes differ or are not ``(N, C, H, W)``, or if an input is
            not floating point.

    Example:
        >>> import torch
        >>> reference = torch.zeros(1, 3, 4, 4)
        >>> round(float(psnr(reference + 0.1, reference)), 3)
        20.0
    """
    _require_comparable(image, reference)
    error = (image.double() - reference.double()).square().mean((-3, -2, -1))
    return -10.0 * error.log10()


def ssim(image: Tensor, reference: Tensor) -> Tensor:
    """Measure mean structural similarity; 1 is equal, 0 unrelated, below 0 inverted.

    Wang, Bovik, Sheikh, Simoncelli: Image Quality Assessment: From Error Visibility to
    Structural Similarity, IEEE Transactions on Image Processing 13(4), 2004. The window is
    an 11x11 Gaussian of sigma 1.5, K1 = 0.01, K2 = 0.03, L = 1, covariances are those of the
    population, and only windows that lie wholly inside the image count, as in the authors'
    MATLAB code. Channels are compared each by itself and averaged with equal weight.

    Args:
        image: ``(N, C, H, W)``, floating point, nominally in [0, 1]; sides of at least 11.
        reference: The same shape.

    Returns:
        One value per image, ``(N,)``, ``float64``, in [-1, 1] for images in [0, 1].

    Raises:
        ValueError: If the shapes differ or are not ``(N, C, H, W)``, if an input is not
            floating point, or if a side is shorter than the window.
    """
    _require_comparable(image, reference)
    if min(image.shape[-2:]) < SSIM_SIDE:
        raise ValueError(
            f"SSIM needs sides of at least {SSIM_SIDE} pixels, not the shape {tuple(image.shape)}"
        )
    x, y = image.double(), reference.double()
    mean_x, mean_y = _window_mean(x), _window_mean(y)
    product, squares = mean_x * mean_y, mean_x.square() + mean_y.square()
    covariance = _window_mean(x * y) - product
    variances = _window_mean(x.square() + y.square()) - squares
    luminance = (2 * product + _SSIM_C1) / (squares + _SSIM_C1)
    structure = (2 * covariance + _SSIM_C2) / (variances + _SSIM_C2)
    return (luminance * structure).mean((-3, -2, -1))


def crop_border(image: Tensor, border: int) -> Tensor:
    """Cut the same number of pixels from all four sides.

    The literature cuts as many pixels as the scale factor before it measures.

    Args:
        image: ``(..., H, W)``, any dtype.
        border: Pixels to cut from each side, at least 0.

    Returns:
        A view of ``image``, ``(..., H - 2 * border, W - 2 * border)``.

    Raises:
        ValueError: If ``border`` is negative, or if nothing would be left.
    """
    height, width = image.shape[-2:]
    if not 0 <= 2 * border < min(height, width):
        raise ValueError(f"cannot cut a border of {border} pixels from {height}x{width} pixels")
    return image[..., border : height - border, border : width - border]


def agreement(image: Tensor, reference: Tensor) -> Tensor:
    """Measure the share of pixels whose largest channel is the same in both images.

    This is the "accuracy" that the source paper plots: what Keras computes for a target
    whose last axis holds the three channels. It says little about how an image looks. Among
    equal channels the first counts as the largest, so a grey pixel counts as red.

    Args:
        image: ``(N, 3, H, W)``, floating point, RGB.
        reference: The same shape.

    Returns:
        One value per image, ``(N,)``, ``float64``, in [0, 1].

    Raises:
        ValueError: If the shapes differ or are not ``(N, 3, H, W)``, or if an input is not
            floating point.
    """
    _require_comparable(image, reference)
    if image.shape[1] != 3:
        raise ValueError(f"agreement needs 3 channels, not the shape {tuple(image.shape)}")
    (red, green), (same_red, same_green) = _largest(image), _largest(reference)
    return ((red == same_red) & (green == same_green)).double().mean((-2, -1))


def _largest(image: Tensor) -> tuple[Tensor, Tensor]:
    """Whether red is the largest channel, and whether green is; else blue is.

    Three comparisons: ``argmax`` over three channels took a tenth of a training step.
    """
    red, green, blue = image.unbind(1)
    is_red = (red >= green) & (red >= blue)
    return is_red, ~is_red & (green >= blue)


def _window_mean(image: Tensor) -> Tensor:
    """Average under the SSIM window wherever it fits: ``(..., H - 10, W - 10)``.

    A sum of shifted views along one axis, then along the other: ``conv2d`` in ``float64``
    would first copy every window, at ten times the time and memory.
    """
    for axis in (-2, -1):
        windows = image.shape[axis] - SSIM_SIDE + 1
        total = image.narrow(axis, 0, windows) * _SSIM_WEIGHTS[0]
        for shift, weight in enumerate(_SSIM_WEIGHTS[1:], start=1):
            total.add_(image.narrow(axis, shift, windows), alpha=weight)
        image = total
    return image


def _require_comparable(image: Tensor, reference: Tensor) -> None:
    """Raise ``ValueError`` unless both are floating-point batches of one shape."""
    if image.shape != reference.shape or image.ndim != 4:
        raise ValueError(
            "image and reference must share one shape (N, C, H, W), "
            f"not {tuple(image.shape)} and {tuple(reference.shape)}"
        )
    if not (image.is_floating_point() and reference.is_floating_point()):
        raise ValueError(
            f"image and reference must be floating point, not {image.dtype} and {reference.dtype}"
        )
