"""Commands run in the tests' own process."""

from typer.testing import CliRunner

from srcli.cli.app import app

EXACT = ("--device", "cpu", "--dtype", "fp32")


def run(*arguments, **options):
    """Run a command line; an error that is not ours fails the test."""
    command = [str(part) for part in arguments]
    return CliRunner().invoke(app, command, catch_exceptions=False, prog_name="srcli", **options)


def run_eval(*arguments):
    """Run ``srcli eval`` in fp32 on the CPU."""
    return run("eval", *arguments, *EXACT)
