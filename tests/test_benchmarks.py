"""The benchmarks of speed: what they count is right, and the one command makes its page."""

import importlib
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner

from srcli import files
from srcli.cli.app import app
from srcli.model.config import BASE
from srcli.model.network import ResidualAutoencoder, multiply_adds
from srcli.ops.spans import PATCH
from srcli.upscaler import Settings, Upscaler

ROOT = Path(__file__).parents[1]


def tool(name):
    """Import one of the scripts as they import each other."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))


child, peers, performance = map(tool, ("child", "peers", "performance"))

# ---- peers --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "gmac"),
    [
        ("IMDN", 71.5),
        ("EDSR-baseline", 160.4),
        ("CARN-M", 46.2),
        ("VDSR", 613.1),
        ("SMFANet+", 45.7),
    ],
)
def test_a_peer_has_the_published_parameters_and_work(name, gmac):
    """The shape is the published one: parameters to the unit, multiply-adds at 720p, x3."""
    with torch.device("meta"):
        net = peers.build(name)
        image = torch.empty(1, 3, 240, 427)
    with FlopCounterMode(display=False) as counter:
        result = net(image)

    assert result.shape == (1, 3, 720, 1281)
    assert peers.parameter_count(net) == peers.PEERS[name].parameters
    assert counter.get_total_flops() / 2e9 == pytest.approx(gmac, abs=0.05)


@pytest.mark.parametrize("layout", list(performance.LAYOUTS))
@pytest.mark.parametrize("name", list(peers.PEERS))
def test_a_peer_gives_a_picture_of_three_times_the_size(name, layout):
    """From array to array: levels go in, levels come out, the same in either layout."""
    torch.manual_seed(0)
    net = peers.build(name)
    pixels = np.random.default_rng(0).integers(0, 256, (16, 24, 3), np.uint8)

    made = performance.peer_way(net, pixels, "fp32", "cpu", layout)()

    with torch.inference_mode():
        image = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255
        expected = net(image)[0].clamp(0, 1).mul(255).permute(1, 2, 0).numpy()
    assert made.shape == (48, 72, 3)
    assert made.dtype == np.uint8
    assert np.abs(made - expected).max() < 0.51


# ---- counting -----------------------------------------------------------------------------


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
    assert row["megapixels_per_second"] == pytest.approx(8 * PATCH**2 / 1e6)
    assert row["share"] == pytest.approx(0.5)
    assert row["gflops"] == pytest.approx(row["peak_gflops"] / 2)


@pytest.mark.parametrize("name", ["fp32", "bf16"])
def test_every_library_multiplies_the_same_matrices(name):
    """The product is that of the one with the other's transpose, oneDNN's too."""
    if not performance.has_onednn(name):
        pytest.skip(f"oneDNN does not multiply in {name} on this processor")
    dtype = performance.DTYPES[name]
    left, right = torch.rand(16, 24).to(dtype), torch.rand(32, 24).to(dtype)

    plain = performance.multiplying(left, right)()
    other = performance.multiplying(left.to_mkldnn(), right.to_mkldnn())().to_dense()

    for made in (plain, other):
        torch.testing.assert_close(made, (left.float() @ right.float().T).to(dtype))


@pytest.mark.parametrize(("tile", "side"), [(None, 240), (PATCH, PATCH)])
def test_the_first_pass_is_the_upscalers_own(tile, side):
    """The windows are as large as the upscaler makes them, and nothing stays in its net."""
    plain = ResidualAutoencoder.forward
    upscaler = Upscaler("base", settings=Settings(device="cpu", dtype="fp32", tile=tile))

    net, image = performance.first_pass(upscaler, (240, 240))

    assert image.shape == (1, 3, side + 2 * BASE.usual_margin, side + 2 * BASE.usual_margin)
    assert net.config == upscaler.config
    assert ResidualAutoencoder.forward is plain


# ---- timing -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "calls"),
    [({}, "abababab"), ({"longest": 0.1}, "ab"), ({"shortest": 0.5}, "ab" + "aabb" * 3)],
    ids=["by turns", "long: once", "short: repeated"],
)
def test_ways_are_timed_by_turns(monkeypatch, options, calls):
    """Each is run once before anything counts, then all of them round by round."""
    clock, made = [0.0], []
    monkeypatch.setattr(performance.time, "perf_counter", lambda: clock[0])

    def way(name):
        made.append(name)
        clock[0] += 0.25

    times = performance.interleaved(
        {name: lambda name=name: way(name) for name in "ab"}, 3, **options
    )

    assert "".join(made) == calls
    assert times == {"a": 0.25, "b": 0.25}


def test_the_clock_of_the_net_sees_every_pass(tiny_config):
    """The net computes what it did, and time that several passes share counts once."""
    net, image = ResidualAutoencoder(tiny_config).eval(), torch.rand(1, 3, PATCH, PATCH)
    plain = net(image)
    clock = child.NetClock()

    with child.watched(clock.around):
        watched = net(image)
        net(image)
    net(image)

    totals = clock.totals()
    assert torch.equal(watched, plain)
    assert totals["passes"] == 2
    assert totals["net"] > 0
    assert totals["device_memory"] is None
    assert child.covered([(8, 9), (0, 4), (2, 6), (1, 3), (6, 6)]) == 7


def test_the_clock_of_the_files_runs_from_the_first_opening_to_the_last_naming(tmp_path):
    """Other files do not start or stop it, names and bytes and handles all may come."""
    clock = child.FileClock(tmp_path / "in", tmp_path / "out")
    clock.hear("open", (str(tmp_path / "input.png"), "r", 0))
    clock.hear("open", (3, "r", 0))
    clock.hear("os.rename", (b"x", os.fsencode(tmp_path / "other"), -1, -1))
    assert clock.seconds is None

    clock.hear("open", (os.fsencode(tmp_path / "in" / "a.png"), "r", 0))
    assert clock.seconds is None
    clock.hear("os.rename", ("x", str(tmp_path / "out" / "a.png"), -1, -1))
    first = clock.seconds
    clock.hear("open", (str(tmp_path / "in" / "b.png"), "r", 0))
    clock.hear("os.rename", ("x", str(tmp_path / "out" / "b.png"), -1, -1))

    assert 0 < first < clock.seconds


# ---- pictures -----------------------------------------------------------------------------


def test_the_photo_has_any_size_and_is_always_the_same():
    """Height comes first; there is grain, and it is the same each time."""
    made = performance.photo((300, 40))

    assert performance.rectangle(1.5, 10) == (100, 150)
    assert made.shape == (300, 40, 3)
    assert np.array_equal(made, performance.photo((300, 40)))
    # Twice as fine an original would have no more than edges left at this size.
    smooth = np.abs(np.diff(performance.photo((2000, 40)).astype(int), axis=0))
    assert np.median(smooth) >= 1


# ---- the command --------------------------------------------------------------------------


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
    times = {row["net"]: row["times_base"] for row in parts["peers"]["rows"]}
    assert set(times) == {"base", "paper", "SMFANet+"}
    assert times["base"] == 1
    machine = parts["start"]["machine"]
    assert printed.count(performance.machine_line(machine)) == 1
    parts["start"]["machine"] = machine | {"torch": "0.1"}  # of another machine a part names it
    assert performance.page(parts).count("torch 0.1") == 1

    again = quick("--only", "start")

    assert list(again) == list(parts)
    assert {name for name, part in again.items() if part != parts[name]} == {"start"}


def test_runs_are_summed_up_by_their_medians_and_the_most_memory():
    """Memory that nobody measured stays unknown."""
    runs = [
        {"wall": wall, "inside": wall / 2, "net": 1.0, "memory": int(wall), "device_memory": None}
        for wall in (4.0, 100.0, 8.0)
    ]

    found = performance.middle(runs)

    assert (found["wall"], found["inside"], found["net"]) == (8.0, 4.0, 1.0)
    assert (found["memory"], found["device_memory"]) == (100, None)
