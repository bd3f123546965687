# ruff: noqa: ANN401 - the classes of Typer's contexts and errors have no public names
"""A command line that cannot be parsed: one line on stderr and exit code 2, as for every error."""

import sys
from typing import Any

import typer
from typer.core import TyperGroup

from srcli.cli.console import say
from srcli.errors import UsageError, suggestion

__all__ = ["Program"]

_TYPERS_ERROR: Any = typer.BadParameter.__mro__[1]
"""The base of what Typer raises at wrong usage."""

_WORDS = {
    "a valid integer": "a whole number",
    "a valid number": "a number",
    "greater than or equal to": "at least",
    "less than or equal to": "at most",
}
"""What we call what Typer's checks ask for."""


class Program(TyperGroup):
    """The commands, with Typer's errors in the form of our own."""

    def main(self, *args: Any, **options: Any) -> Any:
        """Run a command line and end the process."""
        try:
            code = super().main(*args, **options | {"standalone_mode": False})
        except UsageError as error:
            text = str(error)
        except _TYPERS_ERROR as error:
            text = _explained(error)
        else:
            sys.exit(code or 0)
        say(f"error: {text}")
        sys.exit(UsageError.exit_code)

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
        return super().resolve_command(ctx, args)


def _explained(error: Any) -> str:
    """Return an error of Typer's as what, the value, and the way out."""
    message = error.message.rstrip(".")
    command = f"srcli {error.ctx.info_name}" if error.ctx and error.ctx.parent else "srcli"
    option = getattr(error, "option_name", None)
    if hasattr(error, "param"):
        if message:
            return _bad_value(error, message)
        message = f"{error.param.metavar} is missing"
    elif option is None:
        extra = message.partition(" extra argument(s) (")[2].removesuffix(")")
        message = f"{extra}: it is an argument too many" if extra else message.lower()
    elif "does not take a value" in message:
        return f"{option} takes no value; leave it out"
    elif "requires an argument" in message:
        return f"{option} needs a value; give one"
    else:
        known = [name for one in error.ctx.command.params for name in one.opts + one.secondary_opts]
        message = f"{option}: there is no such option{suggestion(option, known)}"
    return f"{message}; see {command} --help"


def _bad_value(error: Any, message: str) -> str:
    """Return what a value must be, and what it is."""
    option = error.param.opts[0] if error.param.param_type_name == "option" else error.param.metavar
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
