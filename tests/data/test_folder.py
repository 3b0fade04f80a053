"""Folders of images: order, labels, names, hierarchies, and everything that can be wrong with them."""

import json
import logging
import os

import pytest
import torch
from pictures import class_folders, picture
from torchvision.datasets import ImageFolder

from neuronx.data.folder import FolderProbe
from neuronx.errors import UserError
from neuronx.targets.preprocess import Preprocess


@pytest.fixture
def root(tmp_path):
    return class_folders(tmp_path / "zoo", {"cat": 7, "ant": 6, "bee": 7})


def test_order_and_labels_are_those_of_image_folder(root):
    class_folders(root / "ant" / "deeper", {"b": 2, "a": 1}, "jpg")
    (root / "ant" / "notes.txt").write_text("no picture")
    probe, reference = FolderProbe(root), ImageFolder(root)
    assert [str(root / path) for path in probe.paths] == [path for path, _ in reference.samples]
    assert probe.labels.tolist() == reference.targets
    assert list(probe.class_names) == reference.classes
    assert probe.name == "zoo" and probe.domain == "natural" and probe.image_name(0).startswith("ant")


def test_pictures_are_rgb_and_come_in_order(root):
    picture(99).convert("L").save(root / "cat" / "grey.png")
    probe = FolderProbe(root, num_workers=0)
    last = probe.load([len(probe) - 1])[0]
    assert last.mode == "RGB"
    images, rows = zip(*probe.loader(Preprocess(), batch_size=8), strict=True)
    assert torch.cat(rows).tolist() == list(range(21))
    assert torch.cat(images).shape == (21, 3, 12, 12)


def test_a_flat_folder_has_no_labels(tmp_path):
    for i in range(3):
        picture(i).save(tmp_path / f"{i}.png")
    (tmp_path / "empty").mkdir()
    probe = FolderProbe(tmp_path)
    assert len(probe) == 3 and probe.labels is None and probe.class_names == ()


def test_splits_are_seeded_70_10_20(root):
    probe = FolderProbe(root, splits=3)
    assert [len(probe.splits[name]) for name in ("train", "val", "test")] == [14, 2, 4]
    assert torch.cat(list(probe.splits.values())).sort().values.tolist() == list(range(20))
    assert all(torch.equal(probe.splits[k], v) for k, v in FolderProbe(root, splits=3).splits.items())
    assert not torch.equal(probe.splits["test"], FolderProbe(root, splits=4).splits["test"])


def test_broken_images_are_named_counted_and_skipped(root, caplog):
    good = FolderProbe(root)
    (root / "bee" / "aaa.jpg").write_bytes(b"not a picture")
    whole = (root / "bee" / "000.png").read_bytes()
    (root / "bee" / "zzz.png").write_bytes(whole[: len(whole) // 2])
    shown = r"bee/aaa.jpg \(is no picture\), bee/zzz.png \(is damaged or cut short\)"
    with pytest.raises(UserError, match=rf"2 of 22 images of `zoo` do not decode: {shown}.*0.01"):
        FolderProbe(root)
    with caplog.at_level(logging.WARNING):
        probe = FolderProbe(root, max_unreadable=0.1)
    assert "bee/aaa.jpg" in caplog.text
    assert probe.paths == good.paths and probe.fingerprint == good.fingerprint
    assert torch.equal(probe.labels, good.labels)


def test_truncated_jpegs_are_found(tmp_path):
    for i in range(4):
        picture(i, 64).save(tmp_path / f"{i}.jpg")
    data = (tmp_path / "2.jpg").read_bytes()
    (tmp_path / "2.jpg").write_bytes(data[: len(data) * 2 // 3])
    probe = FolderProbe(tmp_path, max_unreadable=0.5)
    assert probe.paths == ["0.jpg", "1.jpg", "3.jpg"]


def test_all_broken_is_an_error_whatever_the_share(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"")
    with pytest.raises(UserError, match="1 of 1"):
        FolderProbe(tmp_path, max_unreadable=1.0)


def test_published_ids_count_the_images_that_are_skipped(root, tmp_path):
    (root / "ant" / "003.png").write_bytes(b"broken")
    ids = tmp_path / "ids"
    ids.mkdir()
    for name, part in {"train": range(0, 10), "val": range(10, 12), "test": range(12, 20)}.items():
        torch.save(torch.tensor(list(part)), ids / f"{name}_ids.pt")
    probe = FolderProbe(root, splits=ids, max_unreadable=0.1)
    names = [probe.image_name(row) for row in probe.splits["test"].tolist()]
    assert names == FolderProbe(root, max_unreadable=0.1).paths[11:]
    assert len(probe.splits["train"]) == 9


def test_the_fingerprint_is_of_the_bytes_in_order(root, tmp_path):
    probe = FolderProbe(root)
    moved = tmp_path / "elsewhere"
    root.rename(moved)
    assert FolderProbe(moved).fingerprint == probe.fingerprint
    file = moved / "cat" / "006.png"
    stat = file.stat()
    size = len(file.read_bytes())
    picture(1234).save(file)
    changed = file.read_bytes().ljust(size, b"\0")[: max(size, file.stat().st_size)]
    file.write_bytes(changed)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert FolderProbe(moved).fingerprint != probe.fingerprint, "an edit that keeps the time must be noticed"


def test_unchanged_files_are_not_read_again(root, monkeypatch):
    first = FolderProbe(root).fingerprint
    monkeypatch.setattr("neuronx.data.files._examine", lambda path: pytest.fail(f"{path} was read again"))
    assert FolderProbe(root).fingerprint == first


def test_class_names_from_a_file_with_any_line_ends(root, tmp_path):
    for number, text in enumerate(
        ("ant one\nbee two\ncat three\n", "ant one\r\nbee two\r\ncat three", "ant one\rbee two\rcat three")
    ):
        path = tmp_path / f"{number}.txt"
        path.write_bytes(text.encode())
        assert FolderProbe(root, class_names=path).class_names == ("ant one", "bee two", "cat three")


@pytest.mark.parametrize(
    ("text", "message"),
    [("a\nb\n", "has 2 names, but `zoo` has 3 classes"), ("a\n\nb\nc\n", "Line 2 of .* is blank")],
)
def test_class_names_that_do_not_fit(root, tmp_path, text, message):
    (tmp_path / "names.txt").write_text(text)
    with pytest.raises(UserError, match=message):
        FolderProbe(root, class_names=tmp_path / "names.txt")


def test_hierarchies_by_index_name_and_folder(root, tmp_path):
    path = tmp_path / "h.json"
    path.write_text(json.dumps({"insects": [0, 1], "pets": ["Tom"], "all": ["ant", "bee", 2, 2]}))
    probe = FolderProbe(root, hierarchy=path, class_names=["Adam", "Bob", "Tom"])
    assert probe.hierarchy == {"insects": (0, 1), "pets": (2,), "all": (0, 1, 2)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": [3]}', "names class 3, but the classes are 0 to 2"),
        ('{"a": ["catt"]}', "no class `catt`. Nearest: cat"),
        ('{"a": 1}', "not of the form"),
        ("[1]", "not of the form"),
        ("{", "is not JSON"),
    ],
)
def test_hierarchies_that_are_wrong(root, tmp_path, text, message):
    (tmp_path / "h.json").write_text(text)
    with pytest.raises(UserError, match=message):
        _ = FolderProbe(root, hierarchy=tmp_path / "h.json").hierarchy


def test_missing_and_empty_roots_say_where_and_how(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"There is no folder .*nowhere.*data\.root=DIR"):
        FolderProbe(tmp_path / "nowhere")
    with pytest.raises(UserError, match="There are no images in"):
        FolderProbe(tmp_path)
    monkeypatch.setenv("NEURONX_DATA", str(tmp_path / "data"))
    with pytest.raises(UserError, match=r"data/zoo \(\$NEURONX_DATA/zoo\)"):
        FolderProbe(name="zoo")


def test_the_real_imagenet_sample(shared):
    sets = shared / "data" / "concept_sets"
    probe = FolderProbe(
        shared / "data" / "imagenet_sample",
        class_names=sets / "imagenet_labels_clean.txt",
        hierarchy=sets / "imagenet_superclass_to_ids.json",
    )
    assert len(probe) == 1000 and probe.labels.tolist() == list(range(1000))
    assert probe.class_names[0] == "tench" and probe.class_names[999] == "toilet paper"
    assert len(probe.hierarchy) == 400


@pytest.mark.parametrize("share", [float("nan"), -0.1, 1.5, float("inf")])
def test_what_is_no_share_of_broken_files_is_refused(tmp_path, share):
    with pytest.raises(UserError, match=f"data.max_unreadable={share}: it is a share, from 0 to 1"):
        FolderProbe(tmp_path, max_unreadable=share)
