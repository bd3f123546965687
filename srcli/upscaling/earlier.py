"""Results of earlier runs among the inputs: known by their names, beside their originals."""

import os
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Final

from srcli.errors import SrcliError
from srcli.imaging import images
from srcli.upscaling.config import FIELDS, BatchConfig, Job

__all__ = ["without_results"]

_LABEL: Final = r"(?:x\d+(?:\.\d+)?|\d+x\d*)"
"""What marks a name as enlarged: ``x3``, ``x2.5``, ``1920x1080``, ``1920x``, ``x1080``."""

_FOLDER: Final = re.compile(rf"(?:(?P<stem>.+)_)?{_LABEL}")
"""The name of a folder of results: of that of the originals, or of one inside of it."""

_ANY_SIZE: Final = 1 << 40
"""Pixels of what is only measured."""


def without_results(
    config: BatchConfig, jobs: dict[str, Job], targets: dict[str, str]
) -> tuple[dict[str, Job], list[Job]]:
    """Part the results of earlier runs from the inputs, where their originals are inputs too.

    Which these are, names say: what srcli calls a result, of any factor and size. What is to be
    made again must have the size of its original's result besides, or by its name that of some
    other one: else it is a photograph, and stays an input, which no result replaces.

    Args:
        config: The options.
        jobs: All jobs, by the places of their inputs.
        targets: The place of an input, by that of its result.

    Returns:
        The jobs that stay, and those whose inputs are results.
    """
    originals = {os.path.splitext(place)[0] for place in jobs}  # noqa: PTH122
    forms = _forms(config)

    def is_result(place: str, job: Job) -> bool:
        named = any(one in originals for one in _originals_of(place, forms))
        original = targets.get(place, place)
        if original == place or (named and config.existing == "skip"):
            return named
        return _is_enlarged(config, jobs[original], job, by_any=named)

    found = {place: job for place, job in jobs.items() if is_result(place, job)}
    kept = {place: job for place, job in jobs.items() if place not in found}
    return kept, list(found.values())


def _forms(config: BatchConfig) -> list[re.Pattern[str]]:
    """Compile what the names of results without endings are like, by default or as asked for."""
    forms = [rf"(?P<stem>.+)_{_LABEL}"]
    template = config.template(beside=True)
    if "{stem}" in template and template != "{stem}":
        forms += [_form(template, model) for model in (re.escape(config.model_name), ".+")]
    return [re.compile(form) for form in forms]


def _form(template: str, model: str) -> str:
    values = {"stem": "(?P<stem>.+)", "model": model, "scale": rf"(?:{_LABEL}|\d+(?:\.\d+)?)"}
    values |= dict.fromkeys(("width", "height"), r"\d+")
    parts = FIELDS.split(template)
    form = "".join(values[one] if index % 2 else re.escape(one) for index, one in enumerate(parts))
    first, *others = form.split(values["stem"])
    return f"{first}{values['stem']}{'(?P=stem)'.join(others)}"


def _originals_of(place: str, forms: list[re.Pattern[str]]) -> Iterator[str]:
    head, name = os.path.split(os.path.splitext(place)[0])  # noqa: PTH122
    for form in forms:
        match = form.fullmatch(name)
        if match is not None:
            yield os.path.join(head, match["stem"])  # noqa: PTH118
    for parent in _parents_of(head):
        yield os.path.join(parent, name)  # noqa: PTH118


@lru_cache(maxsize=1024)
def _parents_of(folder: str) -> tuple[str, ...]:
    names = Path(folder).parts
    found = []
    for index, name in enumerate(names):
        match = _FOLDER.fullmatch(name)
        if match is not None:
            stem = [match["stem"]] if match["stem"] else []
            found.append(str(Path(*names[:index], *stem, *names[index + 1 :])))
    return tuple(found)


def _is_enlarged(config: BatchConfig, original: Job, result: Job, *, by_any: bool) -> bool:
    """Whether a picture has the size of the result of another one, or of one by any factor."""
    try:
        before, after = (
            images.read_header(one.source, max_pixels=_ANY_SIZE) for one in (original, result)
        )
        size = after.width, after.height
        if size == config.result_size(before.width, before.height):
            return True
    except (SrcliError, OSError, MemoryError):
        return False
    skew = abs(size[0] * before.height - size[1] * before.width)  # sides are rounded
    return by_any and size[0] > before.width and 2 * skew <= before.width + before.height
