"""int8: what is rounded, how weights are calibrated, and what their ranges become."""

import os
import platform
import subprocess
import sys

import pytest
import torch
from PIL import Image
from run_files import needs_openvino
from upscaler_nets import correcting

from srcli.errors import UsageError, WeightsError
from srcli.model import weights
from srcli.model.int8 import aligned, convolutions, weight_steps
from srcli.model.runner import NetRunner
from srcli.model.sharpness import load_mixed
from srcli.ops.engines import Compute
from srcli.training import calibrate as calibration
from srcli.training.calibrate import calibrate
from srcli.training.images import GIVEN
from srcli.upscaler import Settings, Upscaler


@pytest.mark.parametrize("limits", [(0, 1), (-0.3, 2.9), (-5, 0.01)])
def test_zero_is_a_step_of_an_aligned_range(limits):
    """Padding stays zero, and the range hardly moves."""
    low, high = aligned(limits)
    step = (high - low) / 255

    assert low / step == pytest.approx(round(low / step), abs=1e-9)
    assert abs(low - limits[0]) <= step / 2 + 1e-12
    assert step == pytest.approx((limits[1] - limits[0]) / 255)


@pytest.mark.parametrize("channels", [2, 5, 64])
def test_neighbouring_weights_cannot_exceed_sixteen_bits(channels):
    """255 times the sum of two of one sign is what AVX2 holds, however alike they are."""
    weight = torch.randn(7, channels, 3, 3)
    weight[0] = weight[0].abs().clamp_min(1)
    weight[1, :, 0, 0] = -3

    levels = torch.round(weight / weight_steps(weight, wide=False))

    assert levels.abs().max() <= 127
    assert (weight_steps(weight, wide=True) <= weight_steps(weight, wide=False)).all()
    pairs = torch.cat([levels, torch.zeros(7, channels % 2, 3, 3)], 1).unflatten(1, (-1, 2))
    for sign in (1, -1):
        assert (255 * (sign * pairs).clamp_min(0).sum(2)).max() <= 32767


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory, tiny_config):
    """A file of a tiny net and a folder of pictures that it was calibrated on."""
    folder = tmp_path_factory.mktemp("int8")
    net = correcting(tiny_config, std=0.05)
    path = folder / "own.safetensors"
    weights.save(path, net.state_dict(), net.config, {"scales": [2, 3, 4]})
    pictures = folder / "pictures"
    pictures.mkdir()
    for number in range(2):
        noise = torch.randint(0, 256, (12, 12, 3), dtype=torch.uint8).numpy()
        Image.fromarray(noise).resize((130, 130)).save(pictures / f"{number}.png")
    return path, pictures


def test_calibrating_a_file_adds_its_ranges_alone(calibrated, monkeypatch, capsys):
    """The command writes a header; tensors and all else stay as they are; twice changes nothing."""
    path, pictures = calibrated
    before = weights.read_tensors(path)
    monkeypatch.setattr("sys.argv", ["calibrate", str(path), str(pictures)])

    calibration.main()

    metadata, tensors = weights.read_tensors(path)
    header = weights.read_header(path)
    assert {name: text for name, text in metadata.items() if name != "ranges"} == before[0]
    assert all(torch.equal(tensor, before[1][name]) for name, tensor in tensors.items())
    net, _ = weights.load(path)
    known = {name for way in (None, *net.config.paths) for name, _ in convolutions(net, way)}
    assert set(header.ranges) <= known
    assert all(name.startswith(("other.", "x2.")) for name in header.ranges)
    assert capsys.readouterr().err.count("convolutions, ") == 2
    content = path.read_bytes()
    calibration.main()
    assert path.read_bytes() == content


def test_weights_of_pairs_are_calibrated_on_pairs(calibrated, tmp_path):
    """Their LR is what the net is given, and their header has no degradation."""
    path = tmp_path / "own.safetensors"
    _, tensors = weights.read_tensors(calibrated[0])
    net, _ = weights.load(calibrated[0])
    weights.save(path, tensors, net.config, {"scales": [3], "degradation": GIVEN})
    for folder, side in (("HR", 120), ("LRx3", 40)):
        (tmp_path / folder).mkdir()
        Image.new("RGB", (side, side), "white").save(tmp_path / folder / "a.png")

    ranges = calibrate(path, [str(tmp_path)])

    assert ranges
    assert ranges != calibrate(path, [str(calibrated[1])])


def test_a_net_that_int8_is_not_for_is_one_line(monkeypatch, capsys):
    """The paper's has no residual units; the exit code is that of the error."""
    monkeypatch.setattr("sys.argv", ["calibrate", "paper", "nowhere"])

    with pytest.raises(SystemExit) as ended:
        calibration.main()

    assert ended.value.code == WeightsError.exit_code
    assert "paper.safetensors has no residual units" in capsys.readouterr().err


def test_what_changes_most_is_computed_more_exactly(calibrated, monkeypatch):
    """All of it in fp32 for limits that nothing holds; the less in two passes, the wider one is."""
    counts = []
    monkeypatch.setattr(calibration, "_SHARE_OF_DRAWN", 1)
    for levels, noise in ((-1, 100), (100, 0), (0.7, 100), (100, 100)):
        monkeypatch.setattr(calibration, "_LEVELS", levels)
        monkeypatch.setattr(calibration, "_NOISE", noise)
        ranges = calibrate(calibrated[0], [str(calibrated[1])])
        passes = [count for *_, count, _ in ranges.values()]
        assert 2 not in [count for *_, count in ranges.values()]
        counts.append(tuple(passes.count(number) for number in (0, 2, 1)))

    assert counts[0] == counts[1] == (12, 0, 0)
    assert counts[2][0] == 0 < counts[2][1]
    assert 0 < counts[2][2] < counts[3][2] == 12


def test_what_is_black_and_white_counts_by_itself(calibrated, monkeypatch):
    """A page changes more than photographs do, which do not make up for it."""
    for name, value in (("_SHARE", 1), ("_NOISE", 100), ("_LEVELS", 0.5)):
        monkeypatch.setattr(calibration, name, value)
    passes = {}
    for share in (0, 1):
        monkeypatch.setattr(calibration, "_SHARE_OF_DRAWN", share)
        ranges = calibrate(calibrated[0], [str(calibrated[1])])
        passes[share] = [count for *_, count in ranges.values()]

    assert {*passes[1]} == {1}
    assert 0 in passes[0]


@needs_openvino
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("scale", [2, 3])
def test_openvino_computes_in_int8_what_calibration_expects(calibrated, scale, count):
    """Rounded in fp32 or computed in int8: no sum overflows, on AVX2 either."""
    from srcli.model.graph import has_wide_sums

    net, _ = weights.load(calibrated[0])
    path = net.config.path(scale)
    images = torch.rand(2, 3, 96, 120)
    found, (exact,) = calibration._measured(net, path, [images])
    ranges = {name: [*limits, count, count] for name, limits in found.items()}
    counts = dict.fromkeys(ranges, count)
    compute = Compute("openvino", torch.device("cpu"), torch.int8, "CPU")
    runner = NetRunner(net, compute, ranges, ensemble=False, notice=print)

    with torch.inference_mode():
        other = calibration._rounded(net, path, ranges, counts, wide=has_wide_sums())
        expected = other.restore(images, path)
    result = runner.run(images, scale)

    # A value halfway between two steps may go either way.
    assert 20 * (result - expected).abs().mean() < (exact - expected).abs().mean()
    assert 255 * (result - expected).abs().max() < 1


@needs_openvino
@pytest.mark.skipif(
    platform.machine().lower() not in {"x86_64", "amd64"}, reason="is about x86 processors"
)
def test_a_processor_without_vnni_is_found_out():
    """Here one that is told to do without."""
    code = "from srcli.model.graph import has_wide_sums; print(has_wide_sums())"
    environment = os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2"}

    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(("sharpness", "wide"), [(0.5, [2, 2, 0, 1]), (0.75, [2, 2, 2, 1])])
def test_a_mixture_has_ranges_that_hold_both(monkeypatch, calibrated, tmp_path, sharpness, wide):
    """The wider of both; in one pass is what both have so."""
    sharp = tmp_path / "sharp.safetensors"
    for path, ranges in (
        (
            calibrated[0],
            {"a": [-1, 1, 1, 1], "b": [-3, 1, 2, 0], "c": [0, 1, 0, 1], "d": [0, 1, 1, 1]},
        ),
        (sharp, {"a": [0, 2, 2, 0], "b": [-2, 2, 1, 1], "c": [0, 1, 1, 1], "d": [0, 1, 1, 0]}),
    ):
        if path == sharp:
            sharp.write_bytes(calibrated[0].read_bytes())
        weights.record(path, "ranges", ranges)
    monkeypatch.setattr("srcli.model.sharpness.siblings", lambda _path: (calibrated[0], sharp))

    found = load_mixed(sharp, sharpness)[1].ranges

    limits = ([-1, 2], [-3, 2], [0, 1], [0, 1])
    narrow = 0, 0, 1, 0
    counts = zip(wide, narrow, strict=True)
    assert [*found.values()] == [[*one, *two] for one, two in zip(limits, counts, strict=True)]


@needs_openvino
def test_weights_without_ranges_say_how_to_make_them(tiny_weights):
    """In one line."""
    with pytest.raises(
        UsageError, match=r"with python -m srcli\.training\.calibrate FILE PICTURES"
    ):
        Upscaler(tiny_weights, settings=Settings(dtype="int8"))
