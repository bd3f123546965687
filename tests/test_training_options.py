"""The options of a run: what is refused, and how they are kept."""

import dataclasses
import json
import math
from pathlib import Path

import pytest

from srcli.errors import UsageError
from srcli.model.config import PAPER
from srcli.ops.degradation import Degradation
from srcli.training.config import TrainConfig

LEAST = {"output": Path("run"), "datasets": ("photos",), "steps": 1}
"""The fewest options that make a run."""


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"datasets": ()}, "train needs at least one --dataset: give celeba, stl10 or a folder"),
        ({"save_every": -5}, "--save-every must be at least 1, not -5"),
        ({"clip": math.nan}, "--clip must be at least 0, not nan"),
        ({"seed": 2**63}, "--seed must lie in 0..2**63-1, not 9223372036854775808"),
        ({"lr": 0.0}, "--lr must lie between 0 and 1e9, not 0.0"),
        ({"epochs": 1e308, "steps": None}, "--epochs must lie between 0 and 1e9, not 1e+308"),
        ({"ema": 1.0}, "ema must lie in [0, 1), not 1.0"),
        ({"symmetric_share": 2.0}, "symmetric_share must lie in [0, 1], not 2.0"),
        ({"perceptual": 0.2}, "features, perceptual and spectrum need a discriminator beside them"),
        ({"scales": ()}, "train needs at least one --scale"),
        ({"scales": (3.0, 1.0)}, "--scale must lie in 1.01..8 for training, not 1"),
    ],
    ids=str,
)
def test_options_out_of_range_are_refused(changes, message):
    """Every option that no type can check is refused by its name, with its value."""
    with pytest.raises(UsageError) as caught:
        TrainConfig(**(LEAST | changes))

    assert str(caught.value).startswith(message)


OTHERWISE = {
    "output": Path('/data/of "two"\n中📷'),
    "datasets": ("celeba:train", "photos/é"),
    "valid": Path("more"),
    "model": PAPER,
    "scales": (2.0, 1 / 3 + 1),
    "balanced": False,
    "degradation": Degradation.parse("kernel=any,blur=0.1..2,noise=1e-3,jpeg=30..95,clean=0.3"),
    "optimizer": "adam",
    "lr": 1e-12,
    "steps": None,
    "epochs": 2 / 3,
    "seed": 2**63 - 1,
    "eval_images": None,
}
"""A value of every kind that an option may have."""


@pytest.mark.parametrize("changes", [{}, OTHERWISE], ids=["least", "otherwise"])
def test_options_survive_json(tmp_path, monkeypatch, changes):
    """Every option is in the file, readable, to the last bit; the data folder as absolute one."""
    monkeypatch.chdir(tmp_path)
    config = TrainConfig(**(LEAST | {"data_dir": Path("sets")} | changes))

    text = config.to_json()

    assert json.loads(text).keys() == {field.name for field in dataclasses.fields(TrainConfig)}
    assert text.startswith("{\n  ")
    kept = TrainConfig.from_json(text)
    assert kept == dataclasses.replace(config, data_dir=tmp_path / "sets")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("datasets", "photos"),
        ("model", "base"),
        ("scales", ["3"]),
        ("degradation", "rain=1..2"),
        ("batch_size", True),
        ("lr", "fast"),
        ("steps", "all"),
        ("init_from", 7),
        ("momentum", 2),
    ],
)
def test_options_of_another_kind_are_one_line(name, value):
    """An option in the file that is no such thing is refused in one line, not met later."""
    values = json.loads(TrainConfig(**LEAST).to_json()) | {name: value}

    for text in (json.dumps(values), "7"):
        with pytest.raises(UsageError) as caught:
            TrainConfig.from_json(text)

        assert "\n" not in str(caught.value)


def test_a_run_is_resumed_from_before_it_had_some_options():
    """The options of an earlier version lack its fields."""
    values = json.loads(TrainConfig(**LEAST).to_json())
    newer = "adversarial features patience perceptual spectrum symmetric_share tensorboard valid"
    for name in newer.split():
        del values[name]

    assert TrainConfig.from_json(json.dumps(values)) == TrainConfig.from_json(
        TrainConfig(**LEAST).to_json()
    )
