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


def pictures(count, seed=0):
    """Draw ``(count, 96, 96, 3)`` pictures; of each, rows, columns and channels differ."""
    rows, columns = np.mgrid[:96, :96]
    stack = [
        np.stack([rows + 2 * seed + number, 2 * columns, rows // 3 + columns // 2], -1)
        for number in range(count)
    ]
    return np.array(stack, dtype=np.uint8)


def stl10_bytes(images):
    """Write pictures as the release says: channel by channel, column by column."""
    return bytes(
        int(image[row, column, channel])
        for image in images
        for channel in range(3)
        for column in range(96)
        for row in range(96)
    )


@pytest.fixture(scope="module")
def splits():
    """Three small splits: what each holds as pictures and as bytes."""
    counts = {"unlabeled": 3, "train": 2, "test": 1}
    found = {name: pictures(count, seed) for seed, (name, count) in enumerate(counts.items())}
    return {name: (images, stl10_bytes(images)) for name, images in found.items()}


def write_binaries(root, splits):
    """Lay STL-10 out unpacked."""
    folder = root / "stl10_binary"
    folder.mkdir(parents=True)
    for name, (_, data) in splits.items():
        (folder / f"{name}_X.bin").write_bytes(data)


def write_tar(root, files):
    """Lay STL-10 out as its archive, of the given names and bytes."""
    root.mkdir(parents=True, exist_ok=True)
    path = root / "stl10_binary.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, data in files:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def tar_of(root, splits):
    """Lay STL-10 out as its archive with the members of the release."""
    rest = [("stl10_binary/class_names.txt", b"airplane\n"), ("stl10_binary/train_y.bin", b"\1\2")]
    binaries = [(f"stl10_binary/{name}_X.bin", data) for name, (_, data) in splits.items()]
    return write_tar(root, [*rest, *binaries[1:], *binaries[:1]])


def opened(root, *splits, notice=lambda _: None):
    """Open splits of STL-10, or the unlabelled one."""
    return stl10.STL10(root, splits, notice)


def refuse(*_):
    """Stand in for what the system does not allow."""
    raise PermissionError(errno.EACCES, "Permission denied")


def test_splits_are_upright_and_joined_in_order(tmp_path, splits):
    """Rows come first, with the right colours; images run on from one split to the next."""
    write_binaries(tmp_path, splits)
    folder = tmp_path / "stl10_binary"

    source = open_source("stl10:test,unlabeled,train", tmp_path, print)

    expected = [("test", 0), ("unlabeled", 0), ("unlabeled", 1), ("unlabeled", 2)]
    expected += [("train", 0), ("train", 1)]
    assert keys(source) == [f"stl10/{split}/{place}" for split, place in expected]
    for index, (split, place) in enumerate(expected):
        pixels = source.read(index)
        assert (pixels.shape, pixels.dtype) == ((96, 96, 3), np.uint8)
        assert np.array_equal(pixels, splits[split][0][place])
        assert source.size(index) == (96, 96)
        assert source.label(index) == f"{folder / f'{split}_X.bin'}[{place}]"


def test_stl10_may_lie_below_the_data_folder(tmp_path, splits):
    """Without a part it is the unlabelled images; one line says how many there are."""
    write_binaries(tmp_path / "stl10", splits)
    notices = []

    source = open_source("stl10", tmp_path, notices.append)

    assert keys(source) == [f"stl10/unlabeled/{index}" for index in range(3)]
    assert notices == [
        f"stl10: 3 of the 100,000 images are in {tmp_path / 'stl10'}; continuing with these"
    ]


def test_what_is_needed_is_unpacked_once_beside_the_archive(tmp_path, splits):
    """Of the archive, left as it is, the one file comes out; later the archive is not read."""
    archive = tar_of(tmp_path, splits)
    before = archive.read_bytes(), archive.stat().st_mtime_ns
    notices = []

    source = opened(tmp_path, "train", notice=notices.append)

    assert np.array_equal(source.read(1), splits["train"][0][1])
    assert notices == [f"unpacking train_X.bin of {archive}, once"]
    assert (archive.read_bytes(), archive.stat().st_mtime_ns) == before
    names = ["stl10_binary", "stl10_binary.tar.gz", "train_X.bin"]
    assert sorted(path.name for path in tmp_path.rglob("*")) == names
    archive.write_bytes(b"rubbish")
    again = opened(tmp_path, "train", notice=notices.append)
    assert len(notices) == 1
    assert np.array_equal(again.read(1), source.read(1))


def test_a_place_without_stl10_is_named(tmp_path):
    """The error says where there should be what, and where to get it, on one line."""
    assert refusal(lambda: opened(tmp_path / "two\nlines", "test")) == (
        rf"stl10 is not in {tmp_path}/two\nlines; expected stl10_binary/test_X.bin or "
        f"stl10_binary.tar.gz: get it {GET}, and give its folder as --data-dir"
    )


@pytest.mark.parametrize(
    "damage",
    [lambda data: data[: len(data) // 2], lambda _: b"<html>too many users</html>"],
    ids=["half", "page"],
)
def test_a_damaged_archive_leaves_nothing_behind(damage, tmp_path):
    """An archive that breaks off is named, and no half file is there to be taken for a whole."""
    data = np.random.default_rng(0).bytes(2 * 27648)
    names = [f"stl10_binary/{name}_X.bin" for name in ("test", "unlabeled")]
    archive = write_tar(tmp_path, [(name, data) for name in names])
    archive.write_bytes(damage(archive.read_bytes()))

    message = refusal(lambda: opened(tmp_path))

    assert message.startswith(f"{archive} is damaged or cannot be read (")
    assert message.endswith(f"): delete it and download it again {GET}")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [archive]


@pytest.mark.parametrize("size", [0, 27649])
def test_a_file_of_no_whole_images_is_refused(size, tmp_path):
    """A binary that ends within an image is not what it should be, and is named."""
    write_tar(tmp_path, [("stl10_binary/unlabeled_X.bin", bytes(size))])

    assert refusal(lambda: opened(tmp_path)) == (
        f"{tmp_path / 'stl10_binary' / 'unlabeled_X.bin'} has {size:,} bytes, which is no whole "
        f"number of images of 27,648: delete it and download it again {GET}"
    )


def test_what_cannot_be_read_or_written_is_named(tmp_path, splits, monkeypatch):
    """What the system refuses is an error of one line that names the file and the way out."""
    archive = tar_of(tmp_path, {"train": splits["train"]})
    folder = tmp_path / "stl10_binary"
    assert refusal(lambda: opened(tmp_path)) == (
        f"{archive} holds no unlabeled_X.bin: delete it and download it again {GET}"
    )
    folder.write_bytes(b"")
    assert refusal(lambda: opened(tmp_path, "train"), OutputError) == (
        f"cannot unpack to {folder / 'train_X.bin'}: {os.strerror(errno.EEXIST)}; make room "
        "there, or unpack the archive by hand and give its folder as --data-dir"
    )
    folder.unlink()
    opened(tmp_path, "train")
    monkeypatch.setattr(np, "memmap", refuse)
    assert refusal(lambda: opened(tmp_path, "train")) == (
        f"{folder / 'train_X.bin'} cannot be read (Permission denied); check its permissions and "
        "the disk"
    )
