"""Command lines run in the tests' own process."""

import json

from typer.testing import CliRunner

from srcli.cli.app import app

EXACT = ("-m", "tiny", "--device", "cpu", "--dtype", "fp32", "-j", "1")


def srcli(*arguments, **options):
    """Run a command line in this process; an error that is not ours fails the test."""
    command = [str(one) for one in arguments]
    return CliRunner().invoke(app, command, catch_exceptions=False, prog_name="srcli", **options)


def run(*arguments, **options):
    """Run ``srcli upscale`` with the weights that a test ships."""
    return srcli("upscale", *arguments, *EXACT, **options)


def lines_of(result):
    """The objects of ``--json``: those of the files, and the summary."""
    *lines, summary = map(json.loads, result.stdout.splitlines())
    return lines, summary
