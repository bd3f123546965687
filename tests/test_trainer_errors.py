"""What ends a run early or keeps it from starting, and what it leaves then."""

import itertools
import math
import shutil
from pathlib import Path

import pytest
import torch

from srcli.data import loading
from srcli.data.pool import open_pool, split
from srcli.errors import DeviceError, TrainingError
from srcli.model import weights
from srcli.training.trainer import Trainer, train

pytestmark = pytest.mark.usefixtures("undrawn")


# Losses and weights that are not finite


@pytest.mark.parametrize(("bad", "value"), [(1, math.inf), (5, math.nan), (8, math.nan)])
def test_a_loss_that_is_not_finite_ends_the_run(options, saved_run, monkeypatch, bad, value):
    """The step is named exactly; the last good state and the lines before it stay."""
    config = options(steps=8, eval_every=3, save_every=2)
    original, steps = Trainer._measure, itertools.count(1)

    def spoiled(trainer, batch):
        loss, values = original(trainer, batch)
        factor = value if next(steps) == bad else 1
        return loss * factor, values | {"loss": values["loss"] * factor}

    monkeypatch.setattr(Trainer, "_measure", spoiled)

    with pytest.raises(TrainingError) as caught:
        train(config)

    assert str(caught.value) == (
        f"the loss is no longer finite at step {bad}: resume from the last checkpoint or "
        "train again with a lower --set lr than 0.001"
    )
    saved = saved_run(config.output)
    last = (bad - 1) // 2 * 2
    assert saved.steps == [step for step in (last - 2, last) if step > 0]
    assert [int(row["step"]) for row in saved.log] == [step for step in (1, 3, 6) if step < bad]
    if saved.steps:
        assert all(tensor.isfinite().all() for tensor in saved.state.values())
        weights.load(config.output / "model.safetensors")


def test_weights_that_are_not_finite_are_not_saved(options, saved_run, monkeypatch):
    """Weights that a last step spoiled are found before they replace good ones."""
    config = options(steps=3, save_every=2)
    original = Trainer.train_step

    def spoiling(trainer, batch, lr):
        original(trainer, batch, lr)
        if trainer.step == 3:
            with torch.no_grad():
                next(trainer.net.parameters()).mul_(math.nan)

    monkeypatch.setattr(Trainer, "train_step", spoiling)

    with pytest.raises(TrainingError, match=r"^the weights are no longer finite at step 3: resume"):
        train(config)

    assert saved_run(config.output).steps == [2]
    weights.load(config.output / "model.safetensors")


# Memory, disk and images


@pytest.mark.parametrize(
    ("place", "error"),
    [
        ("_measure", torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nMore")),
        ("restore", RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you")),
    ],
    ids=["step, gpu", "evaluation, cpu"],
)
def test_too_little_memory_is_reported(options, monkeypatch, place, error):
    """Whatever runs out of memory, in a step or an evaluation, says what to make smaller."""

    def fail(*_):
        raise error

    monkeypatch.setattr(Trainer, place, fail)
    text = "^cpu is out of memory: use a smaller --batch-size than 7$"
    with pytest.raises(DeviceError, match=text):
        train(options(batch_size=7, steps=1))
    error = RuntimeError("shapes cannot be multiplied")  # a bug comes through as it is
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        train(options("bug", steps=1))


@pytest.mark.parametrize("resident", [True, False], ids=["kept", "decoded"])
def test_unreadable_images_are_counted_and_named(options, crowd, tmp_path, monkeypatch, resident):
    """A damaged image in a hundred costs a line at the end, and the run continues without it."""
    crowd = shutil.copytree(crowd, tmp_path / "crowd")
    if not resident:
        monkeypatch.setattr(loading, "_RESIDENT_BYTES", 0)
    config = options(datasets=(str(crowd),), sampling="epoch", steps=7, batch_size=16)
    pool = open_pool(config.datasets, config.data_dir, config.seed)
    broken = Path(split(pool, config.seed, config.split).train.label(40))
    broken.write_bytes(broken.read_bytes()[:-1000])
    notices = []

    report = train(config, on_message=notices.append)

    assert (report.step, report.skipped, report.finished) == (7, 1, True)
    listed = (config.output / "skipped.txt").read_text(encoding="utf-8")
    assert listed.startswith(f"{broken}: ")
    (notice,) = notices
    assert notice == (
        f"1 images could not be read and were left out, as {config.output / 'skipped.txt'} lists; "
        f"the first: {listed.strip()}"
    )
