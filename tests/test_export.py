"""``srcli export``: one ONNX file that gives what the upscaler gives."""

import re
from functools import partial

import command_runs
import numpy as np
import pytest
import torch

from srcli import Settings, Upscaler, __version__, exporting, files
from srcli.model import weights

run = partial(command_runs.run, "export")

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def exported(tiny_weights, tmp_path_factory):
    """What the command wrote and said of the tiny net at x3."""
    path = tmp_path_factory.mktemp("export") / "tiny.onnx"
    return path, run("-m", tiny_weights, "-o", path)


def test_the_command_writes_and_checks_a_file(exported):
    """It says names, opset and how near the results are; the file has names and a licence."""
    path, result = exported
    model = onnx.load(path)

    assert (result.exit_code, result.stdout) == (0, "")
    line = r".*tiny\.onnx  lr 1x3xHxW -> hr 1x3x3Hx3W, opset 18, within \de-0[5-9] of srcli at .*\n"
    assert re.fullmatch(line, result.stderr)
    assert [path.name for path in path.parent.iterdir()] == ["tiny.onnx"]
    assert (model.producer_name, model.producer_version) == ("srcli", __version__)
    assert {one.key: one.value for one in model.metadata_props} == {
        "model": "tiny",
        "scale": "3",
        "licence": "that of whoever trained the weights",
    }
    assert [(one.domain, one.version) for one in model.opset_import] == [("", 18)]
    sides = [side.dim_param for side in model.graph.output[0].type.tensor_type.shape.dim[2:]]
    assert sides == ["3*height", "3*width"]
    assert b"site-packages" not in path.read_bytes(), "where the exporter lies is nobody's business"


def larger(model, image, scale):
    """What the upscaler makes of ``(3, H, W)`` in fp32."""
    upscaler = Upscaler(model, settings=Settings(device="cpu", dtype="fp32"))
    size = scale * image.shape[1], scale * image.shape[2]
    return torch.cat([band for _, band in upscaler.enlarge(image, size)], 1)


@pytest.mark.parametrize("size", [(1, 2), (5, 3), (33, 29)])
def test_the_graph_gives_what_the_upscaler_gives(exported, tiny_weights, photo, size):
    """At any size, edges included."""
    image = torch.from_numpy(photo[: size[0], : size[1]]).permute(2, 0, 1).float() / 255

    (found,) = onnxruntime.InferenceSession(exported[0]).run(["hr"], {"lr": image[None].numpy()})

    np.testing.assert_allclose(found[0], larger(tiny_weights, image, 3), atol=1e-4)


@pytest.mark.parametrize(("name", "scale"), [("base", 2), ("base", 3), ("base", 4), ("paper", 3)])
def test_every_path_of_the_shipped_nets_is_the_same(name, scale, photo):
    """The module that is exported, without the exporter: it is slow."""
    net, _ = weights.load(files.shipped()[name])
    image = torch.from_numpy(photo[:21, :26]).permute(2, 0, 1).float() / 255

    with torch.no_grad():
        found = exporting.Enlargement(net, scale)(image[None])[0]

    torch.testing.assert_close(found, larger(name, image, scale), atol=1e-5, rtol=0)


def test_a_difference_leaves_no_file(here, tiny_weights, monkeypatch):
    """Nobody gets a graph that computes something else."""
    monkeypatch.setattr(exporting, "to_onnx", lambda *_: b"")
    monkeypatch.setattr(exporting, "largest_difference", lambda *_: float("nan"))

    result = run("-m", tiny_weights)

    assert result.exit_code == 4
    assert "differs from srcli's by nan, more than 0.0001: nothing is written" in result.stderr
    assert list(here.iterdir()) == []
