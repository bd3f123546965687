"""``srcli upscale`` run in the tests' own process."""

import json

from typer.testing import CliRunner

from srcli.cli.app import app

EXACT = ("-m", "tiny", "--device", "cpu", "--dtype", "fp32", "-j", "1")


def run(*arguments, **options):
    """Run ``srcli upscale`` in this process; an error that is not ours fails the test."""
    command = ["upscale", *map(str, arguments), *EXACT]
    return CliRunner().invoke(app, command, catch_exceptions=False, prog_name="srcli", **options)


def lines_of(result):
    """The objects of ``--json``: those of the files, and the summary."""
    *lines, summary = map(json.loads, result.stdout.splitlines())
    return lines, summary
