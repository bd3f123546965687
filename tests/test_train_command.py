"""``srcli train`` and ``srcli eval`` as a researcher types them: data sets by name, recipes."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from srcli import files
from srcli.cli.app import app
from srcli.data import downloads
from srcli.model import weights
from srcli.model.config import PAPER
from srcli.training.distributed import Team
from srcli.training.run_directory import load_options

EXACT = ("--device", "cpu", "--dtype", "fp32", "--threads", "1")
TINY = ("--set", "model=tiny.json", "--batch-size", "2", *EXACT)


@pytest.fixture
def desk(tmp_path, monkeypatch, tiny_weights, tiny_config):
    """A working directory with twelve faces of CelebA's layout in ``data/celeba``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(files, "shipped", lambda: {"tiny": tiny_weights, "base": tiny_weights})
    Path("tiny.json").write_text(tiny_config.to_json(), encoding="utf-8")
    faces = Path("data/celeba/img_align_celeba")
    faces.mkdir(parents=True)
    random = np.random.default_rng(3)
    lines = []
    for number in range(1, 13):
        rows = np.linspace(0, 6, 218)[:, None, None] * random.uniform(1, 5, 3)
        columns = np.linspace(0, 6, 178)[None, :, None] * random.uniform(1, 5, 3)
        pixels = (127 + 90 * np.sin(rows + columns)).astype(np.uint8)
        Image.fromarray(pixels).save(faces / f"{number:06d}.jpg", quality=90)
        lines.append(f"{number:06d}.jpg {0 if number < 9 else 2}\n")
    Path("data/celeba/list_eval_partition.txt").write_text("".join(lines), encoding="utf-8")
    return tmp_path


NOTICE = "warning: celeba: 12 of the 202,599 images are in data/celeba; continuing with these\n"
"""What every command says of this little CelebA."""


def run(*arguments):
    """Run a command line in this process; an error that is not ours fails the test."""
    return CliRunner().invoke(app, [str(part) for part in arguments], catch_exceptions=False)


def tree(folder):
    """Every path below a folder."""
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*"))


@pytest.mark.usefixtures("desk")
def test_a_named_data_set_is_trained_on_by_the_papers_recipe():
    """``--dataset celeba`` alone is the paper, but for what else is given."""
    result = run(
        "train", "--dataset", "celeba", "--epochs", "1", "--set", "model.join=last", *EXACT
    )

    assert (result.exit_code, result.stdout) == (0, "")
    options = load_options(Path("runs/paper"))
    assert (options.recipe, options.epochs, options.loss) == ("paper", 1.0, "mse")
    assert (options.split, options.sampling, options.augment) == ("paper", "epoch", "none")
    assert (options.batch_size, options.schedule, options.ema) == (8, "constant", 0.0)
    header = weights.read_header(Path("runs/paper/model.safetensors"))
    assert header.config.join == "last"
    assert header.config.widths == PAPER.widths
    assert header.training["recipe"] == "paper"
    assert header.training["data"] == ["celeba"]
    # 12 of 302,599 images: none of 4,000 for test, three of 86,799 for training, the rest.
    assert header.training["images"] == 3
    assert {"curves.png", "samples.png", "log.csv", "options.json"} <= set(tree("runs/paper"))


@pytest.mark.usefixtures("desk")
def test_a_folder_is_trained_on_by_the_base_recipe():
    """A folder among the data sets makes it ``base``, and a length has to be given."""
    result = run("train", "--dataset", "celeba", "--dataset", "data/celeba", *TINY)

    assert result.exit_code == 2
    assert result.stderr == "error: say how long to train: --steps, --epochs or --max-time\n"


@pytest.mark.usefixtures("desk")
def test_the_recipe_can_be_chosen():
    """``--recipe`` decides whatever the data set is called; steps replace its epochs."""
    result = run(
        *("train", "--dataset", "data/celeba", "--recipe", "paper", "--steps", "2", "-o", "run"),
        *("--set", "eval_images=2", *TINY),
    )

    assert result.exit_code == 0, result.stderr
    options = load_options(Path("run"))
    assert (options.recipe, options.steps, options.epochs) == ("paper", 2, None)
    assert options.model.output == "correction", "--config outweighs the recipe"


def test_a_dry_run_tells_and_writes_nothing(desk):
    """Images, steps, patches, parameters, speed, memory and time in a few lines on stdout."""
    before = tree(desk)

    result = run("train", "--dataset", "celeba", "--dry-run", "-o", "run", *TINY)

    assert (result.exit_code, result.stderr) == (0, NOTICE)
    assert re.fullmatch(
        r"images       3 for training, kept decoded in memory\n"
        r"             9 of 9 for evaluation, 0 for test\n"
        r"net          [\d,]+ parameters, 0\.\d\d GMAC a patch\n"
        r"length       20 steps, 40 patches; 2 steps of 2 an epoch\n"
        r"measured     \d+\.\d patches/s in float32 on cpu, \d+\.\d\d GiB in use at most\n"
        r"time         \d+(\.\d)? s\n",
        result.stdout,
    ), result.stdout
    assert tree(desk) == before


@pytest.mark.usefixtures("desk")
def test_a_dry_run_can_be_read_by_a_script():
    """``--json`` gives the same as one object."""
    result = run("train", "--dataset", "celeba:train", "-n", "--json", "--steps", "7", *TINY)

    plan = json.loads(result.stdout)
    assert (plan["steps"], plan["patches"], plan["batch"], plan["processes"]) == (7, 14, 2, 1)
    assert plan["train_images"] + plan["held_images"] + plan["test_images"] == 8
    assert plan["patches_per_second"] > 0
    assert plan["seconds"] > 0


@pytest.mark.usefixtures("desk")
def test_the_report_can_be_read_by_a_script():
    """``--json`` prints one object on stdout, the summary stays on stderr."""
    result = run("train", "--dataset", "celeba", "--steps", "2", "-o", "run", "--json", *TINY)

    report = json.loads(result.stdout)
    assert (report["step"], report["patches"], report["finished"]) == (2, 4, True)
    assert report["stopped"] is False
    assert report["weights"] == "run/model.safetensors"
    assert report["scores"]["baseline_psnr"] > 0
    assert 0 <= report["waited"] <= 1
    assert result.stderr.startswith(f"{NOTICE}run/model.safetensors: 2 steps")


@pytest.mark.usefixtures("desk")
def test_every_evaluation_can_be_told():
    """``--verbose`` says a line for each of two epochs, before the summary."""
    result = run("train", "--dataset", "celeba", "--epochs", "2", "-o", "run", "-v", *TINY)

    lines = result.stderr.removeprefix(NOTICE).splitlines()
    assert [line.partition(":")[0] for line in lines[:-1]] == [
        "step 2, epoch 1.00",
        "step 4, epoch 2.00",
    ]
    assert lines[-1].startswith("run/model.safetensors: 4 steps, 8 patches")


@pytest.mark.usefixtures("desk")
def test_a_run_that_another_process_was_asked_to_stop_is_interrupted(monkeypatch):
    """The signal need not have come to the process that talks: it says 143 and how to go on."""
    monkeypatch.setattr(Team, "agree", lambda _, *, stop, seconds: (not stop, seconds))

    result = run("train", "--dataset", "celeba", "--steps", "9", "-o", "run", *TINY)

    assert result.exit_code == 143
    assert result.stderr == (
        f"{NOTICE}interrupted at step 1; continue with: srcli train --resume run\n"
    )


@pytest.mark.usefixtures("desk")
def test_a_run_goes_on_with_the_images_it_was_begun_with():
    """An image more or less would draw another run: it is refused, and fine when put back."""
    run("train", "--dataset", "celeba", "--steps", "2", "-o", "run", *TINY)
    faces = Path("data/celeba/img_align_celeba")
    (faces / "000001.jpg").rename("kept.jpg")

    result = run("train", "--resume", "run")

    assert result.exit_code == 4
    told = result.stderr.splitlines()[-1]
    assert told.startswith("error: the images of celeba are no longer those that run was begun")
    Path("kept.jpg").rename(faces / "000001.jpg")
    assert run("train", "--resume", "run").exit_code == 0


@pytest.mark.usefixtures("desk")
def test_a_dry_run_of_a_resumed_run_is_told():
    """``--resume RUN --dry-run`` plans with the run's own options and leaves it as it is."""
    run("train", "--dataset", "celeba", "--steps", "2", "-o", "run", *TINY)
    before = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}

    plan = json.loads(run("train", "--resume", "run", "--dry-run", "--json").stdout)

    assert (plan["steps"], plan["batch"], plan["train_images"]) == (2, 2, 3)
    assert {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()} == before


@pytest.mark.usefixtures("desk")
def test_partitions_can_be_chosen():
    """``celeba:test`` is trained on four images of the twelve."""
    result = run("train", "--dataset", "celeba:test", "-n", "--json", "--steps", "1", *TINY)

    plan = json.loads(result.stdout)
    assert plan["train_images"] + plan["held_images"] + plan["test_images"] == 4


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--dataset", "celeba:all"], 2, "--dataset celeba:all: celeba has the parts train, "),
        (["--dataset", "stl10"], 4, "stl10 is not in "),
        (["--dataset", "celeba", "--data-dir", "gone"], 4, "celeba is not in "),
        (
            ["--dataset", "celeba", "--recipe", "x"],
            2,
            "--recipe x is unknown: give base, faces, paper, ",
        ),
        (
            ["--dataset", "celeba", "--set", "model.join=before"],
            2,
            "model: up nearest needs join first or last",
        ),
        (["--dataset", "celeba", "--degradation", "fog=1"], 2, "--degradation has no part 'fog'"),
        (["--dataset", "celeba", "--degradation", "jpeg=0..50"], 2, "--degradation jpeg must be"),
        (["--dataset", "celeba", "--set", "keep_last=0"], 2, "keep_last must be at least 1, not 0"),
        (["--dataset", "celeba", "--set", "workers=0"], 2, "workers must be at least 1, not 0"),
        (["--dataset", "celeba", "--set", "eval_images=0"], 2, "eval_images must be at least 1"),
    ],
)
def test_bad_options_are_one_line(desk, arguments, code, text):
    """What cannot be trained is told in one line, and no run directory is made."""
    before = tree(desk)

    result = run("train", *arguments, *EXACT)

    assert (result.exit_code, result.stdout) == (code, "")
    assert result.stderr.startswith(f"error: {text}")
    assert result.stderr.count("\n") == 1
    assert tree(desk) == before


@pytest.mark.parametrize("command", ["train", "eval"])
def test_downloads_come_first(desk, monkeypatch, command):
    """``--download`` fetches each data set that has a name, once, into its own folder."""
    asked = []
    monkeypatch.setattr(
        downloads, "download", lambda name, folder, **_: asked.append((name, folder))
    )
    more = ["--steps", "1", "-o", "run", *TINY] if command == "train" else ["-m", "tiny"]

    result = run(command, "--dataset", "celeba:test", "--download", *more)

    assert result.exit_code == 0, result.stderr
    assert asked == [("celeba", desk / "data" / "celeba")] or asked == [
        ("celeba", Path("data/celeba"))
    ]


@pytest.mark.usefixtures("desk")
def test_faces_are_scored_on_the_test_partition():
    """``eval celeba`` scores the middles of the four test images, with the paper's accuracy."""
    result = run("eval", "celeba", "-m", "tiny", *EXACT)

    assert (result.exit_code, result.stderr) == (0, NOTICE)
    rows = re.findall(r"│ (\S+)\s+│ (\S+) / (\S+) / (\S+)% │", result.stdout)
    assert [row[0] for row in rows] == [f"{n:06d}.jpg" for n in range(9, 13)] + ["mean"]
    assert "accuracy on RGB, of the middle 120x120 pixels" in " ".join(result.stdout.split())


@pytest.mark.usefixtures("desk")
def test_the_option_is_the_argument():
    """``eval --dataset celeba`` is ``eval celeba``; both or neither is wrong usage."""
    whole = run("eval", "celeba", "-m", "tiny", "--json", *EXACT)

    assert run("eval", "--dataset", "celeba", "-m", "tiny", "--json", *EXACT).stdout == whole.stdout
    for arguments in ([], ["celeba", "--dataset", "celeba"]):
        result = run("eval", *arguments, "-m", "tiny", *EXACT)
        assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
        assert result.stderr.startswith("error: give one data set to score: celeba, stl10 or a ")


@pytest.mark.usefixtures("desk")
def test_accuracy_is_the_share_of_agreeing_pixels():
    """The numbers of ``--json`` are those of the definition, computed by hand."""
    report = json.loads(run("eval", "celeba", "-m", "tiny", "--json", *EXACT).stdout)

    with Image.open("data/celeba/img_align_celeba/000009.jpg") as image:
        high = np.asarray(image)[49:169, 29:149]
    low = Image.fromarray(high).resize((40, 40), Image.Resampling.BICUBIC)
    filtered = np.asarray(low.resize((120, 120), Image.Resampling.BICUBIC))
    agree = filtered.argmax(-1)[3:-3, 3:-3] == high.argmax(-1)[3:-3, 3:-3]
    found = next(score for score in report["scores"] if score["image"] == "000009.jpg")
    assert found["method"] == "bicubic"
    assert found["accuracy"] == pytest.approx(agree.mean(), abs=0.01)


@pytest.mark.usefixtures("desk")
def test_lr_can_be_made_worse():
    """A degradation costs PSNR, is named in the protocol, and follows from the seed."""

    def scored(*options):
        text = run("eval", "celeba", "-m", "tiny", "--json", *options, *EXACT).stdout
        return json.loads(text)

    clean, worse = scored(), scored("--degradation", "blur=1..2,noise=5..9,jpeg=20..40")
    again = scored("--degradation", "noise=5..9,blur=1..2,jpeg=20..40")
    other = scored("--degradation", "blur=1..2,noise=5..9,jpeg=20..40", "--seed", "1")

    assert worse["mean"]["bicubic"]["psnr"] < clean["mean"]["bicubic"]["psnr"] - 1
    assert (clean["lr"], worse["lr"]) == ("bicubic", "blur=1..2,noise=5..9,jpeg=20..40")
    assert again["scores"] == worse["scores"]
    assert other["scores"] != worse["scores"]


@pytest.mark.usefixtures("desk")
def test_a_given_lr_is_not_made_worse():
    """``--lr`` and ``--degradation`` contradict each other, as do ``--lr`` and a named set."""
    faces = "data/celeba/img_align_celeba"
    both = run("eval", faces, "--lr", faces, "--degradation", "jpeg=50", "-m", "tiny")
    named = run("eval", "celeba", "--lr", faces, "-m", "tiny")

    assert (both.exit_code, named.exit_code) == (2, 2)
    assert "--degradation jpeg=50 would do nothing" in both.stderr
    assert "LR of celeba is made here" in named.stderr


def test_a_degradation_goes_before_the_sets_own_lr(desk):
    """A set's LR folder is not what ``--degradation`` asks for: LR is made of HR then."""
    faces = sorted((desk / "data/celeba/img_align_celeba").iterdir())
    for folder in ("set/HR", "set/LRx3"):
        Path(folder).mkdir(parents=True)
    with Image.open(faces[0]) as image:
        image.crop((0, 0, 120, 120)).save("set/HR/a.png")
        image.crop((0, 0, 120, 120)).resize((40, 40)).save("set/LRx3/a.png")

    plain = json.loads(run("eval", "set", "-m", "tiny", "--json", *EXACT).stdout)
    worse = run("eval", "set", "-m", "tiny", "--json", "--degradation", "noise=9", *EXACT)

    assert (plain["lr"], json.loads(worse.stdout)["lr"]) == ("LRx3", "noise=9")


def test_a_large_set_is_shown_by_its_mean(desk, monkeypatch):
    """Above a hundred images the table is the means alone, and says of how many."""
    monkeypatch.setattr(sys.modules["srcli.cli.evaluate"], "_MAX_ROWS", 3)

    result = run("eval", "celeba", "-m", "tiny", *EXACT)

    assert "mean of 4" in result.stdout
    assert "000009.jpg" not in result.stdout
    assert desk.is_dir()
