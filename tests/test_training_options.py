"""The options of a run: what is refused, and how they are kept."""

import dataclasses
import json
import math
from pathlib import Path
from types import NoneType, UnionType
from typing import Literal, get_args, get_origin

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srcli.errors import UsageError
from srcli.model.config import BASE, PAPER
from srcli.ops.degradation import Degradation
from srcli.training.config import TrainConfig, option_of

LEAST = {"output": Path("run"), "datasets": ("photos",), "steps": 1}
"""The fewest options that make a run."""

FIELDS = {field.name: field.default for field in dataclasses.fields(TrainConfig)}


def test_a_field_is_named_as_the_command_line_has_it():
    """By its option, or by ``--set``."""
    assert (option_of("max_seconds"), option_of("clip")) == ("--max-time", "--set clip")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"datasets": ()}, "train needs at least one --dataset: give celeba, stl10 or a folder"),
        ({"steps": None}, "say how long to train: --steps, --epochs or --max-time"),
        ({"epochs": 1.0}, "--steps and --epochs both say how long; give one of them"),
        ({"batch_size": 0}, "--batch-size must be at least 1, not 0"),
        ({"processes": 0}, "processes must be at least 1, not 0"),
        ({"steps": 0}, "--steps must be at least 1, not 0"),
        ({"limit": 0}, "limit must be at least 1, not 0"),
        ({"eval_every": 0}, "eval_every must be at least 1, not 0"),
        ({"eval_images": 0}, "eval_images must be at least 1, not 0"),
        ({"patience": 0}, "patience must be at least 1, not 0"),
        ({"save_every": -5}, "save_every must be at least 1, not -5"),
        ({"keep_last": 0}, "keep_last must be at least 1, not 0"),
        ({"workers": 0}, "workers must be at least 1, not 0"),
        ({"warmup": -1}, "warmup must be at least 0, not -1"),
        ({"clip": -0.5}, "clip must be at least 0, not -0.5"),
        ({"clip": math.nan}, "clip must be at least 0, not nan"),
        ({"seed": -1}, "--seed must lie in 0..2**63-1, not -1"),
        ({"seed": 2**63}, "--seed must lie in 0..2**63-1, not 9223372036854775808"),
        ({"lr": 0.0}, "lr must be positive, not 0.0"),
        ({"lr": math.nan}, "lr must be positive, not nan"),
        ({"lr": math.inf}, "lr must be positive, not inf"),
        ({"steps": None, "epochs": -1.0}, "--epochs must be positive, not -1.0"),
        ({"max_seconds": 0.0}, "--max-time must be positive, not 0.0"),
        ({"ema": 1.0}, "ema must lie in [0, 1), not 1.0"),
        ({"ema": -0.1}, "ema must lie in [0, 1), not -0.1"),
        ({"ema": math.nan}, "ema must lie in [0, 1), not nan"),
        (
            {"perceptual": 0.2},
            (
                "features, perceptual and spectrum need a discriminator beside them: use --recipe "
                "sharp, or --set adversarial=0.06"
            ),
        ),
        ({"scales": ()}, "train needs at least one --scale"),
        ({"scales": (3.0, 1.0)}, "--scale must lie in (1, 8] for training, not 1"),
        ({"scales": (8.5,)}, "--scale must lie in (1, 8] for training, not 8.5"),
        ({"scales": (math.nan,)}, "--scale must lie in (1, 8] for training, not nan"),
    ],
    ids=str,
)
def test_options_out_of_range_are_refused(changes, message):
    """Every option that no type can check is refused by its name, with its value."""
    with pytest.raises(UsageError) as caught:
        TrainConfig(**(LEAST | changes))

    assert str(caught.value) == message


def test_the_ends_of_the_ranges_are_allowed():
    """What lies at the edge of a range is inside it."""
    TrainConfig(**LEAST, scales=(8.0,), ema=0.0, clip=0.0, warmup=0, seed=2**63 - 1)
    TrainConfig(**LEAST, max_seconds=0.1)


def _range(kind):
    return st.lists(kind, min_size=2, max_size=2).map(sorted).map(tuple)


whole = st.integers(1, 10**6)
positive = st.floats(1e-12, 1e6, allow_subnormal=False)
names = st.text('aZ09 .:/"\\\n\té中📷', min_size=1, max_size=8)
paths = names.map(lambda name: Path("/data") / name)
degradations = st.builds(
    Degradation,
    blur=st.none() | _range(st.floats(0, 8)),
    noise=st.none() | _range(st.floats(0, 64)),
    jpeg=st.none() | _range(st.integers(1, 100)),
)
lengths = st.one_of(
    st.fixed_dictionaries({"steps": whole}),
    st.fixed_dictionaries({"epochs": positive}),
    st.fixed_dictionaries({"max_seconds": positive}),
    st.fixed_dictionaries({"steps": whole, "max_seconds": positive}),
)
OF_NAME = {
    "model": st.sampled_from([BASE, PAPER]),
    "datasets": st.lists(names, min_size=1, max_size=3).map(tuple),
    "scales": st.lists(st.floats(1.01, 8), min_size=1, max_size=4).map(tuple),
    "ema": st.floats(0, 0.99999),
}
OF_TYPE = {
    int: whole,
    float: positive,
    bool: st.booleans(),
    str: names,
    Path: paths,
    NoneType: st.none(),
    Degradation: degradations,
}


def values_of(field):
    """Draw values of a field of the options."""
    kinds = get_args(field.type) if get_origin(field.type) is UnionType else (field.type,)
    if get_origin(field.type) is Literal:
        return st.sampled_from(get_args(field.type))
    return st.one_of(*(OF_TYPE[kind] for kind in kinds))


others = st.fixed_dictionaries(
    {
        field.name: OF_NAME[field.name] if field.name in OF_NAME else values_of(field)
        for field in dataclasses.fields(TrainConfig)
        if field.name not in {"steps", "epochs", "max_seconds"}
    }
)


@given(others, lengths)
def test_options_survive_json(values, length):
    """Whatever the options, their JSON reads back to equal ones, to the last bit."""
    config = TrainConfig(**values, **length)

    assert TrainConfig.from_json(config.to_json()) == config


def test_every_option_is_in_the_json():
    """The file names every option, resolved, in a form that a person can read."""
    text = TrainConfig(**LEAST, degradation=Degradation.parse("jpeg=50..95")).to_json()
    values = json.loads(text)

    assert values.keys() == FIELDS.keys()
    assert values["lr"] == 1e-3
    assert values["degradation"] == "jpeg=50..95"
    assert values["model"]["widths"] == [64, 48]
    assert text.startswith("{\n") and text.endswith("}\n")  # noqa: PT018 - one shape


def test_the_data_folder_does_not_depend_on_where_a_run_is_resumed(tmp_path, monkeypatch):
    """A folder given relative to the working directory is kept as the absolute one."""
    monkeypatch.chdir(tmp_path)

    config = TrainConfig.from_json(TrainConfig(**LEAST, data_dir=Path("sets")).to_json())

    assert config.data_dir == tmp_path / "sets"


ANOTHER_KIND = {
    "output": [None, 5],
    "datasets": ["photos", [1], {"photos": 1}],
    "data_dir": [[]],
    "recipe": [1],
    "model": [{}, "base"],
    "scales": [["3"], 3.0],
    "degradation": ["rain=1..2", 5],
    "batch_size": [2.5, True, None],
    "processes": ["2"],
    "lr": ["fast", None],
    "schedule": ["trapezoid"],
    "loss": ["l2", None],
    "clip": [{}],
    "ema": [[0.9]],
    "steps": ["all"],
    "epochs": [True],
    "split": ["half"],
    "sampling": ["random"],
    "augment": [1, "yes"],
    "eval_images": [1.5],
    "init_from": [7],
    "compile": [None],
    "device": [0],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in ANOTHER_KIND.items() for value in values]
)
def test_options_of_another_kind_are_one_line(name, value):
    """An option in the file that is no such thing is refused in one line, not met later."""
    values = json.loads(TrainConfig(**LEAST).to_json()) | {name: value}

    with pytest.raises(UsageError) as caught:
        TrainConfig.from_json(json.dumps(values))

    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Expecting value: line 1 column 1 (char 0)"),
        ("{", "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
        ("7", "it is no JSON object"),
        ("[]", "it is no JSON object"),
        ('{"steps": 1}', "it lacks, or has besides what is known: augment, balanced, "),
        ("[" * 100_000, "maximum recursion depth exceeded"),
    ],
    ids=["empty", "cut", "number", "list", "poor", "deep"],
)
def test_json_that_is_no_options_is_one_line(text, message):
    """What is not a file of options says so in one line."""
    with pytest.raises(UsageError) as caught:
        TrainConfig.from_json(text)

    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_options_of_another_version_name_what_differs():
    """A field more or less, as another version would write it, is named."""
    values = json.loads(TrainConfig(**LEAST).to_json())
    del values["clip"]

    with pytest.raises(UsageError) as caught:
        TrainConfig.from_json(json.dumps(values | {"momentum": 0.9}))

    assert str(caught.value) == "it lacks, or has besides what is known: clip, momentum"
