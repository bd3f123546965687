"""One enlargement as an ONNX file for other runtimes: LR in, HR out, height and width free.

The bicubic filter, the reflected context, the net and the crop are all in the graph. onnx and
onnxscript are an extra, and torch's exporter is slow: they are imported when they are needed.
"""

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from srcli import __version__
from srcli.model.network import ResidualAutoencoder
from srcli.ops.resample import axis_weights, reflect
from srcli.ops.spans import Span
from srcli.upscaler import Settings, Upscaler

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["INPUT", "OPSET", "OUTPUT", "Enlargement", "largest_difference", "to_onnx"]

INPUT, OUTPUT = "lr", "hr"
"""Names in the graph: of ``(1, 3, H, W)`` ``float32`` RGB in [0, 1], and of its enlargement."""

OPSET = 18
"""The version of ONNX' operators that the graph uses."""

_SIDES = (29, 24, 17, 30)
"""LR pixels of what is compared: odd and even, and a single patch even at x4."""

_REACH = 2
"""Neighbours of an LR pixel, on each side, that the bicubic filter reads."""


class Enlargement(nn.Module):
    """What :meth:`srcli.Upscaler.enlarge` does to a picture that is a single block."""

    def __init__(self, net: ResidualAutoencoder, scale: int) -> None:
        super().__init__()
        self.net, self.scale = net.eval(), scale
        self._path, config = net.config.path(scale), net.config.at(scale)
        self._margin, self._stride = config.usual_margin, config.stride
        # Every LR pixel has the same weights; those of the one in the middle of a row of nine.
        weights = axis_weights(9, 9 * scale, Span(4 * scale, 5 * scale))
        row = torch.zeros(scale, 2 * _REACH + 1)
        row.scatter_add_(
            1, (weights.index + weights.first - 4 + _REACH).mT, weights.weight[..., 0].mT
        )
        kernel = row[:, None, :, None] * row[:, None, :]
        self.kernel = nn.Buffer(kernel.reshape(scale**2, 1, *kernel.shape[-2:]))

    def forward(self, image: Tensor) -> Tensor:
        """Enlarge ``(1, 3, H, W)`` in [0, 1] to ``(1, 3, H·scale, W·scale)``, not clamped."""
        larger = self._bicubic(image)
        height, width = (self.scale * side for side in image.shape[-2:])
        for axis, side in ((-2, height), (-1, width)):
            whole = (side + self._stride - 1) // self._stride * self._stride
            index = torch.arange(whole + 2 * self._margin) - self._margin
            # As a tensor: the exporter cannot divide by a size that is free.
            larger = larger.index_select(axis, reflect(index, torch.full_like(index, side)))
        begin = self._margin
        result = self.net.restore(larger, self._path)
        return result[..., begin : begin + height, begin : begin + width]

    def _bicubic(self, image: Tensor) -> Tensor:
        """Enlarge by the filter alone, whose weights at the edge are those inside, scaled up."""
        parts = functional.conv2d(image, self.kernel.repeat(3, 1, 1, 1), padding=_REACH, groups=3)
        inside = functional.conv2d(torch.ones_like(image[:, :1]), self.kernel, padding=_REACH)
        return functional.pixel_shuffle(parts / inside.repeat(1, 3, 1, 1), self.scale)


def to_onnx(net: ResidualAutoencoder, scale: int, metadata: Mapping[str, str]) -> bytes:
    """Return an ONNX file of the enlargement by a whole factor, of a net in ``float32``."""
    import onnx  # noqa: PLC0415 - see the module

    example = (torch.rand(1, 3, 16, 20),)
    with _silence():
        program = torch.onnx.export(
            Enlargement(net, scale),
            example,
            dynamo=True,
            dynamic_shapes=({2: "height", 3: "width"},),
            input_names=[INPUT],
            output_names=[OUTPUT],
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    _tidy(model, scale)
    model.producer_name, model.producer_version = "srcli", __version__
    onnx.helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def _tidy(model: "ModelProto", scale: int) -> None:
    """Drop what the exporter notes of this program, and name the sides of the result."""
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        del value.metadata_props[:]
    del model.graph.value_info[:], model.graph.metadata_props[:]
    sides = model.graph.output[0].type.tensor_type.shape.dim[2:]
    for side, name in zip(sides, ("height", "width"), strict=True):
        side.dim_param = f"{scale}*{name}"


@contextmanager
def _silence() -> Iterator[None]:
    """Keep what torch's exporter says of itself from the user, who cannot act on it."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def largest_difference(content: bytes, net: ResidualAutoencoder, scale: int) -> float:
    """Return how far ONNX Runtime's results are from srcli's, on noise of three sizes."""
    import onnxruntime  # noqa: PLC0415 - see the module

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    settings = Settings(device="cpu", dtype="fp32")
    largest = 0.0
    with Upscaler(net, scales=(scale,), settings=settings) as upscaler:
        for height, width in pairwise(_SIDES):
            image = torch.rand(3, height, width, generator=torch.Generator().manual_seed(height))
            (found,) = session.run(None, {INPUT: image[None].numpy()})
            size = scale * height, scale * width
            wanted = torch.cat([band for _, band in upscaler.enlarge(image, size)], 1)
            largest = max(largest, float((torch.from_numpy(found[0]) - wanted).abs().max()))
    return largest
