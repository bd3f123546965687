"""Runs that a researcher watches: patience, pictures of one's own, TensorBoard's files."""

import shutil
from dataclasses import replace

import pytest
from command_runs import run

from srcli.errors import DataError
from srcli.training.estimate import dry_run
from srcli.training.trainer import Trainer, train

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture
def falling(monkeypatch):
    """Evaluations whose PSNR is best at the second one, at step 4."""
    monkeypatch.setattr("srcli.training.trainer._LOG_EVERY", 2)
    real = Trainer.evaluate

    def evaluate(self):
        scores = real(self)
        object.__setattr__(scores, "psnr", 30.0 - abs(self.step - 4))
        return scores

    monkeypatch.setattr(Trainer, "evaluate", evaluate)


@pytest.mark.usefixtures("falling")
@pytest.mark.parametrize("stop", [3, 6])
def test_patience_ends_a_run_and_outlives_a_stop(options, saved_run, stop):
    """Evaluations at 2, 4, 6 and 8, and it says why it ends; with more patience it continues."""
    config = options(steps=20, eval_every=2, patience=2)
    steps = iter(range(1, 20))
    assert train(config, should_stop=lambda: next(steps) == stop).step == stop
    lines = []

    report = train(config, resume=True, on_message=lines.append)

    assert (report.step, report.finished, report.stopped) == (8, True, False)
    assert saved_run(config.output).log[-1]["step"] == "8"
    assert "the PSNR has not been above 30.00 dB in 2 evaluations: patience=2 ends the run" in lines
    assert train(config, resume=True).step == 8

    more = run("train", "--resume", config.output, "--set", "patience=3", "-q")
    assert (more.exit_code, saved_run(config.output).steps[-1]) == (0, 10)


def scalars(folder):
    """What TensorBoard reads: step and value of each scalar, in the order written."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    tags = events.Tags()["scalars"]
    return {tag: [(one.step, one.value) for one in events.Scalars(tag)] for tag in tags}


@pytest.mark.filterwarnings("ignore")  # tensorboard's own
@pytest.mark.parametrize(("stop", "first"), [(3, True), (5, False)])
def test_tensorboard_has_the_log_once(options, saved_run, monkeypatch, stop, first):
    """No point twice and none less, of a run that died behind its checkpoint or began without."""
    pytest.importorskip("tensorboard")
    monkeypatch.setattr("srcli.training.trainer._LOG_EVERY", 1)
    config = options(steps=6, eval_every=3, save_every=2, tensorboard=first)

    def die(progress):
        if progress.step == stop:
            raise RuntimeError

    with pytest.raises(RuntimeError):
        train(config, on_progress=die)
    train(replace(config, tensorboard=True), resume=True)

    log = saved_run(config.output).log
    found = scalars(config.output / "tensorboard")
    assert set(found) == set(log[-1]) - {"step", "patches"}
    for name, points in found.items():
        rows = [row for row in log if row[name]]
        assert [step for step, _ in points] == [int(row["step"]) for row in rows]
        assert [value for _, value in points] == pytest.approx([float(row[name]) for row in rows])


def test_own_pictures_are_evaluated_on(options, image_folder, tmp_path):
    """All of the data set is trained on, and the others scored; they belong to the run."""
    valid = tmp_path / "valid"
    valid.mkdir()
    for name in ("0.png", "1.png", "2.png"):
        shutil.copy(image_folder / name, valid)
    config = options(valid=valid, steps=1)

    plan = dry_run(config)
    train(config)

    assert [plan[f"{part}_images"] for part in ("train", "evaluation", "test")] == [6, 3, 0]
    (valid / "1.png").rename(valid / "other.png")
    with pytest.raises(DataError, match="are no longer those that"):
        train(config, resume=True)
