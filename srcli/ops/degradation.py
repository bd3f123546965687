"""What a degradation is made of, and how the command line writes it: plain Python, no torch."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from srcli.errors import UsageError

__all__ = ["KERNELS", "Degradation"]


class _Part(NamedTuple):
    """What a range of a degradation may be."""

    low: int
    high: int
    kind: type[int] | type[float]
    example: str


_PARTS = {
    "blur": _Part(0, 8, float, "blur=0.2..1.5"),
    "noise": _Part(0, 64, float, "noise=0..10"),
    "jpeg": _Part(1, 100, int, "jpeg=30..95"),
}

_EXAMPLES = ",".join([*(part.example for part in _PARTS.values()), "kernel=bicubic+area,clean=0.2"])

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
        UsageError: If a part is no rising range within its limits, or a kernel is unknown or
            named twice.
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
        """Check the limits of every part."""
        for name, part in _PARTS.items():
            limits = getattr(self, name)
            if limits is not None and not part.low <= limits[0] <= limits[1] <= part.high:
                raise _refusal(name, _range_text(limits))
        known = set(self.kernel) & set(KERNELS)
        if not known or len(known) < len(self.kernel):
            raise _refusal("kernel", "+".join(self.kernel))
        if not 0 <= self.clean < 1:
            raise _refusal("clean", f"{self.clean:g}")

    @property
    def is_bicubic(self) -> bool:
        """Whether the bicubic reduction is all there is."""
        return self.blur is self.noise is self.jpeg is None and self.kernel == KERNELS[:1]

    def __str__(self) -> str:
        if self.is_bicubic:
            return "bicubic"
        ranges = {name: getattr(self, name) for name in _PARTS}
        texts = [f"{name}={_range_text(value)}" for name, value in ranges.items() if value]
        if self.kernel != KERNELS[:1]:
            texts.append(f"kernel={'+'.join(self.kernel)}")
        if self.clean:
            texts.append(f"clean={self.clean!r}")
        return ",".join(texts)

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
            try:
                parts[name] = _read_part(name, value)
            except ValueError:
                raise _refusal(name, value) from None
        return cls(**parts)


def _read_part(name: str, text: str) -> object:
    """Read one part; raise ``ValueError`` for what is no number."""
    if name in _PARTS:
        first, dots, last = text.partition("..")
        kind = _PARTS[name].kind
        return kind(first), kind(last if dots else first)
    if name == "kernel":
        return KERNELS if text == _ANY_KERNEL else tuple(one.strip() for one in text.split("+"))
    if name == "clean":
        return float(text)
    raise UsageError(f"--degradation has no part {name!r}; give bicubic, or some of {_EXAMPLES}")


def _range_text(limits: tuple[float, float]) -> str:
    first, last = (repr(number).removesuffix(".0") for number in limits)
    return first if first == last else f"{first}..{last}"


def _refusal(name: str, value: str) -> UsageError:
    """Say what a part must be, and what was given."""
    if name in _PARTS:
        low, high, kind, example = _PARTS[name]
        numbers = "whole numbers" if kind is int else "numbers"
        must = f"be a rising range of {numbers} within {low}..{high}"
    elif name == "kernel":
        must = f"name some of {'+'.join(KERNELS)}, each once, or {_ANY_KERNEL}"
        example = "kernel=bicubic+area"
    else:
        must = "be a share of the samples, at least 0 and below 1"
        example = "clean=0.2"
    return UsageError(
        f"--degradation {name} must {must}, not {value!r}; give for example {example}"
    )
