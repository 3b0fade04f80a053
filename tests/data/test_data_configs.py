"""Every configs/data/*.yaml makes a probe from a small copy of the official files."""

import gzip
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_module
from hydra.utils import instantiate
from packed_pictures import write_parquet, write_saved, write_tar, write_zip
from pictures import class_folders, picture

CHOICES = sorted(path.stem for path in (Path(__file__).parents[2] / "configs" / "data").glob("*.yaml"))
N = 30
WITH_LIBRARIES = {"parquet": "pyarrow", "huggingface": "datasets"}
"""Choices that need a library which is not always there; `packed_pictures` writes their files."""


def cifar(root, classes):
    folder = root / f"cifar{classes}"
    folder.mkdir(parents=True)
    head = np.tile(np.arange(classes, dtype=np.uint8), N)[:N, None]
    head = head if classes == 10 else np.concatenate([head // 5, head], axis=1)
    records = np.concatenate([head, np.random.default_rng(0).integers(0, 256, (N, 3072), dtype=np.uint8)], axis=1)
    for stem in ("test_batch", "test", "train", *(f"data_batch_{i}" for i in range(1, 6))):
        records.tofile(folder / f"{stem}.bin")
    (folder / "batches.meta.txt").write_text("".join(f"class {i}\n" for i in range(10)))
    (folder / "fine_label_names.txt").write_text("".join(f"class_{i}\n" for i in range(100)))
    (folder / "coarse_label_names.txt").write_text("".join(f"super_{chr(97 + i)}\n" for i in range(20)))


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A $NEURONX_DATA with a little of everything, and stand-ins for what would be fetched."""
    root = tmp_path / "data"
    monkeypatch.setenv("NEURONX_DATA", str(root))
    class_folders(root / "imagenet_val", {"n01440764": N // 2, "n01514859": N // 2})
    class_folders(root / "broden" / "images", {"ade20k": N}, "jpg")
    class_folders(root / "streets", {"images": N, "annotations": N})
    places = root / "places365_val"
    (places / "val_256").mkdir(parents=True)
    names = [f"{i:03d}.jpg" for i in range(N)]
    for i, name in enumerate(names):
        picture(i).save(places / "val_256" / name)
    (places / "places365_val.txt").write_text("".join(f"{name} {i % 3}\n" for i, name in enumerate(names)))
    (places / "categories_places365.txt").write_text("/a/airfield 0\n/a/attic 1\n/b/barn 2\n")
    write_zip(root / "few.zip", root / "imagenet_val")
    write_tar(root / "few.tar", N)
    for choice, library in WITH_LIBRARIES.items():
        if find_spec(library):
            write_parquet(root / "few.parquet", N) if choice == "parquet" else write_saved(root / "saved", N)
    cifar(root, 10)
    cifar(root, 100)
    (root / "mnist").mkdir()
    for name, shape in {"images-idx3": (N, 28, 28), "labels-idx1": (N,)}.items():
        head = bytes([0, 0, 8, len(shape)]) + b"".join(n.to_bytes(4, "big") for n in shape)
        (root / "mnist" / f"t10k-{name}-ubyte.gz").write_bytes(gzip.compress(head + bytes(int(np.prod(shape)))))

    def stand_in(url, path, size, sha256, hint):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".pt":
            part = {"train": range(20), "val": range(20, 25), "test": range(25, N)}[path.stem.removesuffix("_ids")]
            torch.save(torch.tensor(list(part)), path)
        elif path.suffix == ".json":
            path.write_text('{"animal": [0, 1]}')
        else:
            count = 1000 if path.stem == "imagenet" else 3
            path.write_text("\r".join(f"published {i}" for i in range(count)))
        return path

    monkeypatch.setattr("neuronx.data.published.fetch", stand_in)
    return root


@pytest.mark.parametrize("choice", [choice for choice in CHOICES if choice != "shapes"])
def test_every_choice_is_instantiated(data, choice):
    if choice in WITH_LIBRARIES:
        pytest.importorskip(WITH_LIBRARIES[choice])
    own = {
        "zip": [f"data.root={data / 'few.zip'}"],
        "webdataset": [f"data.root={data / 'few.tar'}"],
        "parquet": [f"data.root={data / 'few.parquet'}"],
        "huggingface": [f"data.root={data / 'saved'}"],
        "folder": [f"data.root={data / 'imagenet_val'}"],
        "labelled_pictures": [f"data.root={data / 'streets'}", "data.legend={0:sky,1:road}", "data.ignore=[255]"],
    }
    overrides = [f"data={choice}", *own.get(choice, [])]
    with initialize_config_module("neuronx.configs", version_base="1.3"):
        cfg = compose("evaluate", overrides=overrides)
    probe = instantiate(cfg.data, _convert_="all")
    domain = "shapes" if choice in ("places", "shapes_marked") else "natural"
    assert len(probe) >= N and probe.domain == cfg.clip.domain == cfg.judge.domain == domain
    assert len(probe.fingerprint) == 64 and len(probe.load([0, len(probe) - 1])) == 2
    assert sum(map(len, probe.splits.values())) == len(probe)
    assert all(0 <= c < len(probe.class_names) for classes in probe.hierarchy.values() for c in classes)
    if choice.endswith("_published"):
        assert probe.splits["val"].tolist() == [20, 21, 22, 23, 24]
    if choice in ("imagenet_val_published", "places365_val_published"):
        assert probe.class_names[2] == "published 2"
