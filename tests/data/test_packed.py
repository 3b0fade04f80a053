"""Pictures in zips, tar shards, parquet tables and saved data sets are those of the folder that they were made of."""

import json
import sys
import zipfile

import numpy as np
import pytest
from packed_pictures import encoded, write_parquet, write_saved, write_tar, write_zip
from pictures import class_folders, picture

from neuronx.data.folder import FolderProbe
from neuronx.data.packed import huggingface, parquet, webdataset, zipped
from neuronx.errors import UserError


def same(probe, row, index):
    return np.array_equal(np.asarray(probe.load([row])[0]), np.asarray(picture(index)))


@pytest.mark.parametrize("top", ["", "pets/"])
def test_a_zip_is_the_folder_that_it_was_made_of(tmp_path, own_cache, top):
    root = class_folders(tmp_path / "pets", {"cat": 6, "dog": 5})
    (root / "__MACOSX").mkdir()
    (root / "__MACOSX" / "._a.png").write_bytes(b"nothing")
    path = write_zip(tmp_path / "pets.zip", root, top)
    before = path.read_bytes()
    probe, folder = zipped(path, num_workers=0), FolderProbe(root)
    assert probe.name == "pets" and probe.class_names == folder.class_names == ("cat", "dog")
    assert probe.fingerprint == folder.fingerprint and probe.labels.tolist() == folder.labels.tolist()
    assert same(probe, 3, 3) and probe.image_name(0) == folder.image_name(0)
    assert zipped(path).paths == probe.paths and path.read_bytes() == before


def test_parts_of_a_zip_are_asked_about(tmp_path, own_cache):
    for part in ("train", "val"):
        class_folders(tmp_path / "all" / part, {"cat": 3, "dog": 3})
    path = write_zip(tmp_path / "all.zip", tmp_path / "all")
    with pytest.raises(UserError, match=r"all\.zip holds the parts.*such as data\.inside=train"):
        zipped(path)
    assert zipped(path, inside="val").class_names == ("cat", "dog")
    for wrong in ("test", "../.."):
        with pytest.raises(UserError, match="There is no folder"):
            zipped(path, inside=wrong)


def test_a_zip_never_writes_beside_its_folder(tmp_path, own_cache):
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        for name in ("../../out.png", "/abs.png", "cat/in.png"):
            archive.writestr(name, encoded(0))
    probe = zipped(tmp_path / "evil.zip", max_unreadable=0)
    written = [path for path in tmp_path.rglob("*.png")]
    assert len(written) == 3 and all(path.is_relative_to(probe.root) for path in written)
    assert not (tmp_path.parent / "out.png").exists()


def test_shards_of_webdataset(tmp_path, own_cache):
    for shard in range(2):
        write_tar(tmp_path / f"part-{shard}.tar", 6, 6 * shard, folder="a.b/")
    (tmp_path / "classnames.txt").write_text("cat\ndog\ncow\n")
    for root in (tmp_path, tmp_path / "part-*.tar"):
        probe = webdataset(root, num_workers=0)
        assert len(probe) == 12 and probe.labels.tolist() == [i % 3 for i in range(12)] and same(probe, 7, 7)
        assert probe.class_names == ("cat", "dog", "cow") and probe.image_name(7) == "00001/000007.png"
    one = webdataset(tmp_path / "part-1.tar", class_names=["x", "y", "z"])
    assert one.name == "part-1" and one.class_names == ("x", "y", "z") and same(one, 0, 6)


TARGETS = {
    "numbers": (lambda i: ("cls", str(i % 2).encode()), ("class 0", "class 1")),
    "names": (lambda i: ("cls", b"dog" if i % 2 else b"cat"), ("cat", "dog")),
    "json": (lambda i: ("json", json.dumps({"id": i, "label": i % 2}).encode()), ("class 0", "class 1")),
    "captions beside": (lambda i: ("txt", b"a picture"), ()),
    "nothing": (lambda i: None, ()),
}


@pytest.mark.parametrize("kind", TARGETS)
def test_targets_of_shards(tmp_path, own_cache, kind):
    target, names = TARGETS[kind]
    probe = webdataset(write_tar(tmp_path / "a.tar", 10, target=target))
    assert probe.class_names == names and (probe.labels is None) == (not names)
    assert not names or probe.labels.tolist() == [i % 2 for i in range(10)]


def test_several_labels_in_shards(tmp_path, own_cache):
    shard = write_tar(tmp_path / "a.tar", 10, target=lambda i: ("json", json.dumps({"labels": [i % 2, 1]}).encode()))
    probe = webdataset(shard)
    assert probe.labels is None and probe.label_sets.int().tolist() == [[i % 2, 1] for i in range(10)]


def test_what_is_wrong_is_said_with_the_file(tmp_path, own_cache, monkeypatch):
    (tmp_path / "a.zip").write_bytes(b"PK nothing")
    (tmp_path / "a.tar").write_bytes(b"nothing at all")
    with pytest.raises(UserError, match=r"a\.zip cannot be unpacked: it is no zip"):
        zipped(tmp_path / "a.zip")
    with pytest.raises(UserError, match=r"a\.tar is no tar file"):
        webdataset(tmp_path / "a.tar")
    for read, ending in ((zipped, "zip"), (webdataset, "tar")):
        with pytest.raises(UserError, match=rf"no \.{ending} file at .*nowhere"):
            read(tmp_path / "nowhere")
        with pytest.raises(UserError, match="Say where the pictures are"):
            read()
    floats = write_tar(tmp_path / "f.tar", 4, target=lambda i: ("json", json.dumps({"label": i + 0.5}).encode()))
    with pytest.raises(UserError, match="no class indices"):
        webdataset(floats)
    with pytest.raises(UserError, match=r"b\.tar, 000000\.json is no JSON"):
        webdataset(write_tar(tmp_path / "b.tar", 2, target=lambda i: ("json", b"{")))
    for library, read, name in (("pyarrow", parquet, "pyarrow"), ("datasets", huggingface, "datasets")):
        monkeypatch.setitem(sys.modules, library, None)
        monkeypatch.setitem(sys.modules, f"{library}.parquet", None)
        with pytest.raises(UserError, match=f"pip install {name}"):
            read(tmp_path)


def test_tables_of_hugging_face(tmp_path, own_cache):
    pytest.importorskip("pyarrow", reason="parquet tables are read with pyarrow")
    probe = parquet(write_parquet(tmp_path / "a.parquet", 12))
    assert probe.class_names == ("cat", "dog", "cow") and probe.labels.tolist() == [i % 3 for i in range(12)]
    assert same(probe, 5, 5)
    other = write_parquet(tmp_path / "b.parquet", 12, column="scan")
    assert len(parquet(other, image="scan")) == 12
    with pytest.raises(UserError, match=r"no column `image`; it has scan, label: data\.image=COLUMN"):
        parquet(other)


def test_saved_data_sets_of_hugging_face(tmp_path, own_cache):
    pytest.importorskip("datasets", reason="data sets of Hugging Face are read by their library")
    probe = huggingface(write_saved(tmp_path / "saved", 12))
    assert probe.class_names == ("cat", "dog", "cow") and probe.labels.tolist() == [i % 3 for i in range(12)]
    assert same(probe, 5, 5)
