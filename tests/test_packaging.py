"""The wheel alone is enough: code, weights, console script, no network."""

import ast
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest
from writing_files import write

from srcli import __version__
from srcli.imaging import images

ROOT = Path(__file__).parents[1]

OFFLINE = """
import socket
def refuse(*_args, **_kwargs):
    raise OSError("this test has no network")
socket.socket.connect = refuse
socket.getaddrinfo = refuse
from srcli.cli.app import main
main()
"""


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    """A folder with the built wheel and source distribution."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", str(folder)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    return folder


@pytest.fixture(scope="module")
def wheel(dist):
    """The built wheel."""
    (built,) = dist.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def metadata(wheel):
    """What the wheel says of itself."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        return archive.read(name).decode()


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory):
    """The interpreter of a new environment that holds the wheel and, linked, its requirements.

    Torch alone is half a gigabyte, so the requirements are those of the test's own
    environment; srcli itself is not reachable through them (its editable install is a .pth
    file, which only a site directory reads).
    """
    home = tmp_path_factory.mktemp("environment")
    venv.create(home, with_pip=False, symlinks=True)
    interpreter = home / "bin" / "python"
    site = subprocess.run(
        [interpreter, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    with zipfile.ZipFile(wheel) as archive:
        assert not any("site-packages" in name for name in archive.namelist())
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", site, wheel],
        check=True,
        capture_output=True,
    )
    shutil.move(Path(site, "bin", "srcli"), home / "bin" / "srcli")
    Path(site, "requirements.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    return interpreter


def test_the_wheel_carries_code_types_and_weights(wheel):
    """Every module, the type marker and the shipped weights are inside; no test is."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())

    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "srcli").rglob("*.py")}
    others = [path for kind in ("toml", "html") for path in (ROOT / "srcli").rglob(f"*.{kind}")]
    others = {path.relative_to(ROOT).as_posix() for path in others}
    shipped = {f"srcli/_shipped/{path.name}" for path in (ROOT / "weights").glob("*.safetensors")}
    assert modules | others | {"srcli/py.typed"} | shipped <= names
    assert "srcli/_shipped/base.safetensors" in names
    assert not [name for name in names if name.startswith(("tests", "examples"))]


def test_both_distributions_can_be_published(dist):
    """Twine has nothing against them, and the sources have all that the wheel is built of."""
    pytest.importorskip("twine")
    files = sorted(map(str, dist.iterdir()))
    assert len(files) == 2
    subprocess.run([sys.executable, "-m", "twine", "check", "--strict", *files], check=True)
    (sources,) = dist.glob("*.tar.gz")
    with tarfile.open(sources) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}

    weights = {f"weights/{path.name}" for path in (ROOT / "weights").glob("*.safetensors")}
    assert weights | {"pyproject.toml", "srcli/cli/app.py", "docs/export.md", "LICENSE"} <= names


def test_the_extras_are_those_that_the_errors_name(metadata):
    """Each ``pip install 'srcli[EXTRA]'`` that srcli or its docs advise brings something."""
    pages = [*(ROOT / "docs").glob("*.md"), *(ROOT / "srcli").rglob("*.py"), ROOT / "README.md"]
    text = "".join(page.read_text(encoding="utf-8") for page in pages)
    advised = set(re.findall(r"srcli\[(\w+)\]", text))
    advised |= set(re.findall(r'require_package\(\s*[\w"]+, "(\w+)"', text))

    provided = set(re.findall(r"^Provides-Extra: (\w+)", metadata, re.MULTILINE))
    assert provided == advised
    assert "Author: The srcli authors" in metadata
    assert "Classifier: Environment :: Console" in metadata


def test_the_installed_wheel_upscales_offline_from_another_directory(python, tmp_path):
    """With no repository and no network in reach, a photo comes out enlarged."""
    photo = tmp_path / "photo.png"
    source = images.read(ROOT / "examples" / "photos" / "parrots.png")
    write(images.Picture(pixels=source.pixels[:40, :50].copy()), photo)

    finished = subprocess.run(
        [python, "-I", "-c", OFFLINE, "upscale", "photo.png"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    version = subprocess.check_output([python.parent / "srcli", "--version"], cwd=tmp_path)

    assert version.decode() == f"srcli {__version__}\n"
    assert f'version = "{__version__}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert finished.returncode == 0
    assert finished.stderr.startswith("photo_x3.png  150x120\n")  # a slow machine says more
    assert np.ptp(images.read(tmp_path / "photo_x3.png").pixels) > 100


def test_every_import_is_a_requirement(metadata):
    """What srcli imports from others is what its wheel asks for, no more and no less."""
    required = set(re.findall(r"^Requires-Dist: ([\w-]+)", metadata, re.MULTILINE))

    imported = set()
    for path in (ROOT / "srcli").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.split(".")[0])
    third_party = imported - set(sys.stdlib_module_names) - {"srcli"}
    others = {"PIL": "pillow", "pillow_heif": "pillow-heif", "pillow_jxl": "pillow-jxl-plugin"}
    named = {others.get(name, name) for name in third_party}
    # pyvips finds libvips in pyvips-binary; torch imports onnxscript and tensorboard.
    assert named | {"pyvips-binary", "onnxscript", "tensorboard"} == required
