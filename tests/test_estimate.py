"""A dry run: what it counts and measures, and that it changes nothing."""

import math

import pytest

from srcli.model.network import multiply_adds, parameter_count
from srcli.ops.degradation import Degradation
from srcli.training import estimate
from srcli.training.estimate import dry_run


@pytest.fixture(autouse=True)
def _brief(monkeypatch):
    """Measure by as few steps as a dry run can do with."""
    monkeypatch.setattr(estimate, "_BURST_SECONDS", 0.0)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {},
            {"train_images": 108, "held_images": 2, "evaluation_images": 2, "test_images": 0}
            | {"batch": 4, "steps_per_epoch": 27, "steps": 4, "patches": 16, "evaluations": 1},
        ),
        (
            {"split": "paper", "sampling": "epoch", "steps": None, "epochs": 10, "eval_every": None}
            | {"eval_images": None, "batch_size": 8},
            {"train_images": 32, "held_images": 77, "evaluation_images": 77, "test_images": 1}
            | {"batch": 8, "steps_per_epoch": 4, "steps": 40, "patches": 320, "evaluations": 10},
        ),
        (
            {"eval_images": 1, "eval_every": 3, "steps": 10},
            {"evaluation_images": 1, "held_images": 2, "evaluations": 4},
        ),
        ({"steps": None, "max_seconds": 600}, {"steps": None, "patches": None, "seconds": 600}),
        ({"steps": 10**9, "max_seconds": 60}, {"seconds": 60}),
        ({"limit": 1}, {"train_images": 1, "held_images": 0, "evaluations": 0}),
    ],
    ids=["base", "paper", "evaluations", "time", "steps and time", "one image"],
)
def test_a_dry_run_counts(options, crowd, changes, expected):
    """Images of each part, steps, patches and evaluations are those of the run."""
    plan = dry_run(options(datasets=(str(crowd),), **changes))

    assert {name: getattr(plan, name) for name in expected} == expected


def test_a_dry_run_measures_and_writes_nothing(options, tmp_path, tiny_config):
    """Speed and time are positive and fit together; the net is counted, and the memory."""
    plan = dry_run(options(steps=1000, degradation=Degradation.parse("jpeg=50..90")))

    assert (plan.device, plan.dtype, plan.processes, plan.resident) == ("cpu", "float32", 1, True)
    assert plan.parameters == parameter_count(tiny_config)
    mean = sum(multiply_adds(tiny_config.at(scale)) for scale in (2, 2, 3, 3, 4)) / 5
    assert plan.gmac_per_patch == pytest.approx(mean / 1e9)
    assert 0 < plan.patches_per_second < 1e6
    assert plan.seconds >= plan.patches / plan.patches_per_second
    assert math.isfinite(plan.seconds)
    assert 50e6 < plan.memory < 100e9
    assert list(tmp_path.iterdir()) == []
