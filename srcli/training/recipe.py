"""Recipes: from a name, a file and single values to the options of a run.

A recipe is a TOML file of :class:`~srcli.training.config.TrainConfig`'s fields; what it does not
have keeps the field's default. The shipped ones are in ``recipes/``. A run's ``options.json`` is a
recipe too. ``--set`` changes a recipe's values, an option of the command line those of both.
"""

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from importlib import resources
from pathlib import Path
from types import NoneType
from typing import Any, get_args

from srcli.data.sources import DATASETS, absolute, parse
from srcli.errors import UsageError, suggestion
from srcli.model.config import BASE, CONFIGS, ModelConfig
from srcli.model.weights import read_header, resolve
from srcli.training.config import CHANGEABLE, TrainConfig, option_of, settings, shown, typed
from srcli.training.distributed import share_batch, torchrun_ranks
from srcli.training.run_directory import load_options

__all__ = ["from_recipe", "load", "recipe_names", "resumed"]

_FOLDER = resources.files("srcli.training") / "recipes"
_KINDS = {one.name: one.type for one in fields(TrainConfig)}
_SHAPE = tuple(one.name for one in fields(ModelConfig))


def recipe_names() -> list[str]:
    """Return the names of the shipped recipes."""
    files = (Path(file.name) for file in _FOLDER.iterdir())
    return sorted(file.stem for file in files if file.suffix == ".toml")


def load(recipe: str) -> dict[str, Any]:
    """Read a recipe: a shipped name, a TOML file, or the ``options.json`` of a run.

    Returns:
        Fields of :class:`TrainConfig`, its name as ``recipe`` among them; ``model`` is a table.

    Raises:
        UsageError: If there is none, or it has what no recipe has.
    """
    known = recipe_names()
    if recipe in known:
        return _from_toml(recipe, (_FOLDER / f"{recipe}.toml").read_text(encoding="utf-8"))
    path = Path(recipe)
    try:
        if path.suffix == ".toml":
            return _from_toml(path.stem, path.read_text(encoding="utf-8-sig"))
        if path.suffix == ".json":
            return _from_options(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UsageError(
            f"--recipe {recipe} cannot be read: {error.strerror}; check the path"
        ) from error
    except (ValueError, UsageError) as error:  # no TOML, no text, or no recipe
        raise UsageError(f"--recipe {recipe}: {error}") from error
    raise UsageError(
        f"--recipe {recipe} is unknown{suggestion(recipe, known)}: give {', '.join(known)}, a "
        ".toml file or the options.json of a run"
    )


def from_recipe(
    recipe: str | None = None,
    assignments: Sequence[str] = (),
    **options: Any,  # noqa: ANN401
) -> TrainConfig:
    """Return the options of a new run.

    Args:
        recipe: A shipped name or a file; None: ``paper`` if every data set has a name, else
            ``base``.
        assignments: Values that replace the recipe's, each as ``name=value``.
        options: Fields that replace both.

    Raises:
        UsageError: If a name or a value is none.
    """
    given = _given(assignments, options)
    names = [parse(text)[0] for text in given.get("datasets", ())]
    usual = "paper" if names and all(name in DATASETS for name in names) else "base"
    source = load(recipe or usual)
    values = _combined({"datasets": (), "output": Path("runs") / source["recipe"]}, source, given)
    values["init_from"] = _weights(values.get("init_from"))
    values |= _absolute(values)
    values["model"] = _shape(values.get("model", {}), values.get("init_from"))
    return TrainConfig(**values)


def resumed(
    directory: Path,
    recipe: str | None = None,
    assignments: Sequence[str] = (),
    **options: Any,  # noqa: ANN401
) -> TrainConfig:
    """Return the options of a run to resume it: its own, and those that change no step.

    Raises:
        DataError: If the directory holds no run that can be resumed.
        UsageError: If what is given would change the run.
    """
    config = load_options(directory)
    given = _given(assignments, options)
    if recipe is not None:
        given["recipe"] = load(recipe)["recipe"]
    if "datasets" in given:
        given["datasets"] = tuple(map(absolute, given["datasets"]))
    if "init_from" in given:
        given["init_from"] = _weights(given["init_from"])
    given |= _absolute(given)
    if "model" in given:
        own = {"model": asdict(config.model)}
        given["model"] = _shape(_combined(own, given)["model"], None)
    # Where steps or epochs say how long, the clock only stops a run.
    is_timed = config.steps is None and config.epochs is None
    changeable = CHANGEABLE if is_timed else CHANGEABLE | {"max_seconds"}
    for name, value in given.items():
        before = getattr(config, name)
        if name not in changeable and value != before:
            raise UsageError(
                f"{option_of(name)} would change the run in {directory}, which was begun with "
                f"{shown(before)}: give --resume without it, or start another run"
            )
    return replace(config, **{name: given[name] for name in changeable & given.keys()})


def _absolute(values: Mapping[str, Any]) -> dict[str, Path]:
    """Return what must be found from any directory that a run is resumed in."""
    return {name: values[name].absolute() for name in ("features", "valid") if values.get(name)}


def _weights(name: Path | None) -> Path | None:
    """Find a file of weights by its path or shipped name; ``none`` is None."""
    return None if name is None or str(name) == "none" else resolve(str(name)).absolute()


def _combined(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Let each layer's values replace those of the layers before it."""
    values: dict[str, Any] = {}
    for layer in layers:
        for length, other in (("steps", "epochs"), ("epochs", "steps")):
            if layer.get(length) is not None:
                values.pop(other, None)
        model = layer.get("model", {})
        # A shape with a name, or a whole one, replaces what was said of it; fields change it.
        if "from" not in model:
            model = values.get("model", {}) | model
        values |= layer
        if model:
            values["model"] = model
    return values


def _from_toml(name: str, text: str) -> dict[str, Any]:
    values = tomllib.loads(text)
    return dict(_value(key, value) for key, value in values.items()) | {"recipe": name}


def _from_options(text: str) -> dict[str, Any]:
    """Read the options of a run: the same run again, its batch shared by the processes of now."""
    config = share_batch(TrainConfig.from_json(text), torchrun_ranks()[2])
    values = {one.name: getattr(config, one.name) for one in settings()}
    return values | {"recipe": config.recipe, "model": asdict(config.model)}


def _given(assignments: Sequence[str], options: Mapping[str, Any]) -> dict[str, Any]:
    """Join assignments, of which the later ones count, and options, which count more."""
    return _combined(*(dict([_assigned(text)]) for text in assignments), options)


def _assigned(text: str) -> tuple[str, Any]:
    """Parse ``name=value``: a value is TOML, or a text where it is not."""
    name, equals, written = text.partition("=")
    if not equals:
        raise UsageError(f"--set {text} has no value: write name=value, such as lr=0.0005")
    try:
        parsed = tomllib.loads(f"value = {written}")
        value = parsed["value"] if parsed.keys() == {"value"} else written
    except ValueError:
        value = written
    name = name.strip().replace("-", "_")
    return _value(name, value, "--set ")


def _value(name: str, value: Any, prefix: str = "") -> tuple[str, Any]:  # noqa: ANN401 - any TOML
    """Return a field and its value in the field's type; ``model.widths`` is a part of ``model``.

    ``prefix`` stands before the name in an error.
    """
    head, dot, part = name.partition(".")
    known = [one.name for one in settings()]
    if head not in known or (dot and head != "model"):
        raise UsageError(
            f"{prefix}{name}: there is no such name{suggestion(head, known)}; give one of "
            f"{', '.join(known)}"
        )
    if head == "model":
        return head, _table({part: value} if dot else value, prefix)
    if value == "none" and NoneType in get_args(_KINDS[name]):
        return name, None
    try:
        return name, typed(name, value)
    except UsageError as error:
        # The parts of a degradation are named as its option has them.
        raise UsageError(f"{'' if str(error).startswith('--') else prefix}{error}") from error


def _table(value: Any, prefix: str) -> dict[str, Any]:  # noqa: ANN401 - any TOML
    """Return what is said of the net's shape as a table; a name or a file is its ``from``."""
    table = {"from": value} if isinstance(value, str) else value
    if not isinstance(table, dict) or not isinstance(table.get("from", ""), str):
        names = ", ".join(sorted(CONFIGS))
        raise UsageError(f"{prefix}model must be {names}, a JSON file or a table, not {value!r}")
    for name in table:
        if name not in {"from", *_SHAPE}:
            raise UsageError(
                f"{prefix}model.{name}: there is no such field{suggestion(name, _SHAPE)}; "
                f"give one of {', '.join(_SHAPE)}"
            )
    return table


def _shape(table: Mapping[str, Any], init_from: Path | None) -> ModelConfig:
    """Return the net's shape: a table's fields in place of those of what it is made from."""
    changes = dict(table)
    source = changes.pop("from", None)
    if source is not None:
        before = _named_shape(source)
    elif init_from is not None and not set(_SHAPE) <= changes.keys():
        before = read_header(init_from).config
    else:
        before = BASE
    if not changes:
        return before
    try:
        return ModelConfig.from_json(json.dumps(json.loads(before.to_json()) | changes))
    except UsageError as error:
        raise UsageError(f"model: {error}") from error


def _named_shape(name: str) -> ModelConfig:
    if name in CONFIGS:
        return CONFIGS[name]
    path = Path(name)
    known = ", ".join(sorted(CONFIGS))
    if not path.is_file():
        raise UsageError(f"model {name} is neither a name ({known}) nor a file")
    try:
        return ModelConfig.from_json(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, UsageError) as error:
        raise UsageError(f"model {name}: {error}; give {known} or a JSON file") from error
