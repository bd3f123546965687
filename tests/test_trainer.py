"""The training loop on a tiny net: what it learns, writes and reports, and what ends it early."""

import itertools
import math
import shutil
from pathlib import Path

import pytest
import torch
from run_files import refusal

from srcli.data import loading
from srcli.data.pool import open_pool, split
from srcli.errors import DeviceError, TrainingError
from srcli.model import weights
from srcli.ops.degradation import Degradation
from srcli.training import run_directory, trainer
from srcli.training.distributed import ProcessGroup
from srcli.training.images import TrainingImages, input_and_target, total_steps
from srcli.training.losses import LOSS_FUNCTIONS
from srcli.training.run_directory import load_options
from srcli.training.trainer import Trainer, train

CPU = torch.device("cpu")

pytestmark = pytest.mark.usefixtures("undrawn")


def images_of(config):
    """Open the images of a run."""
    return TrainingImages(config, ProcessGroup(CPU), print)


def held_out_of(config):
    """Make input and target of the evaluation images."""
    (batch,) = images_of(config).evaluation_batches()
    return input_and_target(batch, config.degradation)


def psnr(found, target):
    """Compute PSNR by hand."""
    return -10 * math.log10(float((found.clamp(0, 1) - target).double().square().mean()))


def test_the_report_says_how_it_went(finished):
    """The report counts steps and patches and scores the held-out image beside bicubic."""
    report = finished.report

    assert (report.step, report.patches, report.finished) == (60, 240, True)
    assert (0 < report.seconds < 60, report.skipped) == (True, 0)
    assert report.scores.psnr > report.scores.baseline_psnr + 0.5
    assert report.loss == pytest.approx(float(finished.saved.log[-1]["loss"]), rel=1e-6)


def test_the_scores_are_those_of_the_average_on_the_held_out_image(finished):
    """PSNR, loss and accuracy are measured on the centre of what was held out, by hand too."""
    image, target = held_out_of(finished.config)
    net, _ = weights.load(Path(finished.report.weights))
    with torch.no_grad():
        output = net(image)

    scores = finished.report.scores
    agreed = (output.argmax(1) == target.argmax(1)).double().mean()
    assert scores.baseline_psnr == pytest.approx(psnr(image, target), abs=1e-4)
    assert scores.psnr == pytest.approx(psnr(output, target), abs=1e-4)
    assert scores.loss == pytest.approx(float((output - target).abs().mean()), rel=1e-5)
    assert scores.accuracy == pytest.approx(float(agreed), abs=1e-4)


def test_a_run_directory_holds_what_it_should(finished):
    """Nothing unfinished; the log has a row at the first step, at evaluations and at the end."""
    output = finished.config.output
    names = sorted(path.relative_to(output).as_posix() for path in output.rglob("*"))
    rows = finished.saved.log

    assert names == [
        *("curves.png", "log.csv", "model.safetensors", "options.json", "samples.png"),
        *("state", "state/step-00000060.safetensors"),
    ]
    assert list(rows[0]) == [
        *("step", "epoch", "patches", "lr", "loss", "accuracy"),
        *("eval_loss", "eval_accuracy", "eval_psnr", "baseline_psnr"),
    ]
    assert [row["step"] for row in rows] == ["1", "25", "50", "60"]
    assert [row["patches"] for row in rows] == ["4", "100", "200", "240"]
    assert [row["epoch"] for row in rows] == ["0.8", "20", "40", "48"]
    assert [row["eval_psnr"] != "" for row in rows] == [False, True, True, True]
    assert float(rows[-1]["loss"]) < float(rows[1]["loss"])
    assert float(rows[-1]["eval_psnr"]) == pytest.approx(finished.report.scores.psnr, abs=1e-4)


def test_the_header_records_the_making(finished, image_folder):
    """The weights say what they were made of: data, degradation, scales, steps and seed."""
    header = finished.saved.header

    assert header.config == finished.config.model
    assert header.scales == (3.0, 4.0)
    expected = {
        "data": [image_folder.name],
        "images": 5,
        "degradation": "bicubic",
        "scales": [3.0, 3.0, 4.0],
        "loss": "l1",
        "optimizer": "Muon 0.005, warm-up 10 steps, cosine to 0",
        "steps": 60,
        "patches": 240,
        "seed": 5,
    }
    assert {name: header.training[name] for name in expected} == expected
    assert {"recipe", "ema", "batch_size", "hours", "torch", "init_from"} < header.training.keys()


def test_progress_is_reported_after_every_step(finished):
    """Steps, share done and epoch count up; the rate rises in a line, then falls by a cosine."""
    progress = finished.progress

    assert [one.step for one in progress] == list(range(1, 61))
    assert (progress[-1].done, progress[14].done) == (1, pytest.approx(0.25))
    assert progress[14].epoch == pytest.approx(12)
    assert progress[23].scores is None
    assert progress[24].scores is progress[48].scores is not progress[49].scores
    rates = [min(1, (k + 1) / 10) * (1 + math.cos(math.pi * k / 60)) / 2 for k in range(60)]
    assert [one.lr / 5e-3 for one in progress] == pytest.approx(rates, rel=1e-12)


@pytest.mark.parametrize("loss", ["mse", "fourier"])
def test_a_step_is_measured_by_the_run_s_loss_on_its_degradation(options, saved_run, loss):
    """The first line is between the degraded input, where the net starts, and HR."""
    degraded = Degradation.parse("blur=0..2,noise=0..9,jpeg=30..90")
    config = options(loss=loss, degradation=degraded, steps=1, scales=(2.0, 4.0))

    report = train(config)

    batches = images_of(config).batches(0)
    image, target = input_and_target(next(batches), config.degradation)
    batches.close()
    held, original = held_out_of(config)
    agreed = float((image.argmax(1) == target.argmax(1)).double().mean())
    assert report.loss == pytest.approx(float(LOSS_FUNCTIONS[loss](image, target)), rel=1e-5)
    assert report.accuracy == pytest.approx(agreed, abs=1e-6)
    assert report.scores.baseline_psnr == pytest.approx(psnr(held, original), abs=1e-4)
    assert saved_run(config.output).header.training["loss"] == loss


def test_the_average_follows_closely_at_first(options, saved_run, same, monkeypatch):
    """Step k keeps (1 + k) / (10 + k) of the average, and never more than the decay asked for."""
    monkeypatch.setattr(run_directory, "_KEPT", 5)
    config = options(steps=5, save_every=1, ema=0.3)
    train(config)
    states = [weights.read_tensors(p)[1] for p in sorted((config.output / "state").iterdir())]

    for before, state, share in zip(states[:-1], states[1:], [3 / 12, 0.3, 0.3, 0.3], strict=True):
        for name in (name for name in state if name.startswith("ema.")):
            net = state["net." + name.removeprefix("ema.")]
            expected = share * before[name] + (1 - share) * net
            torch.testing.assert_close(state[name], expected, rtol=0, atol=1e-6)

    train(options("none", ema=0.0, steps=1))
    none = saved_run(options("none").output)
    assert same(none.weights, none.part("net"))


def test_a_bounded_gradient_trains_differently(options, saved_run, same):
    """Clipping changes the steps where the bound is reached, and zero turns it off."""
    states = []
    for clip in (0.0, 1e6, 1e-9):
        train(options(str(clip), clip=clip, steps=2))
        states.append(saved_run(options(str(clip)).output).state)

    assert same(states[0], states[1])
    assert not same(states[0], states[2])


@pytest.mark.parametrize("optimizer", ["muon", "adam"])
def test_a_path_that_no_patch_takes_stays_as_it_was(options, saved_run, tiny_weights, optimizer):
    """A run for one factor leaves the ends of the others alone, with either optimizer."""
    before = weights.read_tensors(tiny_weights)[1]

    train(options(init_from=tiny_weights, scales=(3.0,), optimizer=optimizer, steps=2))

    after = saved_run(options().output).weights
    kept = {name for name in after if torch.equal(before[name], after[name])}
    assert {name.split(".")[0] for name in kept} == {"stems", "heads"}


def test_a_line_is_the_mean_since_the_line_before(options, saved_run, monkeypatch):
    """Between two lines every step's loss counts the same, and none counts twice."""
    monkeypatch.setattr(trainer, "_LOG_EVERY", 3)
    losses, measure = [], Trainer._measure

    def watched(run, batch):
        loss, values = measure(run, batch)
        losses.append(float(loss.detach()))
        return loss, values

    monkeypatch.setattr(Trainer, "_measure", watched)
    train(options(steps=7, eval_every=6))

    rows = {int(row["step"]): float(row["loss"]) for row in saved_run(options().output).log}
    assert list(rows) == [1, 3, 6, 7]
    parts = [losses[0:1], losses[1:3], losses[3:6], losses[6:7]]
    assert list(rows.values()) == pytest.approx([sum(p) / len(p) for p in parts], rel=1e-6)


def test_checkpoints_come_as_often_as_asked(options):
    """Only the newest are kept; the options are there before the first step is reported."""
    config = options(steps=7, save_every=2, scales=(2.0, 3.0), loss="mse", seed=3)
    seen = []

    def look(progress):
        assert (config.output / "options.json").exists()
        names = sorted(path.stem[-1] for path in (config.output / "state").glob("step-*"))
        seen.append((progress.step, "".join(names)))

    train(config, on_progress=look)

    assert seen == list(enumerate(["", "", "2", "2", "24", "24", "46"], start=1))
    assert sorted(path.stem[-1] for path in (config.output / "state").iterdir()) == ["6", "7"]
    assert load_options(config.output) == config


@pytest.fixture
def clock(monkeypatch):
    """A clock that moves on by a second whenever a step is taken."""
    now = [0.0]
    step = Trainer.train_step

    def timed_step(*arguments):
        step(*arguments)
        now[0] += 1.0

    monkeypatch.setattr("srcli.training.trainer.time.monotonic", lambda: now[0])
    monkeypatch.setattr(Trainer, "train_step", timed_step)


@pytest.mark.parametrize(
    ("changes", "finished", "end"),
    [({"steps": None, "max_seconds": 6}, True, (6, 6)), ({"max_seconds": 4}, False, (4, 4))],
    ids=["time alone", "steps and time"],
)
@pytest.mark.usefixtures("clock")
def test_the_clock_can_end_a_run(options, changes, finished, end):
    """With seconds alone the learning rate falls over that time; else the run is not finished."""
    progress = []
    values = {"steps": 100_000, "warmup": 0} | changes

    report = train(options(**values), on_progress=progress.append)

    assert (report.finished, report.step, report.seconds) == (finished, *end)
    if finished:
        rates = [math.cos(math.pi * step / 6) / 2 + 0.5 for step in range(6)]
        assert [one.lr / progress[0].lr for one in progress] == pytest.approx(rates)


@pytest.mark.parametrize(
    ("sampling", "epochs", "processes", "steps"),
    [("epoch", 10, 1, 108_500), ("area", 10, 2, 54_250), ("area", 1e-9, 1, 1)],
)
def test_an_epoch_is_a_patch_of_every_image(options, sampling, epochs, processes, steps):
    """The paper's: 86,799 images in batches of eight a process, the last of each filled up."""
    changes = {"sampling": sampling, "epochs": epochs, "processes": processes}
    config = options(steps=None, batch_size=8, **changes)

    assert total_steps(config, 86_799, math.ceil(86_799 / config.batch)) == steps


def test_without_an_evaluation_image_there_is_no_score(options, saved_run, monkeypatch):
    """A single image is trained on; a notice says what is missing, and the curves stay."""
    monkeypatch.undo()  # here pictures are drawn
    notices = []

    report = train(options(limit=1, steps=2), on_message=notices.append)

    assert (report.step, report.scores, report.finished) == (2, None, True)
    (notice,) = notices
    assert notice.startswith("there is no image left to evaluate on (1 in all): curves and samples")
    assert all(row["eval_psnr"] == "" for row in saved_run(options().output).log)
    assert (options().output / "curves.png").exists()
    assert not (options().output / "samples.png").exists()


def test_evaluation_has_every_factor_and_names_what_is_trained_on(options, crowd):
    """The factors go round, whichever images are passed over; scores of seen ones are too good."""
    notices = []
    config = options(datasets=(str(crowd),), valid=crowd, eval_images=22, scales=(2, 3, 4, 3, 2))

    images = TrainingImages(config, ProcessGroup(CPU), notices.append)

    scales = [scale for batch in images.evaluation_batches() for scale in batch.scales]
    assert scales == ([2, 3, 4, 3, 2] * 5)[:22]
    (notice,) = notices
    assert notice.startswith(
        f"22 of the 22 images to evaluate on are trained on as well, such as {crowd}"
    )


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

    assert refusal(lambda: train(config), TrainingError) == (
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
