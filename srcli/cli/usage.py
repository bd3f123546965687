# ruff: noqa: ANN401 - the classes of Typer's contexts and errors have no public names
"""The group of commands: their options' variables, and one line on stderr for every error."""

import os
import re
import sys
from itertools import pairwise
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from srcli.cli.console import reporting, say
from srcli.errors import UsageError, suggestion
from srcli.files import one_line
from srcli.training.config import settings

__all__ = ["Command", "Program", "WithFields"]

_TYPERS_ERROR: Any = typer.BadParameter.__mro__[1]
"""The base of what Typer raises at wrong usage."""

_WORDS = {
    "a valid integer": "a whole number",
    "a valid number": "a number",
    "a valid boolean": "1 or 0",
    "greater than or equal to": "at least",
    "less than or equal to": "at most",
}
"""What we call what Typer's checks ask for."""


_MAY_BE_EMPTY = {"--suffix", "--degradation"}
"""Options whose empty value means something."""


class _Help:
    """Help without the names of Python's types, which a narrow terminal shows whole."""

    def get_params(self, ctx: Any) -> list[Any]:
        """List the parameters; a flag has no value, and an argument's name says what it is."""
        params: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for one in params:
            if one.param_type_name == "argument" or one.is_flag:
                one.display_type_rich = lambda **_: None
        return params


class Program(_Help, TyperGroup):
    """The commands, with Typer's errors in the form of our own."""

    def main(self, *args: Any, **options: Any) -> Any:
        """Run a command line and end the process."""
        try:
            code = super().main(*args, **options | {"standalone_mode": False})
        except _TYPERS_ERROR as error:
            say(f"error: {_explained(error)}")
            code = UsageError.exit_code
        sys.exit(code or 0)

    def invoke(self, ctx: Any) -> Any:
        """Run a command; its errors are one line each, and say which variable they come from."""
        with reporting(
            lambda text: text + _variables(self.commands.get(ctx.invoked_subcommand), text)
        ):
            return super().invoke(ctx)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Find a command, and let ``SRCLI_COMMAND_OPTION`` give what its command line does not."""
        command: Any = super().get_command(ctx, cmd_name)
        for one in command.params if command else ():
            if one.param_type_name == "option":
                name = f"srcli_{cmd_name}_{max(one.opts, key=len).strip('-')}"
                one.envvar = name.replace("-", "_").upper()
                one.show_envvar = False  # the rule is in the docs, and the help is long enough
        return command

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Print the help where nothing at all is asked for."""
        if not args and not ctx.resilient_parsing:
            typer.echo(ctx.get_help())
            raise typer.Exit(UsageError.exit_code)
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find a command; one that there is not is named with those that there are."""
        if args[0] not in self.commands and not ctx.resilient_parsing:
            raise UsageError(
                f"{args[0]}: there is no such command{suggestion(args[0], self.commands)}; "
                f"give one of {', '.join(self.commands)}"
            )
        _check_values(args[1:])
        return super().resolve_command(ctx, args)


def _check_values(args: list[str]) -> None:
    """Refuse what is empty, as a variable of the shell that is not set: it would be a path."""
    for before, value in pairwise(["", *args]):
        alone = re.fullmatch("(--[a-z-]+)=", value)
        named = alone[1] if alone else before if before.startswith("-") else "an argument"
        if (alone or not value) and named not in _MAY_BE_EMPTY:
            raise UsageError(f"{named} is empty; give a value or leave it out")


def _variables(command: Any, text: str) -> str:
    """Name the variables that an error may be about: its option or its value is in the text."""
    found = []
    for one in command.params if command else ():
        value = os.environ.get(one.envvar or "")
        if value:
            words = [re.escape(name) for name in one.opts]
            words += [] if value[0].isdigit() else [re.escape(value)]
            if re.search(rf"(?<![\w-])({'|'.join(words)})(?![\w-])", text):
                found.append(f"{one.envvar}={one_line(value)}")
    return f" ({', '.join(found)} is set)" if found else ""


class Command(_Help, TyperCommand):
    """A command."""


class WithFields(Command):
    """A command in which ``--NAME VALUE`` is ``--set NAME=VALUE``, for every field of a recipe."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Replace the fields that have no option of their own."""
        own = {name for one in self.params for name in one.opts}
        fields = {f"--{one.name.replace('_', '-')}": one.name for one in settings()}
        given, rest = [], iter(args)
        for text in rest:
            option, equals, value = text.partition("=")
            if option in own or option not in fields:
                given.append(text)
                continue
            found = value if equals else next(rest, None)
            if found is None:
                raise UsageError(f"{option} needs a value; give one")
            given += ["--set", f"{fields[option]}={found}"]
        return super().parse_args(ctx, given)


def _explained(error: Any) -> str:
    """Return an error of Typer's as what, the value, and the way out."""
    if isinstance(error, typer.BadParameter) and error.message:
        return _bad_value(error, error.message.rstrip("."))
    command = error.ctx.command_path if error.ctx else "srcli COMMAND"
    return f"{error.format_message().rstrip('.')}; see {command} --help"


def _bad_value(error: Any, message: str) -> str:
    option = error.param.opts[0] if error.param.param_type_name == "option" else error.param.metavar
    if error.ctx.get_parameter_source(error.param.name).name == "ENVIRONMENT":
        option = error.param.envvar
    given, is_choice, choices = message.removeprefix("Value error, ").partition(" is not one of ")
    if is_choice:
        names = choices.replace("'", "")
        return f"{option} must be one of {names}, not {given}"
    expected = message.removeprefix("Input should be ").partition(",")[0]
    for theirs, ours in _WORDS.items():
        expected = expected.replace(theirs, ours)
    value = error.__cause__.errors()[0]["input"]
    shown = value if expected.startswith("at ") else repr(value)
    return f"{option} must be {expected}, not {shown}"
