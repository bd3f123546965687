"""The training loop on a tiny net: what it learns, writes, resumes and refuses."""

import csv
import dataclasses
import itertools
import json
import math
import shutil

import pytest
import torch

from srcli import training, weights
from srcli.config import PAPER
from srcli.datasets import image_files, load_folder, split
from srcli.degradation import training_input
from srcli.errors import (
    DataError,
    DeviceError,
    OutputError,
    TrainingError,
    UsageError,
    WeightsError,
)
from srcli.model import ResidualAutoencoder
from srcli.training import TrainConfig, load_options, train

COLUMNS = ["step", "patches", "seconds", "lr", "loss", "eval_psnr", "baseline_psnr"]


@pytest.fixture
def options(tmp_path, image_folder, tiny_config):
    """Return a function that makes the options of a short run, with changes."""

    def make(name="run", **changes):
        values = {
            "output": tmp_path / name,
            "datasets": (image_folder,),
            "model": tiny_config,
            "batch_size": 4,
            "steps": 4,
            "warmup": 2,
            "device": "cpu",
            "dtype": "fp32",
        }
        return TrainConfig(**(values | changes))

    return make


@dataclasses.dataclass
class Finished:
    """A run that is over, and what was seen of it on the way."""

    config: TrainConfig
    report: training.TrainReport
    progress: list


@pytest.fixture(scope="module")
def finished(tmp_path_factory, image_folder, tiny_config):
    """Train sixty steps of a tiny net once, for the tests that only look."""
    config = TrainConfig(
        output=tmp_path_factory.mktemp("runs") / "deeper" / "run",
        datasets=(image_folder,),
        model=tiny_config,
        scales=(3.0, 3.0, 4.0),
        batch_size=4,
        steps=60,
        warmup=10,
        lr=5e-3,
        seed=5,
        eval_every=25,
        device="cpu",
        dtype="fp32",
    )
    progress = []
    return Finished(config, train(config, on_progress=progress.append), progress)


def tensors_of(path):
    """Read the tensors of a safetensors file."""
    return weights.read_tensors(path)[1]


def state_of(config):
    """Read a run's only checkpoint: net, average and optimiser."""
    (path,) = (config.output / "state").glob("step-*.safetensors")
    return tensors_of(path)


def log_of(config):
    """Read a run's log as one dictionary a row."""
    with (config.output / "log.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def same(left, right):
    """Tell whether two runs' tensors are equal to the last bit."""
    return left.keys() == right.keys() and all(torch.equal(left[n], right[n]) for n in left)


def training_data(config):
    """Load the images that a run trains on, as the run does."""
    (folder,) = config.datasets
    kept, _ = split(image_files(folder), config.seed)
    return load_folder(kept, config.seed)


def first_batch(config):
    """Make the first step's inputs and targets."""
    batch = training_data(config).batch(0, config.batch_size, config.scales)
    target = batch.patches / 255
    return training_input(target, batch.scales), target


def mean_loss(config):
    """Measure a run's weights by L1 on forty patches of its own data."""
    batch = training_data(config).batch(10_000, 40, config.scales)
    target = batch.patches / 255
    image = training_input(target, batch.scales)
    net, _ = weights.load(config.output / "model.safetensors")
    with torch.no_grad():
        return float((net(image) - target).abs().mean()), float((image - target).abs().mean())


def test_the_loss_falls(finished):
    """Sixty steps bring the output well closer to the originals than the bicubic input is."""
    after, before = mean_loss(finished.config)

    assert after < 0.9 * before


def test_the_report_says_how_it_went(finished):
    """The report counts steps and patches and scores the held-out image beside bicubic."""
    report = finished.report

    assert report.weights == finished.config.output / "model.safetensors"
    assert (report.step, report.patches, report.finished) == (60, 240, True)
    assert 0 < report.seconds < 60
    assert report.eval_psnr > report.baseline_psnr + 0.5


def test_the_baseline_is_the_bicubic_input(finished):
    """The baseline is the PSNR of what the net is given, on the centre of what was held out."""
    config = finished.config
    _, held = split(image_files(config.datasets[0]), config.seed)
    target = load_folder(held, config.seed).centers(64) / 255
    image = training_input(target, [config.scales[0]]).clamp(0, 1)
    net, _ = weights.load(finished.report.weights)
    with torch.no_grad():
        output = net(training_input(target, [config.scales[0]])).clamp(0, 1)

    def psnr(found):
        return -10 * math.log10(float((found - target).double().square().mean()))

    assert finished.report.baseline_psnr == pytest.approx(psnr(image), abs=1e-4)
    assert finished.report.eval_psnr == pytest.approx(psnr(output), abs=1e-4)


def test_a_run_directory_holds_what_it_should(finished):
    """Options, log, weights and one checkpoint, and nothing unfinished beside them."""
    output = finished.config.output
    names = sorted(path.relative_to(output).as_posix() for path in output.rglob("*"))

    assert names == [
        "log.csv",
        "model.safetensors",
        "options.json",
        "state",
        "state/latest.json",
        "state/step-00000060.safetensors",
    ]
    latest = json.loads((output / "state" / "latest.json").read_text(encoding="utf-8"))
    assert latest["file"] == "step-00000060.safetensors"
    assert latest["step"] == 60


def test_the_log_has_its_columns(finished):
    """A row at the first step, at evaluations and at the end, with scores where there are."""
    rows = log_of(finished.config)

    assert list(rows[0]) == COLUMNS
    assert [row["step"] for row in rows] == ["1", "25", "50", "60"]
    assert [row["patches"] for row in rows] == ["4", "100", "200", "240"]
    assert [row["eval_psnr"] != "" for row in rows] == [False, True, True, True]
    assert len({row["baseline_psnr"] for row in rows[1:]}) == 1
    assert float(rows[-1]["loss"]) < float(rows[1]["loss"])
    assert float(rows[-1]["eval_psnr"]) == pytest.approx(finished.report.eval_psnr, abs=1e-4)


def test_the_header_records_the_making(finished, image_folder):
    """The weights say what they were made of: data, degradation, scales, steps and seed."""
    header = weights.read_header(finished.report.weights)

    assert header.config == finished.config.model
    assert header.scales == (3.0, 4.0)
    expected = {
        "data": [image_folder.name],
        "images": 5,
        "degradation": "bicubic",
        "scales": [3.0, 3.0, 4.0],
        "loss": "l1",
        "batch_size": 4,
        "steps": 60,
        "patches": 240,
        "seed": 5,
        "dtype": "float32",
        "init_from": None,
    }
    assert {name: header.training[name] for name in expected} == expected


def test_the_average_is_what_is_kept(finished):
    """The weights are the moving average, which is not the net of the last step."""
    state = state_of(finished.config)
    kept = tensors_of(finished.report.weights)

    average = {n.removeprefix("ema."): t for n, t in state.items() if n.startswith("ema.")}
    last = {n.removeprefix("net."): t for n, t in state.items() if n.startswith("net.")}
    assert same(kept, average)
    assert kept.keys() == last.keys()
    assert all(not torch.equal(kept[name], last[name]) for name in kept)


def test_without_decay_the_average_is_the_net(options):
    """At a decay of zero the last step's net is what is kept."""
    config = options(ema=0.0)
    train(config)

    last = {n.removeprefix("net."): t for n, t in state_of(config).items() if n[:4] == "net."}
    for name, tensor in tensors_of(config.output / "model.safetensors").items():
        torch.testing.assert_close(tensor, last[name], rtol=0, atol=1e-7)


def test_the_learning_rate_rises_and_falls(finished):
    """Ten steps up in a line, then down a cosine over the whole run, ending near zero."""
    rates = [progress.lr for progress in finished.progress]
    peak, steps, warmup = 5e-3, 60, 10

    expected = [
        peak * min(1, (step + 1) / warmup) * (1 + math.cos(math.pi * step / steps)) / 2
        for step in range(steps)
    ]

    assert rates == pytest.approx(expected, rel=1e-12)
    assert rates[0] == pytest.approx(peak / warmup)
    assert rates[30] == pytest.approx(peak / 2)
    assert rates[-1] < peak / 1000
    assert rates.index(max(rates)) == warmup - 1


def test_progress_is_told_after_every_step(finished):
    """Steps count from one to the last, and the share done with them."""
    assert [progress.step for progress in finished.progress] == list(range(1, 61))
    assert finished.progress[-1].done == 1
    assert finished.progress[14].done == pytest.approx(0.25)
    assert finished.progress[23].eval_psnr is None
    assert finished.progress[24].eval_psnr is not None


def test_the_options_are_written_before_the_first_step(options):
    """When the first step is told, the options file is whole and says everything resolved."""
    config = options(scales=(2.0, 3.0), loss="mse", seed=3)
    seen = []

    def look(progress):
        text = (config.output / "options.json").read_text(encoding="utf-8")
        seen.append((progress.step, json.loads(text)))

    train(config, on_progress=look)

    step, written = seen[0]
    assert step == 1
    assert written.keys() == {field.name for field in dataclasses.fields(TrainConfig)}
    assert written["scales"] == [2.0, 3.0]
    assert written["loss"] == "mse"
    assert written["model"] == json.loads(config.model.to_json())
    assert load_options(config.output) == config


@pytest.mark.parametrize(
    ("loss", "measure"),
    [
        ("l1", lambda d: d.abs()),
        ("mse", lambda d: d**2),
        ("charbonnier", lambda d: (d**2 + 1e-6) ** 0.5),
    ],
)
def test_each_loss_is_what_its_name_says(options, loss, measure):
    """The first loss is that measure between the bicubic input, where the net starts, and HR."""
    config = options(loss=loss, steps=3, scales=(2.0, 4.0))
    progress = []
    train(config, on_progress=progress.append)

    image, target = first_batch(config)

    expected = float(measure((image - target).double()).mean())
    assert progress[0].loss == pytest.approx(expected, rel=1e-5)
    assert weights.read_header(config.output / "model.safetensors").training["loss"] == loss


def test_a_resumed_run_ends_like_an_undisturbed_one(options):
    """Stopped after any steps and continued, the weights are the same to the last bit."""
    whole, parts = options("whole", steps=12), options("parts", steps=12)
    train(whole)
    stops = iter([False, False, True])

    stopped = train(parts, should_stop=lambda: next(stops))
    stops = iter([False, True])
    again = train(load_options(parts.output), resume=True, should_stop=lambda: next(stops))
    report = train(load_options(parts.output), resume=True)

    assert [(r.step, r.finished) for r in (stopped, again, report)] == [
        (3, False),
        (5, False),
        (12, True),
    ]
    assert same(state_of(parts), state_of(whole))
    assert same(
        tensors_of(parts.output / "model.safetensors"),
        tensors_of(whole.output / "model.safetensors"),
    )


def test_a_resumed_run_continues_its_log_and_clock(options):
    """The log keeps its one header and its rows, and the seconds go on."""
    config = options(steps=6, eval_every=2)
    stops = iter([False, False, True])
    first = train(config, should_stop=lambda: next(stops))

    report = train(load_options(config.output), resume=True)

    assert [row["step"] for row in log_of(config)] == ["1", "2", "4", "6"]
    assert (config.output / "log.csv").read_text(encoding="utf-8").count("baseline_psnr") == 1
    assert report.seconds > first.seconds


def test_a_run_directory_can_be_moved(options, tmp_path):
    """A run is continued where its directory is now, not where it began."""
    config = options(steps=4)
    train(config, should_stop=lambda: True)
    moved = tmp_path / "moved"
    shutil.move(config.output, moved)

    report = train(load_options(moved), resume=True)

    assert report.weights == moved / "model.safetensors"
    assert report.step == 4
    assert not config.output.exists()


def test_checkpoints_come_as_often_as_asked(options):
    """Between stops the state is saved every so many steps, and only the newest is kept."""
    config = options(steps=7, save_every=3)
    seen = []

    def look(progress):
        names = sorted(p.name for p in (config.output / "state").glob("step-*"))
        seen.append((progress.step, names))

    train(config, on_progress=look)

    third, sixth = "step-00000003.safetensors", "step-00000006.safetensors"
    expected = [[], [], [], [third], [third], [third], [sixth]]
    assert seen == list(enumerate(expected, start=1))


def test_a_seed_is_a_run(options):
    """The same seed gives the same weights, another seed others."""
    first, again, other = options("a", seed=1), options("b", seed=1), options("c", seed=2)
    for config in (first, again, other):
        train(config)

    assert same(state_of(first), state_of(again))
    assert not same(state_of(first), state_of(other))


def test_the_clock_can_end_a_run(options, monkeypatch):
    """With seconds alone the run lasts as long, and its learning rate falls over that time."""
    # A clock that every look moves on by a second: once before the loop, once a step.
    monkeypatch.setattr("srcli.training.time.monotonic", itertools.count().__next__)
    progress = []

    report = train(options(steps=None, max_seconds=8, warmup=0), on_progress=progress.append)

    assert report.finished
    assert (report.step, report.seconds) == (8, 8)
    rates = [math.cos(math.pi * second / 8) / 2 + 0.5 for second in range(8)]
    assert [one.lr / progress[0].lr for one in progress] == pytest.approx(rates)


def test_the_clock_can_stop_a_run_of_steps(options):
    """A run of more steps than its seconds allow stops in time and is not finished."""
    report = train(options(steps=100_000, max_seconds=0.2))

    assert not report.finished
    assert 0 < report.step < 100_000
    assert 0.2 <= report.seconds < 5


@pytest.mark.parametrize(("epochs", "steps"), [(1, 2), (2, 3), (0.1, 1), (4, 5)])
def test_an_epoch_is_a_patch_of_every_image(options, epochs, steps):
    """Five images in batches of four: the length is rounded up to whole steps."""
    assert train(options(steps=None, epochs=epochs)).step == steps


@pytest.mark.parametrize(("limit", "images"), [(1, 1), (3, 2), (6, 5), (100, 5)])
def test_a_limit_leaves_images_out(options, limit, images):
    """At most so many images are used, the held-out one among them."""
    report = train(options(limit=limit, steps=1))

    assert weights.read_header(report.weights).training["images"] == images
    assert (report.eval_psnr is None) == (limit == 1)


def test_a_run_can_start_from_weights(options, tiny_weights):
    """The given weights are where a run begins: a step too small to matter leaves them."""
    config = options(init_from=tiny_weights, lr=1e-12, steps=2)

    report = train(config)

    for name, tensor in tensors_of(report.weights).items():
        torch.testing.assert_close(tensor, tensors_of(tiny_weights)[name], rtol=0, atol=1e-7)
    assert weights.read_header(report.weights).training["init_from"] == tiny_weights.name


def test_weights_of_another_shape_are_refused(options, tiny_weights, tiny_config):
    """A run cannot start from weights of another net, and nothing is left behind."""
    other = dataclasses.replace(tiny_config, bottom=2)
    config = options(init_from=tiny_weights, model=other)
    with pytest.raises(UsageError) as caught:
        train(config)

    assert str(caught.value) == (
        f"--init-from {tiny_weights} holds another shape of net than --config"
    )
    assert not config.output.exists()


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"datasets": ("nowhere",)}, DataError),
        ({"init_from": "nowhere.safetensors"}, WeightsError),
        ({"device": "cuda:99"}, DeviceError),
        ({"device": "abacus"}, UsageError),
        ({"dtype": "fp16"}, UsageError),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else value.__name__,
)
def test_a_run_that_cannot_start_leaves_nothing(options, tmp_path, changes, error):
    """What is refused before the first step is refused before anything is written."""
    values = dict(changes)
    if "datasets" in values:
        values["datasets"] = (tmp_path / "nowhere",)
    if "init_from" in values:
        values["init_from"] = tmp_path / "nowhere.safetensors"
    config = options(**values)

    with pytest.raises(error) as caught:
        train(config)

    assert "\n" not in str(caught.value)
    assert not config.output.exists()


def test_a_directory_with_a_run_is_refused(options):
    """A run is never overwritten; the text names the two ways out."""
    config = options()
    train(config)
    before = {p: p.read_bytes() for p in config.output.rglob("*") if p.is_file()}

    with pytest.raises(OutputError) as caught:
        train(config)

    assert str(caught.value) == (
        f"{config.output} already holds a run: continue it with --resume {config.output}, "
        "or give another --output"
    )
    assert {p: p.read_bytes() for p in config.output.rglob("*") if p.is_file()} == before


def test_a_file_in_the_directorys_place_is_told(options, tmp_path):
    """An output that cannot be a directory is named."""
    (tmp_path / "run").touch()

    with pytest.raises(OutputError, match=f"^cannot write the run directory {tmp_path / 'run'}: "):
        train(options())


def test_resuming_needs_a_state(options, tmp_path):
    """A directory without a checkpoint cannot be continued, by its options or by ours."""
    with pytest.raises(DataError) as caught:
        load_options(tmp_path)
    with pytest.raises(DataError, match="cannot be resumed"):
        train(options(), resume=True)

    assert str(caught.value) == (
        f"--resume {tmp_path}: there is no state to resume (state/latest.json is missing); "
        "give a run directory of srcli train"
    )


@pytest.mark.parametrize(
    "damage",
    [
        lambda run: (run / "options.json").unlink(),
        lambda run: (run / "options.json").write_text("{", encoding="utf-8"),
        lambda run: (run / "options.json").write_text("[]", encoding="utf-8"),
        lambda run: (run / "options.json").write_text('{"steps": 3}', encoding="utf-8"),
        lambda run: (run / "options.json").write_bytes(b"\xff\xfe"),
    ],
    ids=["missing", "cut", "list", "poor", "binary"],
)
def test_damaged_options_are_told(options, damage):
    """Options that cannot be read are one line that names the directory."""
    config = options(steps=1)
    train(config)
    damage(config.output)

    with pytest.raises(DataError) as caught:
        load_options(config.output)

    text = str(caught.value)
    assert text.startswith(f"--resume {config.output}: options.json cannot be used: ")
    assert "\n" not in text


@pytest.mark.parametrize(
    "damage",
    [
        lambda state: (state / "step-00000001.safetensors").unlink(),
        lambda state: (state / "step-00000001.safetensors").write_bytes(b"x"),
        lambda state: (state / "latest.json").write_text("{", encoding="utf-8"),
        lambda state: (state / "latest.json").write_text("[]", encoding="utf-8"),
        lambda state: (state / "latest.json").write_text("{}", encoding="utf-8"),
        lambda state: weights.write_tensors(
            state / "step-00000001.safetensors",
            {"net.head.bias": torch.zeros(1)},
            {"progress": '{"step": 1, "seconds": 1}'},
        ),
    ],
    ids=["missing", "garbage", "cut-json", "list", "poor", "another-net"],
)
def test_a_damaged_state_is_told(options, damage):
    """A checkpoint that cannot be continued is one line that names where it lies."""
    config = options(steps=1)
    train(config)
    damage(config.output / "state")

    with pytest.raises((DataError, WeightsError)) as caught:
        train(load_options(config.output), resume=True)

    assert str(config.output / "state") in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 4


def test_a_loss_that_is_not_finite_ends_the_run(options):
    """A run that has blown up says at which step, and what to try."""
    with pytest.raises(TrainingError) as caught:
        train(options(lr=1e10, warmup=0, steps=8))

    text = str(caught.value)
    assert "at step 8" in text
    assert "lower --lr than 1e+10" in text
    assert caught.value.exit_code == 1


@pytest.mark.parametrize("save_every", [1, 3])
def test_a_blown_up_run_keeps_its_last_good_checkpoint(options, save_every):
    """Weights that are not finite are never saved over those that are."""
    config = options(steps=20, save_every=2)
    train(config, should_stop=lambda: True)
    before = tensors_of(config.output / "model.safetensors")
    wild = dataclasses.replace(config, lr=1e10, warmup=0, save_every=save_every)

    with pytest.raises(TrainingError):
        train(wild, resume=True)

    kept = tensors_of(config.output / "model.safetensors")
    assert before.keys() == kept.keys()
    assert all(tensor.isfinite().all() for tensor in kept.values())
    assert all(tensor.isfinite().all() for tensor in state_of(config).values())


def test_a_blown_up_run_that_is_stopped_saves_nothing(options):
    """Stopping a run whose loss is not finite ends with the error, not with its weights."""
    config = options(lr=1e10, warmup=0, steps=20)
    stops = iter([False] * 5 + [True])

    with pytest.raises(TrainingError):
        train(config, should_stop=lambda: next(stops))

    assert not (config.output / "model.safetensors").exists()


def test_unreadable_images_are_told_and_left_out(options, image_folder, tmp_path):
    """A damaged image costs a line, whether it was meant for training or held out."""
    for place in (0, 1):
        folder = shutil.copytree(image_folder, tmp_path / f"images{place}")
        parts = split(image_files(folder), seed=0)
        broken = parts[place][0]
        broken.write_bytes(b"no image")
        told = []

        report = train(options(f"run{place}", datasets=(folder,), steps=1), on_message=told.append)

        assert report.step == 1
        assert len(told) == 1
        assert told[0].startswith(f"{broken}: not an image")
        assert told[0].endswith("; it is left out")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"datasets": ()}, "train needs at least one --dataset"),
        ({"steps": None}, "say how long to train: --steps, --epochs or --max-time"),
        ({"batch_size": 0}, "--batch-size must be at least 1, not 0"),
        ({"steps": 0}, "--steps must be at least 1, not 0"),
        ({"limit": 0}, "--limit must be at least 1, not 0"),
        ({"eval_every": 0}, "--eval-every must be at least 1, not 0"),
        ({"save_every": -5}, "--save-every must be at least 1, not -5"),
        ({"warmup": -1}, "--warmup must be at least 0, not -1"),
        ({"clip": -0.5}, "--clip must be at least 0, not -0.5"),
        ({"lr": 0.0}, "--lr must be positive, not 0.0"),
        ({"lr": math.nan}, "--lr must be positive, not nan"),
        ({"lr": math.inf}, "--lr must be positive, not inf"),
        ({"steps": None, "epochs": -1.0}, "--epochs must be positive, not -1.0"),
        ({"max_seconds": 0.0}, "--max-time must be positive, not 0.0"),
        ({"ema": 1.0}, "--ema must lie in [0, 1), not 1.0"),
        ({"ema": -0.1}, "--ema must lie in [0, 1), not -0.1"),
        ({"ema": math.nan}, "--ema must lie in [0, 1), not nan"),
        ({"scales": (3.0, 1.0)}, "--scale must lie in (1, 8] for training, not 1"),
        ({"scales": (8.5,)}, "--scale must lie in (1, 8] for training, not 8.5"),
        ({"scales": (math.nan,)}, "--scale must lie in (1, 8] for training, not nan"),
    ],
    ids=str,
)
def test_options_out_of_range_are_refused(options, changes, message):
    """Every option that no type can check is refused by its name, with its value."""
    with pytest.raises(UsageError) as caught:
        options(**changes)

    assert str(caught.value) == message


def test_a_bounded_gradient_trains_differently(options):
    """Clipping changes the steps where the bound is reached, and zero turns it off."""
    free, loose, tight = options("a", clip=0.0), options("b", clip=1e6), options("c", clip=1e-9)
    for config in (free, loose, tight):
        train(config)

    assert same(state_of(free), state_of(loose))
    assert not same(state_of(free), state_of(tight))


def test_the_papers_net_trains_in_the_same_loop(options):
    """The paper's kinds of layers learn in the same loop, and start from random weights."""
    config = options(
        model=dataclasses.replace(PAPER, widths=(6, 8, 8)), loss="mse", lr=3e-3, steps=20
    )
    progress = []

    report = train(config, on_progress=progress.append)

    net, _ = weights.load(report.weights)
    assert isinstance(net, ResidualAutoencoder)
    assert net.config == config.model
    assert report.loss < 0.7 * progress[0].loss
