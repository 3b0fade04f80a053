"""Splits: seeded, or read from id files that may be wrong."""

import pickle

import pytest
import torch

from neuronx.data.probe import splits_of
from neuronx.errors import UserError


def write(folder, **parts):
    folder.mkdir(exist_ok=True)
    for name, ids in parts.items():
        torch.save(ids if isinstance(ids, torch.Tensor) else torch.tensor(ids), folder / f"{name}_ids.pt")
    return folder


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("imagenet_val", (35000, 5000, 10000)),
        ("places365_val", (25550, 3650, 7300)),
        ("cifar100_val", (7000, 1000, 2000)),
    ],
)
def test_published_splits_load(shared, name, sizes):
    folder = shared / "data/published/linear_explanations/data_splits" / name
    splits = splits_of(folder, sum(sizes), name)
    assert tuple(len(splits[part]) for part in ("train", "val", "test")) == sizes
    assert torch.cat(list(splits.values())).sort().values.equal(torch.arange(sum(sizes)))


def test_published_by_name_looks_in_the_data_folder(shared, monkeypatch, tmp_path):
    splits = shared / "data/published/linear_explanations/data_splits"
    (tmp_path / "splits").symlink_to(splits)
    monkeypatch.setenv("NEURONX_DATA", str(tmp_path))
    assert len(splits_of("published", 10000, "cifar100_val")["test"]) == 2000


def test_rows_skip_what_was_not_kept(tmp_path):
    folder = write(tmp_path, train=[0, 1], val=[2, 3], test=[4, 5])
    splits = splits_of(folder, 6, "x", kept=torch.tensor([0, 2, 3, 5]))
    assert {k: v.tolist() for k, v in splits.items()} == {"train": [0], "val": [1, 2], "test": [3]}


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"train": [0, 1], "val": [1], "test": [2]}, "overlap"),
        ({"train": [0, 0], "val": [1], "test": [2]}, "overlap"),
        ({"train": [0, 7], "val": [1], "test": [2]}, r"names images 0 to 7, but `x` has 3 \(0 to 2\)"),
        ({"train": [-1], "val": [1], "test": [2]}, "names images -1"),
        ({"train": [0], "val": [1]}, "There is no split file .*test_ids.pt"),
        ({"train": torch.tensor([0.5]), "val": [1], "test": [2]}, "not a 1-D int64 tensor"),
        ({"train": torch.tensor([[0]]), "val": [1], "test": [2]}, "not a 1-D int64 tensor"),
    ],
)
def test_wrong_ids(tmp_path, parts, message):
    with pytest.raises(UserError, match=message):
        splits_of(write(tmp_path, **parts), 3, "x")


@pytest.mark.parametrize("seed", [10**23, -(10**23), True])
def test_what_is_no_seed_is_refused(seed):
    with pytest.raises(UserError, match=rf"data.splits={seed} is no seed"):
        splits_of(seed, 3, "x")


class Bomb:
    def __reduce__(self):
        return (exec, ("raise SystemExit('code was run')",))


def test_pickled_code_is_refused(tmp_path):
    folder = write(tmp_path, val=[1], test=[2])
    (folder / "train_ids.pt").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(UserError, match="would run code of its own"):
        splits_of(folder, 3, "x")
