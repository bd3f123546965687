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
    folder = root / "img_align_celeba"
    folder.mkdir(parents=True)
    for name, data in faces.items():
        (folder / name).write_bytes(data)


def write_zip(root, faces, more=()):
    """Lay CelebA out as its archive, the members in another order than their names'."""
    with zipfile.ZipFile(root / "img_align_celeba.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in reversed(faces):
            archive.writestr(f"img_align_celeba/{name}", faces[name])
        for name, data in more:
            archive.writestr(name, data)


def write_list(root, numbers=PARTITION_OF, end="\n"):
    """Write which face is of which partition."""
    lines = [f"{number:06}.jpg {partition}{end}" for number, partition in numbers.items()]
    (root / "list_eval_partition.txt").write_bytes("".join(lines).encode())


def opened(root, *partitions, notice=lambda _: None):
    """Open partitions of CelebA, or all of it."""
    return CelebA(root, partitions, notice)


@pytest.mark.parametrize(
    ("write", "holder"), [(write_folder, "img_align_celeba"), (write_zip, "img_align_celeba.zip")]
)
def test_celeba_gives_its_files_by_name(write, holder, tmp_path, faces):
    """Folder and archive give the files' pixels, all or those of the partitions asked for."""
    write(tmp_path, faces)

    source = opened(tmp_path)

    assert keys(source) == keys(opened(tmp_path, "test", "valid", "train")) == sorted(faces)
    for index, name in enumerate(sorted(faces)):
        assert np.array_equal(source.read(index), decoded(faces[name]))
        assert source.size(index) == (178, 218)
        assert source.label(index) == str(tmp_path / holder / name)
    # The whole needs no list.
    assert "cannot be read (No such file" in refusal(lambda: opened(tmp_path, "valid", "train"))
    write_list(tmp_path)
    some = opened(tmp_path, "valid", "train")
    assert keys(some) == [f"{number:06}.jpg" for number in (1, 2, 4, 6)]
    assert np.array_equal(some.read(2), decoded(faces["000004.jpg"]))


def test_the_data_folder_may_be_the_one_above(tmp_path, faces):
    """--data-dir is celeba's own folder, or one that holds it by the name celeba."""
    root = tmp_path / "celeba"
    (root / "img_align_celeba").mkdir(parents=True)  # an attempt to unpack hides nothing
    write_zip(root, faces)
    write_list(root)

    for folder in (tmp_path, root):
        assert keys(open_source("celeba:valid", folder, print)) == ["000004.jpg"]


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

    source = opened(tmp_path)

    assert keys(source) == sorted(faces)
    assert np.array_equal(source.read(0), decoded(data))


def test_lists_and_counts_may_have_gaps(tmp_path, faces):
    """Images that are not there, or not in the list, do no harm; one line counts those there."""
    write_folder(tmp_path, faces)
    write_list(tmp_path, {9: 0, **PARTITION_OF, 2: 1}, end="\r\n\r\n")
    (tmp_path / "img_align_celeba" / "stray.jpg").write_bytes(faces["000001.jpg"])
    notices = []

    source = opened(tmp_path, "train", notice=notices.append)

    assert keys(source) == ["000001.jpg", "000006.jpg"]
    assert notices == [f"celeba: 7 of the 202,599 images are in {tmp_path}; continuing with these"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("list_eval_partition.txt", b"<html>too many users</html>\n", "/list_eval_partition.txt "),
        ("list_eval_partition.txt", b"000001.jpg 0\n\xff\xfe\x00\n", "/list_eval_partition.txt "),
        (
            "list_eval_partition.txt",
            b"000001.jpg 0\n",
            " holds no image of the partition valid",
        ),
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

    found = refusal(lambda: opened(tmp_path, "valid", "test"))

    assert f"{tmp_path}{message}" in found
    assert GET in found


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
    assert np.array_equal(source.read(5), decoded(faces["000006.jpg"]))
