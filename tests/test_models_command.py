"""``srcli models``: the shipped weights, or one file with the record of its training."""

import json
import math
from functools import partial
from pathlib import Path

import command_runs
import pytest
from command_runs import cells_of, strictly
from safetensors.torch import load_file

from srcli import files
from srcli.cli.models import models
from srcli.model import weights
from srcli.ops.degradation import KERNELS

run = partial(command_runs.run, "models")

RECORD = {
    "data": ["a [red]", "b"],
    "degradation": f"blur=0..2,jpeg=30..95,kernel={'+'.join(KERNELS)}",
    "hours": 1.5,
    "init_from": None,
    "loss_at_end": math.nan,
    "note": "two\nlines",
    "patches": 402800,
    "scales": [2.0, 3.0],
    "origin": {"steps": 25175, "origin": None},
}
"""What a header may hold of a training run."""

LINE = {
    "dataset": "Set5",
    "scale": 3.0,
    "lr": "LRx3",
    "channel": "y",
    "psnr": 33.801,
    "ssim": 0.92268,
    "images": 5,
}


@pytest.fixture
def shipped(tmp_path, monkeypatch, tiny_weights, tiny_config):
    """A working directory where ``base`` is shipped without scores, and ``other`` with some."""
    monkeypatch.chdir(tmp_path)
    net, _ = weights.load(tiny_weights)
    weights.save(tmp_path / "other.safetensors", net.state_dict(), tiny_config, RECORD)
    faces = LINE | {"dataset": "faces", "channel": "rgb", "lr": "blur=1,noise=2", "psnr": 30}
    lines = [LINE, faces]
    weights.record(tmp_path / "other.safetensors", "scores", lines)
    paths = {"base": tiny_weights, "other": tmp_path / "other.safetensors"}
    monkeypatch.setattr(files, "shipped", lambda: paths)
    return tmp_path


@pytest.mark.usefixtures("shipped")
def test_json_has_an_object_for_each_weights_file(tiny_weights):
    """All is from its own header and shapes, in JSON that every program reads."""
    result = run("--json")

    assert (result.exit_code, result.stderr) == (0, "")
    base, other = strictly(result.stdout)
    assert base == {
        "name": "base",
        "purpose": "clean photographs, faithful",
        "parameters": sum(tensor.numel() for tensor in load_file(tiny_weights).values()),
        "gmac_per_patch": 0.018,
        "gmac_by_scale": {"2": 0.018, "3": 0.011, "4": 0.011},
        "scales": [2, 3, 4],
        "degradation": "",
        "path": str(tiny_weights),
        "scores": [],
        "training": {"scales": [2, 3, 4]},
    }
    assert (other["name"], other["purpose"]) == ("other", "")
    assert other["training"] == RECORD | {"loss_at_end": None}
    assert other["scores"][0] == LINE


@pytest.mark.usefixtures("shipped")
def test_tables_show_purposes_and_scores(tiny_weights):
    """A line for each file; then one with a column for each data set, empty where unknown."""
    count = sum(tensor.numel() for tensor in load_file(tiny_weights).values())

    result = run()

    assert (result.exit_code, result.stderr) == (0, "")
    rows = cells_of(result.stdout)
    assert rows == [
        ["name", "for", "parameters", "GMAC per patch", "scales", "degradation"],
        ["base", "clean photographs, faithful", f"{count:,}", "0.02 0.01", "x2 x3 x4", ""],
        [
            *("other", "", f"{count:,}", "0.02 0.01", "x2 x3"),
            "blur=0..2, jpeg=30..95, kernel=any",
        ],
        ["name", "Set5 x3 LRx3", "faces (RGB) x3 blur=1, noise=2"],
        ["base", "", ""],
        ["other", "33.80 / 0.9227", "30.00 / 0.9227"],
    ]
    assert "training" not in result.stdout


@pytest.mark.parametrize("columns", [40, 80])
def test_a_terminal_shows_every_number_whole(columns, monkeypatch, capsys):
    """Scores stand in one piece, though a narrow terminal must wrap; what each is for is known."""
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", str(columns))

    models()

    shown = capsys.readouterr().out
    rows = json.loads(run("--json").stdout)
    assert [row["name"] for row in rows if row["purpose"]] == list(files.shipped())
    for line in (line for row in rows for line in row["scores"]):
        assert f" {line['psnr']:.2f} " in shown
        assert f" {line['ssim']:.4f} " in shown
    assert max(map(len, shown.splitlines())) <= 80


@pytest.mark.parametrize("name", ["other", "./other.safetensors"])
@pytest.mark.usefixtures("shipped")
def test_one_file_shows_its_whole_record(name):
    """By name or path: the same tables for it alone, then the record of its training as JSON."""
    result = run(name)

    assert (result.exit_code, result.stderr) == (0, "")
    rows = cells_of(result.stdout)
    assert rows[1][0] == Path(name).name
    assert rows[2] == ["name", "Set5 x3 LRx3", "faces (RGB) x3 blur=1, noise=2"]
    assert rows[3][0] == Path(name).name
    record = result.stdout[result.stdout.index("\n{") :]
    assert json.dumps(json.loads(record)) == json.dumps(RECORD, sort_keys=True)


@pytest.mark.parametrize("options", [[], ["--json"], ["other"]], ids=str)
def test_a_damaged_shipped_file_does_not_hide_the_others(shipped, options):
    """It costs one line and exit code 4; the rest is listed, if there is any."""
    torn = shipped / "other.safetensors"
    torn.write_bytes(torn.read_bytes()[:700])

    result = run(*options)

    assert result.exit_code == 4
    assert result.stderr.startswith(f"error: cannot read weights {torn}: ")
    assert result.stderr.count("\n") == 1
    assert ("base" in result.stdout) == (options != ["other"])
    assert "other" not in result.stdout
