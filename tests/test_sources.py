"""CelebA, STL-10 and folders: every layout they come in, and every way in which they are wrong."""

import errno
import io
import os
import re
import shutil
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from srcli.data import sources
from srcli.data.sources import STL10, CelebA, Folder, absolute, image_files, open_source, parse
from srcli.errors import DataError, ImageError, OutputError, UsageError
from srcli.imaging.images import READABLE_SUFFIXES

CELEBA_PAGE = "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html"
STL10_PAGE = "https://cs.stanford.edu/~acoates/stl10/"

PARTITION_OF = {1: 0, 2: 0, 3: 2, 4: 1, 5: 2, 6: 0}
"""The number of each face, and that of its partition."""

NOT_ROOT = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere"
)


def face_name(number):
    """Name a face as CelebA does."""
    return f"{number:06}.jpg"


@pytest.fixture(scope="module")
def faces():
    """Six JPEGs of 178 x 218 pixels, no two alike: name and bytes."""
    random = np.random.default_rng(5)
    found = {}
    for number in PARTITION_OF:
        coarse = random.integers(0, 256, (11, 9, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize((178, 218), Image.Resampling.BICUBIC)
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=90)
        found[face_name(number)] = file.getvalue()
    return found


def decoded(data):
    """Decode a file's bytes with Pillow alone: ``(H, W, 3)``."""
    with Image.open(io.BytesIO(data)) as image:
        return np.array(image)


def write_folder(root, faces):
    """Lay CelebA out unpacked."""
    folder = root / "img_align_celeba"
    folder.mkdir(parents=True)
    for name, data in faces.items():
        (folder / name).write_bytes(data)


def write_zip(root, faces, *, more=(), compression=zipfile.ZIP_DEFLATED):
    """Lay CelebA out as its archive, the members in another order than their names'."""
    root.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(root / "img_align_celeba.zip", "w", compression) as archive:
        archive.mkdir("img_align_celeba")
        for name in reversed(faces):
            archive.writestr(f"img_align_celeba/{name}", faces[name])
        for name, data in more:
            archive.writestr(name, data)


def write_list(root, numbers=PARTITION_OF, end="\n"):
    """Write which face is of which partition."""
    lines = [f"{face_name(number)} {partition}{end}" for number, partition in numbers.items()]
    (root / "list_eval_partition.txt").write_bytes("".join(lines).encode())


WRITERS = {"folder": write_folder, "zip": write_zip}
LAYOUTS = pytest.mark.parametrize("layout", WRITERS)


def contents(folder):
    """Take down every file below a folder: path, bytes, time of the last change."""
    return {
        path.relative_to(folder): (path.is_file() and path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
    }


def keys(source):
    """List the names of all images."""
    return [source.key(index) for index in range(len(source))]


def require_one_line(error, *parts):
    """Check that a message is one line and holds every part."""
    text = str(error.value)
    assert text.isprintable()
    for part in parts:
        assert part in text


# ---- CelebA -------------------------------------------------------------------------------


@LAYOUTS
def test_celeba_gives_its_files_by_name(layout, tmp_path, faces):
    """Folder and archive give the very pixels of the files, in the order of their names."""
    WRITERS[layout](tmp_path, faces)

    source = CelebA(tmp_path)

    assert source.name == "celeba"
    assert keys(source) == sorted(faces)
    for index, name in enumerate(sorted(faces)):
        pixels = source.read(index)
        assert pixels.shape == (218, 178, 3)
        assert np.array_equal(pixels, decoded(faces[name]))
        assert source.size(index) == (178, 218)


@LAYOUTS
def test_celeba_says_where_an_image_is(layout, tmp_path, faces):
    """A label is the file's path, or the archive's with the file's name behind it."""
    WRITERS[layout](tmp_path, faces)
    holder = {"folder": "img_align_celeba", "zip": "img_align_celeba.zip"}[layout]

    assert CelebA(tmp_path).label(1) == str(tmp_path / holder / "000002.jpg")


def test_the_archive_is_read_as_it_is(tmp_path, faces):
    """Reading every image of an archive unpacks nothing and changes nothing."""
    write_zip(tmp_path, faces)
    write_list(tmp_path)
    before = contents(tmp_path)

    source = CelebA(tmp_path, ["train", "test"])
    for index in range(len(source)):
        source.read(index)
        source.size(index)

    assert contents(tmp_path) == before


@LAYOUTS
@pytest.mark.parametrize(
    ("partitions", "numbers"),
    [
        (["train"], [1, 2, 6]),
        (["valid"], [4]),
        (["test"], [3, 5]),
        (["valid", "train"], [1, 2, 4, 6]),
        (["train", "valid", "test"], [1, 2, 3, 4, 5, 6]),
    ],
    ids=["train", "valid", "test", "two", "all"],
)
def test_partitions_are_chosen_by_the_list(layout, partitions, numbers, tmp_path, faces):
    """Exactly the images of the partitions asked for are there, in the order of their names."""
    WRITERS[layout](tmp_path, faces)
    write_list(tmp_path)

    source = CelebA(tmp_path, partitions)

    assert keys(source) == [face_name(number) for number in numbers]
    assert np.array_equal(source.read(0), decoded(faces[face_name(numbers[0])]))


def test_the_list_may_have_other_line_ends_and_gaps(tmp_path, faces):
    """Windows' line ends and images that are not there, or not in the list, do no harm."""
    write_folder(tmp_path, faces)
    write_list(tmp_path, {9: 0, **PARTITION_OF, 2: 1}, end="\r\n\r\n")
    (tmp_path / "img_align_celeba" / "stray.jpg").write_bytes(faces["000001.jpg"])

    assert keys(CelebA(tmp_path, ["train"])) == ["000001.jpg", "000006.jpg"]


@LAYOUTS
@pytest.mark.parametrize("partitions", [[], ["test", "train", "valid"]], ids=["none", "each"])
def test_the_whole_of_celeba_needs_no_list(layout, partitions, tmp_path, faces):
    """Without a partition, or with all of them, the images are taken as they are."""
    WRITERS[layout](tmp_path, faces)

    assert keys(CelebA(tmp_path, partitions)) == sorted(faces)


@LAYOUTS
@pytest.mark.parametrize("above", [False, True])
def test_the_data_folder_may_be_the_one_above(layout, above, tmp_path, faces):
    """--data-dir is celeba's own folder, or one that holds it by the name celeba."""
    WRITERS[layout](tmp_path / "celeba", faces)
    write_list(tmp_path / "celeba")

    source = open_source("celeba:valid", tmp_path if above else tmp_path / "celeba")

    assert keys(source) == ["000004.jpg"]


def test_an_empty_folder_beside_the_archive_does_not_hide_it(tmp_path, faces):
    """What an attempt to unpack left behind is passed over."""
    write_zip(tmp_path, faces)
    (tmp_path / "img_align_celeba").mkdir()

    assert len(CelebA(tmp_path)) == 6


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_threads_may_read_one_archive_at_once(compression, tmp_path, faces):
    """Many threads that read all over one archive each get the image that they asked for."""
    many = {face_name(number): faces[face_name(1 + number % 6)] for number in range(60)}
    write_zip(tmp_path, many, compression=compression)
    source = CelebA(tmp_path)
    expected = [decoded(faces[face_name(1 + number % 6)]) for number in range(6)]
    order = np.random.default_rng(0).permutation(np.tile(np.arange(60), 4)).tolist()

    with ThreadPoolExecutor(8) as threads:
        read = list(threads.map(source.read, order))

    for index, pixels in zip(order, read, strict=True):
        assert np.array_equal(pixels, expected[index % 6])


@pytest.mark.parametrize(
    "name",
    ["__MACOSX/img_align_celeba/._000001.jpg", "img_align_celeba/._000002.jpg"],
)
def test_what_a_mac_adds_to_an_archive_is_no_image(name, tmp_path, faces):
    """The "._" files of an archive that a Mac packed are passed over."""
    write_zip(tmp_path, faces, more=[(name, b"\0\5\26\7 resource fork")])

    source = CelebA(tmp_path)

    assert keys(source) == sorted(faces)
    assert np.array_equal(source.read(0), decoded(faces["000001.jpg"]))


def test_other_members_of_an_archive_are_no_images(tmp_path, faces):
    """Only the JPEG files of img_align_celeba count, wherever in the archive that lies."""
    (name, data), *rest = sorted(faces.items())
    others = [(f"celeba/img_align_celeba/{name}", data), ("a.jpg", data), ("b/c.jpg", data)]
    write_zip(tmp_path, dict(rest), more=[*others, ("img_align_celeba/readme.txt", b"text")])

    source = CelebA(tmp_path)

    assert keys(source) == sorted(faces)
    assert np.array_equal(source.read(0), decoded(data))


@LAYOUTS
def test_missing_images_are_told(layout, tmp_path, faces, monkeypatch):
    """One line says how many of CelebA's images are there; of a whole one nothing is said."""
    WRITERS[layout](tmp_path, faces)
    told = []

    CelebA(tmp_path, notice=told.append)
    monkeypatch.setattr(sources, "CELEBA_IMAGES", 6)
    CelebA(tmp_path, notice=told.append)

    assert told == [
        f"celeba: 6 of the 202,599 images are in {tmp_path}; going on with these",
    ]


def _no_folder(_):
    """Leave the folder out altogether."""


def _a_file(root):
    root.write_bytes(b"")


def _list_alone(root):
    root.mkdir()
    write_list(root)


def _empty_images(root):
    (root / "img_align_celeba").mkdir(parents=True)


def _archive_of_nothing(root):
    write_zip(root, {})


def _other_things(root):
    for name in ("f", "e", "d", "c", "b", "a", ".hidden"):
        (root / name).mkdir(parents=True)


@pytest.mark.parametrize(
    ("build", "found"),
    [
        (_no_folder, "which does not exist; "),
        (_a_file, "which is a file; "),
        (Path.mkdir, "which is empty; "),
        (_list_alone, "which holds list_eval_partition.txt; "),
        (_empty_images, "which holds img_align_celeba (with no image in img_align_celeba); "),
        (
            _archive_of_nothing,
            "which holds img_align_celeba.zip (with no image in img_align_celeba.zip); ",
        ),
        (_other_things, "which holds a, b, c, d and 2 more; "),
    ],
)
def test_a_place_without_celeba_is_described(build, found, tmp_path):
    """The error says what is there, what should be, and where to get it."""
    root = tmp_path / "faces"
    build(root)

    with pytest.raises(DataError) as error:
        open_source("celeba", root)

    assert str(error.value) == (
        f"celeba is not in {root}, {found}expected img_align_celeba/ or img_align_celeba.zip, and "
        f"list_eval_partition.txt: fetch them with --download, or from {CELEBA_PAGE} and give "
        "their folder as --data-dir"
    )


def test_a_folder_that_cannot_be_listed_is_told(tmp_path, monkeypatch):
    """Where the folder may not be looked into, that is what the error says."""

    def refuse(_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)

    with pytest.raises(DataError) as error:
        CelebA(tmp_path)

    require_one_line(error, "which cannot be listed (Permission denied); expected", "--download")


def test_a_strange_name_stays_on_one_line(tmp_path):
    """A folder whose name has a line feed does not break the message in two."""
    root = tmp_path / "two\nlines"

    for name in ("celeba", "stl10"):
        with pytest.raises(DataError) as error:
            open_source(name, root)
        require_one_line(error, r"two\nlines, which does not exist")


@LAYOUTS
def test_a_partition_needs_the_list(layout, tmp_path, faces):
    """Images without the list cannot be parted, and the error says which file is missing."""
    WRITERS[layout](tmp_path, faces)

    with pytest.raises(DataError) as error:
        CelebA(tmp_path, ["train"])

    path = tmp_path / "list_eval_partition.txt"
    assert str(error.value) == (
        f"{path} says which image is of which partition and cannot be read "
        f"({os.strerror(errno.ENOENT)}): fetch it with --download or from {CELEBA_PAGE}"
    )


@pytest.mark.parametrize(
    "text",
    [
        b"<!DOCTYPE html><html><body>too many users</body></html>\n",
        b"000001.jpg\n",
        b"000001.jpg 0 1\n",
        b"000001.jpg 3\n",
        b"000001.jpg -1\n",
        b"000001.jpg train\n",
        b"000001.jpg 0\n\xff\xfe\x00\n",
    ],
    ids=repr,
)
def test_a_list_of_something_else_is_refused(text, tmp_path, faces):
    """A list that does not say 0, 1 or 2 for a name on each line is named."""
    write_folder(tmp_path, faces)
    path = tmp_path / "list_eval_partition.txt"
    path.write_bytes(text)

    with pytest.raises(DataError) as error:
        CelebA(tmp_path, ["test"])

    assert str(error.value) == (
        f"{path} does not hold lines such as '000001.jpg 0': delete it and fetch it again with "
        f"--download or from {CELEBA_PAGE}"
    )


def test_a_partition_without_an_image_is_told(tmp_path, faces):
    """A partition of which not one image is there is an error, not an empty data set."""
    write_folder(tmp_path, {name: faces[name] for name in ("000001.jpg", "000002.jpg")})
    write_list(tmp_path)

    with pytest.raises(DataError) as error:
        CelebA(tmp_path, ["valid", "test"])

    assert str(error.value) == (
        f"celeba in {tmp_path} holds no image of the partition valid or test, by "
        "list_eval_partition.txt, among its 2; give another one, or fetch all with --download or "
        f"from {CELEBA_PAGE}"
    )


def _cut(data):
    return data[: len(data) // 2]


def _version_from_the_future(data):
    # "Version needed to extract" of the first entry of the central directory.
    at = data.index(b"PK\1\2") + 6
    return data[:at] + b"\xff\x00" + data[at + 2 :]


def _name_in_no_encoding(data):
    # Bit 11 of the flags: the name is in UTF-8.
    at = data.index(b"PK\1\2")
    entry = bytearray(data[at:])
    entry[9] |= 8
    entry[46] = 0xFF
    return data[:at] + bytes(entry)


@pytest.mark.parametrize(
    "damage",
    [lambda _: b"", lambda _: b"<html>", _cut, _version_from_the_future, _name_in_no_encoding],
    ids=["empty", "page", "cut", "version", "name"],
)
def test_a_damaged_archive_is_told(damage, tmp_path, faces):
    """An archive that cannot be opened is named, with where to get another."""
    write_zip(tmp_path, faces)
    path = tmp_path / "img_align_celeba.zip"
    path.write_bytes(damage(path.read_bytes()))

    with pytest.raises(DataError) as error:
        CelebA(tmp_path)

    require_one_line(
        error,
        f"{path} cannot be read as a zip file (",
        f"): delete it and fetch it again with --download or from {CELEBA_PAGE}",
    )


def _entry(data, name):
    """Find a member's entry in the central directory."""
    return data.rindex(name.encode()) - 46


def _spoil_pixels(data, name):
    at = data.index(name.encode()) + len(name) + 500
    data[at] ^= 0xFF


def _spoil_stream(data, name):
    data[data.index(name.encode()) + len(name)] = 0x07  # no kind of block that deflate has


def _ask_for_password(data, name):
    data[data.index(name.encode()) - 24] |= 1
    data[_entry(data, name) + 8] |= 1


def _compress_strangely(data, name):
    data[_entry(data, name) + 10] = 99


def _point_elsewhere(data, name):
    data[_entry(data, name) + 42] ^= 0x55


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize(
    "spoil",
    [_spoil_pixels, _spoil_stream, _ask_for_password, _compress_strangely, _point_elsewhere],
)
def test_a_damaged_member_costs_its_image_alone(spoil, compression, tmp_path, faces):
    """Whatever is wrong with one member, it is an error of that image, and the others read."""
    write_zip(tmp_path, faces, compression=compression)
    path = tmp_path / "img_align_celeba.zip"
    data = bytearray(path.read_bytes())
    spoil(data, "img_align_celeba/000003.jpg")
    path.write_bytes(data)

    source = CelebA(tmp_path)

    for access in (source.read, source.size):
        with pytest.raises(ImageError) as error:
            access(2)
        require_one_line(
            error,
            f"{path / '000003.jpg'}: cannot be read out of the archive (",
            "); fetch the archive again",
        )
    for index in (0, 1, 3, 4, 5):
        assert np.array_equal(source.read(index), decoded(faces[face_name(index + 1)]))


@LAYOUTS
def test_a_damaged_picture_costs_itself_alone(layout, tmp_path, faces):
    """A file that is no picture, or half of one, is an error that names it."""
    spoilt = {
        **faces,
        "000002.jpg": b"no picture",
        "000005.jpg": faces["000005.jpg"][:1500],
    }
    WRITERS[layout](tmp_path, spoilt)
    source = CelebA(tmp_path)

    for index in (1, 4):
        with pytest.raises(ImageError) as error:
            source.read(index)
        require_one_line(error, f"{source.label(index)}: ")
    assert np.array_equal(source.read(2), decoded(faces["000003.jpg"]))
    assert source.size(4) == (178, 218)  # its header is sound


# ---- STL-10 -------------------------------------------------------------------------------


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


def test_stl10_is_turned_upright(tmp_path, splits):
    """Columns come before rows in the file; what is read has rows first, and the right colours."""
    write_binaries(tmp_path, splits)

    source = STL10(tmp_path)

    assert source.name == "stl10"
    assert len(source) == 3
    for index, expected in enumerate(splits["unlabeled"][0]):
        pixels = source.read(index)
        assert pixels.shape == (96, 96, 3)
        assert pixels.dtype == np.uint8
        assert np.array_equal(pixels, expected)
        assert source.size(index) == (96, 96)


def test_stl10_is_mapped_and_copied_out(tmp_path, splits):
    """The file is not loaded: it is mapped, and an image is a copy of its own part of it."""
    write_binaries(tmp_path, splits)
    path = tmp_path / "stl10_binary" / "unlabeled_X.bin"

    source = STL10(tmp_path)
    ((_, _, part),) = source._parts
    pixels = source.read(1)

    assert isinstance(part, np.memmap)
    assert Path(part.filename) == path
    assert not part.flags.writeable
    assert type(pixels) is np.ndarray
    assert not np.shares_memory(pixels, part)
    pixels[:] = 0
    assert path.read_bytes() == splits["unlabeled"][1]


def test_splits_of_stl10_are_joined_in_order(tmp_path, splits):
    """Keys, labels and images run on from one split to the next, in the order asked for."""
    write_binaries(tmp_path, splits)
    folder = tmp_path / "stl10_binary"

    source = open_source("stl10:test,unlabeled,train", tmp_path)

    expected = [("test", 0), ("unlabeled", 0), ("unlabeled", 1), ("unlabeled", 2)]
    expected += [("train", 0), ("train", 1)]
    assert keys(source) == [f"stl10/{split}/{place}" for split, place in expected]
    for index, (split, place) in enumerate(expected):
        assert source.label(index) == f"{folder / f'{split}_X.bin'}[{place}]"
        assert np.array_equal(source.read(index), splits[split][0][place])


@pytest.mark.parametrize("above", [False, True])
def test_stl10_may_lie_below_the_data_folder(above, tmp_path, splits):
    """--data-dir is stl10's own folder, or one that holds it by the name stl10."""
    write_binaries(tmp_path / "stl10", splits)

    source = open_source("stl10", tmp_path if above else tmp_path / "stl10")

    assert keys(source) == [f"stl10/unlabeled/{index}" for index in range(3)]


def test_what_is_needed_is_unpacked_beside_the_archive(tmp_path, splits):
    """Of the archive, left as it is, the one file comes out that was asked for, and is told."""
    archive = tar_of(tmp_path, splits)
    before = archive.read_bytes(), archive.stat().st_mtime_ns
    told = []

    source = STL10(tmp_path, ["train"], told.append)

    assert np.array_equal(source.read(1), splits["train"][0][1])
    assert told == [f"unpacking train_X.bin of {archive}, once"]
    assert (archive.read_bytes(), archive.stat().st_mtime_ns) == before
    assert sorted(path.name for path in tmp_path.rglob("*")) == [
        "stl10_binary",
        "stl10_binary.tar.gz",
        "train_X.bin",
    ]


@pytest.mark.parametrize("later", [b"rubbish", None], ids=["rubbish", "gone"])
def test_an_archive_is_unpacked_once(later, tmp_path, splits):
    """The second time the archive is not looked at, whatever has become of it."""
    archive = tar_of(tmp_path, splits)
    STL10(tmp_path)
    archive.unlink()
    if later is not None:
        archive.write_bytes(later)
    told = []

    source = STL10(tmp_path, ["unlabeled"], told.append)

    assert told == []
    assert np.array_equal(source.read(2), splits["unlabeled"][0][2])


def test_missing_images_of_stl10_are_told(tmp_path, splits, monkeypatch):
    """One line says how many there are, of the unlabelled split alone and if they are too few."""
    write_binaries(tmp_path, splits)
    told = []

    STL10(tmp_path, notice=told.append)
    STL10(tmp_path, ["train"], told.append)
    monkeypatch.setattr(sources, "STL10_IMAGES", 3)
    STL10(tmp_path, notice=told.append)

    assert told == [f"stl10: 3 of the 100,000 images are in {tmp_path}; going on with these"]


@pytest.mark.parametrize(
    ("build", "found"),
    [
        (_no_folder, "does not exist"),
        (_a_file, "is a file"),
        (Path.mkdir, "is empty"),
        (lambda root: (root / "stl10_binary").mkdir(parents=True), "holds stl10_binary"),
    ],
    ids=["missing", "file", "empty", "folder"],
)
def test_a_place_without_stl10_is_described(build, found, tmp_path):
    """The error says what is there, what should be, and where to get it."""
    root = tmp_path / "images"
    build(root)

    with pytest.raises(DataError) as error:
        open_source("stl10:test", root)

    assert str(error.value) == (
        f"stl10 is not in {root}, which {found}; expected stl10_binary/test_X.bin or "
        f"stl10_binary.tar.gz: fetch it with --download, or from {STL10_PAGE} and give its folder "
        "as --data-dir"
    )


def _gzip_of_noise(data):
    return data[:10] + np.random.default_rng(0).bytes(3000)


@pytest.mark.parametrize(
    "damage",
    [
        lambda _: b"",
        lambda data: data[:3],
        lambda data: data[:9],
        lambda data: data[: len(data) // 2],
        lambda data: data[: -len(data) // 8],
        lambda _: b"<html>too many users</html>",
        _gzip_of_noise,
    ],
    ids=["empty", "3 bytes", "9 bytes", "half", "seven eighths", "page", "noise"],
)
def test_a_damaged_archive_of_stl10_leaves_nothing_behind(damage, tmp_path):
    """An archive that breaks off is named, and no half file is there to be taken for a whole."""
    data = np.random.default_rng(0).bytes(2 * 27648)
    names = [f"stl10_binary/{name}_X.bin" for name in ("test", "unlabeled")]
    archive = write_tar(tmp_path, [(name, data) for name in names])
    archive.write_bytes(damage(archive.read_bytes()))

    with pytest.raises(DataError) as error:
        STL10(tmp_path)

    require_one_line(
        error,
        f"{archive} is damaged or cannot be read (",
        f"): delete it and fetch it again with --download or from {STL10_PAGE}",
    )
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [archive]


def test_an_archive_that_may_not_be_read_is_told(tmp_path, splits, monkeypatch):
    """What the system refuses is an error that names the archive."""
    archive = tar_of(tmp_path, splits)

    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied", str(archive))

    monkeypatch.setattr(sources.tarfile, "open", refuse)

    with pytest.raises(DataError) as error:
        STL10(tmp_path)

    require_one_line(error, f"{archive} is damaged or cannot be read (Permission denied): ")


def test_an_archive_of_other_things_is_told(tmp_path, splits):
    """An archive without the file is named, and so is the file."""
    archive = tar_of(tmp_path, {"train": splits["train"]})

    with pytest.raises(DataError) as error:
        STL10(tmp_path)

    assert str(error.value) == (
        f"{archive} holds no unlabeled_X.bin: delete it and fetch it again with --download or "
        f"from {STL10_PAGE}"
    )


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("size", [0, 1, 27647, 27649, 3 * 27648 - 96])
def test_a_file_of_no_whole_images_is_refused(size, packed, tmp_path):
    """A binary that ends within an image is not what it should be, and is named."""
    if packed:
        write_tar(tmp_path, [("stl10_binary/unlabeled_X.bin", bytes(size))])
    else:
        write_binaries(tmp_path, {"unlabeled": (None, bytes(size))})

    with pytest.raises(DataError) as error:
        STL10(tmp_path)

    assert str(error.value) == (
        f"{tmp_path / 'stl10_binary' / 'unlabeled_X.bin'} has {size:,} bytes, which is no whole "
        "number of images of 27,648: delete it and fetch it again with --download or from "
        f"{STL10_PAGE}"
    )


def test_a_binary_that_cannot_be_mapped_is_told(tmp_path, splits, monkeypatch):
    """What the system refuses is an error that names the file."""
    write_binaries(tmp_path, splits)

    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(np, "memmap", refuse)

    with pytest.raises(DataError) as error:
        STL10(tmp_path)

    path = tmp_path / "stl10_binary" / "unlabeled_X.bin"
    require_one_line(error, f"{path} cannot be read (Permission denied); check its permissions")


@NOT_ROOT
def test_a_folder_that_may_not_be_written_is_told(tmp_path, splits):
    """Where the archive cannot be unpacked, the error says so and gives a way out."""
    tar_of(tmp_path, splits)
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(OutputError) as error:
            STL10(tmp_path)
    finally:
        tmp_path.chmod(0o755)

    require_one_line(error, f"cannot unpack to {tmp_path}", "unpack the archive by hand")


def test_a_file_in_the_place_of_the_folder_is_told(tmp_path, splits):
    """Where stl10_binary is a file nothing can be unpacked, and the error says why."""
    tar_of(tmp_path, splits)
    (tmp_path / "stl10_binary").write_bytes(b"")

    with pytest.raises(OutputError) as error:
        STL10(tmp_path)

    assert str(error.value) == (
        f"cannot unpack to {tmp_path / 'stl10_binary' / 'unlabeled_X.bin'}: "
        f"{os.strerror(errno.EEXIST)}; make room there, or unpack the archive by hand and give "
        "its folder as --data-dir"
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_is_told_and_leaves_nothing_behind(tmp_path, splits, monkeypatch):
    """When the disk fills up the error says so, and what was written until then is gone."""
    archive = tar_of(tmp_path, splits)
    normal = Path.open

    def onto_full_disk(path, mode="r", *args, **options):
        if path.suffix == ".srcli-tmp" and mode == "wb":
            normal(path, mode).close()
            return normal(Path("/dev/full"), mode)
        return normal(path, mode, *args, **options)

    monkeypatch.setattr(Path, "open", onto_full_disk)

    with pytest.raises(OutputError) as error:
        STL10(tmp_path)

    require_one_line(error, os.strerror(errno.ENOSPC), "make room there")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [archive]


# ---- folders and names --------------------------------------------------------------------


def save(path, pixels):
    """Write ``(H, W)`` or ``(H, W, 3)`` levels as an image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def noise(height, width, seed=0):
    """Make ``(H, W, 3)`` noise."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_a_folder_gives_its_images_by_path(tmp_path):
    """A folder's images are named by file, told by path, and are the files' pixels."""
    for number, name in enumerate(("b.png", "a/z.png", "a/c.tiff")):
        save(tmp_path / "photos" / name, noise(5, 7 + number, number))

    source = open_source(str(tmp_path / "photos"), Path("unused"))

    assert isinstance(source, Folder)
    assert source.name == "photos"
    assert keys(source) == ["c.tiff", "z.png", "b.png"]
    assert source.label(0) == str(tmp_path / "photos" / "a" / "c.tiff")
    for index, number in enumerate((2, 1, 0)):
        assert np.array_equal(source.read(index), noise(5, 7 + number, number))
        assert source.size(index) == (7 + number, 5)


def test_an_unreadable_file_of_a_folder_is_named(tmp_path):
    """A damaged file is found, since its name says image, and is an error when it is wanted."""
    (tmp_path / "a.png").write_bytes(b"this is no image")
    source = Folder(tmp_path)

    for access in (source.read, source.size):
        with pytest.raises(ImageError) as error:
            access(0)
        require_one_line(error, f"{tmp_path / 'a.png'}: ")


def test_images_are_found_below_the_folder(tmp_path):
    """Images of any known kind are found at every depth, by path, and nothing else is."""
    for name in ("b.png", "a/c.JPG", "a/d/e.webp", "z.tiff", "f.bmp", "g.ppm"):
        save(tmp_path / name, noise(4, 4))
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "folder.png").mkdir()

    found = [path.relative_to(tmp_path).as_posix() for path in image_files(tmp_path)]

    assert found == ["a/c.JPG", "a/d/e.webp", "b.png", "f.bmp", "g.ppm", "z.tiff"]


def test_hidden_files_and_folders_are_skipped(tmp_path):
    """What starts with a dot is left alone, but the folder itself may be hidden."""
    folder = tmp_path / ".cache" / "set"
    for name in ("a.png", ".b.png", ".thumbs/c.png", "d/.e/f.png"):
        save(folder / name, noise(4, 4))

    assert image_files(folder) == [folder / "a.png"]


@pytest.mark.parametrize(("is_file", "found"), [(True, "is a file"), (False, "does not exist")])
def test_what_is_no_folder_is_named(is_file, found, tmp_path):
    """A path that is missing or a file is refused; the way out names the known data sets."""
    path = tmp_path / "photo.png"
    if is_file:
        save(path, noise(4, 4))

    with pytest.raises(DataError) as error:
        image_files(path)

    assert str(error.value) == (
        f"--dataset {path} {found}; give a folder of images, or one of celeba, stl10"
    )
    assert error.value.exit_code == 4


def test_a_folder_without_images_is_named(tmp_path):
    """An empty data set is refused, and the text lists what would count as an image."""
    (tmp_path / "notes.txt").write_text("no image")

    with pytest.raises(DataError) as error:
        open_source(str(tmp_path), tmp_path)

    kinds = ", ".join(sorted(READABLE_SUFFIXES))
    assert str(error.value) == (
        f"--dataset {tmp_path} holds no image ({kinds}); give another folder"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("celeba", ("celeba", ())),
        ("stl10", ("stl10", ())),
        ("celeba:test", ("celeba", ("test",))),
        ("celeba:valid, train", ("celeba", ("valid", "train"))),
        ("celeba:train,train,test,train", ("celeba", ("train", "test"))),
        ("stl10:unlabeled,train", ("stl10", ("unlabeled", "train"))),
        ("./celeba", ("./celeba", ())),
        ("data/celeba", ("data/celeba", ())),
        ("CelebA", ("CelebA", ())),
        ("celeba/", ("celeba/", ())),
        ("photos:train", ("photos:train", ())),
        (r"C:\photos", (r"C:\photos", ())),
    ],
)
def test_a_name_is_parted_from_its_parts(text, expected):
    """The two known names may have parts, each counted once; anything else is a folder."""
    assert parse(text) == expected


@pytest.mark.parametrize("text", ["celeba:unlabeled", "celeba:", "celeba:train,", "stl10:valid"])
def test_an_unknown_part_is_refused(text, tmp_path):
    """A part that the data set does not have is refused before anything is opened."""
    name = text.split(":")[0]
    known = ", ".join(sources.DATASETS[name])

    for call in (parse, absolute, lambda text: open_source(text, tmp_path)):
        with pytest.raises(UsageError, match=rf"^--dataset {re.escape(text)}: ") as error:
            call(text)
        require_one_line(error, f"{name} has the parts {known}, not ", "choose")


def test_names_stay_and_folders_become_absolute(tmp_path, monkeypatch):
    """A data set's name means the same anywhere; a folder is tied to where it is now."""
    monkeypatch.chdir(tmp_path)

    assert absolute("celeba:train") == "celeba:train"
    assert absolute("stl10") == "stl10"
    assert absolute("photos") == str(tmp_path / "photos")
    assert absolute("./celeba") == str(tmp_path / "celeba")
    assert absolute(str(tmp_path)) == str(tmp_path)


def test_a_folder_called_celeba_is_given_with_its_path(tmp_path, monkeypatch):
    """./celeba is a folder of images; celeba is the data set, which this folder does not hold."""
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "celeba" / "a.png", noise(4, 4))

    assert keys(open_source("./celeba", tmp_path)) == ["a.png"]
    assert keys(open_source(absolute("./celeba"), tmp_path)) == ["a.png"]
    with pytest.raises(DataError, match=r"^celeba is not in .*, which holds a\.png; expected"):
        open_source("celeba", tmp_path)


def test_a_source_may_be_moved(tmp_path, faces):
    """The names of the images do not tell where the data lies."""
    write_folder(tmp_path / "here", faces)
    before = keys(CelebA(tmp_path / "here"))
    shutil.move(tmp_path / "here", tmp_path / "there")
    write_zip(tmp_path / "packed", faces)

    assert keys(CelebA(tmp_path / "there")) == before
    assert keys(CelebA(tmp_path / "packed")) == before
    assert keys(Folder(tmp_path / "there")) == before
