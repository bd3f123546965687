"""CelebA in every layout it comes in, and every way in which that is wrong."""

import io
import zipfile

import numpy as np
import pytest
from PIL import Image
from source_files import keys, refusal

from srcli.data.celeba import CelebA
from srcli.data.downloads import PAGES
from srcli.data.sources import open_source
from srcli.errors import ImageError

GET = f"with --download, or from {PAGES['celeba']}"

PARTITION_OF = {1: 0, 2: 0, 3: 2, 4: 1, 5: 2, 6: 0}
"""The number of each face, and that of its partition."""


def face_name(number):
    """Name a face as CelebA does."""
    return f"{number:06}.jpg"


@pytest.fixture(scope="module")
def faces(celeba):
    """Six JPEGs of 178 x 218 pixels, no two alike: name and bytes."""
    paths = (celeba / "img_align_celeba" / face_name(number) for number in PARTITION_OF)
    return {path.name: path.read_bytes() for path in paths}


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


def write_zip(root, faces, more=()):
    """Lay CelebA out as its archive, the members in another order than their names'."""
    root.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(root / "img_align_celeba.zip", "w", zipfile.ZIP_DEFLATED) as archive:
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


def opened(root, *partitions, notice=lambda _: None):
    """Open partitions of CelebA, or all of it."""
    return CelebA(root, partitions, notice)


@LAYOUTS
def test_celeba_gives_its_files_by_name(layout, tmp_path, faces):
    """Folder and archive give the files' pixels by name, label them, and stay as they are."""
    WRITERS[layout](tmp_path, faces)
    holder = {"folder": "img_align_celeba", "zip": "img_align_celeba.zip"}[layout]

    source = opened(tmp_path)

    assert keys(source) == sorted(faces)
    for index, name in enumerate(sorted(faces)):
        pixels = source.read(index)
        assert pixels.shape == (218, 178, 3)
        assert np.array_equal(pixels, decoded(faces[name]))
        assert source.size(index) == (178, 218)
        assert source.label(index) == str(tmp_path / holder / name)


@LAYOUTS
@pytest.mark.parametrize(
    ("partitions", "numbers"),
    [(["valid", "train"], [1, 2, 4, 6]), (["train", "valid", "test"], [1, 2, 3, 4, 5, 6])],
)
def test_partitions_are_chosen_by_the_list(layout, partitions, numbers, tmp_path, faces):
    """Exactly the images of the partitions asked for are there; the whole needs no list."""
    WRITERS[layout](tmp_path, faces)
    if len(partitions) < 3:
        assert "cannot be read (No such file" in refusal(lambda: opened(tmp_path, *partitions))
        write_list(tmp_path)

    source = opened(tmp_path, *partitions)

    assert keys(source) == [face_name(number) for number in numbers]
    assert np.array_equal(source.read(0), decoded(faces[face_name(numbers[0])]))


@pytest.mark.parametrize("above", [False, True])
def test_the_data_folder_may_be_the_one_above(above, tmp_path, faces):
    """--data-dir is celeba's own folder, or one that holds it by the name celeba."""
    write_zip(tmp_path / "celeba", faces)
    write_list(tmp_path / "celeba")
    (tmp_path / "celeba" / "img_align_celeba").mkdir()  # an attempt to unpack hides nothing

    source = open_source("celeba:valid", tmp_path if above else tmp_path / "celeba", print)

    assert keys(source) == ["000004.jpg"]


def test_other_members_of_an_archive_are_no_images(tmp_path, faces):
    """Only JPEG files of img_align_celeba count, wherever it lies, and nothing that a Mac adds."""
    (name, data), *rest = sorted(faces.items())
    others = [
        (f"celeba/img_align_celeba/{name}", data),
        ("a.jpg", data),
        ("b/c.jpg", data),
        ("img_align_celeba/readme.txt", b"text"),
        ("__MACOSX/img_align_celeba/._000001.jpg", b"\0\5\26\7 resource fork"),
        ("img_align_celeba/._000002.jpg", b"\0\5\26\7 resource fork"),
    ]
    write_zip(tmp_path, dict(rest), more=others)

    source = opened(tmp_path)

    assert keys(source) == sorted(faces)
    assert np.array_equal(source.read(0), decoded(data))


def test_lists_and_counts_may_have_gaps(tmp_path, faces, monkeypatch):
    """Images that are not there, or not in the list, do no harm; one line counts those there."""
    write_folder(tmp_path, faces)
    write_list(tmp_path, {9: 0, **PARTITION_OF, 2: 1}, end="\r\n\r\n")
    (tmp_path / "img_align_celeba" / "stray.jpg").write_bytes(faces["000001.jpg"])
    notices = []

    source = opened(tmp_path, "train", notice=notices.append)
    monkeypatch.setattr("srcli.data.celeba.IMAGES", 7)
    opened(tmp_path, notice=notices.append)

    assert keys(source) == ["000001.jpg", "000006.jpg"]
    assert notices == [f"celeba: 7 of the 202,599 images are in {tmp_path}; continuing with these"]


def test_a_place_without_celeba_is_named(tmp_path):
    """The error says where there should be what, and where to get it."""
    root = tmp_path / "faces"
    (root / "img_align_celeba").mkdir(parents=True)

    assert refusal(lambda: opened(root)) == (
        f"no image of celeba is in {root}; expected img_align_celeba/ or img_align_celeba.zip, "
        f"and list_eval_partition.txt: get them {GET}, and give their folder as --data-dir"
    )


NO_LIST = (
    "{path} does not hold lines such as '000001.jpg 0': delete it and download it again " + GET
)
NO_IMAGE = (
    "celeba in {path.parent} holds no image of the partition valid or test, by "
    "list_eval_partition.txt, among its 6; give another one, or get all " + GET
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"<html>too many users</html>\n", NO_LIST),
        (b"000001.jpg 0\n\xff\xfe\x00\n", NO_LIST),
        (b"000001.jpg 0\n", NO_IMAGE),
    ],
    ids=["page", "bytes", "none"],
)
def test_a_list_of_something_else_is_refused(text, message, tmp_path, faces):
    """A list that does not say 0, 1 or 2 for each name is named, or a partition of no image."""
    write_folder(tmp_path, faces)
    path = tmp_path / "list_eval_partition.txt"
    path.write_bytes(text)

    found = refusal(lambda: opened(tmp_path, "valid", "test"))

    assert found == message.format(path=path)


def test_a_damaged_archive_is_refused(tmp_path, faces):
    """An archive that cannot be opened is named, with where to get another."""
    write_zip(tmp_path, faces)
    path = tmp_path / "img_align_celeba.zip"
    path.write_bytes(path.read_bytes()[:1000])

    assert refusal(lambda: opened(tmp_path)).startswith(f"{path} cannot be read as a zip file (")


def test_a_damaged_member_costs_its_image_alone(tmp_path, faces):
    """What is wrong with one member is an error of that image, and the others read."""
    write_zip(tmp_path, faces)
    path = tmp_path / "img_align_celeba.zip"
    data = bytearray(path.read_bytes())
    name = b"img_align_celeba/000003.jpg"
    data[data.index(name) + len(name)] = 0x07  # no kind of block that deflate has
    path.write_bytes(data)

    source = opened(tmp_path)

    for access in (source.read, source.size):
        message = refusal(lambda access=access: access(2), ImageError)
        assert message.startswith(f"{path / '000003.jpg'}: cannot be read out of the archive (")
        assert message.endswith("); download the archive again")
    for index in (0, 5):
        assert np.array_equal(source.read(index), decoded(faces[face_name(index + 1)]))
