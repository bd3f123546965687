"""Picture in, larger picture out: patches, device, number format, memory and steps.

The same :class:`Upscaler` serves ``srcli upscale``, ``srcli eval`` and Python programs.
"""

import copy
import math
import operator
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate, count
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from srcli.errors import UsageError, WeightsError, require_at_least
from srcli.files import AUTO
from srcli.imaging.bands import Rows as PictureRows
from srcli.imaging.images import Levels, Picture, PillowImage, Scan, from_pillow, to_pillow
from srcli.model import weights
from srcli.model.config import SYMMETRIES, ModelConfig
from srcli.model.network import ResidualAutoencoder, in_dtype
from srcli.model.tiling import Grid, Place, Rows, enlarge_rows
from srcli.ops.color import bleed, dequantize, quantize
from srcli.ops.devices import all_alike, memory_errors, on_device, resolve_device, resolve_dtype
from srcli.ops.resample import axis_weights, bicubic
from srcli.ops.spans import PATCH, Block, Span, output_length, plan_axis, steps_to

__all__ = ["Settings", "Upscaler", "check_settings"]


_FUSE = {"cpu": 6, "cuda": 8}
"""Patches per side of a block with ``tile=auto``: the larger the block, the less context is
computed twice, as long as a layer's features stay in the cache. In bf16 on two Zen 4 cores blocks
of 2, 3, 4, 5, 6, 8 and 12 patches took 0.43, 0.35, 0.33, 0.30, 0.30, 0.29 and 0.28 s per megapixel;
six is where the gain ends that is worth its memory."""

_PIXEL_BYTES, _POSITION_BYTES = 190, 2000
"""Bytes that ``base`` needs for each pixel of a window, its input and result included, and for each
position of its highest level: 412 a pixel at x3, more at x2, less at x4. With these what was
foretold for five pictures, x2 to x6 in fp32 on two Zen 3 cores, was 0.93 to 1.08 of the peak."""

_STEP_BYTES = 80
"""Bytes for each pixel of a window that every step before the last adds to the peak: what its own
windows, of another size, leave behind is not all of use to the others. Without it 17 runs at x6
in fp32 on two Zen 3 cores took 1.01 to 1.15 times what was foretold, 1.08 on average."""

_MEASURE_SECONDS, _MEASURES = 2.0, 5
"""How long a measure of the machine may take before it is not repeated, and how often it is at the
most: the fastest counts, as what else the machine does only adds."""

_FEW_ROWS = 64
"""Rows that are filtered at a time where the net has no part in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How an :class:`Upscaler` computes; none of it changes what a picture should look like.

    Raises:
        UsageError: If a number is out of range.
    """

    device: str = "auto"
    dtype: str = "auto"

    tile: int | None = None
    """Patch size in output pixels, a multiple of the net's common stride; None: 120, fused."""

    overlap: int | None = None
    """Context around a patch in output pixels, rounded up to a multiple of the stride; None: as
    much as leaves a seam of one 8-bit level at most, 32, 48 and 64 at x2, x3 and x4 in ``base``."""

    batch_size: int | None = None
    """Patches per forward pass; None chooses."""

    tta: bool = False
    """Average the results of the eight ways to turn and mirror a patch, in ``float32``: a little
    better and eight times slower (geometric self-ensemble: Timofte et al. 2016, "Seven ways to
    improve example-based single image super resolution"). With weights that are symmetric all eight
    are alike: one is computed."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        require_at_least(1, tile=self.tile, batch_size=self.batch_size)
        require_at_least(0, overlap=self.overlap)


@dataclass(frozen=True, slots=True)
class _Stage:
    """One enlargement by the net."""

    size: tuple[int, int]
    """Height and width that it makes."""

    scale: float
    """The trained factor that it is taken for: a pixel more or less makes it no other."""


@dataclass(frozen=True, slots=True)
class _Effort:
    """How much is computed at a time, and on what."""

    devices: tuple[torch.device, ...]
    fuse: int
    batch: int

    def __str__(self) -> str:
        return str(self.devices[0] if len(self.devices) == 1 else self.devices[0].type)

    def ladder(self) -> "list[_Effort]":
        """Itself and ever smaller ones: half a batch, half a block, down to single patches."""
        if self.batch > 1:
            return [self, *replace(self, batch=self.batch // 2).ladder()]
        if self.fuse > 1:
            return [self, *replace(self, fuse=self.fuse // 2).ladder()]
        return [self]


def check_settings(config: ModelConfig, settings: Settings) -> None:
    """Check before there is a picture whether a net can run with some settings.

    Args:
        config: The net's shape.
        settings: What is asked of it.

    Raises:
        UsageError: If the patch size does not fit every path through the net.
    """
    tile = PATCH if settings.tile is None else settings.tile
    plan_axis(1, patch=tile, overlap=0, stride=config.common_stride)


class Upscaler:
    """Enlarges pictures with one net; may be used from several threads at the same time.

    Args:
        model: Shipped weights by name, a ``.safetensors`` file, or a net in ``float32``.
        scales: Factors the net was trained for. Any other is reached by one of them or several
            in turn, and by reducing what is too large. None: what the weights say, or 2, 3, 4.
        settings: Device, number format and patches.
        notice: Called with a line when something worth knowing happened, each once.

    Raises:
        WeightsError: If there are no such weights, or they are damaged.
        UsageError: If the tile does not fit the net's stride, or for ``auto``, which is about
            files: see :func:`srcli.choose_weights`.
        DeviceError: If the device is not there.

    Example:
        >>> from PIL import Image
        >>> Upscaler("base")(Image.new("RGB", (8, 5)), scale=2).size
        (16, 10)
    """

    def __init__(
        self,
        model: str | Path | ResidualAutoencoder = "base",
        *,
        scales: tuple[float, ...] | None = None,
        settings: Settings | None = None,
        notice: Callable[[str], None] = lambda _: None,
    ) -> None:
        if model == AUTO:
            raise UsageError(
                "auto chooses weights for a file: give a name such as base, or that of "
                "srcli.choose_weights(path)"
            )
        self.settings = settings or Settings()
        self.device = resolve_device(self.settings.device)
        self.dtype = resolve_dtype(self.settings.dtype, self.device)
        if isinstance(model, ResidualAutoencoder):
            net, header = copy.deepcopy(model), weights.Weights(config=model.config)
        else:
            net, header = weights.load(weights.resolve(str(model)))
        self.config = net.config
        name = "this net" if isinstance(model, ResidualAutoencoder) else str(model)
        self.scales = scales or header.scales
        check_settings(self.config, self.settings)
        self._ensemble = self.settings.tta and not self.config.symmetric
        if self.settings.tta and not self._ensemble:
            notice(f"--tta changes nothing with {name}: it treats all eight ways alike already")
        self._notice = notice
        self._lock = threading.Lock()
        self._redone = False
        self._turn = count()
        self._ladder = self._efforts()
        self._step = 0
        self._paces: dict[tuple[int, float, int], float] = {}
        self._exact = on_device(net.eval(), self.device).requires_grad_(requires_grad=False)
        self._fast = in_dtype(self._exact, self.dtype)
        self._copies: dict[torch.device, tuple[ResidualAutoencoder, ResidualAutoencoder]] = {}

    def __call__(
        self,
        image: PillowImage,
        scale: float = 3.0,
        *,
        size: tuple[int, int] | None = None,
    ) -> PillowImage:
        """Enlarge a Pillow image, upright as its EXIF says.

        Args:
            image: Of any mode that a file may have; it is not changed.
            scale: Output pixels per input pixel along each axis, at least 1.
            size: Width and height of the result instead of a scale.

        Returns:
            ``L``, ``LA``, ``RGB``, ``RGBA`` or ``I;16``, with profile, EXIF, XMP and resolution
            in its ``info``.

        Raises:
            ImageError: If the pixels have no fixed range (``F``) or cannot be decoded.
            UsageError: If the result would be smaller than the image.
        """
        picture = from_pillow(image)
        if size is None:
            size = output_length(picture.width, scale), output_length(picture.height, scale)
        return to_pillow(self.upscale(picture, (size[1], size[0])))

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
            on_progress: Called with the share done, 0 to 1, as rows are finished.

        Returns:
            The larger picture, with the metadata of the given one.

        Raises:
            ImageError: If decoding the rows finds that they are damaged.
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

        Args:
            picture: A picture, or one whose rows are being decoded.
            size: Height and width of the whole result, neither below the picture's.
            on_progress: Called with the share done, 0 to 1, whenever a band has been taken.

        Yields:
            Pictures of some rows each, as wide as the result, from top to bottom.

        Raises:
            ImageError: If decoding the rows finds that they are damaged.
            MemoryError: If the machine has too little even for single patches.
            WeightsError: If the net's result is not finite even in fp32.
        """
        alpha = None
        if isinstance(picture, Scan):
            bits = 8 * np.dtype(picture.dtype).itemsize
            shape = picture.channels, picture.height, picture.width
            rows = Rows(map(_planes, picture.rows), shape)
        else:
            bits = 8 * picture.pixels.itemsize
            pixels = _planes(picture.pixels)
            if picture.alpha is not None:
                alpha = _planes(picture.alpha)
                pixels = bleed(dequantize(pixels), dequantize(alpha))
            rows = Rows.of(pixels)
        finish = partial(quantize, bits=bits)
        for span, band in self._enlarged(rows, size, finish):
            yield Picture(
                pixels=_levels(band),
                alpha=None if alpha is None else _levels(_filtered(alpha, size, span, finish)),
                metadata=picture.metadata,
                duration=None if isinstance(picture, Scan) else picture.duration,
            )
            on_progress(span.stop / size[0])

    def enlarge(self, image: Tensor, size: tuple[int, int]) -> Iterator[tuple[Span, Tensor]]:
        """Enlarge a picture and yield its finished rows from top to bottom.

        Args:
            image: ``(C, H, W)``, C 1 (grey) or 3 (RGB), integers or floating point in [0, 1].
            size: Height and width of the result, neither below the picture's.

        Yields:
            The span of rows and ``(C, rows, width)`` ``float32``, on the CPU, not clamped.

        Raises:
            UsageError: If ``size`` is smaller than the picture.
            MemoryError: If the machine has too little even for single patches.
            WeightsError: If the net's result is not finite even in fp32.
        """
        yield from self._enlarged(Rows.of(image), size, dequantize)

    def patches(self, source: tuple[int, int], size: tuple[int, int]) -> int:
        """Count the patches that the net computes to enlarge ``source`` to ``size``.

        Args:
            source: Height and width of the picture.
            size: Those of the result, neither below the picture's.

        Returns:
            Cells of the grid, over all steps; what blocks compute as context is not counted.
        """
        side = self.settings.tile or PATCH
        stages = [] if size == source else self._stages(source, size)
        cells = sum(-(-stage.size[0] // side) * -(-stage.size[1] // side) for stage in stages)
        return cells * (SYMMETRIES if self._ensemble else 1)

    def memory(self, source: tuple[int, int], size: tuple[int, int], planes: int) -> int:
        """Estimate the memory that :meth:`bands` needs beside the program and its input.

        Args:
            source: Height and width of the picture.
            size: Those of the result.
            planes: Bytes a pixel of both.

        Returns:
            Bytes at the peak: a batch in the net, a band of the result, and of each step before
            the last the rows that the next one needs, as float, and what its windows leave behind.
        """
        if size == source:
            return planes * _FEW_ROWS * size[1]
        *steps, last = self._stages(source, size)
        effort = self._ladder[self._step]
        rows, columns = (self._plan(side, effort.fuse, last.scale) for side in last.size)
        high, wide = (max(len(one.window) for one in blocks) for blocks in (rows, columns))
        band = max(len(one.keep) for one in rows)
        # Rows of a step before: a band as it comes, and what is kept of it and the one above,
        # joined anew for each.
        kept = sum(3 * 4 * 3 * min(step.size[0], high) * step.size[1] for step in steps)
        if last.size != size:
            kept += 3 * 4 * 3 * band * last.size[1]
        positions = high * wide / self.config.at(last.scale).stem ** 2
        net = round(_PIXEL_BYTES * high * wide + _POSITION_BYTES * positions)
        net *= min(effort.batch, len(columns))
        net += _STEP_BYTES * len(steps) * high * wide
        return net + kept + planes * min(band, size[0]) * size[1]

    def seconds(self, source: tuple[int, int], size: tuple[int, int]) -> float:
        """Estimate the time that :meth:`bands` takes, from a measure of this machine.

        For every kind of window that has not been measured yet a block of noise is enlarged, again
        and again until that has taken two seconds or five passes; after that it costs nothing.

        Args:
            source: Height and width of the picture.
            size: Those of the result, neither below the picture's.

        Returns:
            Seconds, or the file's share of them where several devices take a file each. What only
            alpha, resizing or reading and writing takes is not in it.

        Raises:
            MemoryError: If the machine has too little even for single patches.
            WeightsError: If the net's result is not finite even in fp32.
        """
        stages = [] if size == source else self._stages(source, size)
        return sum(
            (
                times * area * self._pace(stage.scale, area)
                for stage in stages
                for area, times in self._windows(stage).items()
            ),
            0.0,
        )

    def _windows(self, stage: _Stage) -> Counter[int]:
        """Count the windows of a step by their area, pixels."""
        fuse = self._ladder[self._step].fuse
        rows, columns = (self._plan(side, fuse, stage.scale) for side in stage.size)
        return Counter(len(row.window) * len(one.window) for row in rows for one in columns)

    def _pace(self, scale: float, area: int) -> float:
        """Measure the seconds that a pixel takes in a window of about ``area`` pixels."""
        side, step = self.settings.tile or PATCH, self._step
        fuses = sorted({effort.fuse for effort in self._ladder[step:]})
        kinds = {max(self._windows(_Stage((one * side,) * 2, scale))): one for one in fuses}
        # The kind that is the fewest times larger or smaller.
        kind = min(kinds, key=lambda one: abs(math.log(one / area)))
        key = step, scale, kinds[kind]
        if key not in self._paces:
            full = kinds[kind] == fuses[-1]
            self._paces[key] = self._measured(scale, kinds[kind] * side, full=full)
        return self._paces[key]

    def _measured(self, scale: float, side: int, *, full: bool) -> float:
        """Time one square block, or a row of as many ``full`` ones as are computed at once."""
        effort = self._ladder[self._step]
        devices = len(effort.devices)
        stage = _Stage((side, side * (effort.batch * devices if full else 1)), scale)
        shape = 3, *(math.ceil(length / scale) for length in stage.size)
        noise = torch.rand(shape, generator=torch.Generator().manual_seed(0))
        taken: list[float] = []
        while len(taken) < _MEASURES and sum(taken) < _MEASURE_SECONDS:
            begun = time.perf_counter()
            for _band in self._enlarge_once(Rows.of(noise), stage, partial(quantize, bits=8)):
                pass
            taken.append(time.perf_counter() - begun)
        # Small pictures are computed on all devices at the same time.
        seconds = min(taken) / (1 if full else devices)
        return seconds / sum(area * times for area, times in self._windows(stage).items())

    def band_rows(self, size: tuple[int, int]) -> int:
        """Count the rows of the largest band that :meth:`bands` yields.

        Args:
            size: Height and width of the result.
        """
        # The blocks' edges follow from the tile alone, whichever way through the net they go.
        blocks = self._plan(size[0], self._ladder[self._step].fuse, None)
        return max(len(one.keep) for one in blocks)

    def _stages(self, source: tuple[int, int], size: tuple[int, int]) -> list[_Stage]:
        """What the net makes one after the other; the last is of ``size`` or larger.

        A net is at home where the pixels of LR lie in its input as they did in training. On eight
        images of Set14 ``base`` has 28.63 dB at x2.5, and 29.81 where it enlarges by 3 and the
        result is reduced; at x6, two steps of 2.45 have 24.64 dB, 3 and 2 have 25.46. One that
        knows a single factor takes that again, however much work it is: ``paper`` at x4 has 22.34
        dB on the middles of 20 photographs by two steps of 2, 25.09 by two of 3; bicubic has 24.22.
        """
        pairs = list(zip(source, size, strict=True))
        # A result that is a pixel larger or smaller has the pixels where they belong all the same.
        factor = max(1.0, *((after - 1) / before for before, after in pairs))
        steps = steps_to(factor, self.scales)
        products = accumulate(steps, operator.mul)
        *sizes, last = [(round(source[0] * one), round(source[1] * one)) for one in products]
        near = all(abs(one - other) <= 1 for one, other in zip(last, size, strict=True))
        sizes.append(size if near else (max(last[0], size[0]), max(last[1], size[1])))
        return [_Stage(*stage) for stage in zip(sizes, steps, strict=True)]

    def _enlarged(
        self, rows: Rows, size: tuple[int, int], finish: Callable[[Tensor], Tensor]
    ) -> Iterator[tuple[Span, Tensor]]:
        """Enlarge rows in as many steps as it takes, each fed by the one before."""
        height, width = rows.size
        if size[0] < height or size[1] < width:
            raise UsageError(
                f"{width}x{height} cannot be enlarged to {size[1]}x{size[0]}: that is smaller"
            )
        if size == (height, width):
            yield from _unchanged(rows, finish)
            return
        *steps, last = self._stages((height, width), size)
        for step in steps:
            # Kept as float: rounding to integers happens once, at the very end.
            bands = (band for _, band in self._enlarge_once(rows, step, _clamped))
            rows = Rows(bands, (rows.channels, *step.size))
        if last.size == size:
            yield from self._enlarge_once(rows, last, finish)
            return
        for span, band in _reduced(self._enlarge_once(rows, last, dequantize), last.size, size):
            yield span, finish(band)

    def _enlarge_once(
        self, rows: Rows, stage: _Stage, finish: Callable[[Tensor], Tensor]
    ) -> Iterator[tuple[Span, Tensor]]:
        """Enlarge by the net alone; where memory runs out, go on from the last row with less."""
        done = 0
        while done < stage.size[0]:
            step = self._step
            try:
                with memory_errors():
                    for span, band in self._rows(rows, stage, done, self._ladder[step], finish):
                        yield span, band
                        done = span.stop
            except MemoryError:
                if step + 1 == len(self._ladder):
                    raise
                self._ease(step)

    def _rows(
        self,
        image: Rows,
        stage: _Stage,
        start: int,
        effort: _Effort,
        finish: Callable[[Tensor], Tensor],
    ) -> Iterator[tuple[Span, Tensor]]:
        (height, width), scale = stage.size, stage.scale
        rows = [block.shifted(start) for block in self._plan(height - start, effort.fuse, scale)]
        grid = Grid(rows=rows, columns=self._plan(width, effort.fuse, scale))
        # Begun with another one each time: small pictures that are enlarged at the same moment
        # have a row of blocks each.
        first = next(self._turn) % len(effort.devices)
        devices = effort.devices[first:] + effort.devices[:first]
        places = [Place(device, partial(self._run, scale=scale)) for device in devices]
        # On a Zen 4 core, 1, 2, 4, 8 and 16 single patches a pass took 0.99, 0.93, 0.98, 1.00 and
        # 1.20 s per megapixel: a CPU gains nothing from batches, and a fused block is one already.
        yield from enlarge_rows(image, grid, places, effort.batch, finish)

    def _ease(self, step: int) -> None:
        """Compute less at a time from now on, and say so at the first time and at the last."""
        with self._lock:
            if self._step != step:  # another thread has seen to it
                return
            before, after = self._ladder[step], self._ladder[step + 1]
            if after.devices != before.devices:
                torch.cuda.empty_cache()
                self._notice(f"{before} is out of memory: going on with the CPU")
            elif step == 0:
                self._notice(f"{before} is short of memory: smaller blocks from here on")
            self._step += 1

    def _efforts(self) -> list[_Effort]:
        """What to compute at a time: at first, and each time that memory has run out."""
        cpu, chosen = (torch.device("cpu"),), self.settings
        fuse = _FUSE if chosen.tile is None else dict.fromkeys(_FUSE, 1)
        if self.device.type == "cpu":
            return _Effort(cpu, fuse["cpu"], chosen.batch_size or 1).ladder()
        first = _Effort(all_alike(self.device), fuse["cuda"], chosen.batch_size or 8)
        return [*first.ladder(), *_Effort(cpu, fuse["cpu"], 1).ladder()]

    def _plan(self, length: int, fuse: int, scale: float | None) -> list[Block]:
        settings, config = self.settings, self.config.at(scale)
        overlap = config.usual_margin
        if settings.overlap is not None:
            # More context than the receptive field cannot change a pixel, only cost time.
            overlap = min(settings.overlap, config.receptive_margin)
        return plan_axis(
            length,
            patch=PATCH if settings.tile is None else settings.tile,
            overlap=overlap,
            stride=config.stride,
            fuse=fuse,
        )

    def _nets(self, device: torch.device) -> tuple[ResidualAutoencoder, ResidualAutoencoder]:
        """The net in the working format and in fp32, on the device that windows are on."""
        if _same(device, self.device):
            return self._fast, self._exact
        with self._lock:
            if device not in self._copies:
                exact = on_device(copy.deepcopy(self._exact), device)
                dtype = self.dtype
                if device.type != self.device.type:
                    name = self.settings.dtype if self.settings.dtype != "fp16" else "auto"
                    dtype = resolve_dtype(name, device)
                self._copies[device] = in_dtype(exact, dtype), exact
            return self._copies[device]

    @torch.inference_mode()
    def _run(self, windows: Tensor, scale: float) -> Tensor:
        """Run the net on ``(N, C, h, w)`` windows; grey is shown to it as R = G = B."""
        image = windows.expand(-1, 3, -1, -1)
        if not self._ensemble:
            result = self._run_once(image, scale)
        else:
            # Windows begin and end at multiples of the stride: turned, they keep its phase.
            turned = (
                _back(self._run_once(_turned(image, turn), scale), turn)
                for turn in range(SYMMETRIES)
            )
            result = sum(turned, torch.zeros_like(image)) / SYMMETRIES
        return result.mean(1, keepdim=True) if windows.shape[1] == 1 else result

    def _run_once(self, image: Tensor, scale: float) -> Tensor:
        image = image.contiguous(memory_format=torch.channels_last)
        fast, exact = self._nets(image.device)
        scales = [scale] * len(image)
        result: Tensor = fast(image, scales)
        if bool(torch.isfinite(result).all()):
            return result
        return self._run_exactly(exact, image, scales)

    def _run_exactly(
        self, exact: ResidualAutoencoder, image: Tensor, scales: list[float]
    ) -> Tensor:
        result: Tensor = exact(image, scales)
        if not bool(torch.isfinite(result).all()):
            raise WeightsError("the net's result is not finite even in fp32; use other weights")
        with self._lock:
            if not self._redone:
                self._notice(f"a patch was not finite in {self.dtype} and was redone in fp32")
            self._redone = True
        return result


def _turned(image: Tensor, turn: int) -> Tensor:
    """One of the eight ways to turn and mirror ``(..., H, W)``."""
    turned = image.mT if turn & 1 else image
    return turned.flip([axis for axis in (-1, -2) if turn & (2 if axis == -1 else 4)])


def _back(image: Tensor, turn: int) -> Tensor:
    """Undo :func:`_turned`."""
    flipped = image.flip([axis for axis in (-1, -2) if turn & (2 if axis == -1 else 4)])
    return flipped.mT if turn & 1 else flipped


def _same(one: torch.device, other: torch.device) -> bool:
    """Whether two names mean one device: ``cuda`` is the first of them."""
    return (one.type, one.index or 0) == (other.type, other.index or 0)


def _planes(levels: Levels) -> Tensor:
    """See ``HxWxC`` levels as ``(C, H, W)``."""
    return torch.from_numpy(levels).permute(2, 0, 1)


def _levels(planes: Tensor) -> Levels:
    """Lay ``(C, H, W)`` integers down as ``HxWxC``."""
    levels: Levels = np.ascontiguousarray(planes.permute(1, 2, 0).numpy())
    return levels


def _clamped(result: Tensor) -> Tensor:
    return result.clamp(0, 1)


def _slices(height: int) -> Iterator[Span]:
    """Cut rows into few enough that they may become float."""
    for start in range(0, height, _FEW_ROWS):
        yield Span(start, min(start + _FEW_ROWS, height))


def _unchanged(rows: Rows, finish: Callable[[Tensor], Tensor]) -> Iterator[tuple[Span, Tensor]]:
    for span in _slices(rows.size[0]):
        yield span, finish(dequantize(rows.part(span.start, span.stop)))


def _filtered(
    image: Tensor, size: tuple[int, int], span: Span, finish: Callable[[Tensor], Tensor]
) -> Tensor:
    """Enlarge by the bicubic filter alone, for what is not a photograph (alpha): some rows."""
    across = Span(0, size[1])
    parts = (Span(span.start + one.start, span.start + one.stop) for one in _slices(len(span)))
    return torch.cat([finish(bicubic(image, size, (part, across))) for part in parts], -2)


def _reduced(
    bands: Iterator[tuple[Span, Tensor]], source: tuple[int, int], size: tuple[int, int]
) -> Iterator[tuple[Span, Tensor]]:
    """Reduce rows by the bicubic filter as they come, holding only those still needed."""
    across = axis_weights(source[1], size[1], Span(0, size[1]))
    held, first, stop = torch.empty(0), 0, 0  # reduced columns of the rows first to stop
    for wanted in _slices(size[0]):
        down = axis_weights(source[0], size[0], wanted)
        while stop < down.stop:
            span, band = next(bands)
            narrow = across.apply(band.mT.contiguous()).mT
            held = torch.cat([held[:, down.first - first :], narrow], 1) if stop else narrow
            first, stop = (down.first if stop else 0), span.stop
        yield wanted, down.apply(held[:, down.first - first : down.stop - first].contiguous())
