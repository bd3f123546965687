"""Commands run in the tests' own process."""

from typer.testing import CliRunner

from srcli.cli.app import app


def run(*arguments):
    """Run a command line; an error that is not ours fails the test."""
    return CliRunner().invoke(app, [str(part) for part in arguments], catch_exceptions=False)


def run_eval(*arguments):
    """Run ``srcli eval`` in fp32 on the CPU."""
    return run("eval", *arguments, "--device", "cpu", "--dtype", "fp32")
