"""The examples run, and show what the documents say they show."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from srcli.data.degrading import degrade
from srcli.ops.color import dequantize, quantize

EXAMPLES = Path(__file__).parents[1] / "examples"
NAMES = ["houses.png", "parrots.png"]
AS_CHECKED_OUT = os.environ | {"PYTHONPATH": str(EXAMPLES.parent), "OMP_NUM_THREADS": "1"}


@pytest.mark.parametrize("name", NAMES)
def test_a_photo_is_its_original_reduced_by_three(name):
    """What README calls the original really is the HR of the LR photo, by our degradation."""
    high = torch.from_numpy(np.array(Image.open(EXAMPLES / "originals" / name))).permute(2, 0, 1)
    low = np.array(Image.open(EXAMPLES / "photos" / name))

    expected = quantize(degrade(dequantize(high), 3)).permute(1, 2, 0).numpy()

    assert np.array_equal(expected, low)


def test_the_program_enlarges_pictures_in_threads(tmp_path):
    """The example of the Python interface writes each picture beside its original."""
    for name in NAMES:
        with Image.open(EXAMPLES / "photos" / name) as image:
            image.resize((60, 40)).save(tmp_path / name)
    command = [sys.executable, EXAMPLES / "enlarge.py", *NAMES, "--width", "150"]

    printed = subprocess.run(
        command, cwd=tmp_path, env=AS_CHECKED_OUT, capture_output=True, text=True, check=True
    ).stdout

    assert printed.splitlines() == ["houses_150.png", "parrots_150.png"]
    for name in printed.splitlines():
        with Image.open(tmp_path / name) as image:
            assert image.size == (150, 100)


needs_shell = pytest.mark.skipif(shutil.which("sh") is None, reason="needs a POSIX shell")


def run_script(folder, *arguments, srcli, name="upscale_folder.sh"):
    """Run a shell script as a user would, with shell code in place of srcli."""
    (folder / "srcli.sh").write_text(f'echo "$@" >> calls.txt\n{srcli}\n')
    return subprocess.run(
        ["sh", EXAMPLES / name, *arguments],
        cwd=folder,
        env=AS_CHECKED_OUT | {"SRCLI": "sh srcli.sh", "SECONDS_BETWEEN": "0"},
        capture_output=True,
        text=True,
        check=False,
    )


@needs_shell
def test_the_script_tries_again_what_failed_and_lists_what_failed_twice(tmp_path, tiny_weights):
    """The second try is a real one: what is good by then is done, what is bad is listed."""
    photos = tmp_path / "my photos/sub"
    photos.mkdir(parents=True)
    Image.new("RGB", (20, 10), "navy").save(photos / "a.png")
    (photos / "b.png").write_bytes(b"broken")
    first = r"printf 'my photos/./sub/a.png\nmy photos/./sub/b.png\n' > out.failed.txt; exit 1"
    again = f'[ $(wc -l < calls.txt) = 2 ] && exec {sys.executable} -m srcli "$@"\n{first}'

    finished = run_script(tmp_path, "my photos", "out", "-s", "2", "-m", tiny_weights, srcli=again)

    assert finished.returncode == 1
    assert "2 failed; trying again" in finished.stderr
    assert (tmp_path / "out.failed.txt").read_text() == "my photos/./sub/b.png\n"
    assert [path.name for path in (tmp_path / "out").rglob("*.*")] == ["a.png"]


@needs_shell
def test_the_watch_loop_does_what_comes_and_ends_at_real_errors(tmp_path):
    """Nothing yet, a failure and a success are looked at again; wrong usage is the end."""
    code = 'exit $(sed -n "$(wc -l < calls.txt)p" codes.txt)'
    (tmp_path / "codes.txt").write_text("3\n1\n0\n2\n")

    finished = run_script(tmp_path, "in", "out", "-s", "2", srcli=code, name="watch_folder.sh")

    assert finished.returncode == 2
    line = "upscale in -s 2 --output out --recursive --skip-existing --json\n"
    assert (tmp_path / "calls.txt").read_text() == 4 * line


@needs_shell
def test_the_cron_line_enlarges_what_is_new(tmp_path, tiny_weights):
    """As cron runs it: by sh, with little more than HOME; a second time there is nothing to do."""
    (tmp_path / "incoming").mkdir()
    Image.new("RGB", (20, 10), "navy").save(tmp_path / "incoming/a.png")
    (line,) = [
        line for line in (EXAMPLES / "crontab").read_text().splitlines() if not line.startswith("#")
    ]
    environment = {
        "HOME": str(tmp_path),
        "PATH": os.defpath,
        "SRCLI": f"{sys.executable} -m srcli",
        "SRCLI_UPSCALE_MODEL": str(tiny_weights),
        "PYTHONPATH": str(EXAMPLES.parent),
    }

    for _ in range(2):
        command = ["sh", "-c", line.split(maxsplit=5)[5]]
        done = subprocess.run(command, env=environment, capture_output=True, check=False)
        assert (done.returncode, done.stderr) == (0, b"")
    with Image.open(tmp_path / "enlarged/a.png") as image:
        assert image.size == (60, 30)


def test_a_folder_on_a_cluster(tmp_path):
    """Dask's workers do every file once; one that dies costs the file it had and no other."""
    source, output = tmp_path / "in", tmp_path / "out"
    (source / "deeper").mkdir(parents=True)
    for name in ("a.png", "deeper/b.jpg", "deadly.png", "c.jpg"):
        Image.new("RGB", (24, 18), "teal").save(source / name)
    (source / "broken.png").write_bytes(b"no picture")
    # The worker that gets it ends at once, as one does that the system kills.
    code = f"""
import os, sys, cluster, dask
dask.config.set({{"distributed.scheduler.allowed-failures": 0}})
def deadly(source, *rest):
    if "deadly" in source:
        os._exit(9)
    import cluster
    cluster.enlarge(source, *rest)
if __name__ == "__main__":
    cluster.enlarge = deadly
    sys.argv = ["cluster", {str(source)!r}, {str(output)!r}, "--scale", "2", "--workers", "1"]
    sys.exit(cluster.main())
"""
    program = tmp_path / "program.py"
    program.write_text(code)
    path = os.pathsep.join([str(EXAMPLES), str(EXAMPLES.parent)])

    done = subprocess.run(
        [sys.executable, "-W", "ignore", program],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
        timeout=240,
        check=False,
    )

    found = {str(file.relative_to(output)) for file in output.rglob("*.*")}
    assert found == {"a.png", "c.jpg.png", "deeper/b.jpg.png"}, done.stderr
    assert done.returncode == 1
    with Image.open(output / "deeper" / "b.jpg.png") as image:
        assert image.size == (48, 36)
    lines = done.stdout.splitlines()
    assert [line for line in lines if "broken.png: " in line], done
    assert [line for line in lines if "deadly.png: " in line]
