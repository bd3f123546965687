"""The text of a degradation: what is read, what is written, what is refused."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srcli.errors import UsageError
from srcli.ops.degradation import KERNELS, Degradation


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
    parts = (degradation.blur, degradation.noise, degradation.jpeg, degradation.kernel)

    assert text.split() == [text]
    assert Degradation.parse(text) == degradation
    assert degradation.is_bicubic == (parts == (None, None, None, ("bicubic",)))
    assert degradation.is_bicubic == (text == "bicubic")


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
    # A share of undegraded samples means nothing where nothing is degraded.
    assert str(Degradation(clean=0.25)) == "bicubic"
    assert Degradation(clean=0.25).is_bicubic


@pytest.mark.parametrize("part", ["blur", "noise", "jpeg"])
@pytest.mark.parametrize(
    "numbers",
    [
        *("", "2..1", "-1", "0..101", "nan", "1..nan", "inf", "1..", "..1", "1..2..3", "1-2"),
        *("1\n..x", "1e999", "0x1", "1=2"),
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
    [5, (5, 5, 5), [5, 5], (6, 5), (-1, 5), (5, 200), (True, 5), ("5", "5")],
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
