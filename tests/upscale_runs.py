"""``srcli upscale`` run in the tests' own process."""

import json

import command_runs

EXACT = ("-m", "tiny", "--device", "cpu", "--dtype", "fp32", "-j", "1")


def run(*arguments, **options):
    """Run ``srcli upscale`` with the weights that a test ships."""
    return command_runs.run("upscale", *arguments, *EXACT, **options)


def lines_of(result):
    """The objects of ``--json``: those of the files, and the summary."""
    *lines, summary = map(json.loads, result.stdout.splitlines())
    return lines, summary
