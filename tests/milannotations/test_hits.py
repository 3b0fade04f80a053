"""The table of tasks, and the pictures that it points to."""

import csv
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
from model_folders import SIDE, K, make_layer
from PIL import Image

from neuronx.errors import UserError
from neuronx.milannotations import join, read, write_hits
from neuronx.milannotations.dataset import Sample
from neuronx.milannotations.hits import pictures, write_pictures


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def units(tmp_path):
    make_layer(tmp_path / "net" / "data" / "conv 1", 1, units=(7,))
    make_layer(tmp_path / "net" / "data" / "0", 1)
    return read(tmp_path / "net" / "data")


def test_a_row_for_each_unit(units, tmp_path):
    path = write_hits(tmp_path / "hits.csv", units, "https://here.org/m/", "net/data", k=4)
    header, *rows = list(csv.reader(path.open(newline="")))
    assert header == ["layer", "unit", "image_url_1", "image_url_2", "image_url_3", "image_url_4"]
    start = "https://here.org/m/net/data"
    assert rows[0] == ["0", "0", *(f"{start}/0/unit_0/image_{i}.png" for i in range(K)), ""]
    assert rows[1] == ["conv 1", "7", *(f"{start}/conv%201/unit_7/image_{i}.png" for i in range(K)), ""]
    few = list(csv.reader(write_hits(tmp_path / "few.csv", units, "http://x", "d", k=1).open(newline="")))
    assert few[1] == ["0", "0", "http://x/d/0/unit_0/image_0.png"]


def test_the_pictures_are_where_the_table_says(units, tmp_path):
    folder = write_pictures(tmp_path / "www", units, "net")
    assert folder == tmp_path / "www" / "net"
    made = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "www")))
    threading.Thread(target=made.serve_forever, daemon=True).start()
    try:
        host = f"http://127.0.0.1:{made.server_port}"
        assert write_hits(tmp_path / "hits.csv", units, host, "net", check=True).exists()
        (folder / "conv 1" / "unit_7" / "image_2.png").unlink()
        message = rf"1 of 6 pictures are not there; the first, {host}/net/conv%201/unit_7/image_2.png: 404"
        with pytest.raises(UserError, match=message):
            write_hits(tmp_path / "none.csv", units, host, "net", check=True)
    finally:
        made.shutdown()
    assert not (tmp_path / "none.csv").exists()
    with pytest.raises(UserError, match=r"6 of 6 pictures are not there; the first, nonsense/net/0/unit_0/image_0.png"):
        write_hits(tmp_path / "none.csv", units, "nonsense", "net", check=True)
    sample = units.lookup("conv 1", 7)
    shown = np.asarray(Image.open(folder / "conv 1" / "unit_7" / "image_1.png")).transpose(2, 0, 1)
    inside = np.broadcast_to(sample.masks[1].numpy().astype(bool), (3, SIDE, SIDE))
    assert np.array_equal(shown[inside], sample.images[1].numpy()[inside])
    assert np.array_equal(shown[~inside], sample.images[1].numpy()[~inside] // 4)


def test_mistakes_are_named(units, tmp_path):
    make_layer(tmp_path / "x" / "y" / "a")
    with pytest.raises(UserError, match="one model, not of net/data, x/y"):
        write_hits(tmp_path / "hits.csv", join([units, read(tmp_path / "x" / "y")]), "http://x", "d")
    with pytest.raises(UserError, match="at least 1 image, not 0"):
        write_hits(tmp_path / "hits.csv", units, "http://x", "d", k=0)


@pytest.mark.parametrize(("opacity", "outside"), [(0.75, 50), (0, 200), (1, 0)])
def test_what_is_outside_the_masks_is_darker(opacity, outside):
    masks = torch.zeros(3, 1, 6, 8, dtype=torch.uint8)
    masks[1, :, :3] = 1
    sample = Sample("net/data", "a", 0, torch.full((3, 3, 6, 8), 200, dtype=torch.uint8), masks)
    shown = [np.asarray(picture) for picture in pictures(sample, opacity)]
    assert [picture.shape for picture in shown] == [(6, 8, 3)] * 3
    assert (shown[1][:3] == 200).all() and (shown[1][3:] == outside).all() and (shown[0] == outside).all()
    with pytest.raises(UserError, match=r"is in \[0, 1\], not 1.5"):
        pictures(sample, 1.5)
