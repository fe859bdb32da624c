"""Weights from a server that breaks off, a mirror, a folder: whole, checked, or not at all."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from mien.errors import MienError
from mien.jobs.fetch import fetch
from mien.jobs.known import KNOWN, Weights, known, place, weights_path

DATA = bytes(range(256)) * 5000
WEIGHTS = Weights("tiny", "a test", "tiny.bin", "MIT", "yes", None, len(DATA), hashlib.sha256(DATA).hexdigest())


class Server(HTTPServer):
    """Serves `data` as any file; breaks off after `stops` bytes where that is given."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.data, self.stops, self.ranges, self.tag = DATA, 0, True, '"one"'
        self.asked: list[tuple[str, str | None]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/mirror"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server, wanted = self.server, self.headers.get("Range")
        server.asked.append((self.path, wanted))
        if not self.path.endswith("tiny.bin"):
            self.send_error(404)
            return
        same = self.headers.get("If-Range") in (None, server.tag)
        start = int(wanted.split("=")[1].rstrip("-")) if wanted and server.ranges and same else 0
        if start >= len(server.data):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(server.data)}")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(server.data) - start))
        self.send_header("ETag", server.tag)
        self.end_headers()
        stop = start + server.stops if server.stops else len(server.data)
        self.wfile.write(server.data[start:stop])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


def test_a_broken_transfer_goes_on_where_it_was(server: Server, tmp_path: Path) -> None:
    server.stops = 700_000
    with pytest.raises(MienError, match="broke off after 700,000 of 1,280,000 bytes; the same command goes on"):
        fetch(WEIGHTS, server.url, tmp_path, show=False)
    assert not place(WEIGHTS, tmp_path).exists()
    lines: list[str] = []
    path = fetch(WEIGHTS, server.url, tmp_path, tell=lines.append, show=False)
    assert path.read_bytes() == DATA
    assert [wanted for _, wanted in server.asked] == [None, "bytes=700000-"]
    assert lines == [f"tiny: 1.3 MB; MIT; commercial use allowed; from {server.url}/tiny.bin"]
    assert [file.name for file in path.parent.iterdir()] == ["tiny.bin"]
    # It is there: nobody is asked again.
    assert fetch(WEIGHTS, server.url, tmp_path, show=False) == path
    assert len(server.asked) == 2


@pytest.mark.parametrize("change", ["another file", "no ranges"])
def test_what_cannot_be_gone_on_with_begins_anew(server: Server, tmp_path: Path, change: str) -> None:
    server.stops = 700_000
    server.data = bytes(len(DATA)) if change == "another file" else DATA
    with pytest.raises(MienError, match="broke off"):
        fetch(WEIGHTS, server.url, tmp_path, show=False)
    server.stops, server.data, server.tag, server.ranges = 0, DATA, '"two"', change == "another file"
    assert fetch(WEIGHTS, server.url, tmp_path, show=False).read_bytes() == DATA


def test_what_is_not_what_it_should_be_is_not_kept(server: Server, tmp_path: Path) -> None:
    server.data = DATA[:-1] + b"!"
    with pytest.raises(MienError, match=r"is not what it should be: sha256 .* nothing was kept"):
        fetch(WEIGHTS, server.url, tmp_path, show=False)
    assert not any((tmp_path / "tiny").glob("tiny.bin*"))
    with pytest.raises(MienError, match="the server answers 404"):
        fetch(replace(WEIGHTS, file="other.bin"), server.url, tmp_path, show=False)
    with pytest.raises(MienError, match="broke off after 0"):
        fetch(WEIGHTS, "http://127.0.0.1:9/x", tmp_path, show=False)
    with pytest.raises(MienError, match="has no address; name a folder or a mirror"):
        fetch(WEIGHTS, None, tmp_path, show=False)


def test_all_came_but_was_never_checked(server: Server, tmp_path: Path) -> None:
    unsized = replace(WEIGHTS, size=None)
    server.stops = 700_000
    with pytest.raises(MienError):
        fetch(unsized, server.url, tmp_path, show=False)
    part = tmp_path / "tiny" / "tiny.bin.part"
    part.write_bytes(DATA)  # killed after the last byte
    assert fetch(unsized, server.url, tmp_path, show=False).read_bytes() == DATA


def test_without_a_known_hash_the_files_own_is_told(server: Server, tmp_path: Path) -> None:
    lines: list[str] = []
    path = fetch(replace(WEIGHTS, sha256=None), f"{server.url}/tiny.bin", tmp_path, tell=lines.append, show=False)
    assert path.read_bytes() == DATA
    assert hashlib.sha256(DATA).hexdigest() in lines[1]


def test_from_a_folder(tmp_path: Path) -> None:
    (tmp_path / "drive").mkdir()
    (tmp_path / "drive" / "tiny.bin").write_bytes(DATA)
    assert fetch(WEIGHTS, str(tmp_path / "drive"), tmp_path, show=False).read_bytes() == DATA
    with pytest.raises(MienError, match=r"neither a URL nor a folder with tiny\.bin in it"):
        fetch(WEIGHTS, str(tmp_path), tmp_path / "kept", show=False)
    with pytest.raises(MienError, match=r"http://\[::1: neither a folder nor a URL"):
        fetch(WEIGHTS, "http://[::1", tmp_path / "kept", show=False)


def test_the_table_of_known_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len({weights.name for weights in KNOWN}) == len(KNOWN)
    for weights in KNOWN:
        assert weights.terms
        assert weights.sha256 is None or (len(weights.sha256) == 64 and int(weights.sha256, 16) and weights.size)
    with pytest.raises(MienError, match="unknown weights 'yuned'; did you mean 'yunet'"):
        known("yuned")
    with pytest.raises(MienError, match="is a folder of many files; get it from"):
        fetch(known("clip-vit-b-32"), None, tmp_path, show=False)
    monkeypatch.setenv("MIEN_CACHE", str(tmp_path))
    with pytest.raises(MienError, match="not here yet; mien models get yunet fetches them"):
        weights_path("yunet")
    with pytest.raises(MienError, match="no such file of weights, nor a name"):
        weights_path("yuned")
    file = place(known("yunet"))
    file.parent.mkdir(parents=True)
    file.write_bytes(b"x")
    assert weights_path("yunet") == file
    assert weights_path(str(file)) == file


def test_weights_of_unknown_hash_that_are_there_are_not_fetched_again(tmp_path: Path) -> None:
    unknown, told = replace(WEIGHTS, sha256=None, url="http://nowhere.invalid/tiny.bin"), []
    path = place(unknown, tmp_path)
    path.parent.mkdir(parents=True)
    path.write_bytes(DATA)
    assert fetch(unknown, folder=tmp_path, tell=told.append, show=False) == path
    assert "is here already" in told[0]
    assert WEIGHTS.sha256 in told[0]


def test_two_that_fetch_the_same_wait_for_each_other(tmp_path: Path, server: Server) -> None:
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(fetch, WEIGHTS, server.url, folder=tmp_path, show=False) for _ in range(2)]
        assert [one.result().read_bytes() == DATA for one in both] == [True, True]
    assert len(server.asked) == 1
