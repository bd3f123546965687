"""Weights on disk: what is written, what comes back, and every way to be refused."""

import json
import re
import struct

import pytest
import torch
from safetensors.torch import save_file

from srcli.errors import WeightsError
from srcli.files import shipped
from srcli.model.config import PAPER
from srcli.model.network import ResidualAutoencoder
from srcli.model.weights import (
    Weights,
    load,
    read_header,
    read_tensors,
    record,
    resolve,
    save,
)
from srcli.ops.spans import PATCH

LINE = {
    "dataset": "Set5",
    "scale": 3.0,
    "lr": "LRx3",
    "channel": "y",
    "psnr": 33.8,
    "ssim": 0.9227,
    "images": 5,
}
"""A score as the header of a weights file has it."""


def altered(path, target, tensors=None, **metadata):
    """Copy a weights file with some of its tensors or header replaced; None takes one away."""
    header, found = read_tensors(path)
    changed = {k: v for k, v in (header | metadata).items() if v is not None}
    found = {k: v for k, v in (found | (tensors or {})).items() if v is not None}
    save_file(found, target, changed)
    return target


def refused(path, read=load):
    """Read a file that must be refused; return the one line that says why."""
    with pytest.raises(WeightsError) as caught:
        read(path)
    text = str(caught.value)
    assert "\n" not in text
    assert str(path) in text
    assert caught.value.exit_code == 4
    return text


def test_a_file_gives_back_the_net(tiny_config, tmp_path):
    """The net rebuilt from a file alone has the same tensors and computes the same."""
    net = ResidualAutoencoder(tiny_config)
    torch.nn.init.normal_(net.head.weight)
    path = tmp_path / "net.safetensors"
    save(path, net.state_dict(), tiny_config, {"scales": [4, 2, 4.0], "seed": 3})

    again, header = load(path)

    image = torch.rand(1, 3, 12, 24)
    assert not again.training
    assert torch.equal(again(image), net(image))
    assert header == Weights(config=tiny_config, training={"scales": [4, 2, 4.0], "seed": 3})
    assert header.scales == (2.0, 4.0)
    assert read_tensors(path)[0] == {
        "format": "srcli/1",
        "config": tiny_config.to_json(),
        "training": '{"scales": [4, 2, 4.0], "seed": 3}',
    }


def test_other_number_formats_are_loaded_as_float32(tiny_weights, tmp_path):
    """Whatever a file holds, and whatever the default of the program is."""
    _, tensors = read_tensors(tiny_weights)
    narrow = {name: tensor.bfloat16() for name, tensor in tensors.items()}
    path = altered(tiny_weights, tmp_path / "narrow.safetensors", narrow)
    torch.set_default_dtype(torch.float64)
    try:
        net, _ = load(path)
    finally:
        torch.set_default_dtype(torch.float32)

    for name, parameter in net.named_parameters():
        assert parameter.dtype == torch.float32
        assert torch.equal(parameter, narrow[name].float())


def test_the_header_is_read_without_the_tensors(tiny_weights, tiny_config, tmp_path):
    """Even where a tensor is damaged; how the weights were made may be unknown."""
    bad = {"head.bias": torch.full((27,), torch.nan)}
    path = altered(tiny_weights, tmp_path / "bad.safetensors", bad)
    unknown = altered(tiny_weights, tmp_path / "plain.safetensors", training=None)

    assert read_header(path) == Weights(config=tiny_config, training={"scales": [2, 3, 4]})
    assert load(unknown)[1] == Weights(config=tiny_config, training={})
    assert read_header(unknown).scales == (2, 3, 4)


@pytest.mark.parametrize("read", [load, read_header])
def test_what_is_no_weights_file_is_refused(tmp_path, tiny_weights, read):
    """Nothing, a folder, garbage of all kinds, a file cut off: refused, never read in part."""
    whole = tiny_weights.read_bytes()
    for path in (tmp_path / "nowhere.safetensors", tmp_path):
        assert refused(path, read).startswith(f"cannot read weights {path}: ")
    for content in [
        b"",
        b"PK\x03\x04" + bytes(200),
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        *(whole[: int(len(whole) * share)] for share in (0.001, 0.5, 0.999)),
    ]:
        path = tmp_path / "garbage.safetensors"
        path.write_bytes(content)

        text = refused(path, read)

        assert text.startswith(f"cannot read weights {path}: ")
        assert text.endswith("; it must be a .safetensors file made by srcli train")


@pytest.mark.parametrize(
    "header",
    [
        {"config": None},
        *({"config": text} for text in ("{", "[]", "[" * 100_000)),
        {"config": PAPER.to_json().replace("64", "0")},
        {"config": json.dumps(json.loads(PAPER.to_json()) | {"gated": True})},
        {"training": "{"},
        {"training": "[]"},
        *({"training": f'{{"scales": {scales}}}'} for scales in ("3", '["three"]', "[NaN]", "[1]")),
        *({"scores": scores} for scores in ("5", "[{}]", "[" * 100_000, '[{"a\n": 1}]')),
        *({"scores": f"[{json.dumps(LINE | odd)}]"} for odd in ({"lr": 1}, {"psnr": "x"})),
        *({"ranges": f'{{"x2.a": {limits}}}'} for limits in ("[1, 2, 0, 0]", "[0, 0, 0, 0]")),
        *({"ranges": f'{{"x2.a": {limits}}}'} for limits in ("[-1, 1, 1]", "[0, NaN, 1, 1]")),
    ],
    ids=range(22),
)
def test_a_damaged_header_is_reported(tiny_weights, tmp_path, header):
    """A configuration, a record or scores that cannot be: refused; new scores mend the last."""
    path = altered(tiny_weights, tmp_path / "damaged.safetensors", **header)

    text = refused(path, read_header)

    assert text.startswith(f"{path} has an unusable header: ")
    assert text.endswith("; use another file")
    if "scores" in header:
        record(path, "scores", [LINE])
        assert read_header(path).scores == (LINE,)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head.bias": None}, r' does not fit its header: Missing .* "head\.bias"'),
        ({"tail.bias": torch.zeros(2)}, r' does not fit its header: Unexpected .* "tail\.bias"'),
        ({"head.bias": torch.zeros(3, 9)}, " does not fit its header: size mismatch for head.bias"),
        (
            {"head.bias": torch.zeros(27, dtype=torch.int64)},
            ' does not fit its header: .*"head.bias"',
        ),
        *(
            (
                {"head.bias": torch.full((27,), value, dtype=dtype)},
                ": tensor head.bias holds NaN or",
            )
            for value, dtype in ((-torch.inf, torch.bfloat16), (1e300, torch.float64))
        ),
    ],
    ids=range(6),
)
def test_tensors_that_do_not_fit_the_header_are_named(tiny_weights, tmp_path, changes, message):
    """The message names the tensor, and what is wrong with it."""
    path = altered(tiny_weights, tmp_path / "odd.safetensors", changes)

    assert re.fullmatch(f"{re.escape(str(path))}{message}.*; use another file", refused(path))


@pytest.mark.parametrize(("name", "shown"), [("x" * 300, "x" * 300), ("a\nb", r"a\nb")])
def test_a_name_that_cannot_be_one_is_like_any_other(name, shown):
    """Too long for the file system, or of several lines: one line."""
    with pytest.raises(WeightsError, match=f"^no weights called {re.escape(shown)}: give a"):
        resolve(name)


@pytest.mark.parametrize("path", shipped().values(), ids=shipped().keys())
def test_the_shipped_weights_load(path):
    """Every shipped file is whole, fits a patch, and says how it was made."""
    net, header = load(path)

    assert PATCH % net.config.stride == 0
    assert {"data", "scales", "steps", "seed", "loss"} <= header.training.keys()
    assert list(header.scales) == sorted(header.scales)


def test_scores_are_recorded_beside_the_same_tensors(tiny_weights, tmp_path, same):
    """All else stays to the bit; the same are not written again; none takes them out again."""
    narrow = {"head.bias": torch.rand(27, dtype=torch.bfloat16)}
    path = altered(tiny_weights, tmp_path / "net.safetensors", narrow, note="kept")
    header, tensors = read_tensors(path)
    lines = [LINE, LINE | {"scale": 2.0, "lr": "bicubic", "channel": "rgb"}]

    record(path, "scores", lines)
    written = path.stat().st_ino
    record(path, "scores", lines)

    assert path.stat().st_ino == written
    assert read_header(path).scores == load(path)[1].scores == tuple(lines)
    found, kept = read_tensors(path)
    assert same(kept, tensors)
    assert json.loads(found.pop("scores"))[0] == LINE
    assert found == header
    record(path, "scores", [LINE | {"psnr": 20.0}])
    assert read_header(path).scores == (LINE | {"psnr": 20.0},)
    record(path, "scores", [])
    assert read_tensors(path)[0] == header
