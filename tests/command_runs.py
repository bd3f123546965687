"""Commands run in the tests' own process, and what they print."""

import json
import re

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


def run_upscale(*arguments, model="tiny", **options):
    """Run ``srcli upscale`` in fp32 on the CPU, usually with the weights that a test ships."""
    return run("upscale", *arguments, "-m", model, *EXACT, "-j", "1", **options)


def lines_of(result):
    """The objects of ``--json``: those of the files, and the summary."""
    *lines, summary = map(json.loads, result.stdout.splitlines())
    return lines, summary


def strictly(text):
    """Parse JSON as every other program does: without NaN and Infinity."""

    def refuse(constant):
        raise ValueError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def cells_of(text):
    """The cells of each line of the tables in a text."""
    return [
        [cell.strip() for cell in re.split("[│┃]", line)[1:-1]]
        for line in text.splitlines()
        if line[:1] in {"│", "┃"}
    ]
