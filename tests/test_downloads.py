"""Downloading data sets, from a host that runs on this machine and misbehaves on demand."""

import hashlib
import random
import re
import stat
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import gdown
import numpy as np
import pytest
import requests
import tqdm

from srcli.data import downloads
from srcli.data.downloads import REMOTES, Remote, download
from srcli.errors import DataError, OutputError, UsageError

BODY = np.random.default_rng(0).bytes(1_300_000)
"""What the host has: more than two of the pieces in which gdown writes."""

PIECE = 512 * 1024
"""Bytes that gdown writes at a time."""

PARTIAL = r"file\.bin\.download.{8}\.part"

QUOTA_PAGE = """<html><body><p class="uc-error-caption">Sorry, you can't view or download this
file at this time.</p>
<p class="uc-error-subcaption">Too many users have viewed or downloaded this file recently.</p>
</body></html>"""
"""What Google Drive shows instead of a file that was asked for too often."""

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX modes and signals")


class Host(ThreadingHTTPServer):
    """Serves ``bodies``, which a text makes a page and bytes make a file, and records requests."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.bodies = {"/file.bin": BODY}
        self.status = 200
        self.sends_parts = True
        self.cuts = []
        self.seen = []

    def stop(self):
        """Stop serving: from here on connections are refused."""
        self.shutdown()
        self.server_close()

    def handle_error(self, request, client_address):
        """Say nothing about clients that hang up; gdown does so on purpose before it resumes."""


class Handler(BaseHTTPRequestHandler):
    """Answers one request as its host is told to."""

    def do_GET(self):
        """Send a file, a part of one, a page or an error; record the range and the bytes."""
        host = self.server
        body = host.bodies.get(self.path)
        status = 404 if body is None else host.status
        if status != 200:
            body = b"no"
        kind = "text/html" if isinstance(body, str) else "application/octet-stream"
        body = body.encode() if isinstance(body, str) else body
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(wanted[1]) if wanted and host.sends_parts else 0
        host.seen.append((self.path, self.headers["Range"], len(body) - start))
        self.send_response(206 if start else status)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body) - start))
        if kind != "text/html" and "id=" in self.path:
            self.send_header("Content-Disposition", 'attachment; filename="theirs.bin"')
        self.end_headers()
        cut = host.cuts.pop(0) if host.cuts else len(body)
        with suppress(ConnectionError):
            self.wfile.write(body[start:][:cut])

    def log_message(self, *_):
        """Keep the log of requests off stderr."""


@pytest.fixture
def host(monkeypatch):
    """Run a host on this machine, reached without a proxy; pauses between retries are skipped."""
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1")
    monkeypatch.setattr(random, "uniform", lambda low, _: low)
    with Host() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.stop()
        thread.join()


@pytest.fixture
def remote(host, monkeypatch):
    """Put the host's file in place of STL-10's, and let the first broken connection end a call."""
    made = remote_of(host, "file.bin")
    monkeypatch.setattr(downloads, "REMOTES", {"stl10": (made,)})
    monkeypatch.setattr(downloads, "_RETRIES", 0)
    return made


@pytest.fixture
def drive(host, remote, monkeypatch):
    """Send what is asked of Google Drive to the host, and put a file of Drive in STL-10's place."""
    get = requests.Session.get

    def get_here(session, url, **options):
        google = re.fullmatch(r"https://drive\.(?:usercontent\.)?google\.com(/.*)", url)
        return get(session, host.url + google[1] if google else url, **options)

    monkeypatch.setattr(requests.Session, "get", get_here)
    made = replace(remote, url="https://drive.google.com/uc?id=asked")
    monkeypatch.setattr(downloads, "REMOTES", {"stl10": (made,)})
    return made


@pytest.fixture
def pair(host, monkeypatch):
    """Put two small files of the host in place of CelebA's."""
    host.bodies = {"/one.zip": BODY[:1000], "/two.txt": BODY[1000:1200]}
    remotes = remote_of(host, "one.zip"), remote_of(host, "two.txt")
    monkeypatch.setattr(downloads, "REMOTES", {"celeba": remotes})
    return remotes


def md5(data):
    """Compute the MD5 of bytes in hexadecimal digits."""
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def remote_of(host, name):
    """Describe a file of the host, its MD5 that of what the host has now."""
    return Remote(
        name=name,
        url=f"{host.url}/{name}",
        md5=md5(host.bodies[f"/{name}"]),
        page="https://example.org/home.html",
    )


def fetch(folder):
    """Download the one file that stands in for STL-10."""
    (path,) = download("stl10", folder, quiet=True)
    return path


def names_in(folder):
    """List everything in a folder, hidden files included."""
    return sorted(path.name for path in folder.iterdir())


def interrupted(host, folder):
    """Break a download off in its second piece; return the path of what is left."""
    host.cuts = [PIECE + 1000]
    with pytest.raises(DataError, match="incomplete"):
        fetch(folder)
    (partial,) = folder.iterdir()
    host.seen.clear()
    return partial


def message_of(error):
    """Read the message of a caught error; it must be one line."""
    text = str(error.value)
    assert text.isprintable()
    return text


def test_the_table_of_remotes_is_well_formed():
    """Every file has a plain name of its own, a URL, an MD5 and a page; CelebA's are on Drive."""
    assert set(REMOTES) == {"celeba", "stl10"}
    for remotes in REMOTES.values():
        assert len({remote.name for remote in remotes}) == len(remotes) > 0
        for remote in remotes:
            assert Path(remote.name).name == remote.name
            assert re.fullmatch(r"[0-9a-f]{32}", remote.md5)
            assert re.match(r"https?://\w", remote.url)
            assert re.match(r"https://\w", remote.page)
    parsed = [gdown.parse_url.parse_url(remote.url) for remote in REMOTES["celeba"]]
    assert all(is_download for _, is_download in parsed)
    assert len({file_id for file_id, _ in parsed if file_id}) == 2


def test_gdown_is_imported_only_to_download(remote, tmp_path, monkeypatch):
    """Nothing else waits for its import, and where it is missing one line says what to install."""
    code = "import sys, srcli.data.downloads; print({'gdown', 'requests'} & set(sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout == "set()\n"

    monkeypatch.setitem(sys.modules, "gdown", None)  # what an import of it meets is an error
    with pytest.raises(UsageError, match=r"gdown, .* pip install 'srcli\[train\]'$") as error:
        fetch(tmp_path)
    assert message_of(error)
    (tmp_path / remote.name).write_bytes(BODY)
    assert fetch(tmp_path).read_bytes() == BODY


@POSIX
@pytest.mark.parametrize("relative", [False, True])
def test_a_whole_download_has_its_name_and_nothing_else_is_left(
    host, remote, tmp_path, monkeypatch, relative
):
    """The folder, made with its parents, holds the host's bytes, for others to read as well."""
    monkeypatch.chdir(tmp_path)
    folder = Path() if relative else tmp_path / "some" / "folder"

    path = fetch(folder)

    assert path == folder / remote.name
    assert path.read_bytes() == BODY
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert names_in(folder) == ["file.bin"]
    assert [(asked, wanted) for asked, wanted, _ in host.seen] == [("/file.bin", None)]


@pytest.mark.usefixtures("remote")
@pytest.mark.parametrize("name", ["file.bin", "file.bin.download"])
def test_a_file_that_is_there_is_not_downloaded_again(host, tmp_path, name):
    """A whole file stays; one of a call that was stopped before the check is checked and named."""
    (tmp_path / name).write_bytes(BODY)
    before = (tmp_path / name).stat().st_mtime_ns

    path = fetch(tmp_path)

    assert path.read_bytes() == BODY
    assert path.stat().st_mtime_ns == before
    assert names_in(tmp_path) == ["file.bin"]
    assert host.seen == []


def test_another_file_of_the_name_is_an_error_and_stays(host, remote, tmp_path):
    """A file with another MD5 is neither overwritten nor used: the user is to delete it."""
    path = tmp_path / "file.bin"
    path.write_bytes(b"mine")

    with pytest.raises(DataError, match="delete it") as error:
        fetch(tmp_path)

    text = message_of(error)
    assert all(part in text for part in (str(path), md5(b"mine"), remote.md5))
    assert path.read_bytes() == b"mine"
    path.unlink()
    path.mkdir()
    with pytest.raises(DataError, match=r"cannot read .*file\.bin: Is a directory; check it"):
        fetch(tmp_path)
    assert host.seen == []


@pytest.mark.usefixtures("remote")
def test_an_interrupted_download_is_resumed(host, tmp_path):
    """What has arrived is kept under another name; the next call asks for the rest alone."""
    host.cuts = [PIECE + 1000]
    with pytest.raises(DataError, match=r"cannot download file\.bin: Download is inc") as error:
        fetch(tmp_path)

    (name,) = names_in(tmp_path)
    kept = (tmp_path / name).read_bytes()
    assert re.fullmatch(PARTIAL, name)
    assert len(kept) >= PIECE
    assert BODY.startswith(kept)
    assert f"received {len(kept)} bytes" in message_of(error)
    assert "; try again later, or get file.bin by hand" in message_of(error)
    assert fetch(tmp_path).read_bytes() == BODY
    assert names_in(tmp_path) == ["file.bin"]
    assert host.seen[-1] == ("/file.bin", f"bytes={len(kept)}-", len(BODY) - len(kept))


@pytest.mark.usefixtures("remote")
def test_a_broken_connection_is_resumed_within_a_call(host, tmp_path, monkeypatch):
    """A call survives a broken connection, asking for the rest only."""
    monkeypatch.setattr(downloads, "_RETRIES", 1)
    host.cuts = [PIECE + 1000]

    assert fetch(tmp_path).read_bytes() == BODY
    assert [wanted for _, wanted, _ in host.seen] == [None, f"bytes={PIECE}-"]


@pytest.mark.usefixtures("remote")
def test_what_cannot_be_resumed_says_what_to_delete(host, tmp_path):
    """A host without ranges, or two partial files: nothing is lost, and the way out is named."""
    partial = interrupted(host, tmp_path)
    kept = partial.read_bytes()
    host.sends_parts = False
    with pytest.raises(DataError, match="did not honor the requested byte range") as error:
        fetch(tmp_path)
    assert f"delete {tmp_path}/file.bin.download*.part to start anew" in message_of(error)
    assert partial.read_bytes() == kept

    partial.with_name("file.bin.downloadabcdefgh.part").write_bytes(BODY[:10])
    with pytest.raises(DataError, match=r"multiple temporary files .* delete .*\*\.part to start"):
        fetch(tmp_path)

    for path in tmp_path.iterdir():
        path.unlink()
    assert fetch(tmp_path).read_bytes() == BODY


@pytest.mark.usefixtures("remote")
def test_a_host_that_is_gone_leaves_the_partial_file(host, tmp_path):
    """A refusal, no further byte or a lost host costs nothing of what has arrived."""
    partial = interrupted(host, tmp_path)
    kept = partial.read_bytes()
    host.cuts = [0, 0]
    with pytest.raises(DataError, match="incomplete"):
        fetch(tmp_path)
    host.status = 503
    with pytest.raises(DataError, match="503"):
        fetch(tmp_path)
    host.stop()
    with pytest.raises(DataError, match=r"cannot download file\.bin: .*Connection refused"):
        fetch(tmp_path)
    assert partial.read_bytes() == kept
    assert names_in(tmp_path) == [partial.name]


def test_damaged_bytes_never_get_the_name(host, remote, tmp_path):
    """With a wrong MD5 nothing is left, and the message says what was expected and found."""
    partial = interrupted(host, tmp_path)
    damaged = bytes(partial.stat().st_size) + BODY[partial.stat().st_size :]
    partial.write_bytes(bytes(partial.stat().st_size))

    with pytest.raises(DataError, match="is not the published") as error:
        fetch(tmp_path)

    text = message_of(error)
    assert f"its MD5 is {md5(damaged)}, not {remote.md5}" in text
    assert all(part in text for part in (remote.url, "file.bin", remote.page, str(tmp_path)))
    assert names_in(tmp_path) == []
    assert fetch(tmp_path).read_bytes() == BODY


@pytest.mark.parametrize("status", [403, 500])
def test_a_refusal_says_what_to_get_where_and_where_to_put_it(host, pair, tmp_path, status):
    """One line names the error, every file that is missing, the page and the folder."""
    host.status = status

    with pytest.raises(DataError) as error:
        download("celeba", tmp_path / "celeba", quiet=True)

    text = message_of(error)
    assert text.startswith(f"cannot download one.zip: {status} ")
    assert text.endswith(
        "; try again later, or get one.zip and two.txt by hand from "
        f"https://example.org/home.html and put them into {tmp_path / 'celeba'}"
    )
    assert len(host.seen) == 1
    assert names_in(tmp_path / "celeba") == []
    host.status = 200
    del host.bodies["/two.txt"]
    with pytest.raises(DataError, match=r"cannot download two\.txt: 404 ") as error:
        download("celeba", tmp_path, quiet=True)
    assert "one.zip" not in message_of(error)
    assert names_in(tmp_path) == ["celeba", pair[0].name]


@pytest.mark.usefixtures("drive")
def test_google_drives_quota_is_a_refusal_that_leaves_the_partial_file(host, tmp_path):
    """The message has Google's own words without gdown's advice; what has arrived is kept."""
    host.bodies = {"/uc?id=asked": BODY}
    partial = interrupted(host, tmp_path)
    host.bodies = {"/uc?id=asked": QUOTA_PAGE}

    with pytest.raises(DataError) as error:
        fetch(tmp_path)

    assert message_of(error) == (
        "cannot download file.bin: Too many users have viewed or downloaded this file recently; "
        "try again later, or get file.bin by hand from https://example.org/home.html "
        f"and put it into {tmp_path}"
    )
    host.bodies = {"/uc?id=asked": "<html>Sign in</html>"}
    with pytest.raises(DataError, match="Cannot retrieve the public link of the file") as error:
        fetch(tmp_path)
    assert "But Gdown can't" not in message_of(error)
    assert names_in(tmp_path) == [partial.name]


@pytest.mark.usefixtures("remote")
def test_what_cannot_be_written_is_an_error_of_the_output(host, tmp_path):
    """A folder below a file, or a full disk: the error names the file, and a rest is resumed."""
    (tmp_path / "taken").write_bytes(b"")
    with pytest.raises(OutputError, match="Not a directory; make room or choose") as error:
        fetch(tmp_path / "taken" / "folder")
    assert message_of(error).startswith(f"cannot write {tmp_path / 'taken/folder/file.bin'}: ")
    assert host.seen == []

    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (PIECE + 1000, before[1]))
    try:
        with pytest.raises(OutputError, match="File too large; make room") as error:
            fetch(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert message_of(error).startswith(f"cannot write {tmp_path / 'file.bin'}: ")
    assert "file.bin" not in names_in(tmp_path)
    assert fetch(tmp_path).read_bytes() == BODY


@pytest.mark.usefixtures("remote")
def test_ctrl_c_passes_and_the_next_call_resumes(host, tmp_path, monkeypatch):
    """A signal in the middle of a file ends the call as it is; what has arrived is of use."""
    update = tqdm.tqdm.update

    def interrupt(bar, count=1):
        update(bar, count)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tqdm.tqdm, "update", interrupt)
        with pytest.raises(KeyboardInterrupt):
            download("stl10", tmp_path)
    (partial,) = tmp_path.iterdir()
    assert re.fullmatch(PARTIAL, partial.name)

    assert fetch(tmp_path).read_bytes() == BODY
    assert host.seen[-1][1] == f"bytes={PIECE}-"


@pytest.mark.usefixtures("pair")
@pytest.mark.parametrize("have", [False, True])
def test_download_fetches_in_order_what_is_missing(host, tmp_path, have):
    """Both files of CelebA come, the first one first; one that is there is named instead."""
    folder = tmp_path / "new"
    if have:
        folder.mkdir()
        (folder / "one.zip").write_bytes(BODY[:1000])
    notices = []

    paths = download("celeba", folder, quiet=True, notice=notices.append)

    assert paths == [folder / "one.zip", folder / "two.txt"]
    assert [path.read_bytes() for path in paths] == [BODY[:1000], BODY[1000:1200]]
    assert [path for path, _, _ in host.seen] == ["/one.zip", "/two.txt"][have:]
    assert notices == [f"{folder / 'one.zip'} is already there"] * have
    assert names_in(folder) == ["one.zip", "two.txt"]
    host.seen.clear()
    (folder / "one.zip").unlink()
    (folder / "two.txt").write_bytes(b"mine")  # found before anything is asked for
    with pytest.raises(DataError, match=r"two\.txt is not the published file"):
        download("celeba", folder, quiet=True)
    assert host.seen == []


def test_download_refuses_a_data_set_that_it_does_not_know(tmp_path):
    """The error names what was asked for and what there is."""
    with pytest.raises(UsageError, match="cifar cannot be downloaded; choose celeba or stl10"):
        download("cifar", tmp_path)


def test_a_download_shows_a_bar_unless_it_is_quiet(host, remote, tmp_path, capfd):
    """On stderr stand the URL, the final path and a bar that ends at 100%; stdout is clean."""
    interrupted(host, tmp_path / "quiet")
    fetch(tmp_path / "quiet")
    assert capfd.readouterr() == ("", "")

    download("stl10", tmp_path)

    out, err = capfd.readouterr()
    assert out == ""
    assert err.splitlines()[:2] == [f"From: {remote.url}", f"To: {tmp_path / 'file.bin'}"]
    assert "100%|" in err
    assert err.endswith("B/s]\n")
