"""The map of the modules: who may import whom, and what ``import srcli.cli.app`` costs."""

import ast
import re
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
import typer

from srcli.cli.app import app

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "srcli"

FLOORS = (
    {"__main__"},
    {"cli"},
    {"upscaling", "evaluation", "exporting"},
    {"training", "upscaler"},
    {"model", "data"},
    {"imaging", "ops"},
    {"errors", "files"},
)
"""THE map of allowed imports, top to bottom: a room (a package or a module of ``srcli``) imports
only from rooms on floors below its own."""

FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}

ONLY_IN = {
    "PIL": ("imaging",),
    "gdown": ("data.downloads",),
    "openvino": ("model.graph", "ops.engines"),
    "matplotlib": ("training.curves", "evaluation.panels"),
    "onnx": ("exporting",),
    "onnxruntime": ("exporting",),
    "pathspec": ("upscaling.search",),
    "pyvips": ("imaging",),
    "rich": ("cli",),
    "safetensors": ("model.weights",),
    "torch": tuple(FLOOR_OF.keys() - {"imaging", "errors", "files", "__main__"}),
    "torchmetrics": ("evaluation.perceptual",),
    "torchvision": ("evaluation.perceptual",),
    "tqdm": ("cli",),
    "typer": ("cli",),
}
"""Which rooms or modules may know these packages at all."""

SOURCES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path.read_text(encoding="utf-8")
    for path in PACKAGE.rglob("*.py")
}


def room_of(name):
    """Name the room of a module: its package, or itself if it has none."""
    return name.partition(".")[0]


def imported(source):
    """List every dotted name imported at the top or inside; ``from a import b`` is ``a.b``."""
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def direction_faults(name, source):
    """List what a module imports although the map does not allow it."""
    room = room_of(name)
    if room == "__init__":
        return []
    if room not in FLOOR_OF:
        return [f"{room} has no place in the map"]
    faults = []
    for dotted in imported(source):
        package, _, rest = dotted.partition(".")
        target = room_of(rest)
        if package != "srcli" or target in {"__version__", room}:
            continue
        if target not in FLOOR_OF:
            faults.append(f"{name} imports {dotted}, which has no place in the map")
        elif FLOOR_OF[target] <= FLOOR_OF[room]:
            faults.append(f"{name} imports {target}, which is not below it")
    return faults


def package_faults(name, source):
    """List the packages that a module imports although they belong to others."""
    packages = {dotted.partition(".")[0] for dotted in imported(source)}
    return sorted(
        package
        for package in packages
        if not any(f"{name}.".startswith(f"{home}.") for home in ONLY_IN.get(package, (name,)))
    )


def module_cycles(sources):
    """List the modules of one room that import each other in a circle."""
    graph = {}
    for name, source in sources.items():
        targets = {dotted.removeprefix("srcli.") for dotted in imported(top_level(source))}
        targets |= {target.rpartition(".")[0] for target in targets}
        graph[name] = {target for target in targets if target in sources and target != name}
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        return error.args[1]
    return []


def top_level(source):
    """Cut the bodies of all functions out of a source."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [ast.Pass()]
    return ast.unparse(tree)


def test_modules_import_only_from_floors_below():
    """No room imports a neighbour or something above it, wherever the import stands."""
    planted = [
        direction_faults("ops.color", "from srcli import model"),
        direction_faults("imaging.png", "def f():\n    from srcli import ops"),
        direction_faults("cli.app", "from srcli import helpers"),
        direction_faults("helpers", "import math"),
    ]
    faults = [fault for name, source in SOURCES.items() for fault in direction_faults(name, source)]

    assert faults == []
    assert [len(found) for found in planted] == [1, 1, 1, 1]


def test_no_modules_import_each_other_in_a_circle():
    """Within a room, too, there is a first module to read."""
    assert module_cycles(SOURCES) == []
    assert module_cycles({"a": "import srcli.b", "b": "from srcli.a import c"}) != []


def test_packages_are_known_only_where_they_belong():
    """Codecs, safetensors, torch and the terminal's packages stay in their rooms."""
    faults = {name: package_faults(name, source) for name, source in SOURCES.items()}

    assert {name: found for name, found in faults.items() if found} == {}
    assert package_faults("ops.color", "import math, tqdm") == ["tqdm"]


@pytest.mark.parametrize(
    "room", sorted(FLOOR_OF.keys() - {"__main__", "exporting", "upscaler", "errors", "files"})
)
def test_every_package_says_what_it_is_for(room):
    """A package's docstring says what it may import and where to begin reading."""
    text = ast.get_docstring(ast.parse(SOURCES[f"{room}.__init__"]))

    assert "may import" in " ".join(text.split())
    assert re.findall(rf":mod:`srcli\.({room}\.\w+)`", text)[0] in SOURCES


def functions(source):
    """List every function of a source: its name, lines of signature and body, parameters."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            count = len([one for one in arguments if one.arg not in {"self", "cls"}])
            body = node.end_lineno - node.body[0].lineno + 1
            found.append((node.name, node.body[0].lineno - node.lineno, body, count))
    return found


def test_files_and_functions_stay_small():
    """No file above 420 lines, no function above 60 or six parameters; a command's may be 140."""
    large = [name for name, source in SOURCES.items() if source.count("\n") > 420]
    long = [
        f"{name}.{function}: {signature} and {body} lines, {count} parameters"
        for name, source in SOURCES.items()
        for function, signature, body, count in functions(source)
        if (
            max(signature - 140, body - 60) > 0
            if room_of(name) == "cli"
            else signature + body > 60 or count > 6
        )
    ]

    assert large == []
    assert long == []
    assert functions("def f(self, a, *, b):\n    pass\n") == [("f", 1, 1, 2)]


def test_nothing_is_ever_unpickled():
    """No module knows pickle or calls ``torch.load``: loading a file never runs its code."""
    calls = re.compile(r"\btorch\.(load|save)\(|\bimport (dill|marshal|pickle|shelve)\b")

    assert [name for name, source in SOURCES.items() if calls.search(source)] == []


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
    assert "srcli.model.config" in modules
    assert {name for name in modules if name.partition(".")[0] == "torch"} == set()
