"""The shape of the network: what is read and written, what is derived, what is refused."""

import dataclasses
import json

import pytest

from srcli.errors import UsageError
from srcli.model.config import BASE, PAPER, ModelConfig, ScalePath


def test_json_names_every_field_in_order():
    """The JSON is an object of the fields by name, sorted, with lists as lists."""
    assert PAPER.to_json() == (
        '{"bottom": 1, "decoder": [2, 2], "down": "max-pool", "encoder": [2, 2], '
        '"join": "first", "output": "relu", "stem": 1, "unit": "convolution", "up": "nearest", '
        '"widths": [64, 128, 256]}'
    )
    paths = json.loads(BASE.to_json())["paths"]
    assert paths[0] == {"scale": 2, "encoder": [2], "decoder": [3]}
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
        ([(2, (2,), (2,)), (2, (1,), (1,))], r"whole scales .* once and rising, not \[2, 2\]"),
        ([(1, (2,), (2,))], r"whole scales of 2\.\.8, .* not \[1\]"),
        ([(2, (2, 2), (2,))], r"encoder and decoder must name 1 levels"),
        ([(2, (2,), (0,))], r"stem, widths and unit counts must lie in 1\.\.4096"),
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


@pytest.mark.parametrize(
    ("config", "stride", "margin"),
    [
        (BASE.at(3), 6, 48),
        (dataclasses.replace(PAPER, stem=5), 20, 80),
        (dataclasses.replace(BASE, encoder=(1,), decoder=(1,), bottom=1, paths=()), 6, 36),
    ],
    ids=["x3", "stem-5", "small"],
)
def test_the_stride_and_the_usual_margin(config, stride, margin):
    """The stem's factor times two for every level down; 16 positions of the highest level.

    In whole strides, and no more than the net can see.
    """
    assert (config.stride, config.usual_margin) == (stride, margin)
    assert margin % stride == config.receptive_margin % stride == 0
    assert margin <= config.receptive_margin


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"join": "before"}, "unit, down, up, join and output must be convolution, "),
        ({"widths": (64,)}, "widths must name at least two levels, not [64]"),
        (
            {"widths": (8, 8)},
            "encoder and decoder must name 1 levels for widths [8, 8], not [2, 2] and [2, 2]",
        ),
        ({"paths": BASE.paths}, "symmetric and paths need residual units"),
        ({"symmetric": 1}, "symmetric must be true or false, not 1"),
        *(
            (changes, "stem, widths and unit counts must lie in 1..4096")
            for changes in ({"stem": 0}, {"widths": (4097, 8, 8)}, {"decoder": (2, True)})
        ),
        ({"stem": 7}, "the stride 28 of stem 7 and 3 levels must divide the patch size 120"),
    ],
    ids=str,
)
def test_contradictions_are_refused_by_name(changes, message):
    """Wrong kinds, lists that do not match, parts that do not fit: the message names them."""
    with pytest.raises(UsageError) as caught:
        dataclasses.replace(PAPER, **changes)

    assert str(caught.value).startswith(message)


FIELDS = r"^a configuration has the fields \['bottom', .*\], not "


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"^the configuration is not JSON: "),
        ("[" * 100_000, r"^the configuration is not JSON: "),
        ("[]", rf"{FIELDS}list$"),
        *(
            (json.dumps(json.loads(PAPER.to_json()) | changes), message)
            for changes, message in (
                ({"surprise": 1}, rf"{FIELDS}\[.*'surprise'.*\]$"),
                ({"gated": True}, FIELDS),
                ({"widths": 3}, "^widths must be a list, not 3"),
                (
                    {"paths": [7]},
                    r"a path has the fields \['decoder', 'encoder', 'scale'\], not int",
                ),
                ({"paths": [{"scale": 2}]}, r"a path has the fields .* not \['scale'\]"),
            )
        ),
    ],
    ids=range(8),
)
def test_what_is_no_configuration_is_refused(text, message):
    """A header may hold anything; what is missing, unknown or of another kind is named."""
    with pytest.raises(UsageError, match=message):
        ModelConfig.from_json(text)
