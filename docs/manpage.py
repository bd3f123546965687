"""Print the man page of srcli, made of what ``--help`` says: ``make man`` writes build/srcli.1."""

import re
import sys
from collections.abc import Iterator
from typing import Any

import typer

from srcli import __version__
from srcli.cli.app import app

ENVIRONMENT = (
    "Every option of a command can be given by a variable: SRCLI_COMMAND_OPTION, such as "
    "SRCLI_UPSCALE_SCALE=2 or SRCLI_UPSCALE_SKIP_EXISTING=1. What the command line says comes "
    "first. Options that may be repeated take several values with spaces between them."
)


def main() -> None:
    """Print the page."""
    sys.stdout.write("\n".join(page()) + "\n")


def page() -> Iterator[str]:
    """Make the lines of the page, in the macros of man(7)."""
    program: Any = typer.main.get_command(app)
    yield f'.TH SRCLI 1 "" "srcli {__version__}" "User Commands"'
    yield from (".SH NAME", rf"srcli \- {escaped(program.help.rstrip('.'))}", ".SH SYNOPSIS")
    for name, command in program.commands.items():
        arguments = [one.metavar for one in command.params if one.param_type_name == "argument"]
        yield rf".B srcli {name}"
        yield escaped(" ".join(["[OPTION...]", *(f"{{{one}}}" for one in arguments)]))
        yield ".br"
    for name, command in program.commands.items():
        yield f'.SH "SRCLI {name.upper()}"'
        yield from paragraphs(command.help)
        panels: dict[str, list[str]] = {}
        for one in command.params:
            panel = getattr(one, "rich_help_panel", None) or "Options"
            is_option = one.param_type_name == "option"
            panels.setdefault(panel if is_option else "Arguments", []).extend(entry(one))
        for panel, lines in panels.items():
            yield from (f".SS {panel}", *lines)
        yield from paragraphs(command.epilog or "")
    yield from (".SH ENVIRONMENT", escaped(ENVIRONMENT))


def entry(parameter: Any) -> Iterator[str]:  # noqa: ANN401 - Typer's classes have no public names
    """Describe an option or an argument."""
    names = [*parameter.opts, *parameter.secondary_opts]
    value = "" if getattr(parameter, "is_flag", False) else parameter.metavar or choices(parameter)
    is_option = parameter.param_type_name == "option"
    head = [", ".join(rf"\fB{escaped(one)}\fR" for one in names)] if is_option else []
    yield from (".TP", " ".join([*head, rf"\fI{escaped(value)}\fR" if value else ""]))
    default = parameter.show_default
    text = parameter.help or ""
    if isinstance(default, str):
        text += f" [default: {default}]"
    elif default and parameter.default not in (None, False):
        text += f" [default: {parameter.default}]"
    yield escaped(text)


def choices(parameter: Any) -> str:  # noqa: ANN401 - see entry
    """Name what a parameter may be."""
    return "|".join(map(str, getattr(parameter.type_descriptor.annotation, "__args__", ("VALUE",))))


def paragraphs(markup: str) -> Iterator[str]:
    """Set paragraphs of the help; those that begin in bold are command lines."""
    for text in markup.split("\n\n"):
        example = re.fullmatch(r"\[bold\](.*?)\[/\](?:  # (.*))?", text)
        if example is not None:
            yield from (".TP", rf"\fB{escaped(example[1])}\fR", escaped(example[2] or ""))
        elif text:
            plain = escaped(text).replace("[bold]", r"\fB").replace("[/]", r"\fR")
            yield from (".PP", plain)


def escaped(text: str) -> str:
    """Let a text mean nothing to troff but itself."""
    text = text.replace("\\", r"\e").replace("-", r"\-").replace("'", r"\(aq")
    return rf"\&{text}" if text.startswith((".", "'")) else text


if __name__ == "__main__":
    main()
