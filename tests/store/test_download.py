"""Downloads against a server of our own that breaks off, refuses ranges or is not there."""

import hashlib
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from neuronx.errors import UserError
from neuronx.store import download
from neuronx.store.download import fetch

DATA = bytes(range(256)) * 4000
SHA = hashlib.sha256(DATA).hexdigest()


class Server(BaseHTTPRequestHandler):
    """/file serves DATA with ranges; /breaks sends at most a third of what is left; /plain knows no ranges."""

    asked: list[str | None] = []

    def do_GET(self):
        wanted = self.headers.get("Range")
        self.asked.append(wanted)
        if self.path == "/missing":
            return self.send_error(404, "Not Found")
        if self.path == "/silent":
            time.sleep(3)
            return None
        start = int(wanted[6:-1]) if wanted and self.path != "/plain" else 0
        if start >= len(DATA):
            return self.send_error(416, "Range Not Satisfiable")
        body = DATA[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 3] if self.path == "/breaks" else body)
        return None

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    Server.asked = []
    made = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{made.server_port}"
    made.shutdown()


def test_a_file_is_fetched_checked_and_not_fetched_again(server, tmp_path):
    path = fetch(f"{server}/file", tmp_path / "deep" / "a.bin", size=len(DATA), sha256=SHA[:8])
    assert path.read_bytes() == DATA
    fetch(f"{server}/file", path, size=len(DATA))
    assert Server.asked == [None]


def test_it_goes_on_where_it_broke_off(server, tmp_path):
    path = tmp_path / "a.bin"
    with pytest.raises(UserError, match="broke off 3 times; run again to go on"):
        fetch(f"{server}/breaks", path, sha256=SHA)
    assert not path.exists() and (tmp_path / "a.bin.part").stat().st_size > len(DATA) // 2
    assert fetch(f"{server}/file", path, sha256=SHA).read_bytes() == DATA
    assert all(Server.asked[1:]), "every request after the first asks for the rest only"


def test_a_server_without_ranges_starts_afresh(server, tmp_path):
    (tmp_path / "a.bin.part").write_bytes(b"something old")
    assert fetch(f"{server}/plain", tmp_path / "a.bin", sha256=SHA).read_bytes() == DATA


def test_a_part_longer_than_the_file_starts_afresh(server, tmp_path):
    (tmp_path / "a.bin.part").write_bytes(DATA + b"more")
    assert fetch(f"{server}/file", tmp_path / "a.bin", sha256=SHA).read_bytes() == DATA


@pytest.mark.parametrize("wrong", [{"size": 7}, {"sha256": "00000000"}])
def test_another_file_is_refused_and_deleted(server, tmp_path, wrong):
    with pytest.raises(UserError, match="is not the file expected"):
        fetch(f"{server}/file", tmp_path / "a.bin", **wrong)
    assert not list(tmp_path.glob("a.bin*"))


def test_no_network_fails_at_once_and_says_what_else_to_do(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "CONNECT_SECONDS", 0.2)
    for url in (
        f"{server}/missing",
        f"{server}/silent",
        "http://127.0.0.1:9/x",
        "https://no-such-host.invalid/x",
        "nonsense",
    ):
        start = time.monotonic()
        with pytest.raises(UserError, match=r"put the file at .*a\.bin or set target\.x\.weights=FILE"):
            fetch(url, tmp_path / "a.bin", hint="or set target.x.weights=FILE")
        assert time.monotonic() - start < 2
