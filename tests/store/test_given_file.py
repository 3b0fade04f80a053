"""Files of users are looked at before they are opened: nothing hangs, and a pointer is called one."""

import os

import pytest
import torch

from neuronx.data.files import lines
from neuronx.data.folder import read_hierarchy
from neuronx.data.probe import splits_of
from neuronx.errors import UserError
from neuronx.methods.milan.published import read_published
from neuronx.recording.fit import read_checkpoint
from neuronx.tables.csv import read_csv
from neuronx.targets import custom, dictionary
from neuronx.targets.weights import load_weights

READERS = {
    "weights": load_weights,
    "dictionary": dictionary.load,
    "captioner": read_published,
    "checkpoint": read_checkpoint,
    "class names": custom.class_names_of,
    "list": lines,
    "table": read_csv,
    "hierarchy": lambda path: read_hierarchy(path, ["cat"], ["cat"]),
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
@pytest.mark.parametrize("ending", ["pt", "safetensors", "csv"])
def test_a_pointer_of_git_lfs_is_called_that(tmp_path, read, ending):
    path = tmp_path / f"file.{ending}"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 45\n")
    with pytest.raises(UserError, match=r"file\.\w+ is a git-lfs pointer.*git lfs pull"):
        read(path)


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_pipes_devices_and_the_systems_files_do_not_hang(tmp_path, read):
    os.mkfifo(tmp_path / "pipe.csv")
    for path in (tmp_path / "pipe.csv", "/dev/zero", "/proc/kmsg", "/proc/self/mem"):
        with pytest.raises(UserError, match=r"pipe|device|empty|system|There is no file"):
            read(path)


def test_splits_that_are_pointers(tmp_path):
    for part in ("train", "val"):
        torch.save(torch.tensor([0]), tmp_path / f"{part}_ids.pt")
    (tmp_path / "test_ids.pt").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(UserError, match=r"test_ids\.pt is a git-lfs pointer"):
        splits_of(tmp_path, 3, "x")


def test_a_network_has_a_name_that_files_can_have():
    with pytest.raises(UserError, match=r"cannot be called `\.\.`"):
        custom.load(torch.nn.Conv2d(3, 2, 3), transform=None, name="..")
