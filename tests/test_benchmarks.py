"""The benchmarks of speed: what they count is right, and the one command makes its page."""

import json
import sys

import pytest
import torch
from PIL import Image
from run_files import tool
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner

from srcli import files
from srcli.cli.app import app
from srcli.model.config import BASE
from srcli.model.network import ResidualAutoencoder, multiply_adds
from srcli.ops.spans import PATCH
from srcli.upscaling import nets

child, peers, performance = map(tool, ("child", "peers", "performance"))


def test_operations_are_those_of_the_convolutions():
    """Two for a multiply-add; rates are of what is kept, the share is of what is computed."""
    with torch.device("meta"):
        net, image = ResidualAutoencoder(BASE), torch.empty(2, 3, 192, 240)
    with FlopCounterMode(display=False) as counter:
        net(image)

    assert performance.operations((2, 3, 192, 240), BASE) == counter.get_total_flops()
    assert performance.operations((1, 3, PATCH, PATCH), BASE) == 2 * multiply_adds(BASE)
    shape = (1, 3, *[2 * PATCH + 2 * BASE.usual_margin] * 2)
    row = performance.network_row(shape, BASE, 0.5, 4 * performance.operations(shape, BASE))
    assert row["patches_per_second"] == pytest.approx(8)
    assert row["share"] == pytest.approx(0.5)


@pytest.fixture
def quick(monkeypatch, tmp_path, tiny_weights, tiny_config):
    """Run the command quickly, on a tiny net: one process is real, the others report the same."""
    known = []

    def upscale(source, target, device, cores=None, more=None, *, real=performance.upscale):
        if not known:
            known.append(real(source, target, device, cores, more))
        elif target.suffix:
            target.touch()
        return known[0]

    def python(arguments, cores=None, more=None, real=performance.python):
        if "--dry-run" in arguments:  # in this process: its JSON lines are what is used
            result = CliRunner().invoke(app, arguments[2:], catch_exceptions=False)
            assert result.exit_code == 0
            return result.stdout
        return real(arguments, cores, more) if str(performance.CHILD) in arguments else ""

    monkeypatch.setattr(files, "shipped", lambda: {"base": tiny_weights})
    monkeypatch.setattr(nets, "DEFAULT_SHARPNESS", None)  # it has no sibling
    monkeypatch.setattr(performance, "PAPER", tiny_config)
    monkeypatch.setattr(performance, "PEERS", {"SMFANet+": peers.PEERS["SMFANet+"]})
    monkeypatch.setattr(performance, "dtypes", lambda _: ("fp32",))
    monkeypatch.setattr(performance, "thread_counts", lambda _: (1,))
    monkeypatch.setattr(performance, "upscale", upscale)
    monkeypatch.setattr(performance, "python", python)

    def run(*options):
        command = ["performance.py", "--quick", "--device", "cpu", "--output", str(tmp_path)]
        monkeypatch.setattr(sys, "argv", [*command, *options])
        performance.main()
        return json.loads((tmp_path / "performance.json").read_text(encoding="utf-8"))

    return run


def test_the_command_makes_the_page(quick, tmp_path, capsys):
    """Every part is measured and reported, and one can be made anew without the others."""
    parts = quick()
    printed = capsys.readouterr().out

    assert list(parts) == list(performance.PARTS)
    assert (tmp_path / "performance.md").read_text(encoding="utf-8") == printed
    for one in performance.PARTS.values():
        assert f"## {one.title}\n" in printed
    with Image.open(tmp_path / "performance.png") as drawn:
        assert drawn.format == "PNG"
    for row in (*parts["end"]["rows"], *parts["scaling"]["rows"], *parts["folder"]["rows"]):
        assert 0 < row["net"] < row["inside"] < row["wall"]
        assert 1e8 < row["memory"] < 2e9
        assert row["share_of_wall"] == row["net"] / row["wall"]
    assert all(row["predicted"] > 0 for row in parts["end"]["rows"])
    assert {row["net"] for row in parts["peers"]["rows"]} == {"base", "paper", "SMFANet+"}
    machine = parts["start"]["machine"]
    assert printed.count(performance.machine_line(machine)) == 1
    parts["start"]["machine"] = machine | {"torch": "0.1"}  # of another machine a part names it
    assert performance.page(parts).count("torch 0.1") == 1

    again = quick("--only", "start")

    assert list(again) == list(parts)
    assert {name for name, part in again.items() if part != parts[name]} == {"start"}
