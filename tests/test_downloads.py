"""Fetching data sets, from a host that runs on this machine and misbehaves on demand."""

import hashlib
import os
import random
import re
import signal
import stat
import subprocess
import sys
import threading
import time
import urllib.parse
from contextlib import suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import gdown
import numpy as np
import pytest
import requests

from srcli.data import downloads
from srcli.data.downloads import REMOTES, Remote, download, fetch
from srcli.errors import DataError, OutputError, UsageError

BODY = np.random.default_rng(0).bytes(2_000_000)
"""What the host has: almost four of the pieces in which gdown writes."""

PIECE = 512 * 1024
"""Bytes that gdown writes at a time."""

QUOTA_PAGE = """<html><body><p class="uc-error-caption">Sorry, you can't view or download this
file at this time.</p>
<p class="uc-error-subcaption">Too many users have viewed or downloaded this file recently.</p>
</body></html>"""
"""What Google Drive shows instead of a file that was asked for too often."""

SCAN_PAGE = (
    '<form id="download-form" method="get" action="https://drive.usercontent.google.com/download">'
    '<input type="hidden" name="id" value="scanned">'
    '<input type="hidden" name="confirm" value="t"></form>'
)
"""What Google Drive shows before a file that is too large to be scanned for viruses."""


POSIX = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX modes and signals")


class Host(ThreadingHTTPServer):
    """Serves ``bodies``, which a text makes a page and bytes make a file, and takes notes."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.bodies = {"/file.bin": BODY}
        self.status = 200
        self.statuses = []
        self.sends_parts = True
        self.cuts = []
        self.halfway = None
        self.seen = []

    def leave(self):
        """Stop serving: from here on connections are refused."""
        self.shutdown()
        self.server_close()

    def handle_error(self, request, client_address):
        """Say nothing about clients that hang up; gdown does so on purpose before it resumes."""


class Handler(BaseHTTPRequestHandler):
    """Answers one request as its host is told to."""

    def do_GET(self):
        """Send a file, a part of one, a page or an error; note the range and the bytes."""
        host = self.server
        body = host.bodies.get(self.path)
        status = host.statuses.pop(0) if host.statuses else host.status
        status = 404 if body is None else status
        if status != 200:
            body = b"no"
        kind = "text/html" if isinstance(body, str) else "application/octet-stream"
        body = body.encode() if isinstance(body, str) else body
        start = self.start_of_range() if host.sends_parts else 0
        host.seen.append((self.path, self.headers["Range"], len(body) - start))
        if start >= len(body):
            self.send_error(416)
            return
        self.send_response(206 if start else status)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body) - start))
        self.send_header("Set-Cookie", "taste=sweet")
        if kind != "text/html" and "id=" in self.path:
            self.send_header("Content-Disposition", 'attachment; filename="theirs.bin"')
        self.end_headers()
        self.send_body(body[start:])

    def start_of_range(self):
        """Read where the wanted part starts; 0 if all is wanted."""
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        return int(wanted[1]) if wanted else 0

    def send_body(self, body):
        """Send all, or hang up before the end; ``halfway`` is called in between."""
        cut = self.server.cuts.pop(0) if self.server.cuts else len(body)
        with suppress(ConnectionError):
            self.wfile.write(body[:cut])
            if self.server.halfway and cut < len(body):
                self.server.halfway()
                self.rfile.read(1)

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
        server.leave()
        thread.join()


@pytest.fixture
def remote(host):
    """Name the host's file as a data set would."""
    return remote_of(host, "file.bin")


@pytest.fixture
def _no_retries(monkeypatch):
    """Let the first broken connection end a call."""
    monkeypatch.setattr(downloads, "_RETRIES", 0)


@pytest.fixture
def drive(host, monkeypatch):
    """Lead what is asked of Google Drive to the host; give what is to be fetched from there."""
    get = requests.Session.get

    def get_here(session, url, **options):
        google = re.fullmatch(r"https://drive\.(?:usercontent\.)?google\.com(/.*)", url)
        return get(session, host.url + google[1] if google else url, **options)

    monkeypatch.setattr(requests.Session, "get", get_here)
    return replace(remote_of(host, "file.bin"), url="https://drive.google.com/uc?id=asked")


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


def names_in(folder):
    """List everything in a folder, hidden files included."""
    return sorted(path.name for path in folder.iterdir())


def interrupt(host, remote, folder):
    """Break a download off in its second piece; give the path of what is left."""
    host.cuts = [PIECE + 1000]
    with pytest.raises(DataError, match="incomplete"):
        fetch(remote, folder, quiet=True)
    (partial,) = folder.iterdir()
    host.seen.clear()
    return partial


def message_of(error):
    """Read the message of a caught error; it must be one line."""
    text = str(error.value)
    assert text.isprintable()
    return text


def test_the_table_of_remotes_is_well_formed():
    """Every file has a plain name of its own, a URL, an MD5 and a page over https."""
    assert set(REMOTES) == {"celeba", "stl10"}
    for remotes in REMOTES.values():
        assert len({remote.name for remote in remotes}) == len(remotes) > 0
        for remote in remotes:
            assert Path(remote.name).name == remote.name
            assert re.fullmatch(r"[0-9a-f]{32}", remote.md5)
            for url, schemes in ((remote.url, {"http", "https"}), (remote.page, {"https"})):
                parts = urllib.parse.urlsplit(url)
                assert parts.scheme in schemes
                assert parts.hostname


def test_gdown_knows_the_drive_files_for_what_they_are():
    """CelebA's URLs are Google Drive's downloads to gdown, each of another file."""
    parsed = [gdown.parse_url.parse_url(remote.url) for remote in REMOTES["celeba"]]

    assert all(is_download for _, is_download in parsed)
    assert len({file_id for file_id, _ in parsed if file_id}) == 2


def test_importing_the_module_leaves_gdown_alone():
    """A program that fetches nothing does not wait for gdown's import."""
    code = "import sys, srcli.data.downloads; print({'gdown', 'requests'} & set(sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    assert result.stdout == "set()\n"


@pytest.mark.parametrize("relative", [False, True])
def test_a_whole_download_has_its_name_and_nothing_else_is_left(
    host, remote, tmp_path, monkeypatch, relative
):
    """The folder, made with its parents, holds the host's bytes under the file's name."""
    monkeypatch.chdir(tmp_path)
    folder = Path() if relative else tmp_path / "some" / "folder"

    path = fetch(remote, folder, quiet=True)

    assert path == folder / "file.bin"
    assert path.read_bytes() == BODY
    assert names_in(folder) == ["file.bin"]
    assert [(asked, wanted) for asked, wanted, _ in host.seen] == [("/file.bin", None)]


def test_the_file_is_checked_and_on_the_disk_before_it_has_its_name(remote, tmp_path, monkeypatch):
    """The whole content is synced while the name is still free."""
    synced = []

    def note(number):
        synced.append((os.fstat(number).st_size, (tmp_path / "file.bin").exists()))

    monkeypatch.setattr(os, "fsync", note)
    fetch(remote, tmp_path, quiet=True)

    assert synced == [(len(BODY), False)]


@POSIX
def test_the_file_has_the_mode_of_any_new_file(remote, tmp_path):
    """Others may read a fetched file if the umask lets them."""
    before = os.umask(0o027)
    try:
        path = fetch(remote, tmp_path, quiet=True)
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)

    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_file_that_is_there_is_not_fetched_again(host, remote, tmp_path):
    """With the right MD5 a file is left as it is, and the host hears nothing."""
    path = tmp_path / "file.bin"
    path.write_bytes(BODY)
    before = path.stat()

    assert fetch(remote, tmp_path, quiet=True) == path
    assert path.stat() == before
    assert host.seen == []


def test_another_file_of_the_name_is_an_error_and_stays(host, remote, tmp_path):
    """A file with another MD5 is neither overwritten nor used: the user is to delete it."""
    path = tmp_path / "file.bin"
    path.write_bytes(b"mine")

    with pytest.raises(DataError, match="delete it") as error:
        fetch(remote, tmp_path, quiet=True)

    text = message_of(error)
    assert all(part in text for part in (str(path), md5(b"mine"), remote.md5))
    assert path.read_bytes() == b"mine"
    assert host.seen == []


def test_a_folder_of_the_name_is_an_error(host, remote, tmp_path):
    """What cannot be read as a file is named, and nothing is fetched."""
    (tmp_path / "file.bin").mkdir()

    with pytest.raises(DataError, match=r"cannot read .*file\.bin: Is a directory; check it"):
        fetch(remote, tmp_path, quiet=True)

    assert host.seen == []


@pytest.mark.usefixtures("_no_retries")
def test_an_interrupted_download_leaves_a_partial_file_of_another_name(host, remote, tmp_path):
    """What has arrived is kept, not under the final name, and the message says how far it got."""
    host.cuts = [PIECE + 1000]

    with pytest.raises(DataError, match=r"cannot fetch file\.bin: Download is incomplete") as error:
        fetch(remote, tmp_path, quiet=True)

    (name,) = names_in(tmp_path)
    assert re.fullmatch(r"file\.bin\.download.{8}\.part", name)
    kept = (tmp_path / name).read_bytes()
    assert len(kept) >= PIECE
    assert BODY.startswith(kept)
    assert f"received {len(kept)} bytes" in message_of(error)
    assert "try again later, or get file.bin by hand" in message_of(error)


@pytest.mark.usefixtures("_no_retries")
def test_an_interrupted_download_is_resumed(host, remote, tmp_path):
    """The next call asks for what is missing, and no more than that is sent."""
    have = interrupt(host, remote, tmp_path).stat().st_size

    path = fetch(remote, tmp_path, quiet=True)

    assert path.read_bytes() == BODY
    assert names_in(tmp_path) == ["file.bin"]
    assert host.seen[-1] == ("/file.bin", f"bytes={have}-", len(BODY) - have)


def test_a_broken_connection_is_taken_up_within_a_call(host, remote, tmp_path):
    """A call outlives a connection that breaks twice, each time asking for the rest only."""
    host.cuts = [PIECE + 1000, PIECE + 1000]

    path = fetch(remote, tmp_path, quiet=True)

    assert path.read_bytes() == BODY
    first, second, third = (wanted for _, wanted, _ in host.seen)
    assert first is None
    assert 0 < int(second[6:-1]) < int(third[6:-1])


def test_a_connection_that_keeps_breaking_ends_the_call(host, remote, tmp_path):
    """After the retries the call ends in one line, and what arrived is kept."""
    host.cuts = [1000] * 20

    with pytest.raises(DataError, match="incomplete"):
        fetch(remote, tmp_path, quiet=True)

    assert len(host.seen) == 1 + downloads._RETRIES
    assert len(names_in(tmp_path)) == 1


@pytest.mark.usefixtures("_no_retries")
def test_a_host_without_ranges_sends_everything_again(host, remote, tmp_path, monkeypatch):
    """Where a download cannot be resumed it starts over, the user is told, and it ends well."""
    remote = replace(remote, name="file[1].bin")
    monkeypatch.setattr(downloads, "REMOTES", {"stl10": (remote,)})
    host.sends_parts = False
    interrupt(host, remote, tmp_path)
    told = []

    (path,) = download("stl10", tmp_path, quiet=True, notice=told.append)

    assert path.read_bytes() == BODY
    assert names_in(tmp_path) == ["file[1].bin"]
    assert [wanted is None for _, wanted, _ in host.seen] == [True, False, True]
    assert told == ["file[1].bin cannot be resumed; it is fetched from the start"]


@pytest.mark.usefixtures("_no_retries")
def test_two_partial_files_are_no_dead_end(host, remote, tmp_path):
    """Of two partial files none is trusted: the download starts over."""
    partial = interrupt(host, remote, tmp_path)
    partial.with_name("file.bin.downloadabcdefgh.part").write_bytes(BODY[:10])

    assert fetch(remote, tmp_path, quiet=True).read_bytes() == BODY
    assert names_in(tmp_path) == ["file.bin"]


@pytest.mark.usefixtures("_no_retries")
def test_a_host_that_is_gone_leaves_the_partial_file(host, remote, tmp_path):
    """To fail to resume because of the network or the host loses nothing of what has arrived."""
    partial = interrupt(host, remote, tmp_path)
    kept = partial.read_bytes()

    host.status = 503
    with pytest.raises(DataError, match="503"):
        fetch(remote, tmp_path, quiet=True)
    host.leave()
    with pytest.raises(DataError, match="Connection refused"):
        fetch(remote, tmp_path, quiet=True)

    assert partial.read_bytes() == kept
    assert names_in(tmp_path) == [partial.name]


@pytest.mark.usefixtures("_no_retries")
def test_a_resumed_download_that_breaks_at_once_leaves_the_partial_file(host, remote, tmp_path):
    """A connection that brings not one byte of the rest is no reason to start over."""
    partial = interrupt(host, remote, tmp_path)
    kept = partial.read_bytes()
    host.cuts = [0, 0]

    with pytest.raises(DataError, match="incomplete"):
        fetch(remote, tmp_path, quiet=True)

    assert len(host.seen) == 2
    assert partial.read_bytes() == kept


def test_a_rest_that_is_refused_after_progress_leaves_the_partial_file(
    host, remote, tmp_path, monkeypatch
):
    """A host that sent a part and then is overloaded may send the rest another time."""
    with monkeypatch.context() as patch:
        patch.setattr(downloads, "_RETRIES", 0)
        partial = interrupt(host, remote, tmp_path)
    have = partial.stat().st_size
    host.cuts = [0, PIECE + 1000]
    host.statuses = [200, 200, 503]

    with pytest.raises(DataError, match="did not honor"):
        fetch(remote, tmp_path, quiet=True)

    assert partial.stat().st_size >= have + PIECE
    assert fetch(remote, tmp_path, quiet=True).read_bytes() == BODY


def test_a_download_that_was_not_checked_yet_is_not_fetched_again(host, remote, tmp_path):
    """What a call left behind that was stopped after the last byte is checked and named."""
    (tmp_path / "file.bin.download").write_bytes(BODY)

    assert fetch(remote, tmp_path, quiet=True).read_bytes() == BODY
    assert names_in(tmp_path) == ["file.bin"]
    assert host.seen == []


def test_damaged_bytes_never_get_the_name(host, remote, tmp_path):
    """With a wrong MD5 nothing is left, and the message says what was expected and found."""
    damaged = BODY[:700_000] + b"\0" + BODY[700_001:]
    host.bodies["/file.bin"] = damaged

    with pytest.raises(DataError, match="is not the published") as error:
        fetch(remote, tmp_path, quiet=True)

    text = message_of(error)
    assert f"its MD5 is {md5(damaged)}, not {remote.md5}" in text
    assert all(part in text for part in (remote.url, "file.bin", remote.page, str(tmp_path)))
    assert names_in(tmp_path) == []


@pytest.mark.usefixtures("_no_retries")
def test_a_damaged_partial_file_costs_one_call(host, remote, tmp_path):
    """A rest put behind other bytes is found out and removed; the call after that ends well."""
    partial = interrupt(host, remote, tmp_path)
    partial.write_bytes(bytes(partial.stat().st_size))

    with pytest.raises(DataError, match="is not the published"):
        fetch(remote, tmp_path, quiet=True)
    assert names_in(tmp_path) == []

    assert fetch(remote, tmp_path, quiet=True).read_bytes() == BODY


@pytest.mark.parametrize("status", [403, 404, 500])
def test_a_refusal_says_what_to_get_where_and_where_to_put_it(host, pair, tmp_path, status):
    """One line names the error, every file that is missing, the page and the folder."""
    host.status = status

    with pytest.raises(DataError) as error:
        download("celeba", tmp_path / "celeba", quiet=True)

    text = message_of(error)
    assert text.startswith(f"cannot fetch one.zip: {status} ")
    assert text.endswith(
        "; try again later, or get one.zip and two.txt by hand from "
        f"https://example.org/home.html and put them into {tmp_path / 'celeba'}"
    )
    assert len(host.seen) == 1
    assert names_in(tmp_path / "celeba") == []
    assert all(remote.name in text for remote in pair)


def test_a_refusal_names_only_what_is_missing(host, pair, tmp_path):
    """What is there already, or came before the refusal, need not be got by hand."""
    del host.bodies["/two.txt"]

    with pytest.raises(DataError, match=r"cannot fetch two\.txt: 404 ") as error:
        download("celeba", tmp_path, quiet=True)

    assert "one.zip" not in message_of(error)
    assert names_in(tmp_path) == [pair[0].name]


def test_a_host_that_is_not_there_is_a_refusal(host, remote, tmp_path):
    """A refused connection is reported like a refusal, after the retries."""
    host.leave()

    with pytest.raises(DataError, match=r"cannot fetch file\.bin: .*Connection refused") as error:
        fetch(remote, tmp_path, quiet=True)

    assert "after 5 retries" in message_of(error)
    assert "by hand from https://example.org/home.html" in message_of(error)


@pytest.mark.usefixtures("_no_retries")
def test_a_host_that_falls_silent_is_a_refusal(host, remote, tmp_path, monkeypatch):
    """A connection on which nothing comes any more is given up, what came is kept."""
    monkeypatch.setattr(downloads, "_TIMEOUT", 0.2)
    host.cuts = [PIECE + 1000]
    host.halfway = lambda: None

    with pytest.raises(DataError, match=r"cannot fetch file\.bin: .*timed out"):
        fetch(remote, tmp_path, quiet=True)

    assert [path.stat().st_size >= PIECE for path in tmp_path.iterdir()] == [True]


def test_google_drive_sends_a_file_and_no_cookie_is_kept(host, drive, tmp_path, monkeypatch):
    """The page before a large file is passed, the name is ours, and no cookies are written."""
    cookies = tmp_path / "cookies.txt"
    monkeypatch.setattr(sys.modules["gdown.download"], "DEFAULT_COOKIES_FILE", str(cookies))
    host.bodies = {"/uc?id=asked": SCAN_PAGE, "/download?id=scanned&confirm=t": BODY}

    path = fetch(drive, tmp_path / "data", quiet=True)

    assert path.read_bytes() == BODY
    assert names_in(tmp_path / "data") == ["file.bin"]
    assert len(host.seen) == 2
    assert not cookies.exists()


def test_google_drives_quota_is_a_refusal_that_leaves_the_partial_file(
    host, drive, tmp_path, monkeypatch
):
    """The message has Google's own words; what has arrived earlier waits for another day."""
    host.bodies = {"/uc?id=asked": BODY}
    with monkeypatch.context() as patch:
        patch.setattr(downloads, "_RETRIES", 0)
        partial = interrupt(host, drive, tmp_path)
    host.bodies = {"/uc?id=asked": QUOTA_PAGE}

    with pytest.raises(DataError) as error:
        fetch(drive, tmp_path, quiet=True)

    assert message_of(error) == (
        "cannot fetch file.bin: Too many users have viewed or downloaded this file recently; "
        "try again later, or get file.bin by hand from https://example.org/home.html "
        f"and put it into {tmp_path}"
    )
    assert names_in(tmp_path) == [partial.name]


def test_a_page_that_gdown_does_not_know_is_a_refusal(host, drive, tmp_path):
    """An unknown page of Google Drive ends in one line, without gdown's own advice."""
    host.bodies = {"/uc?id=asked": "<html>Sign in</html>"}

    with pytest.raises(DataError, match="Cannot retrieve the public link of the file") as error:
        fetch(drive, tmp_path, quiet=True)

    assert "But Gdown can't" not in message_of(error)
    assert names_in(tmp_path) == []


def test_a_folder_that_cannot_be_made_is_an_error_of_the_output(host, remote, tmp_path):
    """Below a file there is no folder: the error names the file, and the host hears nothing."""
    (tmp_path / "taken").write_bytes(b"")
    folder = tmp_path / "taken" / "folder"

    with pytest.raises(OutputError, match="Not a directory; make room or choose") as error:
        fetch(remote, folder, quiet=True)

    assert message_of(error).startswith(f"cannot write {folder / 'file.bin'}: ")
    assert host.seen == []


def test_a_full_disk_is_an_error_of_the_output_and_can_be_resumed(remote, tmp_path):
    """When no more can be written the error names the file; with room the next call goes on."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (PIECE + 1000, before[1]))
    try:
        with pytest.raises(OutputError, match="File too large; make room") as error:
            fetch(remote, tmp_path, quiet=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert message_of(error).startswith(f"cannot write {tmp_path / 'file.bin'}: ")
    assert [name == "file.bin" for name in names_in(tmp_path)] == [False]

    assert fetch(remote, tmp_path, quiet=True).read_bytes() == BODY


@POSIX
def test_ctrl_c_passes_and_the_next_call_resumes(host, remote, tmp_path):
    """A signal in the middle of a file ends the call as it is; what has arrived is of use."""

    def stop_when_a_piece_is_written():
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if any(path.stat().st_size >= PIECE for path in tmp_path.iterdir()):
                break
            time.sleep(0.005)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    host.cuts = [PIECE + 1000]
    host.halfway = stop_when_a_piece_is_written
    with pytest.raises(KeyboardInterrupt):
        fetch(remote, tmp_path, quiet=True)
    (partial,) = tmp_path.iterdir()
    have = partial.stat().st_size
    assert partial.name != "file.bin"
    assert have >= PIECE

    assert fetch(remote, tmp_path, quiet=True).read_bytes() == BODY
    assert host.seen[-1] == ("/file.bin", f"bytes={have}-", len(BODY) - have)


def test_download_fetches_all_files_of_a_data_set_in_order(host, pair, tmp_path):
    """Both files of CelebA are fetched, the first one first, into a new folder."""
    folder = tmp_path / "new"

    paths = download("celeba", folder, quiet=True)

    assert paths == [folder / "one.zip", folder / "two.txt"]
    assert [path.read_bytes() for path in paths] == [BODY[:1000], BODY[1000:1200]]
    assert [path for path, _, _ in host.seen] == ["/one.zip", "/two.txt"]
    assert names_in(folder) == [remote.name for remote in pair]


def test_download_skips_what_is_there(host, pair, tmp_path):
    """Of two files one is there: the other is fetched, and the user is told of the first."""
    (tmp_path / "one.zip").write_bytes(BODY[:1000])
    told = []

    paths = download("celeba", tmp_path, quiet=True, notice=told.append)

    assert [path.name for path in paths] == [remote.name for remote in pair]
    assert [path for path, _, _ in host.seen] == ["/two.txt"]
    assert told == [f"{tmp_path / 'one.zip'} is already there"]


@pytest.mark.usefixtures("pair")
def test_download_checks_what_is_there_before_it_fetches(host, tmp_path):
    """A wrong second file is found before the first one is fetched."""
    (tmp_path / "two.txt").write_bytes(b"mine")

    with pytest.raises(DataError, match=r"two\.txt is not the published file"):
        download("celeba", tmp_path, quiet=True)

    assert host.seen == []
    assert names_in(tmp_path) == ["two.txt"]


def test_download_refuses_a_data_set_that_it_does_not_know(tmp_path):
    """The error names what was asked for and what there is."""
    with pytest.raises(UsageError, match="data set cifar cannot be fetched; choose celeba or stl"):
        download("cifar", tmp_path)


def test_a_quiet_download_prints_nothing(host, remote, tmp_path, capfd):
    """Neither a retry nor a resumed download makes a sound."""
    host.cuts = [PIECE + 1000] * (downloads._RETRIES + 1)
    host.bodies["/file.bin"] = BODY * 4
    with pytest.raises(DataError):
        fetch(remote, tmp_path, quiet=True)
    host.bodies["/file.bin"] = BODY
    with suppress(DataError):
        fetch(remote, tmp_path, quiet=True)
    fetch(remote, tmp_path, quiet=True)

    assert capfd.readouterr() == ("", "")


def test_a_download_shows_a_bar_and_where_the_file_goes(remote, tmp_path, capfd):
    """On stderr stand the URL, the final path and a bar that ends at 100%; stdout is clean."""
    fetch(remote, tmp_path)

    out, err = capfd.readouterr()
    assert out == ""
    assert err.splitlines()[:2] == [f"From: {remote.url}", f"To: {tmp_path / 'file.bin'}"]
    assert "100%|" in err
    assert err.endswith("B/s]\n")
