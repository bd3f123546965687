"""The README says what the command line can do."""

import re
from pathlib import Path

import pytest
import typer

from srcli.cli.app import app

README = Path(__file__).resolve().parents[1] / "README.md"

ROOT = typer.main.get_command(app)

TYPERS_OWN = {"--install-completion", "--show-completion"}
"""Options of the root that Typer adds to every program; ``srcli --help`` lists them."""


def options(command):
    """Every spelling of every option of a command, ``-o`` and ``--output`` alike."""
    return [
        spelling
        for parameter in command.params
        if parameter.param_type_name == "option"
        for spelling in (*parameter.opts, *parameter.secondary_opts)
        if spelling not in TYPERS_OWN
    ]


COMMANDS = {"": ROOT, **ROOT.commands}
NAMED = [(name, option) for name, command in COMMANDS.items() for option in options(command)]


@pytest.fixture(scope="module")
def readme():
    """The text of the README."""
    return README.read_text(encoding="utf-8")


def test_there_is_something_to_check():
    """The walk over the command tree finds the commands and their options."""
    assert set(ROOT.commands) == {"upscale", "eval", "train", "models"}
    assert ("", "--version") in NAMED
    assert ("upscale", "-o") in NAMED
    assert ("train", "--resume") in NAMED


@pytest.mark.parametrize("name", sorted(ROOT.commands))
def test_the_readme_names_every_command(readme, name):
    """A command that no reader can find might as well not be there."""
    assert re.search(rf"\bsrcli {name}\b", readme)


def section(readme, name):
    """The part of the README about a command; all of it for one without a part of its own."""
    parts = [part for part in readme.split("\n## ") if f"`srcli {name}`" in part.split("\n")[0]]
    return parts[0] if parts else readme


@pytest.mark.parametrize(("name", "option"), NAMED)
def test_the_readme_names_every_option(readme, name, option):
    """Every spelling of an option stands in its command's section, as a word of its own."""
    assert re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", section(readme, name)), (
        f"README.md does not name {option} of srcli {name}".rstrip()
    )


def test_three_commands_have_a_section(readme):
    """The sections are found, so that the search above is not of the whole text."""
    for name in ("upscale", "eval", "train"):
        assert len(section(readme, name)) < len(readme) / 2
