"""What a recipe or ``--set`` may say: every field with its default and its meaning.

Plain Python without torch, so that the command line can complete and list the names.
"""

import ast
import inspect
from dataclasses import MISSING, fields
from functools import cache
from typing import NamedTuple

from srcli.model.config import ModelConfig
from srcli.ops.degradation import Degradation
from srcli.training.config import TrainConfig

__all__ = ["Setting", "settings"]

_NOT_SET = frozenset({"output", "processes", "recipe"})
"""Fields that belong to a single run: no recipe and no ``--set`` has them."""


class Setting(NamedTuple):
    """A field of :class:`TrainConfig` that a recipe or ``--set`` may have."""

    name: str
    default: str
    meaning: str
    """The first sentence of the field's docstring."""


@cache
def settings() -> tuple[Setting, ...]:
    """Return every field that a recipe or ``--set`` may have, in the order of the class."""
    return tuple(
        Setting(one.name, _default(one.name), _meanings()[one.name])
        for one in fields(TrainConfig)
        if one.name not in _NOT_SET
    )


def _default(name: str) -> str:
    """Return a field's default as ``--set`` would have it."""
    one = TrainConfig.__dataclass_fields__[name]
    match str(Degradation()) if name == "degradation" else one.default:
        case ModelConfig():
            return "base"
        case tuple() as items:
            return f"[{', '.join(f'{item:g}' for item in items)}]"
        case bool() as flag:
            return str(flag).lower()
        case float() as number:
            return f"{number:g}"
        case value:
            return "none" if value in (None, MISSING) else str(value)


@cache
def _meanings() -> dict[str, str]:
    """Return the first sentence of each field's docstring, which Python itself does not keep."""
    (body,) = ast.parse(inspect.getsource(TrainConfig)).body
    assert isinstance(body, ast.ClassDef)
    meanings = {}
    for target, text in zip(body.body, body.body[1:], strict=False):
        match target, text:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str() as doc)),
            ):
                sentence, end, _ = " ".join(doc.split()).replace("``", "").partition(". ")
                meanings[name] = sentence + end.strip()
    return meanings
