"""What every test runs under, and the fixtures that more than one file uses."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings
from PIL import Image
from upscaler_nets import correcting

from srcli import files
from srcli.files import TEMPORARY_SUFFIX
from srcli.model import weights
from srcli.model.config import ModelConfig, ScalePath
from srcli.model.network import ResidualAutoencoder
from srcli.ops.degradation import Degradation
from srcli.training.config import TrainConfig
from srcli.training.trainer import TrainReport, train

# Read when Typer and rich are imported, so set before anything imports them.
os.environ.update({"NO_COLOR": "1", "COLUMNS": "100", "TERM": "dumb"})
for _forcing in ("FORCE_COLOR", "GITHUB_ACTIONS", "PY_COLORS", "TERMINAL_WIDTH"):
    os.environ.pop(_forcing, None)

settings.register_profile("srcli", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("srcli")

torch.set_num_threads(1)

# In the background of a shell Ctrl-C is ignored, by children too; some tests press it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

IMAGE_SIZES = ((121, 163), (135, 149), (151, 127), (129, 201), (183, 125), (143, 157))
"""Height and width of the images of ``image_folder``: odd, not square, at least a patch."""


@pytest.fixture(autouse=True)
def _seeded():
    """Start every test from the same seed."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _by_torch(monkeypatch):
    """Compute by torch unless a test asks for another engine, whatever is installed."""
    monkeypatch.setattr("srcli.ops.engines.is_installed", lambda _name: False)


def textured(height, width, seed):
    """Draw a photo-like picture: smooth waves of several lengths with two hard edges."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    channels = []
    for _ in range(3):
        wave = np.full((height, width), 0.5)
        for length, strength in ((5, 0.03), (9, 0.08), (23, 0.12), (60, 0.16)):
            angle, phase = random.uniform(0, 2 * np.pi, 2)
            along = rows * np.sin(angle) + columns * np.cos(angle)
            wave += strength * np.sin(2 * np.pi * along / length + phase)
        channels.append(wave)
    picture = np.stack(channels, -1)
    picture[rows * width + columns * height < 0.7 * height * width] *= 0.7
    picture[(rows - height / 2) ** 2 + (columns - width / 2) ** 2 < height * width / 16] *= 0.8
    return (picture.clip(0, 1) * 255).round().astype(np.uint8)


@pytest.fixture(scope="session")
def photo():
    """A picture of 97 x 61 pixels, ``(61, 97, 3)`` ``uint8``."""
    return textured(61, 97, seed=1)


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory):
    """A folder of six PNG images; shared, so copy it before changing it."""
    folder = tmp_path_factory.mktemp("images")
    for index, (height, width) in enumerate(IMAGE_SIZES):
        Image.fromarray(textured(height, width, seed=10 + index)).save(folder / f"{index}.png")
    return folder


@pytest.fixture(scope="session")
def crowd(tmp_path_factory, image_folder):
    """Those images over and over, 110 files: one may be damaged; copy it before changing it."""
    folder = tmp_path_factory.mktemp("crowd")
    for index in range(110):
        shutil.copy(image_folder / f"{index % 6}.png", folder / f"{index:03}.png")
    return folder


@pytest.fixture(scope="session")
def celeba(tmp_path_factory):
    """Twelve faces in the layout of CelebA, four of them for test; copy it before changing it."""
    folder = tmp_path_factory.mktemp("celeba")
    faces = folder / "img_align_celeba"
    faces.mkdir()
    random = np.random.default_rng(3)
    lines = []
    for number in range(1, 13):
        rows = np.linspace(0, 6, 218)[:, None, None] * random.uniform(1, 5, 3)
        columns = np.linspace(0, 6, 178)[None, :, None] * random.uniform(1, 5, 3)
        pixels = (127 + 90 * np.sin(rows + columns)).astype(np.uint8)
        Image.fromarray(pixels).save(faces / f"{number:06d}.jpg", quality=90)
        lines.append(f"{number:06d}.jpg {0 if number < 9 else 2}\n")
    (folder / "list_eval_partition.txt").write_text("".join(lines), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def tiny_config():
    """The smallest relative of ``base``: every kind of layer that it has, few channels."""
    return ModelConfig(
        stem=3,
        widths=(8, 12),
        encoder=(1,),
        bottom=1,
        decoder=(1,),
        join="before",
        paths=(ScalePath(scale=2, encoder=(1,), decoder=(1,)),),
    )


@pytest.fixture(scope="session")
def tiny_weights(tiny_config, tmp_path_factory):
    """A weights file of a random tiny net whose correction is not zero."""
    net = correcting(tiny_config)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    weights.save(path, net.state_dict(), tiny_config, {"scales": [2, 3, 4]})
    return path


@pytest.fixture(scope="session")
def plain_weights(tiny_config, tmp_path_factory):
    """A weights file of a net that corrects nothing: its result is the bicubic enlargement."""
    path = tmp_path_factory.mktemp("weights") / "plain.safetensors"
    net = ResidualAutoencoder(tiny_config)
    weights.save(path, net.state_dict(), tiny_config, {"scales": [2, 3, 4]})
    return path


@dataclass(frozen=True)
class SavedRun:
    """What a training run left in its directory."""

    path: Path

    @property
    def log(self):
        """The lines of the log without the time, one dictionary each."""
        with (self.path / "log.csv").open(newline="", encoding="utf-8") as file:
            return [
                {name: cell for name, cell in row.items() if name != "seconds"}
                for row in csv.DictReader(file)
            ]

    @property
    def steps(self):
        """The steps that there are checkpoints of."""
        return sorted(int(path.stem[5:]) for path in (self.path / "state").iterdir())

    @property
    def newest(self):
        """The newest checkpoint."""
        return max((self.path / "state").glob("step-*.safetensors"))

    @property
    def state(self):
        """The tensors of the newest checkpoint: net, average, optimizer, what is not yet logged."""
        return weights.read_tensors(self.newest)[1]

    def part(self, name):
        """Read one part of the newest checkpoint, such as ``net``."""
        state = self.state
        return {key.removeprefix(f"{name}."): state[key] for key in state if key.startswith(name)}

    @property
    def weights(self):
        """The tensors of the weights."""
        return weights.read_tensors(self.path / "model.safetensors")[1]

    @property
    def header(self):
        """The header of the weights."""
        return weights.read_header(self.path / "model.safetensors")


def same_tensors(left, right):
    """Whether two sets of tensors are equal to the last bit."""
    return left.keys() == right.keys() and all(torch.equal(left[n], right[n]) for n in left)


@pytest.fixture(scope="session")
def saved_run():
    """The class that reads what a run left."""
    return SavedRun


@pytest.fixture(scope="session")
def same():
    """The function that compares two sets of tensors bit by bit."""
    return same_tensors


@pytest.fixture(scope="session")
def run_options(image_folder, tiny_config):
    """Return a function that makes the options of a short run in a folder, with changes."""

    def make(output, **changes):
        values = {
            "output": output,
            "datasets": (str(image_folder),),
            "data_dir": output.parent,
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
def options(run_options, tmp_path):
    """Return a function that makes the options of a short run of a name, with changes."""

    def make(name="run", **changes):
        return run_options(tmp_path / name, **changes)

    return make


@pytest.fixture
def undrawn(monkeypatch):
    """Draw no pictures: most of the time of a short run."""
    for name in ("draw_curves", "draw_samples"):
        monkeypatch.setattr(f"srcli.training.trainer.{name}", lambda *_: None)


@dataclass
class FinishedRun:
    """A run that is over, and what was seen of it on the way."""

    config: TrainConfig
    report: TrainReport
    progress: list
    saved: SavedRun


@pytest.fixture(scope="session")
def finished(tmp_path_factory, run_options):
    """Sixty steps of a tiny net, trained once, for all tests that only look."""
    config = run_options(
        tmp_path_factory.mktemp("runs") / "deeper" / "run",
        scales=(3.0, 3.0, 4.0),
        steps=60,
        warmup=10,
        lr=5e-3,
        seed=5,
        eval_every=25,
    )
    progress = []
    report = train(config, on_progress=progress.append)
    return FinishedRun(config, report, progress, SavedRun(config.output))


KINDS = {
    "area": {"sampling": "area", "eval_every": 3},
    "epoch": {"sampling": "epoch", "eval_every": None, "loss": "mse", "optimizer": "adam"},
    "adversary": {"loss": "l1", "eval_every": 3, "adversarial": 0.1, "perceptual": 0.5},
}
"""How ``undisturbed`` runs draw images. Evaluations are at 3, 6, 9, 10, or every second step."""


class Resumable:
    """Makes options of ten steps that have every kind of work, and compares how runs ended."""

    def __init__(self, make, images):
        self._make, self._images = make, images

    def options(self, output, kind="area", **changes):
        """Make the options of a run."""
        values = {
            "scales": (2.0, 3.0),
            "degradation": Degradation.parse("blur=0..1,noise=0..5,jpeg=50..95"),
            "loss": "fourier",
            "steps": 10,
            "warmup": 3,
            "lr": 3e-3,
            "ema": 0.99,
            "save_every": 5,
        }
        return self._make(output, **(values | KINDS[kind] | changes))

    def command(self, output):
        """Make the command line of the kind "area"."""
        shape = output.parent / "tiny.json"
        shape.write_text(self.options(output).model.to_json(), encoding="utf-8")
        return [
            *("train", "--dataset", self._images, "--set", f"model={shape}"),
            *("--scale", 2, "--scale", 3, "--degradation", "blur=0..1,noise=0..5,jpeg=50..95"),
            *("--batch-size", 4, "--steps", 10, "--set", "warmup=3", "--set", "lr=3e-3"),
            *("--set", "ema=0.99", "--set", "eval_every=3", "--set", "save_every=5"),
            *("--device", "cpu", "--dtype", "fp32", "--set", "workers=1"),
            *("--threads", 1, "--output", output),
        ]

    @staticmethod
    def hasten(patch):
        """Log at steps 1, 4 and 8 besides evaluations, and draw nothing."""
        patch.setattr("srcli.training.trainer._LOG_EVERY", 4)
        for name in ("draw_curves", "draw_samples"):
            patch.setattr(f"srcli.training.trainer.{name}", lambda *_: None)

    @staticmethod
    def check_same(run, other):
        """Check that two runs ended alike: weights, state and log, and no file more or less."""
        found, expected = SavedRun(run), SavedRun(other)
        assert same_tensors(found.weights, expected.weights)
        assert found.newest.name == expected.newest.name
        assert same_tensors(found.state, expected.state)
        assert found.log == expected.log
        assert not list(run.rglob(f"*{TEMPORARY_SUFFIX}"))
        made = {path.name for path in run.iterdir() if path.suffix != ".png"}
        assert made == {"log.csv", "model.safetensors", "options.json", "state"}

    @staticmethod
    def check_beginning(run, other, step):
        """Check that a run which was stopped holds the beginning of another one."""
        found, expected = SavedRun(run), SavedRun(other)
        assert found.steps[-1] == found.header.training["steps"] == step
        assert found.log == [row for row in expected.log if int(row["step"]) <= step]
        weights.load(run / "model.safetensors")


@pytest.fixture(scope="session")
def resumable(run_options, image_folder):
    """What makes runs to be stopped, and compares them with undisturbed ones."""
    return Resumable(run_options, image_folder)


@pytest.fixture(scope="session")
def undisturbed(resumable, tmp_path_factory):
    """Runs that were never stopped, by their kind."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        resumable.hasten(patch)
        for kind in KINDS:
            train(resumable.options(folder / kind, kind))
    return {kind: folder / kind for kind in KINDS}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working directory, so that the paths of a test are short and relative."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def paired(here, photo):
    """A working directory with a folder ``HR`` of two pictures, no side a multiple of 3."""
    (here / "HR").mkdir()
    Image.fromarray(photo).save("HR/a.png")
    Image.fromarray(photo[:50, :70]).save("HR/b.png")
    return here


# ---- real processes ----------------------------------------------------------------------


SERVER = """
import gc, json, os, signal, sys, threading, time
from pathlib import Path
import torch
torch.set_num_threads(1)
from srcli import files, upscaler as upscaling  # what a run would import, once for all
from srcli.cli import app as cli, enlarging, reporter
from srcli.training import trainer
try:
    import typer._adapters  # which Typer leaves for later
except ImportError:
    pass
torch.optim.Adam([torch.zeros(1, requires_grad=True)])  # imports much that would be late
gc.freeze()  # or each process would take most of a second to tidy up what it has from this one
print("ready", flush=True)
for line in sys.stdin:
    asked = json.loads(line)
    if "wait" in asked:
        print(os.waitstatus_to_exitcode(os.waitpid(asked["wait"], 0)[1]), flush=True)
        continue
    process = os.fork()
    if not process:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.dup2(os.open(asked["stdin"], os.O_RDWR), 0)
        for number, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(asked[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        sys.argv = ["srcli", *asked["arguments"]]
        exec(asked["first"])
        cli.main()
    print(process, flush=True)
"""
"""Starts real processes that need not import torch again: each line of JSON is one."""


class Run:
    """One process of ``srcli``, and what it says."""

    def __init__(self, server, number, stdout, stderr):
        self._server, self._said = server, {"stdout": stdout, "stderr": stderr}
        self.number = number

    def send(self, sent):
        """Send a signal, unless it has ended."""
        with suppress(ProcessLookupError):
            os.kill(self.number, sent)

    def wait(self):
        """Wait for its end: the exit code, negative for a signal."""
        return int(self._server.ask({"wait": self.number}))

    def __getattr__(self, name):
        """Read ``stdout`` or ``stderr``, if it lived to open the file."""
        path = self._said[name]
        return path.read_text() if path.exists() else ""


class Server:
    """Runs ``srcli`` in processes of their own, quickly."""

    def __init__(self):
        self._count = 0
        self._said = tempfile.TemporaryDirectory()
        # With arenas of its own each thread's heap grows when it likes, by megabytes.
        environment = {"PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", SERVER],
            env=os.environ | environment | {"MALLOC_ARENA_MAX": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout.readline() == "ready\n"

    def ask(self, asked):
        """Ask something; the answer."""
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline()

    def start(self, *arguments, command="upscale", first="", stdin=os.devnull, stdout=None):
        """Start one in the working directory; ``first`` is run in it before."""
        self._count += 1
        said = [Path(self._said.name, f"{name}{self._count}") for name in ("stdout", "stderr")]
        asked = {
            "arguments": [command, *map(str, arguments)],
            "first": f"os.chdir({str(Path.cwd())!r})\n{first}",
            "stdin": str(stdin),
            "stdout": str(stdout or said[0]),
            "stderr": str(said[1]),
        }
        return Run(self, int(self.ask(asked)), *said)

    def run(self, *arguments, **options):
        """Run one to its end; it and its exit code."""
        process = self.start(*arguments, **options)
        return process, process.wait()

    def close(self):
        """End."""
        self._process.communicate(timeout=60)
        self._said.cleanup()


@pytest.fixture(scope="session")
def server():
    """A server of processes."""
    started = Server()
    yield started
    started.close()


@pytest.fixture
def saved(tmp_path):
    """Save an image through Pillow alone, or bytes, and give the path."""

    def save(source, name, **options):
        path = tmp_path / name
        if isinstance(source, bytes):
            path.write_bytes(source)
        else:
            source.save(path, **options)
        return path

    return save


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """Give every example of a property a folder of its own."""
    folder = tmp_path_factory.mktemp("desk")
    return (folder / f"{number}" for number in count())


@pytest.fixture
def row(here):
    """A folder of six pictures, the second one broken, the fourth 33 pixels wide."""
    folder = here / "row"
    folder.mkdir()
    draw = np.random.default_rng(2)
    for index in range(6):
        levels = draw.integers(0, 256, (20, 30 + index, 3), dtype=np.uint8)
        Image.fromarray(levels).save(folder / f"{index}.png")
    (folder / "1.png").write_bytes(b"broken")
    return folder


@pytest.fixture
def on_cpu(tiny_weights):
    """What every command needs: the tiny net on the CPU by torch, one file after the other."""
    engine = ["--engine", "torch", "--device", "cpu", "--dtype", "fp32"]
    return ["--model", str(tiny_weights), *engine, "-j", "1"]


@pytest.fixture
def desk(tmp_path, monkeypatch, tiny_weights):
    """A working directory with pictures in ``in``, one broken; all that is shipped is ``tiny``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(files, "shipped", lambda: {"tiny": tiny_weights})
    Path("in/sub").mkdir(parents=True)
    draw = np.random.default_rng(3)
    for name, shape in (("a.png", (11, 13, 3)), ("b.jpg", (9, 16, 3)), ("sub/c.png", (7, 5))):
        Image.fromarray(draw.integers(0, 256, shape, dtype=np.uint8)).save(Path("in", name))
    Path("in/broken.png").write_bytes(b"broken")
    return tmp_path
