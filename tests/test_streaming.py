"""Large results: written while the net is at work, out of inputs that are decoded meanwhile."""

import dataclasses
import json
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import batch_files
import command_runs
import numpy as np
import pytest
from reading_files import waves
from run_files import needs_proc
from writing_files import write

from srcli.errors import OutputError
from srcli.imaging import images
from srcli.upscaler import Settings, Upscaler
from srcli.upscaling import estimate, steps

NAMES = ["a.png", "a.tif", "a.ppm", "a.jpg", "a.webp"]


@pytest.fixture
def streaming(monkeypatch):
    """Let every result be written as its rows come, and every input read so."""
    monkeypatch.setattr(steps, "STREAMED_PIXELS", 0)
    monkeypatch.setattr(steps, "SCANNED_PIXELS", 0)


SETTINGS = Settings(device="cpu", dtype="fp32", tile=120)
"""In fp32 on the CPU, in single patches."""

enlarge = partial(batch_files.enlarge, settings=SETTINGS)


def picture(name):
    """A picture that the format can hold, with a resolution."""
    deep = name in {"a.png", "a.tif"}
    pixels = waves(90, 150, dtype=np.uint16 if deep else np.uint8)
    metadata = images.Metadata(dpi=(300.0, 300.0), exif=None)
    alpha = waves(90, 150, 1, pixels.dtype) if deep else None
    return images.Picture(pixels=pixels, alpha=alpha, metadata=metadata)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("name", NAMES)
def test_a_result_is_the_same_however_it_is_written(plain_weights, name, request):
    """Byte for byte what is written of a picture that is whole; the counts and sizes too."""
    write(picture(name), Path(name))
    (held,) = enlarge(name, model=plain_weights, output=Path(f"held_{name}"))
    request.getfixturevalue("streaming")
    (streamed,) = enlarge(name, model=plain_weights, output=Path(f"streamed_{name}"))

    assert (held.status, streamed.status) == ("done", "done")
    assert Path(f"held_{name}").read_bytes() == Path(f"streamed_{name}").read_bytes()
    found = [dataclasses.replace(one, job=None, seconds=0) for one in (held, streamed)]
    assert found[0] == found[1]
    assert held.after == (270, 450)


@pytest.mark.usefixtures("here", "streaming")
@pytest.mark.parametrize(
    ("name", "scale"),
    [("a.png", 1), ("a.tif", 2), ("a.jpg", 6), ("g.png", 2.5)],
)
def test_an_input_that_is_decoded_meanwhile_gives_the_same(plain_weights, name, scale, monkeypatch):
    """In one step, in several and reduced: bit for bit the result of the decoded picture."""
    channels = 1 if name.startswith("g") else 3
    metadata = images.Metadata(dpi=(72.0, 72.0))
    write(images.Picture(pixels=waves(70, 130, channels), metadata=metadata), Path(name))
    expected = Upscaler(plain_weights, settings=SETTINGS).upscale(
        images.read(Path(name)), (round(130 * scale), round(70 * scale))
    )
    read = images.read_album
    monkeypatch.setattr(images, "read_album", lambda *_, **__: pytest.fail("it was read whole"))

    options = {"output": Path("out.png"), "scale": scale, "metadata": "strip"}
    (result,) = enlarge(name, model=plain_weights, **options)

    assert result.status == "done", result.message
    monkeypatch.setattr(images, "read_album", read)
    found = images.read(Path("out.png"))
    assert found.metadata == images.Metadata()
    np.testing.assert_array_equal(found.pixels, expected.pixels)


@pytest.mark.usefixtures("here", "streaming")
@pytest.mark.parametrize(
    ("cause", "code", "message"),
    [
        ("damage", 1, "a.png: "),
        ("memory", 5, "a.png: the result does not fit into memory"),
        ("disk", 1, "out/a.png: the disk is full"),
    ],
)
def test_what_fails_halfway_leaves_nothing(plain_weights, monkeypatch, cause, code, message):
    """Net and writer stop; neither a file nor a folder is there, and the next file is done."""
    write(images.Picture(pixels=waves(300, 700)), Path("a.png"))
    write(images.Picture(pixels=waves(60, 40)), Path("b.png"))
    bands, write_rows, computed = Upscaler.bands, images.write_rows, []

    def counted(self, given, size, on_progress):
        for band in bands(self, given, size, on_progress):
            computed.append(size[0])
            if cause == "memory" and computed == [2100] * 5:
                raise MemoryError
            yield band

    def full(rows, path, **options):
        if path.name == "a.png":
            next(rows)
            raise OutputError(f"{path}: the disk is full")
        return write_rows(rows, path, **options)

    monkeypatch.setattr(Upscaler, "bands", counted)
    if cause == "damage":
        whole = Path("a.png").read_bytes()
        Path("a.png").write_bytes(whole[: len(whole) // 3])
    elif cause == "disk":
        monkeypatch.setattr(images, "write_rows", full)

    failed, done = enlarge("a.png", "b.png", model=plain_weights, jobs=1, output=Path("out"))

    assert (failed.status, failed.exit_code, done.status) == ("failed", code, "done")
    assert failed.message.startswith(message)
    assert computed.count(2100) < 10  # of eighteen
    assert [path.name for path in Path("out").iterdir()] == ["b.png"]
    assert not any(thread.name.startswith("srcli-files") for thread in threading.enumerate())


PEAK = """
import sys
from pathlib import Path
from srcli.cli.app import main
from srcli.upscaling import steps
steps.STREAMED_PIXELS = 500_000
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
status = Path("/proc/self/status").read_text(encoding="ascii")
print("peak", 1024 * int(status.split("VmHWM:")[1].split()[0]))
"""
"""Enlarges and prints the most memory that the process ever had, by the system's own count."""


@pytest.mark.usefixtures("here")
@needs_proc
@pytest.mark.parametrize(
    ("name", "size", "scale", "most"),
    [
        # A result that is encoded while the net is at work.
        ("m.tif", (520, 260), 3, 1.2),
        # What the windows of two steps leave behind is given back on some machines, not on others.
        ("n.png", (110, 90), 6, 1.5),
    ],
)
def test_a_dry_run_estimates_the_peak_of_memory(name, size, scale, most, monkeypatch):
    """A third too little at most, small ones are mostly program; in one step a fifth too much."""
    write(images.Picture(pixels=waves(*size)), Path(name))
    monkeypatch.setattr(estimate, "STREAMED_PIXELS", 500_000)  # as in the process that is measured
    command = ["upscale", name, "-m", "base", "-s", str(scale), "--engine", "torch"]
    monkeypatch.setattr(Upscaler, "seconds", lambda *_: 0.0)  # the time is not asked for here

    estimated = command_runs.run(*command, "--json", "-n")
    process = [sys.executable, "-c", PEAK, *command, "--overwrite", "-q"]
    peaks = []
    # Twice: a busy machine adds to a peak, as threads wait for each other with what they hold.
    for _ in range(2):
        done = subprocess.run(process, check=True, capture_output=True, text=True)
        peaks.append(int(done.stdout.removeprefix("peak ")))

    memory, peak = json.loads(estimated.stdout.splitlines()[0])["memory"], min(peaks)
    assert 0.67 * peak <= memory <= most * peak
