"""What --dataset names: folders, CelebA and STL-10, and every way in which they are wrong."""

import errno
import io
import os
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image
from run_files import refusal
from source_files import keys

from srcli.data.downloads import PAGES
from srcli.data.sources import DATASETS, absolute, open_source, parse
from srcli.errors import DataError, ImageError, OutputError, UsageError

GET = {name: f"with --download, or from {page}" for name, page in PAGES.items()}

PARTITION_OF = {1: 0, 2: 0, 3: 2, 4: 1, 5: 2, 6: 0}
"""The number of each face, and that of its partition."""

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
"""Three small splits of STL-10, ``(N, 96, 96, 3)``; rows, columns and channels differ."""

BINARIES = {
    # As the release has it: picture by picture, channel by channel, column by column.
    f"stl10_binary/{name}_X.bin": pictures.transpose(0, 3, 2, 1).tobytes()
    for name, pictures in SPLITS.items()
}


def save(path):
    """Write an image of noise and return its pixels."""
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return pixels


def opened(text, folder, notice=print):
    """Open a data set."""
    return open_source(text, folder, notice)


def test_a_folder_gives_its_images_by_path(tmp_path):
    """Images of any kind are found at every depth, none hidden, and are the files' pixels."""
    folder = tmp_path / ".cache" / "photos"  # the folder itself may be hidden
    written = {name: save(folder / name) for name in ("b.png", "a/z.webp", "a/c.TIFF")}
    for name in (".b.png", ".th/c.png", "a/.e/f.png"):
        save(folder / name)
    for name in ("run/curves.png", "run/samples.png"):  # what training drew is none of them
        save(folder / name)
    (folder / "run/log.csv").touch()
    (folder / "notes.txt").write_text("no image")

    source = opened(str(folder), tmp_path)

    assert keys(source) == ["c.TIFF", "z.webp", "b.png"]
    assert source.label(0) == str(folder / "a" / "c.TIFF")
    assert source.size(2) == (7, 5)
    for index, name in ((0, "a/c.TIFF"), (2, "b.png")):
        assert np.array_equal(source.read(index), written[name])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("celeba", ("celeba", ())),
        ("celeba:train,train,test,train", ("celeba", ("train", "test"))),
        ("./celeba", ("./celeba", ())),
        (r"C:\photos", (r"C:\photos", ())),
    ],
)
def test_a_name_is_split_from_its_parts(text, expected, here):
    """The two known names may have parts and stay; anything else is a folder, made absolute."""
    assert parse(text) == expected
    assert absolute(text) == (text if expected[0] in DATASETS else str((here / text).absolute()))


@pytest.mark.parametrize("text", ["celeba:unlabeled", "celeba:train,"])
def test_an_unknown_part_is_refused(text):
    """A part that the data set does not have is refused before anything is opened."""
    message = refusal(lambda: parse(text), UsageError)

    assert message.startswith(f"--dataset {text}: celeba has the parts train, valid, test, not '")


@pytest.fixture(scope="module")
def faces(celeba):
    """Six JPEGs of 178 x 218 pixels, no two alike: name and bytes."""
    paths = (celeba / "img_align_celeba" / f"{number:06}.jpg" for number in PARTITION_OF)
    return {path.name: path.read_bytes() for path in paths}


def decoded(data):
    """Decode a file's bytes with Pillow alone: ``(H, W, 3)``."""
    with Image.open(io.BytesIO(data)) as image:
        return np.array(image)


def write_folder(root, faces):
    """Lay CelebA out unpacked."""
    (root / "img_align_celeba").mkdir(parents=True)
    for name, data in faces.items():
        (root / "img_align_celeba" / name).write_bytes(data)


def write_zip(root, faces, more=()):
    """Lay CelebA out as its archive, the members in another order than their names'."""
    (root / "img_align_celeba").mkdir(parents=True)  # an attempt to unpack hides nothing
    with zipfile.ZipFile(root / "img_align_celeba.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in reversed(faces):
            archive.writestr(f"img_align_celeba/{name}", faces[name])
        for name, data in more:
            archive.writestr(name, data)


def write_list(root, numbers=PARTITION_OF, end="\n"):
    """Write which face is of which partition."""
    lines = [f"{number:06}.jpg {partition}{end}" for number, partition in numbers.items()]
    (root / "list_eval_partition.txt").write_bytes("".join(lines).encode())


@pytest.mark.parametrize(
    ("write", "holder"), [(write_folder, "img_align_celeba"), (write_zip, "img_align_celeba.zip")]
)
def test_celeba_gives_its_files_by_name(write, holder, tmp_path, faces):
    """Folder and archive give all pictures or some partitions; --data-dir is theirs or above."""
    root = tmp_path / "celeba"
    write(root, faces)

    source = opened("celeba", tmp_path)

    # The whole needs no list.
    assert keys(source) == keys(opened("celeba:test,valid,train", root)) == sorted(faces)
    for index, name in enumerate(sorted(faces)):
        assert np.array_equal(source.read(index), decoded(faces[name]))
        assert source.size(index) == (178, 218)
        assert source.label(index) == str(root / holder / name)
    assert "list_eval_partition.txt does not" in refusal(
        lambda: opened("celeba:valid", root), DataError
    )
    write_list(root)
    some = opened("celeba:valid,train", root)
    assert keys(some) == [f"{number:06}.jpg" for number in (1, 2, 4, 6)]
    assert np.array_equal(some.read(2), decoded(faces["000004.jpg"]))


def test_other_members_of_an_archive_are_no_images(tmp_path, faces):
    """Only JPEG files of img_align_celeba count, wherever it lies, and nothing that a Mac adds."""
    (name, data), *rest = sorted(faces.items())
    others = [
        (f"celeba/img_align_celeba/{name}", data),
        ("b/c.jpg", data),
        ("img_align_celeba/readme.txt", b"text"),
        ("__MACOSX/img_align_celeba/._000001.jpg", b"\0\5\26\7 resource fork"),
    ]
    write_zip(tmp_path, dict(rest), more=others)

    source = opened("celeba", tmp_path)

    assert keys(source) == sorted(faces)
    assert np.array_equal(source.read(0), decoded(data))


def test_lists_and_counts_may_have_gaps(tmp_path, faces):
    """Images that are not there, or not in the list, do no harm; one line counts those there."""
    write_folder(tmp_path, faces)
    write_list(tmp_path, {9: 0, **PARTITION_OF, 2: 1}, end="\r\n\r\n")
    (tmp_path / "img_align_celeba" / "stray.jpg").write_bytes(faces["000001.jpg"])
    notices = []

    source = opened("celeba:train", tmp_path, notices.append)

    assert keys(source) == ["000001.jpg", "000006.jpg"]
    assert notices == [f"celeba: 7 of the 202,599 images are in {tmp_path}; continuing with these"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("list_eval_partition.txt", b"<html>too many users</html>\n", "/list_eval_partition.txt "),
        ("list_eval_partition.txt", b"000001.jpg 0\n\xff\xfe\x00\n", "/list_eval_partition.txt "),
        ("list_eval_partition.txt", b"000001.jpg 0\n", " holds no image of the partition valid"),
        ("img_align_celeba/000001.jpg", None, "; expected img_align_celeba/ or img_align_celeba."),
        ("img_align_celeba.zip", b"PK\3\4", "/img_align_celeba.zip cannot be read as a zip file ("),
    ],
    ids=["page", "bytes", "no image", "empty", "zip"],
)
def test_what_is_no_celeba_is_named(name, content, message, tmp_path, faces):
    """The error says what is wrong where, and how to get what should be there."""
    write_folder(tmp_path, {"000001.jpg": faces["000001.jpg"]})
    if not name.endswith(".txt"):
        (tmp_path / "img_align_celeba/000001.jpg").unlink()
    if content is not None:
        (tmp_path / name).write_bytes(content)

    found = refusal(lambda: opened("celeba:valid,test", tmp_path), DataError)

    assert f"{tmp_path}{message}" in found
    assert GET["celeba"] in found


def test_a_damaged_member_costs_its_image_alone(tmp_path, faces):
    """What is wrong with one member is an error of that image, and the others read."""
    write_zip(tmp_path, faces)
    path = tmp_path / "img_align_celeba.zip"
    data = bytearray(path.read_bytes())
    name = b"img_align_celeba/000003.jpg"
    data[data.index(name) + len(name)] = 0x07  # no kind of block that deflate has
    path.write_bytes(data)

    source = opened("celeba", tmp_path)

    for access in (source.read, source.size):
        message = refusal(lambda access=access: access(2), ImageError)
        assert message.startswith(f"{path / '000003.jpg'}: cannot be read out of the archive (")
        assert message.endswith("); download the archive again")
    assert np.array_equal(source.read(5), decoded(faces["000006.jpg"]))


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


def test_splits_are_upright_and_joined_in_order(tmp_path):
    """Rows come first, with the right colours; images run on from one split to the next."""
    write_binaries(tmp_path)
    notices = []

    source = opened("stl10:test,unlabeled,train", tmp_path, notices.append)

    (notice,) = notices
    assert notice.startswith("stl10: 6 of the 113,000 images are in ")
    expected = [("test", 0), ("unlabeled", 0), ("unlabeled", 1), ("unlabeled", 2)]
    expected += [("train", 0), ("train", 1)]
    assert keys(source) == [f"stl10/{split}/{place}" for split, place in expected]
    for index, (split, place) in enumerate(expected):
        pixels = source.read(index)
        assert (pixels.shape, pixels.dtype) == ((96, 96, 3), np.uint8)
        assert np.array_equal(pixels, SPLITS[split][place])
        assert source.size(index) == (96, 96)
        assert source.label(index) == f"{tmp_path / 'stl10_binary' / f'{split}_X.bin'}[{place}]"


def test_what_is_needed_is_unpacked_once_beside_the_archive(tmp_path):
    """Without a part it is the file of unlabelled images; later the archive is not read."""
    archive = write_tar(tmp_path, {"stl10_binary/train_y.bin": b"\1\2", **BINARIES})
    notices = []

    source = opened("stl10", tmp_path, notices.append)

    assert keys(source) == [f"stl10/unlabeled/{index}" for index in range(3)]
    assert np.array_equal(source.read(1), SPLITS["unlabeled"][1])
    assert notices == [
        f"unpacking unlabeled_X.bin of {archive}, once",
        f"stl10: 3 of the 100,000 images are in {tmp_path}; continuing with these",
    ]
    names = ["stl10_binary", "stl10_binary.tar.gz", "unlabeled_X.bin"]
    assert sorted(path.name for path in tmp_path.rglob("*")) == names
    archive.write_bytes(b"rubbish")
    assert np.array_equal(opened("stl10", tmp_path).read(1), source.read(1))


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

    message = refusal(lambda: opened("stl10", tmp_path), DataError)

    assert message.startswith(f"{archive} is damaged or cannot be read (")
    assert message.endswith(f"): delete it and download it again {GET['stl10']}")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [archive]


def test_what_is_no_stl10_is_named(tmp_path, monkeypatch):
    """What is missing, what holds something else, what cannot be written; and the way out."""
    path = tmp_path / "stl10_binary" / "unlabeled_X.bin"

    def refused(kind=DataError):
        return refusal(lambda: opened("stl10", tmp_path), kind)

    assert refused() == (
        f"stl10 is not in {tmp_path}; expected stl10_binary/unlabeled_X.bin or "
        f"stl10_binary.tar.gz: get it {GET['stl10']}, and give its folder as --data-dir"
    )
    archive = write_tar(tmp_path, {"stl10_binary/test_X.bin": b""})
    assert refused().startswith(f"{archive} holds no unlabeled_X.bin: delete it and download it")
    write_tar(tmp_path, {"stl10_binary/unlabeled_X.bin": bytes(27649)})
    path.parent.write_bytes(b"")
    assert refused(OutputError).startswith(f"cannot unpack to {path}: {os.strerror(errno.EEXIST)};")
    path.parent.unlink()
    assert refused().startswith(f"{path} has 27,649 bytes, which is no whole number of images of")

    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    path.write_bytes(BINARIES["stl10_binary/unlabeled_X.bin"])
    monkeypatch.setattr(np, "memmap", refuse)
    assert refused() == (
        f"{path} cannot be read (Permission denied); check its permissions and the disk"
    )
