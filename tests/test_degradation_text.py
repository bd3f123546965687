"""The text of a degradation: what is read, what is written, what is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from run_files import refusal

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
    assert hash(Degradation.parse(text)) == hash(degradation)  # a key of a cache
    assert degradation.is_bicubic == (parts == (None, None, None, ("bicubic",)))
    assert degradation.is_bicubic == (text == "bicubic")


@pytest.mark.parametrize(
    ("text", "expected", "canonical"),
    [
        (
            " jpeg = 30 .. 95 , noise=1e-3 ,blur=.5..1.",
            {"blur": (0.5, 1), "noise": (0.001, 0.001), "jpeg": (30, 95)},
            "blur=0.5..1,noise=0.001,jpeg=30..95",
        ),
        ("kernel= area + cubic", {"kernel": ("area", "cubic")}, "kernel=area+cubic"),
        (
            "kernel=any,clean=0.2",
            {"kernel": KERNELS, "clean": 0.2},
            "kernel=bicubic+bilinear+area+lanczos+cubic,clean=0.2",
        ),
        # A share of undegraded samples means nothing where nothing is degraded.
        ("clean=0.25", {"clean": 0.25}, "bicubic"),
    ],
)
def test_a_degradation_is_read_as_it_is_written(text, expected, canonical):
    """Parts come in any order and with spaces; one number is a range of itself."""
    found = Degradation.parse(text)

    assert (found, str(found)) == (Degradation(**expected), canonical)


NUMBERS = {
    "blur": ("--degradation blur must be a rising range of numbers within 0..8", "blur=0.2..1.5"),
    "noise": ("--degradation noise must be a rising range of numbers within 0..64", "noise=0..10"),
    "jpeg": (
        "--degradation jpeg must be a rising range of whole numbers within 1..100",
        "jpeg=30..95",
    ),
}


@pytest.mark.parametrize("part", NUMBERS)
@pytest.mark.parametrize("numbers", ["", "2..1", "-1", "1..101", "1..2..3", "1\n..x"])
def test_what_is_no_range_is_refused(part, numbers):
    """Anything but a rising range in the limits is refused on one line, as it was given."""
    must, example = NUMBERS[part]
    found = refusal(lambda: Degradation.parse(f"{part}={numbers}"), UsageError)
    assert found == f"{must}, not {numbers!r}; give for example {example}"


SHARE = "--degradation clean must be a share of the samples, at least 0 and below 1, not"
KERNEL = (
    "--degradation kernel must name some of bicubic+bilinear+area+lanczos+cubic, each once, or "
    "any, not"
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("blur=1..nan", NUMBERS["blur"][0]),
        ("jpeg=75.5", NUMBERS["jpeg"][0]),
        *((f"jpeg=75,clean={text}", SHARE) for text in ("x", "1", "nan")),
        *(
            (f"kernel={text}", f"{KERNEL} {text.strip()!r}; give for example kernel=bicubic+area")
            for text in ("", "Area", "area+area", "any+area", "area+\n")
        ),
        ("area", "--degradation has no part 'area'; give"),
        ("bicubic,jpeg=75", "--degradation has no part 'bicubic'; give"),
        ("jpeg=75,blur=1, jpeg=80", "--degradation names jpeg twice; give it once"),
    ],
)
def test_other_parts_are_refused(text, message):
    """Numbers beyond the limits and names that are unknown or twice are refused on one line."""
    assert message in refusal(lambda: Degradation.parse(text), UsageError)
