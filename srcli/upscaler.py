"""Picture in, larger picture out: patches, device, number format, memory and steps.

The same :class:`Upscaler` serves ``srcli upscale``, ``srcli eval`` and Python programs.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from operator import index
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Self, TypeVar, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from srcli.errors import UsageError
from srcli.files import shipped
from srcli.imaging.images import Picture, PillowImage, Scan, from_pillow, read, to_pillow
from srcli.imaging.streaming import Rows as PictureRows
from srcli.model import weights
from srcli.model.batches import BatchPlans, SpeedMeasure, estimated_bytes
from srcli.model.network import ResidualAutoencoder
from srcli.model.patches import Rows, Step, enlarge_rows, enlarged_by_filter, reduced, unchanged
from srcli.model.runner import NetRunner, Settings, check_settings
from srcli.model.sharpness import load_mixed
from srcli.ops.arrays import interleaved, planes, planes_of
from srcli.ops.color import bleed, dequantize, quantize
from srcli.ops.devices import memory_errors
from srcli.ops.spans import MAX_SCALE, Span, output_length

__all__ = ["Settings", "Upscaler", "check_settings"]

_Size = tuple[int, int] | None
_Given = TypeVar(
    "_Given", NDArray[np.uint8], NDArray[np.uint16], NDArray[np.float32], Tensor, PillowImage
)


class Upscaler:
    """Enlarges pictures with one net; may be used from several threads at the same time.

    A pickle holds what it was made from. :meth:`close`, or the end of ``with``, frees memory.

    Args:
        model: Shipped weights by name, a ``.safetensors`` file, or a net in ``float32``.
        scales: Factors the net was trained for. Any other is reached by one of them or several
            in turn, and by reducing what is too large. None: what the weights say, or 2, 3, 4.
        settings: Device, number format and patches.
        notice: Called with a line when something worth knowing happened, each once.

    Raises:
        WeightsError: If there are no such weights, they are damaged, or have no sibling that a
            sharpness would mix them with.
        UsageError: If the tile does not fit the net's stride, or no net can have such scales.
        DeviceError: If the device is not there.

    Example:
        >>> from PIL import Image
        >>> Upscaler("base")(Image.new("RGB", (8, 5)), scale=2).size
        (16, 10)
    """

    def __init__(
        self,
        model: str | PathLike[str] | ResidualAutoencoder = "base",
        *,
        scales: tuple[float, ...] | None = None,
        settings: Settings | None = None,
        notice: Callable[[str], None] = lambda _: None,
    ) -> None:
        if isinstance(model, PathLike):
            model = fspath(model)
        self.settings = settings or Settings()
        sharpness = self.settings.sharpness
        if isinstance(model, ResidualAutoencoder):
            if sharpness is not None:
                raise UsageError("a sharpness is about weights: give their name or file, not a net")
            name, net, header = "this net", model, weights.Weights(config=model.config)
        else:
            name = str(model)
            path = weights.resolve(name)
            # A relative path means another file in another directory.
            model = name if name in shipped() else path.absolute()
            net, header = weights.load(path) if sharpness is None else load_mixed(path, sharpness)
        if scales is not None:
            header = replace(header, training={**header.training, "scales": list(scales)})
        self._layout, self.compute = check_settings(header, self.settings)
        self.config, self.scales = net.config, self._layout.scales
        ensemble = self.settings.tta and not self.config.symmetric
        if ensemble != self.settings.tta:
            notice(f"--tta changes nothing with {name}: its result is the same in all eight ways")
        self.device, self.dtype = self.compute.device, self.compute.dtype
        self._runner = NetRunner(net, self.compute, header.ranges, ensemble=ensemble, notice=notice)
        self._plans = BatchPlans(
            self.device,
            fuse=self.settings.tile is None,
            batch_size=self.settings.batch_size,
            notice=notice,
        )
        self._made_from = partial(Upscaler, model, scales=self.scales, settings=self.settings)
        enlarge = partial(self._enlarge_once, finish=quantize)
        self._speed = SpeedMeasure(self._layout, self._plans, enlarge)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle what it was made from, all but the notice: the other process builds it."""
        return self._made_from, ()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the memory of the net; after it nothing can be enlarged."""
        self._runner.close()

    @overload
    def __call__(
        self, image: str | PathLike[str], scale: float | None = ..., *, size: _Size = ...
    ) -> PillowImage: ...

    @overload
    def __call__(
        self, image: _Given, scale: float | None = ..., *, size: _Size = ...
    ) -> _Given: ...

    def __call__(self, image: Any, scale: float | None = None, *, size: _Size = None) -> Any:
        """Enlarge a picture, and return it as the kind that it was given as.

        Args:
            image: A path or a Pillow image, turned upright by its EXIF; an array, ``HxW``,
                ``HxWx3`` or ``HxWx4``, or a tensor, ``(C, H, W)``, ``uint8``, ``uint16``, or
                ``float32`` in [0, 1], a fourth channel being opacity. It is not changed.
            scale: Output pixels per input pixel along each axis, 1 to 16; None: 3.
            size: Width and height of the result instead of a scale.

        Returns:
            An array or a tensor of the same dtype and device; of a path and a Pillow image a
            Pillow image, with profile, EXIF, XMP and resolution in its ``info``.

        Raises:
            ImageError: If a file cannot be read, or an image's pixels have no fixed range (``F``).
            TypeError: If it is nothing of the kind, or of another dtype, shape or range.
            UsageError: If the result would be smaller than the image, or scale and size are given
                or are nothing of the kind.
        """
        if isinstance(image, str | PathLike | PillowImage):
            picture = from_pillow(image) if isinstance(image, PillowImage) else read(Path(image))
            width, height = _size_of((picture.width, picture.height), scale, size)
            return to_pillow(self.upscale(picture, (height, width)))
        given = planes_of(image)
        _, *lengths = given.color.shape
        width, height = _size_of((lengths[1], lengths[0]), scale, size)
        finish = partial(quantize, bits=given.bits) if given.bits else _clamped
        bands = self._masked_bands(given.color, given.alpha, (height, width), finish)
        parts = [band if mask is None else torch.cat([band, mask]) for _, band, mask in bands]
        return given.packed(torch.cat(parts, 1))

    def upscale(
        self,
        picture: Picture | Scan,
        size: tuple[int, int],
        on_progress: Callable[[float], None] = lambda _: None,
    ) -> Picture:
        """Enlarge a picture; grey stays grey, alpha stays alpha, the bit depth stays.

        Args:
            picture: A picture, or one whose rows are being decoded.
            size: Height and width of the result, neither below the picture's.
            on_progress: Called with the share done, 0 to 1, as windows are computed.

        Returns:
            The larger picture, with the metadata of the given one.

        Raises:
            ImageError: If decoding the rows finds that they are damaged.
            UsageError: If ``size`` is smaller than the picture.
            MemoryError: If the machine has too little even for single patches.
            WeightsError: If the net's result is not finite even in fp32.
        """
        return PictureRows(self.bands(picture, size, on_progress), height=size[0]).whole()

    def bands(
        self,
        picture: Picture | Scan,
        size: tuple[int, int],
        on_progress: Callable[[float], None] = lambda _: None,
    ) -> Iterator[Picture]:
        """Enlarge a picture as :meth:`upscale` does, and hand on its rows as they are finished.

        Yields:
            Pictures of some rows each, as wide as the result, from top to bottom.
        """
        alpha = None
        if isinstance(picture, Scan):
            bits = 8 * np.dtype(picture.dtype).itemsize
            shape = picture.channels, picture.height, picture.width
            color: Tensor | Rows = Rows(map(planes, picture.rows), shape)
        else:
            bits = 8 * picture.pixels.itemsize
            color = planes(picture.pixels)
            alpha = None if picture.alpha is None else planes(picture.alpha)
        finish = partial(quantize, bits=bits)
        for _, band, mask in self._masked_bands(color, alpha, size, finish, on_progress):
            yield Picture(
                pixels=interleaved(band),
                alpha=None if mask is None else interleaved(mask),
                metadata=picture.metadata,
                duration=None if isinstance(picture, Scan) else picture.duration,
            )

    def _masked_bands(
        self,
        color: Tensor | Rows,
        alpha: Tensor | None,
        size: tuple[int, int],
        finish: Callable[[Tensor], Tensor],
        on_progress: Callable[[float], None] = lambda _: None,
    ) -> Iterator[tuple[Span, Tensor, Tensor | None]]:
        """Enlarge colour by the net and opacity by the filter; yield spans and rows of both."""
        if alpha is not None:
            assert isinstance(color, Tensor)
            if size != color.shape[1:]:  # else nothing is changed, not even what is not seen
                color = bleed(dequantize(color), dequantize(alpha))
        rows = color if isinstance(color, Rows) else Rows.of(color)
        for span, band in self._enlarged(rows, size, finish, on_progress):
            mask = None if alpha is None else enlarged_by_filter(alpha, size, span, finish)
            yield span, band, mask

    def enlarge(self, image: Tensor, size: tuple[int, int]) -> Iterator[tuple[Span, Tensor]]:
        """Enlarge a picture and yield its finished rows from top to bottom.

        Args:
            image: ``(C, H, W)``, C 1 (grey) or 3 (RGB), integers or floating point in [0, 1].
            size: Height and width of the result, neither below the picture's.

        Yields:
            The span of rows and ``(C, rows, width)`` ``float32``, on the CPU, not clamped.

        Raises:
            What :meth:`upscale` raises.
        """
        yield from self._enlarged(Rows.of(image), size, dequantize)

    def patches(self, source: tuple[int, int], size: tuple[int, int]) -> int:
        """Count the patches that the net computes, in all steps, to enlarge ``source`` to ``size``.

        Both are height and width; what blocks compute as context is not counted.
        """
        return self._runner.passes * self._layout.patches(source, size)

    def memory(self, source: tuple[int, int], size: tuple[int, int], bytes_per_pixel: int) -> int:
        """Estimate the memory that :meth:`bands` needs beside the program and its input.

        Args:
            source: Height and width of the picture.
            size: Those of the result.
            bytes_per_pixel: Of both.
        """
        return estimated_bytes(self._layout, self._plans.current, source, size, bytes_per_pixel)

    def seconds(self, source: tuple[int, int], size: tuple[int, int]) -> float:
        """Estimate the time that :meth:`bands` takes, from a measurement of this machine.

        Both sizes are height and width. The first time a block of noise is enlarged. What only
        alpha, resizing or reading and writing takes is not in it.

        Raises:
            What :meth:`upscale` raises.
        """
        return self._speed.seconds(source, size)

    def band_rows(self, size: tuple[int, int]) -> int:
        """Count the rows of the largest band of a result, of which ``size`` is height and width."""
        return self._layout.band_rows(size[0], self._plans.current.fuse)

    def _enlarged(
        self,
        rows: Rows,
        size: tuple[int, int],
        finish: Callable[[Tensor], Tensor],
        on_progress: Callable[[float], None] = lambda _: None,
    ) -> Iterator[tuple[Span, Tensor]]:
        """Enlarge rows in as many steps as it takes, each fed by the one before."""
        height, width = rows.size
        if size[0] < height or size[1] < width:
            raise UsageError(
                f"{width}x{height} cannot be enlarged to {size[1]}x{size[0]}: that is smaller"
            )
        if size == (height, width):
            for span, band in unchanged(rows, finish):
                yield span, band
                on_progress(span.stop / height)
            return
        steps = self._layout.steps((height, width), size)
        computed = self._counter(steps, on_progress)
        for step in steps[:-1]:
            # Kept as float: rounding to integers happens once, at the very end.
            bands = (band for _, band in self._enlarge_once(rows, step, _clamped, computed))
            rows = Rows(bands, (rows.channels, *step.size))
        if steps[-1].size == size:
            yield from self._enlarge_once(rows, steps[-1], finish, computed)
            return
        larger = self._enlarge_once(rows, steps[-1], dequantize, computed)
        for span, band in reduced(larger, steps[-1].size, size):
            yield span, finish(band)

    def _counter(
        self, steps: list[Step], on_progress: Callable[[float], None]
    ) -> Callable[[int], None]:
        """Return what takes the pixels of each computed window, and reports the share of all."""
        areas = [self._layout.grid(step, self._plans.current.fuse).area for step in steps]
        total, done = self._runner.passes * sum(areas), 0

        def computed(pixels: int) -> None:
            nonlocal done
            done += pixels
            # Where memory runs out, rows begin anew with smaller windows: there are more pixels.
            on_progress(min(1.0, done / total))

        return computed

    def _enlarge_once(
        self,
        rows: Rows,
        step: Step,
        finish: Callable[[Tensor], Tensor],
        computed: Callable[[int], None] = lambda _: None,
    ) -> Iterator[tuple[Span, Tensor]]:
        """Enlarge by one step; where memory runs out, a smaller plan does the rows left."""
        done = 0
        while done < step.size[0]:
            plan = self._plans.current
            grid = self._layout.grid(step, plan.fuse, done)
            net = partial(self._runner.run, scale=step.scale, on_pass=computed)
            try:
                with memory_errors():
                    for span, band in enlarge_rows(
                        rows, grid, net, self.device, batch_size=plan.batch, finish=finish
                    ):
                        yield span, band
                        done = span.stop
            except MemoryError:
                if not self._plans.fall_back(plan):
                    raise


def _size_of(before: tuple[int, int], scale: Any, size: Any) -> tuple[int, int]:  # noqa: ANN401
    """Return width and height of a result, whatever an upscaler was called with."""
    if scale is not None and size is not None:
        raise UsageError("scale and size both say how large the result is; give one of them")
    try:
        if size is not None:
            width, height = map(index, size)
        else:
            factor = 3.0 if scale is None else float(scale)
            width, height = (output_length(length, factor) for length in before)
    except (TypeError, ValueError, OverflowError):
        wrong = f"scale={scale!r}" if size is None else f"size={size!r}"
        raise UsageError(
            f"{wrong}: give a number as scale, or two whole numbers, (width, height), as size"
        ) from None
    most = [output_length(length, MAX_SCALE) for length in before]
    if width > most[0] or height > most[1]:
        raise UsageError(
            f"{before[0]}x{before[1]} cannot be enlarged to {width}x{height}: choose at most "
            f"{MAX_SCALE:g} times its sides"
        )
    return width, height


def _clamped(band: Tensor) -> Tensor:
    return band.clamp(0, 1)
