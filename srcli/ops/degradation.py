"""What a degradation is made of, and how the command line writes it: plain Python, no torch."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from srcli.errors import UsageError

__all__ = ["KERNELS", "Degradation"]


class _Part(NamedTuple):
    """What a part of a degradation may be."""

    low: int
    high: int
    kind: type[int] | type[float]
    example: str


_PARTS = {
    "blur": _Part(0, 8, float, "blur=0.2..1.5"),
    "noise": _Part(0, 64, float, "noise=0..10"),
    "jpeg": _Part(1, 100, int, "jpeg=30..95"),
}

_SHARE_EXAMPLE = "clean=0.2"

_KERNEL_EXAMPLE = "kernel=bicubic+area"

_ANY_KERNEL = "any"
"""Stands for all of :data:`KERNELS`; what is written down names them, so that a record keeps its
meaning when there are more."""

KERNELS = ("bicubic", "bilinear", "area", "lanczos", "cubic")
"""The filters by which an HR picture may be reduced, plain bicubic first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Degradation:
    """What happens to a picture: blur, the reduction by a kernel, noise, JPEG.

    Blur, noise and JPEG are ranges, ends included, from which every sample's own value is drawn
    uniformly; None leaves the part out. Without any of them, and with the bicubic kernel alone,
    it is plain bicubic.

    Raises:
        UsageError: If a part is no rising range of numbers within its limits, or a kernel is
            unknown or named twice.
    """

    blur: tuple[float, float] | None = None
    """Standard deviation of the Gaussian blur, HR pixels, within 0..8."""

    noise: tuple[float, float] | None = None
    """Standard deviation of the white Gaussian noise, 8-bit levels of the LR picture, 0..64."""

    jpeg: tuple[int, int] | None = None
    """JPEG quality as libjpeg counts it, whole numbers within 1..100."""

    kernel: tuple[str, ...] = KERNELS[:1]
    """Names of :data:`KERNELS`; every sample is reduced by one of them, each as likely as the
    others."""

    clean: float = 0.0
    """Share of the samples that stay undegraded, below 1: plain bicubic."""

    def __post_init__(self) -> None:
        """Check every part, wherever it comes from."""
        for name in _PARTS:
            value = getattr(self, name)
            if value is not None and not _is_range(name, value):
                raise _bad_part(name, value)
        if not _is_kernels(self.kernel):
            raise _bad_kernel(self.kernel)
        if type(self.clean) is not float or not 0 <= self.clean < 1:
            raise _bad_share(self.clean)

    @property
    def is_bicubic(self) -> bool:
        """Whether the bicubic reduction is all there is."""
        ranges = [getattr(self, name) for name in _PARTS]
        return ranges.count(None) == len(ranges) and self.kernel == KERNELS[:1]

    def __str__(self) -> str:
        texts = [_range_text(name, getattr(self, name)) for name in _PARTS]
        if self.kernel != KERNELS[:1]:
            texts.append(f"kernel={'+'.join(self.kernel)}")
        if self.clean and not self.is_bicubic:
            texts.append(f"clean={self.clean!r}")
        return ",".join(filter(None, texts)) or "bicubic"

    @classmethod
    def parse(cls, text: str) -> "Degradation":
        """Read what ``str`` writes.

        Args:
            text: ``bicubic``, or parts separated by commas: a number or a range for each, of
                ``kernel`` names joined by ``+`` or ``any`` for all, of ``clean`` a share.
                Spaces do not matter.

        Returns:
            The validated degradation.

        Raises:
            UsageError: If a part is unknown, given twice, or not what it may be.

        Example:
            >>> str(Degradation.parse("jpeg = 75, blur = 0.2..1.5"))
            'blur=0.2..1.5,jpeg=75'
            >>> str(Degradation.parse("jpeg=30..95,clean=0.2"))
            'jpeg=30..95,clean=0.2'
            >>> str(Degradation.parse("kernel=area+lanczos,noise=3"))
            'noise=3,kernel=area+lanczos'
        """
        if text.strip() == "bicubic":
            return cls()
        parts: dict[str, Any] = {}
        for item in text.split(","):
            name, _, value = (piece.strip() for piece in item.partition("="))
            if name in parts:
                raise UsageError(f"--degradation names {name} twice; give it once")
            parts[name] = _read_part(name, value)
        return cls(**parts)


def _read_part(name: str, text: str) -> object:
    if name in _PARTS:
        return _read_range(name, text)
    if name == "kernel":
        return _read_kernels(text)
    if name == "clean":
        return _read_share(text)
    examples = [part.example for part in _PARTS.values()]
    raise UsageError(
        f"--degradation has no part {name!r}; give bicubic, or some of "
        f"{','.join([*examples, _KERNEL_EXAMPLE, _SHARE_EXAMPLE])}"
    )


def _is_range(name: str, value: object) -> bool:
    part = _PARTS[name]
    return (
        isinstance(value, tuple)
        and len(value) == 2
        and all(type(number) in {int, part.kind} for number in value)
        and part.low <= value[0] <= value[1] <= part.high
    )


def _read_range(name: str, text: str) -> tuple[float, float]:
    first, dots, last = text.partition("..")
    try:
        value = _PARTS[name].kind(first), _PARTS[name].kind(last if dots else first)
    except ValueError:
        raise _bad_part(name, text) from None
    if not _is_range(name, value):
        raise _bad_part(name, text)
    return value


def _is_kernels(value: object) -> bool:
    return (
        isinstance(value, tuple)
        and bool(value)
        and all(type(name) is str and name in KERNELS for name in value)
        and len(set(value)) == len(value)
    )


def _read_kernels(text: str) -> tuple[str, ...]:
    if text == _ANY_KERNEL:
        return KERNELS
    names = tuple(name.strip() for name in text.split("+"))
    if not _is_kernels(names):
        raise _bad_kernel(text)
    return names


def _read_share(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise _bad_share(text) from None


def _range_text(name: str, value: tuple[float, float] | None) -> str:
    if value is None:
        return ""
    first, last = (repr(_PARTS[name].kind(number)).removesuffix(".0") for number in value)
    return f"{name}={first}" if first == last else f"{name}={first}..{last}"


def _bad_kernel(value: object) -> UsageError:
    return UsageError(
        f"--degradation kernel must name some of {'+'.join(KERNELS)}, each once, or "
        f"{_ANY_KERNEL}, not {value!r}; give for example {_KERNEL_EXAMPLE}"
    )


def _bad_share(value: object) -> UsageError:
    return UsageError(
        "--degradation clean must be a share of the samples, at least 0 and below 1, "
        f"not {value!r}; give for example {_SHARE_EXAMPLE}"
    )


def _bad_part(name: str, value: object) -> UsageError:
    part = _PARTS[name]
    numbers = "whole numbers" if part.kind is int else "numbers"
    return UsageError(
        f"--degradation {name} must be a rising range of {numbers} within "
        f"{part.low}..{part.high}, not {value!r}; give for example {part.example}"
    )
