"""What other programs leave in folders, links, parts of data sets, and names of numbered folders."""

import os
from pathlib import Path

import pytest
import torch
from pictures import class_folders, picture

from neuronx.data.class_folders import Listing
from neuronx.data.files import open_rgb
from neuronx.data.folder import FolderProbe
from neuronx.data.imagenet import imagenet_val
from neuronx.data.published import FILES
from neuronx.data.walk import pictures_in
from neuronx.errors import UserError


@pytest.fixture
def root(tmp_path):
    return class_folders(tmp_path / "zoo", {"cat": 4, "dog": 4})


def numbered(root, folders):
    """A data set with one picture in each folder."""
    return class_folders(root, dict.fromkeys(folders, 1))


def called(probe):
    return {
        Path(path).parts[0]: probe.class_names[label] for path, label in zip(probe.paths, probe.labels, strict=True)
    }


def test_hidden_files_and_what_programs_leave_are_no_pictures(root):
    before = FolderProbe(root)
    for folder in (
        "cat/.ipynb_checkpoints",
        "__MACOSX/cat",
        ".git/cat",
        "cat/@eaDir/000.png",
        ".hidden",
        "cat/__MACOSX",
    ):
        class_folders(root / folder, {"inner": 2})
        picture(5).save(root / folder / "x.png")
    for name in ("._000.png", ".x.png", "Thumbs.db", "desktop.ini"):
        (root / "cat" / name).write_bytes(b"\0\5\26\7")
    after = FolderProbe(root)
    assert after.paths == before.paths and after.class_names == ("cat", "dog")
    assert len(pictures_in(root / "__MACOSX")) > 0, "a folder that is asked for by name is looked into"


def test_skipped_endings_are_counted_in_one_line(root, caplog):
    for name in ("a.txt", "b.TXT", "c.psd", "noending"):
        (root / "dog" / name).write_text("x")
    FolderProbe(root)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 1 and said[0].startswith(f"4 files in {root} are skipped by their endings: 2 .txt, ")


def test_pictures_beside_class_folders_are_said(root, caplog):
    picture(1).save(root / "loose.png")
    assert len(FolderProbe(root)) == 8 and "1 pictures beside the class folders" in caplog.text


def test_links_are_followed_unless_they_lead_back(root, tmp_path):
    class_folders(tmp_path / "far", {"ant": 3})
    (root / "ant").symlink_to(tmp_path / "far" / "ant")
    (root / "dog" / "more.png").symlink_to(root / "cat" / "000.png")
    probe = FolderProbe(root)
    assert probe.class_names == ("ant", "cat", "dog") and len(probe) == 12
    assert FolderProbe(tmp_path / "zoo" / ".." / "zoo").fingerprint == probe.fingerprint
    (tmp_path / "far" / "ant" / "back").symlink_to(tmp_path / "far")
    with pytest.raises(UserError, match=r"ant/back/ant is a link that leads back to .*zoo/ant"):
        FolderProbe(root)


@pytest.mark.parametrize("target", [".", "..", "../..", "../../.."])
def test_a_link_that_leads_back_is_refused(root, target):
    (root / "cat" / "self").symlink_to(target)
    with pytest.raises(UserError, match=r"zoo/cat/self is a link that leads back to /.*data.root=DIR"):
        FolderProbe(root)


def test_links_to_nowhere_are_unreadable_pictures(root, caplog):
    (root / "cat" / "gone.png").symlink_to(root / "nowhere.png")
    (root / "cat" / "self.png").symlink_to(root / "cat" / "self.png")
    with pytest.raises(UserError, match=r"2 of 10 images .*cat/gone.png \(no such file or directory\)"):
        FolderProbe(root)
    assert len(FolderProbe(root, max_unreadable=0.5)) == 8


def test_pipes_are_refused_and_never_opened(root):
    os.mkfifo(root / "cat" / "pipe.png")
    with pytest.raises(UserError, match=r"cat/pipe.png is a pipe or a device"):
        FolderProbe(root)


def test_folders_called_like_pictures_are_folders(root):
    (root / "cat" / "deep.jpg").mkdir()
    picture(9).save(root / "cat" / "deep.jpg" / "x.png")
    assert len(FolderProbe(root)) == 9


def test_names_that_are_not_utf8_are_refused(root):
    try:
        (root / "caf\udce9").mkdir()
    except OSError:
        pytest.skip("this disk knows UTF-8 only")
    picture(3).save(root / "caf\udce9" / "a.png")
    with pytest.raises(UserError, match=r"is not UTF-8: .*caf"):
        FolderProbe(root)


@pytest.mark.parametrize(
    "parts", [("train", "val"), ("train2017", "val2017"), ("Training", "Testing", "cat"), ("test", "dev")]
)
def test_parts_of_a_data_set_are_asked_about(tmp_path, parts):
    for part in parts:
        class_folders(tmp_path / "all" / part, {"cat": 2, "dog": 2})
    first = min(part for part in parts if part != "cat")
    with pytest.raises(UserError, match=rf"holds the parts of a data set \(.*such as data.root=\S+/all/{first}\."):
        FolderProbe(tmp_path / "all")
    assert FolderProbe(tmp_path / "all" / parts[0]).class_names == ("cat", "dog")


def test_a_class_may_be_called_train(tmp_path):
    class_folders(tmp_path / "traffic", {"car": 2, "train": 2})
    assert FolderProbe(tmp_path / "traffic").class_names == ("car", "train")


def test_a_folder_around_the_class_folders_is_asked_about(tmp_path):
    class_folders(tmp_path / "outer" / "zoo", {"cat": 2, "dog": 2})
    with pytest.raises(UserError, match=r"holds one folder with all pictures, zoo: .*data.root=\S+outer/zoo"):
        FolderProbe(tmp_path / "outer")


@pytest.mark.parametrize("form", ["{}", "{:05d}", "class_{}", "c{}"])
@pytest.mark.parametrize("first", [0, 1])
def test_numbered_folders_have_the_names_of_their_numbers(tmp_path, form, first):
    folders = [form.format(number) for number in range(first, first + 12)]
    names = [f"name {letter}" for letter in "abcdefghijkl"]
    probe = FolderProbe(numbered(tmp_path / "d", folders), class_names=names)
    assert called(probe) == dict(zip(folders, names, strict=True)) and probe.class_names == tuple(names)
    assert [folders[label] for label in probe.labels] == [Path(path).parts[0] for path in probe.paths]
    assert probe.folders == tuple(folders) and probe.paths == sorted(probe.paths)


def test_numbers_decide_the_order_of_classes_without_names(tmp_path, caplog):
    probe = FolderProbe(numbered(tmp_path / "d", map(str, range(12))))
    assert probe.class_names == tuple(map(str, range(12))) and "count as numbers (0, 1, 2, ...)" in caplog.text


def test_gaps_in_the_numbers(tmp_path):
    root = numbered(tmp_path / "zero", ["0", "3", "10"])
    names = [f"n{i}" for i in range(12)]
    probe = FolderProbe(root, class_names=names, hierarchy={"ends": ["0", "n10"]})
    assert called(probe) == {"0": "n0", "3": "n3", "10": "n10"} and sorted(probe.labels.tolist()) == [0, 3, 10]
    assert probe.hierarchy == {"ends": (0, 10)}
    probe = FolderProbe(numbered(tmp_path / "one", ["2", "3", "12"]), class_names=names)
    assert called(probe) == {"2": "n1", "3": "n2", "12": "n11"}


@pytest.mark.parametrize(
    ("folders", "count"),
    [
        (["1", "2", "5"], 9),
        (["0", "1", "2", "4"], 4),
        (["2012", "2015"], 2),
        (["0", "1", "2"], 4),
        (["1", "2"], 1),
        (["c0", "c5"], 3),
    ],
)
def test_lists_that_do_not_fit_the_numbers_are_refused(tmp_path, folders, count):
    root = numbered(tmp_path / "d", folders)
    with pytest.raises(
        UserError, match=rf"class_names has {count} names, but the {len(folders)} class folders of `d` are num"
    ):
        FolderProbe(root, class_names=[f"n{i}" for i in range(count)])


def test_names_by_folder(tmp_path):
    root = class_folders(tmp_path / "d", {"2012": 1, "2015": 1})
    assert called(FolderProbe(root, class_names={2012: "old", "2015": "new"})) == {"2012": "old", "2015": "new"}
    with pytest.raises(UserError, match="class_names has no name for the class folder `2015`"):
        FolderProbe(root, class_names={"2012": "old"})
    with pytest.raises(UserError, match="a name for the class folder `2020`, which `d` does not have"):
        FolderProbe(root, class_names={"2012": "old", "2015": "new", "2020": "x"})


def test_wordnet_ids_are_names_in_their_order(tmp_path):
    root = class_folders(tmp_path / "d", {"n01440764": 2, "n01514859": 2})
    assert FolderProbe(root, class_names=["tench", "hen"]).labels.tolist() == [0, 0, 1, 1]
    with pytest.raises(UserError, match="has 1000 names, but `d` has 2 classes"):
        FolderProbe(root, class_names=[f"n{i}" for i in range(1000)])
    assert imagenet_val(root, hierarchy=None).labels.tolist() == [0, 0, 8, 8]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a", "a"], "class_names has the class `a` twice"),
        (["a", "a "], "class_names has the class `a` twice"),
        (["a", None], "class_names, entry 2: None is no name of a class"),
        (["a", 0.5], "class_names, entry 2: 0.5 is no name"),
        ({"cat": "x", "dog": "x"}, "has the class `x` twice"),
    ],
)
def test_names_that_are_none_or_stand_there_twice(root, names, message):
    with pytest.raises(UserError, match=message):
        FolderProbe(root, class_names=names)


def test_a_published_list_may_have_a_name_twice(shared):
    path = shared / "data" / "concept_sets" / "imagenet_labels_clean.txt"
    probe = FolderProbe(shared / "data" / "imagenet_sample", class_names=path)
    assert probe.class_names.count("missile") == 2 and "classes/imagenet.txt" in FILES
    assert torch.equal(probe.labels, torch.arange(1000))


@pytest.mark.parametrize("given", ["", ["a"], 3])
def test_roots_that_are_no_folders(given):
    with pytest.raises(UserError, match=r"data\.root"):
        FolderProbe(given)


def test_nothing_is_written_to_the_folder_of_the_user(root):
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    probe = FolderProbe(root)
    probe.load(range(len(probe)))
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before
    assert open_rgb(root / "cat" / "000.png").size == (12, 12)


def test_only_folders_are_matched_by_number(tmp_path):
    numbered(tmp_path / "d", ["a", "b"])
    listing = Listing(tmp_path / "d", ["a/000.png", "b/000.png"], [0, 1], ["10", "2"])
    probe = FolderProbe(tmp_path / "d", list_images=lambda _: listing, class_names=["ten", "two"])
    assert probe.labels.tolist() == [0, 1] and probe.class_names == ("ten", "two")
