"""``srcli train`` as a researcher types it: data sets by name, recipes, reports, resuming."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import pytest
from command_runs import run
from PIL import Image
from run_files import contents

from srcli import files
from srcli.data import downloads
from srcli.model import weights
from srcli.model.config import PAPER
from srcli.model.network import parameter_count
from srcli.training import estimate
from srcli.training.distributed import ProcessGroup
from srcli.training.estimate import dry_run

EXACT = ("--device", "cpu", "--dtype", "fp32", "--threads", "1")
TINY = ("--set", "model=tiny.json", "--batch-size", "2", *EXACT)

NOTICE = "warning: celeba: 12 of the 202,599 images are in data/celeba; continuing with these\n"
"""What every command says of this little CelebA."""


@pytest.fixture(autouse=True)
def _brief(monkeypatch):
    """Measure as few steps for an estimate as can be."""
    monkeypatch.setattr(estimate, "_BURST_SECONDS", 0.0)


@pytest.fixture
def desk(here, monkeypatch, tiny_weights, tiny_config, celeba):
    """A working directory with twelve faces of CelebA's layout in ``data/celeba``."""
    monkeypatch.setattr(files, "shipped", lambda: {"tiny": tiny_weights, "base": tiny_weights})
    Path("tiny.json").write_text(tiny_config.to_json(), encoding="utf-8")
    shutil.copytree(celeba, "data/celeba")
    return here


@pytest.fixture(scope="module")
def celeba_run(tmp_path_factory, celeba):
    """Two epochs of a narrow net of the paper's in ``run``: the folder, how the command ended."""
    folder = tmp_path_factory.mktemp("finished")
    shutil.copytree(celeba, folder / "data/celeba")
    narrow = dataclasses.replace(PAPER, widths=(6, 8, 8))
    (folder / "tiny.json").write_text(narrow.to_json(), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        result = run(
            *("train", "--dataset", "celeba", "--epochs", "2", "-o", "run", "-v", "--json", *TINY)
        )
    return folder, result


def test_the_report_can_be_read_by_a_script(celeba_run):
    """One object on stdout, all else on stderr; a named data set alone is the paper's recipe."""
    folder, result = celeba_run

    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert (report["step"], report["patches"], report["finished"]) == (4, 8, True)
    assert (report["stopped"], report["weights"]) == (False, "run/model.safetensors")
    assert report["scores"]["baseline_psnr"] > 0
    lines = result.stderr.removeprefix(NOTICE).splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        "step 2, epoch 1.00",
        "step 4, epoch 2.00",
        "run/model.safetensors",
    ]
    assert lines[-1].startswith("run/model.safetensors: 4 steps, 8 patches")
    made = weights.read_header(folder / "run/model.safetensors").training
    assert (made["recipe"], made["data"], made["images"]) == ("paper", ["celeba"], 3)
    assert made["optimizer"] == "Adam 0.001, warm-up 0 steps, constant"


def test_a_dry_run_writes_nothing(desk, tiny_config):
    """Images, steps, patches, parameters, speed and time in a few lines on stdout."""
    before = contents(desk)

    result = run("train", "--dataset", "celeba", "--dry-run", "-o", "run", *TINY)

    assert (result.exit_code, result.stderr) == (0, NOTICE)
    assert re.fullmatch(
        r"images       3 for training, 9 for evaluation, 0 for test\n"
        rf"net          {parameter_count(tiny_config):,} parameters\n"
        r"length       20 steps, 40 patches; an epoch: 2 of 2\n"
        r"measured     \d+\.\d patches/s in float32 on cpu\n"
        r"time         \d+(\.\d)? s\n",
        result.stdout,
    ), result.stdout
    assert contents(desk) == before


@pytest.mark.usefixtures("desk")
def test_every_field_of_a_recipe_is_an_option():
    """``--NAME VALUE`` and ``--NAME=VALUE`` say what ``--set`` says; without a value: one line."""
    length = ("train", "--dataset", "celeba", "--steps", "1")

    done = run(*length, "-o", "run", *TINY, "--eval-every", "7", "--ema=0.5")
    bare = run(*length, "--clip")

    assert done.exit_code == 0
    options = json.loads(Path("run/options.json").read_text(encoding="utf-8"))
    assert (options["eval_every"], options["ema"]) == (7, 0.5)
    assert (bare.exit_code, bare.stderr) == (2, "error: --clip needs a value; give one\n")


@pytest.mark.usefixtures("desk")
def test_an_infinite_score_is_null_in_the_report():
    """Of black pictures bicubic restores every pixel, which no number of JSON can say."""
    Path("black").mkdir()
    for name in "ab":
        Image.new("RGB", (120, 120)).save(f"black/{name}.png")

    result = run("train", "--dataset", "black", "--steps", "1", "--json", "-o", "run", *TINY)

    assert json.loads(result.stdout)["scores"]["baseline_psnr"] is None


@pytest.mark.usefixtures("desk")
def test_a_run_that_another_process_was_asked_to_stop_is_interrupted(monkeypatch):
    """The signal need not have come to the main process: it says 143 and how to resume."""
    monkeypatch.setattr(ProcessGroup, "agree", lambda _, *, stop, seconds: (not stop, seconds))

    result = run("train", "--dataset", "celeba", "--steps", "9", "-o", "run", *TINY)

    assert result.exit_code == 143
    assert result.stderr == (
        f"{NOTICE}interrupted at step 1; continue with: srcli train --resume run\n"
    )


def test_a_dry_run_of_a_resumed_run_leaves_it_as_it_is(celeba_run):
    """``--resume RUN --dry-run`` plans with the run's own options."""
    folder = celeba_run[0] / "run"
    before = contents(folder)

    plan = json.loads(run("train", "--resume", folder, "--dry-run", "--json").stdout)

    assert (plan["steps"], plan["batch"], plan["train_images"]) == (4, 2, 3)
    assert (plan["evaluation_images"], plan["test_images"], plan["processes"]) == (9, 0, 1)
    assert plan["patches_per_second"] > 0
    assert contents(folder) == before


@pytest.mark.parametrize("command", ["train", "eval"])
def test_downloads_come_first(desk, monkeypatch, command):
    """``--download`` fetches each data set that has a name, once, into its own folder."""
    asked = []
    monkeypatch.setattr(
        downloads, "download", lambda name, folder, **_: asked.append((name, folder.absolute()))
    )
    more = ["-n", "--steps", "1", *TINY] if command == "train" else ["-m", "tiny", *EXACT]

    option = ["--dataset"] if command == "train" else []
    result = run(command, *option, "celeba:test", "--download", *more)

    assert result.exit_code == 0, result.stderr
    assert asked == [("celeba", desk / "data" / "celeba")]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {},
            {"train_images": 108, "evaluation_images": 2, "test_images": 0}
            | {"batch": 4, "steps_per_epoch": 27, "steps": 4},
        ),
        (
            {"split": "paper", "sampling": "epoch", "steps": None, "epochs": 10, "eval_every": None}
            | {"eval_images": None, "batch_size": 8},
            {"train_images": 32, "evaluation_images": 77, "test_images": 1}
            | {"batch": 8, "steps_per_epoch": 4, "steps": 40},
        ),
        (
            {"eval_images": 1, "eval_every": 3, "steps": 10},
            {"evaluation_images": 1, "steps": 10},
        ),
        ({"steps": None, "max_seconds": 600}, {"steps": None, "seconds": 600}),
        ({"steps": 10**9, "max_seconds": 60}, {"seconds": 60}),
        ({"limit": 1}, {"train_images": 1, "evaluation_images": 0}),
    ],
    ids=["base", "paper", "evaluations", "time", "steps and time", "one image"],
)
def test_a_dry_run_counts(options, crowd, changes, expected):
    """Images of each part, steps, patches and evaluations are those of the run."""
    plan = dry_run(options(datasets=(str(crowd),), **changes))

    assert plan | expected == plan
