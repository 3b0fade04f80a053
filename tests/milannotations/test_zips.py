"""Published zips from a server of our own: whole, cut short, dangerous, resumed."""

import io
import stat
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from model_folders import make_model

from neuronx.errors import UserError
from neuronx.milannotations import download, load
from neuronx.milannotations import published as zips

KEY = "alexnet/imagenet"


class Server(BaseHTTPRequestHandler):
    """Serves `data` under any name that ends in .zip, with ranges, `most` bytes at a time; `sized` says how many."""

    data = b""
    most: int | None = None
    sized = True
    asked: list[str | None] = []

    def do_GET(self):
        wanted = self.headers.get("Range")
        self.asked.append(wanted)
        if not self.path.endswith("/alexnet-imagenet.zip"):
            return self.send_error(404, "Not Found")
        body = self.data[int(wanted[6:-1]) if wanted else 0 :]
        self.send_response(206 if wanted else 200)
        if self.sized:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.most])
        return None

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    Server.data, Server.most, Server.sized, Server.asked = b"", None, True, []
    made = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{made.server_port}/data"
    made.shutdown()


def zipped(folder, extra=()) -> bytes:
    """As their authors zipped them: without a folder at the top."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(folder))
        for entry, content in extra:
            archive.writestr(entry, content)
    return file.getvalue()


@pytest.fixture
def model(tmp_path):
    return make_model(tmp_path / "theirs", {"conv1": 2, "conv2": 3})


def left(root):
    """Everything but locks."""
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file() and path.suffix != ".lock")


def test_a_model_is_fetched_unpacked_and_loaded(server, model, tmp_path):
    Server.data = zipped(model)
    found = load(KEY, tmp_path / "ours", download=True, host=server)
    assert len(found) == 5 and left(tmp_path / "ours" / KEY) == left(model)
    for path in left(model):
        assert (tmp_path / "ours" / KEY / path).read_bytes() == (model / path).read_bytes()
    assert not list((tmp_path / "ours").glob("alexnet-imagenet.zip*")), "the zip is not needed any more"
    assert stat.S_IMODE((tmp_path / "ours" / KEY).stat().st_mode) == 0o755
    load(KEY, tmp_path / "ours", download=True, host=server)
    assert Server.asked == [None]


def test_it_goes_on_where_it_broke_off(server, model, tmp_path):
    Server.data = zipped(model)
    Server.most = len(Server.data) // 5
    with pytest.raises(UserError, match="broke off 3 times; run again to go on"):
        download(KEY, tmp_path, server)
    assert not (tmp_path / KEY).exists()
    Server.most = None
    assert left(download(KEY, tmp_path, server)) == left(model)
    assert Server.asked[0] is None and all(Server.asked[1:])


def test_a_zip_that_was_put_there_is_unpacked_and_stays(server, model, tmp_path):
    (tmp_path / "alexnet-imagenet.zip").write_bytes(zipped(model))
    assert left(download(KEY, tmp_path, server)) == left(model)
    assert Server.asked == [] and (tmp_path / "alexnet-imagenet.zip").exists()


def test_an_empty_folder_of_an_earlier_failure_is_in_nobodys_way(server, model, tmp_path):
    Server.data = zipped(model)
    (tmp_path / KEY).mkdir(parents=True)
    assert left(download(KEY, tmp_path, server)) == left(model)
    other = tmp_path / "other"
    (other / KEY).mkdir(parents=True)
    (other / KEY / "notes.txt").write_text("of mine")
    with pytest.raises(UserError, match=r"is there, but holds no layers; move it away"):
        download(KEY, other, server)


def test_what_a_killed_process_left_is_cleared_away(server, model, tmp_path):
    Server.data = zipped(model)
    (tmp_path / "alexnet" / ".imagenet.abc" / "conv1").mkdir(parents=True)
    (tmp_path / "alexnet" / ".imagenet-blurred.abc").mkdir()
    download(KEY, tmp_path, server)
    assert {path.name for path in (tmp_path / "alexnet").iterdir() if path.is_dir()} == {
        "imagenet",
        ".imagenet-blurred.abc",
    }


def link():
    entry = zipfile.ZipInfo("conv1/link")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    return entry


BAD = {
    r"has a path outside its folder, `'\.\./evil'`": lambda model: zipped(model, [("../evil", b"x")]),
    r"has a path outside its folder, `'/evil'`": lambda model: zipped(model, [("/evil", b"x")]),
    r"has a path outside its folder, `'conv1/\.\./\.\./\.\./evil'`": lambda model: zipped(
        model, [("conv1/../../../evil", b"x")]
    ),
    r"has a path outside its folder, `'conv1.*evil'`": lambda model: zipped(model, [("conv1\\..\\..\\evil", b"x")]),
    r"has a path outside its folder, `'C:evil'`": lambda model: zipped(model, [("C:evil", b"x")]),
    r"no file, such as a link: conv1/link": lambda model: zipped(model, [(link(), b"../../../../evil")]),
    r"holds a path twice: conv1/masks.npy": lambda model: zipped(model, [("conv1/masks.npy", b"other")]),
    r"holds a path twice: conv1/masks.npy.?$": lambda model: zipped(model, [("conv1/masks.npy/x", b"other")]),
    r"holds no layers": lambda model: zipped(model.parent),
    r"is no zip, cut short or damaged": lambda model: b"<html>moved</html>",
    r"is no zip, cut short or damaged \(Bad CRC": lambda model: damaged(zipped_plain(model)),
}


def zipped_plain(folder) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.write(folder / "conv1" / "images.npy", "conv1/images.npy")
    return file.getvalue()


def damaged(data: bytes) -> bytes:
    return data[:300] + bytes([data[300] ^ 1]) + data[301:]


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("message", BAD)
def test_a_bad_zip_leaves_nothing(server, model, tmp_path, message):
    Server.data = BAD[message](model)
    with pytest.raises(UserError, match=message):
        download(KEY, tmp_path / "deep" / "ours", server)
    assert left(tmp_path / "deep") == []
    assert not (tmp_path / "deep" / "ours" / KEY).exists()
    Server.data = zipped(model)
    assert left(download(KEY, tmp_path / "deep" / "ours", server)) == left(model)


def test_a_zip_cut_short_is_an_error_even_if_the_server_does_not_say_how_long_it_is(server, model, tmp_path):
    Server.data, Server.sized = zipped(model)[:-400], False
    with pytest.raises(
        UserError, match=r"alexnet-imagenet.zip is no zip, cut short or damaged .*; delete it and fetch"
    ):
        download(KEY, tmp_path / "ours", server)
    assert left(tmp_path / "ours") == []


def test_a_full_disk_is_said_before_and_the_zip_kept(server, model, tmp_path, monkeypatch):
    Server.data = zipped(model)
    monkeypatch.setattr(zips.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10})())
    with pytest.raises(UserError, match=r"takes 0.0 GB unpacked, and .*alexnet has 0.0 GB left"):
        download(KEY, tmp_path / "ours", server)
    assert left(tmp_path / "ours") == ["alexnet-imagenet.zip"]


def test_no_network_says_what_else_to_do(server, tmp_path):
    with pytest.raises(UserError, match=r"biggan-places365.zip answers 404 .*put the file at .*biggan-places365.zip"):
        download("biggan/places365", tmp_path, server)
    with pytest.raises(UserError, match=r"There is no published model `vgg16/imagenet`. Nearest: "):
        download("vgg16/imagenet", tmp_path, server)
    assert left(tmp_path) == [] and not (tmp_path / "biggan" / "places365").exists()


def test_arrays_are_whole_after_the_journey(server, model, tmp_path):
    Server.data = zipped(model)
    folder = download(KEY, tmp_path, server)
    assert np.array_equal(np.load(folder / "conv2" / "masks.npy"), np.load(model / "conv2" / "masks.npy"))
