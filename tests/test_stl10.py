"""STL-10 as binaries and as its archive, and every way in which they are wrong."""

import errno
import io
import os
import tarfile

import numpy as np
import pytest
from source_files import keys, refusal

from srcli.data import stl10
from srcli.data.downloads import PAGES
from srcli.data.sources import open_source
from srcli.errors import OutputError

GET = f"with --download, or from {PAGES['stl10']}"

ROWS, COLUMNS = np.mgrid[:96, :96]
SPLITS = {
    name: np.array(
        [
            np.stack([ROWS + 2 * seed + number, 2 * COLUMNS, ROWS // 3 + COLUMNS // 2], -1)
            for number in range(count)
        ],
        np.uint8,
    )
    for seed, (name, count) in enumerate({"unlabeled": 3, "train": 2, "test": 1}.items())
}
"""Three small splits, ``(N, 96, 96, 3)``; of each picture rows, columns and channels differ."""

BINARIES = {
    # As the release has it: picture by picture, channel by channel, column by column.
    f"stl10_binary/{name}_X.bin": pictures.transpose(0, 3, 2, 1).tobytes()
    for name, pictures in SPLITS.items()
}


def write_binaries(root):
    """Lay STL-10 out unpacked."""
    (root / "stl10_binary").mkdir(parents=True)
    for name, data in BINARIES.items():
        (root / name).write_bytes(data)


def write_tar(root, files):
    """Lay STL-10 out as its archive, of the given names and bytes."""
    path = root / "stl10_binary.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def opened(root, *splits, notice=lambda _: None):
    """Open splits of STL-10, or the unlabelled one."""
    return stl10.STL10(root, splits, notice)


def test_splits_are_upright_and_joined_in_order(tmp_path):
    """Rows come first, with the right colours; images run on from one split to the next."""
    write_binaries(tmp_path)

    source = open_source("stl10:test,unlabeled,train", tmp_path, print)

    expected = [("test", 0), ("unlabeled", 0), ("unlabeled", 1), ("unlabeled", 2)]
    expected += [("train", 0), ("train", 1)]
    assert keys(source) == [f"stl10/{split}/{place}" for split, place in expected]
    for index, (split, place) in enumerate(expected):
        pixels = source.read(index)
        assert (pixels.shape, pixels.dtype) == ((96, 96, 3), np.uint8)
        assert np.array_equal(pixels, SPLITS[split][place])
        assert source.size(index) == (96, 96)
        assert source.label(index) == f"{tmp_path / 'stl10_binary' / f'{split}_X.bin'}[{place}]"


def test_stl10_may_lie_below_the_data_folder(tmp_path):
    """Without a part it is the unlabelled images; one line says how many there are."""
    write_binaries(tmp_path / "stl10")
    notices = []

    source = open_source("stl10", tmp_path, notices.append)

    assert keys(source) == [f"stl10/unlabeled/{index}" for index in range(3)]
    assert notices == [
        f"stl10: 3 of the 100,000 images are in {tmp_path / 'stl10'}; continuing with these"
    ]


def test_what_is_needed_is_unpacked_once_beside_the_archive(tmp_path):
    """Of the archive the one file comes out; later the archive is not read."""
    archive = write_tar(tmp_path, {"stl10_binary/train_y.bin": b"\1\2", **BINARIES})
    notices = []

    source = opened(tmp_path, "train", notice=notices.append)

    assert np.array_equal(source.read(1), SPLITS["train"][1])
    assert notices == [f"unpacking train_X.bin of {archive}, once"]
    names = ["stl10_binary", "stl10_binary.tar.gz", "train_X.bin"]
    assert sorted(path.name for path in tmp_path.rglob("*")) == names
    archive.write_bytes(b"rubbish")
    again = opened(tmp_path, "train", notice=notices.append)
    assert len(notices) == 1
    assert np.array_equal(again.read(1), source.read(1))


@pytest.mark.parametrize(
    "damage",
    [lambda data: data[: len(data) // 2], lambda _: b"<html>too many users</html>"],
    ids=["half", "page"],
)
def test_a_damaged_archive_leaves_nothing_behind(damage, tmp_path):
    """An archive that breaks off is named, and no half file is there to be taken for a whole."""
    data = np.random.default_rng(0).bytes(2 * 27648)
    archive = write_tar(tmp_path, dict.fromkeys(reversed(BINARIES), data))
    archive.write_bytes(damage(archive.read_bytes()))

    message = refusal(lambda: opened(tmp_path))

    assert message.startswith(f"{archive} is damaged or cannot be read (")
    assert message.endswith(f"): delete it and download it again {GET}")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [archive]


def test_what_is_no_stl10_is_named(tmp_path, monkeypatch):
    """What is missing, what holds something else, what cannot be written; and the way out."""
    path = tmp_path / "stl10_binary" / "unlabeled_X.bin"
    assert refusal(lambda: opened(tmp_path)) == (
        f"stl10 is not in {tmp_path}; expected stl10_binary/unlabeled_X.bin or "
        f"stl10_binary.tar.gz: get it {GET}, and give its folder as --data-dir"
    )
    archive = write_tar(tmp_path, {"stl10_binary/test_X.bin": b""})
    assert refusal(lambda: opened(tmp_path)) == (
        f"{archive} holds no unlabeled_X.bin: delete it and download it again {GET}"
    )
    write_tar(tmp_path, {"stl10_binary/unlabeled_X.bin": bytes(27649)})
    path.parent.write_bytes(b"")
    assert refusal(lambda: opened(tmp_path), OutputError) == (
        f"cannot unpack to {path}: {os.strerror(errno.EEXIST)}; make room there, or unpack the "
        "archive by hand and give its folder as --data-dir"
    )
    path.parent.unlink()
    assert refusal(lambda: opened(tmp_path)) == (
        f"{path} has 27,649 bytes, which is no whole number of images of 27,648: delete it and "
        f"download it again {GET}"
    )

    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    path.write_bytes(BINARIES["stl10_binary/unlabeled_X.bin"])
    monkeypatch.setattr(np, "memmap", refuse)
    assert refusal(lambda: opened(tmp_path)) == (
        f"{path} cannot be read (Permission denied); check its permissions and the disk"
    )
