"""The main job on real networks and pictures: `../shared/data`, judged by labels."""

import csv
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module

from neuronx.command import cli


def evaluate(folder: Path, monkeypatch, *overrides: str):
    """Calls the command as a function; its files go to `folder`."""
    monkeypatch.setattr(cli, "run_folder", lambda _: folder)
    with initialize_config_module("neuronx.configs", version_base="1.3"):
        cfg = compose("evaluate", overrides=["judge=labels", "explain=le_label", "logger=csv", *overrides])
    return cli.evaluate(cfg)


@pytest.mark.slow
def test_squeezenet_on_the_imagenet_sample(shared, tmp_path, monkeypatch, caplog):
    data = shared / "data"
    with caplog.at_level("INFO", logger="neuronx"):
        found = evaluate(
            tmp_path,
            monkeypatch,
            "target=squeezenet1_0_imagenet",
            f"target.squeezenet1_0_imagenet.weights={data}/weights/squeezenet1_0_imagenet.safetensors",
            "data=folder",
            f"data.root={data}/imagenet_sample",
            f"data.hierarchy={data}/concept_sets/imagenet_superclass_to_ids.json",
            f"data.class_names={data}/concept_sets/imagenet_labels_clean.txt",
            "layers=features.12",
        )
    assert "activity filter removed" in caplog.text, "one image a class: the class labels cannot take part"
    mean = {row.method: (row.mean, row.n_units + row.n_untested) for row in found.leaderboard}
    assert mean["le_label"][0] >= 0.17 and mean["le_label"][1] == 512
    assert mean["shuffled-le_label"][0] <= 0.04
    assert mean["ceiling"][0] > mean["le_label"][0]


@pytest.mark.slow
def test_resnet20_on_cifar10(shared, tmp_path, monkeypatch):
    data = shared / "data"
    found = evaluate(
        tmp_path,
        monkeypatch,
        "target=custom",
        "target.custom.model=neuronx.targets.cifar.resnet20",
        f"target.custom.weights={data}/weights/resnet20_cifar10-12fca82f.th",
        "target.custom.transform=cifar10",
        "target.custom.name=resnet20",
        "data=folder",
        f"data.root={data}/cifar10/test",
        "layers=[layer3,linear]",
    )
    mean = {(row.layer, row.method): row.mean for row in found.leaderboard}
    assert mean["layer3", "le_label"] >= 0.62
    with (tmp_path / "explanations" / "resnet20_linear_le_label.csv").open(newline="") as file:
        first = [row["concept0"] for row in csv.DictReader(file)]
    assert first == sorted(path.name for path in (data / "cifar10" / "test").iterdir())
