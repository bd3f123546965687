"""Options that the environment gives: ``SRCLI_COMMAND_OPTION``."""

from pathlib import Path

import command_runs
import pytest

from srcli.imaging import images

pytestmark = pytest.mark.usefixtures("desk")


@pytest.mark.parametrize(
    ("environment", "arguments", "sizes"),
    [
        ({"SCALE": "2", "OUTPUT": "out"}, ["-s", "3"], {"a.png": (39, 33), "b.jpg": (48, 27)}),
        ({"INCLUDE": "*.png *.gif", "OUTPUT": "out"}, [], {"a.png": (39, 33)}),
        (
            {"FORMAT": "webp", "RECURSIVE": "yes", "NAME": "{stem}-{model}", "OUTPUT": "out"},
            ["--exclude", "?.png"],
            {"b-tiny.webp": (48, 27)},
        ),
        ({"OUTPUT": "out", "JSON": "1"}, ["--include", "a.png"], {"a.png": (39, 33)}),
    ],
)
def test_a_variable_stands_for_an_option(environment, arguments, sizes):
    """Single values, flags, lists; what the command line says comes first, empty is not set."""
    Path("in/broken.png").unlink()
    given = {f"SRCLI_UPSCALE_{name}": value for name, value in environment.items()}
    given |= {"SRCLI_EVAL_SCALE": "nonsense"}

    result = command_runs.run_upscale("in", *arguments, env=given)

    assert result.exit_code == 0, result.stderr
    assert {path.name: images.read_size(path) for path in Path("out").iterdir()} == sizes
    assert result.stdout.startswith("{") == ("JSON" in environment)


@pytest.mark.parametrize(
    ("command", "variable", "value", "message"),
    [
        ("upscale", "JSON", "maybe", "SRCLI_UPSCALE_JSON must be 1 or 0, not 'maybe'"),
        ("upscale", "SCALE", "99", "--scale must lie in 1..16, not 99 (SRCLI_UPSCALE_SCALE=99 is"),
        ("upscale", "OUTPUT", "a\nb.x/", "--output a\\nb.x "),
        ("eval", "SCALE", "2 3", "--scale is given 2 times (2, 3); "),
        ("train", "RECIPE", "nix", "--recipe nix is unknown: "),
    ],
)
def test_a_wrong_value_names_its_variable(command, variable, value, message):
    """In one line with exit code 2, whether Typer or srcli finds it out."""
    Path("a\nb.x").touch()
    name = f"SRCLI_{command}_{variable}".upper()
    arguments = [command] if command == "train" else [command, "in"]

    result = command_runs.run(*arguments, env={name: value})

    assert result.exit_code in {2, 4}
    assert result.stderr.startswith(f"error: {message}")
    assert result.stderr.count("\n") == 1
    assert name in result.stderr
