"""The training loop on a tiny net: what it learns, writes, tells and refuses."""

import csv
import dataclasses
import itertools
import json
import math
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from PIL import Image

from srcli.data import loading
from srcli.data.degrading import training_input
from srcli.data.loading import Centers, Loader
from srcli.data.pool import open_pool, split
from srcli.data.sampling import Sampler
from srcli.errors import (
    DataError,
    DeviceError,
    OutputError,
    TrainingError,
    UsageError,
    WeightsError,
)
from srcli.model import weights
from srcli.model.config import PAPER
from srcli.model.network import ResidualAutoencoder, multiply_adds, parameter_count
from srcli.ops.color import dequantize
from srcli.ops.degradation import Degradation
from srcli.training import engine
from srcli.training import trainer as training
from srcli.training.config import TrainConfig
from srcli.training.distributed import Team
from srcli.training.recipe import load
from srcli.training.run_directory import load_options
from srcli.training.trainer import dry_run, train

COLUMNS = [
    *("step", "epoch", "patches", "seconds", "lr", "loss", "accuracy"),
    *("eval_loss", "eval_accuracy", "eval_psnr", "baseline_psnr"),
]
CPU = torch.device("cpu")


@pytest.fixture
def options(tmp_path, image_folder, tiny_config):
    """Return a function that makes the options of a short run, with changes."""

    def make(name="run", **changes):
        values = {
            "output": tmp_path / name,
            "datasets": (str(image_folder),),
            "data_dir": tmp_path,
            "model": tiny_config,
            "batch_size": 4,
            "lr": 1e-3,
            "loss": "l1",
            "steps": 4,
            "warmup": 2,
            "device": "cpu",
            "dtype": "fp32",
            "workers": 1,
        }
        return TrainConfig(**(values | changes))

    return make


@pytest.fixture
def undrawn(monkeypatch):
    """Draw no pictures: most of the time of a short run."""
    for name in ("curves", "samples"):
        monkeypatch.setattr(f"srcli.training.curves.{name}", lambda *_, **__: None)


@pytest.fixture
def crowd(tmp_path, image_folder):
    """Copy the images of the folder until there are 110: enough for one to be damaged."""
    folder = tmp_path / "crowd"
    folder.mkdir()
    for index in range(110):
        shutil.copy(image_folder / f"{index % 6}.png", folder / f"{index:03}.png")
    return folder


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
        datasets=(str(image_folder),),
        model=tiny_config,
        scales=(3.0, 3.0, 4.0),
        batch_size=4,
        steps=60,
        warmup=10,
        lr=5e-3,
        loss="l1",
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


def weights_of(config):
    """Name the weights that a run left."""
    return config.output / "model.safetensors"


def state_of(config):
    """Read a run's newest checkpoint: net, average, optimiser and what is not yet logged."""
    return tensors_of(max((config.output / "state").glob("step-*.safetensors")))


def part_of(config, prefix):
    """Read one net of a run's newest checkpoint."""
    state = state_of(config)
    return {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}


def log_of(config):
    """Read a run's log as one dictionary a row."""
    with (config.output / "log.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def same(left, right):
    """Tell whether two runs' tensors are equal to the last bit."""
    return left.keys() == right.keys() and all(torch.equal(left[n], right[n]) for n in left)


def splits_of(config):
    """Part the images as the run does."""
    pool = open_pool(config.datasets, config.data_dir, config.seed).limited(config.limit)
    return split(pool, config.seed, config.split)


def batch_of(config, step, size):
    """Make inputs and targets of a step by the parts that a run is made of."""
    loader = Loader(splits_of(config).train, CPU, workers=1)
    sampler = Sampler(
        len(loader.pool),
        config.seed,
        scales=config.scales,
        balanced=config.balanced,
        augment=config.augment,
        areas=loader.areas() if config.sampling == "area" else None,
    )
    batches = loader.batches(sampler, step, size)
    batch = next(batches)
    batches.close()
    target = dequantize(batch.patches)
    return training_input(target, batch.scales, config.degradation, batch.draws), target


def held_out_of(config):
    """Make inputs and targets of the evaluation images."""
    held = splits_of(config).evaluation
    centers = Centers(held, range(len(held)), CPU, workers=1, size=64)
    (batch,) = centers.batches(config.scales, config.seed)
    target = dequantize(batch.patches)
    return training_input(target, batch.scales, config.degradation, batch.draws), target


def files_below(folder):
    """Read every file below a folder."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# What a run learns, writes and tells


def test_the_loss_falls(finished):
    """Sixty steps bring the output well closer to the originals than the bicubic input is."""
    image, target = batch_of(finished.config, 10_000, 40)
    net, _ = weights.load(finished.config.output / "model.safetensors")
    with torch.no_grad():
        after = float((net(image) - target).abs().mean())

    assert after < 0.9 * float((image - target).abs().mean())


def test_the_report_says_how_it_went(finished):
    """The report counts steps and patches and scores the held-out image beside bicubic."""
    report = finished.report

    assert report.output == str(finished.config.output)
    assert report.weights == str(finished.config.output / "model.safetensors")
    assert (report.step, report.patches, report.finished) == (60, 240, True)
    assert 0 < report.seconds < 60
    assert 0 <= report.waited <= 1
    assert report.skipped == 0
    assert report.scores.psnr > report.scores.baseline_psnr + 0.5
    assert report.loss == pytest.approx(float(log_of(finished.config)[-1]["loss"]), rel=1e-6)
    assert json.loads(json.dumps(dataclasses.asdict(report)))["scores"]["psnr"] > 0


def test_the_scores_are_those_of_the_average_on_the_held_out_image(finished):
    """PSNR, loss and accuracy are measured on the centre of what was held out, by hand too."""
    image, target = held_out_of(finished.config)
    net, _ = weights.load(Path(finished.report.weights))
    with torch.no_grad():
        output = net(image)

    def psnr(found):
        return -10 * math.log10(float((found.clamp(0, 1) - target).double().square().mean()))

    scores = finished.report.scores
    agreed = (output.argmax(1) == target.argmax(1)).double().mean()
    assert scores.baseline_psnr == pytest.approx(psnr(image), abs=1e-4)
    assert scores.psnr == pytest.approx(psnr(output), abs=1e-4)
    assert scores.loss == pytest.approx(float((output - target).abs().mean()), rel=1e-5)
    assert scores.accuracy == pytest.approx(float(agreed), abs=1e-4)


def test_a_run_directory_holds_what_it_should(finished):
    """Options, log, pictures, weights and a checkpoint, and nothing unfinished beside them."""
    output = finished.config.output
    names = sorted(path.relative_to(output).as_posix() for path in output.rglob("*"))

    assert names == [
        "curves.png",
        "log.csv",
        "model.safetensors",
        "options.json",
        "samples.png",
        "state",
        "state/step-00000060.safetensors",
    ]


@pytest.mark.parametrize("name", ["curves.png", "samples.png"])
def test_the_pictures_can_be_looked_at(finished, name):
    """Both are PNG files of a size for a screen, and no blank sheets."""
    with Image.open(finished.config.output / name) as picture:
        assert picture.format == "PNG"
        assert 500 <= picture.width <= 4000
        assert 200 <= picture.height <= 4000
        assert len(picture.convert("L").getcolors(256)) > 50


def test_the_sample_is_what_the_captions_say(finished, options, monkeypatch):
    """A sample is LR, output and HR of an image not trained on, with its own two scores."""
    sheets = []
    monkeypatch.setattr("srcli.training.curves.curves", lambda *_, **__: None)
    monkeypatch.setattr("srcli.training.curves.samples", lambda *sheet: sheets.append(sheet))
    config = options(init_from=Path(finished.report.weights), lr=1e-12, ema=0.0, seed=5)

    train(dataclasses.replace(config, scales=(3.0, 3.0, 4.0)))

    path, titles, rows, captions = sheets[-1]
    _, target = held_out_of(finished.config)
    scores = finished.report.scores
    assert (path, titles) == (config.output / "samples.png", ["LR", "output", "HR"])
    ((low, output, high),) = rows
    assert (low.shape, output.shape, high.shape) == ((40, 40, 3), (120, 120, 3), (120, 120, 3))
    assert torch.equal(torch.from_numpy(high), (target[0] * 255).round().byte().permute(1, 2, 0))
    assert captions == [[f"bicubic {scores.baseline_psnr:.2f} dB", f"{scores.psnr:.2f} dB", ""]]


def test_the_log_has_its_columns(finished):
    """A row at the first step, at evaluations and at the end, with scores where there are."""
    rows = log_of(finished.config)

    assert list(rows[0]) == COLUMNS
    assert [row["step"] for row in rows] == ["1", "25", "50", "60"]
    assert [row["patches"] for row in rows] == ["4", "100", "200", "240"]
    assert [row["epoch"] for row in rows] == ["0.8", "20", "40", "48"]
    assert [row["eval_psnr"] != "" for row in rows] == [False, True, True, True]
    assert len({row["baseline_psnr"] for row in rows[1:]}) == 1
    assert float(rows[-1]["loss"]) < float(rows[1]["loss"])
    assert float(rows[-1]["eval_psnr"]) == pytest.approx(finished.report.scores.psnr, abs=1e-4)


def test_the_header_records_the_making(finished, image_folder):
    """The weights say what they were made of: data, degradation, scales, steps and seed."""
    header = weights.read_header(finished.config.output / "model.safetensors")

    assert header.config == finished.config.model
    assert header.scales == (3.0, 4.0)
    expected = {
        "recipe": "base",
        "data": [image_folder.name],
        "images": 5,
        "split": "held-out",
        "degradation": "bicubic",
        "scales": [3.0, 3.0, 4.0],
        "loss": "l1",
        "optimizer": "Muon 0.005, warm-up 10 steps, cosine to 0",
        "weight_decay": 0.05,
        "ema": 0.999,
        "augment": "turn",
        "batch_size": 4,
        "epochs": 48,
        "steps": 60,
        "patches": 240,
        "seed": 5,
        "dtype": "float32",
        "torch": torch.__version__,
        "init_from": None,
        "origin": None,
    }
    assert {name: header.training[name] for name in expected} == expected
    assert header.training.keys() - expected.keys() == {"hours"}


def test_the_average_is_what_is_kept(finished):
    """The weights are the moving average, which is not the net of the last step."""
    kept = tensors_of(Path(finished.report.weights))
    last = part_of(finished.config, "net.")

    assert same(kept, part_of(finished.config, "ema."))
    assert kept.keys() == last.keys()
    taken = [name for name in kept if not name.startswith(("stems.", "heads."))]
    assert all(not torch.equal(kept[name], last[name]) for name in taken)


@pytest.mark.usefixtures("undrawn")
def test_the_average_follows_closely_at_first(options):
    """Step k keeps (1 + k) / (10 + k) of the average, and never more than the decay asked for."""
    config = options(steps=5, save_every=1, keep_last=5, ema=0.3)
    train(config)
    states = [tensors_of(path) for path in sorted((config.output / "state").iterdir())]
    shares = [3 / 12, 0.3, 0.3, 0.3]  # of steps 2 to 5

    for before, state, share in zip(states[:-1], states[1:], shares, strict=True):
        for name in (name for name in state if name.startswith("ema.")):
            net = state["net." + name.removeprefix("ema.")]
            expected = share * before[name] + (1 - share) * net
            torch.testing.assert_close(state[name], expected, rtol=0, atol=1e-6)


@pytest.mark.usefixtures("undrawn")
def test_without_decay_the_average_is_the_net(options):
    """At a decay of zero the last step's net is what is kept."""
    config = options(ema=0.0)
    train(config)

    assert same(tensors_of(config.output / "model.safetensors"), part_of(config, "net."))


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


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("rate", [1e-3, 4e-3])
def test_the_rate_is_the_optimisers(options, rate):
    """Adam's first step moves every weight by the rate of that step, a fifth of the peak here."""
    config = options(steps=50, warmup=5, lr=rate, clip=0.0, schedule="constant")

    train(config, should_stop=lambda: True)

    moved = part_of(config, "net.")["head.weight"].abs()  # it begins at zero
    assert float(moved.max()) == pytest.approx(rate / 5, rel=1e-2)


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("warmup", "rates"), [(0, [1, 1, 1, 1]), (1, [1, 1, 1, 1]), (4, [0.25, 0.5, 0.75, 1])]
)
def test_a_constant_rate_stays(options, warmup, rates):
    """After its rise a constant rate is the same to the end, in the optimiser and the log."""
    config = options(schedule="constant", warmup=warmup, lr=2e-3, eval_every=1)
    progress = []

    train(config, on_progress=progress.append)

    assert [one.lr for one in progress] == pytest.approx([2e-3 * rate for rate in rates])
    assert [float(row["lr"]) for row in log_of(config)] == pytest.approx(
        [2e-3 * rate for rate in rates]
    )


def test_progress_is_told_after_every_step(finished):
    """Steps count from one to the last, and the share done and the epoch with them."""
    progress = finished.progress

    assert [one.step for one in progress] == list(range(1, 61))
    assert progress[-1].done == 1
    assert progress[14].done == pytest.approx(0.25)
    assert progress[14].epoch == pytest.approx(12)
    assert progress[23].scores is None
    assert progress[24].scores is progress[48].scores is not None
    assert progress[49].scores is not progress[48].scores


@pytest.mark.usefixtures("undrawn")
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
    assert written["model"] == json.loads(json.dumps(dataclasses.asdict(config.model)))
    assert load_options(config.output) == config


def _luma(error):
    """Weigh the errors of R, G and B as luma does."""
    red, green, blue = error.unbind(1)
    return (0.299 * red + 0.587 * green + 0.114 * blue)[:, None]


def _bands(error):
    """L1 of the discrete Fourier transform, by its matrix, and a sixth of that of the pixels."""
    side = torch.arange(error.shape[-1], dtype=torch.float64)
    wave = torch.exp(-2j * math.pi * side[:, None] * side / len(side)) / len(side) ** 0.5
    found = (wave @ error.to(wave.dtype) @ wave)[..., : len(side) // 2 + 1]
    return (found.real.abs().mean() + found.imag.abs().mean()) / 2 + error.abs().mean() / 6


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("loss", "measure"),
    [
        ("l1", lambda d: d.abs()),
        ("mse", lambda d: d**2),
        ("charbonnier", lambda d: (d**2 + 1e-6) ** 0.5),
        ("fourier", lambda d: (_bands(d) + _bands(_luma(d))) / 2),
    ],
)
def test_each_loss_is_what_its_name_says(options, loss, measure):
    """The first loss is that measure between the bicubic input, where the net starts, and HR."""
    config = options(loss=loss, steps=3, scales=(2.0, 4.0))
    progress = []
    train(config, on_progress=progress.append)

    image, target = batch_of(config, 0, 4)

    expected = float(measure((image - target).double()).mean())
    assert progress[0].loss == pytest.approx(expected, rel=1e-5)
    assert weights.read_header(config.output / "model.safetensors").training["loss"] == loss


@pytest.mark.usefixtures("undrawn")
def test_the_degradation_is_that_of_the_options(options):
    """The net is trained and scored on what the degradation makes, each patch by its draws."""
    config = options(degradation=Degradation.parse("blur=0..2,noise=0..9,jpeg=30..90"), steps=1)
    report = train(config)

    image, target = batch_of(config, 0, 4)
    held, original = held_out_of(config)

    assert report.loss == pytest.approx(float((image - target).abs().mean()), rel=1e-5)
    baseline = -10 * math.log10(float((held.clamp(0, 1) - original).double().square().mean()))
    assert report.scores.baseline_psnr == pytest.approx(baseline, abs=1e-4)


@pytest.mark.usefixtures("undrawn")
def test_accuracy_is_logged_for_training_too(options):
    """The first line's accuracy is the share of pixels on which input and HR agree."""
    config = options(steps=1)
    train(config)

    image, target = batch_of(config, 0, 4)

    agreed = float((image.argmax(1) == target.argmax(1)).double().mean())
    assert float(log_of(config)[0]["accuracy"]) == pytest.approx(agreed, abs=1e-6)


@pytest.mark.usefixtures("undrawn")
def test_a_line_is_the_mean_since_the_line_before(options, monkeypatch):
    """Between two lines every step's loss counts the same, and none counts twice."""
    config = options(steps=7, eval_every=6)
    monkeypatch.setattr(training, "_LOG_EVERY", 3)
    losses, original = [], engine._loss

    def watched(output, target, kind):
        loss = original(output, target, kind)
        if loss.requires_grad:
            losses.append(float(loss.detach()))
        return loss

    monkeypatch.setattr(engine, "_loss", watched)
    train(config)

    rows = {int(row["step"]): float(row["loss"]) for row in log_of(config)}
    assert list(rows) == [1, 3, 6, 7]
    stretches = [losses[0:1], losses[1:3], losses[3:6], losses[6:7]]
    assert list(rows.values()) == pytest.approx([sum(s) / len(s) for s in stretches], rel=1e-6)


@pytest.mark.usefixtures("undrawn")
def test_checkpoints_come_as_often_as_asked(options):
    """Between stops the state is saved every so many steps, and only the newest are kept."""
    config = options(steps=7, save_every=2, keep_last=2)
    seen = []

    def look(progress):
        names = sorted(path.stem[-1] for path in (config.output / "state").glob("step-*"))
        seen.append((progress.step, "".join(names)))

    train(config, on_progress=look)

    assert seen == list(enumerate(["", "", "2", "2", "24", "24", "46"], start=1))
    assert sorted(path.stem[-1] for path in (config.output / "state").iterdir()) == ["6", "7"]


@pytest.mark.usefixtures("undrawn")
def test_a_seed_is_a_run(options):
    """The same seed gives the same weights, another seed others."""
    first, again, other = options("a", seed=1), options("b", seed=1), options("c", seed=2)
    for config in (first, again, other):
        train(config)

    assert same(state_of(first), state_of(again))
    assert not same(state_of(first), state_of(other))


@pytest.mark.usefixtures("undrawn")
def test_decoding_threads_change_nothing(options, monkeypatch):
    """One thread or three, images kept in memory or not: the weights are the same."""
    first, second, third = options("a"), options("b", workers=3), options("c", workers=3)
    train(first)
    train(second)
    monkeypatch.setattr(loading, "_RESIDENT_BYTES", 0)
    train(third)

    assert same(state_of(first), state_of(second))
    assert same(state_of(first), state_of(third))


@pytest.fixture
def cores():
    """Return a function that sets the CPU threads of torch; they are one again afterwards."""
    yield torch.set_num_threads
    torch.set_num_threads(1)


def cores_of_a_thread():
    """Count the CPU threads that torch uses in a thread that has just begun."""
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(torch.get_num_threads).result()


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("loss", "dtype"), [("fourier", "fp32"), ("mse", "fp32"), ("l1", "fp32"), ("l1", "bf16")]
)
def test_parts_in_threads_of_their_own_learn_the_same(options, monkeypatch, cores, loss, dtype):
    """Parting a batch changes the last bits alone."""
    seen, sizes, patches = set(), set(), engine.training_input

    def noted(target, *rest):
        if threading.current_thread().name.startswith("srcli-step"):
            assert torch.get_num_threads() == 1
            sizes.add(len(target))
            seen.add(threading.current_thread().name)
        return patches(target, *rest)

    monkeypatch.setattr(engine, "training_input", noted)
    reports, states, found = [], [], []
    for count in (1, 2, 3, 3):
        cores(count)
        seen.clear()
        sizes.clear()
        config = options(
            f"{len(found)}",
            loss=loss,
            dtype=dtype,
            scales=(2.0, 3.0),
            optimizer="adam",
            batch_size=5,
        )
        reports.append(train(config))
        states.append(state_of(config))
        found.append({*sizes})
        assert bool(seen) == (count > 1)
        assert cores_of_a_thread() == torch.get_num_threads() == count

    assert found == [set(), {3, 2}, {2, 1}, {2, 1}]
    assert same(states[2], states[3])
    loose = 1 if dtype == "fp32" else 30
    for report, state in zip(reports[1:], states[1:], strict=True):
        assert report.loss == pytest.approx(reports[0].loss, rel=loose * 1e-4)
        assert report.accuracy == pytest.approx(reports[0].accuracy, abs=loose * 1e-4)
        for name, value in states[0].items():
            if name.startswith("adam") and name.endswith("exp_avg"):
                distance = torch.linalg.norm(value - state[name])
                assert distance < loose * 1e-3 * torch.linalg.norm(value), name
    assert not any(one.name.startswith("srcli-step") for one in threading.enumerate())


@pytest.mark.parametrize("case", ["compiled", "one patch", "one core"])
def test_a_batch_stays_whole_where_it_cannot_be_parted(options, monkeypatch, cores, case):
    """Compiled, of a single patch, or for a single core."""
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    cores(1 if case == "one core" else 2)
    config = options(compile=case == "compiled", batch_size=1 if case == "one patch" else 4)
    run = engine.start(config, Team(CPU), print)
    with engine.threads(run):
        assert run.crew is None


@pytest.mark.usefixtures("undrawn")
def test_what_goes_wrong_in_a_thread_is_told(options, monkeypatch, cores):
    """Want of memory there ends the run as it does elsewhere, and the threads are gone."""
    cores(2)

    def full(*_):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(engine, "training_input", full)
    with pytest.raises(DeviceError):
        train(options())
    assert cores_of_a_thread() == torch.get_num_threads() == 2
    assert not any(one.name.startswith("srcli-step") for one in threading.enumerate())


@pytest.mark.usefixtures("undrawn")
def test_a_bounded_gradient_trains_differently(options):
    """Clipping changes the steps where the bound is reached, and zero turns it off."""
    free, loose, tight = options("a", clip=0.0), options("b", clip=1e6), options("c", clip=1e-9)
    for config in (free, loose, tight):
        train(config)

    assert same(state_of(free), state_of(loose))
    assert not same(state_of(free), state_of(tight))


@pytest.mark.usefixtures("undrawn")
def test_the_papers_net_trains_in_the_same_loop(options):
    """The paper's recipe on a narrow net of its kind: it learns, from random weights."""
    paper = {name: value for name, value in load("paper").values.items() if name != "epochs"}
    narrow = dataclasses.replace(PAPER, widths=(6, 8, 8))
    config = options(**(paper | {"model": narrow, "lr": 3e-3, "steps": 20, "batch_size": 4}))
    progress = []

    report = train(config, on_progress=progress.append)

    net, header = weights.load(config.output / "model.safetensors")
    assert isinstance(net, ResidualAutoencoder)
    assert net.config == config.model
    assert report.loss < 0.7 * progress[0].loss
    assert header.training["optimizer"] == "Adam 0.003, warm-up 0 steps, constant"
    assert header.training["images"] == 2  # 86,799 of 302,599, of six


# How long a run is


@pytest.mark.usefixtures("undrawn")
def test_the_clock_can_end_a_run(options, monkeypatch):
    """With seconds alone the run lasts as long, and its learning rate falls over that time."""
    # A clock that every look moves on by a second: once before the loop, once a step.
    monkeypatch.setattr(training, "_timed_next", lambda _, batches: next(batches))
    monkeypatch.setattr("srcli.training.trainer.time.monotonic", itertools.count().__next__)
    progress = []

    report = train(options(steps=None, max_seconds=8, warmup=0), on_progress=progress.append)

    assert report.finished
    assert (report.step, report.seconds) == (8, 8)
    rates = [math.cos(math.pi * second / 8) / 2 + 0.5 for second in range(8)]
    assert [one.lr / progress[0].lr for one in progress] == pytest.approx(rates)


@pytest.mark.usefixtures("undrawn")
def test_the_clock_can_stop_a_run_of_steps(options):
    """A run of more steps than its seconds allow stops in time and is not finished."""
    report = train(options(steps=100_000, max_seconds=0.1))

    assert not report.finished
    assert 0 < report.step < 100_000
    assert 0.1 <= report.seconds < 5


@pytest.mark.usefixtures("undrawn")
def test_waiting_is_a_share_of_this_stretch(options, monkeypatch):
    """What is told of waiting for images is about the stretch that was run, resumed or not."""
    # The clock moves on at every look: twice for each wait, and once more in a step.
    monkeypatch.setattr("srcli.training.trainer.time.monotonic", itertools.count().__next__)
    config = options(steps=6)
    stops = iter([False, False, False, True])

    first = train(config, should_stop=lambda: next(stops))
    second = train(config, resume=True)

    assert (first.seconds, second.seconds) == (12, 18)
    assert (first.waited, second.waited) == pytest.approx((1 / 3, 1 / 3))


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("sampling", "epochs", "steps"),
    [
        *(("area", 1, 2), ("area", 2, 3), ("area", 0.1, 1), ("area", 4, 5)),
        *(("epoch", 1, 2), ("epoch", 2, 4), ("epoch", 0.1, 1), ("epoch", 1.2, 3)),
    ],
)
def test_an_epoch_is_a_patch_of_every_image(options, sampling, epochs, steps):
    """Five images in batches of four: whole steps of them, or whole steps an epoch."""
    assert train(options(steps=None, epochs=epochs, sampling=sampling)).step == steps


@pytest.mark.parametrize(
    ("sampling", "processes", "steps"),
    [("epoch", 1, 108_500), ("epoch", 2, 54_250), ("area", 1, 108_499), ("area", 2, 54_250)],
)
def test_the_papers_schedule_has_its_length(options, sampling, processes, steps):
    """Ten epochs of 86,799 images in batches of eight a process, the last of each filled up."""
    paper = {
        "batch_size": 8,
        **load("paper").values,
        "model": PAPER,
        "sampling": sampling,
        "processes": processes,
    }
    paper["steps"] = None
    config = options(**paper)
    sampler = Sampler(86_799, 0, scales=(3.0,), augment="none")

    assert engine._total(config, 86_799, sampler.steps_per_epoch(config.batch)) == steps


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(("limit", "images"), [(1, 1), (3, 2), (6, 5), (100, 5)])
def test_a_limit_leaves_images_out(options, limit, images):
    """At most so many images are used, the held-out one among them."""
    config = options(limit=limit, steps=1)

    report = train(config)

    assert weights.read_header(config.output / "model.safetensors").training["images"] == images
    assert (report.scores is None) == (limit == 1)


def test_without_an_evaluation_image_the_run_goes_on(options):
    """A single image is trained on; a notice tells what is missing, and the curves stay."""
    told = []

    report = train(options(limit=1, steps=2), on_message=told.append)

    assert (report.step, report.scores, report.finished) == (2, None, True)
    (notice,) = told
    assert notice == (
        "there is no image left to evaluate on (1 in all): curves and samples show training "
        "alone; give more images"
    )
    assert all(row["eval_psnr"] == "" for row in log_of(options()))
    with Image.open(options().output / "curves.png") as picture:
        assert picture.format == "PNG"
    assert not (options().output / "samples.png").exists()


# Where a run starts from


@pytest.mark.usefixtures("undrawn")
def test_a_run_can_start_from_weights(options, tiny_weights):
    """The given weights are where a run begins: a step too small to matter leaves them."""
    config = options(init_from=tiny_weights, lr=1e-12, steps=2)

    train(config)

    path = config.output / "model.safetensors"
    for name, tensor in tensors_of(path).items():
        torch.testing.assert_close(tensor, tensors_of(tiny_weights)[name], rtol=0, atol=1e-7)
    record = weights.read_header(path).training
    assert record["init_from"] == tiny_weights.name
    assert record["origin"] == weights.read_header(tiny_weights).training


@pytest.mark.usefixtures("undrawn")
def test_a_path_that_no_patch_takes_stays_as_it_was(options, tiny_weights):
    """A run for one factor leaves the ends of the others alone, with either optimiser."""
    before = tensors_of(tiny_weights)
    for optimizer in ("muon", "adam"):
        config = options(optimizer, init_from=tiny_weights, scales=(3.0,), optimizer=optimizer)

        train(config)

        after = tensors_of(config.output / "model.safetensors")
        moved = {name for name in after if not torch.equal(before[name], after[name])}
        assert {name.split(".")[0] for name in after.keys() - moved} == {"stems", "heads"}


def test_weights_of_another_shape_are_refused(options, tiny_weights, tiny_config):
    """A run cannot start from weights of another net; nothing is left behind."""
    other = dataclasses.replace(tiny_config, widths=(10, 12))
    config = options(init_from=tiny_weights, model=other)
    with pytest.raises(UsageError) as caught:
        train(config)

    assert str(caught.value) == (
        f"--init-from {tiny_weights}: its net has another shape than --set model asks "
        "for; use weights of that shape"
    )
    assert not config.output.exists()


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"datasets": ("nowhere",)}, DataError),
        ({"datasets": ("celeba",)}, DataError),
        ({"init_from": "nowhere.safetensors"}, WeightsError),
        ({"device": "cuda:99"}, DeviceError),
        ({"device": "abacus"}, UsageError),
        ({"dtype": "fp16"}, UsageError),
    ],
    ids=str,
)
def test_a_run_that_cannot_start_leaves_nothing(options, tmp_path, changes, error):
    """What is refused before the first step is refused before anything is written."""
    values = dict(changes)
    if values.get("datasets") == ("nowhere",):
        values["datasets"] = (str(tmp_path / "nowhere"),)
    if "init_from" in values:
        values["init_from"] = tmp_path / "nowhere.safetensors"
    config = options(**values)

    with pytest.raises(error) as caught:
        train(config)

    assert "\n" not in str(caught.value)
    assert not config.output.exists()


@pytest.mark.usefixtures("undrawn")
def test_a_directory_with_a_run_is_refused(options):
    """A run is never overwritten; the text names the two ways out."""
    config = options()
    train(config)
    before = files_below(config.output)

    with pytest.raises(OutputError) as caught:
        train(config)

    assert str(caught.value) == (
        f"{config.output} already holds a run: continue it with --resume {config.output}, "
        "or give another --output"
    )
    assert files_below(config.output) == before


def test_a_file_in_the_directorys_place_is_told(options, tmp_path):
    """An output that cannot be a directory is named before any image is read."""
    (tmp_path / "run").touch()

    with pytest.raises(OutputError, match=f"^cannot write the run directory {tmp_path / 'run'}: "):
        train(options(datasets=("nowhere",)))


# What can go wrong on the way


@pytest.fixture
def bad_step(monkeypatch):
    """Return a function that makes the loss of one step no number."""
    original = engine._loss

    def spoil(bad, value=math.nan):
        steps = itertools.count(1)

        def spoiled(output, target, kind):
            loss = original(output, target, kind)
            return loss * value if loss.requires_grad and next(steps) == bad else loss

        monkeypatch.setattr(engine, "_loss", spoiled)

    return spoil


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("bad", "value"), [(1, math.inf), *((bad, math.nan) for bad in (2, 5, 7, 10))]
)
def test_a_loss_that_is_not_finite_ends_the_run(options, bad_step, bad, value):
    """The step is named exactly; the last good state and the lines before it stay."""
    config = options(steps=10, eval_every=3, save_every=2)
    bad_step(bad, value)

    with pytest.raises(TrainingError) as caught:
        train(config)

    assert str(caught.value) == (
        f"the loss is no longer finite at step {bad}: resume from the last checkpoint or "
        "train again with a lower --lr than 0.001"
    )
    saved = sorted(int(path.stem[5:]) for path in (config.output / "state").iterdir())
    last = (bad - 1) // 2 * 2
    assert saved == [step for step in (last - 2, last) if step > 0]
    assert [int(row["step"]) for row in log_of(config)] == [
        step for step in (1, 3, 6, 9) if step < bad
    ]
    if saved:
        assert all(tensor.isfinite().all() for tensor in state_of(config).values())
        weights.load(config.output / "model.safetensors")


@pytest.mark.usefixtures("undrawn")
def test_a_run_that_blew_up_can_be_continued(options, bad_step, monkeypatch):
    """From the last good state a run goes on as one that never met the bad step."""
    config, clean = options(steps=6, save_every=2), options("clean", steps=6, save_every=2)
    train(clean)
    loss = engine._loss
    bad_step(5)
    with pytest.raises(TrainingError):
        train(config)
    monkeypatch.setattr(engine, "_loss", loss)

    train(config, resume=True)

    assert same(state_of(config), state_of(clean))


@pytest.mark.usefixtures("undrawn")
def test_a_loss_too_large_is_met_at_its_step(options):
    """A run that has really blown up says where, and what to try."""
    with pytest.raises(TrainingError) as caught:
        train(options(lr=1e10, warmup=0, steps=8))

    assert "lower --lr than 1e+10" in str(caught.value)
    assert caught.value.exit_code == 1


@pytest.mark.usefixtures("undrawn")
def test_weights_that_are_not_finite_are_not_saved(options, monkeypatch):
    """Weights that a last step made no numbers of are found before they replace good ones."""
    config = options(steps=3, save_every=2)
    original = engine.optimise

    def spoiling(run, batch, lr):
        original(run, batch, lr)
        if run.step == 3:
            with torch.no_grad():
                next(run.net.parameters()).mul_(math.nan)

    monkeypatch.setattr(training, "optimise", spoiling)

    with pytest.raises(TrainingError) as caught:
        train(config)

    assert str(caught.value) == (
        "the weights are no longer finite at step 3: resume from the last checkpoint or train "
        "again with a lower --lr than 0.001"
    )
    assert [path.name for path in (config.output / "state").iterdir()] == [
        "step-00000002.safetensors"
    ]
    weights.load(config.output / "model.safetensors")


@pytest.mark.usefixtures("undrawn")
def test_a_blown_up_run_that_is_stopped_saves_nothing(options, bad_step):
    """Stopping a run whose loss is not finite ends with the error, not with its weights."""
    config = options(steps=20)
    bad_step(3)
    stops = iter([False] * 4 + [True])

    with pytest.raises(TrainingError, match="at step 3:"):
        train(config, should_stop=lambda: next(stops))

    assert not (config.output / "model.safetensors").exists()
    assert not list((config.output / "state").iterdir())


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("place", ["net", "evaluation"])
@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
    ],
    ids=["gpu", "cpu"],
)
def test_too_little_memory_is_told(options, monkeypatch, place, error):
    """Whatever runs out of memory, in a step or an evaluation, says what to make smaller."""

    def fail(*_):
        raise error

    if place == "net":
        monkeypatch.setattr(engine, "_loss", fail)
    else:
        monkeypatch.setattr(engine, "restored", fail)

    with pytest.raises(DeviceError) as caught:
        train(options(batch_size=7, steps=1))

    assert str(caught.value) == "cpu is out of memory: use a smaller --batch-size than 7"


@pytest.mark.usefixtures("undrawn")
def test_a_bug_is_not_taken_for_want_of_memory(options, monkeypatch):
    """Any other error of torch comes through as it is."""

    def fail(*_):
        raise RuntimeError("shapes cannot be multiplied")

    monkeypatch.setattr(engine, "_loss", fail)

    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        train(options())


@pytest.mark.usefixtures("undrawn")
def test_a_full_disk_leaves_a_run_that_can_go_on(options, monkeypatch):
    """A save that fails is one line; with room again the run ends as if nothing had been."""
    config, clean = options(steps=6, save_every=2), options("clean", steps=6, save_every=2)
    train(clean)
    original, calls = weights.save_file, itertools.count(1)

    def failing(*arguments):
        if next(calls) == 3:  # the second checkpoint: each save writes state and weights
            raise OSError(28, "No space left on device")
        original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(weights, "save_file", failing)
        with pytest.raises(OutputError) as caught:
            train(config)
    report = train(config, resume=True)

    assert str(caught.value).startswith(f"cannot write the checkpoint in {config.output}: ")
    assert "No space left on device" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert report.finished
    assert same(state_of(config), state_of(clean))


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("resident", [True, False], ids=["kept", "decoded"])
def test_unreadable_images_are_counted_and_named(options, crowd, monkeypatch, resident):
    """A damaged image in a hundred costs a line at the end, and the run goes on without it."""
    if not resident:
        monkeypatch.setattr(loading, "_RESIDENT_BYTES", 0)
    config = options(datasets=(str(crowd),), sampling="epoch", steps=7, batch_size=16)
    train_images = splits_of(config).train
    broken = train_images.label(40)
    whole = (crowd / broken).read_bytes()
    (crowd / broken).write_bytes(whole[: len(whole) // 2])
    told = []

    report = train(config, on_message=told.append)

    assert (report.step, report.skipped, report.finished) == (7, 1, True)
    assert told[0] == "1 images could not be read and were left out:"
    assert told[1].startswith(f"  {broken}: ")
    assert len(told) == 2
    listed = (config.output / "skipped.txt").read_text(encoding="utf-8")
    assert listed == told[1].strip() + "\n"


@pytest.mark.usefixtures("undrawn")
def test_many_unreadable_images_are_named_in_the_file_alone(options, monkeypatch):
    """Ten are named at the end, the rest is counted; the file has them all."""
    reasons = {place: f"{place:02}.png: cut" for place in range(13)}
    original = training.start

    def with_failures(*arguments, **named):
        run = original(*arguments, **named)
        run.loader.failures.update((place + 100, reason) for place, reason in reasons.items())
        return run

    monkeypatch.setattr(training, "start", with_failures)
    told = []

    report = train(options(steps=1), on_message=told.append)

    assert report.skipped == 13
    assert told[0] == "13 images could not be read and were left out:"
    assert told[1:11] == [f"  {reasons[place]}" for place in range(10)]
    assert told[11:] == [f"  and 3 more: {options().output / 'skipped.txt'}"]
    listed = (options().output / "skipped.txt").read_text(encoding="utf-8").splitlines()
    assert listed == list(reasons.values())


@pytest.mark.usefixtures("undrawn")
def test_a_set_that_is_mostly_damaged_ends_the_run(options, crowd):
    """More than one image in a hundred stops the run before anything is written."""
    config = options(datasets=(str(crowd),))
    for place in (3, 50):
        (crowd / splits_of(config).train.label(place)).write_bytes(b"no image")

    with pytest.raises(DataError) as caught:
        train(config)

    text = str(caught.value)
    assert text.startswith("2 of 108 images cannot be read, more than 1%: remove or replace them; ")
    assert "\n" not in text
    assert not config.output.exists()


def test_a_damaged_sample_costs_no_more_than_its_picture(options, crowd):
    """An image for the samples alone that cannot be read leaves the others to be drawn."""
    config = options(datasets=(str(crowd),), split="paper", eval_images=1, steps=1)
    test = splits_of(config).test
    assert len(test) == 1
    (crowd / test.label(0)).write_bytes(b"no image")

    report = train(config)

    assert report.finished
    assert not (config.output / "samples.png").exists()
    assert (config.output / "curves.png").exists()


# What a run would cost


@pytest.fixture
def brief(monkeypatch):
    """Measure a dry run by as few steps as it can do with."""
    monkeypatch.setattr(training, "_BURST_SECONDS", 0.0)


@pytest.mark.usefixtures("brief")
def test_a_dry_run_writes_nothing(options, tmp_path):
    """After it every folder is as it was, and nothing is left in the net's place."""
    config = options()
    before = sorted(tmp_path.rglob("*"))

    dry_run(config)

    assert sorted(tmp_path.rglob("*")) == before == []


@pytest.mark.usefixtures("brief")
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
        (
            {"steps": None, "max_seconds": 600},
            {"steps": None, "patches": None, "evaluations": None, "seconds": 600},
        ),
        ({"limit": 1}, {"train_images": 1, "held_images": 0, "evaluations": 0}),
    ],
    ids=["base", "paper", "evaluations", "time", "one image"],
)
def test_a_dry_run_counts(options, crowd, changes, expected):
    """Images of each part, steps, patches and evaluations are those of the run."""
    plan = dry_run(options(datasets=(str(crowd),), **changes))

    assert {name: getattr(plan, name) for name in expected} == expected


@pytest.mark.usefixtures("brief", "undrawn")
@pytest.mark.parametrize("every", [2, 3, 100])
def test_a_dry_run_counts_the_evaluations_that_there_will_be(options, every):
    """The one at the end is counted too, and once."""
    config = options(steps=4, eval_every=every)

    plan = dry_run(config)
    train(config)

    assert plan.evaluations == sum(row["eval_psnr"] != "" for row in log_of(config))


@pytest.mark.usefixtures("brief")
def test_a_dry_run_measures(options, tiny_config):
    """Speed and time are positive and fit together; the net is counted, and the memory."""
    plan = dry_run(options(steps=1000, degradation=Degradation.parse("jpeg=50..90")))

    assert (plan.device, plan.dtype, plan.processes, plan.resident) == ("cpu", "float32", 1, True)
    assert plan.parameters == parameter_count(tiny_config)
    scales = [2, 2, 3, 3, 4]
    mean = sum(multiply_adds(tiny_config.at(scale)) for scale in scales) / len(scales)
    assert plan.gmac_per_patch == pytest.approx(mean / 1e9)
    assert 0 < plan.patches_per_second < 1e6
    assert plan.seconds >= plan.patches / plan.patches_per_second
    assert plan.seconds < 10 * plan.patches / plan.patches_per_second
    assert 50e6 < plan.memory < 100e9


@pytest.mark.usefixtures("brief")
def test_a_time_limit_bounds_the_estimate(options):
    """A run that is stopped by the clock lasts no longer."""
    assert dry_run(options(steps=10**9, max_seconds=60)).seconds == 60


@pytest.mark.parametrize(
    ("changes", "error"), [({"datasets": ("nowhere",)}, DataError), ({"dtype": "fp16"}, UsageError)]
)
def test_a_dry_run_refuses_what_a_run_would(options, changes, error):
    """Data that is missing and options that contradict each other are found."""
    with pytest.raises(error):
        dry_run(options(**changes))


def test_a_dry_run_tells_of_too_little_memory(options, monkeypatch):
    """The burst finds a batch that does not fit, in the run's own words."""

    def fail(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(engine, "_loss", fail)

    with pytest.raises(DeviceError, match=r"use a smaller --batch-size than 4$"):
        dry_run(options())


@pytest.mark.usefixtures("brief")
def test_the_burst_changes_no_weights(options):
    """The steps that are measured have a learning rate of zero."""
    config = options(model=dataclasses.replace(options().model))
    run = engine.start(config, Team(CPU), pytest.fail)
    before = {name: tensor.clone() for name, tensor in run.net.state_dict().items()}

    training._burst(run)

    assert same(before, run.net.state_dict())


# The compiled net


@pytest.mark.usefixtures("undrawn")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_compiled_net_trains_alike(options, monkeypatch):
    """The net is traced, differentiated and run as one graph, and its tensors keep their names.

    The compiler's back end, which is torch's own business, needs g++ and most of a minute.
    """
    noted, compile_ = [], torch.compile
    monkeypatch.setattr(
        torch,
        "compile",
        lambda net, **how: noted.append(net) or compile_(net, backend="aot_eager", **how),
    )
    eager, compiled = options("eager", steps=3), options("compiled", steps=3, compile=True)
    reports = [train(config) for config in (eager, compiled)]

    assert len(noted) == 1
    assert reports[1].loss == pytest.approx(reports[0].loss, rel=1e-4)
    assert reports[1].scores.psnr == pytest.approx(reports[0].scores.psnr, abs=1e-3)
    found, expected = part_of(compiled, "net."), part_of(eager, "net.")
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        # Adam's first steps have the size of the rate whatever the gradient's: 3 of 1e-3.
        torch.testing.assert_close(tensor, expected[name], rtol=1e-3, atol=2e-4)


def test_a_gpu_may_try_its_kernels_while_a_run_lasts():
    """While a run lasts cuDNN looks for the fastest for the shapes of a step, on a GPU alone."""
    before = torch.backends.cudnn.benchmark
    for device in (CPU, torch.device("cuda")):
        with engine.fastest_kernels(device):
            assert torch.backends.cudnn.benchmark == (before or device.type == "cuda")
        assert torch.backends.cudnn.benchmark == before
