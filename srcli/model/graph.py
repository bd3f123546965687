"""The net as a graph of OpenVINO's, which runs it faster than torch on processors without bf16."""

import os
import threading
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from srcli.model.config import ScalePath
from srcli.model.int8 import convolutions, input_ranges, weight_steps
from srcli.model.network import ConvolutionUnit, ResidualAutoencoder
from srcli.model.weights import Ranges
from srcli.ops.engines import Compute, without_converter

with without_converter():
    import openvino
    from openvino import Node, opset13

__all__ = ["CompiledNet", "has_wide_sums"]


_EXACT = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}


class CompiledNet:
    """Computes what a net does, by OpenVINO; may be called from several threads, one at a time.

    Each path is compiled once, when it is first taken, for windows of any size.

    Args:
        net: In ``float32``, on the CPU.
        compute: Where, and in which number format.
        ranges: For int8.
    """

    def __init__(self, net: ResidualAutoencoder, compute: Compute, ranges: Ranges) -> None:
        self._net, self._compute = net, compute
        self._ranges = ranges if compute.dtype == torch.int8 else {}
        # By process, too: a fork has none of the threads of a request.
        self._requests: dict[tuple[int, ScalePath | None], Any] = {}
        self._lock = threading.Lock()

    def __call__(self, image: Tensor, scales: Sequence[float]) -> Tensor:
        """Restore ``(N, 3, H, W)`` windows on the CPU, all enlarged by one factor."""
        path = self._net.config.path(scales[0])
        with self._lock:
            key = os.getpid(), path
            if key not in self._requests:
                self._requests[key] = self._compiled(path)
            request = self._requests[key]
            result = request.infer([image.contiguous().numpy()], share_inputs=True)
            return torch.from_numpy(result[0])

    def _compiled(self, path: ScalePath | None) -> Any:  # noqa: ANN401 - OpenVINO has no types
        model = _Graph(self._net, path, self._ranges).model()
        options = _EXACT
        if self._compute.dtype == torch.float16:
            options = options | {"INFERENCE_PRECISION_HINT": "f16"}
        if self._compute.target == "CPU":
            options = options | {"INFERENCE_NUM_THREADS": str(torch.get_num_threads())}
        compiled = openvino.Core().compile_model(model, self._compute.target, options)
        return compiled.create_infer_request()


class _Graph:
    """Builds what :meth:`srcli.model.network.ResidualAutoencoder.restore` computes."""

    def __init__(self, net: ResidualAutoencoder, path: ScalePath | None, ranges: Ranges) -> None:
        self._net, self._path = net, path
        self._wide = bool(ranges) and has_wide_sums()
        self._ranges = {
            layer: [*input_ranges(ranges[name], count)]
            for name, layer in convolutions(net, path)
            if name in ranges and (count := int(ranges[name][2 if self._wide else 3]))
        }
        self._config = net.config.at(path.scale) if path else net.config

    def model(self) -> openvino.Model:
        """Return the graph, of ``(N, 3, H, W)`` and back."""
        net, config = self._net, self._config
        name, residual = str(config.stem), config.is_residual
        stem, head = (net.stems[name], net.heads[name]) if self._path else (net.stem, net.head)
        image = opset13.parameter([-1, 3, -1, -1], np.float32)
        features = opset13.subtract(image, np.float32(0.5)) if residual else image
        features = opset13.space_to_depth(features, "depth_first", config.stem)
        features = shallow = self._applied(stem, features)
        skips: list[Node] = []
        for level, (encoder, down) in enumerate(zip(net.encoders, net.downs, strict=True)):
            features = self._chain(list(encoder.children())[: config.encoder[level]], features)
            skips.append(features)
            features = self._applied(down, features)
        features = self._chain(list(net.bottom.children()), features)
        for level in reversed(range(len(skips))):
            units = list(net.decoders[level].children())[-config.decoder[level] :]
            joined = {"before": 0, "first": 1, "last": len(units)}[config.join]
            larger = self._chain(units[:joined], self._applied(net.ups[level], features))
            features = self._chain(units[joined:], opset13.add(larger, skips[level]))
        pixels = self._applied(head, opset13.add(features, shallow) if residual else features)
        correction = opset13.depth_to_space(pixels, "depth_first", config.stem)
        result = opset13.add(image, correction) if residual else opset13.relu(correction)
        return openvino.Model([result], [image], "srcli")

    def _chain(self, units: list[nn.Module], features: Node) -> Node:
        for unit in units:
            features = self._unit(unit, features)
        return features

    def _unit(self, unit: nn.Module, features: Node) -> Node:
        if isinstance(unit, ConvolutionUnit):
            return opset13.relu(self._applied(unit.convolution, features))
        inner = opset13.relu(self._applied(unit.get_submodule("expand"), features))
        return opset13.add(self._applied(unit.get_submodule("contract"), inner), features)

    def _applied(self, layer: nn.Module, features: Node) -> Node:
        """Apply a layer that is no unit."""
        match layer:
            case nn.Conv2d():
                return self._convolved(layer, features)
            case nn.Sequential():  # a 1x1 convolution and depth-to-space
                return opset13.depth_to_space(self._convolved(layer[0], features), "depth_first", 2)
            case nn.MaxPool2d():
                return opset13.max_pool(features, [2, 2], [1, 1], [0, 0], [0, 0], [2, 2]).output(0)
            case nn.Upsample():
                scales = np.array([2, 2], np.float32)
                return opset13.interpolate(
                    features, scales, "nearest", "scales", None, None, "asymmetric", axes=[2, 3]
                )
        return features

    def _convolved(self, layer: nn.Module, features: Node) -> Node:
        weight, bias = layer.get_parameter("weight"), layer.get_parameter("bias")
        factors, result = _constant(weight), _constant(bias[:, None, None])
        given = layer.stride, layer.padding, layer.padding, [1, 1]
        if layer not in self._ranges:
            return opset13.add(opset13.convolution(features, factors, *given), result)
        most = 127 * weight_steps(weight, wide=self._wide).numpy()
        factors = _rounded(factors, -most, most, 255)
        for low, high in self._ranges[layer]:
            part = _rounded(features, np.float32(low), np.float32(high), 256)
            features = opset13.subtract(features, part)
            result = opset13.add(opset13.convolution(part, factors, *given), result)
        return result


@cache
def has_wide_sums() -> bool:
    """Whether the processor adds products of int8 in 32 bits, as those with VNNI do.

    Found out by a product that 16 bits cannot hold: no list of processors is complete.
    """
    image = opset13.parameter([1, 16, 8, 8], np.float32)
    ones = np.ones((1, 16, 8, 8), np.float32)
    weight = opset13.constant(np.ones((16, 16, 1, 1), np.float32))
    inputs = _rounded(image, np.float32(0), np.float32(1), 256)
    factors = _rounded(weight, np.float32(-1), np.float32(1), 255)
    result = opset13.convolution(inputs, factors, [1, 1], [0, 0], [0, 0], [1, 1])
    model = openvino.Model([result], [image], "sum")
    compiled = openvino.Core().compile_model(model, "CPU", _EXACT)
    return bool(np.allclose(compiled.create_infer_request().infer([ones])[0], 16))


def _rounded(node: Node, low: Any, high: Any, levels: int) -> Node:  # noqa: ANN401 - of NumPy
    """Round to levels between two ends; OpenVINO then computes in int8."""
    return opset13.fake_quantize(node, low, high, low, high, levels)


def _constant(tensor: Tensor) -> Node:
    return opset13.constant(tensor.detach().contiguous().numpy())
