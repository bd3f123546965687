"""Picture in, larger picture out: patches, device, number format and steps.

The same :class:`Upscaler` serves ``srcli upscale``, ``srcli eval`` and Python programs.
"""

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from srcli import weights
from srcli.color import bleed, dequantize, quantize
from srcli.config import DEFAULT_OVERLAP, PATCH, require_at_least
from srcli.degradation import axis_weights
from srcli.devices import memory_errors, on_device, resolve_device, resolve_dtype
from srcli.errors import DeviceError, UsageError, WeightsError
from srcli.geometry import Block, Span, plan_axis, step_lengths
from srcli.images import Picture
from srcli.model import ResidualAutoencoder
from srcli.tiling import enlarge_rows

__all__ = ["Settings", "Upscaler"]

_FUSE = {"cpu": 6, "cuda": 8}
"""Patches per side of a block with ``tile=auto``: the larger the block, the less context is
computed twice, as long as a layer's features stay in the cache. In bf16 on two Zen 4 cores blocks
of 2, 3, 4, 5, 6, 8 and 12 patches took 0.43, 0.35, 0.33, 0.30, 0.30, 0.29 and 0.28 s per megapixel;
six is where the gain ends that is worth its memory."""

_REDUCED_ROWS = 64
"""Rows that are reduced at a time when a result is larger than asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How an :class:`Upscaler` computes; none of it changes what a picture should look like.

    Raises:
        UsageError: If a number is out of range.
    """

    device: str = "auto"
    dtype: str = "auto"

    tile: int | None = None
    """Patch size in output pixels, a multiple of the net's stride; None: 120, fused."""

    overlap: int = DEFAULT_OVERLAP
    """Context around a patch in output pixels; rounded up to a multiple of the stride."""

    batch_size: int | None = None
    """Patches per forward pass; None chooses."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        require_at_least(1, tile=self.tile, batch_size=self.batch_size)
        require_at_least(0, overlap=self.overlap)


class Upscaler:
    """Enlarges pictures with one net.

    Args:
        net: The net, in ``float32``.
        scales: Smallest and largest factor the net was trained for; above, the picture is
            enlarged in equal steps, below, it is enlarged by the smallest and reduced.
        settings: Device, number format and patches.
        notice: Called with a line when something worth knowing happened, each once.

    Raises:
        UsageError: If the tile does not fit the net's stride.
        DeviceError: If the device is not there.
    """

    def __init__(
        self,
        net: ResidualAutoencoder,
        *,
        scales: tuple[float, float] = (2.0, 4.0),
        settings: Settings | None = None,
        notice: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.settings = settings or Settings()
        self.config = net.config
        self.scales = scales
        self.device = resolve_device(self.settings.device)
        self.dtype = resolve_dtype(self.settings.dtype, self.device)
        self._notice = notice
        self._redone = False
        self._exact = on_device(copy.deepcopy(net).eval(), self.device)
        self._exact.requires_grad_(requires_grad=False)
        self._fast = copy.deepcopy(self._exact).to(self.dtype)
        self._plan(1)  # a tile that does not fit fails here and not at the first picture

    @classmethod
    def from_weights(
        cls,
        name: str = "base",
        *,
        settings: Settings | None = None,
        notice: Callable[[str], None] = lambda _: None,
    ) -> Self:
        """Load shipped weights by name, or a ``.safetensors`` file.

        Raises:
            WeightsError: If there are no such weights, or they are damaged.
        """
        net, header = weights.load(weights.resolve(name))
        return cls(net, scales=header.scales, settings=settings, notice=notice)

    def upscale(
        self,
        picture: Picture,
        size: tuple[int, int],
        on_progress: Callable[[float], None] = lambda _: None,
    ) -> Picture:
        """Enlarge a picture; grey stays grey, alpha stays alpha, the bit depth stays.

        Args:
            picture: What :func:`srcli.images.read` gave.
            size: Height and width of the result, neither below the picture's.
            on_progress: Called with the share done, 0 to 1, as rows are finished.

        Returns:
            The larger picture, with the metadata of the given one.

        Raises:
            DeviceError: If the device runs out of memory.
            MemoryError: If the machine does.
            WeightsError: If the net's result is not finite even in fp32.
        """
        pixels = torch.from_numpy(picture.pixels).permute(2, 0, 1)
        large_alpha = None
        if picture.alpha is not None:
            alpha = torch.from_numpy(picture.alpha).permute(2, 0, 1)
            pixels = bleed(dequantize(pixels), dequantize(alpha))
            bands = self._filtered(alpha, size)
            large_alpha = _collect(bands, size, picture.alpha)
        bands = _telling(self.enlarge(pixels, size), size[0], on_progress)
        return Picture(
            pixels=_collect(bands, size, picture.pixels),
            alpha=large_alpha,
            metadata=picture.metadata,
            duration=picture.duration,
        )

    def enlarge(self, image: Tensor, size: tuple[int, int]) -> Iterator[tuple[Span, Tensor]]:
        """Enlarge a picture and yield its finished rows from top to bottom.

        Args:
            image: ``(C, H, W)``, C 1 (grey) or 3 (RGB), integers or floating point in [0, 1].
            size: Height and width of the result, neither below the picture's.

        Yields:
            The span of rows and ``(C, rows, width)`` ``float32``, on the CPU, not clamped.

        Raises:
            UsageError: If ``size`` is smaller than the picture.
            DeviceError: If the device runs out of memory.
            WeightsError: If the net's result is not finite even in fp32.
        """
        height, width = image.shape[-2:]
        if size[0] < height or size[1] < width:
            raise UsageError(
                f"{width}x{height} cannot be enlarged to {size[1]}x{size[0]}: that is smaller"
            )
        if size == (height, width):
            yield Span(0, height), dequantize(image)
            return
        # The longer side tells the factor best: the shorter one's is rounded more.
        axis = 0 if height >= width else 1
        factor = size[axis] / image.shape[-2 + axis]
        smallest, largest = self.scales
        if factor < smallest:
            larger = round(height * smallest), round(width * smallest)
            yield from _reduced(self._enlarge_once(image, larger), larger, size)
            return
        count = max(1, math.ceil(math.log(factor) / math.log(largest) - 1e-6))
        heights = step_lengths(height, size[0], steps=count)
        widths = step_lengths(width, size[1], steps=count)
        for step in zip(heights[:-1], widths[:-1], strict=True):
            # Kept as float: rounding to integers happens once, at the very end.
            whole = torch.empty(image.shape[0], *step)
            for span, band in self._enlarge_once(image, step):
                whole[:, span.start : span.stop] = band.clamp(0, 1)
            image = whole
        yield from self._enlarge_once(image, size)

    def _enlarge_once(self, image: Tensor, size: tuple[int, int]) -> Iterator[tuple[Span, Tensor]]:
        rows, columns = self._plan(size[0]), self._plan(size[1])
        # On a Zen 4 core, 1, 2, 4, 8 and 16 single patches a pass took 0.99, 0.93, 0.98, 1.00 and
        # 1.20 s per megapixel: a CPU gains nothing from batches, and a fused block is one already.
        batch = self.settings.batch_size or (8 if self.device.type == "cuda" else 1)
        source = image.to(self.device)
        try:
            with memory_errors():
                for span, band in enlarge_rows(source, rows, columns, self._run, batch):
                    yield span, band.cpu()
        except MemoryError as error:
            if self.device.type == "cpu":
                raise
            raise DeviceError(
                f"{self.device} is out of memory: use --tile {PATCH}, a smaller --batch-size "
                "or --device cpu"
            ) from error

    def _filtered(self, image: Tensor, size: tuple[int, int]) -> Iterator[tuple[Span, Tensor]]:
        """Enlarge by the bicubic filter alone: for what is not a photograph (alpha)."""
        rows, columns = self._plan(size[0]), self._plan(size[1])
        return enlarge_rows(image, rows, columns, lambda windows: windows, 1)

    def _plan(self, length: int) -> list[Block]:
        settings = self.settings
        return plan_axis(
            length,
            patch=PATCH if settings.tile is None else settings.tile,
            # More context than the receptive field cannot change a pixel, only cost time.
            overlap=min(settings.overlap, self.config.receptive_margin),
            stride=self.config.stride,
            fuse=_FUSE[self.device.type] if settings.tile is None else 1,
        )

    @torch.inference_mode()
    def _run(self, windows: Tensor) -> Tensor:
        """Run the net on ``(N, C, h, w)`` windows; grey is shown to it as R = G = B."""
        image = windows.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)
        result: Tensor = self._fast(image)
        if not bool(torch.isfinite(result).all()):
            result = self._run_exactly(image)
        return result.mean(1, keepdim=True) if windows.shape[1] == 1 else result

    def _run_exactly(self, image: Tensor) -> Tensor:
        result: Tensor = self._exact(image)
        if not bool(torch.isfinite(result).all()):
            raise WeightsError("the net's result is not finite even in fp32; use other weights")
        if not self._redone:
            self._notice(f"a patch was not finite in {self.dtype} and was redone in fp32")
            self._redone = True
        return result


def _collect(
    bands: Iterator[tuple[Span, Tensor]], size: tuple[int, int], like: np.ndarray
) -> np.ndarray:
    """Round finished rows into one array ``(H, W, C)`` of the dtype of ``like``."""
    result = np.empty((*size, like.shape[2]), like.dtype)
    bits = 8 * like.dtype.itemsize
    for span, band in bands:
        result[span.start : span.stop] = quantize(band, bits).permute(1, 2, 0).numpy()
    return result


def _telling(
    bands: Iterator[tuple[Span, Tensor]], height: int, on_progress: Callable[[float], None]
) -> Iterator[tuple[Span, Tensor]]:
    for span, band in bands:
        yield span, band
        on_progress(span.stop / height)


def _reduced(
    bands: Iterator[tuple[Span, Tensor]], source: tuple[int, int], size: tuple[int, int]
) -> Iterator[tuple[Span, Tensor]]:
    """Reduce rows by the bicubic filter as they come, holding only those still needed."""
    across = axis_weights(source[1], size[1], Span(0, size[1]))
    held, first, stop = torch.empty(0), 0, 0  # reduced columns of the rows first to stop
    for start in range(0, size[0], _REDUCED_ROWS):
        wanted = Span(start, min(start + _REDUCED_ROWS, size[0]))
        down = axis_weights(source[0], size[0], wanted)
        while stop < down.stop:
            span, band = next(bands)
            narrow = across.apply(band.mT.contiguous()).mT
            held = torch.cat([held[:, down.first - first :], narrow], 1) if stop else narrow
            first, stop = (down.first if stop else 0), span.stop
        yield wanted, down.apply(held[:, down.first - first : down.stop - first].contiguous())
