"""The map of the modules: who may import whom, and what ``import srcli.cli`` costs."""

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from srcli.cli import app

ROOT = Path(__file__).parents[1]

ROWS = (
    {"__main__"},
    {"cli"},
    {"training", "evaluation", "batch"},
    {"upscaling", "engine", "planning", "sharing"},
    {"loading", "panels", "runs"},
    {"datasets"},
    {"choosing", "sources"},
    {"images", "weights", "plots", "downloads"},
    {"reading", "writing"},
    {"animations", "coding", "encoding", "profiles", "scanning"},
    {"jpeg"},
    {"deep", "gif", "png", "tiff", "webp"},
    {"bands", "tags"},
    {"directories", "fitting"},
    {"tiling"},
    {"model", "degradation", "metrics"},
    {"optimizers", "gradients", "symmetry"},
    {"color", "devices", "distributed", "recipes"},
    {"formats"},
    {"config", "deflate", "geometry", "files", "pictures", "quantisers"},
    {"errors"},
)
"""Top to bottom: a module imports only from rows below its own."""

ROW_OF = {name: row for row, names in enumerate(ROWS) for name in names}

ONLY_IN = {
    "PIL": {
        *("coding", "deep", "encoding", "formats", "gif", "profiles", "reading"),
        *("scanning", "tags", "webp", "writing"),
    },
    "isal": {"deflate"},
    "pyvips": {"deep"},
    "gdown": {"downloads"},
    "matplotlib": {"plots"},
    "rich": {"cli"},
    "safetensors": {"weights"},
    "tqdm": {"cli"},
    "typer": {"cli"},
}
"""Which modules may know these packages at all."""

UNWANTED = {"click", "dill", "marshal", "pickle", "shelve"}
"""Typer no longer brings click; the rest would make loading a file run its code."""

TORCH_FREE = {
    "__main__",
    "animations",
    "bands",
    "choosing",
    "coding",
    "config",
    "deep",
    "deflate",
    "directories",
    "downloads",
    "encoding",
    "errors",
    "files",
    "fitting",
    "formats",
    "geometry",
    "gif",
    "images",
    "jpeg",
    "pictures",
    "planning",
    "plots",
    "png",
    "profiles",
    "quantisers",
    "reading",
    "recipes",
    "scanning",
    "sources",
    "tags",
    "tiff",
    "webp",
    "writing",
}

SOURCES = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "srcli").glob("*.py")}


def imported(source):
    """List every dotted name that a source imports, at its top or inside anything.

    ``from a import b`` counts as ``a.b``: b may be a module or a name of a.
    """
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parts = ["srcli"] * bool(node.level) + [node.module] * bool(node.module)
            names += [".".join([*parts, alias.name]) for alias in node.names]
    return names


def direction_faults(name, source):
    """List what a module imports although the map does not allow it."""
    if name == "__init__":
        return []
    if name not in ROW_OF:
        return [f"{name} has no place in the map"]
    faults = []
    for dotted in imported(source):
        package, _, rest = dotted.partition(".")
        target = rest.partition(".")[0]
        if package != "srcli" or target == "__version__":
            continue
        if target not in ROW_OF:
            faults.append(f"{name} imports {dotted}, which has no place in the map")
        elif ROW_OF[target] <= ROW_OF[name]:
            faults.append(f"{name} imports {target}, which is not below it")
    return faults


def package_faults(name, source):
    """List the packages that a module imports although they belong to others."""
    packages = {dotted.partition(".")[0] for dotted in imported(source)}
    return sorted(
        package
        for package in packages
        if name not in ONLY_IN.get(package, {name})
        or package in UNWANTED
        or (package == "torch" and name in TORCH_FREE)
    )


def top_level(source):
    """Cut the bodies of all functions out of a source."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [ast.Pass()]
    return ast.unparse(tree)


def public_names(source):
    """List what a module defines for others: functions, classes, constants without underscore.

    What a decorator hands to the app (a command) is the app's.
    """
    names = []
    for node in ast.parse(source).body:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                decorators = [ast.unparse(decorator) for decorator in node.decorator_list]
                if not any(text.startswith("app.") for text in decorators):
                    names.append(node.name)
            case ast.Assign():
                names += [target.id for target in node.targets if isinstance(target, ast.Name)]
            case ast.AnnAssign(target=ast.Name(id=name)):
                names.append(name)
    return {name for name in names if not name.startswith("_")}


def declared(source):
    """Read a module's ``__all__``; None if it has none."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return ast.literal_eval(node.value)
    return None


def constants_classes_rest(name):
    """Order names as ruff's RUF022 does: CONSTANTS, Classes, functions."""
    group = 0 if re.fullmatch(r"[A-Z0-9_]+", name) else 1 if name[0].isupper() else 2
    return group, name


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_a_module_imports_only_from_rows_below_its_own(name):
    """No module imports a sibling or something above it, wherever the import stands."""
    assert direction_faults(name, SOURCES[name]) == []


@pytest.mark.parametrize(
    ("name", "source", "fault"),
    [
        ("geometry", "from srcli.model import net", "geometry imports model, which is not below"),
        ("geometry", "from srcli import model", "geometry imports model, which is not below"),
        ("model", "import srcli.weights", "model imports weights, which is not below"),
        ("training", "from srcli import batch", "training imports batch, which is not below"),
        ("images", "from . import cli", "images imports cli, which is not below"),
        ("images", "from .weights import load", "images imports weights, which is not below"),
        ("color", "def f():\n    from srcli import model", "color imports model, which is not"),
        ("errors", "if TYPE_CHECKING:\n    import srcli.cli", "errors imports cli, which is not"),
        ("cli", "from srcli import helpers", "cli imports srcli.helpers, which has no place"),
        ("helpers", "import math", "helpers has no place in the map"),
    ],
)
def test_the_map_sees_a_planted_fault(name, source, fault):
    """Each form of a forbidden import is found, and so is a module that nobody placed."""
    (found,) = direction_faults(name, source)

    assert found.startswith(fault)


def test_the_map_allows_what_it_should():
    """Imports from below, of the version, and of other packages are no fault."""
    source = "import srcli.geometry\nfrom srcli import __version__, errors\nfrom torch import nn"

    assert direction_faults("model", source) == []


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_a_package_is_known_only_where_it_belongs(name):
    """Codecs, safetensors, torch and the terminal's packages stay in their modules."""
    assert package_faults(name, SOURCES[name]) == []


@pytest.mark.parametrize(
    ("name", "source", "found"),
    [
        ("metrics", "from PIL import Image", ["PIL"]),
        ("reading", "from PIL import Image", []),
        ("training", "from safetensors.torch import load_file", ["safetensors"]),
        ("weights", "import pickle", ["pickle"]),
        ("batch", "def f():\n    import tqdm, rich.table", ["rich", "tqdm"]),
        ("geometry", "import torch.nn", ["torch"]),
        ("model", "import torch.nn", []),
    ],
)
def test_a_misplaced_package_is_seen(name, source, found):
    """The check of packages finds a planted import and allows a proper one."""
    assert package_faults(name, source) == found


def test_the_command_line_imports_torch_only_inside_functions():
    """What runs when ``srcli.cli`` is imported does not name torch."""
    packages = {dotted.partition(".")[0] for dotted in imported(top_level(SOURCES["cli"]))}

    assert "typer" in packages
    assert "torch" not in packages


def test_nothing_is_ever_unpickled():
    """No module calls ``torch.load`` or ``torch.save``, whose files can carry code."""
    calls = {
        (name, ast.unparse(node.func))
        for name, source in SOURCES.items()
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
    }

    assert ("weights", "save_file") in calls
    assert {pair for pair in calls if pair[1] in {"torch.load", "torch.save"}} == set()


@pytest.mark.parametrize("command", [None, *sorted(typer.main.get_command(app).commands)])
def test_help_answers_without_torch(command):
    """``python -m srcli [COMMAND] --help`` prints the usage and never imports torch."""
    arguments = [*filter(None, [command]), "--help"]
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "srcli", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    modules = set(re.findall(r"^import time:.*\| *(\S+)$", done.stderr, re.MULTILINE))

    assert "Usage" in done.stdout
    assert command is None or command in done.stdout
    assert "srcli.config" in modules
    assert {name for name in modules if name.partition(".")[0] == "torch"} == set()


@pytest.mark.parametrize("name", sorted(SOURCES.keys() - {"__init__", "__main__", "images"}))
def test_all_lists_exactly_the_public_names(name):
    """``__all__`` holds every public name that a module defines, in order, and no other."""
    expected = sorted(public_names(SOURCES[name]), key=constants_classes_rest)

    assert declared(SOURCES[name]) == expected


@pytest.mark.parametrize("name", sorted(SOURCES.keys() - {"__main__"}))
def test_all_names_what_is_there(name):
    """Every name in ``__all__`` can be had from its module."""
    module = importlib.import_module("srcli" if name == "__init__" else f"srcli.{name}")

    assert [one for one in module.__all__ if not hasattr(module, one)] == []


def test_a_missing_name_in_all_is_seen():
    """The check of ``__all__`` knows constants, classes and functions, and skips the private."""
    source = (
        "A = 1\n_B = 2\nC: int = 3\nclass D: ...\ndef e(): ...\ndef _f(): ...\n"
        "@app.command()\ndef g(): ...\n__all__ = ['x']"
    )

    assert public_names(source) == {"A", "C", "D", "e"}
    assert declared(source) == ["x"]
