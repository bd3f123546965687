"""Downloading data sets, from a host that runs on this machine and misbehaves on demand."""

import hashlib
import random
import re
import stat
import sys
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import run_files
from batch_files import listing

from srcli.data import downloads
from srcli.data.downloads import PAGES, Remote, download
from srcli.errors import DataError, OutputError, UsageError

BODY = np.random.default_rng(0).bytes(1_300_000)
"""What the host has: more than two of the pieces in which gdown writes."""

PIECE = 512 * 1024
"""Bytes that gdown writes at a time."""

PARTIAL = r"file\.bin\.download.{8}\.part"


class Handler(BaseHTTPRequestHandler):
    """Answers one request as its host is told to."""

    def do_GET(self):
        """Send a file, a part of one, or an error; record the range and the bytes."""
        host = self.server
        body = host.bodies.get(self.path)
        status = 404 if body is None else host.status
        if status != 200:
            body = b"no"
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(wanted[1]) if wanted else 0
        host.seen.append((self.path, self.headers["Range"], len(body) - start))
        self.send_response(206 if start else status)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        cut = host.cuts.pop(0) if host.cuts else len(body)
        with suppress(ConnectionError):
            self.wfile.write(body[start:][:cut])

    def log_message(self, *_):
        """Keep the log of requests off stderr."""


@pytest.fixture
def host(monkeypatch):
    """Run a host of ``bodies`` here that records requests; pauses between retries are skipped."""
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1")
    monkeypatch.setattr(random, "uniform", lambda low, _: low)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        server.handle_error = lambda *_: None  # gdown hangs up on purpose before it resumes
        server.url = f"http://127.0.0.1:{server.server_port}"
        server.bodies, server.status = {"/file.bin": BODY}, 200
        server.cuts, server.seen = [], []
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def md5(data):
    """Compute the MD5 of bytes in hexadecimal digits."""
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


@pytest.fixture
def remote(host, monkeypatch):
    """Put the host's file in place of STL-10's, and let the first broken connection end a call."""
    made = Remote("file.bin", f"{host.url}/file.bin", md5(BODY))
    monkeypatch.setattr(downloads, "REMOTES", {"stl10": (made,)})
    monkeypatch.setattr(downloads, "_RETRIES", 0)
    return made


@pytest.fixture
def pair(host, monkeypatch):
    """Put two small files of the host in place of CelebA's."""
    host.bodies = {"/one.zip": BODY[:1000], "/two.txt": BODY[1000:1200]}
    remotes = [Remote(path[1:], host.url + path, md5(data)) for path, data in host.bodies.items()]
    monkeypatch.setattr(downloads, "REMOTES", {"celeba": remotes})


def fetch(folder):
    """Download the one file that stands in for STL-10 and read it."""
    download("stl10", folder, quiet=True)
    return (folder / "file.bin").read_bytes()


def interrupted(host, folder):
    """Break a download off in its second piece; return the path of what is left."""
    host.cuts = [PIECE + 1000]
    refusal(folder, match="incomplete")
    (partial,) = folder.iterdir()
    assert re.fullmatch(PARTIAL, partial.name)
    host.seen.clear()
    return partial


def refusal(folder, match="", kind=DataError, dataset="stl10"):
    """Return the message that a download is refused with; it must be one line."""
    message = run_files.refusal(lambda: download(dataset, folder, quiet=True), kind)
    assert re.search(match, message)
    return message


@pytest.mark.usefixtures("remote")
def test_gdown_is_needed_only_to_download(tmp_path, monkeypatch):
    """Where it is missing one line says what to install; a file that is there needs none."""
    monkeypatch.setitem(sys.modules, "gdown", None)  # what an import of it meets is an error
    refusal(tmp_path, r"gdown, .* pip install 'srcli\[train\]'$", UsageError)
    (tmp_path / "file.bin").write_bytes(BODY)
    assert fetch(tmp_path) == BODY


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX modes")
def test_a_whole_download_has_its_name_and_nothing_else_is_left(remote, tmp_path, capfd):
    """The folder, made with its parents, holds the host's bytes; a bar is drawn if not quiet."""
    folder = tmp_path / "some" / "folder"

    assert fetch(folder) == BODY

    assert capfd.readouterr() == ("", "")
    assert stat.S_IMODE((folder / "file.bin").stat().st_mode) == 0o644
    assert listing(folder) == ["file.bin"]
    download("stl10", tmp_path)
    out, err = capfd.readouterr()
    assert out == ""
    assert remote.url in err
    assert "100%|" in err


@pytest.mark.usefixtures("remote")
@pytest.mark.parametrize("name", ["file.bin", "file.bin.download"])
def test_a_file_that_is_there_is_not_downloaded_again(host, tmp_path, name):
    """A whole file stays; one of a call that was stopped before the check is checked and named."""
    (tmp_path / name).write_bytes(BODY)

    assert fetch(tmp_path) == BODY
    assert listing(tmp_path) == ["file.bin"]
    assert host.seen == []


def test_what_is_in_the_way_is_an_error_and_stays(host, remote, tmp_path):
    """A file with another MD5 is neither overwritten nor used; nor is what is no file or folder."""
    path = tmp_path / "file.bin"
    path.write_bytes(b"mine")

    assert refusal(tmp_path) == (
        f"{path} is not the published file (its MD5 is {md5(b'mine')}, not {remote.md5}); "
        "delete it to have it downloaded again"
    )
    assert path.read_bytes() == b"mine"
    refusal(path, "^cannot write or read .*; make room or choose another", OutputError)
    path.unlink()
    path.mkdir()
    refusal(tmp_path, "^cannot write or read .*: Is a directory; make room or", OutputError)
    assert host.seen == []


@pytest.mark.usefixtures("remote")
def test_an_interrupted_download_is_resumed(host, tmp_path, monkeypatch):
    """What has arrived is kept under another name; the rest alone is asked for."""
    kept = interrupted(host, tmp_path).read_bytes()

    assert BODY.startswith(kept)
    assert len(kept) >= PIECE
    assert fetch(tmp_path) == BODY
    assert listing(tmp_path) == ["file.bin"]
    assert host.seen[1:] == [("/file.bin", f"bytes={len(kept)}-", len(BODY) - len(kept))]

    monkeypatch.setattr(downloads, "_RETRIES", 1)  # and within a call
    host.cuts = [PIECE + 1000]
    assert fetch(tmp_path / "other") == BODY
    assert host.seen[-1][1] == f"bytes={PIECE}-"


def test_damaged_bytes_never_get_the_name(host, remote, tmp_path):
    """With a wrong MD5 nothing is left, and the message says what was expected and found."""
    partial = interrupted(host, tmp_path)
    size = partial.stat().st_size
    partial.write_bytes(bytes(size))

    assert refusal(tmp_path) == (
        f"what {remote.url} sent is not the published file.bin (its MD5 is "
        f"{md5(bytes(size) + BODY[size:])}, not {remote.md5}) and was removed; try again, or put "
        f"file.bin from {PAGES['stl10']} into {tmp_path} by hand"
    )
    assert listing(tmp_path) == []
    assert fetch(tmp_path) == BODY


@pytest.mark.usefixtures("pair")
def test_several_files_are_checked_before_one_is_fetched(host, tmp_path):
    """Of CelebA's two files a wrong one ends it; a refusal names both, the page and the folder."""
    (tmp_path / "two.txt").write_bytes(b"mine")
    refusal(tmp_path, r"two\.txt is not the published file", dataset="celeba")
    assert host.seen == []
    (tmp_path / "two.txt").write_bytes(BODY[1000:1200])

    host.status = 403
    message = refusal(tmp_path, r"^cannot download one\.zip: 403 ", dataset="celeba")
    host.status = 200
    download("celeba", tmp_path, quiet=True)

    assert message.endswith(
        f", or put one.zip and two.txt from {PAGES['celeba']} into {tmp_path} by hand"
    )
    assert (tmp_path / "one.zip").read_bytes() == BODY[:1000]
    assert [path for path, _, _ in host.seen] == ["/one.zip"] * 2
