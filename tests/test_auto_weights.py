"""``-m auto`` in a batch and on the command line: each file gets the weights that suit it."""

from pathlib import Path

import command_runs
import numpy as np
import pytest
import torch
from batch_files import configured, enlarge
from PIL import Image
from torch import nn
from upscale_runs import EXACT

from srcli import files
from srcli.errors import WeightsError
from srcli.model import weights
from srcli.model.network import ResidualAutoencoder
from srcli.upscaling import batch
from srcli.upscaling.estimate import estimate
from srcli.upscaling.plan import plan

pytestmark = pytest.mark.usefixtures("desk")


@pytest.fixture(scope="module")
def small(photo):
    """A picture of 40 x 24 pixels."""
    return Image.fromarray(photo[:24, :40])


@pytest.fixture
def two_nets(tiny_config, tmp_path, monkeypatch):
    """Ship two nets, ``base`` and ``photo``, whose results differ: their files by name."""
    shipped = {}
    for name, seed in (("base", 3), ("photo", 4)):
        torch.manual_seed(seed)
        net = ResidualAutoencoder(tiny_config)
        nn.init.normal_(net.head.weight, std=0.02)
        shipped[name] = tmp_path / "weights" / f"{name}.safetensors"
        shipped[name].parent.mkdir(exist_ok=True)
        weights.save(shipped[name], net.state_dict(), tiny_config, {"scales": [2, 3, 4]})
    monkeypatch.setattr(files, "shipped", lambda: shipped)
    return shipped


@pytest.fixture
def desk(tmp_path, monkeypatch, small):
    """A working directory with a degraded photo, a clean one and a broken one."""
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    small.save("in/a.png")
    small.save("in/b.jpg", quality=50)
    small.save("in/c.jpg", quality=98)
    Path("in/d.jpg").write_bytes(b"broken")
    return tmp_path


def pixels(path):
    """Decode a result."""
    with Image.open(path) as image:
        return np.array(image)


@pytest.mark.usefixtures("two_nets")
def test_a_batch_chooses_for_each_file():
    """Each result is that of the chosen weights, named with the reason, also in a dry run."""
    config, loaded = configured("in", output=Path("out")), []
    jobs = plan(config)

    results = list(batch.run(config, jobs, on_ready=lambda name, _: loaded.append(name)))
    estimated = list(estimate(config, jobs))

    found = [(one.model, one.model_reason) for one in results]
    assert found == [
        ("base", "PNG: base"),
        ("photo", "JPEG of quality 50: photo"),
        ("base", "JPEG of quality 98: base"),
        (None, None),
    ]
    assert loaded == ["base", "photo"], "each once"
    assert [(one.model, one.model_reason) for one in estimated] == found
    assert [one.status for one in estimated] == ["planned"] * 3 + ["failed"]
    assert not [one for one in estimated[:3] if one.patches < 1 or one.memory < 1]
    for name, source in (("base", "a.png"), ("photo", "b.jpg")):
        (given,) = enlarge(f"in/{source}", output=Path(name), model=name)
        assert (given.model, given.model_reason) == (name, None)
        assert np.array_equal(pixels(f"out/{source}"), pixels(f"{name}/{source}"))
    enlarge("in/b.jpg", output=Path("base"), model="base")
    assert not np.array_equal(pixels("out/b.jpg"), pixels("base/b.jpg"))


def test_weights_with_a_damaged_header_end_it_before_the_first_file(two_nets):
    """Whichever it is, and whatever the files need: nothing is begun."""
    two_nets["photo"].write_bytes(b"no weights")
    config = configured("in", output=Path("out"))

    with pytest.raises(WeightsError, match=r"photo\.safetensors"):
        next(batch.run(config, plan(config)))
    with pytest.raises(WeightsError, match=r"photo\.safetensors"):
        next(estimate(config, plan(config)))

    assert not Path("out").exists()


def test_damage_behind_a_header_costs_the_files_that_need_it(two_nets):
    """They fail with the exit code of missing weights; the others are done."""
    data = bytearray(two_nets["photo"].read_bytes())
    data[-400:] = b"\xff" * 400
    two_nets["photo"].write_bytes(data)

    results = enlarge("in/a.png", "in/b.jpg", "in/c.jpg", output=Path("out"))

    assert [one.status for one in results] == ["done", "failed", "done"]
    assert (results[1].exit_code, results[1].model) == (WeightsError.exit_code, "photo")
    assert results[1].message.startswith("in/b.jpg: ")
    assert "holds NaN or infinity; use another file" in results[1].message


@pytest.mark.usefixtures("two_nets")
def test_the_default_is_auto_and_says_why():
    """``-v`` names the weights of each file and the reason, and what was loaded when it was."""
    result = command_runs.run("upscale", "in", "-o", "out", "-v", *EXACT[2:])

    assert result.exit_code == 1
    ready = [line for line in result.stderr.splitlines() if " on cpu in " in line]
    assert ready == ["base on cpu in float32", "photo on cpu in float32"]
    assert "out/b.jpg  120x72  from in/b.jpg 40x24 in " in result.stderr
    assert result.stderr.count("(PNG: base)\n") == 1
    assert result.stderr.count("(JPEG of quality 50: photo)\n") == 1
    quiet = command_runs.run("upscale", "in", "-o", "quiet", *EXACT[2:])
    assert "quality" not in quiet.stderr
    estimated = command_runs.run("upscale", "in/b.jpg", "-n", *EXACT[2:])
    assert estimated.stderr.splitlines()[0].endswith(" s  (JPEG of quality 50: photo)")
