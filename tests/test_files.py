"""Files that appear whole or not at all."""

import errno
import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from batch_files import listing

from srcli import files
from srcli.files import TEMPORARY_SUFFIX, claimed, replacing, sweep


@pytest.mark.parametrize("error", [None, OSError, KeyboardInterrupt])
@pytest.mark.parametrize("old", [None, b"old"], ids=["new", "replaced"])
def test_a_finished_file_takes_its_name_and_a_failure_changes_nothing(tmp_path, old, error):
    """Whatever ends the block early, the old file stays, and nothing else is left."""
    target = tmp_path / ("x" * 255)  # as long as the file system allows
    if old is not None:
        target.write_bytes(old)

    with suppress(error or OSError), replacing(target) as temporary:
        temporary.write_bytes(b"new")
        assert (target.read_bytes() if target.exists() else None) == old
        if error is not None:
            raise error

    expected = b"new" if error is None else old
    assert (target.read_bytes() if target.exists() else None) == expected
    assert listing(tmp_path) == ([] if expected is None else [target.name])


def test_a_power_cut_leaves_the_old_file_or_the_new(tmp_path, monkeypatch):
    """The content is on the disk before it has its name, the folder when it holds the new file."""
    target = tmp_path / "target.bin"
    target.write_bytes(b"old")
    synced = []

    def fsync(number):
        is_folder = stat.S_ISDIR(os.fstat(number).st_mode)
        synced.append(("folder" if is_folder else os.fstat(number).st_size, target.read_bytes()))

    monkeypatch.setattr(os, "fsync", fsync)
    with replacing(target) as temporary:
        assert temporary.read_bytes() == b""
        temporary.write_bytes(b"newer")

    assert synced == [(5, b"old"), ("folder", b"newer")]


def test_leftovers_of_the_dead_are_swept_and_the_livings_are_kept(tmp_path):
    """What a killed process left goes; what a living one is writing stays, as do other files."""
    code = (
        "import pathlib, sys; from srcli.files import replacing\n"
        "with replacing(pathlib.Path(sys.argv[1], 'x')) as t:\n"
        "    t.write_bytes(b'half'); print(t.name, flush=True); sys.stdin.read()"
    )
    (tmp_path / f"not-hidden{TEMPORARY_SUFFIX}").touch()
    (tmp_path / ".hidden").touch()
    before = listing(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=Path(__file__).parents[1],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        name = other.stdout.readline().strip()

        sweep(tmp_path)
        assert name in listing(tmp_path)

        other.kill()
        other.wait()

        assert name in listing(tmp_path)
        sweep(tmp_path)
    assert listing(tmp_path) == before
    sweep(tmp_path / "nowhere")


@pytest.mark.parametrize("locks", [True, False])
def test_a_claim_is_held_once(tmp_path, monkeypatch, locks):
    """A second one is refused until the first is over, where there are locks; no file stays."""
    if not locks:
        monkeypatch.setattr(files._FCNTL, "flock", refuse)
    target = tmp_path / "new" / "deeper" / ("x" * 255)

    with claimed(target) as first, claimed(target) as second, claimed(tmp_path / "y") as other:
        assert (first, second, other) == (True, not locks, True)
        assert len(listing(target.parent)) == 1

    assert listing(target.parent) == []
    with claimed(target) as again:
        assert again


def refuse(*_):
    """Know no locks, as some file systems do."""
    raise OSError(errno.ENOLCK, "no locks available")


@pytest.mark.parametrize("way", [claimed, replacing])
def test_windows_has_no_locks(tmp_path, monkeypatch, way):
    """Its files are made all the same, and nothing is taken for a leftover."""
    monkeypatch.setattr(files, "_FCNTL", None)
    with way(tmp_path / "a"), way(tmp_path / "b"):
        sweep(tmp_path)
        assert len(listing(tmp_path)) == 2

    assert listing(tmp_path) == ([] if way is claimed else ["a", "b"])


def test_claims_by_many_threads_never_meet(tmp_path):
    """Whoever removes the file, and whoever sweeps it, two never hold one claim."""
    held, most, got = [], [], []

    def work(_):
        for _ in range(50):
            sweep(tmp_path / "out")
            with claimed(tmp_path / "out" / "a.png") as ours:
                if ours:
                    held.append(1)
                    most.append(len(held))
                    got.append(1)
                    held.pop()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))

    assert max(most) == 1
    assert got
    assert not list(tmp_path.rglob(f"*{TEMPORARY_SUFFIX}"))
