"""Recipes: what the shipped ones say, how values are set, and in which order they count."""

import dataclasses
import json
import math
from pathlib import Path

import pytest
from run_files import refusal

from srcli.errors import UsageError
from srcli.model.config import BASE, PAPER
from srcli.model.weights import read_header, resolve
from srcli.ops.degradation import Degradation
from srcli.training.config import TrainConfig, settings
from srcli.training.recipe import from_recipe, load

PHOTOS = {"datasets": ("photos",)}


def refused(*arguments, **options):
    """Return the text of the error that a recipe ends in, which is one line."""
    return refusal(lambda: from_recipe(*arguments, **(PHOTOS | options)), UsageError)


def test_base_is_the_default_of_every_value():
    """What another recipe leaves out is as base.toml says it."""
    config = from_recipe("base", **PHOTOS, steps=7)

    assert config == TrainConfig(output=Path("runs/base"), datasets=("photos",), steps=7)
    assert config.model == BASE
    assert (config.init_from, config.degradation.is_bicubic) == (None, True)


def test_paper_is_what_the_source_paper_did():
    """The paper's net, MSE, ten epochs of every image once, Adam at one rate, and nothing else."""
    config = from_recipe("paper", datasets=("celeba",))

    assert (config.recipe, config.model) == ("paper", PAPER)
    assert (config.loss, config.epochs, config.steps, config.max_seconds) == ("mse", 10, None, None)
    assert (config.batch_size, config.optimizer, config.lr) == (8, "adam", 1e-3)
    assert (config.schedule, config.warmup, config.weight_decay) == ("constant", 0, 0)
    assert (config.split, config.sampling, config.augment) == ("paper", "epoch", "none")
    assert (config.eval_images, config.eval_every) == (None, None)
    assert (config.clip, config.ema, config.init_from) == (0, 0, None)
    assert (config.scales, config.degradation.is_bicubic) == ((3.0,), True)


@pytest.mark.parametrize(("name", "augment"), [("photo", "turn"), ("faces", "mirror")])
def test_a_recipe_can_make_the_shipped_file_again(name, augment):
    """From base, by the degradation that its header has; faces stand upright."""
    config = from_recipe(name, **PHOTOS, steps=7)

    shipped = read_header(resolve(name)).training["degradation"]
    assert config.init_from == resolve("base").absolute()
    assert config.degradation == Degradation.parse(shipped)
    assert (config.augment, config.model.symmetric) == (augment, name == "photo")


def test_the_default_recipe_follows_from_the_data():
    """Named data sets alone are the paper's, with a folder among them it is base."""
    assert from_recipe(None, ['datasets=["celeba:train", "stl10"]']).recipe == "paper"
    assert from_recipe(datasets=("celeba", "photos"), steps=1).recipe == "base"


@pytest.mark.usefixtures("here")
def test_a_file_is_a_recipe():
    """What it does not say is the default; its name is that of the run and its directory."""
    Path("mine.toml").write_text(
        'steps = 5\nscales = [3]\ndegradation = "jpeg=50"\ndatasets = ["a", "b"]\n'
        "model = {widths = [8, 16], symmetric = true}\neval_images = 'none'\n",
        encoding="utf-8",
    )

    config = from_recipe("mine.toml")

    model = dataclasses.replace(BASE, widths=(8, 16))
    assert config == TrainConfig(
        output=Path("runs/mine"),
        recipe="mine",
        datasets=("a", "b"),
        steps=5,
        scales=(3.0,),
        degradation=Degradation(jpeg=(50, 50)),
        model=model,
        eval_images=None,
    )


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("gone.toml", None, "--recipe gone.toml cannot be read: No such file or directory; check "),
        ("a.toml", "step = 1", "--recipe a.toml: step: there is no such name (do you mean steps?)"),
        ("a.toml", "\ufefflr = true", "--recipe a.toml: lr must be a number, not True"),
        ("a.toml", "[model]\nfrom = 3", "--recipe a.toml: model must be base, fast, paper, a "),
        ("a.toml", "[model]\nwidth = 3", "--recipe a.toml: model.width: there is no such field "),
        ("a.json", '{"steps": 1}', "--recipe a.json: it lacks datasets, model, output"),
        ("phoot", None, "--recipe phoot is unknown (do you mean photo?): give base, faces, fast, "),
    ],
)
@pytest.mark.usefixtures("here")
def test_a_file_that_is_no_recipe_is_one_line(name, text, message):
    """What is wrong is named with the file, and what there is instead."""
    if text is not None:
        Path(name).write_text(text, encoding="utf-8")

    assert refused(name).startswith(message)


@pytest.mark.usefixtures("here")
def test_the_options_of_a_run_are_a_recipe(monkeypatch):
    """They make the same run again in another directory, however many processes share its batch."""
    assignments = ["ema=0.5", "model.symmetric=false", "batch_size=12"]
    first = from_recipe("base", assignments, **PHOTOS, steps=9, seed=3)
    Path("options.json").write_text(first.to_json(), encoding="utf-8")

    again = from_recipe("options.json", output=Path("other"))
    longer = from_recipe("options.json", ["epochs=2", "model.bottom=1"])

    kept = {"output": first.output, "data_dir": first.data_dir}
    assert dataclasses.replace(again, **kept) == first
    assert (longer.steps, longer.epochs, longer.output) == (None, 2.0, Path("runs/base"))
    assert longer.model == dataclasses.replace(first.model, bottom=1)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert load("options.json")["batch_size"] == 6
    monkeypatch.setenv("WORLD_SIZE", "5")
    assert "batch of 12 patches cannot be shared by 5 processes" in refused("options.json")


@pytest.mark.parametrize(
    ("assignment", "value"),
    [
        ("lr=5e-4", 5e-4),
        ("scales=[2, 3.5]", (2.0, 3.5)),
        ("save-every=4", 4),
        ("tensorboard=true", True),
        ("augment=none", "none"),
        ("degradation=blur=0..1,jpeg=40..90", Degradation(blur=(0.0, 1.0), jpeg=(40, 90))),
        ('datasets=["a b"]', ("a b",)),
        ("model=paper", PAPER),
        ("model=tiny.json", dataclasses.replace(BASE, widths=(8, 8))),
        ('model={from="paper", join="last"}', dataclasses.replace(PAPER, join="last")),
    ],
)
@pytest.mark.usefixtures("here")
def test_a_value_is_toml_or_a_bare_word(assignment, value):
    """``--set name=value`` has the type of its field."""
    tiny = dataclasses.replace(BASE, widths=(8, 8))
    Path("tiny.json").write_text(tiny.to_json(), encoding="utf-8")
    name = assignment.partition("=")[0].partition(".")[0].replace("-", "_")

    options = {} if name == "datasets" else PHOTOS
    found = getattr(from_recipe("base", [assignment], **options, steps=1), name)

    assert (found, type(found)) == (value, type(value))


def test_an_option_outweighs_a_value_and_that_the_recipe():
    """Each replaces what is said before it; a length the other kind of length, too."""
    values = ["ema=0.9", "batch_size=3", "ema=0.5", "steps=7"]

    assert from_recipe("paper", **PHOTOS).ema == 0
    config = from_recipe("paper", values, **PHOTOS, batch_size=5)
    assert (config.ema, config.batch_size, config.lr) == (0.5, 5, 1e-3)
    assert (config.steps, config.epochs) == (7, None)
    assert from_recipe("paper", values, **PHOTOS, epochs=4).steps is None


def test_weights_to_start_from_give_the_shape(tiny_weights, tiny_config):
    """Unless the recipe names one; single fields change it; none means random weights."""
    start = {**PHOTOS, "steps": 1, "init_from": tiny_weights}

    assert from_recipe("photo", **start).model == tiny_config
    assert from_recipe("base", ["model=base"], **start).model == BASE
    changed = from_recipe("base", ["model.bottom=3"], **start).model
    assert changed == dataclasses.replace(tiny_config, bottom=3)
    nothing = from_recipe("photo", ["init_from=none"], **PHOTOS, steps=1)
    assert (nothing.init_from, nothing.model) == (None, BASE)
    assert from_recipe("photo", **PHOTOS, steps=1, init_from=Path("none")) == nothing


def test_a_default_is_what_set_would_be_given():
    """Each of the defaults can be written back by ``--set``."""
    pairs = [
        f"{one.name}={one.default}" for one in settings() if one.name not in {"datasets", "steps"}
    ]

    assert from_recipe("base", pairs, **PHOTOS, steps=1) == dataclasses.replace(
        from_recipe("base", **PHOTOS, steps=1), data_dir=Path("data")
    )


LEAST = {"output": Path("run"), "datasets": ("photos",), "steps": 1}
"""The fewest options that make a run."""


@pytest.mark.parametrize(
    ("assignments", "options", "message"),
    [
        (["lr"], {}, "--set lr has no value: write name=value, such as lr=0.0005"),
        (["tensorboard=1"], {}, "--set tensorboard must be true or false, not 1"),
        (["seed=1" + "0" * 20], {}, "--set seed must be a whole number, not 1000"),
        (["lr=1" + "0" * 400], {}, "--set lr must be a number, not 1000"),
        (["loss=1" + "0" * 5000], {}, "--set loss must be one of l1, mse, fourier, not '1000"),
        (["valid="], {}, "--set valid must be a path or none, not ''"),
        (["scales=3"], {}, "--set scales must be a list, each item a number, not 3"),
        (["model=huge"], {}, "model huge is neither a name (base, fast, paper) nor a file"),
        (["model.join=x"], {}, "model: join must be first, last, before, not 'x'"),
        (
            [],
            {"datasets": ()},
            "train needs at least one --dataset: give celeba, stl10 or ",
        ),
        ([], {"epochs": 2}, "--steps and --epochs both say how long"),
        ([], {"save_every": -5}, "--save-every must be at least 1, not -5"),
        ([], {"clip": math.nan}, "--clip must be at least 0, not nan"),
        ([], {"workers": 1025}, "--workers must be at most 1024, not 1025"),
        ([], {"steps": 10**400}, "--steps must be below 2**63, not 1000"),
        ([], {"seed": 2**63}, "--seed must lie in 0..2**63-1, not 9223372036854775808"),
        ([], {"lr": 0.0}, "--lr must lie between 0 and 1e9, not 0.0"),
        ([], {"ema": 1.0}, "ema must lie in [0, 1), not 1.0"),
        ([], {"symmetric_share": 2.0}, "symmetric_share must lie in [0, 1], not 2.0"),
        ([], {"perceptual": 0.2}, "features, perceptual and spectrum need a discriminator beside "),
        ([], {"scales": ()}, "train needs at least one --scale"),
        ([], {"scales": (3.0, 1.0)}, "--scale must lie in 1.01..8 for training, not 1"),
    ],
    ids=str,
)
def test_what_cannot_be_is_one_line(assignments, options, message):
    """A name that there is not, or a value that cannot be, is named with what could be."""
    assert refused("base", assignments, **({"steps": 1} | options)).startswith(message)


OTHERWISE = {
    "output": Path('/data/of "two"\n中📷'),
    "datasets": ("celeba:train", "photos/é"),
    "valid": Path("more"),
    "model": PAPER,
    "scales": (2.0, 1 / 3 + 1),
    "degradation": Degradation.parse("kernel=any,blur=0.1..2,noise=1e-3,jpeg=30..95,clean=0.3"),
    "optimizer": "adam",
    "lr": 1e-12,
    "steps": None,
    "epochs": 2 / 3,
    "seed": 2**63 - 1,
    "eval_images": None,
}
"""A value of every kind that an option may have."""


@pytest.mark.parametrize("changes", [{}, OTHERWISE], ids=["least", "otherwise"])
def test_options_survive_json(tmp_path, monkeypatch, changes):
    """Every option is in the file, readable, to the last bit; the data folder as absolute one."""
    monkeypatch.chdir(tmp_path)
    config = TrainConfig(**(LEAST | {"data_dir": Path("sets")} | changes))

    text = config.to_json()

    assert json.loads(text).keys() == {field.name for field in dataclasses.fields(TrainConfig)}
    assert text.startswith("{\n  ")
    kept = TrainConfig.from_json(text)
    assert kept == dataclasses.replace(config, data_dir=tmp_path / "sets")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("datasets", "photos"),
        ("model", "base"),
        ("degradation", "rain=1..2"),
        ("batch_size", True),
        ("steps", "all"),
        ("momentum", 2),
    ],
)
def test_options_of_another_kind_are_one_line(name, value):
    """An option in the file that is no such thing is refused in one line, not met later."""
    values = json.loads(TrainConfig(**LEAST).to_json()) | {name: value}

    for text in (json.dumps(values), "7"):
        assert refusal(lambda text=text: TrainConfig.from_json(text), UsageError)


def test_a_run_is_resumed_from_before_it_had_some_options():
    """The options of an earlier version lack its fields."""
    values = json.loads(TrainConfig(**LEAST).to_json())
    newer = "adversarial features patience perceptual spectrum symmetric_share tensorboard valid"
    for name in newer.split():
        del values[name]
    values |= {"compile": False, "balanced": True, "keep_last": 5}

    assert TrainConfig.from_json(json.dumps(values)) == TrainConfig.from_json(
        TrainConfig(**LEAST).to_json()
    )
