"""What README and docs/ promise is there: every command, option, link and size."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from srcli.cli.app import app
from srcli.training.recipe import settings

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
PAGES = sorted(
    [README, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *ROOT.glob("docs/**/*.md")]
)

PAGE_OF = {
    "": "docs/upscale.md",
    "upscale": "docs/upscale.md",
    "train": "docs/train.md",
    "eval": "docs/eval.md",
    "models": "docs/eval.md",
    "export": "docs/export.md",
}
"""Where each command's options are documented."""

TYPERS_OWN = {"--install-completion", "--show-completion"}
"""Options of the root that Typer adds to every program; ``srcli --help`` lists them."""

COMMANDS = {"": typer.main.get_command(app), **typer.main.get_command(app).commands}


def options(command):
    """Every spelling of every option of a command, ``-o`` and ``--output`` alike."""
    return {
        spelling
        for parameter in command.params
        if parameter.param_type_name == "option"
        for spelling in (*parameter.opts, *parameter.secondary_opts)
    } - TYPERS_OWN


def undocumented(text, spellings):
    """List the spellings that do not stand in a text as words of their own."""
    return sorted(
        one for one in spellings if not re.search(rf"(?<![\w-]){re.escape(one)}(?![\w-])", text)
    )


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_option_is_documented_on_its_commands_page(name):
    """Each spelling of each option stands on the page, and README links the page."""
    page = ROOT / PAGE_OF[name]
    text = page.read_text(encoding="utf-8")
    readme = README.read_text(encoding="utf-8")

    assert undocumented(text, options(COMMANDS[name])) == []
    assert f"srcli {name}".strip() in text
    assert PAGE_OF[name] in readme


def test_every_field_of_a_recipe_is_documented():
    """The table of docs/train.md has each field with its meaning and default, and no other."""
    text = (ROOT / "docs/train.md").read_text(encoding="utf-8")
    expected = [f"| `{one.name}` | {one.meaning} | `{one.default}` |" for one in settings()]

    assert [
        line for line in text.splitlines() if re.match(r"\| `\w+` \| .* \| `", line)
    ] == expected


def test_readme_is_two_screens():
    """Small enough to be read: 6 to 9 KB, with the two commands, the picture and the licence."""
    text = README.read_text(encoding="utf-8")

    assert 6_000 <= len(text.encode()) <= 9_000
    for needed in ("make demo", "make test", "paid work", "examples/panels/", "## Limits"):
        assert needed in text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(page):
    """Files and pictures that a page names are in the repository."""
    text = page.read_text(encoding="utf-8")
    targets = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", text)

    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_the_man_page_has_every_option_and_is_well_formed():
    """It is made of the help's own texts; troff has nothing to complain about."""
    code = [sys.executable, ROOT / "docs/manpage.py"]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    page = subprocess.run(code, capture_output=True, check=True, env=env).stdout

    text = page.decode().replace(r"\-", "-").replace(r"\fB", " ").replace(r"\fR", " ")
    for command in COMMANDS.values():
        missing = undocumented(text, options(command))
        assert missing in ([], ["--version"])
    assert "[bold]" not in text
    if shutil.which("groff") is None:
        pytest.skip("needs groff")
    checked = subprocess.run(
        ["groff", "-man", "-ww", "-z"], input=page, capture_output=True, check=False
    )
    assert (checked.returncode, checked.stderr) == (0, b"")
