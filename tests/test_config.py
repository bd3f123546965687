"""Settings of the network and the degradation: what is refused, and what is derived."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srcli.errors import UsageError
from srcli.model.config import BASE, CONFIGS, PAPER, ModelConfig, ScalePath
from srcli.ops.degradation import KERNELS, Degradation
from srcli.ops.spans import PATCH

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


def test_json_gives_back_the_paths():
    """A path is an object in the list of them; the default net has two."""
    values = json.loads(BASE.to_json())

    assert values["paths"][0] == {"scale": 2, "encoder": [2], "decoder": [3]}
    assert ModelConfig.from_json(BASE.to_json()) == BASE


def test_a_factor_without_a_path_goes_as_all_others():
    """What ``at`` gives has no paths; where there is none of its own it is all of the net."""
    alone = dataclasses.replace(BASE, paths=())

    assert BASE.at(3) == BASE.at(2.5) == BASE.at(None) == alone
    assert BASE.at(2) == dataclasses.replace(alone, stem=2, encoder=(2,), decoder=(3,))
    assert BASE.at(4.0) == dataclasses.replace(alone, stem=4)
    assert (BASE.stride, BASE.at(2).stride, BASE.at(4).stride) == (6, 4, 8)
    assert BASE.common_stride == 24


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        ([(2, (2,), (2,)), (2, (1,), (1,))], r"each scale once, rising, not \[2, 2\]"),
        ([(4, (2,), (2,)), (2, (1,), (1,))], r"each scale once, rising, not \[4, 2\]"),
        ([(1, (2,), (2,))], r"whole number of 2\.\.8, not \[1\]"),
        ([(2.0, (2,), (2,))], r"whole number of 2\.\.8, not \[2\.0\]"),
        ([(2, (6,), (2,))], r"encoder of the path for scale 2 .* at most \[5\], not \[6\]"),
        ([(2, (2,), (0,))], r"decoder of the path for scale 2 .* at most \[6\], not \[0\]"),
        ([(2, (2, 2), (2,))], r"encoder of the path for scale 2 .* not \[2, 2\]"),
        ([(7, (2,), (2,))], r"the stride 14 of stem 7"),
    ],
)
def test_a_path_that_does_not_fit_is_refused(paths, message):
    """Scales, counts and strides of the paths are checked like the net's own."""
    with pytest.raises(UsageError, match=message):
        dataclasses.replace(
            BASE,
            paths=tuple(ScalePath(scale=s, encoder=e, decoder=d) for s, e, d in paths),
        )


def test_gated_units_are_refused():
    """What a file of an older srcli says of gates: none is fine, gated units are refused."""
    values = json.loads(PAPER.to_json())

    assert ModelConfig.from_json(json.dumps(values | {"gated": False})) == PAPER
    with pytest.raises(UsageError, match="gated units are no longer supported"):
        ModelConfig.from_json(json.dumps(values | {"gated": True}))


def test_only_residual_units_can_be_left_out():
    """The paper's units change the width: none of them can be passed by."""
    with pytest.raises(UsageError, match="paths for scale factors need residual units"):
        dataclasses.replace(PAPER, paths=BASE.paths)


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (3, "paths must be a list, not 3"),
        ({"2": 1}, "paths must be a list, not {'2': 1}"),
        ([7], r"a path has the fields \['decoder', 'encoder', 'scale'\], not int"),
        ([{"scale": 2}], r"a path has the fields .*, not \['scale'\]"),
        ([{"scale": 2, "encoder": 2, "decoder": [2]}], "encoder must be a list of numbers, not 2"),
    ],
)
def test_paths_that_are_none_are_refused(paths, message):
    """A header's paths may be anything; what is wrong is named."""
    values = json.loads(BASE.to_json()) | {"paths": paths}
    with pytest.raises(UsageError, match=message):
        ModelConfig.from_json(json.dumps(values))


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
    """A patch is whole strides of every path."""
    assert PATCH == 120
    assert PATCH % config.common_stride == 0


@pytest.mark.parametrize(
    ("config", "margin"),
    [
        (BASE.at(2), 32),
        (BASE.at(3), 48),
        (BASE.at(4), 64),
        (PAPER, 16),
        (dataclasses.replace(BASE, encoder=(1,), decoder=(1,), bottom=1, paths=()), 36),
    ],
    ids=["x2", "x3", "x4", "paper", "small"],
)
def test_the_usual_margin_is_16_positions_of_the_highest_level(config, margin):
    """In whole strides, and no more than there is to see."""
    assert config.usual_margin == margin
    assert margin % config.stride == 0
    assert margin <= config.receptive_margin


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


NEEDED = [
    field.name for field in dataclasses.fields(ModelConfig) if field.default is dataclasses.MISSING
]


@pytest.mark.parametrize("name", NEEDED)
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


def rising(numbers):
    """Draw a range: two of the numbers in order, or no range at all."""
    return st.none() | st.tuples(numbers, numbers).map(sorted).map(tuple)


degradations = st.builds(
    Degradation,
    blur=rising(st.floats(0, 8) | st.integers(0, 8)),
    noise=rising(st.floats(0, 64) | st.integers(0, 64)),
    jpeg=rising(st.integers(1, 100)),
    kernel=st.lists(st.sampled_from(KERNELS), min_size=1, unique=True).map(tuple),
)


@given(degradation=degradations)
def test_the_text_of_a_degradation_is_read_back(degradation):
    """What ``str`` writes on one line without spaces, ``parse`` reads back equal."""
    text = str(degradation)

    assert text.split() == [text]
    assert Degradation.parse(text) == degradation
    assert str(Degradation.parse(text)) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("bicubic", Degradation()),
        ("  bicubic ", Degradation()),
        ("blur=0.2..1.5", Degradation(blur=(0.2, 1.5))),
        ("jpeg=75", Degradation(jpeg=(75, 75))),
        ("noise=2.5", Degradation(noise=(2.5, 2.5))),
        (
            "blur=0..8,noise=0..64,jpeg=1..100",
            Degradation(blur=(0, 8), noise=(0, 64), jpeg=(1, 100)),
        ),
        (
            " jpeg = 30 .. 95 , noise=1e-3 ,blur=.5..1.",
            Degradation(blur=(0.5, 1), noise=(0.001, 0.001), jpeg=(30, 95)),
        ),
        ("kernel=bicubic", Degradation()),
        ("kernel=area", Degradation(kernel=("area",))),
        (" kernel = lanczos + bicubic ", Degradation(kernel=("lanczos", "bicubic"))),
        ("kernel=any", Degradation(kernel=KERNELS)),
    ],
)
def test_a_degradation_is_read_as_it_is_written(text, expected):
    """Parts come in any order and with spaces; one number is a range of itself."""
    assert Degradation.parse(text) == expected


@pytest.mark.parametrize(
    ("degradation", "text"),
    [
        (Degradation(), "bicubic"),
        (Degradation(jpeg=(75, 75)), "jpeg=75"),
        (
            Degradation(jpeg=(30, 95), noise=(0, 10), blur=(0.2, 1.5)),
            "blur=0.2..1.5,noise=0..10,jpeg=30..95",
        ),
        (Degradation(jpeg=(75, 75), clean=0.25), "jpeg=75,clean=0.25"),
        (Degradation(kernel=("area",), clean=0.25), "kernel=area,clean=0.25"),
        (
            Degradation(kernel=KERNELS, noise=(1, 2)),
            "noise=1..2,kernel=bicubic+bilinear+area+lanczos+cubic",
        ),
    ],
    ids=str,
)
def test_a_degradation_has_one_text(degradation, text):
    """The canonical text has one order of parts, and names every kernel."""
    assert str(degradation) == text


def test_sparing_samples_nothing_is_bicubic():
    """A share that is spared means nothing where there is nothing to spare it."""
    assert Degradation(clean=0.25).is_bicubic
    assert str(Degradation(clean=0.25)) == "bicubic"


@given(degradation=degradations)
def test_without_parts_it_is_bicubic(degradation):
    """Any part at all, even of no effect, makes it more than plain bicubic."""
    parts = (degradation.blur, degradation.noise, degradation.jpeg, degradation.kernel)

    assert degradation.is_bicubic == (parts == (None, None, None, ("bicubic",)))
    assert degradation.is_bicubic == (str(degradation) == "bicubic")


@pytest.mark.parametrize("part", ["blur", "noise", "jpeg"])
@pytest.mark.parametrize(
    "numbers",
    [
        *("", "x", "2..1", "-1", "0..101", "nan", "nan..nan", "1..nan", "inf", "1..", "..1"),
        *("1..2..3", "1-2", "1..2;3", "1\n..x", "1e999", "0x1", "1=2"),
    ],
)
def test_what_is_no_range_is_refused(part, numbers):
    """Anything but a rising range in the limits is refused on one line, as it was given."""
    with pytest.raises(UsageError) as caught:
        Degradation.parse(f"{part}={numbers}")

    limits = {"blur": "0..8", "noise": "0..64", "jpeg": "1..100"}[part]
    message = str(caught.value)
    assert message.startswith(f"--degradation {part} must be a rising range of ")
    assert f"within {limits}, not {numbers!r}; give for example {part}=" in message
    assert message.isprintable()


@pytest.mark.parametrize("numbers", ["75.0", "75.5", "7e1", "0", "0..75"])
def test_a_quality_is_a_whole_number(numbers):
    """Quality is counted in whole numbers from 1, however a number is written."""
    with pytest.raises(UsageError, match=r"^--degradation jpeg must be a .* of whole numbers"):
        Degradation.parse(f"jpeg={numbers}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "--degradation has no part ''; give bicubic, or some of blur=0.2..1.5,"),
        ("75", "--degradation has no part '75'; give"),
        ("jpg=75", "--degradation has no part 'jpg'; give"),
        ("bicubic,jpeg=75", "--degradation has no part 'bicubic'; give"),
        ("jpeg=75,", "--degradation has no part ''; give"),
        ("jpeg=75,blur=1, jpeg=80", "--degradation names jpeg twice; give it once"),
        ("kernel=any,kernel=area", "--degradation names kernel twice; give it once"),
        ("area", "--degradation has no part 'area'; give"),
    ],
)
def test_parts_that_are_unknown_or_twice_are_refused(text, message):
    """The error names the part and says which ones there are."""
    with pytest.raises(UsageError) as caught:
        Degradation.parse(text)

    assert str(caught.value).startswith(message)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("part", ["blur", "noise", "jpeg"])
@pytest.mark.parametrize(
    "value",
    [5, (5,), (5, 5, 5), [5, 5], "5", (6, 5), (-1, 5), (5, 200), (True, 5), ("5", "5"), (None, 5)],
    ids=repr,
)
def test_a_degradation_checks_what_it_is_built_of(part, value):
    """The class itself refuses what is no pair of numbers in order, by part and value."""
    with pytest.raises(UsageError) as caught:
        Degradation(**{part: value})

    assert str(caught.value).startswith(f"--degradation {part} must be a rising range of ")
    assert f", not {value!r}; give " in str(caught.value)


@pytest.mark.parametrize("share", ["", "x", "-0.1", "1", "nan", "inf", "0..1", "20%"])
def test_what_is_no_share_is_refused(share):
    """The clean share lies from 0 to below 1: with all of it clean there is nothing to draw."""
    with pytest.raises(UsageError) as caught:
        Degradation.parse(f"jpeg=75,clean={share}")

    message = str(caught.value)
    assert message.startswith("--degradation clean must be a share of the samples, at least 0 ")
    assert message.endswith("; give for example clean=0.2")


KERNEL_ERROR = (
    "--degradation kernel must name some of bicubic+bilinear+area+lanczos+cubic, each once, or "
    "any, not {}; give for example kernel=bicubic+area"
)


@pytest.mark.parametrize(
    "names",
    ["", "+", "box", "Area", "area+", "area+area", "any+area", "area;cubic", "area+\n", "area=1"],
)
def test_what_is_no_kernel_is_refused(names):
    """Unknown kernels, none and the same one twice are refused on one line, as they were given."""
    with pytest.raises(UsageError) as caught:
        Degradation.parse(f"kernel={names}")

    assert str(caught.value) == KERNEL_ERROR.format(repr(names.strip()))


@pytest.mark.parametrize(
    "value",
    [None, "area", ["area"], (), ("any",), ("area", "area"), (1,), (["area"],)],
    ids=repr,
)
def test_a_degradation_checks_its_kernels(value):
    """The class itself refuses what is no tuple of different kernels."""
    with pytest.raises(UsageError) as caught:
        Degradation(kernel=value)

    assert str(caught.value) == KERNEL_ERROR.format(repr(value))


def test_a_degradation_cannot_be_changed():
    """A degradation is frozen, and equal ones are one key of a cache."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        Degradation().jpeg = (75, 75)

    assert len({Degradation(jpeg=(75, 75)), Degradation.parse("jpeg=75")}) == 1
