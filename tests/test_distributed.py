"""Several processes under ``torchrun`` train the net of one: the same curve, told once."""

import csv
import dataclasses
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import srcli
from srcli.data.pool import open_pool, split
from srcli.data.sampling import Sampler
from srcli.errors import UsageError
from srcli.model import weights
from srcli.ops.degradation import Degradation
from srcli.training import engine
from srcli.training.config import TrainConfig
from srcli.training.distributed import Team, join_team
from srcli.training.run_directory import load_options
from srcli.training.trainer import train

CPU = torch.device("cpu")
STEPS = 10
ENVIRONMENT = {"PYTHONPATH": str(Path(srcli.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


@pytest.fixture
def place(monkeypatch):
    """Return a function that sets what ``torchrun`` tells a process."""
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)

    def tell(**values):
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    return tell


# Alone


def test_without_torchrun_there_is_a_team_of_one(place):
    """One process leads, keeps its values and waits for nobody."""
    place()
    with join_team(lambda local, size: torch.device("cpu", local) if size == 1 else None) as team:
        values = torch.rand(3)

        assert (team.rank, team.size, team.leads) == (0, 1, True)
        assert team.device == torch.device("cpu", 0)
        assert team.sum(values) is values
        assert team.mean(values) is values
        assert team.gather(["b", "a", "b"]) == ["a", "b"]
        assert team.agree(stop=True, seconds=1.5) == (True, 1.5)
        assert team.agree(stop=False, seconds=2.5) == (False, 2.5)
        team.wait()


@pytest.mark.parametrize("size", [1, 2, 3, 6])
def test_a_batch_is_parted_among_the_processes(size):
    """Every row of a batch is that of one process, in the order of their ranks."""
    rows = [list(range(12))[Team(CPU, rank, size).rows(12)] for rank in range(size)]

    assert [row for part in rows for row in part] == list(range(12))
    assert {len(part) for part in rows} == {12 // size}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"RANK": "x"}, "RANK, LOCAL_RANK, WORLD_SIZE must be whole numbers: use torchrun"),
        ({"WORLD_SIZE": "1.5"}, "RANK, LOCAL_RANK, WORLD_SIZE must be whole numbers: use torchrun"),
        ({"RANK": "1"}, "RANK 1 is not below WORLD_SIZE 1: use torchrun"),
        ({"RANK": "-1"}, "RANK -1 is not below WORLD_SIZE 1: use torchrun"),
        ({"WORLD_SIZE": "0"}, "RANK 0 is not below WORLD_SIZE 0: use torchrun"),
        ({"LOCAL_RANK": "-1"}, "RANK 0 is not below WORLD_SIZE 1: use torchrun"),
    ],
    ids=str,
)
def test_a_place_that_cannot_be_is_one_line(place, values, message):
    """Variables that ``torchrun`` would not set are named."""
    place(**values)

    with pytest.raises(UsageError) as caught, join_team(lambda *_: CPU):
        pytest.fail("nobody joined")

    assert str(caught.value) == message


def test_processes_that_cannot_meet_are_one_line(place):
    """A number of processes without a place to meet says what is missing."""
    place(RANK="0", WORLD_SIZE="2")

    with pytest.raises(UsageError) as caught, join_team(lambda *_: CPU):
        pytest.fail("nobody joined")

    text = str(caught.value)
    assert text.startswith("the 2 processes of WORLD_SIZE cannot find each other: ")
    assert "MASTER_ADDR" in text
    assert text.endswith("; use torchrun")
    assert "\n" not in text


@pytest.mark.parametrize(
    ("size", "limit", "counts"), [(1, 9, [9]), (2, 9, [5, 4]), (3, 2, [1, 1, 0])]
)
def test_evaluation_images_are_parted_among_the_processes(make, size, limit, counts):
    """Each image is one process's, an odd one too, and a process may have none."""
    config = make("unused", eval_images=limit)
    held = split(open_pool(config.datasets, config.data_dir, 0), 0, "paper").evaluation

    parts = [engine._centers(config, Team(CPU, rank, size), held, CPU, 1) for rank in range(size)]

    assert [part.count for part in parts] == counts
    places = [place for part in parts for place in part._places]
    assert sorted(places) == [i * 9 // limit for i in range(limit)]


# Two processes in a session of their own: they train one run after the other

CREW = '''
"""Train several runs by two processes, and write down what each of them saw."""
import gc, itertools, json, math, os, signal, sys
from dataclasses import asdict, replace
from pathlib import Path
import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel
from srcli.data import loading
from srcli.training import curves as plots, engine, trainer as training
from srcli.errors import SrcliError
from srcli.training.config import TrainConfig
from srcli.training.run_directory import load_options

folder, rank = Path(sys.argv[1]), int(os.environ["RANK"])
training._LOG_EVERY = 4
training._BURST_SECONDS = 0.0
plots.curves = plots.samples = lambda *_, **__: None
torch.set_num_threads(1)
gc.disable()  # what is freed in time is freed on purpose, and not by chance
seen = {"reducers": []}
destroy = distributed.destroy_process_group


def counting_destroy():
    """Count the nets that would outlive their group."""
    alive = [type(one) for one in gc.get_objects()].count(DistributedDataParallel)
    seen["reducers"].append(alive)
    destroy()


distributed.destroy_process_group = counting_destroy


def options(name):
    return TrainConfig.from_json((folder / f"{name}.json").read_text())


def attempt(name, call, *arguments, **named):
    """Call something and note its result, or the error, or that the process ended silently."""
    told, steps = [], []
    try:
        if call is training.train:
            named["on_progress"] = lambda progress: steps.append(progress.step)
        result = asdict(call(*arguments, on_message=told.append, **named))
    except SrcliError as error:
        result = {"error": str(error), "code": error.exit_code}
    except SystemExit as end:
        result = {"silent": end.code}
    seen[name] = {"result": result, "told": told, "steps": steps}


def after(steps, only=None):
    count = itertools.count(1)
    return lambda: next(count) >= steps and only in (None, rank)


pair, crowd = options("pair"), options("crowd")
attempt("pair", training.train, pair)
parted = replace(pair, output=folder / "parted")
attempt("first part", training.train, parted, should_stop=after(5))
attempt("second part", training.train, load_options(parted.output), resume=True)
halved = replace(pair, output=folder / "halved")
attempt("halved", training.train, halved, should_stop=after(7, only=1))
attempt("joined", training.train, load_options(folder / "single"), resume=True)
attempt("refused", training.train, pair)
attempt("unshareable", training.train, load_options(folder / "odd"), resume=True)
attempt("no data", training.train, replace(pair, output=folder / "x", datasets=("nowhere",)))
attempt("no device", training.train, replace(pair, output=folder / "x", device="cuda:99"))
attempt("time", training.train, replace(pair, output=folder / "time", steps=None, max_seconds=0.2))
attempt("dry", training.dry_run, replace(pair, output=folder / "dry"))
attempt("dry one", training.dry_run, replace(pair, output=folder / "dry", eval_images=1))

resident, loading._RESIDENT_BYTES = loading._RESIDENT_BYTES, 0
attempt("crowd", training.train, crowd)
loading._RESIDENT_BYTES = resident

loss, calls = engine._loss, itertools.count(1)
def spoiled(output, target, kind):
    bad = output.requires_grad and next(calls) == 3 and rank == 1
    return loss(output, target, kind) * (math.nan if bad else 1)
engine._loss = spoiled
attempt("nan", training.train, replace(pair, output=folder / "nan"))
engine._loss = loss

(folder / f"seen-{rank}.json").write_text(json.dumps(seen))

# The last run: one process is gone without a word.
signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun ends the other one, which has to write
optimise = training.optimise
def dying(run, batch, lr):
    optimise(run, batch, lr)
    if run.step == 3 and rank == 1:
        os._exit(77)
training.optimise = dying
attempt("lost", training.train, replace(pair, output=folder / "lost", save_every=2))
(folder / f"lost-{rank}.json").write_text(json.dumps(seen["lost"]))
'''


@pytest.fixture(scope="module")
def pictures(tmp_path_factory, image_folder):
    """Twelve images, of which the paper's split leaves nine to evaluate on: an odd number."""
    folder = tmp_path_factory.mktemp("pictures")
    for index in range(12):
        shutil.copy(image_folder / f"{index % 6}.png", folder / f"{index}.png")
    return folder


@pytest.fixture(scope="module")
def make(tmp_path_factory, pictures, tiny_config):
    """Return a function that makes the options of a run of eight patches a step."""
    folder = tmp_path_factory.mktemp("crew")

    def options(name, **changes):
        values = {
            "output": folder / name,
            "datasets": (str(pictures),),
            "data_dir": folder,
            "model": tiny_config,
            "scales": (2.0, 3.0),
            "degradation": Degradation.parse("blur=0..1,noise=0..5,jpeg=50..95"),
            "split": "paper",
            "batch_size": 8,
            "steps": STEPS,
            "warmup": 2,
            "lr": 3e-3,
            "ema": 0.9,
            "clip": 0.05,
            "eval_every": 5,
            "eval_images": None,
            "device": "cpu",
            "dtype": "fp32",
            "workers": 1,
        }
        return TrainConfig(**(values | changes))

    return options


def after(steps):
    """Ask a run to stop after so many steps."""
    done = iter(range(1, 10**6))
    return lambda: next(done) >= steps


def hasten(patch):
    """Log at steps 4 and 8 too, and draw nothing."""
    patch.setattr("srcli.training.trainer._LOG_EVERY", 4)
    for name in ("curves", "samples"):
        patch.setattr(f"srcli.training.curves.{name}", lambda *_, **__: None)


@pytest.fixture(scope="module")
def crowded(tmp_path_factory, image_folder, make):
    """Options of a run of 220 images, each read once; of two processes each meets a damaged one."""
    folder = tmp_path_factory.mktemp("crowd")
    for index in range(220):
        shutil.copy(image_folder / f"{index % 6}.png", folder / f"{index:03}.png")
    config = make(
        "crowd",
        datasets=(str(folder),),
        split="held-out",
        sampling="epoch",
        batch_size=12,
        steps=9,
        eval_images=1,
    )
    images = split(open_pool(config.datasets, folder, 0), 0, "held-out").train
    sampler = Sampler(len(images), 0, scales=(3.0,), augment="turn")
    for step, row in ((2, 3), (5, 20)):
        broken = Path(images.label(sampler.draw(step, 24).images[row]))
        broken.write_bytes(broken.read_bytes()[:1000])
    return config


@dataclasses.dataclass
class Crew:
    """What two processes did, and the options that they were given."""

    folder: Path
    seen: list
    lost: dict
    stderr: str


@pytest.fixture(scope="module")
def crew(make, crowded):
    """Let two processes train every run that the tests look at."""
    folder = make("x").output.parent
    with pytest.MonkeyPatch.context() as patch:
        hasten(patch)
        train(make("whole"))
        train(make("single"), should_stop=after(5))
        train(make("odd", batch_size=7), should_stop=after(1))
    pair = dataclasses.replace(make("pair"), batch_size=4)
    (folder / "pair.json").write_text(pair.to_json(), encoding="utf-8")
    (folder / "crowd.json").write_text(crowded.to_json(), encoding="utf-8")
    (folder / "crew.py").write_text(CREW, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, *TORCHRUN, folder / "crew.py", folder],
        capture_output=True,
        check=False,
        encoding="utf-8",
        timeout=300,
        env=os.environ | ENVIRONMENT,
    )
    files = [folder / f"seen-{rank}.json" for rank in range(2)]
    assert all(file.exists() for file in files), done.stderr
    seen = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    lost = json.loads((folder / "lost-0.json").read_text(encoding="utf-8"))
    return Crew(folder, seen, lost, done.stderr)


def log_of(run):
    """Read a log's columns as numbers, without the time."""
    with (run / "log.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    names = [name for name in rows[0] if name != "seconds"]
    return {name: [float(row[name] or math.nan) for row in rows] for name in names}


def check_same_curve(run, other, rel=1e-4):
    """Check that two logs say the same, to a share of each value."""
    found, expected = log_of(run), log_of(other)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert found[name] == pytest.approx(values, rel=rel, nan_ok=True), name


def state_of(run):
    """Read a run's newest checkpoint."""
    return weights.read_tensors(max((run / "state").glob("*.safetensors")))[1]


@pytest.mark.slow
def test_two_processes_train_the_net_of_one(crew):
    """Four patches each are the eight of one process: the same curve, and the same weights."""
    check_same_curve(crew.folder / "pair", crew.folder / "whole")

    found, expected = state_of(crew.folder / "pair"), state_of(crew.folder / "whole")
    for name, tensor in expected.items():
        # Muon orthogonalises in bf16, and Adam's first steps have the size of the rate whatever
        # the gradient's: single weights may differ by a step, a whole tensor by little.
        distance = (found[name].double() - tensor).norm() / tensor.double().norm().clamp(min=1e-12)
        # An absolute error's gradient is its sign: rounding turns it over where there is little.
        assert distance < (0.1 if name.startswith("optimizer.") else 0.03), name


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, True),
        ({"batch_size": 2}, True),
        ({"batch_size": 1}, False),  # a process has one of the two factors
        ({"balanced": False}, False),  # all may draw the same
        ({"scales": (3.0,)}, False),  # nobody goes by the path of x2
        ({"scales": (2.0,)}, False),
        ({"scales": (2.0, 2.0, 3.0), "batch_size": 2}, False),
    ],
    ids=str,
)
def test_processes_look_for_unused_weights_only_where_there_may_be_some(make, changes, expected):
    """Looking takes a while each step, and where there are none PyTorch warns."""
    assert engine._goes_every_way(make("ways", **changes)) is expected


def test_a_net_of_one_way_uses_all_of_it(make, tiny_config):
    """Without paths every factor goes the same way, drawn or in turn."""
    config = make("way", model=dataclasses.replace(tiny_config, paths=()), balanced=False)

    assert engine._goes_every_way(config)


@pytest.mark.slow
def test_two_processes_have_nothing_to_be_warned_of(crew):
    """The terminal is srcli's: no line of PyTorch's own is on it."""
    assert "find_unused_parameters" not in crew.stderr


@pytest.mark.slow
def test_the_scores_are_those_of_all_evaluation_images(crew):
    """Nine images, five here and four there, count each the same; the baseline is one number."""
    rows = log_of(crew.folder / "pair")
    expected = log_of(crew.folder / "whole")

    assert crew.seen[0]["dry"]["result"]["evaluation_images"] == 9
    assert rows["baseline_psnr"][-1] == pytest.approx(expected["baseline_psnr"][-1], rel=1e-7)
    results = [seen["pair"]["result"] for seen in crew.seen]
    assert results[0]["scores"] == results[1]["scores"]
    assert results[0]["loss"] == results[1]["loss"]


@pytest.mark.slow
def test_two_processes_write_one_run(crew):
    """There is one log, one state and one set of weights, which count everybody's patches."""
    names = sorted(
        path.relative_to(crew.folder / "pair").as_posix()
        for path in (crew.folder / "pair").rglob("*")
    )

    assert names == [
        "log.csv",
        "model.safetensors",
        "options.json",
        "state",
        "state/step-00000010.safetensors",
    ]
    assert log_of(crew.folder / "pair")["step"] == [1, 4, 5, 8, 10]
    options = load_options(crew.folder / "pair")
    assert (options.batch_size, options.processes, options.batch) == (4, 2, 8)
    header = weights.read_header(crew.folder / "pair" / "model.safetensors")
    assert (header.training["batch_size"], header.training["patches"]) == (8, 80)
    assert [seen["pair"]["told"] for seen in crew.seen] == [[], []]


@pytest.mark.slow
def test_a_run_of_two_resumed_by_two_ends_like_an_undisturbed_one(crew):
    """Weights and moments are the same to the last bit, and the log as it is written."""
    parted, pair = crew.folder / "parted", crew.folder / "pair"

    assert [seen["first part"]["result"]["step"] for seen in crew.seen] == [5, 5]
    found, expected = state_of(parted), state_of(pair)
    assert found.keys() == expected.keys()
    assert [name for name in found if not torch.equal(found[name], expected[name])] == []
    check_same_curve(parted, pair, rel=1e-7)


@pytest.mark.slow
def test_a_run_of_one_is_continued_by_two(crew):
    """Whoever shares the batch, it stays that of the run: the curve goes on."""
    assert [seen["joined"]["result"]["step"] for seen in crew.seen] == [STEPS, STEPS]
    check_same_curve(crew.folder / "single", crew.folder / "whole")


@pytest.mark.slow
def test_a_run_of_two_is_continued_by_one(crew, monkeypatch):
    """A stop that only one process asked for stops both at one step; one alone goes on."""
    hasten(monkeypatch)
    for seen in crew.seen:
        assert seen["halved"]["result"]["step"] == 7
        assert not seen["halved"]["result"]["finished"]

    report = train(load_options(crew.folder / "halved"), resume=True)

    assert (report.step, report.patches) == (STEPS, 8 * STEPS)
    check_same_curve(crew.folder / "halved", crew.folder / "whole")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "code", "text"),
    [
        (
            "unshareable",
            2,
            r"--resume .*: its batch of 7 patches cannot be shared by 2 processes; use a number .*",
        ),
        ("refused", 1, r".* already holds a run: continue it with --resume .*"),
        ("no data", 4, r".*nowhere.*"),
        ("no device", 5, r"--device cuda:99: this machine has .*"),
        ("nan", 1, r"the loss is no longer finite at step 3: .*"),
    ],
)
def test_one_process_says_what_went_wrong(crew, name, code, text):
    """Whoever fails first speaks, whether one or both of them meet the error."""
    results = [seen[name]["result"] for seen in crew.seen]
    (spoken,) = [result for result in results if "error" in result]
    (silent,) = [result for result in results if "error" not in result]

    assert spoken["code"] == code
    assert re.fullmatch(text, spoken["error"])
    assert silent.keys() == {"silent"}
    assert silent["silent"] in {1, code}


@pytest.mark.slow
def test_a_loss_that_one_process_saw_leaves_nothing(crew):
    """What is not finite in one of them gets into no log, checkpoint or weights."""
    run = crew.folder / "nan"

    assert log_of(run)["step"] == [1]
    assert not list((run / "state").iterdir())
    assert not (run / "model.safetensors").exists()


@pytest.mark.slow
def test_a_process_that_is_gone_is_missed(crew):
    """The other one says so instead of waiting; the last checkpoint is there to go on from."""
    assert crew.lost["result"]["error"] == (
        "another process of this run has ended (killed, or out of memory): use --resume to "
        "continue from the last checkpoint"
    )
    steps = [int(path.stem[5:]) for path in (crew.folder / "lost" / "state").iterdir()]
    assert steps == [2]


@pytest.mark.slow
def test_no_reducer_outlives_its_group(crew):
    """However a run ends, its gradients' reducer goes first: torch could wait for ever else."""
    for seen in crew.seen:
        assert len(seen["reducers"]) > 10
        assert set(seen["reducers"]) == {0}


@pytest.mark.slow
def test_the_clock_stops_both(crew):
    """A run that is ended by its time ends at one step, by one clock."""
    results = [seen["time"]["result"] for seen in crew.seen]

    assert results[0]["step"] == results[1]["step"] >= 1
    assert results[0]["seconds"] == results[1]["seconds"] >= 0.2
    assert all(result["finished"] for result in results)


@pytest.mark.slow
def test_unreadable_images_of_both_are_told_once(crew, crowded):
    """Each process meets its own; all are counted by both, and named by the first alone."""
    results = [seen["crowd"]["result"] for seen in crew.seen]
    first, second = (seen["crowd"]["told"] for seen in crew.seen)
    listed = (crowded.output / "skipped.txt").read_text(encoding="utf-8").splitlines()

    assert second == []
    assert results[0]["skipped"] == results[1]["skipped"] == len(listed)
    assert first == [
        f"{len(listed)} images could not be read and were left out:",
        *[f"  {line}" for line in listed],
    ]
    assert listed == sorted(listed)
    assert len(listed) == 2


@pytest.mark.slow
def test_a_dry_run_of_two_counts_as_one(crew):
    """Images and patches are those of both, and nothing is written."""
    for seen in crew.seen:
        plan, few = seen["dry"]["result"], seen["dry one"]["result"]
        assert (plan["processes"], plan["batch"], plan["patches"]) == (2, 8, 8 * STEPS)
        assert (plan["train_images"], plan["held_images"]) == (3, 9)
        assert plan["evaluations"] == 2
        assert plan["patches_per_second"] > 0
        assert few["evaluation_images"] == 1
    assert not (crew.folder / "dry").exists()


# The command line under torchrun


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
def test_torchrun_can_be_stopped(make, tmp_path, monkeypatch):
    """SIGTERM to ``torchrun`` saves once, is told, and leaves a run that one process resumes."""
    hasten(monkeypatch)
    config = make("unused")
    (tmp_path / "tiny.json").write_text(config.model.to_json(), encoding="utf-8")
    run = tmp_path / "run"
    command = [
        *("train", "--dataset", *config.datasets, "--set", f"model={tmp_path / 'tiny.json'}"),
        *(
            "--set",
            "split=paper",
            "--batch-size",
            "4",
            "--steps",
            "100000",
            "--set",
            "save_every=20",
        ),
        *("--set", "eval_every=20", "--device", "cpu", "--dtype", "fp32", "--set", "workers=1"),
        *("--threads", "1", "--output", str(run)),
    ]
    process = subprocess.Popen(
        [sys.executable, *TORCHRUN, "-m", "srcli", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        env=os.environ | ENVIRONMENT,
    )
    try:
        deadline = time.monotonic() + 120
        while not list(run.glob("state/step-*")):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(timeout=60)
    finally:
        process.terminate()

    told = re.findall(r"interrupted at step (\d+); continue with: srcli train --resume", stderr)
    newest = max(run.glob("state/step-*"))
    assert [int(step) for step in told] == [int(newest.stem[5:])], "the first process alone"
    assert "[rank1]: Traceback" not in stderr
    options = dataclasses.replace(load_options(run), steps=int(told[0]) + 2)
    report = train(options, resume=True)
    assert (report.step, report.finished) == (options.steps, True)
    assert report.patches == 8 * options.steps
    steps = log_of(run)["step"]
    assert steps == sorted(set(steps))
