"""What tests of several themes share."""

import hashlib
import importlib
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest


def refusal(call, kind):
    """Return the message that a call is refused with; it must be one line."""
    with pytest.raises(kind) as caught:
        call()
    assert str(caught.value).isprintable()
    return str(caught.value)


def contents(folder):
    """Every file below a folder, hidden ones included, by its path: checksums."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def tool(name):
    """Import one of the scripts of ``benchmarks/``, as they import each other."""
    folder = str(Path(__file__).parents[1] / "benchmarks")
    sys.path.insert(0, folder)
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(folder)


def await_that(condition):
    """Wait for something that another process does, two minutes at most."""
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def growth(work, *arguments, first):
    """Measure by how many megabytes a process of its own grows at its most while it does work."""
    program = f"""
import re, sys
from pathlib import Path

def peak():
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(re.search(r"VmHWM:\\s+(\\d+)", status)[1]) / 1024

{first}
before = peak()
{work}
print(peak() - before)
"""
    command = [sys.executable, "-c", program, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout)


needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")

needs_openvino = pytest.mark.skipif(
    find_spec("openvino") is None, reason="needs openvino: pip install 'srcli[openvino]'"
)
