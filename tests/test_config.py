"""Settings of the network: what is refused, and what is derived from them."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srcli.config import BASE, CONFIGS, DEFAULT_OVERLAP, PAPER, PATCH, ModelConfig
from srcli.errors import UsageError

FAMILIES = (
    {"unit": "convolution", "down": "max-pool", "up": "nearest", "output": "relu"},
    {"unit": "residual", "down": "convolution", "up": "depth-to-space", "output": "relu"},
    {"unit": "residual", "down": "convolution", "up": "depth-to-space", "output": "correction"},
)
"""Kinds of layers that fit together whatever the widths are."""


@st.composite
def configs(draw):
    """Draw any numbers for a family of kinds, with two to five levels."""
    levels = draw(st.integers(2, 4))
    counts = st.lists(st.integers(1, 4096), min_size=levels - 1, max_size=levels - 1).map(tuple)
    return ModelConfig(
        stem=draw(st.sampled_from([1, 3, 5, 15])),  # the stride must divide the patch
        widths=tuple(draw(st.lists(st.integers(1, 4096), min_size=levels, max_size=levels))),
        encoder=draw(counts),
        bottom=draw(st.integers(1, 4096)),
        decoder=draw(counts),
        join=draw(st.sampled_from(["first", "last"])),
        **draw(st.sampled_from(FAMILIES)),
    )


@given(config=configs())
def test_json_gives_back_the_configuration(config):
    """What ``to_json`` writes on one line, ``from_json`` reads back equal."""
    text = config.to_json()

    assert "\n" not in text
    assert ModelConfig.from_json(text) == config


def test_json_names_every_field_in_order():
    """The JSON is an object of the fields by name, sorted, with lists as lists."""
    assert PAPER.to_json() == (
        '{"bottom": 1, "decoder": [2, 2], "down": "max-pool", "encoder": [2, 2], '
        '"join": "first", "output": "relu", "stem": 1, "unit": "convolution", "up": "nearest", '
        '"widths": [64, 128, 256]}'
    )


def test_a_configuration_cannot_be_changed():
    """A configuration is frozen: a file's header and its net cannot drift apart."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        BASE.stem = 2


def test_configurations_have_their_names():
    """The command line knows ``paper`` and ``base``."""
    assert CONFIGS == {"paper": PAPER, "base": BASE}


@pytest.mark.parametrize(
    ("config", "stride"),
    [
        (PAPER, 4),
        (dataclasses.replace(PAPER, stem=5), 20),
        (dataclasses.replace(PAPER, stem=3, widths=(8, 8), encoder=(1,), decoder=(1,)), 6),
    ],
    ids=["paper", "stem-5", "two-levels-stem-3"],
)
def test_the_stride_is_a_bottom_position(config, stride):
    """The stem's factor times two for every level down, and the margin is a multiple of it."""
    assert config.stride == stride
    assert config.receptive_margin % stride == 0


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_a_patch_fits_every_named_configuration(config):
    """Patches and the default overlap are whole strides."""
    assert PATCH == 120
    assert PATCH % config.stride == 0
    assert DEFAULT_OVERLAP % config.stride == 0
    assert DEFAULT_OVERLAP > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"unit": "attention"},
            "unit must be one of convolution, residual, not 'attention'",
        ),
        (
            {"down": "stride"},
            "down must be one of max-pool, convolution, not 'stride'",
        ),
        (
            {"up": "bilinear"},
            "up must be one of nearest, depth-to-space, not 'bilinear'",
        ),
        ({"join": None}, "join must be one of before, first, last, not None"),
        ({"output": ""}, "output must be one of relu, correction, not ''"),
        ({"widths": (64,)}, "widths must name at least two levels, not [64]"),
        ({"widths": ()}, "widths must name at least two levels, not []"),
        (
            {"widths": (8, 8)},
            "encoder and decoder must name 1 levels for widths [8, 8], not [2, 2] and [2, 2]",
        ),
        (
            {"decoder": (2,)},
            "encoder and decoder must name 2 levels for widths [64, 128, 256], not [2, 2] and [2]",
        ),
    ],
    ids=str,
)
def test_contradictions_are_refused_by_name(changes, message):
    """A wrong kind or lists that do not match are refused, naming the field and the value."""
    with pytest.raises(UsageError) as caught:
        dataclasses.replace(PAPER, **changes)

    assert str(caught.value) == message


@pytest.mark.parametrize("number", [0, -1, 4097, 1.5, "3", None, True, (8,), [8]], ids=repr)
@pytest.mark.parametrize("name", ["stem", "widths", "encoder", "bottom", "decoder"])
def test_numbers_out_of_range_are_refused(name, number):
    """Every count is a whole number from 1 to 4096, wherever it stands."""
    value = getattr(PAPER, name)
    changed = (number, *value[1:]) if isinstance(value, tuple) else number

    with pytest.raises(UsageError, match=r"^stem, widths and unit counts must lie in 1\.\.4096"):
        dataclasses.replace(PAPER, **{name: changed})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"^the configuration is not JSON: "),
        ("{", r"^the configuration is not JSON: "),
        ("[]", r"^a configuration has the fields \['bottom', .*\], not list$"),
        ("3", r"^a configuration has the fields \['bottom', .*\], not int$"),
        ("{}", r"^a configuration has the fields \['bottom', .*\], not \[\]$"),
    ],
)
def test_what_is_no_configuration_is_refused(text, message):
    """Text that is not a JSON object of the right fields is refused, saying what it is."""
    with pytest.raises(UsageError, match=message):
        ModelConfig.from_json(text)


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(ModelConfig)])
def test_a_missing_or_renamed_field_is_refused(name):
    """A configuration without a field, or with another in its place, names what it found."""
    values = json.loads(PAPER.to_json())
    del values[name]
    with pytest.raises(UsageError, match="a configuration has the fields"):
        ModelConfig.from_json(json.dumps(values))
    with pytest.raises(UsageError, match=r"not \[.*'surprise'.*\]$"):
        ModelConfig.from_json(json.dumps(values | {"surprise": 1}))


@pytest.mark.parametrize("name", ["widths", "encoder", "decoder"])
@pytest.mark.parametrize("value", [3, "8", None, {"0": 8}], ids=repr)
def test_a_list_that_is_none_is_refused(name, value):
    """A header whose list of numbers is something else is refused by the field's name."""
    values = json.loads(PAPER.to_json()) | {name: value}

    with pytest.raises(UsageError, match=rf"^{name} must be a list of numbers, not "):
        ModelConfig.from_json(json.dumps(values))
